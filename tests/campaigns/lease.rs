//! Only one live lease may commit a result: what is left of an execution whose lease is over says what it likes, with
//! the number and the fence that it was given, and nothing of it is written.
//!
//! The processor of a first execution leaves a process in a session of its own, which neither the kernel nor the next
//! start can end. The daemon is killed; the job runs again; then the process of the first execution speaks.

use std::fs;

use crate::oracle::Oracle;
use crate::seed::Seed;
use crate::support::{Daemon, Place, count, text, wait_until};

/// What the processor does between its two records: the first time it leaves somebody behind.
const LEAVES_A_GHOST: &str = r"
if mkdir HERE/first 2>/dev/null; then
    id=$(INGESTD effect begin --kind step | cut -d ' ' -f 2)
    ID=$id setsid sh HERE/ghost.sh >/dev/null 2>&1 &
    touch HERE/started
    while :; do sleep 1; done
fi
touch HERE/second
until [ -e HERE/ghost.done ]; do sleep 0.05; done
";

/// What is left of the first execution: exit codes of all that a lease allows to say.
const GHOST: &str = r#"
until [ -e HERE/second ]; do sleep 0.05; done
for words in "effect commit $ID" "effect abort $ID" "effect begin --kind late" "stage stale"; do
    INGESTD $words; echo "$? $words" >> HERE/ghost.said
done
mv HERE/ghost.said HERE/ghost.done
"#;

#[test]
fn what_outlives_its_lease_commits_nothing() {
    let seed = Seed::of("lease");
    let place = Place::new();
    let here = |script: &str| {
        script
            .replace("HERE", place.at("").to_str().unwrap())
            .replace("INGESTD ", concat!(env!("CARGO_BIN_EXE_ingestd"), " "))
    };
    fs::write(place.at("ghost.sh"), here(GHOST)).unwrap();
    let oracle = Oracle::new(&place.at(""), &here(LEAVES_A_GHOST));
    place.configure(&format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = {}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
        oracle.command
    ));
    let mut daemon = Daemon::start(&place);
    oracle.put(&place.inbox().join("file"), "content");
    wait_until("the first execution has begun its step", || place.at("started").exists());
    daemon.kill();
    oracle.fault("kill -9");
    let mut daemon = Daemon::start(&place);
    wait_until("the job is done by the second", || place.in_state("completed") == 1);
    let said = fs::read_to_string(place.at("ghost.done")).unwrap();
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(said.lines().all(|line| line.starts_with("1 ")), "something of the first execution was taken:\n{said}");
    let job = place.show(1);
    assert_eq!((count(&job, "attempt"), count(&job, "crashes")), (1, 0), "{job}");
    assert!(job["stage"].is_null(), "{job}");
    let effects = job["effects"].as_array().unwrap();
    assert_eq!(effects.len(), 1, "{job}");
    assert_eq!(text(&effects[0], "state"), "unknown", "nobody has said that the step was taken: {job}");
    let figures = oracle.verdict(&place, 1);
    assert_eq!(figures.repeated, 1);
    assert_eq!(daemon.stop(), 0);
    seed.report(format_args!("{figures}; 4 words of a lease that was over refused"));
}
