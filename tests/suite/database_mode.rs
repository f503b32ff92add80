//! `database.mode`: it holds at every start and after whatever replaces the database, under any umask.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

/// What is beside the database of a running daemon, by its suffix.
const COMPANIONS: [&str; 4] = ["-wal", "-shm", ".lock", ".turn"];

fn configuration(mode: &str) -> String {
    format!("[database]\nmode = \"{mode}\"\n[pipeline.p]\nkind = \"noop\"\n")
}

/// The program under a umask that leaves nothing to the group.
fn masked(place: &Place, arguments: &[&str]) -> Command {
    let program = place.configured(arguments);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(program.get_program()).args(program.get_args());
    let variables = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.env_clear().envs(variables).current_dir(place.at(""));
    command
}

fn start(place: &Place) -> Daemon {
    let mut daemon = Daemon::spawn(place, masked(place, &["run"]));
    daemon.ready();
    daemon
}

#[track_caller]
fn succeeds(place: &Place, arguments: &[&str]) {
    let output = finish(&mut masked(place, arguments));
    assert_eq!(output.code, 0, "ingestd {arguments:?}: {output:?}");
}

#[track_caller]
fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Database, companions and socket as they are, each with its name.
#[track_caller]
fn modes(place: &Place) -> Vec<(String, u32)> {
    let database = place.database();
    let beside = |suffix: &&str| PathBuf::from(format!("{}{suffix}", database.display()));
    let all = [database.clone(), database.with_extension("sock")].into_iter().chain(COMPANIONS.iter().map(beside));
    all.map(|path| (path.display().to_string(), mode(&path))).collect()
}

#[track_caller]
fn all_have(place: &Place, wanted: u32) {
    for (path, mode) in modes(place) {
        assert_eq!(mode, wanted, "{path}: {mode:o}, not {wanted:o}");
    }
}

/// The files that restores and repairs have put aside.
fn kept(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.at("state")).unwrap().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.display().to_string().contains(".before-")).collect()
}

#[test]
fn a_start_brings_a_database_and_the_log_that_a_killed_daemon_left_to_its_mode() {
    let place = Place::with(&configuration("0600"));
    let mut daemon = start(&place);
    for (before, now) in [("0600", 0o660), ("0660", 0o600)] {
        all_have(&place, u32::from_str_radix(before, 8).unwrap());
        place.add(&place.file(before, before), &[]);
        daemon.kill();
        let log = place.at("state/ingestd.db-wal");
        assert!(fs::metadata(&log).unwrap().len() > 0, "no log is left over");
        place.configure(&configuration(&format!("{now:04o}")));
        daemon = start(&place);
        all_have(&place, now);
        let folder = now | (now & 0o440) >> 2;
        assert_eq!(mode(place.at("state/spool/ingestd.db")), folder);
    }
    place.wait_count("completed", 2);
}

#[test]
fn a_member_of_the_group_is_let_in_by_the_mode_and_kept_out_by_it() {
    let place = Place::with(&configuration("0600"));
    if !nobody_can_run(&place) {
        return;
    }
    let mut daemon = start(&place);
    // What the drop-in `group-access` does.
    fs::set_permissions(place.at("state"), Permissions::from_mode(0o2770)).unwrap();
    let by_a_member = |arguments: &[&str]| finish(place.configured(arguments).uid(NOBODY).gid(0));
    let commands = [&["status"][..], &["list"], &["health"], &["kv", "set", "a", "b"]];
    for (mode, is_let_in) in [("0600", false), ("0660", true), ("0600", false)] {
        daemon.kill();
        place.configure(&configuration(mode));
        daemon = start(&place);
        for command in commands {
            let output = by_a_member(command);
            assert_eq!(output.code == 0, is_let_in, "{mode}, {command:?}: {output:?}");
        }
    }
}

#[test]
fn what_a_member_of_the_group_leaves_beside_the_database_locks_no_daemon_out() {
    let place = Place::with(&configuration("0660"));
    if !nobody_can_run(&place) || !has_tools(&["setpriv"]) {
        return;
    }
    let mut daemon = daemon_as_nobody(&place);
    let copy = place.at("copy.db").display().to_string();
    assert_eq!(finish(place.configured(&["db", "backup", &copy]).uid(NOBODY).gid(NOBODY)).code, 0);
    fs::set_permissions(&copy, Permissions::from_mode(0o644)).unwrap();
    let program = place.configured(&[]);
    // The drop-in `group-access` makes the folder's group the one of what is made in it, SQLite's log above all.
    let steps = [(0o770, &["db", "restore", &copy][..]), (0o2770, &["status"]), (0o2770, &["kv", "set", "a", "b"])];
    for (folder, arguments) in steps {
        daemon.stop();
        fs::set_permissions(place.at("state"), Permissions::from_mode(folder)).unwrap();
        let mut member = Command::new("setpriv");
        member.args(["--reuid=1", "--regid=1", "--groups", &NOBODY.to_string()]).arg(program.get_program());
        let output = finish(member.args(arguments).args(program.get_args()));
        assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
        daemon = daemon_again_as_nobody(&place);
    }
}

#[test]
fn what_takes_the_place_of_a_database_has_its_mode_and_what_is_kept_is_no_more_open() {
    let place = Place::with(&configuration("0660"));
    let mut daemon = start(&place);
    place.add(&place.file("a", "a"), &[]);
    place.wait_count("completed", 1);
    succeeds(&place, &["db", "backup"]);
    daemon.stop();
    let replacements = [&["db", "restore", "--newest"][..], &["db", "check", "--repair"]];
    for wanted in [0o660, 0o600] {
        place.configure(&configuration(&format!("{wanted:04o}")));
        for command in replacements {
            let before = kept(&place).len();
            // Whatever somebody made of it meanwhile.
            fs::set_permissions(place.database(), Permissions::from_mode(0o664)).unwrap();
            succeeds(&place, command);
            assert_eq!(mode(place.database()), wanted, "{command:?}");
            assert!(kept(&place).len() > before, "{command:?}");
            for path in kept(&place) {
                assert_eq!(mode(&path), wanted, "{command:?}: {}", path.display());
            }
        }
    }
    for backup in fs::read_dir(place.at("state/backups")).unwrap().flatten() {
        assert_eq!(mode(backup.path()), 0o600, "a backup is its owner's");
    }
    assert_eq!(mode(place.at("state/backups")), 0o700);
    assert_eq!(place.jobs().len(), 1);
}
