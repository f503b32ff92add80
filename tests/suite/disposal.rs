//! What happens to a file after its processor: kept, moved or removed, and never another one than was processed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::support::*;

fn disposing(script: &str, watch: &str) -> Place {
    let place = Place::new();
    configure(&place, script, watch);
    place
}

fn configure(place: &Place, script: &str, watch: &str) {
    place.configure(&format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", '''{script}''', \"sh\", \"{{path}}\"]\n\
         concurrency = 4\nretry = {{ max_attempts = 2, base = \"10ms\" }}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"50ms\"\n{watch}\n"
    ));
}

/// Everything in the inbox, hidden names too.
fn left(place: &Place) -> Vec<PathBuf> {
    files_below(&place.inbox())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.extend(files_below(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

#[test]
fn delete_removes_what_was_processed_and_that_is_no_delete() {
    let place = disposing("exit 0", "on_success = \"delete\"\nevents = [\"add\", \"modify\", \"delete\"]");
    let _daemon = Daemon::start(&place);
    place.put("a", "a");
    place.put("b", "b");
    wait_until("both are gone", || left(&place).is_empty());
    place.wait_count("completed", 2);
    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(place.jobs().len(), 2, "what we removed ourselves is not a delete");
}

#[test]
fn move_keeps_the_relative_path() {
    let place = disposing("exit 0", "on_success = { move = \"@PLACE@/done\" }");
    let _daemon = Daemon::start(&place);
    fs::create_dir_all(place.inbox().join("x/y")).unwrap();
    fs::write(place.inbox().join("x/y/deep"), "deep").unwrap();
    place.put("plain", "plain");
    wait_until("both were moved", || {
        place.at("done/x/y/deep").exists() && place.at("done/plain").exists() && left(&place).is_empty()
    });
    place.wait_count("completed", 2);
    assert_eq!(fs::read(place.at("done/x/y/deep")).unwrap(), b"deep");
}

#[test]
fn a_target_is_never_overwritten() {
    let place = disposing("exit 0", "on_success = { move = \"@PLACE@/done\" }");
    let _daemon = Daemon::start(&place);
    for content in ["first", "second", "third"] {
        place.put("name", content);
        wait_until("it was moved", || left(&place).is_empty());
    }
    place.wait_count("completed", 3);
    let mut contents: Vec<String> =
        files_below(&place.at("done")).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, ["first", "second", "third"]);
}

#[test]
fn a_failure_for_good_moves_the_file_away_and_a_retry_does_not() {
    let place = disposing("case $1 in *bad) exit 1;; esac", "on_failure = { move = \"@PLACE@/failed\" }");
    let _daemon = Daemon::start(&place);
    place.put("bad", "bad");
    place.put("good", "good");
    wait_until("the bad one was moved", || place.at("failed/bad").exists());
    place.wait_count("failed", 1);
    place.wait_count("completed", 1);
    assert_eq!(left(&place), [place.inbox().join("good")]);
    assert_eq!(place.newest_of("bad").unwrap()["attempt"], 2, "not before the last attempt");
}

#[test]
fn a_file_that_changed_during_the_attempt_is_put_back_as_the_next_version() {
    let place = Place::new();
    let ledger = Ledger::new(&place, &format!("while [ ! -e {} ]; do sleep 0.05; done", place.at("go").display()));
    place.configure(&format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = {}\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\n\
         settle = \"1s\"\non_success = {{ move = \"@PLACE@/done\" }}\n",
        ledger.command
    ));
    let _daemon = Daemon::start(&place);
    place.put("file", "one");
    wait_until("it runs", || ledger.entries().len() == 1);
    place.put("file", "two");
    fs::write(place.at("go"), "").unwrap();
    wait_until("the newer content was processed and moved", || {
        ledger.entries().last().is_some_and(|entry| entry.sha256 == sha256_of(b"two")) && left(&place).is_empty()
    });
    place.wait_count("completed", 2);
    let moved = files_below(&place.at("done"));
    assert!(moved.iter().any(|path| fs::read(path).unwrap() == b"two"), "{moved:?}");
    assert!(moved.iter().all(|path| fs::read(path).unwrap() != b"one"), "what was replaced is nobody's to move");
}

#[test]
fn a_move_goes_across_filesystems() {
    let place = Place::new();
    let shared = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|data| data.dev()).unwrap_or_default();
    if !shared.is_dir() || device(shared) == device(&place.inbox()) {
        eprintln!("skipped: /dev/shm is no other filesystem here");
        return;
    }
    let Ok(target) = tempfile::tempdir_in(shared) else {
        eprintln!("skipped: /dev/shm may not be written to");
        return;
    };
    let done = target.path().join("done");
    configure(&place, "exit 0", &format!("on_success = {{ move = \"{}\" }}", done.display()));
    let _daemon = Daemon::start(&place);
    let content = vec![42; 3_000_000];
    place.put("large", &content);
    fs::create_dir_all(place.inbox().join("sub")).unwrap();
    fs::write(place.inbox().join("sub/small"), "small").unwrap();
    wait_until("both arrived", || left(&place).is_empty());
    place.wait_count("completed", 2);
    assert!(fs::read(done.join("large")).unwrap() == content);
    assert_eq!(files_below(&done), [done.join("large"), done.join("sub/small")], "no temporary file is left");
}

#[test]
fn a_target_inside_a_watched_tree_is_refused_unless_it_is_excluded() {
    let place = disposing("exit 0", "on_success = { move = \"@PLACE@/inbox/done\" }");
    let refused = place.exits(2, &["config", "check"]);
    assert!(refused.stderr.contains("on_success"), "{refused:?}");
    place.exits(2, &["run", "--once"]);
    configure(&place, "exit 0", "on_success = { move = \"@PLACE@/inbox/done\" }\nexclude = [\"done/**\"]");
    place.ok(&["config", "check"]);
    place.put("a", "a");
    place.ok(&["run", "--once"]);
    assert_eq!(left(&place), [place.inbox().join("done/a")]);
    place.ok(&["run", "--once"]);
    assert_eq!(place.jobs().len(), 1);
}

#[test]
fn kills_between_processing_and_moving_neither_lose_nor_double_a_file() {
    let kills = if long() { 20 } else { 5 };
    let place = disposing("exit 0", "on_success = { move = \"@PLACE@/done\" }");
    let mut random = fastrand::Rng::new();
    let mut written = Vec::new();
    for round in 0..kills {
        for number in 0..25 {
            let name = format!("file-{round}-{number}");
            place.put(&name, &name);
            written.push(name);
        }
        let mut daemon = Daemon::start(&place);
        sleep(Duration::from_millis(random.u64(50..400)));
        daemon.kill();
    }
    let _daemon = Daemon::start(&place);
    wait_until("everything was moved", || left(&place).is_empty());
    place.wait_count("completed", written.len());
    let moved = files_below(&place.at("done"));
    assert_eq!(moved.len(), written.len(), "{moved:?}");
    for name in &written {
        assert_eq!(&fs::read_to_string(place.at("done").join(name)).unwrap(), name);
    }
    assert!(place.jobs().iter().all(|job| job["attempt"] == 1));
}

#[test]
fn a_file_that_is_only_touched_while_it_is_processed_still_goes_its_way_once() {
    let place = disposing(
        "echo run >> @PLACE@/runs; touch \"$1\"; while [ ! -e @PLACE@/go ]; do sleep 0.02; done",
        "on_success = { move = \"@PLACE@/done\" }",
    );
    let _daemon = Daemon::start(&place);
    place.put("name", "content");
    wait_until("the processor has touched it", || place.at("runs").exists());
    fs::write(place.at("go"), "").unwrap();
    wait_until("it was moved", || place.at("done/name").exists() && left(&place).is_empty());
    wait_until("nothing is left to do", || place.in_state("pending") + place.in_state("running") == 0);
    assert_eq!(fs::read_to_string(place.at("runs")).unwrap(), "run\n", "the same content was processed once");
}
