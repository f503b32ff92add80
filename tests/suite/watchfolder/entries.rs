//! Entries that are not plain files that can be read, or not any more.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{configuration, last_scan, quiet, taken, told_only};
use crate::support::*;

/// Makes a FIFO, and a device where that is allowed; answers them.
fn special(folder: &Path) -> Vec<PathBuf> {
    let (fifo, device) = (folder.join("fifo"), folder.join("device"));
    run(Command::new("mkfifo").arg(&fifo));
    let made = Command::new("mknod").arg(&device).args(["c", "1", "3"]).output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: the device, because none can be made here");
        return vec![fifo];
    }
    vec![fifo, device]
}

#[test]
fn fifos_sockets_and_devices_are_never_opened() {
    if !has_tools(&["mkfifo", "mknod"]) {
        return;
    }
    for mode in ["native", "poll"] {
        let place = told_only(&format!("mode = \"{mode}\"\npoll_interval = \"200ms\""));
        let there = special(&place.inbox());
        let _socket = UnixListener::bind(place.inbox().join("socket")).unwrap();
        let mut opens: Vec<Opens> = there.iter().map(|path| Opens::of(path)).collect();
        let _daemon = Daemon::start(&place);
        last_scan(&place);
        // Told by events as well: moved in, and touched.
        fs::create_dir(place.at("outside")).unwrap();
        let moved = special(&place.at("outside"));
        opens.extend(moved.iter().map(|path| Opens::of(path)));
        fs::rename(place.at("outside"), place.inbox().join("inside")).unwrap();
        for path in &there {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        place.put("plain", "plain");
        place.wait_count("completed", 1);
        quiet(&place);
        assert_eq!(taken(&place), ["plain"]);
        assert_eq!(opens.iter_mut().map(Opens::count).collect::<Vec<_>>(), vec![0; opens.len()], "{mode}");
    }
}

#[test]
fn followed_links_are_watched_end_in_loops_and_never_lead_out() {
    for mode in ["native", "poll"] {
        let place = told_only(&format!("follow_symlinks = true\nmode = \"{mode}\"\npoll_interval = \"200ms\""));
        let (inbox, outside) = (place.inbox(), place.at("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "x").unwrap();
        fs::create_dir_all(inbox.join("a/b")).unwrap();
        fs::write(inbox.join("a/b/file"), "x").unwrap();
        symlink("..", inbox.join("a/b/up")).unwrap();
        symlink(&inbox, inbox.join("a/all")).unwrap();
        symlink(&outside, inbox.join("out")).unwrap();
        symlink("../../outside/secret", inbox.join("a/leak")).unwrap();
        symlink("round", inbox.join("round")).unwrap();
        let daemon = Daemon::start(&place);
        place.wait_count("completed", 1);
        fs::write(inbox.join("a/later"), "x").unwrap();
        fs::write(outside.join("later"), "x").unwrap();
        place.wait_count("completed", 2);
        quiet(&place);
        assert_eq!(taken(&place), ["a/b/file", "a/later"], "{mode}\n{}", daemon.log());
    }
}

#[test]
fn a_file_that_becomes_a_link_to_the_outside_is_not_read_through_it() {
    let place = Place::new();
    let ledger = Ledger::new(&place, "");
    place.configure(
        &configuration("rescan_interval = \"1h\"")
            .replace("kind = \"noop\"", &format!("kind = \"exec\"\ncommand = {}", ledger.command)),
    );
    let secret = place.file("secret", "secret");
    let path = place.put("file", "plain");
    place.ok(&["db", "migrate"]);
    place.ok(&["pause", "p"]);
    let _daemon = Daemon::start(&place);
    place.wait_count("pending", 1);
    fs::remove_file(&path).unwrap();
    symlink(&secret, &path).unwrap();
    place.ok(&["resume", "p"]);
    wait_until("the job has ended", || place.in_state("pending") + place.in_state("running") == 0);
    assert!(ledger.entries().iter().all(|entry| entry.sha256 != sha256_of(b"secret")), "{:?}", ledger.entries());
}

#[test]
fn a_file_that_can_not_be_read_is_told_once_and_not_at_every_look() {
    let place = Place::with(&configuration("mode = \"poll\"\npoll_interval = \"100ms\""));
    if !nobody_can_run(&place) {
        return;
    }
    let daemon = daemon_as_nobody(&place);
    let hidden = place.at("not-yet");
    fs::write(&hidden, "for root only").unwrap();
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&hidden, place.inbox().join("secret")).unwrap();
    let job =
        wait_for("it is told", || place.newest_of("secret").filter(|job| text(&job["error"], "kind") == "unreadable"));
    for _ in 0..8 {
        let before = last_scan(&place);
        wait_until("another scan went through", || last_scan(&place) != before);
    }
    assert_eq!(place.jobs().len(), 1, "{:?}", place.jobs());
    // An attempt that is due may fail again; the looks add nothing.
    let attempts = count(&place.show(count(&job, "id")), "attempt");
    let told = daemon.log().lines().filter(|line| line.contains("secret")).count();
    assert!(told <= usize::try_from(attempts).unwrap() + 1, "{told} lines\n{}", daemon.log());
}

#[test]
fn files_that_vanish_between_event_and_look_leave_no_failure() {
    // So many that are gone at once would be held back, which is not what this is about.
    let place = told_only("delete_brake = { above = 100, share = 0.5, wait = \"0s\" }");
    let daemon = Daemon::start(&place);
    let folder = place.inbox().join("folder");
    fs::create_dir(&folder).unwrap();
    for turn in 0..1_500 {
        let path = folder.join(format!("file-{turn}"));
        fs::write(&path, format!("{turn}")).unwrap();
        match turn % 3 {
            0 => fs::remove_file(&path).unwrap(),
            1 => fs::rename(&path, place.inbox().join("moved")).unwrap(),
            _ => fs::remove_file(path).unwrap(),
        }
    }
    fs::remove_dir(&folder).unwrap();
    place.put("last", "last");
    wait_until("the last one is done", || place.newest_of("last").is_some());
    quiet(&place);
    assert_eq!(place.in_state("failed"), 0, "{}", daemon.log());
    let moved = place.newest_of("moved").unwrap();
    assert_eq!(text(&moved, "digest"), blake3_of(&place.inbox().join("moved")), "{moved}");
    let noise = daemon.log().lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    assert_eq!(noise, 0, "{}", daemon.log());
}

#[test]
fn a_name_that_is_written_and_removed_again_and_again_leaves_no_failure() {
    let place = told_only("delete_brake = { above = 100, share = 0.5, wait = \"0s\" }");
    let daemon = Daemon::start(&place);
    for turn in 0..1_000 {
        let path = place.inbox().join(format!("file-{}", turn % 10));
        fs::write(&path, format!("{turn}")).unwrap();
        fs::remove_file(path).unwrap();
    }
    place.put("last", "last");
    wait_until("the last one is done", || place.newest_of("last").is_some());
    quiet(&place);
    // Put off because it was written again, then gone: nothing was ever started on it.
    assert_eq!(place.in_state("failed"), 0, "{}", daemon.log());
}

#[test]
fn the_state_directory_inside_a_watch_is_left_alone() {
    let place = Place::with(
        &configuration("rescan_interval = \"1h\"\nexclude = [\"log-*\", \"notify-*\", \"ingestd.toml\"]")
            .replace("@PLACE@/inbox", "@PLACE@"),
    );
    let checked = place.cli(&["config", "check"]);
    let mut daemon = Daemon::spawn(&place, place.configured(&["run"]));
    if checked.code == 2 {
        // Refused with the reason is as good.
        assert!(checked.stderr.contains("state"), "{checked:?}");
        assert_eq!(daemon.exit_code(), 2);
        return;
    }
    daemon.ready();
    place.put("file", "x");
    place.wait_count("completed", 1);
    // Under another name as well, and with everything written that the daemon writes there.
    fs::create_dir(place.at("other")).unwrap();
    symlink(place.at("state"), place.at("other/linked")).unwrap();
    place.ok(&["db", "backup"]);
    quiet(&place);
    assert_eq!(taken(&place), ["inbox/file"]);
    place.ok(&["db", "check"]);
}

#[test]
fn a_processor_that_writes_beside_its_file_is_no_loop() {
    let place = Place::new();
    let script = place.at("extract.sh");
    // A sidecar that the rules exclude, made as it should be: written aside, then renamed.
    fs::write(&script, "wc -c < \"$1\" > \"$1.tmp\" && mv \"$1.tmp\" \"$1.text\"\n").unwrap();
    let command = format!("kind = \"exec\"\ncommand = [\"/bin/sh\", \"{}\", \"{{path}}\"]", script.display());
    place.configure(
        &configuration("rescan_interval = \"1h\"\nexclude = [\"**/*.tmp\", \"**/*.text\"]")
            .replace("kind = \"noop\"", &command),
    );
    let _daemon = Daemon::start(&place);
    for number in 0..5 {
        place.put(&format!("file-{number}"), "content");
    }
    place.wait_count("completed", 5);
    quiet(&place);
    assert_eq!(place.jobs().len(), 5, "{:?}", taken(&place));
}
