//! The keys of `[queue]`, `[shutdown]` and `[maintenance]` make a difference. (`shutdown.grace`: see `shutdown`;
//! the keys of `[maintenance]`: see `upkeep`; `queue.max_crashes`: see `crash`.)

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::*;

/// Pipelines whose jobs wait until `go` is there.
fn gates(queue: &str, pipelines: &[&str], keys: &str) -> (Place, Ledger) {
    let place = Place::new();
    let ledger = Ledger::new(&place, &format!("while [ ! -e {} ]; do sleep 0.05; done", place.at("go").display()));
    let pipeline = |name: &&str| format!("[pipeline.{name}]\nkind = \"exec\"\ncommand = {}\n{keys}\n", ledger.command);
    let pipelines: String = pipelines.iter().map(pipeline).collect();
    place.configure(&format!("[queue]\n{queue}\n{pipelines}"));
    place.ok(&["db", "migrate"]);
    (place, ledger)
}

fn fill(place: &Place, pipeline: &str, number: usize) {
    for index in 0..number {
        let name = format!("{pipeline}-{index}");
        place.add(&place.file(&name, &name), &["--pipeline", pipeline]);
    }
}

#[test]
fn queue_concurrency_bounds_all_pipelines_together_and_is_shared_fairly() {
    let (place, ledger) = gates("concurrency = 4", &["a", "b"], "concurrency = 8");
    fill(&place, "a", 8);
    fill(&place, "b", 8);
    let _daemon = Daemon::start(&place);
    wait_until("four run", || place.in_state("running") == 4);
    let status = place.status();
    assert_eq!(ledger.entries().len(), 4, "{status}");
    let of_b = ledger.entries().iter().filter(|entry| entry.path.contains("/b-")).count();
    assert_eq!(of_b, 2, "fairly over the pipelines");
    fs::write(place.at("go"), "").unwrap();
    place.wait_count("completed", 16);
}

#[test]
fn without_a_limit_over_all_each_pipeline_has_its_own() {
    let (place, ledger) = gates("concurrency = 0", &["a", "b"], "concurrency = 3");
    fill(&place, "a", 6);
    fill(&place, "b", 6);
    let _daemon = Daemon::start(&place);
    wait_until("three of each run", || ledger.entries().len() == 6);
    assert_eq!(place.in_state("running"), 6);
    fs::write(place.at("go"), "").unwrap();
    place.wait_count("completed", 12);
}

#[test]
fn queue_digest_chooses_the_algorithm() {
    for (name, digest) in [("sha256", format!("sha256:{}", sha256_of(b"abc"))), ("blake3", String::new())] {
        let place = Place::with_database(&format!("[queue]\ndigest = \"{name}\"\n[pipeline.p]\nkind = \"noop\"\n"));
        let file = place.file("a", "abc");
        place.add(&file, &[]);
        place.ok(&["run", "--once"]);
        let expected = if digest.is_empty() { blake3_of(&file) } else { digest };
        assert_eq!(text(&place.jobs()[0], "digest"), expected);
    }
}

#[test]
fn a_job_that_outlasts_its_lease_keeps_it_by_renewal() {
    let (place, ledger) = gates("lease = \"1s\"", &["a"], "");
    fill(&place, "a", 1);
    let _daemon = Daemon::start(&place);
    wait_until("it runs", || ledger.entries().len() == 1);
    // Three leases long: the duration is what is tested.
    sleep(Duration::from_secs(3));
    fs::write(place.at("go"), "").unwrap();
    place.wait_count("completed", 1);
    assert_eq!(ledger.entries().len(), 1, "it was leased twice");
    assert_eq!(place.jobs()[0]["crashes"], 0);
}

#[test]
fn a_daemon_that_was_frozen_for_longer_than_a_lease_does_not_settle_under_it() {
    for (lease, executions) in [("1s", 2), ("10m", 1)] {
        let (place, ledger) = gates(&format!("lease = \"{lease}\""), &["a"], "");
        fill(&place, "a", 1);
        let daemon = Daemon::start(&place);
        wait_until("it runs", || ledger.entries().len() == 1);
        daemon.signal(Signal::STOP);
        sleep(Duration::from_millis(2_500));
        daemon.signal(Signal::CONT);
        if executions == 2 {
            wait_until("it was started anew", || ledger.entries().len() == 2);
        }
        fs::write(place.at("go"), "").unwrap();
        place.wait_count("completed", 1);
        let job = place.jobs().remove(0);
        assert_eq!((ledger.entries().len(), count(&job, "attempt")), (executions, 1), "lease {lease}: {job}");
    }
}

#[test]
fn queue_priority_aging_lifts_what_waits() {
    for (aging, first) in [("1s", "old"), ("0s", "new")] {
        let (place, ledger) = gates(&format!("priority_aging = \"{aging}\""), &["a"], "concurrency = 1");
        let add = |name: &str, priority: &str| place.add(&place.file(name, name), &["--priority", priority]);
        let _daemon = Daemon::start(&place);
        let gate = add("gate", "normal");
        wait_until("the gate runs", || ledger.entries().len() == 1);
        let old = add("old", "low");
        // Two levels' worth of waiting: the duration is what is tested.
        sleep(Duration::from_millis(2_200));
        let new = add("new", "high");
        fs::write(place.at("go"), "").unwrap();
        place.wait_count("completed", 3);
        let order: Vec<i64> = ledger.entries().iter().map(|entry| entry.job).collect();
        let expected = if first == "old" { [gate, old, new] } else { [gate, new, old] };
        assert_eq!(order, expected, "priority_aging = {aging}");
    }
}

#[test]
fn queue_max_pending_pauses_intake_until_there_is_room() {
    let place = Place::with(
        "[queue]\nmax_pending = 5\n[pipeline.p]\nkind = \"noop\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let _daemon = Daemon::start(&place);
    place.ok(&["pause"]);
    for number in 0..5 {
        place.put(&format!("early-{number}"), "x");
    }
    wait_until("a warning shows", || place.status()["warnings"].to_string().contains("max_pending"));
    for number in 0..40 {
        place.put(&format!("late-{number}"), "x");
    }
    place.put("last", "x");
    assert!(place.in_state("pending") < 40, "{}", place.status()["jobs"]);
    place.ok(&["resume"]);
    place.wait_count("completed", 46);
    wait_until("the warning is gone", || !place.status()["warnings"].to_string().contains("max_pending"));
}
