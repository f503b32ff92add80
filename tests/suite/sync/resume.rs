//! Broken off anywhere, a list goes on at its line: nothing is skipped, nothing is enqueued twice.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// The seed of this run; `INGESTD_SEED` repeats one.
fn random() -> fastrand::Rng {
    let given = std::env::var("INGESTD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("INGESTD_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

#[test]
fn a_list_killed_at_twenty_random_points_is_done_exactly_once() {
    const LINES: usize = 10_000;
    let place = Place::with_database(&noop(""));
    let list = list_of(&place, LINES);
    let list = list.to_str().unwrap();
    let mut random = random();
    // Looked at without our own commands, which take longer than a batch.
    let peek =
        rusqlite::Connection::open_with_flags(place.database(), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let position =
        || -> i64 { peek.query_row("SELECT position FROM runs WHERE id = 1", [], |row| row.get(0)).unwrap_or(0) };
    for kill in 0..20 {
        // Somewhere in the next part of the list: never before anything, and far enough from its end.
        let aim = i64::try_from(kill * LINES / 22 + random.usize(1..LINES / 25)).unwrap();
        let mut sync = Running::start(place.configured(&["sync", list, "--batch", "20"]));
        wait_until("the list is read so far", || position() >= aim || sync.0.try_wait().unwrap().is_some());
        sleep(Duration::from_micros(random.u64(0..5_000)));
        assert!(sync.kill(), "it ended before it was killed, at line {}", position());
    }
    let reached = position();
    assert!(usize::try_from(reached).unwrap() < LINES, "there is something left to read");
    let last = place.ok(&["sync", list]);
    assert!(last.stderr.contains("run 1 goes on at line"), "{last:?}");
    let _daemon = Daemon::start(&place);
    let run = run_in(&place, 1, "completed");
    let all = i64::try_from(LINES).unwrap();
    assert_eq!(
        numbers(&run, ["position", "enqueued", "completed", "skipped", "failed"]),
        [all, all, all, 0, 0],
        "{run}"
    );
    each_line_once(&place, LINES);
}

#[test]
fn daemons_that_are_killed_under_a_list_cost_no_line() {
    const LINES: usize = 4_000;
    let place = Place::with(&noop(""));
    let list = list_of(&place, LINES);
    let mut random = random();
    let mut daemon = Daemon::start(&place);
    let sync = Running::start(place.configured(&["sync", list.to_str().unwrap(), "--batch", "10", "--wait"]));
    for _ in 0..4 {
        sleep(Duration::from_millis(random.u64(50..400)));
        daemon.kill();
        daemon = Daemon::start(&place);
    }
    let output = sync.finish();
    assert_eq!(output.code, 0, "{output:?}");
    let all = i64::try_from(LINES).unwrap();
    let run = run_in(&place, 1, "completed");
    assert_eq!(numbers(&run, ["position", "enqueued", "completed"]), [all, all, all], "{run}");
    each_line_once(&place, LINES);
}

#[test]
fn a_signal_ends_it_in_order_and_says_how_to_go_on() {
    let place = Place::with_database(&noop(""));
    let list = list_of(&place, 5_000);
    let sync = Running::start(place.configured(&["sync", list.to_str().unwrap(), "--batch", "1"]));
    wait_until("it reads", || place.cli(&["runs", "show", "1", "--json"]).stdout.contains("\"batch\":1"));
    kill_process(Pid::from_child(&sync.0), Signal::INT).unwrap();
    let output = sync.finish();
    assert!(output.code == 1 && output.stderr.contains("ingestd sync --resume 1"), "{output:?}");
    let readers = fs::read_dir(place.at("state/runs/ingestd.db")).unwrap().count();
    assert_eq!(readers, 0, "what says that it lives is gone");
    // The run knows its list.
    let output = place.ok(&["sync", "--resume", "1"]);
    assert!(output.stderr.contains("goes on at line"), "{output:?}");
    assert_eq!(place.in_state("pending"), 5_000);
}

#[test]
fn a_list_on_standard_input_goes_on_where_its_beginning_is_known() {
    let place = Place::with_database(&noop(""));
    let list = fs::read(list_of(&place, 3_000)).unwrap();
    let half = list.len() / 2;
    let mut command = place.configured(&["sync", "-"]);
    command.stdin(Stdio::piped());
    let mut sync = Running::start(command);
    sync.0.stdin.as_mut().unwrap().write_all(&list[..half]).unwrap();
    wait_until("half of it is taken", || place.in_state("pending") > 1_400);
    assert!(sync.kill());
    let at = count(&run_of(&place, 1), "position");

    // Another list is another run, whatever lies around.
    let other = place.feed(&["sync", "-"], b"files/00001\n");
    assert!(other.code == 0 && other.stdout.contains("run 2"), "{other:?}");
    let same = place.feed(&["sync", "-"], &list);
    assert!(same.code == 0 && same.stderr.contains("run 1 goes on at line"), "{same:?}");
    assert!(at > 0 && same.stdout.contains("run 1"), "{same:?}");
    assert_eq!(numbers(&run_of(&place, 1), ["position", "enqueued"]), [3_000, 3_000]);
    assert_eq!(place.in_state("pending"), 3_000);
}

/// Leaves a run behind that was broken off in its middle; answers where it stands.
fn broken_off(place: &Place, arguments: &[&str]) -> i64 {
    let all = [&["sync", "--batch", "5"][..], arguments].concat();
    let mut sync = Running::start(place.configured(&all));
    wait_until("it reads", || {
        let runs = place.ok(&["runs", "list", "--json"]).json_lines();
        runs.first().is_some_and(|run| count(run, "position") >= 100)
    });
    assert!(sync.kill(), "it ended before it was killed");
    count(&place.ok(&["runs", "list", "--json"]).json_lines()[0], "position")
}

#[test]
fn a_list_whose_beginning_changed_is_refused_and_begun_anew_where_that_is_asked_for() {
    let place = Place::with_database(&noop(""));
    let list = list_of(&place, 3_000);
    let path = list.to_str().unwrap();
    broken_off(&place, &[path]);
    let whole = fs::read_to_string(&list).unwrap();
    fs::write(&list, whole.replacen("00000", "00001", 1)).unwrap();
    for arguments in [&["sync", path][..], &["sync", "--resume", "1"]] {
        let refused = place.exits(1, arguments);
        assert!(refused.stderr.contains("run 1") && refused.stderr.contains("--new"), "{refused:?}");
    }
    // What was appended since is only more of the same list.
    fs::write(&list, format!("{whole}/none/at/all\n")).unwrap();
    broken_off(&place, &[path]);
    fs::write(&list, whole.replacen("00000", "00001", 1)).unwrap();
    let anew = place.ok(&["sync", path, "--new"]);
    assert!(anew.stdout.contains("run 2"), "{anew:?}");
    assert_eq!(text(&run_of(&place, 1), "state"), "cancelled");
    let _daemon = Daemon::start(&place);
    run_in(&place, 2, "completed");
    // Nothing of what the first one had enqueued is lost with it.
    let done = done(&place);
    let missing =
        (1..3_000).filter(|n| !done.contains_key(place.at(format!("files/{n:05}")).to_str().unwrap())).count();
    assert_eq!(missing, 0, "lines were lost with the run that was cancelled");
}

#[test]
fn a_run_that_is_over_or_unknown_can_not_be_resumed_and_other_options_are_refused() {
    let place = Place::with_database(&noop("[pipeline.other]\nkind = \"noop\""));
    let list = list_of(&place, 2_000);
    let path = list.to_str().unwrap();
    place.exits(3, &["sync", "--resume", "1"]);
    place.exits(3, &["sync", path, "--pipeline", "none"]);
    place.exits(2, &["sync", place.inbox().to_str().unwrap(), "--pipeline", "p"]);
    place.exits(1, &["sync", "no-such-list", "--pipeline", "p"]);
    broken_off(&place, &[path, "--pipeline", "p", "--name", "n"]);
    for other in
        [&["--pipeline", "other"][..], &["--pipeline", "p", "--dry-run"], &["--pipeline", "p", "--delete-missing"]]
    {
        let refused = place.exits(1, &[&["sync", path, "--name", "n"], other].concat());
        assert!(refused.stderr.contains("run 1") && refused.stderr.contains("--new"), "{refused:?}");
    }
    // The pipeline is the run's.
    place.ok(&["sync", path, "--name", "n"]);
    let read = place.exits(1, &["sync", "--resume", "1", path]);
    assert!(read.stderr.contains("read to its end"), "{read:?}");
    let _daemon = Daemon::start(&place);
    run_in(&place, 1, "completed");
    let over = place.exits(1, &["sync", "--resume", "1", path]);
    assert!(over.stderr.contains("completed"), "{over:?}");
}
