//! Scans as runs: told with their progress, gone on with after a crash, pruned.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::*;

fn configuration(keys: &str) -> String {
    format!(
        "[pipeline.p]\nkind = \"noop\"\nconcurrency = 8\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n{keys}\n"
    )
}

/// So many files in folders of a hundred.
fn fill(place: &Place, number: usize) {
    fill_by(place, number, |path| fs::write(path, path.as_os_str().as_encoded_bytes()).unwrap());
}

/// The same, made as told.
fn fill_by(place: &Place, number: usize, make: impl Fn(&Path)) {
    for n in 0..number {
        let folder = place.inbox().join(format!("d{}", n / 100));
        if n % 100 == 0 {
            fs::create_dir(&folder).unwrap();
        }
        make(&folder.join(format!("f{n}")));
    }
}

/// Every run, newest first.
#[track_caller]
fn runs(place: &Place) -> Vec<Value> {
    place.ok(&["runs", "list", "--json"]).json_lines()
}

/// Waits until so many runs are there and the newest is over; answers that one.
#[track_caller]
fn newest_over(place: &Place, number: usize) -> Value {
    wait_for(&format!("run {number} is over"), || {
        let runs = runs(place);
        let newest = runs.first()?.clone();
        (runs.len() == number && text(&newest, "state") == "completed").then_some(newest)
    })
}

fn numbers(run: &Value) -> [i64; 4] {
    ["processed", "enqueued", "skipped", "position"].map(|field| count(run, field))
}

#[test]
fn scans_that_are_asked_for_are_runs_with_their_counts_and_scans_that_come_with_time_are_none() {
    let place = Place::with(&configuration("rescan_interval = \"1s\""));
    fill(&place, 3_000);
    let mut daemon = Daemon::start(&place);
    let first = newest_over(&place, 1);
    assert_eq!(numbers(&first), [3_000, 3_000, 0, 3_000]);
    assert_eq!((text(&first, "type"), text(&first, "name"), text(&first, "pipeline")), ("initial", "inbox", "p"));
    let input = serde_json::json!({ "kind": "watch", "path": place.inbox().to_str().unwrap(), "digest": null });
    assert_eq!(first["input"], input);
    assert_eq!((&first["total"], &first["current_path"]), (&3_000.into(), &Value::Null));
    assert!(first["rate_per_s"].as_f64().unwrap() > 0.0 && count(&first, "duration_ms") > 0, "{first}");
    assert!(!text(&first, "finished_at").is_empty());
    assert_eq!(place.ok(&["runs", "show", "1", "--json"]).json(), first);
    assert!(place.ok(&["runs", "show", "1"]).stdout.contains("3 000"));
    assert!(place.ok(&["runs", "list"]).stdout.contains("initial"));
    place.exits(3, &["runs", "show", "2"]);

    // Rescans by time, some of which find something.
    let scanned = || text(&place.status()["watches"]["inbox"], "last_scan_at").to_owned();
    for _ in 0..2 {
        let before = scanned();
        wait_until("a rescan went through", || scanned() != before);
    }
    place.put("later", "later");
    place.wait_count("completed", 3_001);
    assert_eq!(runs(&place).len(), 1);

    place.ok(&["watch", "scan", "inbox"]);
    let asked = newest_over(&place, 2);
    assert_eq!((text(&asked, "type"), numbers(&asked)), ("incremental", [3_001, 0, 3_001, 3_001]));
    assert_eq!(daemon.stop(), 0);
    fs::write(place.inbox().join("while-away"), "x").unwrap();
    let mut daemon = Daemon::start(&place);
    let start = newest_over(&place, 3);
    assert_eq!((text(&start, "type"), numbers(&start)), ("incremental", [3_002, 1, 3_001, 3_002]));
    daemon.kill();
    let _daemon = Daemon::start(&place);
    assert_eq!(text(&newest_over(&place, 4), "type"), "recovery");
}

#[test]
fn a_polled_tree_makes_one_run_however_often_it_is_polled() {
    let place = Place::with(&configuration("mode = \"poll\"\npoll_interval = \"100ms\""));
    let _daemon = Daemon::start(&place);
    newest_over(&place, 1);
    let scanned = || text(&place.status()["watches"]["inbox"], "last_scan_at").to_owned();
    for number in 0..3 {
        let before = scanned();
        wait_until("the tree was polled", || scanned() != before);
        place.put(&number.to_string(), "content");
        place.wait_count("completed", number + 1);
    }
    assert_eq!(runs(&place).len(), 1);
}

/// Kills the daemon while a first scan is in its middle, and answers its run as the dead daemon left it.
#[track_caller]
fn die_in_a_first_scan(place: &Place) -> Value {
    let mut daemon = Daemon::start(place);
    wait_until("the scan is in its middle", || place.in_state("pending") > 1_000 && !runs(place).is_empty());
    daemon.kill();
    let left = runs(place);
    assert_eq!((left.len(), text(&left[0], "state")), (1, "running"), "the scan was through before: {left:?}");
    left[0].clone()
}

#[test]
fn a_first_scan_that_was_killed_goes_on_as_the_same_run_and_takes_each_file_once() {
    const FILES: usize = 10_000;
    let place = Place::with_database(&configuration(""));
    fill(&place, FILES);
    // Nothing is done, so that every job stays to be counted.
    place.ok(&["pause"]);
    let left = die_in_a_first_scan(&place);
    let taken = place.in_state("pending");
    assert!(taken < i64::try_from(FILES).unwrap(), "the scan was through before");
    let mut daemon = Daemon::start(&place);
    let over = newest_over(&place, 1);
    assert_eq!((&over["id"], text(&over, "type")), (&left["id"], "initial"));
    let all = i64::try_from(FILES).unwrap();
    assert_eq!(numbers(&over), [all, all, 0, all], "{taken} were taken before");
    assert_eq!(place.in_state("pending"), all);
    let mut names: Vec<String> = place.jobs().iter().map(|job| text(job, "relative").to_owned()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), FILES, "a file was taken twice");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_first_scan_that_has_to_wait_for_room_is_one_run_however_often_it_is_broken_off() {
    let place = Place::with(&format!("[queue]\nmax_pending = 100\n{}", configuration("")));
    fill(&place, 2_000);
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 2_000);
    let over = newest_over(&place, 1);
    assert_eq!((text(&over, "type"), numbers(&over)), ("initial", [2_000, 2_000, 0, 2_000]));
}

#[test]
fn the_run_of_a_watch_that_was_removed_is_cancelled_and_a_paused_watch_keeps_its_own() {
    let place = Place::with_database("[pipeline.p]\nkind = \"noop\"\n[queue]\nmax_pending = 100\n");
    fill(&place, 300);
    place.ok(&["pause"]);
    let inbox = place.inbox();
    place.ok(&["watch", "add", "made", inbox.to_str().unwrap(), "--pipeline", "p", "--settle", "0s"]);
    let mut daemon = Daemon::start(&place);
    let waits = |run: &Value| text(run, "state") == "running" && text(run, "last_error").contains("paused");
    wait_until("the run waits for room", || runs(&place).first().is_some_and(waits));
    place.ok(&["watch", "pause", "made"]);
    daemon.kill();
    // Its run is paused with it, and is broken off where it stood.
    let broken_off = |run: &Value| text(run, "state") == "paused" && count(run, "processed") >= 100;
    let mut daemon = Daemon::start(&place);
    assert!(broken_off(&runs(&place)[0]));
    assert_eq!(daemon.stop(), 0);
    assert!(broken_off(&runs(&place)[0]), "a stop ends no run");
    place.ok(&["watch", "remove", "made"]);
    let _daemon = Daemon::start(&place);
    wait_until("the run is cancelled", || text(&runs(&place)[0], "state") == "cancelled");
    assert_eq!(runs(&place).len(), 1);
}

#[test]
fn a_scan_under_way_is_told_with_its_files_rate_and_folder() {
    // More files than may settle at a time: the scan stands still in its middle.
    let place = Place::with(&configuration("").replace("\"0s\"", "\"1h\""));
    let file = place.file("linked", "content");
    fill_by(&place, 20_000, |path| fs::hard_link(&file, path).unwrap());
    let _daemon = Daemon::start(&place);
    let seen = wait_for("the scan is told", || {
        let scan = place.status()["watches"]["inbox"]["scanning"].clone();
        scan["files"].as_u64().is_some_and(|files| files > 10_000).then_some(scan)
    });
    assert!(text(&seen, "current").starts_with('d') && seen["rate_per_s"].as_f64().unwrap() > 0.0, "{seen}");
    for command in [&["watch", "show", "inbox"][..], &["status"]] {
        let told = place.ok(command).stdout;
        let line = told.lines().find(|line| line.starts_with("scanning")).unwrap_or_else(|| panic!("{told}"));
        assert!(line.contains("per second, at ./d"), "{line}");
    }
    wait_until("the run's progress is written", || {
        let run = runs(&place)[0].clone();
        assert_eq!((text(&run, "state"), &run["total"]), ("running", &Value::Null), "{run}");
        count(&run, "processed") > 10_000 && text(&run, "current_path").starts_with(place.inbox().to_str().unwrap())
    });
}

#[test]
fn what_a_run_once_scanned_is_written_down_before_it_ends() {
    let place = Place::with(&configuration(""));
    fill(&place, 300);
    for (number, expected) in [("initial", [300, 300, 0, 300]), ("incremental", [300, 0, 300, 300])].iter().enumerate()
    {
        place.ok(&["run", "--once"]);
        let run = &runs(&place)[0];
        assert_eq!((count(run, "id"), text(run, "state")), (i64::try_from(number).unwrap() + 1, "completed"), "{run}");
        assert_eq!((text(run, "type"), numbers(run)), *expected);
    }
}

#[test]
fn runs_that_are_over_are_pruned_and_a_later_scan_is_not_the_first() {
    let retention = "[maintenance]\nretention = { runs = \"0s\" }\n";
    let place = Place::with(&format!("{retention}{}", configuration("")));
    let _daemon = Daemon::start(&place);
    newest_over(&place, 1);
    // Older than the instant at which it is pruned.
    std::thread::sleep(Duration::from_millis(5));
    let pruned = place.ok(&["db", "prune", "--json"]).json();
    assert_eq!(pruned["runs"], 1, "{pruned}");
    assert!(runs(&place).is_empty());
    place.ok(&["watch", "scan", "inbox"]);
    let later = newest_over(&place, 1);
    assert_eq!((count(&later, "id"), text(&later, "type")), (2, "incremental"));
}
