//! Writers that take their time: dd with pauses, append loops, preallocated files.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::{Inbox, noise};
use crate::support::*;

/// Runs a script of the shell; `$1` is the file.
#[track_caller]
fn shell(script: &str, inbox: &Inbox, name: &str) {
    run(Command::new("sh").args(["-ec", script, "writer"]).arg(inbox.at(name)).arg(inbox.outside("source")));
}

/// Writes a megabyte where scripts find it as `$2`.
fn source(inbox: &Inbox) -> Vec<u8> {
    let content = noise(9, 1 << 20);
    fs::write(inbox.outside("source"), &content).unwrap();
    content
}

/// Four pieces through one pipe, with pauses; one after the other into an open file.
const SLOW_PIPE: &str = "for n in 0 1 2 3; do dd if=\"$2\" bs=256k skip=$n count=1 status=none; sleep 0.4; done";
/// The same, and each piece opens the file anew.
const PIECES: &str = "for n in 0 1 2 3; do dd if=\"$2\" of=\"$1\" bs=256k skip=$n seek=$n count=1 conv=notrunc status=none; sleep PAUSE; done";

#[test]
fn dd_with_pauses_that_holds_the_file_open_is_taken_once_and_whole() {
    if !has_tools(&["dd", "sh"]) {
        return;
    }
    // Its pauses are longer than settle.
    let inbox = Inbox::new("150ms");
    let content = source(&inbox);
    shell(&format!("({SLOW_PIPE}) | dd of=\"$1\" bs=64k status=none"), &inbox, "file");
    inbox.holds(&[("file", &content)]);
}

#[test]
fn dd_that_reopens_the_file_within_settle_is_taken_once_and_whole() {
    if !has_tools(&["dd", "sh"]) {
        return;
    }
    for inbox in Inbox::both("1200ms") {
        let content = source(&inbox);
        shell(&PIECES.replace("PAUSE", "0.15"), &inbox, "file");
        inbox.passed("file", &pieces(&content));
    }
}

#[test]
fn dd_that_stays_away_for_longer_than_settle_makes_versions_at_its_rests_only() {
    if !has_tools(&["dd", "sh"]) {
        return;
    }
    let inbox = Inbox::new("150ms");
    let content = source(&inbox);
    shell(&PIECES.replace("PAUSE", "0.6"), &inbox, "file");
    inbox.passed("file", &pieces(&content));
    assert!(inbox.times("file") > 1, "a rest of four times the quiet time is a version");
}

/// What lies there after each piece.
fn pieces(content: &[u8]) -> [&[u8]; 4] {
    [1, 2, 3, 4].map(|n| &content[..n * (256 << 10)])
}

#[test]
fn an_append_loop_is_taken_at_rests_only_and_its_last_state_always() {
    if !has_tools(&["sh"]) {
        return;
    }
    let expected: Vec<u8> = (0..60).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    // Each state that a loop may be seen in ends with a line.
    let ends = expected.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let states: Vec<&[u8]> = ends.map(|end| &expected[..end]).collect();
    for inbox in Inbox::both("200ms") {
        let appends = "n=0; while [ $n -lt 60 ]; do echo \"line $n\" >> \"$1\"; n=$((n + 1)); sleep PAUSE; done";
        shell(&appends.replace("PAUSE", "0.02"), &inbox, "file");
        inbox.passed("file", &states);
    }
}

#[test]
fn a_preallocated_file_is_taken_when_it_is_filled() {
    if !has_tools(&["fallocate", "dd", "sh"]) {
        return;
    }
    let inbox = Inbox::new("150ms");
    let content = source(&inbox);
    // It has its final size from the start, and is held open while it is filled.
    let mut file = File::create(inbox.at("held")).unwrap();
    run(Command::new("fallocate").args(["-l", "1MiB"]).arg(inbox.at("held")));
    for piece in content.chunks(256 << 10) {
        sleep(Duration::from_millis(300));
        file.write_all(piece).unwrap();
    }
    // A last change in the middle, as programs do that write a header at the end.
    file.seek(std::io::SeekFrom::Start(100)).unwrap();
    file.write_all(&content[100..200]).unwrap();
    drop(file);
    inbox.holds(&[("held", &content)]);
}

#[test]
fn a_file_that_fallocate_makes_and_a_slow_writer_fills_is_never_seen_half_full() {
    if !has_tools(&["fallocate", "dd", "sh"]) {
        return;
    }
    let inbox = Inbox::new("800ms");
    let (content, zeros) = (source(&inbox), vec![0; 1 << 20]);
    // All zeros is what lies there while nobody has it open, so it may be seen, should this machine be that slow.
    let fill = "dd of=\"$1\" bs=64k conv=notrunc status=none";
    shell(&format!("fallocate -l 1MiB \"$1\"; ({SLOW_PIPE}) | {fill}"), &inbox, "file");
    inbox.passed("file", &[&zeros, &content]);
}
