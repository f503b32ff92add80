//! Databases of every schema that there was, with rows in every state, are brought up to this one and worked on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::open::migrations;
use super::plans::FILL;
use super::{OpenMode, QueueRules, SUPPORTED_SCHEMA, SqliteStore};
use crate::clock::{ManualClock, Timestamp};
use crate::config::Database;
use crate::job::{FileIdentity, Op, Priority, SourceKey, StateName};
use crate::run::{InputRead, RunId, RunInput, RunState, RunType};
use crate::store::{
    Appetite, Begun, Browse as _, Enqueued, Holder, Lists as _, NewJob, NewListRun, Queue as _, Renamed, Runs as _,
    ScanToRun, Upkeep as _, Want,
};

/// The first `n` schemas.
async fn schemas(path: &Path, n: usize) -> sqlx::SqliteConnection {
    let mut connection = SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap();
    let some = Migrator { migrations: migrations()[..n].to_vec().into(), ..Migrator::DEFAULT };
    some.run(&mut connection).await.unwrap();
    connection
}

/// A schema with five thousand jobs in every state but those that no worker would have left behind.
async fn filled(path: &Path, n: usize) {
    let mut connection = schemas(path, n).await;
    sqlx::raw_sql(FILL).execute(&mut connection).await.unwrap();
    sqlx::raw_sql(TIDY).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

const TIDY: &str = "
        UPDATE sources SET dev = 1, inode = id, size = 3, mtime_ns = 4, ctime_ns = 5;
        INSERT INTO watches (id, name, root, created_at) VALUES (1, 'inbox', CAST('/in' AS BLOB), 0);
        UPDATE jobs SET blocked_by = NULL;
        UPDATE jobs SET started_at = 1 WHERE state = 'running';
        UPDATE boots SET stopped_at = NULL WHERE id = 1;
        INSERT INTO kv (key, value, updated_at) VALUES ('ingestd.incarnation', hex(randomblob(16)), 0)";

#[tokio::test]
async fn a_database_of_the_first_schema_is_backed_up_migrated_and_worked_on() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database { path: folder.path().join("q.db"), ..Database::default() };
    filled(&database.path, 1).await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let rules = QueueRules::from(&crate::config::Queue::default());
    let refused = SqliteStore::open(&database, rules, OpenMode::ReadWrite, clock.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("db migrate"), "{refused}");
    let (store, writer) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock).await.unwrap();
    tokio::spawn(writer.unwrap().run());
    assert_eq!(store.schema_version().await.unwrap(), SUPPORTED_SCHEMA);
    let backups: Vec<_> = std::fs::read_dir(folder.path().join("backups")).unwrap().flatten().collect();
    assert_eq!(backups.len(), 1);
    assert_eq!(backups[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let recovery = store.begin_boot(1, "test").await.unwrap();
    assert_eq!(recovery.released, 10);
    assert_eq!(store.check(true).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.jobs(&crate::store::JobFilter::default(), None, 10_000).await.unwrap().len(), 5_000);

    // A watch of which files are known was scanned before there were runs; another one was not.
    let scan = |watch: &str| ScanToRun {
        watch: watch.to_owned(),
        root: "/in".into(),
        pipeline: "a".to_owned(),
        run_type: RunType::Recovery,
    };
    assert_eq!(store.begin_scan(scan("inbox")).await.unwrap().run_type, RunType::Recovery);
    assert_eq!(store.begin_scan(scan("other")).await.unwrap().run_type, RunType::Initial);

    // Files 1 (completed) and 5000 (waiting) have other names by now.
    let moved = |id: u64, pipeline: &str| NewJob {
        source: SourceKey::Watched { watch: "inbox".to_owned(), relative: format!("new-{id}").into() },
        pipeline: pipeline.to_owned(),
        priority: Priority::Normal,
        run_at: None,
        identity: FileIdentity { dev: 1, inode: id, size: 3, mtime_ns: 4, ctime_ns: 6 },
        digest: None,
        metadata: None,
        force: false,
        note_only: false,
        renamed: Some(Renamed { from: id.to_string().into(), told: true }),
        listed: None,
    };
    let answers = store.enqueue(vec![moved(4, "a"), moved(4_998, "a")]).await.unwrap();
    assert!(matches!(answers[0], Enqueued::New { version: 2, .. }), "{answers:?}");
    assert!(matches!(answers[1], Enqueued::New { .. } | Enqueued::Known { state: StateName::Pending, .. }));
    assert_eq!(store.check(true).await.unwrap(), Vec::<String>::new());
    let wants = vec![Want::single("a", 3_000)];
    let leased = store.lease(wants, 3_000, Appetite::Regular).await.unwrap().work;
    let told = leased.iter().find(|(_, work)| work.path == Path::new("/in/new-4")).unwrap();
    assert_eq!((told.1.op, told.1.moved_from.as_deref()), (Op::Modify, Some(Path::new("/in/4"))));
}

#[tokio::test]
async fn a_database_without_lists_keeps_its_runs_and_its_queue_and_reads_lists_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database { path: folder.path().join("q.db"), ..Database::default() };
    filled(&database.path, 3).await;
    let mut connection = SqliteConnectOptions::new().filename(&database.path).connect().await.unwrap();
    let runs = "
        INSERT INTO runs (name, type, state, input_kind, input_path, pipeline, newest_job, started_at, updated_at,
                          finished_at)
        VALUES ('inbox', 'initial', 'completed', 'watch', CAST('/in' AS BLOB), 'a', 9, 1, 2, 3),
               ('inbox', 'recovery', 'running', 'watch', CAST('/in' AS BLOB), 'a', 5000, 4, 5, NULL)";
    sqlx::raw_sql(runs).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let rules = QueueRules::from(&crate::config::Queue::default());
    let (store, writer) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock).await.unwrap();
    tokio::spawn(writer.unwrap().run());
    store.begin_boot(1, "test").await.unwrap();
    assert_eq!(store.check(true).await.unwrap(), Vec::<String>::new());
    let runs = store.runs(9).await.unwrap();
    let told: Vec<_> = runs.iter().map(|run| (run.id.0, run.state, run.dry_run, run.jobs.open)).collect();
    assert_eq!(told, [(2, RunState::Running, false, 0), (1, RunState::Completed, false, 0)]);
    let scan = ScanToRun {
        watch: "inbox".to_owned(),
        root: "/in".into(),
        pipeline: "a".to_owned(),
        run_type: RunType::Recovery,
    };
    assert!(store.begin_scan(scan).await.unwrap().goes_on);

    let holder = Holder("me".to_owned());
    let list = NewListRun {
        name: Some("inbox".to_owned()),
        list: "inbox".to_owned(),
        input: RunInput::Stdin { read: InputRead::default() },
        pipeline: "a".to_owned(),
        dry_run: false,
        delete_missing: false,
        holder: holder.clone(),
    };
    assert!(matches!(store.begin_list(list).await.unwrap(), Begun::Run { id: RunId(3), run_type: RunType::Initial }));
    assert!(store.end_input(RunId(3), holder).await.unwrap());
    let mut started = 0;
    loop {
        let wants = ["a", "b"].map(|name| Want::single(name, 3_000)).to_vec();
        match store.lease(wants, 3_000, Appetite::Regular).await.unwrap().work.len() {
            0 => break,
            more => started += more,
        }
    }
    assert!(started > 2_000, "every job that waits is still found: {started}");
    assert_eq!(store.check(true).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_database_whose_making_was_broken_off_anywhere_is_made_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let rules = QueueRules::from(&crate::config::Queue::default());
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    // Before the first schema there is the table of migrations; after the last one there is no incarnation yet.
    for n in 0..=migrations().len() {
        let database = Database { path: folder.path().join(format!("{n}.db")), ..Database::default() };
        schemas(&database.path, n).await.close().await.unwrap();
        let (store, _writer) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock.clone()).await.unwrap();
        assert_eq!(store.schema_version().await.unwrap(), SUPPORTED_SCHEMA, "broken off after {n}");
    }
}

/// Making a new database is several commits, and each may be the last before a crash.
#[tokio::test]
async fn a_database_whose_making_was_broken_off_is_made_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let rules = QueueRules::from(&crate::config::Queue::default());
    for n in 0..=migrations().len() {
        let database = Database { path: folder.path().join(format!("{n}.db")), ..Database::default() };
        schemas(&database.path, n).await.close().await.unwrap();
        let (store, _) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock.clone()).await.unwrap();
        assert_eq!(store.schema_version().await.unwrap(), SUPPORTED_SCHEMA, "broken off after {n}");
    }
}

#[tokio::test]
async fn a_database_whose_making_left_a_rollback_journal_is_made_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (torn, path) = (folder.path().join("torn.db"), folder.path().join("q.db"));
    let mut connection = SqliteConnectOptions::new().filename(&torn).create_if_missing(true).connect().await.unwrap();
    // More than the cache holds, so that pages are in the file before the transaction ends.
    let half = "PRAGMA journal_mode = DELETE; PRAGMA user_version = 0; VACUUM; PRAGMA cache_size = 1; BEGIN;
                CREATE TABLE t AS WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                SELECT i, randomblob(1000) FROM n";
    sqlx::raw_sql(half).execute(&mut connection).await.unwrap();
    let beside = |path: &Path| path.with_extension("db-journal");
    std::fs::copy(&torn, &path).unwrap();
    std::fs::copy(beside(&torn), beside(&path)).unwrap();
    assert!(std::fs::metadata(beside(&path)).unwrap().len() > 0);
    let rules = QueueRules::from(&crate::config::Queue::default());
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let database = Database { path, ..Database::default() };
    let (store, _writer) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock).await.unwrap();
    assert_eq!(store.schema_version().await.unwrap(), SUPPORTED_SCHEMA);
}
