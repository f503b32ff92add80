//! `status`, `health`, `completions`, `man`, and how wrong usage is answered.

use std::io::{BufRead, BufReader};

use crate::support::*;

fn noop() -> Place {
    Place::with_database(
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    )
}

#[test]
fn status_has_at_least_the_promised_fields() {
    let place = noop();
    let idle = place.status();
    assert_eq!(idle["daemon"]["running"], false, "{idle}");
    let daemon = Daemon::start(&place);
    place.put("a", "a");
    place.wait_count("completed", 1);
    let status = place.status();
    let daemon_view = &status["daemon"];
    assert_eq!((&daemon_view["running"], count(daemon_view, "pid")), (&true.into(), daemon.pid().into()));
    assert!(daemon_view["started_at"].is_string() && daemon_view["version"].is_string());
    for state in ["pending", "running", "retrying", "completed", "failed", "cancelled", "skipped"] {
        assert!(status["jobs"][state].is_i64(), "{state} in {status}");
    }
    for field in ["pipelines", "watches", "rate_per_s", "database", "maintenance", "warnings"] {
        assert!(!status[field].is_null(), "{field} in {status}");
    }
    for field in ["oldest_pending_ms", "success_rate", "last_recovery"] {
        assert!(status.get(field).is_some(), "{field} in {status}");
    }
    for field in ["1m", "5m", "15m"] {
        assert!(status["rate_per_s"][field].is_f64(), "{field} in {status}");
    }
    for field in ["size_bytes", "wal_bytes", "schema_version"] {
        assert!(status["database"][field].is_i64(), "{field} in {status}");
    }
    assert!(status["database"].get("last_backup_at").is_some());
    assert_eq!(status["success_rate"], 1.0);
    let human = place.ok(&["status"]).stdout;
    assert!(!human.contains('\u{1b}'), "no colours where there is no terminal");
    assert!(human.lines().all(|line| line.chars().count() <= 80), "{human}");
}

#[test]
fn health_is_one_line_and_an_exit_code() {
    let place = noop();
    let down = place.cli(&["health"]);
    assert!((1..=2).contains(&down.code), "no daemon: {down:?}");
    let _daemon = Daemon::start(&place);
    let fine = place.ok(&["health"]);
    assert_eq!(fine.stdout.lines().count(), 1, "{fine:?}");
    std::fs::remove_dir_all(place.inbox()).unwrap();
    wait_until("a missing watch root is a warning", || place.cli(&["health"]).code == 1);
}

#[test]
fn status_watch_keeps_telling() {
    let place = noop();
    let _daemon = Daemon::start(&place);
    let mut child = place.configured(&["status", "--watch"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().is_some_and(|line| line.is_ok()));
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_service_manager_hears_how_it_goes() {
    let place = noop();
    let mut daemon = Daemon::start(&place);
    place.put("a", "a");
    place.wait_count("completed", 1);
    daemon.stop();
    assert_eq!((daemon.said("READY=1"), daemon.said("STOPPING=1")), (1, 1));
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = finish(place.program().args(["completions", shell]));
        assert!(output.code == 0 && output.stdout.contains("ingestd"), "{shell}");
    }
    let manual = finish(place.program().arg("man"));
    assert!(manual.code == 0 && manual.stdout.contains(".TH"), "{}", manual.stderr);
    let version = finish(place.program().arg("--version"));
    assert!(version.code == 0 && version.stdout.contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(finish(place.program().arg("--help")).code, 0);
}

#[test]
fn wrong_usage_ends_with_2_and_unknown_jobs_with_3() {
    let place = noop();
    place.exits(2, &["frobnicate"]);
    place.exits(2, &["list", "--colour"]);
    place.exits(2, &["show", "not-a-number"]);
    let unknown = place.exits(3, &["show", "4711"]);
    assert!(unknown.stderr.contains("4711") && unknown.stdout.is_empty(), "{unknown:?}");
    place.exits(2, &["runs"]);
    place.exits(2, &["sync", "--new", "--resume", "1"]);
    place.exits(3, &["runs", "show", "4711"]);
    place.exits(3, &["sync", "--resume", "4711"]);
}

#[test]
fn commands_beside_a_busy_daemon_stay_quick() {
    let place = noop();
    let _daemon = Daemon::start(&place);
    let mut times: Vec<u128> = (0..7)
        .map(|number| {
            place.put(&format!("load-{number}"), "x".repeat(1000 * number));
            let file = place.file(&format!("f{number}"), "x");
            let start = std::time::Instant::now();
            place.add(&file, &[]);
            start.elapsed().as_millis()
        })
        .collect();
    times.sort_unstable();
    eprintln!("`ingestd add` took {times:?} ms");
    // The aim is 50 ms on an idle machine with a release build; this catches waiting for a tick or a timeout.
    assert!(times[3] < 1_000, "{times:?}");
}
