//! `audit`: every file on disk is counted into one reason, and what nothing explains is named.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use crate::support::*;

/// What `audit` counted of the inbox.
fn audit(place: &Place, code: i32) -> Value {
    let report = place.exits(code, &["audit", "--json"]).json();
    assert_eq!(report["clean"], code == 0, "{report}");
    let watch = report["watches"]["inbox"].clone();
    let gone = ["gone", "held_back"].map(|kind| watch["counts"][kind].as_i64().unwrap_or(0)).iter().sum::<i64>();
    if watch["error"].is_null() && watch["counts"]["unexplained"] == 0 {
        let counts = watch["counts"].as_object().unwrap().values();
        let all: i64 = counts.map(|n| n.as_i64().unwrap()).sum();
        assert_eq!(all, count(&watch, "files") + gone, "the counts add up: {watch}");
    }
    watch
}

/// How many files have this kind of reason.
#[track_caller]
fn of(watch: &Value, kind: &str) -> i64 {
    count(&watch["counts"], kind)
}

/// The counts that are not zero.
fn counts(watch: &Value) -> Vec<(String, i64)> {
    let all = watch["counts"].as_object().unwrap().iter();
    all.filter(|(_, n)| **n != 0).map(|(kind, n)| (kind.clone(), n.as_i64().unwrap())).collect()
}

fn unexplained(watch: &Value) -> Vec<(String, String)> {
    let all = watch["unexplained"].as_array().unwrap().iter();
    all.map(|file| (text(file, "relative").to_owned(), text(file, "what").to_owned())).collect()
}

fn watched(pipeline: &str, keys: &str) -> Place {
    Place::with(&format!(
        "[pipeline.p]\n{pipeline}\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\n{keys}\n"
    ))
}

fn noop(keys: &str) -> Place {
    watched("kind = \"noop\"", keys)
}

fn exits_as_told() -> &'static str {
    "kind = \"exec\"\ncommand = [\"sh\", \"-c\", \"exit $(cat \\\"$1\\\")\", \"sh\", \"{path}\"]\nconcurrency = 1\n\
     retry = { base = \"1h\", jitter = \"none\" }"
}

/// Changes the database behind everybody's back, while no daemon runs.
fn damage(place: &Place, statement: &str) {
    let database = rusqlite::Connection::open(place.database()).unwrap();
    assert_eq!(database.execute(statement, []).unwrap(), 1, "{statement}");
}

#[test]
fn every_end_of_a_job_is_a_reason_of_its_file() {
    let place = watched(exits_as_told(), "settle = \"0s\"");
    let _daemon = Daemon::start(&place);
    for (name, code) in [("done", "0"), ("fails", "65"), ("retries", "1")] {
        place.put(name, code);
    }
    for state in ["completed", "failed", "retrying"] {
        place.wait_count(state, 1);
    }
    place.ok(&["pause", "p"]);
    place.put("cancelled", "0");
    place.wait_count("pending", 1);
    place.ok(&["cancel", &count(&place.newest_of("cancelled").unwrap(), "id").to_string()]);
    place.put("waits", "0");
    place.wait_count("pending", 1);
    let watch = audit(&place, 0);
    let expected = [("cancelled", 1), ("completed", 1), ("failed", 1), ("retrying", 1), ("waiting", 1)];
    assert_eq!(counts(&watch), expected.map(|(kind, n)| (kind.to_owned(), n)));
    assert_eq!(count(&watch, "files"), 5);
    let words = place.ok(&["audit", "inbox"]).stdout;
    assert!(words.contains("every file is accounted for") && words.contains("1  failed"), "{words}");
    place.exits(3, &["audit", "nobody"]);
}

#[test]
fn what_runs_is_counted_and_so_is_what_is_known_without_a_job() {
    let place = watched("kind = \"exec\"\ncommand = [\"/bin/sleep\", \"1000\"]", "settle = \"0s\"");
    let other = place.at("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("old"), "x").unwrap();
    let mut daemon = Daemon::start(&place);
    place.put("a", "a");
    wait_until("it runs", || place.in_state("running") == 1);
    assert_eq!(of(&audit(&place, 0), "running"), 1);
    place.ok(&["watch", "add", "adopted", other.to_str().unwrap(), "--settle", "0s", "--existing", "skip"]);
    let report = || place.ok(&["audit", "--json"]).json()["watches"]["adopted"].clone();
    wait_until("it is known", || of(&report(), "known") == 1);
    daemon.kill();

    // A job that was pruned leaves its file known.
    let place = noop("settle = \"0s\"");
    let mut daemon = Daemon::start(&place);
    place.put("a", "a");
    place.wait_count("completed", 1);
    assert_eq!(daemon.stop(), 0);
    damage(&place, "DELETE FROM jobs");
    assert_eq!(counts(&audit(&place, 0)), [("known".to_owned(), 1)]);
}

#[test]
fn every_rule_that_leaves_files_out_is_counted_by_its_name() {
    let place = noop(
        "settle = \"0s\"\nexclude = [\"**/.*\", \"build/**\"]\ninclude = [\"**/*.pdf\"]\nignore_files = true\n\
         max_depth = 2\nmax_size = \"10B\"\nready_suffix = \".ok\"",
    );
    fs::create_dir_all(place.inbox().join("build/deep")).unwrap();
    fs::create_dir_all(place.inbox().join("sub/deeper")).unwrap();
    let put = |name: &str| fs::write(place.inbox().join(name), "x").unwrap();
    for name in
        [".a", ".b", "build/1.pdf", "build/deep/2.pdf", "c.txt", "sub/deeper/d.pdf", "ready.pdf", "ready.pdf.ok"]
    {
        put(name);
    }
    put("waits.pdf");
    fs::write(place.inbox().join("large.pdf"), "more than ten bytes").unwrap();
    put("large.pdf.ok");
    fs::write(place.inbox().join(".ingestdignore"), "drafts.pdf\n").unwrap();
    put("drafts.pdf");
    symlink("ready.pdf", place.inbox().join("link.pdf")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.inbox().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    let watch = audit(&place, 0);
    assert_eq!((of(&watch, "completed"), of(&watch, "not_ready"), of(&watch, "excluded")), (1, 1, 13));
    let by = |words: &str| {
        let rules = watch["excluded"].as_object().unwrap();
        let found = rules.iter().find(|(rule, _)| rule.contains(words)).unwrap_or_else(|| panic!("{words}: {rules:?}"));
        found.1.as_i64().unwrap()
    };
    assert_eq!((by("`**/.*`"), by("`build/**`"), by("no `include`")), (3, 2, 1));
    assert_eq!((by("max_depth"), by("max_size"), by("drafts.pdf"), by("companion")), (1, 1, 1, 2));
    assert_eq!((by("symbolic link"), by("neither a file")), (1, 1));
    let on_disk = walk(&place.inbox());
    assert_eq!(count(&watch, "files"), on_disk, "each entry is counted once");
    let words = place.ok(&["audit"]).stdout;
    assert!(words.contains(&format!("exclude `build/**` ({}:", place.at("ingestd.toml").display())), "{words}");
}

/// How many entries that are no folders lie below.
fn walk(folder: &Path) -> i64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let count = |entry: fs::DirEntry| if entry.file_type().unwrap().is_dir() { walk(&entry.path()) } else { 1 };
    entries.map(count).sum()
}

#[test]
fn a_file_that_is_not_whole_is_not_lost() {
    let place = noop("settle = \"1h\"\nmin_age = \"0s\"");
    let _daemon = Daemon::start(&place);
    place.put("settles", "x");
    let settling = || of(&audit(&place, 0), "settling");
    wait_until("it settles", || settling() == 1);

    let place = noop("settle = \"100ms\"");
    let _daemon = Daemon::start(&place);
    let writer = File::create(place.inbox().join("open")).unwrap();
    wait_until("it is open", || of(&audit(&place, 0), "open") == 1);
    drop(writer);
    place.wait_count("completed", 1);
    assert_eq!(of(&audit(&place, 0), "completed"), 1);

    let place = noop("settle = \"0s\"\nmin_age = \"1h\"");
    let _daemon = Daemon::start(&place);
    place.put("young", "x");
    wait_until("it is too young", || of(&audit(&place, 0), "too_young") == 1);
}

#[test]
fn what_a_person_stopped_waits_and_is_not_lost() {
    let place = Place::with(
        "[queue]\nmax_pending = 1\n[pipeline.p]\nkind = \"noop\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let mut daemon = Daemon::start(&place);
    place.ok(&["pause", "p"]);
    place.put("a", "a");
    place.wait_count("pending", 1);
    place.put("b", "b");
    wait_until("the intake is closed", || of(&audit(&place, 0), "intake_closed") == 1);
    place.ok(&["watch", "pause", "inbox"]);
    wait_until("the watch is paused", || of(&audit(&place, 0), "paused") == 1);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(of(&audit(&place, 0), "paused"), 1, "it would wait beside the next daemon too");
}

#[test]
fn files_that_came_while_no_daemon_ran_are_named_until_one_has_taken_them() {
    let place = noop("settle = \"0s\"");
    let mut daemon = Daemon::start(&place);
    place.put("before", "x");
    place.wait_count("completed", 1);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(counts(&audit(&place, 0)), [("completed".to_owned(), 1)]);
    place.put("before", "changed");
    for n in 0..30 {
        place.put(&format!("new-{n:02}"), "x");
    }
    let odd = place.inbox().join(std::ffi::OsStr::from_bytes(b"zz\xff\n"));
    fs::write(&odd, "x").unwrap();
    let watch = audit(&place, 1);
    assert_eq!((of(&watch, "unexplained"), unexplained(&watch).len()), (32, 20), "the count is exact");
    assert_eq!(unexplained(&watch)[..2], [("before", "changed"), ("new-00", "new")].map(|(a, b)| (a.into(), b.into())));
    let all = place.exits(1, &["audit", "--limit", "0", "--json"]).json();
    let all = all["watches"]["inbox"]["unexplained"].as_array().unwrap().clone();
    assert_eq!(all.len(), 32);
    assert!(!text(&all[31], "path_base64").is_empty());
    let words = place.exits(1, &["audit"]).stdout;
    assert!(words.contains("no daemon runs") && words.contains("inbox/new-00: new, and not a job"), "{words}");
    assert!(words.contains("and 12 more"), "{words}");
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 33);
    assert_eq!(counts(&audit(&place, 0)), [("completed".to_owned(), 32)]);
}

#[test]
fn a_row_that_no_longer_fits_its_file_is_found() {
    let place = noop("settle = \"0s\"");
    let mut daemon = Daemon::start(&place);
    place.put("a", "a");
    place.put("b", "b");
    place.wait_count("completed", 2);
    assert_eq!(daemon.stop(), 0);
    damage(&place, "UPDATE sources SET mtime_ns = mtime_ns - 1 WHERE identity = CAST('b' AS BLOB)");
    assert_eq!(unexplained(&audit(&place, 1)), [("b".to_owned(), "changed".to_owned())]);
    damage(&place, "DELETE FROM sources WHERE identity = CAST('a' AS BLOB)");
    let expected = [("a", "new"), ("b", "changed")].map(|(name, what)| (name.to_owned(), what.to_owned()));
    assert_eq!(unexplained(&audit(&place, 1)), expected);
}

#[test]
fn a_loss_under_a_running_daemon_is_found() {
    let place = noop("settle = \"0s\"");
    let mut daemon = Daemon::start(&place);
    place.put("a", "a");
    place.wait_count("completed", 1);
    assert_eq!(of(&audit(&place, 0), "completed"), 1);
    assert_eq!(daemon.stop(), 0);
    // The next daemon believes that it knows the file, so it never takes it: nothing but an audit finds that out.
    damage(&place, "UPDATE jobs SET state = 'skipped', reason = 'vanished'");
    let _daemon = Daemon::start(&place);
    wait_until("the scan is over", || !place.status()["watches"]["inbox"]["last_scan_at"].is_null());
    assert_eq!(unexplained(&audit(&place, 1)), [("a".to_owned(), "back".to_owned())]);
}

#[test]
fn a_missing_root_is_no_clean_account() {
    let place = noop("settle = \"0s\"");
    let _daemon = Daemon::start(&place);
    place.put("a", "a");
    place.wait_count("completed", 1);
    fs::rename(place.inbox(), place.at("away")).unwrap();
    let watch = audit(&place, 1);
    assert!(text(&watch, "error").contains("missing"), "{watch}");
    let words = place.exits(1, &["audit"]).stdout;
    assert!(words.contains("missing"), "{words}");
    fs::rename(place.at("away"), place.inbox()).unwrap();
    assert_eq!(counts(&audit(&place, 0)), [("completed".to_owned(), 1)]);
}

#[test]
fn what_is_gone_is_told_until_it_is_noted() {
    let place = noop("settle = \"0s\"\nevents = [\"add\", \"modify\", \"delete\"]");
    let mut daemon = Daemon::start(&place);
    let file = place.put("a", "a");
    place.put("b", "b");
    place.wait_count("completed", 2);
    assert_eq!(daemon.stop(), 0);
    fs::remove_file(&file).unwrap();
    let watch = audit(&place, 0);
    assert_eq!((of(&watch, "gone"), of(&watch, "completed"), count(&watch, "files")), (1, 1, 1));
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 3);
    assert_eq!(counts(&audit(&place, 0)), [("completed".to_owned(), 1)]);
    // Beside a daemon it is on its way out, from the event to the end of the wait for another name.
    fs::remove_file(place.inbox().join("b")).unwrap();
    wait_until("its delete is a job", || {
        let watch = audit(&place, 0);
        assert!(of(&watch, "gone") <= 1 && count(&watch, "files") == 0, "{watch}");
        place.in_state("completed") == 4
    });
    assert_eq!(counts(&audit(&place, 0)), []);
}

#[test]
fn a_file_that_a_scan_found_gone_is_not_forgotten_when_a_scan_of_a_folder_finds_others_gone() {
    let place = noop("settle = \"3s\"\nevents = [\"add\", \"modify\", \"delete\"]");
    let mut daemon = Daemon::start(&place);
    let file = place.put("a", "a");
    fs::create_dir(place.inbox().join("d")).unwrap();
    place.put("d/b", "b");
    place.put("stays", "c");
    place.wait_count("completed", 3);
    assert_eq!(daemon.stop(), 0);
    fs::remove_file(&file).unwrap();
    // It might be the gone one under another name, so the delete waits until it is known.
    place.put("new", "n");
    let _daemon = Daemon::start(&place);
    let shown = || place.ok(&["watch", "show", "inbox", "--json"]).json();
    wait_until("the first scan is through", || shown()["last_scan_at"].is_string());
    assert_eq!(of(&audit(&place, 0), "gone"), 1, "its delete still waits");
    fs::remove_dir_all(place.inbox().join("d")).unwrap();
    fs::create_dir(place.inbox().join("d")).unwrap();
    place.wait_count("completed", 6);
    assert_eq!(counts(&audit(&place, 0)), [("completed".to_owned(), 2)]);
}

#[test]
fn what_the_brake_holds_back_is_told_as_that() {
    let place = noop(
        "settle = \"0s\"\ndelete_brake = { above = 2, share = 0.1, wait = \"1h\" }\nevents = [\"add\", \"delete\"]",
    );
    let _daemon = Daemon::start(&place);
    fs::create_dir(place.inbox().join("many")).unwrap();
    for name in ["stays", "many/1", "many/2", "many/3", "many/4"] {
        fs::write(place.inbox().join(name), "x").unwrap();
    }
    place.wait_count("completed", 5);
    // All at once: few at a time would be deletions like any others.
    fs::rename(place.inbox().join("many"), place.at("away")).unwrap();
    place.ok(&["watch", "scan", "inbox"]);
    wait_until("they are held back", || of(&audit(&place, 0), "held_back") == 4);
    place.ok(&["watch", "confirm", "inbox"]);
    wait_until("they are noted", || counts(&audit(&place, 0)) == [("completed".to_owned(), 1)]);
}

#[test]
fn what_can_not_be_read_is_told_and_stays_accounted_for() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let place = noop("settle = \"0s\"");
    fs::create_dir(place.inbox().join("closed")).unwrap();
    fs::write(place.inbox().join("closed/a"), "x").unwrap();
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    let mode = |mode| fs::set_permissions(place.inbox().join("closed"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    assert_eq!(counts(&audit(&place, 0)), [("unreadable".to_owned(), 1)]);
    mode(0o700);
}

#[test]
fn duplicates_and_renamed_files_have_their_reasons() {
    let place = noop("settle = \"0s\"\ndedupe = \"content\"");
    let _daemon = Daemon::start(&place);
    let first = place.put("first", "the same");
    place.wait_count("completed", 1);
    place.put("second", "the same");
    place.wait_count("skipped", 1);
    let watch = audit(&place, 0);
    assert_eq!(counts(&watch), [("completed", 1), ("skipped", 1)].map(|(kind, n)| (kind.to_owned(), n)));
    assert_eq!(watch["skipped"]["duplicate"], 1);
    fs::rename(&first, place.inbox().join("renamed")).unwrap();
    wait_until("the new name is accounted for", || {
        let watch = audit(&place, 0);
        of(&watch, "gone") + of(&watch, "settling") == 0 && count(&watch, "files") == 2
    });
}

#[test]
fn changes_that_nobody_asked_for_are_told_as_that() {
    let place = noop("settle = \"0s\"\nevents = [\"add\"]");
    let _daemon = Daemon::start(&place);
    place.put("a", "a");
    place.wait_count("completed", 1);
    place.put("a", "changed");
    assert_eq!(counts(&audit(&place, 0)), [("unasked".to_owned(), 1)]);
}

#[test]
fn an_audit_beside_a_busy_daemon_finds_nothing_lost() {
    let place = watched("kind = \"noop\"\nconcurrency = 200", "settle = \"0s\"");
    let _daemon = Daemon::start(&place);
    for round in 0..10 {
        let folder = place.inbox().join(format!("folder-{round}"));
        fs::create_dir(&folder).unwrap();
        for n in 0..100 {
            fs::write(folder.join(n.to_string()), "x").unwrap();
        }
        audit(&place, 0);
    }
    wait_until("all of it is done", || of(&audit(&place, 0), "completed") == 1_000);
    // Each of them is one job: none was taken before it was whole.
    assert_eq!(place.status()["jobs"]["completed"], 1_000, "{}", place.status()["jobs"]);
}
