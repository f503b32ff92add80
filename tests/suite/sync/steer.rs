//! A person's hand on runs, what is told of them, and verdicts that follow their jobs.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use super::*;

/// A reader that hangs in the middle of a list: its input stays open.
fn hanging(place: &Place, arguments: &[&str], lines: usize) -> Running {
    let all = [&["sync", "-"][..], arguments].concat();
    let mut command = place.configured(&all);
    command.stdin(Stdio::piped());
    let mut sync = Running::start(command);
    let list = fs::read_to_string(place.at("list.txt")).unwrap();
    let beginning: String = list.lines().take(lines).flat_map(|line| [line, "\n"]).collect();
    sync.0.stdin.as_mut().unwrap().write_all(beginning.as_bytes()).unwrap();
    wait_until("its lines are taken", || {
        let runs = place.ok(&["runs", "list", "--json"]).json_lines();
        runs.first().is_some_and(|run| usize::try_from(count(run, "position")).unwrap() == lines)
    });
    sync
}

#[test]
fn of_two_that_read_a_list_of_one_name_one_is_refused_with_the_number_that_reads() {
    let place = Place::with_database(&noop(""));
    let list = list_of(&place, 100);
    let mut first = hanging(&place, &["--name", "nightly"], 30);
    let second = place.exits(1, &["sync", "--name", "nightly", list.to_str().unwrap()]);
    assert!(second.stderr.contains("run 1"), "{second:?}");
    let anew = place.exits(1, &["sync", "--name", "nightly", "--new", list.to_str().unwrap()]);
    assert!(anew.stderr.contains("run 1"), "{anew:?}");
    let resumed = place.exits(1, &["sync", "--resume", "1", list.to_str().unwrap()]);
    assert!(resumed.stderr.contains("run 1"), "{resumed:?}");
    // A list of another name is nobody's business.
    place.ok(&["sync", "--name", "other", list.to_str().unwrap()]);
    assert!(first.kill());
    // Its death blocks nobody.
    let third = place.ok(&["sync", "--name", "nightly", list.to_str().unwrap()]);
    assert!(third.stderr.contains("run 1 goes on at line 31"), "{third:?}");
}

#[test]
fn two_that_begin_at_once_are_one_run() {
    let place = Place::with_database(&noop(""));
    let list = list_of(&place, 2_000);
    let start = || Running::start(place.configured(&["sync", "--name", "n", list.to_str().unwrap(), "--batch", "5"]));
    let commands: Vec<Running> = (0..4).map(|_| start()).collect();
    let outputs: Vec<Output> = commands.into_iter().map(Running::finish).collect();
    let reading: Vec<&Output> = outputs.iter().filter(|output| output.code == 1).collect();
    assert_eq!(reading.len(), 3, "{outputs:?}");
    assert!(reading.iter().all(|output| output.stderr.contains("run 1")), "{outputs:?}");
    assert_eq!(place.ok(&["runs", "list", "--json"]).json_lines().len(), 1);
    assert_eq!(place.in_state("pending"), 2_000);
}

#[test]
fn a_paused_run_stands_still_through_restarts_until_it_is_resumed() {
    let place = Place::with(&noop(""));
    let list = list_of(&place, 100);
    let mut daemon = Daemon::start(&place);
    place.ok(&["pause"]);
    let mut sync = hanging(&place, &["--name", "n"], 40);
    place.ok(&["runs", "pause", "1"]);
    place.ok(&["resume"]);
    let rest: String = fs::read_to_string(&list).unwrap().lines().skip(40).flat_map(|line| [line, "\n"]).collect();
    sync.0.stdin.take().unwrap().write_all(rest.as_bytes()).unwrap();
    assert_eq!(daemon.stop(), 0);
    let mut daemon = Daemon::start(&place);
    let run = run_of(&place, 1);
    assert_eq!((text(&run, "state"), numbers(&run, ["position", "open"])), ("paused", [40, 40]), "{run}");
    // Its command dies too, and the next one is told.
    assert!(sync.kill());
    let refused = place.exits(1, &["sync", "--name", "n", list.to_str().unwrap()]);
    assert!(refused.stderr.contains("ingestd runs resume 1") && refused.stderr.contains("--resume 1"), "{refused:?}");
    place.ok(&["runs", "resume", "1"]);
    place.wait_count("completed", 40);
    place.ok(&["runs", "pause", "1"]);
    let output = place.ok(&["sync", "--resume", "1", list.to_str().unwrap(), "--wait"]);
    assert!(output.stderr.contains("goes on at line 41"), "{output:?}");
    assert_eq!(numbers(&run_of(&place, 1), ["completed", "position"]), [100, 100]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_command_waits_out_a_pause_and_is_ended_by_a_cancel() {
    let place = Place::with(&noop(""));
    list_of(&place, 50);
    let _daemon = Daemon::start(&place);
    let mut sync = hanging(&place, &[], 10);
    place.ok(&["runs", "pause", "1"]);
    sync.0.stdin.take().unwrap().write_all(place.at("files/00020\n").as_os_str().as_encoded_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count(&run_of(&place, 1), "position"), 10);
    place.ok(&["runs", "resume", "1"]);
    let output = sync.finish();
    assert!(output.code == 0 && output.stderr.contains("run 1 is paused"), "{output:?}");

    place.ok(&["pause"]);
    let mut sync = hanging(&place, &["--name", "second"], 30);
    place.ok(&["runs", "cancel", "2"]);
    sync.0.stdin.take().unwrap().write_all(b"more\n").unwrap();
    let output = sync.finish();
    assert!(output.code == 1 && output.stderr.contains("cancelled"), "{output:?}");
    let run = run_of(&place, 2);
    assert_eq!((text(&run, "state"), count(&run, "open")), ("cancelled", 0), "{run}");
    place.exits(1, &["runs", "resume", "2"]);
    place.exits(3, &["runs", "pause", "3"]);
    place.ok(&["runs", "remove", "2"]);
    place.exits(3, &["runs", "show", "2"]);
}

#[test]
fn the_verdict_of_a_run_follows_its_jobs_retries_included() {
    let place = Place::new();
    let switch = place.at("works");
    place.configure(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"case $0 in *1) test -e @PLACE@/works;; esac\", \
         \"{path}\"]\nretry = { max_attempts = 1 }\n",
    );
    let list = list_of(&place, 15);
    let _daemon = Daemon::start(&place);
    let output = place.exits(1, &["sync", list.to_str().unwrap(), "--name", "n", "--wait"]);
    assert!(output.stdout.contains("run 1, failed"), "{output:?}");
    let failed = place.ok(&["status", "--failed", "--run", "1", "--json"]).json_lines();
    let lines: Vec<[i64; 2]> = failed.iter().map(|line| numbers(line, ["line", "tries"])).collect();
    assert_eq!(lines, [[2, 1], [12, 1]], "{failed:?}");
    assert!(failed.iter().all(|line| text(line, "error").contains("exit 1")), "{failed:?}");
    let summary = place.ok(&["status", "--summary", "--json"]).json();
    assert_eq!(
        numbers(&summary, ["total", "active", "completed", "successes", "errors"]),
        [1, 0, 1, 0, 1],
        "{summary}"
    );
    assert_eq!(summary["last"]["id"], 1);

    fs::write(&switch, "").unwrap();
    let retried = place.ok(&["retry", "--run", "1", "--failed"]);
    assert!(retried.stdout.contains("2 jobs"), "{retried:?}");
    let run = run_in(&place, 1, "completed");
    assert_eq!(numbers(&run, ["completed", "failed"]), [15, 0], "{run}");
    assert!(place.ok(&["status", "--failed"]).stdout.contains("nothing failed"));
    let summary = place.ok(&["status", "--summary"]).stdout;
    let words: Vec<&str> = summary.split_whitespace().collect();
    assert!(words.windows(2).any(|pair| pair == ["successes", "1"]), "{summary}");
    assert_eq!(place.ok(&["status", "--run", "1", "--json"]).json(), run_of(&place, 1));
    place.exits(3, &["list", "--run", "2"]);
}

#[test]
fn old_runs_are_pruned_and_active_ones_never() {
    let place = Place::with(&format!("[maintenance]\nretention = {{ runs = \"0s\" }}\n{}", noop("")));
    let list = list_of(&place, 20);
    let _daemon = Daemon::start(&place);
    place.ok(&["sync", list.to_str().unwrap(), "--name", "old", "--wait"]);
    place.ok(&["pause"]);
    fs::write(place.at("files/00003"), "another version").unwrap();
    place.ok(&["sync", list.to_str().unwrap(), "--name", "waits"]);
    let _reads = hanging(&place, &["--name", "reads"], 5);
    std::thread::sleep(Duration::from_millis(5));
    let pruned = place.ok(&["db", "prune", "--json"]).json();
    assert_eq!(pruned["runs"], 1, "{pruned}");
    let left: Vec<i64> =
        place.ok(&["runs", "list", "--json"]).json_lines().iter().map(|run| count(run, "id")).collect();
    assert_eq!(left, [3, 2]);
}

#[test]
fn what_waits_for_room_goes_on_as_room_is_made_and_without_a_daemon_says_so() {
    let place = Place::with(&format!("[queue]\nmax_pending = 30\n{}", noop("")));
    let list = list_of(&place, 300);
    let alone = place.exits(1, &["sync", list.to_str().unwrap()]);
    assert!(alone.stderr.contains("queue.max_pending") && alone.stderr.contains("--resume 1"), "{alone:?}");
    assert_eq!(place.in_state("pending"), 30);
    let _daemon = Daemon::start(&place);
    place.ok(&["sync", list.to_str().unwrap(), "--wait"]);
    each_line_once(&place, 300);
}

#[test]
fn the_pipe_of_old_works_as_it_did() {
    let place = Place::with(&noop(""));
    for name in ["a", "b"] {
        fs::write(place.at(name), name).unwrap();
    }
    let _daemon = Daemon::start(&place);
    let output = place.feed(&["sync", "-", "--wait"], b"a\nb\n");
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.stdout, "run 1, completed: 2 lines, 2 new jobs, 0 needed none, 2 completed\n");
    // Again, without a `-`: nothing is new.
    let output = place.feed(&["sync", "--wait", "-q"], b"a\nb\n");
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "", ""));
    assert_eq!(numbers(&run_of(&place, 2), ["enqueued", "skipped"]), [0, 2]);
    assert_eq!(text(&place.ok(&["status", "--summary", "--json"]).json()["last"], "state"), "completed");
}

#[test]
fn lines_whose_jobs_wait_or_failed_before_are_told_and_taken_up_by_retry() {
    let place = Place::with(&noop(""));
    let list = list_of(&place, 60);
    let path = list.to_str().unwrap();
    place.ok(&["sync", path, "--name", "first"]);
    let waiting = place.ok(&["sync", path, "--name", "second"]);
    assert!(waiting.stdout.contains("60 needed none (60 still wait)"), "{waiting:?}");
    place.ok(&["runs", "cancel", "1"]);
    let _daemon = Daemon::start(&place);
    let cancelled = place.exits(1, &["sync", path, "--name", "third", "--wait"]);
    assert!(cancelled.stdout.contains("60 needed none (60 failed before: `ingestd retry"), "{cancelled:?}");
    let events = place.exits(1, &["sync", path, "--name", "third", "--wait", "--json"]).json_lines();
    assert_eq!(numbers(events.last().unwrap(), ["waiting", "failed_before"]), [0, 60]);
    let retried = place.ok(&["retry", "--cancelled", "--run", "1"]);
    assert!(retried.stdout.contains("60 jobs"), "{retried:?}");
    place.wait_count("completed", 60);
    assert_eq!(place.ok(&["sync", path, "--wait"]).code, 0);
}

#[test]
fn a_dry_run_is_marked_and_counts_nowhere() {
    let place = Place::with_database(&noop(""));
    let list = list_of(&place, 3);
    place.ok(&["sync", list.to_str().unwrap(), "--dry-run"]);
    let runs = place.ok(&["runs", "list"]).stdout;
    assert!(runs.contains("completed (dry run)") && runs.contains("READ"), "{runs}");
    let summary = place.ok(&["status", "--summary", "--json"]).json();
    assert_eq!(numbers(&summary, ["total", "completed", "successes"]), [0, 0, 0], "{summary}");
    assert!(summary["last"].is_null(), "{summary}");
}

#[test]
fn a_run_that_nobody_reads_says_how_its_list_goes_on() {
    let place = Place::with_database(&noop(""));
    list_of(&place, 50);
    let mut sync = hanging(&place, &["--name", "n"], 20);
    assert!(place.ok(&["runs", "show", "1"]).stdout.contains("is being read"));
    assert!(sync.kill());
    let shown = place.ok(&["runs", "show", "1"]).stdout;
    assert!(shown.contains("broken off at line 20") && shown.contains("sync --resume 1"), "{shown}");
    place.ok(&["runs", "pause", "1"]);
    let once = place.cli(&["run", "--once"]);
    assert!(once.stderr.contains("run 1 is paused") && once.stderr.contains("ingestd runs resume 1"), "{once:?}");
    assert!(!once.stderr.contains("due later"), "{once:?}");
    let resumed = place.ok(&["runs", "resume", "1"]).stdout;
    assert!(resumed.contains("sync --resume 1") && resumed.contains("piped in again"), "{resumed}");
}
