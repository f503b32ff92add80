//! A database as the program makes it, opened by the program or by rusqlite with the same pragmas.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use ingestd::clock::SystemClock;
use ingestd::config::{Database, Queue};
use ingestd::store::sqlite::{OpenMode, QueueRules, SqliteStore};
use ingestd::store::{Result, Settings as _, Upkeep as _};
use rusqlite::{Connection, OpenFlags};
use tokio::task::JoinHandle;

use crate::Bench;

/// The one pipeline, number 1.
pub const PIPELINE: &str = "p";
/// The one watch, number 1.
pub const WATCH: &str = "inbox";

/// The program's store, with its writer at work.
pub struct Opened {
    /// The store.
    pub store: Arc<SqliteStore>,
    writer: JoinHandle<Result<()>>,
}

impl Opened {
    /// Ends the writer, and with the last connection the WAL.
    pub fn close(self, bench: &Bench) {
        bench.runtime.block_on(async {
            self.store.close().await;
            self.writer.await.unwrap().unwrap();
        });
    }
}

/// Opens a database as the daemon does, with every setting at its default.
pub fn open(bench: &Bench, path: &Path) -> Opened {
    let rules = QueueRules::from(&Queue::default());
    let settings = settings(path);
    let opening = SqliteStore::open(&settings, rules, OpenMode::Daemon, Arc::new(SystemClock));
    let (store, writer) = bench.runtime.block_on(opening).unwrap();
    Opened { store, writer: bench.runtime.spawn(writer.unwrap().run()) }
}

/// As [`open`], with a boot of its own, so that it may lease.
pub fn open_to_lease(bench: &Bench, path: &Path) -> Opened {
    let opened = open(bench, path);
    bench.runtime.block_on(opened.store.begin_boot(std::process::id(), "bench")).unwrap();
    opened
}

fn settings(path: &Path) -> Database {
    Database { path: path.to_owned(), ..Database::default() }
}

/// Makes a database with the pipeline, and the watch on `root`.
pub fn create(bench: &Bench, path: &Path, root: &Path) {
    let opened = open(bench, path);
    bench.runtime.block_on(async {
        opened.store.register_pipelines(vec![PIPELINE.to_owned()]).await.unwrap();
        opened.store.put_watch(WATCH, root.to_owned(), None).await.unwrap();
    });
    opened.close(bench);
}

/// Opens a database for raw SQLite, with the pragmas that `store/sqlite/open.rs` gives to the writer.
pub fn connect(path: &Path) -> Connection {
    let connection = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE)).unwrap();
    // The readers and the writer share it.
    let database = settings(path);
    let cache_kib = database.cache_bytes / (u64::from(database.readers) + 1) / 1_024;
    let pragmas = format!(
        "PRAGMA cache_size = -{cache_kib}; PRAGMA temp_store = memory; PRAGMA foreign_keys = off;
         PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA journal_size_limit = 67108864;"
    );
    connection.execute_batch(&pragmas).unwrap();
    connection
}

/// Opens a database to look on while somebody else writes.
pub fn look(path: &Path) -> Connection {
    Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_ONLY)).unwrap()
}

fn flags(how: OpenFlags) -> OpenFlags {
    how | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE
}

/// Copies a closed database, down to the disk: the first commit must not pay for it.
pub fn copy(from: &Path, to: &Path) {
    for companion in ["-wal", "-shm"] {
        let mut name = to.as_os_str().to_owned();
        name.push(companion);
        let _ = fs::remove_file(name);
    }
    fs::copy(from, to).unwrap();
    File::open(to).unwrap().sync_all().unwrap();
}

/// Asserts that a database holds what the queue promises.
pub fn assert_sound(bench: &Bench, path: &Path) {
    let opened = open(bench, path);
    let found = bench.runtime.block_on(opened.store.check(false)).unwrap();
    assert!(found.is_empty(), "{}: {found:#?}", path.display());
    opened.close(bench);
}
