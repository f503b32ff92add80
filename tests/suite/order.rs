//! Order per source while the pool works at full speed: versions one after the other, in order, and the last one done.

use std::collections::BTreeMap;
use std::fs;

use crate::support::*;

const CHANGES: usize = 200;

#[test]
fn a_file_that_changes_all_the_time_is_processed_one_version_after_the_other_among_thousands_of_others() {
    let others = if long() { 10_000 } else { 2_000 };
    let place = Place::new();
    let (lock, together, ledger) = (place.at("lock"), place.at("together"), place.at("ledger"));
    // `mkdir` succeeds for one alone.
    let script = format!(
        "case $INGESTD_PATH in */hot) mkdir {lock} || echo $INGESTD_JOB >> {together}; \
         echo $INGESTD_JOB $(cat {{path}}) >> {ledger}; sleep 0.1; rmdir {lock};; esac",
        lock = lock.display(),
        together = together.display(),
        ledger = ledger.display(),
    );
    place.configure(&format!(
        "[pipeline.p]\nkind = \"exec\"\nconcurrency = 6\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n"
    ));
    place.ok(&["db", "migrate"]);
    let mut daemon = Daemon::start(&place);
    for change in 0..CHANGES {
        // Urgent: each version is due the moment that nothing is in its way.
        let hot = place.file("hot", change.to_string());
        place.ok(&["add", hot.to_str().unwrap(), "--priority", "urgent"]);
        let other = |other| place.file(&format!("{change}-{other}"), change.to_string()).to_str().unwrap().to_owned();
        let paths: Vec<String> = (0..others / CHANGES).map(other).collect();
        let added = place.feed(&["add", "-"], paths.join("\n").as_bytes());
        assert_eq!(added.ids().len(), paths.len(), "{added:?}");
    }
    wait_until("everything is done", || {
        let jobs = &place.status()["jobs"];
        let open: i64 = ["pending", "running", "retrying"].iter().map(|state| jobs[*state].as_i64().unwrap_or(0)).sum();
        open == 0
    });
    assert!(!together.exists(), "two versions ran at once");
    let jobs = place.jobs();
    let of_hot: BTreeMap<i64, i64> = jobs
        .iter()
        .filter(|job| text(job, "path").ends_with("/hot"))
        .map(|job| (count(job, "id"), count(job, "version")))
        .collect();
    let lines = fs::read_to_string(&ledger).unwrap();
    let done: Vec<(i64, usize)> = lines
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(job, content)| (of_hot[&job.parse().unwrap()], content.parse().unwrap()))
        .collect();
    eprintln!("{} versions, {} of them executed, {} other files", of_hot.len(), done.len(), others);
    assert!(done.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "out of order or twice: {done:?}");
    let last = of_hot.values().max().unwrap();
    assert_eq!(*done.last().unwrap(), (*last, CHANGES - 1), "the last version, last, with the last content");
    // What the first version's execution finds already changed counts as the first version.
    assert!((CHANGES - 1..=CHANGES).contains(&of_hot.len()), "each change is a version");
    assert!(done.len() >= 5, "versions ran in between");
    let completed = jobs.iter().filter(|job| text(job, "state") == "completed").count();
    assert_eq!(completed, others + done.len(), "every other file once");
    assert_eq!(daemon.stop(), 0);
    place.ok(&["db", "check"]);
}
