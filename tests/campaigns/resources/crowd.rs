//! Very many files at once, in bounded memory: some thousands, or 200 000 in the long form. Half of them lie there
//! before the daemon starts, half come while it works; in the middle it is killed.

use std::fs;

use super::rude::peak;
use crate::base::Base;
use crate::seed::Seed;
use crate::support::{Daemon, Place, count, long, wait_until};

#[test]
fn a_crowd_of_files_is_taken_in_bounded_memory() {
    let seed = Seed::of("resources::crowd");
    let place = Place::with(
        "[pipeline.p]\nkind = \"noop\"\nconcurrency = 32\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let files = if long() { 200_000 } else { 4_000 };
    let crowd = |part: &str| {
        for number in 0..files / 2 {
            let folder = place.inbox().join(format!("{part}-{}", number % 100));
            if number < 100 {
                fs::create_dir(&folder).unwrap();
            }
            fs::write(folder.join(number.to_string()), part).unwrap();
        }
    };
    let mut daemon = Daemon::start(&place);
    place.put("first", "first");
    place.wait_count("completed", 1);
    let base = Base::of(&daemon, &place);
    assert_eq!(daemon.stop(), 0);
    crowd("there");
    let mut daemon = Daemon::start(&place);
    wait_progress(&place, i64::from(files / 10));
    daemon.kill();
    let daemon = Daemon::start(&place);
    crowd("coming");
    wait_progress(&place, i64::from(1 + files));
    let peak = peak(daemon.pid());
    assert!(peak < 200 << 20, "the daemon had {peak} bytes");
    base.wait_back(&daemon, &place);
    let jobs = place.jobs();
    assert_eq!(jobs.len(), usize::try_from(1 + files).unwrap(), "a file had two jobs");
    assert!(jobs.iter().all(|job| count(job, "attempt") <= 1));
    seed.report(format!("{files} files, peak {} MiB, lost 0", peak >> 20));
}

/// Waits until so many are done, however long it takes, as long as it never stands still.
fn wait_progress(place: &Place, wanted: i64) {
    let mut done = 0;
    while done < wanted {
        wait_until("there is progress", || place.in_state("completed") > done);
        done = place.in_state("completed");
    }
}
