//! Editors and how they save: vim, nano, sed -i.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::Inbox;
use crate::support::*;

/// Vim without a screen and without anybody's settings; `None` where it is not installed.
fn vim() -> Option<&'static str> {
    ["vim", "vim.tiny"].into_iter().find(|name| Command::new(name).arg("--version").output().is_ok()).or_else(|| {
        has_tools(&["vim"]);
        None
    })
}

#[test]
fn vim_is_taken_once_for_each_save_however_it_saves() {
    let Some(vim) = vim() else { return };
    // In place of the file, into the file, and with a backup that stays.
    for (way, kept) in [("nobackup backupcopy=no", 0), ("nobackup backupcopy=yes", 0), ("backup backupcopy=auto", 1)] {
        let inbox = Inbox::new("300ms");
        fs::write(inbox.at("file"), "old\n").unwrap();
        inbox.holds(&[("file", b"old\n")]);
        // Vim makes no backups below /tmp unless told.
        let set = format!("set writebackup swapfile backupskip= {way}");
        let edits = ["-u", "NONE", "-N", "-es", "-c", &set, "-c", "%s/old/new/", "-c", "w", "-c", "wq"];
        run(Command::new(vim).args(edits).arg(inbox.at("file")).env("HOME", inbox.outside("home")));
        assert_eq!(fs::read_to_string(inbox.at("file")).unwrap(), "new\n");
        assert_eq!(inbox.at("file~").exists(), kept == 1, "{way}");
        inbox.holds(&[("file", b"old\n"), ("file", b"new\n")]);
    }
}

#[test]
fn vim_leaves_nothing_half_while_it_is_open() {
    let Some(vim) = vim() else { return };
    let inbox = Inbox::new("150ms");
    // Saved, then open for much longer than settle with changes that are not saved.
    let edits = ["-u", "NONE", "-N", "-es", "-c", "call setline(1, 'one')", "-c", "w", "-c", "call setline(1, 'two')"];
    let mut command = Command::new(vim);
    command.args(edits).args(["-c", "preserve", "-c", "sleep 800m", "-c", "wq"]).arg(inbox.at("file"));
    run(command.env("HOME", inbox.outside("home")));
    inbox.holds(&[("file", b"one\n"), ("file", b"two\n")]);
}

#[test]
fn nano_is_taken_once_for_each_save() {
    if !has_tools(&["nano", "script"]) {
        return;
    }
    let inbox = Inbox::new("300ms");
    fs::write(inbox.at("file"), "old\n").unwrap();
    inbox.holds(&[("file", b"old\n")]);
    let mut terminal = Command::new("script");
    // Plain: it reads no settings, and draws on a terminal that `script` makes.
    terminal.arg("-qec").arg(format!("nano -I {}", inbox.at("file").display())).arg("/dev/null");
    terminal.env("TERM", "xterm").env("HOME", inbox.outside("home"));
    let mut nano = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut keys = nano.stdin.take().unwrap();
    // Typed, written out (^O, Enter), left (^X). What is typed before it listens waits in the terminal.
    for typed in [&b"new "[..], b"\x0f", b"\r", b"\x18"] {
        sleep(Duration::from_millis(300));
        keys.write_all(typed).unwrap();
        keys.flush().unwrap();
    }
    wait_until("nano has left", || nano.try_wait().unwrap().is_some());
    drop(keys);
    assert_eq!(fs::read_to_string(inbox.at("file")).unwrap(), "new old\n");
    inbox.holds(&[("file", b"old\n"), ("file", b"new old\n")]);
}

#[test]
fn sed_in_place_is_taken_under_the_final_name_only() {
    if !has_tools(&["sed"]) {
        return;
    }
    let inbox = Inbox::new("300ms");
    let before = "some words that stay the same\n".repeat(20_000);
    fs::write(inbox.at("file"), &before).unwrap();
    inbox.holds(&[("file", before.as_bytes())]);
    run(Command::new("sed").args(["-i", "s/same/other/"]).arg(inbox.at("file")));
    let after = before.replace("same", "other");
    inbox.holds(&[("file", before.as_bytes()), ("file", after.as_bytes())]);
}
