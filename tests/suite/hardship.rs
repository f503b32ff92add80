//! When the surroundings don't play along: missing rights, damage, vanishing roots, lost events, crowds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

use crate::support::*;

const NOOP_INBOX: &str = "[pipeline.p]\nkind = \"noop\"\nconcurrency = 16\n\
     [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n";

#[test]
fn an_unreadable_file_fails_with_the_reason_and_stops_nothing() {
    let place = Place::with(&format!(
        "{NOOP_INBOX}[pipeline.e]\nkind = \"exec\"\ncommand = [\"/bin/cat\", \"{{path}}\"]\n\
         retry = {{ max_attempts = 2, base = \"20ms\" }}\n"
    ));
    if !nobody_can_run(&place) {
        return;
    }
    let daemon = daemon_as_nobody(&place);
    let secret = place.put("secret", "for root only");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let locked = place.inbox().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("inside"), "inside").unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    place.put("plain", "plain");
    wait_until("the readable one is done", || {
        place.newest_of("plain").is_some_and(|job| text(&job, "state") == "completed")
    });
    let job = wait_for("the unreadable one is told apart", || {
        place.newest_of("secret").filter(|job| text(&job["error"], "kind") == "unreadable")
    });
    assert!(matches!(text(&job, "state"), "failed" | "retrying" | "skipped"), "{job}");
    drop(daemon);
}

#[test]
fn a_file_that_another_user_holds_open_is_settled_by_quiet_time() {
    let place = Place::with(&NOOP_INBOX.replace("\"0s\"", "\"400ms\""));
    if !nobody_can_run(&place) {
        return;
    }
    let _daemon = daemon_as_nobody(&place);
    // Nobody may not probe root's file with a lease.
    let open = fs::File::create(place.inbox().join("open")).unwrap();
    fs::set_permissions(place.inbox().join("open"), fs::Permissions::from_mode(0o644)).unwrap();
    place.wait_count("completed", 1);
    drop(open);
}

#[test]
fn who_may_not_read_the_database_is_told_who_may() {
    let place = Place::with_database(NOOP_INBOX);
    if !nobody_can_run(&place) {
        return;
    }
    for arguments in [&["status"][..], &["list"], &["kv", "set", "a", "b"]] {
        let refused = finish(place.configured(arguments).uid(NOBODY).gid(NOBODY));
        assert_eq!(refused.code, 1, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains("sudo -u"), "{arguments:?}: {refused:?}");
    }
    let refused = finish(place.configured(&["run", "--once"]).uid(NOBODY).gid(NOBODY));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.lines().last().unwrap().contains("ingestd.db"), "{refused:?}");
}

#[test]
fn a_damaged_database_is_told_and_can_be_salvaged() {
    let place = Place::with_database(NOOP_INBOX);
    let mut list = Vec::new();
    for number in 0..1_500 {
        list.extend(place.file(&format!("a-file-number-{number}"), "x").to_str().unwrap().as_bytes());
        list.push(0);
    }
    assert_eq!(place.feed(&["add", "-0", "-"], &list).code, 0);
    place.ok(&["run", "--once"]);
    assert_eq!(place.in_state("completed"), 1_500);
    let mut bytes = fs::read(place.database()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 20_000].fill(0xa5);
    fs::write(place.database(), &bytes).unwrap();
    let refused = place.exits(1, &["run", "--once"]);
    assert!(refused.stderr.lines().last().unwrap().contains("ingestd"), "{refused:?}");
    assert!(!refused.stderr.contains("panicked"), "{refused:?}");

    place.ok(&["db", "check", "--repair"]);
    place.ok(&["db", "check"]);
    let kept = place.jobs().len();
    assert!(kept > 500, "{kept} of 1500 jobs were salvaged");
    place.ok(&["run", "--once"]);
}

#[test]
fn what_is_no_database_of_ours_is_refused_by_its_name_and_not_changed() {
    let place = Place::with(NOOP_INBOX);
    fs::create_dir(place.at("state")).unwrap();
    let file = place.database();
    let songs = rusqlite::Connection::open(&file).unwrap();
    songs.execute_batch("CREATE TABLE songs (title TEXT); INSERT INTO songs VALUES ('a')").unwrap();
    songs.close().unwrap();
    let stranger = fs::read(&file).unwrap();
    let added = place.file("a", "a");
    for content in [&stranger[..], b"Dear database,\nthis is a letter.\n", &[0xa5; 10_000]] {
        fs::write(&file, content).unwrap();
        for command in [&["run", "--once"][..], &["status"], &["db", "check"], &["db", "migrate"], &["list"]] {
            let refused = place.exits(1, command);
            let last = refused.stderr.lines().last().unwrap_or_default();
            assert!(last.contains(file.to_str().unwrap()) && last.contains("`ingestd db"), "{command:?}: {refused:?}");
        }
        place.exits(1, &["add", added.to_str().unwrap()]);
        place.exits(1, &["db", "check", "--repair"]);
        assert!(fs::read(&file).unwrap() == content, "the file was changed");
    }
}

#[test]
fn a_database_that_is_emptied_or_gone_is_not_taken_for_a_new_one() {
    let place = Place::with_database(NOOP_INBOX);
    place.ok(&["db", "backup"]);
    for (is, lose) in [("empty", fs::write as fn(_, _) -> _), ("gone", |path, _| fs::remove_file(path))] {
        lose(place.database(), "").unwrap();
        for command in [&["run", "--once"][..], &["status"], &["db", "check"]] {
            let refused = place.exits(1, command);
            let word = refused.stderr.contains(&format!("the database is {is}"));
            assert!(word && refused.stderr.contains("`ingestd db restore --newest`"), "{command:?}: {refused:?}");
        }
        assert!(fs::metadata(place.database()).map_or(0, |meta| meta.len()) == 0, "something was written");
        place.ok(&["db", "restore", "--newest"]);
        place.ok(&["run", "--once"]);
    }
    // Where nothing says otherwise, an empty file is a new database.
    let place = Place::with(NOOP_INBOX);
    fs::create_dir(place.at("state")).unwrap();
    fs::write(place.database(), "").unwrap();
    place.ok(&["run", "--once"]);
    place.ok(&["db", "check"]);
}

#[test]
fn a_root_that_vanishes_is_not_a_thousand_deletions() {
    let place = Place::with(&NOOP_INBOX.replace("settle", "events = [\"add\", \"modify\", \"delete\"]\nsettle"));
    let _daemon = Daemon::start(&place);
    for number in 0..40 {
        place.put(&format!("file-{number}"), "x");
    }
    place.wait_count("completed", 40);
    fs::rename(place.inbox(), place.at("elsewhere")).unwrap();
    wait_until("a warning names the watch", || place.status()["warnings"].to_string().contains("inbox"));
    assert_eq!(place.jobs().len(), 40, "no file was deleted");
    fs::rename(place.at("elsewhere"), place.inbox()).unwrap();
    wait_until("the warning is gone", || !place.status()["warnings"].to_string().contains("inbox"));
    place.put("after", "after");
    place.wait_count("completed", 41);
    assert_eq!(place.jobs().len(), 41);
}

#[test]
fn jobs_that_wait_while_their_folder_is_away_fail_for_nothing() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"test -e @PLACE@/go || exit 75\"]\n\
         retry = { base = \"20ms\", factor = 1.0, jitter = \"none\" }\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\npoll_interval = \"100ms\"\n",
    );
    let _daemon = Daemon::start(&place);
    place.put("file", "x");
    let kind = || place.newest_of("file").map(|job| job["error"]["kind"].clone());
    wait_until("it is deferred", || kind() == Some("exit".into()));
    fs::rename(place.inbox(), place.at("elsewhere")).unwrap();
    wait_until("its folder is missed", || kind() == Some("vanished".into()));
    assert_eq!(place.in_state("failed"), 0);
    fs::rename(place.at("elsewhere"), place.inbox()).unwrap();
    fs::write(place.at("go"), "").unwrap();
    place.wait_count("completed", 1);
    assert_eq!(place.in_state("failed"), 0);
}

#[test]
fn lost_events_are_made_good_by_a_scan() {
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").ok();
    let Some(most) = most.and_then(|most| most.trim().parse::<usize>().ok()).filter(|most| *most <= 20_000) else {
        eprintln!("skipped: the kernel's queue of events is too long to overflow here");
        return;
    };
    let place = Place::with(NOOP_INBOX);
    let daemon = Daemon::start(&place);
    daemon.signal(Signal::STOP);
    let (folders, files) = (20, most / 40 + 10);
    // Each file makes several events: created, written, closed.
    for folder in 0..folders {
        let folder = place.inbox().join(format!("folder-{folder}"));
        fs::create_dir(&folder).unwrap();
        (0..files / 10).for_each(|file| fs::write(folder.join(format!("{file}")), "x").unwrap());
    }
    for turn in 0..most {
        fs::write(place.inbox().join("busy"), format!("{turn}")).unwrap();
    }
    fs::write(place.inbox().join("last"), "after the overflow").unwrap();
    daemon.signal(Signal::CONT);
    let expected = i64::try_from(folders * (files / 10) + 2).unwrap();
    wait_until("every file is done", || place.in_state("completed") >= expected && place.in_state("pending") == 0);
    assert_eq!(text(&place.newest_of("busy").unwrap(), "digest"), blake3_of(&place.inbox().join("busy")));
    assert!(place.newest_of("last").is_some());
}

#[test]
fn a_renamed_folder_is_still_watched() {
    let place = Place::with(NOOP_INBOX);
    let _daemon = Daemon::start(&place);
    fs::create_dir_all(place.inbox().join("old/deep")).unwrap();
    fs::write(place.inbox().join("old/deep/a"), "a").unwrap();
    place.wait_count("completed", 1);
    fs::rename(place.inbox().join("old"), place.inbox().join("new")).unwrap();
    wait_until("the file has its new name", || place.newest_of("new/deep/a").is_some());
    fs::write(place.inbox().join("new/deep/b"), "b").unwrap();
    wait_until("a file in it is seen", || place.newest_of("new/deep/b").is_some());
}

#[test]
fn a_crowd_of_commands_gets_through_with_and_without_a_daemon() {
    let place = Place::with_database("[pipeline.p]\nkind = \"noop\"\n");
    let crowd = |prefix: &str| {
        let spawn = |number: usize| {
            let file = place.file(&format!("{prefix}-{number}"), "x");
            place.configured(&["add", file.to_str().unwrap()]).spawn().unwrap()
        };
        let children: Vec<_> = (0..16).map(spawn).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{prefix}: {}", String::from_utf8_lossy(&output.stderr));
        }
    };
    crowd("without");
    assert_eq!(place.in_state("pending"), 16);
    let _daemon = Daemon::start(&place);
    crowd("with");
    place.wait_count("completed", 32);
}

#[test]
fn a_folder_is_no_file_to_add() {
    let place = Place::with_database("[pipeline.p]\nkind = \"noop\"\n");
    let refused = place.exits(1, &["add", place.inbox().to_str().unwrap()]);
    assert!(refused.stderr.contains("inbox"), "{refused:?}");
    let made = Command::new("mkfifo").arg(place.at("pipe")).status();
    if made.is_ok_and(|status| status.success()) {
        place.exits(1, &["add", place.at("pipe").to_str().unwrap()]);
    }
    assert!(place.jobs().is_empty());
}

#[test]
fn the_watchdog_is_fed_while_the_parts_make_progress() {
    let place = Place::with(NOOP_INBOX);
    let mut command = place.configured(&["run"]);
    command.env("WATCHDOG_USEC", "1000000");
    let mut daemon = Daemon::spawn(&place, command);
    daemon.ready();
    wait_until("the watchdog was fed twice", || daemon.said("WATCHDOG=1") >= 2);
    place.put("a", "a");
    place.wait_count("completed", 1);
    wait_until("its status holds counts", || daemon.heard("STATUS=").iter().any(|line| line.contains('0')));
    let quiet = Daemon::start(&Place::with(NOOP_INBOX)).said("WATCHDOG=1");
    assert_eq!(quiet, 0, "nobody asked for it");
}

#[test]
fn the_longest_names_and_deepest_folders_are_taken() {
    let place = Place::with(NOOP_INBOX);
    let mut deep = place.inbox();
    while deep.as_os_str().len() < 3_600 {
        deep.push("d".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("n".repeat(255)), "x").unwrap();
    place.ok(&["run", "--once"]);
    assert_eq!(place.in_state("completed"), 1);
}

#[test]
fn a_daemon_of_another_database_in_the_same_folder_ends_nobody_elses_processes() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"until [ -e $0 ]; do sleep 0.02; done\", \"@PLACE@/go\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let _daemon = Daemon::start(&place);
    place.put("a", "a");
    wait_until("it runs", || place.in_state("running") == 1);
    fs::create_dir(place.at("other")).unwrap();
    fs::write(place.at("other/b"), "b").unwrap();
    // The second time there was a daemon before, whose processes a start would end.
    for _ in 0..2 {
        let mut other = place.program();
        other.args(["run", "--once", "--exec", "/bin/true", "--watch"]).arg(place.at("other"));
        other.arg("--database").arg(format!("sqlite://{}", place.database().with_file_name("other.db").display()));
        assert_eq!(finish(&mut other).code, 0);
    }
    assert_eq!(place.in_state("running"), 1);
    fs::write(place.at("go"), "").unwrap();
    place.wait_count("completed", 1);
    assert_eq!(count(&place.jobs()[0], "attempt"), 1);
    assert_eq!(place.history().len(), 1);
}
