//! What becomes of a job by what its command does: states, attempts, delays, kinds of error.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::*;

/// Three attempts, 200 ms and then 400 ms apart.
const RETRY: &str = "retry = { max_attempts = 3, base = \"200ms\", factor = 2.0, jitter = \"none\" }";

/// A place with one pipeline that runs `script` in a shell.
fn shell(script: &str, keys: &str) -> Place {
    Place::with_database(&format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", '''{script}''', \"sh\", \"{{path}}\"]\n{keys}\n"
    ))
}

/// Adds a file and waits for its job's state.
fn run_to(place: &Place, state: &str) -> Value {
    let id = place.add(&place.file("file", "content"), &[]);
    place.wait_state(id, state)
}

fn kind(job: &Value) -> &str {
    text(&job["error"], "kind")
}

fn executions(place: &Place, job: &Value) -> Vec<Value> {
    let mut found: Vec<Value> = place.history().into_iter().filter(|row| row["job"] == job["id"]).collect();
    found.sort_by_key(|row| count(row, "execution"));
    found
}

fn millis(value: &Value, field: &str) -> i64 {
    let time: jiff::Timestamp = text(value, field).parse().unwrap_or_else(|error| panic!("{field}, {error}: {value}"));
    time.as_millisecond()
}

#[test]
fn a_command_that_fails_twice_succeeds_at_the_third_attempt() {
    let place = shell("n=$INGESTD_ATTEMPT; echo attempt $n; echo trouble $n >&2; [ $n -ge 3 ]", RETRY);
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "completed");
    assert_eq!((count(&job, "attempt"), count(&job, "max_attempts")), (3, 3), "{job}");
    let rows = executions(&place, &job);
    assert_eq!(rows.len(), 3, "{rows:?}");
    for (row, (spent, delay)) in rows.iter().skip(1).zip([(true, 200), (true, 400)]) {
        let before = &rows[rows.iter().position(|other| other == row).unwrap() - 1];
        assert_eq!(row["spent"], spent);
        let gap = millis(row, "started_at") - millis(before, "finished_at");
        assert!((delay..delay + 2_000).contains(&gap), "{gap} ms after attempt {}", before["execution"]);
    }
    let logs = place.ok(&["logs", &job["id"].to_string()]).stdout;
    assert!(logs.contains("attempt 3") && logs.contains("trouble 3"), "{logs}");
}

#[test]
fn a_command_that_always_fails_is_given_up_after_its_attempts() {
    let place = shell("echo no luck >&2; exit 3", RETRY);
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "failed");
    assert_eq!((count(&job, "attempt"), kind(&job)), (3, "exit"), "{job}");
    assert_eq!(job["error"]["permanent"], false, "{job}");
    assert!(text(&job["error"], "message").contains('3'), "the code is named: {job}");
    let rows = executions(&place, &job);
    assert_eq!(rows.iter().map(|row| row["code"].clone()).collect::<Vec<_>>(), [3, 3, 3]);
    let failures = place.ok(&["failures", "--json"]).json_lines();
    assert_eq!(failures.len(), 1, "{failures:?}");
}

#[test]
fn a_job_between_two_attempts_is_retrying_and_due_at_run_at() {
    let place = shell("exit 1", "retry = { base = \"1h\", jitter = \"none\" }");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "retrying");
    let wait = millis(&job, "run_at") - jiff::Timestamp::now().as_millisecond();
    assert!((3_500_000..=3_600_000).contains(&wait), "{wait} ms: {job}");
    assert_eq!(count(&job, "attempt"), 1);
}

#[test]
fn exit_codes_of_sysexits_fail_at_once() {
    let place = shell("exit 65", "");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "failed");
    assert_eq!((count(&job, "attempt"), kind(&job)), (1, "exit"), "{job}");
    assert_eq!(job["error"]["permanent"], true, "{job}");
}

#[test]
fn exit_75_defers_without_spending_an_attempt() {
    let place = shell(
        "[ -e @PLACE@/go ] && exit 0; echo x >> @PLACE@/tries; exit 75",
        "retry = { base = \"100ms\", max = \"100ms\", jitter = \"none\", max_attempts = 1 }",
    );
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("file", "content"), &[]);
    wait_until("it was tried three times", || {
        fs::read_to_string(place.at("tries")).is_ok_and(|tries| tries.lines().count() >= 3)
    });
    let job = place.wait_state(id, "pending");
    assert_eq!(count(&job, "attempt"), 0, "{job}");
    fs::write(place.at("go"), "").unwrap();
    let job = place.wait_state(id, "completed");
    assert_eq!(count(&job, "attempt"), 1, "{job}");
    let rows = executions(&place, &job);
    assert!(rows.len() >= 4 && rows[..3].iter().all(|row| row["spent"] == false && row["code"] == 75), "{rows:?}");
}

#[test]
fn deferrals_end_at_max_elapsed() {
    let place =
        shell("exit 75", "retry = { base = \"100ms\", max = \"100ms\", jitter = \"none\", max_elapsed = \"600ms\" }");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "failed");
    let rows = executions(&place, &job);
    assert!(rows.len() >= 2, "{rows:?}");
}

#[test]
fn a_command_ended_by_a_signal_is_a_failed_attempt() {
    let place = shell("sh -c 'kill -SEGV $PPID'; true", "retry = { max_attempts = 1 }");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "failed");
    assert_eq!((count(&job, "attempt"), kind(&job)), (1, "signal"), "{job}");
    assert_eq!(job["error"]["permanent"], false, "{job}");
}

#[test]
fn a_timeout_ends_the_whole_group_and_spends_the_attempt() {
    let place = shell(
        "trap '' TERM; echo begun; sleep 1000 & (trap '' TERM; while :; do sleep 1; done) & wait; sleep 1000",
        "timeout = \"500ms\"\nretry = { max_attempts = 1 }\nenv = { INGESTD_TEST_MARK = \"@PLACE@\" }",
    );
    let mark = place.mark();
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("file", "content"), &[]);
    wait_until("the group runs", || marked_processes(&mark).len() >= 3);
    let job = place.wait_state(id, "failed");
    assert_eq!((count(&job, "attempt"), kind(&job)), (1, "timeout"), "{job}");
    assert_eq!(marked_processes(&mark), [], "something of the group is left");
    let logs = place.ok(&["logs", &id.to_string()]).stdout;
    assert!(logs.contains("begun"), "{logs}");
}

#[test]
fn a_child_that_holds_the_output_open_does_not_hold_the_job_up() {
    let place = shell("sleep 1000 & exit 0", "");
    let _daemon = Daemon::start(&place);
    run_to(&place, "completed");
}

#[test]
fn a_missing_program_defers_and_a_warning_names_it() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"@PLACE@/missing-program\", \"{path}\"]\n\
         retry = { base = \"100ms\", max = \"300ms\", jitter = \"none\" }\n",
    );
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("file", "content"), &[]);
    wait_until("a warning names the program", || place.status()["warnings"].to_string().contains("missing-program"));
    assert_eq!(place.exits(1, &["health"]).stdout.lines().count(), 1, "one line that says why");
    let job = place.show(id);
    assert_eq!(count(&job, "attempt"), 0, "{job}");
    assert_eq!(kind(&job), "spawn", "{job}");

    let program = place.at("missing-program");
    fs::write(&program, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let job = place.wait_state(id, "completed");
    assert_eq!(count(&job, "attempt"), 1, "{job}");
    wait_until("the warning is gone", || !place.status()["warnings"].to_string().contains("missing-program"));
}

#[test]
fn a_program_that_may_not_be_run_defers() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"@PLACE@/plain-file\", \"{path}\"]\n\
         retry = { base = \"1h\", jitter = \"none\" }\n",
    );
    fs::write(place.at("plain-file"), "not a program").unwrap();
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("file", "content"), &[]);
    wait_until("it was tried", || kind(&place.show(id)) == "spawn");
    let job = place.show(id);
    assert_eq!((text(&job, "state"), count(&job, "attempt")), ("pending", 0), "{job}");
    assert!(place.status()["warnings"].to_string().contains("plain-file"));
}

#[test]
fn a_file_that_vanished_before_its_first_start_is_skipped() {
    let place = shell("exit 0", "");
    let file = place.file("file", "content");
    let id = place.add(&file, &[]);
    fs::remove_file(file).unwrap();
    let _daemon = Daemon::start(&place);
    let job = place.wait_state(id, "skipped");
    assert_eq!((text(&job, "reason"), count(&job, "attempt")), ("vanished", 0), "{job}");
}

#[test]
fn a_file_that_vanished_between_two_attempts_fails() {
    let place = shell("rm \"$1\"; exit 1", RETRY);
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "failed");
    assert_eq!(kind(&job), "vanished", "{job}");
}

#[test]
fn a_folder_where_the_file_was_is_no_file() {
    let place = shell("exit 0", "");
    let file = place.file("file", "content");
    let id = place.add(&file, &[]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let _daemon = Daemon::start(&place);
    let job = wait_for("the job comes to an end", || {
        Some(place.show(id)).filter(|job| matches!(text(job, "state"), "failed" | "skipped"))
    });
    assert!(kind(&job) == "not-a-file" || text(&job, "reason") == "vanished", "{job}");
}

#[test]
fn a_file_that_cannot_be_read_fails_as_unreadable() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root reads everything");
        return;
    }
    let place = shell("exit 0", "retry = { max_attempts = 2, base = \"50ms\" }");
    let file = place.file("file", "content");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o0)).unwrap();
    let _daemon = Daemon::start(&place);
    let id = place.add(&file, &[]);
    let job = place.wait_state(id, "failed");
    assert_eq!(kind(&job), "unreadable", "{job}");
}

#[test]
fn a_file_changed_before_its_first_start_is_processed_as_it_is_then() {
    let place = shell("cat \"$1\"", "");
    let file = place.file("file", "old");
    let id = place.add(&file, &[]);
    write_new(&file, "new content");
    let _daemon = Daemon::start(&place);
    let job = place.wait_state(id, "completed");
    assert_eq!(text(&job, "digest"), blake3_of(&file), "{job}");
    assert_eq!(count(&job, "size_bytes"), 11, "{job}");
    assert_eq!(place.jobs().len(), 1);
}

#[test]
fn a_command_that_writes_without_end_does_not_fill_anything() {
    let place = shell("yes | head -c 20000000; yes no | head -c 20000000 >&2; echo last words", "output = \"4KiB\"");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "completed");
    let logs = place.ok(&["logs", &job["id"].to_string()]).stdout;
    assert!(logs.contains("last words"), "the tail is kept");
    let rows = &job["attempts"];
    assert!(rows[0]["output"].as_str().unwrap().len() <= 4 << 10, "{}", rows[0]["output"].as_str().unwrap().len());
    let state =
        fs::read_dir(place.at("state")).unwrap().flatten().map(|entry| size_of_tree(&entry.path())).sum::<u64>();
    assert!(state < 10 << 20, "{state} bytes in the state directory");
}

fn size_of_tree(path: &std::path::Path) -> u64 {
    let Ok(data) = fs::symlink_metadata(path) else { return 0 };
    if !data.is_dir() {
        return data.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size_of_tree(&entry.path())).sum()
}
