//! Looking after the database: what is removed, moved, given back, copied and put back, while the daemon works.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::*;

/// A noop pipeline and an inbox.
fn inventory(maintenance: &str) -> Place {
    Place::with(&format!(
        "[maintenance]\n{maintenance}\n[pipeline.p]\nkind = \"noop\"\nconcurrency = 16\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n"
    ))
}

/// Paths of so many small files, NUL-separated, for `add -0 -`.
fn many(place: &Place, number: usize) -> Vec<u8> {
    let folder = place.at("many");
    fs::create_dir_all(&folder).unwrap();
    let mut list = Vec::new();
    for index in 0..number {
        let path = folder.join(format!("a-file-with-a-rather-long-name-{index}"));
        fs::write(&path, format!("{index}")).unwrap();
        list.extend(path.to_str().unwrap().as_bytes());
        list.push(0);
    }
    list
}

const NOTHING_KEPT: &str =
    "retention = { completed = \"0s\", skipped = \"0s\", cancelled = \"0s\", failed = \"0s\", attempts = \"0s\" }";

#[test]
fn pruning_removes_final_jobs_only_and_their_files_stay_known() {
    let place = inventory(NOTHING_KEPT);
    let mut daemon = Daemon::start(&place);
    (0..5).for_each(|number| drop(place.put(&format!("f{number}"), format!("{number}"))));
    place.wait_count("completed", 5);
    let waiting = place.add(&place.file("later", "later"), &["--in", "1d"]);

    let would = place.ok(&["db", "prune", "--dry-run"]);
    assert_eq!(place.jobs().len(), 6, "a dry run removes nothing");
    let did = place.ok(&["db", "prune"]);
    let number = |output: &Output| output.ids()[0];
    assert!(number(&would) >= 5 && number(&did) == number(&would), "{would:?}, {did:?}");
    let left: Vec<i64> = place.jobs().iter().map(|job| count(job, "id")).collect();
    assert_eq!(left, [waiting], "only final states are removed");
    assert_eq!(place.in_state("completed"), 0, "the counters follow");

    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(daemon.stop(), 0);
    let _daemon = Daemon::start(&place);
    place.put("f0", "changed");
    place.put("new", "new");
    wait_until("the changed and the new file are done", || {
        ["f0", "new"].iter().all(|name| place.newest_of(name).is_some_and(|job| text(&job, "state") == "completed"))
    });
    assert_eq!(place.jobs().len(), 3, "a pruned job's file was processed again: {:?}", place.jobs());
    assert_eq!(place.newest_of("f0").unwrap()["version"], 2);
    place.ok(&["db", "check"]);
}

#[test]
fn the_daemon_prunes_by_itself() {
    let place = inventory(&format!("prune_interval = \"1s\"\n{NOTHING_KEPT}"));
    let _daemon = Daemon::start(&place);
    (0..5).for_each(|number| drop(place.put(&format!("f{number}"), format!("{number}"))));
    wait_until("all five were done and are gone", || {
        place.status()["rate_per_s"]["15m"].as_f64().unwrap_or(0.0) > 0.0 && place.jobs().is_empty()
    });
    wait_until("the history is gone too", || place.history().is_empty());
    assert!(place.status()["maintenance"].to_string().contains("prune"), "{}", place.status()["maintenance"]);
}

#[test]
fn each_final_state_has_its_own_retention() {
    let place = Place::with(
        "[maintenance]\nretention = { completed = \"1d\", skipped = \"0s\", cancelled = \"0s\", failed = \"1d\" }\n\
         [pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"exit $(cat $INGESTD_PATH)\"]\n",
    );
    let _daemon = Daemon::start(&place);
    let done = place.add(&place.file("done", "0"), &[]);
    let failed = place.add(&place.file("failed", "65"), &[]);
    let cancelled = place.add(&place.file("cancelled", "0"), &["--in", "1d"]);
    place.ok(&["cancel", &cancelled.to_string()]);
    let gone = place.file("gone", "0");
    let skipped = place.add(&gone, &["--in", "1s"]);
    fs::remove_file(gone).unwrap();
    place.wait_state(done, "completed");
    place.wait_state(failed, "failed");
    place.wait_state(skipped, "skipped");
    place.ok(&["db", "prune"]);
    let mut left: Vec<i64> = place.jobs().iter().map(|job| count(job, "id")).collect();
    left.sort_unstable();
    assert_eq!(left, [done, failed]);
    place.exits(3, &["show", &cancelled.to_string()]);
}

#[test]
fn the_wal_stays_bounded_under_load_and_a_checkpoint_empties_it() {
    let place = inventory("");
    let _daemon = Daemon::start(&place);
    let list = many(&place, 6_000);
    let wal = place.at("state/ingestd.db-wal");
    let mut largest = 0;
    let mut measure = || largest = largest.max(fs::metadata(&wal).map_or(0, |data| data.len()));
    for _ in 0..3 {
        let output = place.feed(&["add", "-0", "-", "--force"], &list);
        assert_eq!(output.code, 0, "{}", output.stderr);
        measure();
    }
    wait_until("the queue is empty", || {
        measure();
        let jobs = place.status()["jobs"].clone();
        jobs["pending"] == 0 && jobs["running"] == 0
    });
    assert!(largest > 0, "the load did not reach the WAL");
    assert!(largest < 64 << 20, "the WAL grew to {largest} bytes");
    place.ok(&["db", "checkpoint"]);
    // What the daemon notes of the checkpoint itself comes after it.
    assert!(fs::metadata(&wal).map_or(0, |data| data.len()) < 64 << 10);
    assert!(count(&place.status()["database"], "wal_bytes") < 64 << 10);
}

#[test]
fn vacuum_gives_space_back_to_the_filesystem() {
    let place = inventory(NOTHING_KEPT);
    let _daemon = Daemon::start(&place);
    assert_eq!(place.feed(&["add", "-0", "-"], &many(&place, 5_000)).code, 0);
    place.wait_count("completed", 5_000);
    place.ok(&["db", "checkpoint"]);
    let full = count(&place.status()["database"], "size_bytes");
    place.ok(&["db", "prune"]);
    place.ok(&["db", "vacuum"]);
    place.ok(&["db", "checkpoint"]);
    let after = count(&place.status()["database"], "size_bytes");
    assert!(after < full * 2 / 3, "{full} bytes before, {after} after");
    assert_eq!(i64::try_from(fs::metadata(place.database()).unwrap().len()).unwrap(), after);
    place.ok(&["db", "check"]);
}

#[test]
fn a_backup_is_whole_and_a_restore_goes_back_to_it() {
    let place = inventory("");
    let mut daemon = Daemon::start(&place);
    place.put("known", "known");
    place.wait_count("completed", 1);
    let backup = place.at("copy.db");
    place.ok(&["db", "backup", backup.to_str().unwrap()]);
    let url = format!("sqlite://{}", backup.display());
    let copy = finish(place.program().args(["list", "--json", "--database", &url]));
    assert_eq!(copy.json_lines().len(), 1, "{copy:?}");

    place.put("known", "changed");
    place.put("after", "after");
    place.wait_count("completed", 3);
    let key = text(&place.newest_of("known").unwrap(), "idempotency_key").to_owned();
    let refused = place.exits(4, &["db", "restore", backup.to_str().unwrap()]);
    assert!(refused.stderr.contains(&daemon.pid().to_string()), "{refused:?}");
    assert_eq!(daemon.stop(), 0);

    place.ok(&["db", "restore", backup.to_str().unwrap()]);
    assert_eq!(place.jobs().len(), 1);
    let kept = fs::read_dir(place.at("state")).unwrap().flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("ingestd.db") && !["ingestd.db", "ingestd.db-wal", "ingestd.db-shm"].contains(&name.as_str())
    });
    assert!(kept.count() >= 1, "the old file is kept aside");

    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 3);
    let again = place.newest_of("known").unwrap();
    assert_eq!(again["version"], 2, "{again}");
    assert_ne!(text(&again, "idempotency_key"), key, "a restored version number never meets an old key");
    place.ok(&["db", "check"]);
}

#[test]
fn a_restore_refuses_what_is_no_backup() {
    let place = inventory("");
    place.exits(0, &["run", "--once"]);
    let before = fs::read(place.database()).unwrap();
    fs::write(place.at("letter"), "not a database").unwrap();
    place.exits(1, &["db", "restore", place.at("letter").to_str().unwrap()]);
    assert_ne!(place.cli(&["db", "restore", "/nonexistent/file"]).code, 0);
    assert!(fs::read(place.database()).unwrap() == before, "the database was touched");
}

#[test]
fn running_jobs_of_a_backup_become_pending() {
    let place = Place::new();
    let ledger = Ledger::new(&place, &format!("while [ ! -e {} ]; do sleep 0.05; done", place.at("go").display()));
    place.configure(&format!("[pipeline.p]\nkind = \"exec\"\ncommand = {}\n", ledger.command));
    let mut daemon = Daemon::start(&place);
    let id = place.add(&place.file("a", "a"), &[]);
    wait_until("it runs", || ledger.entries().len() == 1);
    let backup = place.at("copy.db");
    place.ok(&["db", "backup", backup.to_str().unwrap()]);
    fs::write(place.at("go"), "").unwrap();
    place.wait_state(id, "completed");
    assert_eq!(daemon.stop(), 0);
    place.ok(&["db", "restore", backup.to_str().unwrap()]);
    assert_eq!(text(&place.show(id), "state"), "pending");
    let _daemon = Daemon::start(&place);
    assert_eq!(count(&place.wait_state(id, "completed"), "attempt"), 1);
}

#[test]
fn of_two_versions_of_a_file_in_a_backup_the_newer_one_goes_on() {
    let place = Place::new();
    let ledger = Ledger::new(&place, &format!("while [ ! -e {} ]; do sleep 0.05; done", place.at("go").display()));
    place.configure(&format!("[pipeline.p]\nkind = \"exec\"\ncommand = {}\n", ledger.command));
    let mut daemon = Daemon::start(&place);
    let file = place.file("a", "a");
    let older = place.add(&file, &[]);
    wait_until("it runs", || ledger.entries().len() == 1);
    fs::write(&file, "another content").unwrap();
    let newer = place.add(&file, &[]);
    let backup = place.at("copy.db");
    place.ok(&["db", "backup", backup.to_str().unwrap()]);
    fs::write(place.at("go"), "").unwrap();
    place.wait_state(newer, "completed");
    assert_eq!(daemon.stop(), 0);
    place.ok(&["db", "restore", backup.to_str().unwrap()]);
    place.ok(&["db", "check"]);
    assert_eq!(text(&place.show(older), "reason"), "superseded");
    let _daemon = Daemon::start(&place);
    place.wait_state(newer, "completed");
    assert_eq!(ledger.entries().len(), 3, "the newer version ran again, and the older one did not");
}

#[test]
fn the_newest_good_backup_is_restored_by_one_command() {
    let place = inventory("backup = { interval = \"0s\", directory = \"@PLACE@/copies\" }");
    let none = place.exits(1, &["db", "restore", "--newest"]);
    assert!(none.stderr.contains("copies") && none.stderr.contains("no database either"), "{none:?}");
    place.add(&place.file("a", "a"), &[]);
    let none = place.exits(1, &["db", "restore", "--newest"]);
    assert!(none.stderr.contains("copies") && none.stderr.contains("`ingestd db check --repair`"), "{none:?}");
    let folder = place.at("copies");
    fs::create_dir_all(&folder).unwrap();
    let named = |hour: u32| folder.join(format!("ingestd-20260102T{hour:02}0000Z.db"));
    place.ok(&["db", "backup", named(1).to_str().unwrap()]);
    place.add(&place.file("b", "b"), &[]);
    place.ok(&["db", "backup", named(2).to_str().unwrap()]);
    place.add(&place.file("c", "c"), &[]);
    place.ok(&["db", "backup", named(3).to_str().unwrap()]);
    fs::write(named(4), "no database").unwrap();
    let mut bytes = fs::read(named(3)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xa5);
    fs::write(named(3), bytes).unwrap();

    let restored = place.ok(&["db", "restore", "--newest", "--json"]).json();
    assert_eq!(text(&restored, "from"), named(2).to_str().unwrap(), "{restored}");
    let passed_over: Vec<&str> = restored["passed_over"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(passed_over.len(), 2, "{restored}");
    assert!(passed_over[0].contains("T040000Z") && passed_over[1].contains("T030000Z"), "{restored}");
    assert_eq!(place.jobs().len(), 2);
    place.exits(2, &["db", "restore"]);
    place.exits(2, &["db", "restore", "--newest", named(1).to_str().unwrap()]);
}

fn copies(folder: &PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(".db")).collect()
}

#[test]
fn scheduled_backups_rotate() {
    let place = inventory("backup = { interval = \"1s\", directory = \"@PLACE@/copies\", keep = 2 }");
    let _daemon = Daemon::start(&place);
    let folder = place.at("copies");
    let first = wait_for("there is a copy", || copies(&folder).pop());
    wait_until("the first copy was rotated away", || !first.exists());
    let listed = place.ok(&["db", "backups", "--json"]).json_lines();
    assert!((1..=3).contains(&listed.len()), "{listed:?}");
    assert!(copies(&folder).len() <= 3, "{:?}", copies(&folder));
    assert!(place.status()["database"]["last_backup_at"].is_string());
}

#[test]
fn backups_are_beside_the_database_unless_told_otherwise() {
    let place = inventory("");
    let _daemon = Daemon::start(&place);
    place.ok(&["db", "backup"]);
    assert!(!copies(&place.at("state/backups")).is_empty(), "{:?}", fs::read_dir(place.at("state")).unwrap().count());
    assert!(!place.ok(&["db", "backups", "--json"]).json_lines().is_empty());
}

#[test]
fn maintenance_is_reported_in_status() {
    let place = inventory(
        "wal_checkpoint_interval = \"1s\"\nvacuum_interval = \"1s\"\nprune_interval = \"1s\"\ncheck_interval = \"1s\"",
    );
    let _daemon = Daemon::start(&place);
    wait_until("each duty was done", || {
        let duties: Value = place.status()["maintenance"].clone();
        ["checkpoint", "vacuum", "prune", "check"].iter().all(|duty| duties.to_string().contains(duty))
    });
}

#[test]
fn little_free_space_pauses_intake_and_the_queue_drains() {
    let place = inventory("min_free_space = \"1MiB\"");
    place.put("early", "early");
    let daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    let configuration = fs::read_to_string(place.at("ingestd.toml")).unwrap();
    fs::write(place.at("ingestd.toml"), configuration.replace("1MiB", "1000000GiB")).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    wait_until("a warning shows", || place.status()["warnings"].to_string().contains("space"));
    place.put("late", "late");
    place.ok(&["watch", "list"]);
    assert!(place.newest_of("late").is_none());
    fs::write(place.at("ingestd.toml"), configuration).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    place.wait_count("completed", 2);
}

#[test]
fn damage_is_found_and_the_file_is_never_overwritten() {
    let place = inventory("");
    place.exits(0, &["run", "--once"]);
    assert_eq!(place.feed(&["add", "-0", "-"], &many(&place, 2_000)).code, 0);
    place.exits(0, &["run", "--once"]);
    let mut bytes = fs::read(place.database()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40_000].fill(0xa5);
    fs::write(place.database(), &bytes).unwrap();
    place.exits(1, &["db", "check"]);
    assert!(fs::read(place.database()).unwrap()[middle..middle + 40_000].iter().all(|byte| *byte == 0xa5));
}

#[test]
fn a_vanished_file_is_remembered_for_as_long_as_sources_are_kept() {
    for (sources, jobs_afterwards) in [("30d", 0), ("0s", 1)] {
        let place = inventory(&NOTHING_KEPT.replace(" }", &format!(", sources = \"{sources}\" }}")));
        let _daemon = Daemon::start(&place);
        let file = place.put("file", "the same again");
        place.wait_count("completed", 1);
        fs::remove_file(&file).unwrap();
        let present = "SELECT count(*) FROM sources WHERE presence = 'present'";
        wait_until("it is noted as gone", || place.ok(&["db", "query", present]).stdout.lines().last() == Some("0"));
        place.ok(&["db", "prune"]);
        assert!(place.jobs().is_empty());
        place.put("file", "the same again");
        // The other file tells when the first was judged.
        place.put("other", "other");
        place.ok(&["watch", "scan", "inbox"]);
        place.wait_count("completed", 1 + jobs_afterwards);
        assert_eq!(place.newest_of("file").is_some(), jobs_afterwards == 1, "sources = {sources}");
    }
}

#[test]
fn what_is_known_of_an_added_file_that_is_gone_is_forgotten_in_time() {
    let place = inventory(
        "retention = { completed = \"0s\", skipped = \"0s\", cancelled = \"0s\", attempts = \"0s\", sources = \"0s\" }",
    );
    let _daemon = Daemon::start(&place);
    let (stays, goes) = (place.file("stays", "a"), place.file("goes", "b"));
    place.add(&stays, &[]);
    place.add(&goes, &[]);
    place.wait_count("completed", 2);
    fs::remove_file(&goes).unwrap();
    wait_until("only what is there is known", || {
        place.ok(&["db", "prune"]);
        place.ok(&["db", "query", "SELECT count(*) FROM sources"]).stdout.lines().last() == Some("1")
    });
    place.ok(&["add", stays.to_str().unwrap()]);
    assert!(place.jobs().is_empty(), "pruning never makes a file look new");
}
