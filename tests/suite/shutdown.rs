//! How the daemon ends and reloads: by signals, by running out of work, and by what it finds at its start.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::*;

/// One job at a time would hide that none is leased any more.
fn load(place: &Place, then: &str, extra: &str) -> Ledger {
    let ledger = Ledger::new(place, then);
    place.configure(&format!(
        "{extra}\n[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 3\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"0s\"\n",
        ledger.command
    ));
    for number in 0..12 {
        place.put(&format!("file-{number}"), format!("{number}"));
    }
    ledger
}

fn wal_bytes(place: &Place) -> u64 {
    fs::metadata(place.at("state/ingestd.db-wal")).map_or(0, |data| data.len())
}

#[test]
fn sigterm_lets_running_jobs_finish_and_starts_no_more() {
    let place = Place::new();
    let ledger = load(&place, &format!("while [ ! -e {} ]; do sleep 0.05; done", place.at("go").display()), "");
    let mut daemon = Daemon::start(&place);
    wait_until("three run", || ledger.entries().len() == 3);
    daemon.signal(Signal::TERM);
    wait_until("it says that it stops", || daemon.said("STOPPING=1") == 1);
    fs::write(place.at("go"), "").unwrap();
    assert_eq!(daemon.exit_code(), 0);
    assert_eq!(ledger.entries().len(), 3, "no new lease after SIGTERM");
    assert_eq!((place.in_state("completed"), place.in_state("pending")), (3, 9));
    assert_eq!(wal_bytes(&place), 0, "the WAL is truncated");
}

#[test]
fn a_daemon_that_waits_for_what_runs_says_so_and_what_runs_can_be_cancelled() {
    let place = Place::new();
    let ledger = load(&place, "sleep 1000", "[shutdown]\ngrace = \"10m\"");
    let mut daemon = Daemon::start(&place);
    wait_until("three run", || ledger.entries().len() == 3);
    daemon.signal(Signal::TERM);
    wait_until("it says that it stops", || daemon.said("STOPPING=1") == 1);
    let status = place.ok(&["status", "--json"]).json();
    assert_eq!((&status["daemon"]["running"], &status["daemon"]["stopping"]), (&true.into(), &true.into()), "{status}");
    for job in place.jobs().iter().filter(|job| job["state"] == "running") {
        place.ok(&["cancel", &job["id"].to_string()]);
    }
    assert_eq!(daemon.exit_code(), 0);
    assert_eq!((place.in_state("cancelled"), place.in_state("pending")), (3, 9));
}

#[test]
fn what_outlasts_the_grace_time_is_released_with_nothing_spent() {
    let place = Place::new();
    let ledger = load(&place, "sleep 1000", "[shutdown]\ngrace = \"300ms\"");
    let mut daemon = Daemon::start(&place);
    wait_until("three run", || ledger.entries().len() == 3);
    let start = Instant::now();
    assert_eq!(daemon.stop(), 0);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(place.in_state("pending"), 12);
    assert!(place.jobs().iter().all(|job| job["attempt"] == 0 && job["crashes"] == 0), "{:?}", place.jobs());
    assert!(place.history().iter().all(|row| row["spent"] == false));
    assert_eq!(wal_bytes(&place), 0, "the WAL is truncated");
    place.ok(&["db", "check"]);
}

#[test]
fn a_second_sigterm_stops_at_once() {
    let place = Place::new();
    let ledger = load(&place, "sleep 1000", "[shutdown]\ngrace = \"10m\"");
    let mut daemon = Daemon::start(&place);
    wait_until("three run", || ledger.entries().len() == 3);
    daemon.signal(Signal::TERM);
    wait_until("it says that it stops", || daemon.said("STOPPING=1") == 1);
    let start = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.exit_code();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(daemon);
    let _next = Daemon::start(&place);
    wait_until("the same three run again", || ledger.entries().len() >= 6);
    assert!(place.jobs().iter().all(|job| job["attempt"] == 0), "nothing was spent");
}

#[test]
fn sigint_stops_like_sigterm() {
    let place = Place::new();
    let _ledger = load(&place, "", "");
    let mut daemon = Daemon::start(&place);
    place.wait_count("completed", 12);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.exit_code(), 0);
}

fn two_watches(place: &Place, second: &str) -> String {
    fs::create_dir_all(place.at("second")).unwrap();
    format!(
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n{second}"
    )
}

#[test]
fn sighup_puts_a_good_file_into_effect() {
    let place = Place::new();
    place.configure(&two_watches(&place, ""));
    let daemon = Daemon::start(&place);
    place.put("a", "a");
    place.wait_count("completed", 1);
    place.configure(&two_watches(
        &place,
        "[watch.second]\npath = \"@PLACE@/second\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    ));
    daemon.signal(Signal::HUP);
    wait_until("it reloaded", || daemon.said("RELOADING=1") == 1 && daemon.said("READY=1") == 2);
    fs::write(place.at("second/b"), "b").unwrap();
    place.wait_count("completed", 2);
    // And away again: the other watch goes on.
    place.configure(&two_watches(&place, ""));
    daemon.signal(Signal::HUP);
    wait_until("it reloaded", || daemon.said("READY=1") == 3);
    fs::write(place.at("second/c"), "c").unwrap();
    place.put("d", "d");
    place.wait_count("completed", 3);
    assert!(place.newest_of("second/c").is_none());
}

#[test]
fn sighup_refuses_a_bad_file_and_the_old_one_stays() {
    let place = Place::new();
    place.configure(&two_watches(&place, ""));
    let daemon = Daemon::start(&place);
    place.configure(&two_watches(&place, "setle = \"1s\"\n[watch.second]\npath = 7\npipeline = \"nobody\"\n"));
    daemon.signal(Signal::HUP);
    wait_until("the log names every problem", || {
        let log = daemon.log();
        ["setle", "watch.second"].iter().all(|key| log.contains(key))
    });
    wait_until("it is ready again", || daemon.said("READY=1") >= 2 || daemon.said("RELOADING=1") == 0);
    // Commands read the file too.
    place.configure(&two_watches(&place, ""));
    place.put("a", "a");
    place.wait_count("completed", 1);
}

#[test]
fn a_pipeline_that_disappears_leaves_its_jobs_pending_with_a_warning() {
    let place = Place::with("[pipeline.gone]\nkind = \"noop\"\n[pipeline.p]\nkind = \"noop\"\n");
    let daemon = Daemon::start(&place);
    let later = place.add(&place.file("a", "a"), &["--pipeline", "gone", "--in", "1s"]);
    place.configure("[pipeline.p]\nkind = \"noop\"\n");
    daemon.signal(Signal::HUP);
    wait_until("a warning names the pipeline", || place.status()["warnings"].to_string().contains("gone"));
    assert_eq!(text(&place.show(later), "state"), "pending");
    place.configure("[pipeline.gone]\nkind = \"noop\"\n[pipeline.p]\nkind = \"noop\"\n");
    daemon.signal(Signal::HUP);
    place.wait_state(later, "completed");
}

#[test]
fn a_second_daemon_on_the_same_database_is_refused_and_names_the_first() {
    let place = Place::new();
    place.configure(&two_watches(&place, ""));
    let mut first = Daemon::start(&place);
    let second = place.exits(4, &["run"]);
    assert!(second.stderr.contains(&first.pid().to_string()), "{second:?}");
    first.kill();
    let _third = Daemon::start(&place);
}

#[test]
fn run_once_ends_with_0_when_nothing_failed() {
    let place = Place::new();
    let ledger = load(&place, "[ $INGESTD_ATTEMPT -ge 2 ]", "");
    let configuration = fs::read_to_string(place.at("ingestd.toml")).unwrap();
    let retry = "concurrency = 3\nretry = { base = \"50ms\" }";
    fs::write(place.at("ingestd.toml"), configuration.replace("concurrency = 3", retry)).unwrap();
    place.exits(0, &["run", "--once"]);
    assert_eq!(ledger.entries().len(), 24, "it waits for retries");
    assert_eq!(place.in_state("completed"), 12);
    assert_eq!(wal_bytes(&place), 0);
}

#[test]
fn run_once_ends_with_1_when_something_failed() {
    let place = Place::new();
    load(&place, "case $1 in *7) exit 65;; esac", "");
    place.exits(1, &["run", "--once"]);
    assert_eq!((place.in_state("completed"), place.in_state("failed")), (11, 1));
}

#[test]
fn run_once_is_ended_by_a_missing_program() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/nonexistent/tool\", \"{path}\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    place.put("a", "a");
    let start = Instant::now();
    let output = place.exits(1, &["run", "--once"]);
    assert!(output.stderr.contains("/nonexistent/tool"), "{output:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn run_once_does_not_wait_for_what_a_person_holds_back() {
    let place = Place::with_database(
        "[pipeline.p]\nkind = \"noop\"\n[pipeline.held]\nkind = \"noop\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    place.ok(&["pause", "held"]);
    let held = place.add(&place.file("a", "a"), &["--pipeline", "held"]);
    let later = place.add(&place.file("b", "b"), &["--pipeline", "p", "--in", "1d"]);
    place.put("c", "c");
    let output = place.exits(0, &["run", "--once"]);
    assert_eq!(place.in_state("completed"), 1, "{output:?}");
    assert_eq!(text(&place.show(held), "state"), "pending");
    assert_eq!(text(&place.show(later), "state"), "pending");
    assert!(output.stderr.contains("held"), "it names what it did not wait for: {output:?}");
}

#[test]
fn run_once_does_not_wait_for_a_file_that_is_still_written() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"100ms\"\n",
    );
    place.put("whole", "whole");
    let open = fs::File::create(place.inbox().join("open")).unwrap();
    let output = place.exits(0, &["run", "--once"]);
    assert!(output.stderr.contains("open"), "it is named: {output:?}");
    assert_eq!(place.jobs().len(), 1, "{output:?}");
    drop(open);
    place.exits(0, &["run", "--once"]);
    assert_eq!(place.in_state("completed"), 2);
}

#[test]
fn what_is_not_a_database_is_left_alone() {
    let place = Place::with("[pipeline.p]\nkind = \"noop\"\n");
    fs::create_dir_all(place.at("state")).unwrap();
    let garbage = b"this is a letter, not a database\n".repeat(500);
    fs::write(place.database(), &garbage).unwrap();
    let output = place.exits(1, &["run"]);
    assert!(output.stderr.lines().last().unwrap().contains("ingestd.db"), "{output:?}");
    assert!(fs::read(place.database()).unwrap() == garbage, "the file was written to");
    assert_ne!(place.cli(&["status"]).code, 0);
}

#[test]
fn a_newer_schema_is_refused() {
    let place = Place::with("[pipeline.p]\nkind = \"noop\"\n");
    place.exits(0, &["run", "--once"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use sqlx::{ConnectOptions, Connection};
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.database());
        let mut connection = options.connect().await.unwrap();
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (9999, 'from the future', 1, x'00', 0)";
        sqlx::query(newer).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    let output = place.exits(1, &["run", "--once"]);
    assert!(output.stderr.contains("newer"), "{output:?}");
}
