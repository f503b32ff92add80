//! The commands about jobs, with and without a daemon.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::*;

/// Two pipelines: one that waits for `go`, one that does nothing.
fn two_pipelines() -> Place {
    Place::with_database(
        "[pipeline.gate]\nkind = \"exec\"\nconcurrency = 1\n\
         command = [\"/bin/sh\", \"-c\", \"echo begun; while [ ! -e @PLACE@/go ]; do sleep 0.05; done; echo done\"]\n\
         [pipeline.void]\nkind = \"noop\"\n",
    )
}

fn one_pipeline() -> Place {
    Place::with_database("[pipeline.p]\nkind = \"noop\"\n")
}

#[test]
fn a_job_in_json_has_exactly_the_promised_fields() {
    let place = one_pipeline();
    let file = place.file("a.pdf", "abc");
    let id = place.add(&file, &["--metadata", r#"{"from":"test"}"#, "--priority", "high"]);
    let _daemon = Daemon::start(&place);
    place.wait_state(id, "completed");
    let job = place.jobs().remove(0);
    let promised = "id pipeline watch path relative op version priority state reason attempt max_attempts crashes run_at \
        created_at started_at finished_at duration_ms size_bytes digest idempotency_key run line repo stage external_id \
        metadata error";
    for field in promised.split_whitespace() {
        assert!(job.get(field).is_some(), "`{field}` is missing in {job}");
    }
    assert_eq!((job["id"].as_i64(), text(&job, "pipeline")), (Some(id), "p"));
    assert_eq!((text(&job, "path"), &job["watch"]), (file.to_str().unwrap(), &Value::Null));
    assert_eq!((text(&job, "op"), &job["version"], text(&job, "priority")), ("add", &Value::from(1), "high"));
    assert_eq!((count(&job, "attempt"), count(&job, "max_attempts"), count(&job, "crashes")), (1, 10, 0));
    assert_eq!((count(&job, "size_bytes"), text(&job, "digest")), (3, blake3_of(&file).as_str()));
    assert_eq!(
        (&job["metadata"]["from"], &job["error"], &job["reason"]),
        (&Value::from("test"), &Value::Null, &Value::Null)
    );
    assert!(job["duration_ms"].is_i64());
    for field in ["run_at", "created_at", "started_at", "finished_at"] {
        let time = text(&job, field);
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{field} is {time}");
    }
}

#[test]
fn add_prints_ids_and_says_what_is_known() {
    let place = one_pipeline();
    let (a, b) = (place.file("a", "a"), place.file("b", "b"));
    let both = place.ok(&["add", a.to_str().unwrap(), b.to_str().unwrap()]);
    assert_eq!(both.ids().len(), 2);
    let again = place.ok(&["add", a.to_str().unwrap()]);
    assert_eq!(again.ids(), both.ids()[..1], "inserting it again yields the same job");
    assert!(!again.stderr.is_empty(), "and says so");
    let forced = place.ok(&["add", a.to_str().unwrap(), "--force"]).ids();
    assert_ne!(forced, both.ids()[..1]);
    let json = place.ok(&["add", b.to_str().unwrap(), "--json"]).json_lines();
    assert_eq!(json[0]["id"], both.ids()[1]);
}

#[test]
fn add_reads_paths_from_stdin() {
    let place = one_pipeline();
    let odd = place.file("with\nbreak", "a");
    let plain = place.file("plain", "b");
    let list = [odd.to_str().unwrap(), plain.to_str().unwrap(), ""].join("\0");
    let output = place.feed(&["add", "-0", "-"], list.as_bytes());
    assert_eq!((output.code, output.ids().len()), (0, 2), "{output:?}");
    let output = place.feed(&["add", "-"], format!("{}\n", place.file("line", "c").display()).as_bytes());
    assert_eq!((output.code, output.ids().len()), (0, 1), "{output:?}");
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 3);
}

#[test]
fn add_works_the_same_beside_a_daemon() {
    let place = one_pipeline();
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("a", "a"), &[]);
    assert_eq!(place.ok(&["wait", &id.to_string()]).code, 0);
    assert_eq!(text(&place.show(id), "state"), "completed");
    let again = place.ok(&["add", place.at("files/a").to_str().unwrap()]);
    assert_eq!(again.ids(), [id]);
    // A relative path is relative to the caller.
    fs::write(place.at("relative"), "r").unwrap();
    let id = place.ok(&["add", "relative"]).ids()[0];
    assert_eq!(text(&place.show(id), "path"), place.at("relative").to_str().unwrap());
}

#[test]
fn add_refuses_what_makes_no_sense() {
    let place = two_pipelines();
    let file = place.file("a", "a");
    let file = file.to_str().unwrap();
    place.exits(2, &["add", file]);
    place.exits(3, &["add", file, "--pipeline", "nobody"]);
    place.exits(2, &["add", file, "--pipeline", "void", "--metadata", "{"]);
    place.exits(2, &["add", file, "--pipeline", "void", "--at", "yesterday-ish"]);
    place.exits(2, &["add", file, "--pipeline", "void", "--in", "1h", "--at", "2099-01-01T00:00:00Z"]);
    let missing = place.cli(&["add", "/nonexistent/file", "--pipeline", "void"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("/nonexistent/file"), "{missing:?}");
    assert_eq!(place.jobs().len(), 0);
}

#[test]
fn an_idempotency_key_is_the_callers_own() {
    let place = one_pipeline();
    let file = place.file("a", "a");
    let first = place.add(&file, &["--idempotency-key", "order-1"]);
    let again = place.add(&file, &["--idempotency-key", "order-1"]);
    let other = place.add(&file, &["--idempotency-key", "order-2"]);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn a_live_key_names_its_job_and_one_that_completed_is_skipped_unless_there_is_something_new() {
    let place = one_pipeline();
    let file = place.file("a", "a");
    let add = |more: &[&str]| {
        let arguments = ["add", file.to_str().unwrap(), "--idempotency-key", "order-1"];
        place.ok(&[&arguments, more].concat())
    };
    let first = add(&[]).ids()[0];
    let live = add(&["--json"]).json();
    assert_eq!((text(&live, "result"), live["id"].as_i64()), ("known", Some(first)));
    let _daemon = Daemon::start(&place);
    place.wait_state(first, "completed");
    let again = add(&[]);
    assert_eq!(again.ids(), [first]);
    assert!(again.stderr.contains("skipped"), "{again:?}");
    let again = add(&["--json"]).json();
    assert_eq!((text(&again, "result"), again["id"].as_i64()), ("skipped", Some(first)));
    assert_eq!(place.jobs().len(), 1);
    let forced = add(&["--force", "--json"]).json();
    assert_eq!((text(&forced, "result"), forced["version"].as_i64()), ("new", Some(2)));
    place.wait_count("completed", 2);
    fs::write(&file, "another").unwrap();
    let newer = add(&["--json"]).json();
    assert_eq!((text(&newer, "result"), newer["version"].as_i64()), ("new", Some(3)));
}

#[test]
fn at_and_in_hold_a_job_until_its_time() {
    let place = one_pipeline();
    let _daemon = Daemon::start(&place);
    let soon = place.add(&place.file("soon", "a"), &["--in", "1500ms"]);
    let late = place.add(&place.file("late", "b"), &["--at", "2099-01-02T15:04:05Z"]);
    assert_eq!(text(&place.show(soon), "state"), "pending");
    assert_eq!(text(&place.show(late), "run_at"), "2099-01-02T15:04:05.000Z");
    let job = place.wait_state(soon, "completed");
    assert!(text(&job, "started_at") >= text(&job, "run_at"), "{job}");
    assert_eq!(text(&place.show(late), "state"), "pending");
    // A `pending` job is made due by nobody but its time; cancel ends it.
    place.ok(&["cancel", &late.to_string()]);
    assert_eq!(text(&place.show(late), "state"), "cancelled");
}

#[test]
fn priorities_order_the_queue_and_can_be_changed_while_waiting() {
    let place = Place::new();
    let ledger = Ledger::new(&place, "");
    place.configure(&format!("[pipeline.p]\nkind = \"exec\"\ncommand = {}\nconcurrency = 1\n", ledger.command));
    place.ok(&["db", "migrate"]);
    let add = |name: &str, priority: &str| place.add(&place.file(name, name), &["--priority", priority]);
    let (low, normal, high) = (add("low", "low"), add("normal", "normal"), add("high", "high"));
    let (urgent, lifted) = (add("urgent", "urgent"), add("lifted", "low"));
    place.ok(&["priority", "urgent", &lifted.to_string()]);
    assert_eq!(text(&place.show(lifted), "priority"), "urgent");
    place.exits(2, &["priority", "soon", &low.to_string()]);
    place.exits(3, &["priority", "high", "4711"]);
    place.ok(&["run", "--once"]);
    let order: Vec<i64> = ledger.entries().iter().map(|entry| entry.job).collect();
    assert_eq!(order, [urgent, lifted, high, normal, low]);
}

#[test]
fn cancel_stops_waiting_and_running_jobs() {
    let place = two_pipelines();
    let _daemon = Daemon::start(&place);
    let running = place.add(&place.file("a", "a"), &["--pipeline", "gate"]);
    let waiting = place.add(&place.file("b", "b"), &["--pipeline", "gate"]);
    place.wait_state(running, "running");
    place.ok(&["cancel", &waiting.to_string()]);
    assert_eq!(text(&place.show(waiting), "state"), "cancelled");
    place.ok(&["cancel", &running.to_string()]);
    let job = place.wait_state(running, "cancelled");
    assert_eq!(count(&job, "attempt"), 0, "{job}");
    place.exits(3, &["cancel", "4711"]);
    assert_ne!(place.cli(&["cancel", &running.to_string()]).code, 0, "final states are final");
}

#[test]
fn bulk_cancel_takes_filters_and_a_dry_run() {
    let place = two_pipelines();
    for name in ["a", "b", "c"] {
        place.add(&place.file(name, name), &["--pipeline", "gate"]);
    }
    place.add(&place.file("d", "d"), &["--pipeline", "void"]);
    let dry = place.ok(&["cancel", "--state", "pending", "--pipeline", "gate", "--dry-run"]);
    assert!(dry.stdout.contains('3'), "{dry:?}");
    assert_eq!(place.in_state("pending"), 4);
    let done = place.ok(&["cancel", "--state", "pending", "--pipeline", "gate"]);
    assert!(done.stdout.contains('3'), "{done:?}");
    assert_eq!((place.in_state("pending"), place.in_state("cancelled")), (1, 3));
}

#[test]
fn retry_gives_a_fresh_budget() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"[ -e @PLACE@/go ]\"]\n\
         retry = { max_attempts = 2, base = \"10ms\" }\n",
    );
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("a", "a"), &[]);
    assert_eq!(count(&place.wait_state(id, "failed"), "attempt"), 2);
    place.exits(1, &["wait", &id.to_string()]);
    let failed = place.ok(&["list", "--state", "failed", "-q"]);
    assert_eq!(failed.stdout.trim(), id.to_string());

    fs::write(place.at("go"), "").unwrap();
    let retried = place.feed(&["retry", "-"], failed.stdout.as_bytes());
    assert_eq!(retried.code, 0, "{retried:?}");
    let job = place.wait_state(id, "completed");
    assert_eq!(count(&job, "attempt"), 1, "a fresh budget: {job}");
    let outcomes: Vec<String> = place.history().iter().map(|row| text(row, "outcome").to_owned()).collect();
    assert!(outcomes.contains(&"reopened".to_owned()), "recorded in the history: {outcomes:?}");
    assert_ne!(place.cli(&["retry", &id.to_string()]).code, 0, "completed is final");
    place.exits(3, &["retry", "4711"]);
}

#[test]
fn retry_of_all_failed_and_of_a_retrying_one() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\nretry = { base = \"1h\", jitter = \"none\" }\n\
         command = [\"/bin/sh\", \"-c\", \"[ -e @PLACE@/go ] && exit; case $INGESTD_PATH in *bad*) exit 65;; esac; exit 1\"]\n",
    );
    let _daemon = Daemon::start(&place);
    let bad: Vec<i64> = ["bad-1", "bad-2"].iter().map(|name| place.add(&place.file(name, name), &[])).collect();
    let slow = place.add(&place.file("slow", "slow"), &[]);
    for id in &bad {
        place.wait_state(*id, "failed");
    }
    place.wait_state(slow, "retrying");
    fs::write(place.at("go"), "").unwrap();
    let dry = place.ok(&["retry", "--failed", "--dry-run"]);
    assert!(dry.stdout.contains('2'), "{dry:?}");
    place.ok(&["retry", "--failed"]);
    for id in &bad {
        place.wait_state(*id, "completed");
    }
    place.ok(&["retry", &slow.to_string()]);
    place.wait_state(slow, "completed");
}

#[test]
fn retrying_a_superseded_failure_is_refused_and_names_the_newer_job() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"grep -q good $INGESTD_PATH || exit 65\"]\n",
    );
    let _daemon = Daemon::start(&place);
    let file = place.file("a", "bad");
    let old = place.add(&file, &[]);
    place.wait_state(old, "failed");
    write_new(&file, "good");
    let new = place.add(&file, &[]);
    assert_ne!(old, new);
    place.wait_state(new, "completed");
    let refused = place.cli(&["retry", &old.to_string()]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains(&new.to_string()), "{refused:?}");
    assert_eq!(text(&place.show(old), "state"), "failed");
}

#[test]
fn logs_show_the_output_live_and_afterwards() {
    let place = two_pipelines();
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("a", "a"), &["--pipeline", "gate"]);
    place.wait_state(id, "running");
    let mut follower = place.configured(&["logs", &id.to_string(), "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("begun")), "live while it runs");
    fs::write(place.at("go"), "").unwrap();
    assert!(lines.any(|line| line.unwrap().contains("done")), "to the end");
    assert!(follower.wait().unwrap().success(), "and then it ends");
    let logs = place.ok(&["logs", &id.to_string()]).stdout;
    assert!(logs.contains("begun") && logs.contains("done"), "{logs}");
    place.exits(3, &["logs", "4711"]);
}

#[test]
fn list_filters() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"case $INGESTD_PATH in *bad*) echo; exit 65;; esac\"]\n\
         [pipeline.q]\nkind = \"noop\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"q\"\nsettle = \"0s\"\n",
    );
    let _daemon = Daemon::start(&place);
    let good = place.add(&place.file("good.pdf", "1"), &["--pipeline", "p"]);
    let bad = place.add(&place.file("bad.txt", "2"), &["--pipeline", "p"]);
    place.put("watched.txt", "3");
    place.wait_state(bad, "failed");
    place.wait_count("completed", 2);
    let ids = |filter: &[&str]| {
        let output = place.ok(&[&["list", "-q"], filter].concat());
        output.stdout.lines().map(|line| line.trim().parse().unwrap()).collect::<Vec<i64>>()
    };
    let watched = ids(&["--watch", "inbox"])[0];
    let mut newest_first = vec![good, bad, watched];
    newest_first.sort_by_key(|id| -id);
    assert_eq!(ids(&[]), newest_first);
    assert_eq!(ids(&["--limit", "1"]), newest_first[..1]);
    assert_eq!(ids(&["--state", "failed"]), [bad]);
    assert_eq!(ids(&["--pipeline", "p", "--state", "completed"]), [good]);
    assert_eq!(ids(&["--path", "*.pdf"]), [good]);
    assert_eq!(ids(&["--error", "65"]), [bad]);
    assert_eq!(ids(&["--since", "1h"]).len(), 3);
    place.exits(3, &["list", "--pipeline", "nobody"]);
    place.exits(3, &["list", "--watch", "nobody"]);
    place.exits(2, &["list", "--state", "sleeping"]);
    let human = place.ok(&["list"]).stdout;
    assert!(human.lines().all(|line| line.chars().count() <= 80) && !human.contains('\u{1b}'), "{human}");
}

#[test]
fn wait_blocks_until_all_are_final() {
    let place = two_pipelines();
    let _daemon = Daemon::start(&place);
    let slow = place.add(&place.file("a", "a"), &["--pipeline", "gate"]).to_string();
    let quick = place.add(&place.file("b", "b"), &["--pipeline", "void"]).to_string();
    place.wait_state(slow.parse().unwrap(), "running");
    let mut waiting = place.configured(&["wait", &quick, &slow]).spawn().unwrap();
    place.wait_state(quick.parse().unwrap(), "completed");
    assert!(waiting.try_wait().unwrap().is_none(), "one still runs");
    fs::write(place.at("go"), "").unwrap();
    assert!(waiting.wait().unwrap().success());
    place.exits(3, &["wait", "4711"]);
}

#[test]
fn failures_are_grouped_by_error() {
    let place =
        Place::with("[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"exit $(cat $INGESTD_PATH)\"]\n");
    let _daemon = Daemon::start(&place);
    for (name, code) in [("a", "65"), ("b", "65"), ("c", "66")] {
        let id = place.add(&place.file(name, code), &[]);
        place.wait_state(id, "failed");
    }
    let groups = place.ok(&["failures", "--json"]).json_lines();
    let mut counts: Vec<i64> = groups.iter().map(|group| count(group, "count")).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2], "{groups:?}");
    assert!(place.ok(&["failures"]).stdout.contains("65"));
}
