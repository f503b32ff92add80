//! The whole way, as a user goes it: files in, verdicts out; and only the final content of a file is worked on.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::*;

/// The quick form over `folder`, to its end.
fn quick(place: &Place, folder: &Path) -> Output {
    let mut command = place.program();
    command.args(["run", "--once", "--exec", "sha256sum {path}", "--watch"]).arg(folder);
    command.args(["--database", &place.url()]);
    finish(&mut command)
}

/// A command beside the quick form: without a configuration, on its database.
fn beside(place: &Place, arguments: &[&str]) -> Output {
    let output = finish(place.program().args(arguments).args(["--database", &place.url()]));
    assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
    output
}

fn executions(place: &Place) -> usize {
    beside(place, &["history", "--json", "--limit", "1000000"]).json_lines().len()
}

fn all_jobs(place: &Place) -> Vec<Value> {
    beside(place, &["list", "--json", "--limit", "1000000"]).json_lines()
}

#[test]
fn the_quick_form_processes_each_file_once_and_then_only_what_changed() {
    let place = Place::new();
    let folder = place.at("documents");
    fs::create_dir(&folder).unwrap();
    let files = corpus(&folder, if long() { 4_000 } else { 1_000 });
    assert_eq!(files.len(), if long() { 4_000 } else { 1_000 });

    let first = quick(&place, &folder);
    assert_eq!(first.code, 0, "{first:?}");
    let jobs = all_jobs(&place);
    let by_path: BTreeMap<&str, &Value> = jobs.iter().map(|job| (text(job, "path"), job)).collect();
    assert_eq!((jobs.len(), by_path.len()), (files.len(), files.len()), "one job for each file");
    for file in &files {
        let job = by_path[file.to_str().unwrap()];
        assert_eq!((text(job, "state"), job["attempt"].as_i64()), ("completed", Some(1)), "{job}");
        assert_eq!(text(job, "digest"), blake3_of(file), "{job}");
    }
    for file in files.iter().step_by(files.len() / 10) {
        let job = by_path[file.to_str().unwrap()];
        let said = beside(&place, &["logs", &job["id"].to_string()]).stdout;
        assert!(said.starts_with(&sha256_of(&fs::read(file).unwrap())), "{job}: {said}");
    }
    assert_eq!(executions(&place), files.len());

    let second = quick(&place, &folder);
    assert_eq!(second.code, 0, "{second:?}");
    assert_eq!(executions(&place), files.len(), "a second run does nothing");

    for file in &files[..10] {
        OpenOptions::new().append(true).open(file).unwrap().write_all(b"changed").unwrap();
    }
    files[10..15].iter().for_each(|file| fs::remove_file(file).unwrap());
    for file in &files[15..17] {
        File::options().append(true).open(file).unwrap().set_modified(SystemTime::now()).unwrap();
    }
    for number in 0..7 {
        fs::write(folder.join(format!("new-{number}")), format!("new {number}")).unwrap();
    }
    let third = quick(&place, &folder);
    assert_eq!(third.code, 0, "{third:?}");
    assert_eq!(executions(&place), files.len() + 17, "10 changed and 7 added");
    let changed: Vec<Value> = all_jobs(&place).into_iter().filter(|job| job["version"] == 2).collect();
    assert_eq!(changed.len(), 10);
    assert!(changed.iter().all(|job| job["op"] == "modify" && job["state"] == "completed"), "{changed:?}");
}

#[test]
fn the_quick_form_keeps_its_own_database_for_each_folder() {
    let place = Place::new();
    place.put("a", "a");
    fs::create_dir(place.at("other")).unwrap();
    fs::write(place.at("other/b"), "b").unwrap();
    for folder in [place.inbox(), place.at("other"), place.inbox()] {
        let run = finish(place.program().args(["run", "--once", "--watch"]).arg(folder));
        assert_eq!(run.code, 0, "{run:?}");
    }
    let databases = databases_below(&place.at("home/state"));
    assert_eq!(databases.len(), 2, "{databases:?}");
    for database in databases {
        let url = format!("sqlite://{}", database.display());
        let history = finish(place.program().args(["history", "--json", "--database", &url]));
        assert_eq!(history.json_lines().len(), 1, "the second run does nothing: {history:?}");
    }
}

fn databases_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(databases_below(&path));
        } else if path.extension().is_some_and(|ending| ending == "db") {
            found.push(path);
        }
    }
    found
}

/// A daemon that records what it is given, with a settle time that tests can wait for.
fn recording(place: &Place, settle: &str) -> Ledger {
    let ledger = Ledger::new(place, "");
    place.configure(&format!(
        "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 4\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"{settle}\"\n",
        ledger.command
    ));
    ledger
}

/// Waits until the last execution on a file saw its content of now, and its job agrees.
#[track_caller]
fn wait_for_content(place: &Place, ledger: &Ledger, name: &str) {
    let path = place.inbox().join(name);
    let expected = sha256_of(&fs::read(&path).unwrap());
    wait_until(&format!("{name} is processed as it is now"), || {
        ledger.of(name).last().is_some_and(|entry| entry.sha256 == expected && entry.digest == blake3_of(&path))
    });
}

/// The contents on which the processor worked, in order.
fn seen(ledger: &Ledger, name: &str) -> Vec<String> {
    ledger.of(name).into_iter().map(|entry| entry.sha256).collect()
}

#[test]
fn files_copied_moved_and_nested_are_processed_once() {
    let place = Place::new();
    let ledger = recording(&place, "300ms");
    let _daemon = Daemon::start(&place);
    let inbox = place.inbox();

    fs::write(inbox.join("copied"), vec![7; 300_000]).unwrap();
    fs::write(place.at("outside"), "moved in").unwrap();
    fs::rename(place.at("outside"), inbox.join("moved")).unwrap();
    fs::create_dir_all(inbox.join("a/b/c/d")).unwrap();
    fs::write(inbox.join("a/b/c/d/deep"), "deep").unwrap();
    fs::write(inbox.join("a/b/shallow"), "shallow").unwrap();
    fs::create_dir_all(place.at("tree/e/f")).unwrap();
    fs::write(place.at("tree/e/f/carried"), "carried").unwrap();
    fs::rename(place.at("tree"), inbox.join("tree")).unwrap();
    fs::write(inbox.join("a name with spaces, ümlauts & 'quotes'"), "odd").unwrap();
    fs::write(inbox.join("-dash"), "dash").unwrap();

    for name in ["copied", "moved", "a/b/c/d/deep", "a/b/shallow", "tree/e/f/carried", "-dash"] {
        wait_for_content(&place, &ledger, name);
        assert_eq!(ledger.of(name).len(), 1, "{name}");
    }
    wait_for_content(&place, &ledger, "a name with spaces, ümlauts & 'quotes'");
    place.wait_count("completed", 7);
}

#[test]
fn a_burst_of_new_nested_folders_loses_no_file() {
    let place = Place::new();
    let ledger = recording(&place, "100ms");
    let _daemon = Daemon::start(&place);
    for number in 0..60 {
        let folder = place.inbox().join(format!("day-{number}/x/y"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), format!("{number}")).unwrap();
        fs::write(folder.join("../beside"), format!("{number}")).unwrap();
    }
    place.wait_count("completed", 120);
    assert_eq!(ledger.entries().len(), 120);
}

#[test]
fn a_file_that_is_written_slowly_is_processed_once_and_whole() {
    let place = Place::new();
    let ledger = recording(&place, "800ms");
    let _daemon = Daemon::start(&place);
    // Held open with pauses; and opened anew for each piece, as upload servers do.
    let mut held = File::create(place.inbox().join("held")).unwrap();
    for piece in 0..12 {
        held.write_all(format!("piece {piece}\n").as_bytes()).unwrap();
        let mut again = OpenOptions::new().create(true).append(true).open(place.inbox().join("reopened")).unwrap();
        again.write_all(format!("piece {piece}\n").as_bytes()).unwrap();
        drop(again);
        sleep(Duration::from_millis(150));
    }
    drop(held);
    for name in ["held", "reopened"] {
        wait_for_content(&place, &ledger, name);
        assert_eq!(seen(&ledger, name).len(), 1, "{name} was seen half");
    }
}

#[test]
fn replaced_appended_and_rewritten_files_are_processed_anew() {
    let place = Place::new();
    let ledger = recording(&place, "200ms");
    let _daemon = Daemon::start(&place);
    let names = ["replaced", "appended", "rewritten", "untouched"];
    for name in names {
        place.put(name, format!("first {name}"));
    }
    for name in names {
        wait_for_content(&place, &ledger, name);
    }

    place.put("replaced", "second");
    let mut file = OpenOptions::new().append(true).open(place.inbox().join("appended")).unwrap();
    file.write_all(b" and more").unwrap();
    drop(file);
    fs::write(place.inbox().join("rewritten"), "FIRST rewritten").unwrap();
    let untouched = place.inbox().join("untouched");
    fs::set_permissions(&untouched, fs::Permissions::from_mode(0o640)).unwrap();
    File::options().append(true).open(&untouched).unwrap().set_modified(SystemTime::now()).unwrap();

    for name in &names[..3] {
        wait_for_content(&place, &ledger, name);
        assert_eq!(ledger.of(name).len(), 2, "{name}");
        let job = wait_for("its second job is done", || {
            place.newest_of(name).filter(|job| text(job, "state") == "completed" && job["version"] == 2)
        });
        assert_eq!(text(&job, "op"), "modify", "{job}");
    }
    // A scan looks at everything; chmod and touch are no new content.
    place.ok(&["watch", "scan", "inbox"]);
    place.put("later", "later");
    wait_for_content(&place, &ledger, "later");
    assert_eq!(ledger.of("untouched").len(), 1);
}

#[test]
fn content_that_returns_is_a_version_of_its_own() {
    let place = Place::new();
    let ledger = recording(&place, "100ms");
    let _daemon = Daemon::start(&place);
    for (version, content) in [(1, "A"), (2, "B"), (3, "A")] {
        place.put("file", content);
        wait_until("the version is done", || {
            place.newest_of("file").is_some_and(|job| job["version"] == version && text(&job, "state") == "completed")
        });
    }
    assert_eq!(seen(&ledger, "file"), [sha256_of(b"A"), sha256_of(b"B"), sha256_of(b"A")]);
    let keys: std::collections::BTreeSet<String> =
        place.jobs().iter().map(|job| text(job, "idempotency_key").to_owned()).collect();
    assert_eq!(keys.len(), 3);
}

#[test]
fn what_arrived_changed_or_vanished_while_the_daemon_was_down_is_found() {
    let place = Place::new();
    let ledger = recording(&place, "100ms");
    for name in ["kept", "changed", "deleted"] {
        place.put(name, name);
    }
    let mut daemon = Daemon::start(&place);
    place.wait_count("completed", 3);
    assert_eq!(daemon.stop(), 0);

    place.put("changed", "other");
    place.put("arrived", "arrived");
    fs::remove_file(place.inbox().join("deleted")).unwrap();
    let _daemon = Daemon::start(&place);
    wait_for_content(&place, &ledger, "changed");
    wait_for_content(&place, &ledger, "arrived");
    place.wait_count("completed", 5);
    assert_eq!((ledger.of("kept").len(), ledger.of("deleted").len()), (1, 1));
}

#[test]
fn a_version_that_arrives_during_an_attempt_waits_and_runs_afterwards() {
    let place = Place::new();
    let ledger = Ledger::new(&place, &format!("while [ ! -e {} ]; do sleep 0.05; done", place.at("go").display()));
    place.configure(&format!(
        "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 4\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"50ms\"\n",
        ledger.command
    ));
    let _daemon = Daemon::start(&place);
    place.put("file", "one");
    wait_until("it runs", || ledger.entries().len() == 1);
    place.put("file", "two");
    wait_until("the second version waits", || place.in_state("pending") == 1);
    place.put("file", "three");
    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(ledger.entries().len(), 1, "two versions of one source never run at once");
    fs::write(place.at("go"), "").unwrap();
    place.wait_count("completed", 2);
    assert_eq!(seen(&ledger, "file"), [sha256_of(b"one"), sha256_of(b"three")]);
}

#[test]
fn a_newer_version_takes_the_place_of_a_waiting_one() {
    let place = Place::new();
    let ledger = recording(&place, "50ms");
    let _daemon = Daemon::start(&place);
    place.put("file", "one");
    place.wait_count("completed", 1);
    place.ok(&["pause"]);
    place.put("file", "two");
    place.wait_count("pending", 1);
    let second = place.newest_of("file").unwrap();
    place.ok(&["priority", "high", &second["id"].to_string()]);
    place.put("file", "three");
    place.wait_count("skipped", 1);
    let third = place.newest_of("file").unwrap();
    let second = place.show(count(&second, "id"));
    assert_eq!((text(&second, "state"), text(&second, "reason")), ("skipped", "superseded"), "{second}");
    assert_eq!((text(&third, "priority"), count(&third, "version")), ("high", 3), "{third}");
    place.ok(&["resume"]);
    place.wait_count("completed", 2);
    assert_eq!(seen(&ledger, "file"), [sha256_of(b"one"), sha256_of(b"three")]);
}

#[test]
fn sockets_fifos_and_links_never_hang_the_watch() {
    let place = Place::new();
    let ledger = recording(&place, "100ms");
    let made = std::process::Command::new("mkfifo").arg(place.inbox().join("fifo")).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: the FIFO, because mkfifo is missing");
    }
    let _socket = std::os::unix::net::UnixListener::bind(place.inbox().join("socket")).unwrap();
    std::os::unix::fs::symlink(place.inbox(), place.inbox().join("loop")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", place.inbox().join("dangling")).unwrap();
    let _daemon = Daemon::start(&place);
    place.put("plain", "plain");
    wait_for_content(&place, &ledger, "plain");
    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(ledger.entries().len(), 1, "{:?}", ledger.entries());
}

#[test]
fn names_that_are_not_utf8_reach_the_processor_as_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let ledger = recording(&place, "100ms");
    let _daemon = Daemon::start(&place);
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9\xff");
    fs::write(place.inbox().join(name), "bytes").unwrap();
    place.wait_count("completed", 1);
    let job = place.jobs().remove(0);
    assert!(text(&job, "path").contains('\u{fffd}'), "{job}");
    assert!(job["path_base64"].is_string(), "{job}");
    assert_eq!(ledger.entries()[0].sha256, sha256_of(b"bytes"));
}
