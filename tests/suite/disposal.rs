//! What happens to a file after its processor: kept, moved or removed, and never another one than was processed.

use std::collections::BTreeSet;
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

/// A file whose processor was done, and whose move failed once; nobody looks into the inbox from here on.
fn stuck(target: &str) -> (Place, Daemon, i64) {
    let place = Place::new();
    fs::write(place.at("blocked"), "a file where a folder should be").unwrap();
    place.configure(&format!(
        "[pipeline.p]\nkind = \"exec\"\nretry = {{ max_attempts = 2, base = \"1h\", jitter = \"none\" }}\n\
         command = [\"/bin/sh\", \"-c\", 'echo \"$INGESTD_IDEMPOTENCY_KEY $INGESTD_DIGEST $(cat \"$1\")\" >> @PLACE@/runs', \
         \"sh\", \"{{path}}\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n\
         on_success = {{ move = \"{target}\" }}\n"
    ));
    let daemon = Daemon::start(&place);
    place.put("name", "old");
    place.wait_count("retrying", 1);
    let job = count(&place.newest_of("name").unwrap(), "id");
    place.ok(&["watch", "pause", "inbox"]);
    (place, daemon, job)
}

/// What the processor was given: key, digest, content.
fn runs(place: &Place) -> Vec<[String; 3]> {
    let runs = fs::read_to_string(place.at("runs")).unwrap();
    let fields = |line: &str| line.splitn(3, ' ').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
    runs.lines().map(fields).collect()
}

#[track_caller]
fn assert_each_content_has_its_own_key_and_digest(place: &Place, contents: &[&str]) {
    let runs = runs(place);
    let mut found: Vec<&str> = runs.iter().map(|[_, _, content]| content.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, contents, "{runs:?}");
    let keys: BTreeSet<_> = runs.iter().map(|[key, _, _]| key).collect();
    let digests: BTreeSet<_> = runs.iter().map(|[_, digest, content]| (digest, content)).collect();
    let different: BTreeSet<_> = contents.iter().collect();
    assert_eq!((keys.len(), digests.len()), (runs.len(), different.len()), "{runs:?}");
}

#[test]
fn what_took_the_name_of_a_file_that_could_not_be_moved_is_processed() {
    // There nobody can make a file, which shows only after the file was taken from its name: it comes to lie beside it.
    for (target, contents) in [("@PLACE@/blocked/x", vec!["new", "old"]), ("/proc", vec!["new", "old", "old"])] {
        let (place, _daemon, job) = stuck(target);
        place.put("name", "new");
        place.ok(&["retry", &job.to_string()]);
        place.wait_state(job, "failed");
        place.ok(&["watch", "resume", "inbox"]);
        place.ok(&["watch", "scan", "inbox"]);
        wait_until("all is processed", || runs(&place).len() >= contents.len());
        place.wait_count("retrying", contents.len() - 1);
        assert_each_content_has_its_own_key_and_digest(&place, &contents);
    }
}

#[test]
fn a_retry_of_a_job_whose_file_was_replaced_hands_the_new_one_over() {
    let (place, _daemon, job) = stuck("@PLACE@/blocked/x");
    place.put("name", "new");
    place.ok(&["retry", &job.to_string()]);
    place.wait_state(job, "failed");
    fs::remove_file(place.at("blocked")).unwrap();
    place.ok(&["retry", &job.to_string()]);
    wait_until("the new file was moved", || place.at("blocked/x/name").exists());
    place.wait_count("completed", 1);
    assert_eq!(fs::read_to_string(place.at("blocked/x/name")).unwrap(), "new");
    assert_eq!(text(&place.show(job), "state"), "skipped");
    assert_each_content_has_its_own_key_and_digest(&place, &["new", "old"]);
}

#[test]
fn a_file_that_could_not_be_moved_and_was_only_touched_is_not_processed_again() {
    let (place, _daemon, job) = stuck("@PLACE@/blocked/x");
    let file = fs::File::options().write(true).open(place.inbox().join("name")).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(100)).unwrap();
    drop(file);
    place.ok(&["retry", &job.to_string()]);
    place.wait_state(job, "failed");
    place.ok(&["watch", "resume", "inbox"]);
    place.put("after", "after");
    place.ok(&["watch", "scan", "inbox"]);
    wait_until("what came after it was processed", || runs(&place).len() >= 2);
    assert_each_content_has_its_own_key_and_digest(&place, &["after", "old"]);
    assert_eq!(place.jobs().len(), 2);
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
