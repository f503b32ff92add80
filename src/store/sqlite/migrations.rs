//! Databases of every schema that there was, with rows in every state, are brought up to this one and worked on.

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
use crate::run::RunType;
use crate::store::{
    Appetite, Browse as _, Enqueued, NewJob, Queue as _, Renamed, Runs as _, ScanToRun, Upkeep as _, Want,
};

/// The first schema, with five thousand jobs in every state but those that no worker would have left behind.
async fn first_schema(path: &Path) {
    let mut connection = SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap();
    let first = Migrator { migrations: migrations()[..1].to_vec().into(), ..Migrator::DEFAULT };
    first.run(&mut connection).await.unwrap();
    sqlx::raw_sql(FILL).execute(&mut connection).await.unwrap();
    let tidy = "
        UPDATE sources SET dev = 1, inode = id, size = 3, mtime_ns = 4, ctime_ns = 5;
        INSERT INTO watches (id, name, root, created_at) VALUES (1, 'inbox', CAST('/in' AS BLOB), 0);
        UPDATE jobs SET blocked_by = NULL;
        UPDATE jobs SET started_at = 1 WHERE state = 'running';
        UPDATE boots SET stopped_at = NULL WHERE id = 1;
        INSERT INTO kv (key, value, updated_at) VALUES ('ingestd.incarnation', hex(randomblob(16)), 0)";
    sqlx::raw_sql(tidy).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_backed_up_migrated_and_worked_on() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database { path: folder.path().join("q.db"), ..Database::default() };
    first_schema(&database.path).await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let rules = QueueRules::from(&crate::config::Queue::default());
    let refused = SqliteStore::open(&database, rules, OpenMode::ReadWrite, clock.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("db migrate"), "{refused}");
    let (store, writer) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock).await.unwrap();
    tokio::spawn(writer.unwrap().run());
    assert_eq!(store.schema_version().await.unwrap(), SUPPORTED_SCHEMA);
    assert_eq!(std::fs::read_dir(folder.path().join("backups")).unwrap().count(), 1);
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
