//! The torture test: several writers do everything at once that can be done to files, while everything is done to the
//! daemon that can be done to it; then all stops, and each file has to be accounted for.
//!
//! 1. [`writers`]: each owns files in a deep tree that all share, and creates, appends, rewrites, replaces, renames,
//!    deletes, preallocates, touches and links them, its folders too. They hold the root by a descriptor, so that
//!    they go on when it is renamed. What they write says itself whether it is whole ([`content`]).
//! 2. [`chaos`]: the daemon is killed and started again, with so few watches at times that they run out; its root is
//!    moved away and back, at times with an empty folder in its place.
//! 3. [`verdict`]: with everything at rest, no scan is asked for: what was missed stays missed. The processor's own
//!    record is held against the tree and against the history.
//!
//! The seed is printed with a failure, and `INGESTD_TORTURE_SEED` gives it again: the same decisions, though not the
//! same interleaving. `INGESTD_TORTURE_SECONDS` says for how long (8, or 60 with `INGESTD_LONG=1`).

mod chaos;
mod content;
mod tree;
mod verdict;
mod writers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::*;

/// How many write at once.
const WRITERS: u64 = 3;

#[test]
fn whatever_writers_and_fate_do_each_final_version_is_processed_once_and_whole() {
    let seed = setting("INGESTD_TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let seconds = setting("INGESTD_TORTURE_SECONDS").unwrap_or(if long() { 60 } else { 8 });
    eprintln!("the seed of the torture: INGESTD_TORTURE_SEED={seed} INGESTD_TORTURE_SECONDS={seconds}");
    let place = Place::new();
    let ledger = Ledger::keeping(&place);
    place.configure(&configuration(&ledger));
    std::fs::create_dir(place.at("outside")).unwrap();

    let over = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (daemon, written) = std::thread::scope(|scope| {
        let write = |id| {
            let (place, over) = (&place, &over);
            scope.spawn(move || writers::Writer::new(id, seed, place).work(over))
        };
        let writing: Vec<_> = (0..WRITERS).map(write).collect();
        // A fate that fails must not leave the writers at work for ever.
        let fate = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| chaos::reign(&place, seed, end)));
        over.store(true, Ordering::Relaxed);
        let written = writing.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>();
        (fate.unwrap_or_else(|failure| std::panic::resume_unwind(failure)), written)
    });
    verdict::reach(&place, &ledger, &daemon, &written);
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

fn configuration(ledger: &Ledger) -> String {
    format!(
        "[queue]\nmax_crashes = 1000\n\
         [pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 4\n\
         retry = {{ max_attempts = 5, base = \"50ms\", max = \"200ms\" }}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"300ms\"\n\
         poll_interval = \"200ms\"\nrescan_interval = \"1h\"\n",
        ledger.command
    )
}
