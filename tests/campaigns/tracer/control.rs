//! The tracer itself: it does what its plan says, at that call and no other.

use std::process::{Command, Stdio};

use super::*;

/// `mkdir` of three folders, which is a process with three calls.
fn folders(place: &Place) -> Command {
    let mut command = Command::new("mkdir");
    command.args(["first", "second", "third"]).current_dir(place.at(""));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn made(place: &Place) -> [bool; 3] {
    ["first", "second", "third"].map(|name| place.at(name).is_dir())
}

fn mkdirs(seen: &Seen) -> bool {
    seen.call == Call::Mkdir
}

#[test]
fn a_process_is_killed_before_or_after_a_call() {
    if !Traced::is_possible() {
        return;
    }
    let place = Place::new();
    let (output, counts) = Traced::finish(folders(&place), Plan::kill_before(2, mkdirs));
    assert_eq!((output.code, counts.acted, made(&place)), (-1, 1, [true, false, false]), "{counts:?}");
    let place = Place::new();
    let (output, counts) = Traced::finish(folders(&place), Plan::kill_after(2, mkdirs));
    assert_eq!((output.code, counts.acted, made(&place)), (-1, 1, [true, true, false]), "{counts:?}");
    let place = Place::new();
    let (output, counts) = Traced::finish(folders(&place), Plan::kill_before(4, mkdirs));
    assert_eq!((output.code, counts.acted, made(&place)), (0, 0, [true; 3]), "it was never reached: {counts:?}");
    assert_eq!(counts.calls[&Call::Mkdir], 3);
}

#[test]
fn a_call_fails_once_or_from_then_on() {
    if !Traced::is_possible() {
        return;
    }
    let place = Place::new();
    let (output, counts) = Traced::finish(folders(&place), Plan::fail(2, libc::EIO, mkdirs));
    assert_eq!((output.code, counts.acted, made(&place)), (1, 1, [true, false, true]), "{counts:?}");
    assert!(output.stderr.contains("Input/output error"), "{output:?}");
    let place = Place::new();
    let (output, counts) = Traced::finish(folders(&place), Plan::fail(2, libc::ENOSPC, mkdirs).lasting());
    assert_eq!((output.code, counts.acted, made(&place)), (1, 2, [true, false, false]), "{counts:?}");
    assert!(output.stderr.contains("No space left"), "{output:?}");
}

#[test]
fn a_write_takes_only_half() {
    if !Traced::is_possible() {
        return;
    }
    let place = Place::new();
    let mut command = Command::new("sh");
    command.args(["-c", "printf 0123456789 > file"]).current_dir(place.at(""));
    let file = place.at("file");
    let about = move |seen: &Seen| seen.call == Call::Write && seen.path == file;
    let (output, counts) = Traced::finish(command, Plan::short(1, about));
    assert_eq!((output.code, counts.acted, counts.all()), (0, 1, 2), "the rest takes a second call: {counts:?}");
    assert_eq!(std::fs::read(place.at("file")).unwrap(), b"0123456789");
}

#[test]
fn the_threads_of_a_daemon_are_followed_and_its_processors_are_not() {
    if !Traced::is_possible() {
        return;
    }
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"echo done > @PLACE@/trace-{name}\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let (mut daemon, traced) = Traced::daemon(&place, Plan::count(|seen| seen.writes));
    daemon.ready();
    place.put("a", "a");
    place.wait_count("completed", 1);
    let (trace, counts) = (place.at("trace-a"), traced.counts());
    assert!(trace.exists() && counts.calls[&Call::Fsync] > 2 && counts.calls[&Call::Pwrite] > 2, "{counts:?}");
    traced.set(Plan::kill_before(1, move |seen| seen.call == Call::Fsync || seen.path == trace));
    place.put("b", "b");
    assert_eq!(daemon.exit_code(), -1, "it dies at its next sync");
    assert_eq!(traced.counts().acted, 1);
    assert!(traced.counts().at.is_some_and(|at| at.contains("fsync")));
}
