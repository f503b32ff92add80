//! The verdict: everything at rest, each file is accounted for, once and whole.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::content::is_whole;
use super::tree::files_below;
use super::writers::Written;
use crate::support::*;

/// Waits for rest, and judges.
pub fn reach(place: &Place, ledger: &Ledger, daemon: &Daemon, written: &[Written]) {
    wait_until("everything is at rest", || at_rest(place));
    let files = files_below(&place.inbox());
    rest_with_nothing_missing(place, ledger, &files);
    audit(place);
    let (jobs, history) = (place.jobs(), place.history());
    let executions = by_job(&history, "job");
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &history {
        *outcomes.entry(text(row, "outcome")).or_default() += 1;
    }
    let (files, records) = (files.len(), ledger.entries().len());
    eprintln!("{files} files, {} jobs, {records} records, executions by outcome: {outcomes:?}", jobs.len());
    nothing_half_written(place, ledger, &executions, written);
    nothing_twice(ledger, &jobs, &executions);
    nothing_failed_that_is_there(place, &jobs);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// What is not processed yet has a minute, with nothing but time to help it: no scan is asked for.
fn rest_with_nothing_missing(place: &Place, ledger: &Ledger, files: &[PathBuf]) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let missing = missing(place, ledger, files);
        if missing.is_empty() && at_rest(place) {
            return;
        }
        assert!(Instant::now() < deadline, "{} are missing:\n{}", missing.len(), missing.join("\n"));
        sleep(Duration::from_millis(300));
    }
}

fn at_rest(place: &Place) -> bool {
    let status = place.status();
    let waits = |state: &str| status["jobs"][state].as_i64().unwrap_or(0) > 0;
    status["watches"]["inbox"]["settling"] == 0 && !["pending", "running", "retrying"].into_iter().any(waits)
}

/// Files whose last record is not of their content, or whose newest job does not say that it is done.
fn missing(place: &Place, ledger: &Ledger, files: &[PathBuf]) -> Vec<String> {
    let last: HashMap<String, String> = ledger.entries().into_iter().map(|entry| (entry.path, entry.sha256)).collect();
    let jobs = place.jobs();
    let mut newest: HashMap<&str, &Value> = HashMap::new();
    for job in &jobs {
        newest.entry(text(job, "path")).or_insert(job);
    }
    let complaint = |relative: &Path| {
        let path = place.inbox().join(relative);
        let (name, content) = (path.to_str().unwrap(), fs::read(&path).unwrap());
        let Some(job) = newest.get(name) else { return Some(format!("{name} is no job")) };
        let done = text(job, "state") == "completed" || text(job, "reason") == "unchanged";
        let agrees = last.get(name).is_some_and(|sum| *sum == sha256_of(&content));
        (!done || !agrees).then(|| {
            let [state, reason, error] = ["state", "reason", "error"].map(|field| &job[field]);
            format!("{name}: job {} is {state}, {reason}, {error}; recorded as it is: {agrees}", job["id"])
        })
    };
    files.iter().filter_map(|relative| complaint(relative)).collect()
}

/// The program's own account, where it has one.
fn audit(place: &Place) {
    if place.cli(&["audit", "--help"]).code == 0 {
        place.ok(&["audit"]);
    }
}

fn by_job<'a>(rows: &'a [Value], field: &str) -> HashMap<i64, Vec<&'a Value>> {
    let mut found: HashMap<i64, Vec<&Value>> = HashMap::new();
    for row in rows {
        found.entry(count(row, field)).or_default().push(row);
    }
    found
}

fn millis(row: &Value, field: &str) -> i64 {
    text(row, field).parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// A record that is not whole is excused only by a writer who began while that execution was under way: nobody can keep
/// a file from being written while a processor reads it. Whoever had it open before, had to be waited for.
fn nothing_half_written(place: &Place, ledger: &Ledger, executions: &HashMap<i64, Vec<&Value>>, written: &[Written]) {
    for entry in ledger.entries() {
        let rested = |written: &Written| written.rested.as_ref() == Some(&entry.sha256);
        if is_whole(&ledger.copy(&entry.sha256)) || written.iter().any(rested) {
            continue;
        }
        let relative = Path::new(&entry.path).strip_prefix(place.inbox()).unwrap();
        let begun: Vec<i64> =
            written.iter().filter(|written| written.relative == relative).map(|written| written.begun_ms).collect();
        let during = |row: &&Value| {
            let (started, finished) = (millis(row, "started_at"), millis(row, "finished_at"));
            begun.iter().any(|begun| (started..=finished).contains(begun))
        };
        let of_job = &executions[&entry.job];
        assert!(of_job.iter().any(during), "half-written: {entry:?}; open since {begun:?}; {of_job:?}");
    }
}

/// A job is recorded once, and once more for each execution that a kill interrupted; and no content of a source that
/// completed is processed again as its next version.
fn nothing_twice(ledger: &Ledger, jobs: &[Value], executions: &HashMap<i64, Vec<&Value>>) {
    let mut records: HashMap<i64, usize> = HashMap::new();
    for entry in ledger.entries() {
        *records.entry(entry.job).or_default() += 1;
    }
    for (job, times) in records {
        let of_job = executions.get(&job).map_or(&[][..], Vec::as_slice);
        let ended = |outcome: &str| of_job.iter().filter(|row| text(row, "outcome") == outcome).count();
        let allowed = ended("completed") + ended("crashed");
        assert!(ended("completed") <= 1 && times <= allowed, "job {job} is recorded {times} times: {of_job:?}");
    }
    let mut versions: HashMap<(&str, i64), i64> = HashMap::new();
    for job in jobs {
        let before = versions.insert((text(job, "path"), count(job, "version")), count(job, "id"));
        assert_eq!(before, None, "two jobs of one version: {job}");
    }
}

/// A job may fail for a file that is gone by then; what is there has been done.
fn nothing_failed_that_is_there(place: &Place, jobs: &[Value]) {
    for job in jobs.iter().filter(|job| text(job, "state") == "failed") {
        let gone = text(&job["error"], "kind") == "vanished" || text(&job["error"], "kind") == "exit";
        assert!(gone, "{job}\n{}", place.show(count(job, "id")));
    }
}
