//! Opening the database: what may hold one, who may, and which schema it has.
//!
//! 1. The place is judged before SQLite sees it: a network filesystem has no shared memory for the WAL, a missing
//!    folder is made (0700), a file that is there is never replaced.
//! 2. The writer's connection opens first and alone: it sets what only the first can set, and migrates where the
//!    mode allows. Then come the readers, read-only.
//! 3. What is there is looked at read-only first: a damaged file, an emptied one and one of another program are refused
//!    before anything is written to them.
//! 4. The schema is this program's, or the reason why not is said.

use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::super::error::{Result, StoreError};
use super::catalog::Catalog;
use super::enqueue::Intake;
use super::lease::Leases;
use super::look::{damaged, look_first, not_ours, refuse_emptied};
use super::settle::Ends;
use super::steps::Watchmaker;
use super::writer::{Scribe, Writer, WriterTask};
use super::{Signals, SqliteStore};
use crate::clock::Clock;
use crate::config::{Database, Durability, Queue};
use crate::durable::{make_folder, parent, publish, sync_name_if_readable};
use crate::job::Incarnation;

/// The newest schema that this program knows.
pub const SUPPORTED_SCHEMA: i64 = 5;
/// SQLite before this release can lose committed data when checkpoints overlap (<https://www.sqlite.org/wal.html>).
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);
/// The WAL is cut to this after a checkpoint that emptied it.
const JOURNAL_SIZE_LIMIT: &str = "67108864";
/// Rows that a connection's thread reads ahead of who asked: a page of a list, so that the two don't take turns by row.
const ROWS_AHEAD: usize = 1_000;

/// What the store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// To look; nothing is created or changed.
    ReadOnly,
    /// To write for the time of a command; a missing database is created, an older one is not migrated.
    ReadWrite,
    /// To be the daemon: a missing database is created, an older one is migrated after a backup.
    Daemon,
}

/// What leasing and recovery go by.
#[derive(Clone, Copy, Debug)]
pub struct QueueRules {
    /// How long a lease lasts unless renewed.
    pub lease: Duration,
    /// A waiting job rises one level for each of these; zero: never.
    pub priority_aging: Duration,
    /// Crashes while alone after which a job is given up.
    pub max_crashes: u32,
}

impl From<&Queue> for QueueRules {
    fn from(queue: &Queue) -> Self {
        Self { lease: queue.lease, priority_aging: queue.priority_aging, max_crashes: queue.max_crashes }
    }
}

impl SqliteStore {
    /// Opens the database. The writer's task, where the mode writes, has to be spawned by the caller.
    ///
    /// # Errors
    /// The place, the permissions, the file or its schema do not fit; the words say which and what to do.
    pub async fn open(
        database: &Database,
        rules: QueueRules,
        mode: OpenMode,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, Option<WriterTask>)> {
        let path = database.path.clone();
        refuse_emptied(&path)?;
        let existed = judge_place(&path, mode, database.mode)?;
        if !existed {
            create(&path, database.mode)?;
        }
        let options = writing(database);
        let signals = Arc::new(Signals::default());
        let (writer, task) = if mode == OpenMode::ReadOnly {
            (Writer::absent(), None)
        } else {
            if existed {
                look_first(database, mode).await?;
            }
            let mut connection = options.connect().await.map_err(|error| opening(error, &path))?;
            assert_version(&mut connection).await?;
            prepare(&mut connection, &path, existed, mode, clock.as_ref()).await?;
            let scribe = Scribe {
                intake: Intake::new(clock.clone()),
                ends: Ends::new(clock.clone()),
                leases: Leases::new(clock.clone()),
                // Commands may write side by side.
                catalog: Catalog::new(mode == OpenMode::Daemon),
                watchmaker: Watchmaker::new(clock.clone()),
            };
            let (writer, task) = Writer::new(connection, options, scribe, signals.clone());
            (writer, Some(task))
        };
        let readers = SqlitePoolOptions::new()
            .max_connections(database.readers)
            .test_before_acquire(false)
            .acquire_timeout(database.busy_timeout)
            .idle_timeout(Duration::from_mins(1))
            .connect_lazy_with(reading(database));
        let incarnation = {
            let mut reader = readers.acquire().await.map_err(|error| opening(error, &path))?;
            judge_schema(&mut reader, &path).await?;
            incarnation(&mut reader).await?
        };
        let store = Self {
            path,
            clock,
            readers,
            writer,
            incarnation,
            rules: RwLock::new(rules),
            max_pending: RwLock::default(),
            boot: OnceLock::new(),
            held: super::held::Held::default(),
            signals,
        };
        Ok((Arc::new(store), task))
    }
}

/// Brings an older schema up to this program's, after a backup; answers the versions before and after.
///
/// # Errors
/// As of opening.
pub async fn migrate_in_place(database: &Database, clock: &dyn Clock) -> Result<(i64, i64)> {
    judge_place(&database.path, OpenMode::ReadOnly, database.mode)?;
    refuse_emptied(&database.path)?;
    look_first(database, OpenMode::Daemon).await?;
    let mut connection = writing(database).connect().await.map_err(|error| opening(error, &database.path))?;
    let before = schema_version(&mut connection).await?;
    prepare(&mut connection, &database.path, true, OpenMode::Daemon, clock).await?;
    let after = schema_version(&mut connection).await?;
    connection.close().await?;
    Ok((before, after))
}

/// Makes a new, empty database with this program's schema.
pub(super) async fn create_empty(path: &Path) -> Result<()> {
    create(path, 0o600)?;
    let mut connection = writing(&Database { path: path.to_owned(), ..Database::default() }).connect().await?;
    migrator().run(&mut connection).await.map_err(|error| StoreError::Schema(error.to_string()))?;
    connection.close().await?;
    Ok(())
}

/// Whether the file is there; an error where no database can be, or none may be made.
fn judge_place(path: &Path, mode: OpenMode, files: u32) -> Result<bool> {
    let place = |why: String| StoreError::Place { path: path.to_owned(), why };
    let exists = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let words = "this is a folder; name the database's file with `database.url`, or move the folder away and bring \
                         back a backup with `ingestd db restore --newest`";
            return Err(place(words.to_owned()));
        }
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(StoreError::Permission(format!("{}: {error}", path.display())));
        }
        Err(error) => return Err(place(error.to_string())),
    };
    if !exists && mode == OpenMode::ReadOnly {
        return Err(place("there is no database yet; `ingestd run` or `ingestd add` creates one".to_owned()));
    }
    let folder = parent(path);
    make_folder(folder, files).map_err(|error| place(format!("its folder can't be made: {error}")))?;
    if mode != OpenMode::ReadOnly {
        // Whoever made it may have died before it was synced.
        sync_name_if_readable(folder).map_err(|error| place(format!("its folder can't be synced: {error}")))?;
    }
    if let Some(name) = network_filesystem(folder) {
        return Err(place(format!(
            "this is on {name}, where SQLite's write-ahead log can't work; put the database on a local disk"
        )));
    }
    Ok(exists)
}

/// The name of the network filesystem that holds the folder, if it is one (numbers: `statfs(2)`, `linux/magic.h`).
fn network_filesystem(folder: &Path) -> Option<&'static str> {
    let magic = rustix::fs::statfs(folder).ok()?.f_type;
    match magic & 0xffff_ffff {
        0x6969 => Some("NFS"),
        0x517b => Some("SMB"),
        0xff53_4d42 => Some("CIFS"),
        0xfe53_4d42 => Some("SMB2"),
        0x564c => Some("NCP"),
        0x5346_414f => Some("AFS"),
        0x0102_1997 => Some("9P"),
        0x00c3_6400 => Some("Ceph"),
        0x7375_7245 => Some("Coda"),
        _ => None,
    }
}

/// Makes the empty file with its mode, so that SQLite's companions get the same.
fn create(path: &Path, mode: u32) -> Result<()> {
    let place = |error: std::io::Error| StoreError::Place {
        path: path.to_owned(),
        why: format!("the database can't be created: {error}"),
    };
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match made {
        Ok(file) => {
            // The umask may have taken bits away.
            file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(place)?;
            adopt(path);
            Ok(())
        }
        // Somebody else was faster, and has a database now.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(place(error)),
    }
}

/// A database that root makes in another user's state directory belongs to that user.
fn adopt(path: &Path) {
    let Some(owner) = path.parent().and_then(|folder| std::fs::metadata(folder).ok()) else { return };
    if rustix::process::geteuid().is_root()
        && owner.uid() != 0
        && let Err(error) = std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
    {
        tracing::warn!(path = %path.display(), %error, "the database could not be given to its folder's owner");
    }
}

/// What every connection has.
fn shared_options(database: &Database) -> SqliteConnectOptions {
    // The readers and the writer share what is allowed.
    let share = database.cache_bytes / (u64::from(database.readers) + 1);
    let cache_kib = i64::try_from(share / 1_024).unwrap_or(i64::MAX);
    SqliteConnectOptions::new()
        .filename(&database.path)
        .create_if_missing(false)
        .busy_timeout(database.busy_timeout)
        .pragma("cache_size", format!("-{cache_kib}"))
        .pragma("temp_store", "memory")
        .foreign_keys(false)
        .statement_cache_capacity(200)
        .row_buffer_size(ROWS_AHEAD)
        .disable_statement_logging()
}

pub(super) fn reading(database: &Database) -> SqliteConnectOptions {
    shared_options(database).read_only(true).pragma("query_only", "on")
}

fn writing(database: &Database) -> SqliteConnectOptions {
    shared_options(database)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match database.durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        })
        .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
}

/// An error of opening, with the file's name and who may.
pub(super) fn opening(error: sqlx::Error, path: &Path) -> StoreError {
    match StoreError::from(error) {
        StoreError::Corrupt(why) => damaged(path, &why),
        StoreError::Permission(why) => StoreError::Permission(format!("{}: {why}", path.display())),
        other => other,
    }
}

async fn assert_version(connection: &mut SqliteConnection) -> Result<()> {
    let row = sqlx::query("SELECT sqlite_version()").fetch_one(connection).await?;
    let version: String = row.try_get(0)?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) < OLDEST_SQLITE {
        let (a, b, c) = OLDEST_SQLITE;
        return Err(StoreError::Schema(format!(
            "SQLite {version} can lose committed data when checkpoints overlap; build with {a}.{b}.{c} or newer"
        )));
    }
    Ok(())
}

/// Creates the tables of a new database, or migrates an older one where the mode may.
async fn prepare(
    connection: &mut SqliteConnection,
    path: &Path,
    existed: bool,
    mode: OpenMode,
    clock: &dyn Clock,
) -> Result<()> {
    let version = schema_version(connection).await?;
    if version == SUPPORTED_SCHEMA {
        return draw_incarnation(connection, clock).await;
    }
    let fresh = version == 0 && is_empty(connection).await?;
    if version == 0 && !fresh {
        return Err(not_ours(path));
    }
    if version > SUPPORTED_SCHEMA || (!fresh && mode != OpenMode::Daemon) {
        return judge_schema(connection, path).await;
    }
    if existed && !fresh {
        back_up_before_migration(connection, path, version, clock).await?;
    }
    migrator().run(&mut *connection).await.map_err(|error| {
        let path = path.display();
        StoreError::Schema(format!("{path}: the database could not be brought to schema {SUPPORTED_SCHEMA}: {error}"))
    })?;
    draw_incarnation(connection, clock).await
}

/// Gives a database its incarnation, if it has none: a new one, or one whose making was broken off before. Where files
/// are known it was lost, and no other one may take its place.
async fn draw_incarnation(connection: &mut SqliteConnection, clock: &dyn Clock) -> Result<()> {
    let has_one = "SELECT 1 FROM kv WHERE key = 'ingestd.incarnation' UNION ALL SELECT 1 FROM sources LIMIT 1";
    if sqlx::query(has_one).fetch_optional(&mut *connection).await?.is_some() {
        return Ok(());
    }
    sqlx::query(
        "INSERT OR IGNORE INTO kv (key, value, updated_at) VALUES ('ingestd.incarnation', lower(hex(randomblob(16))), ?)",
    )
    .bind(clock.now().as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

/// Under its name a backup is whole: it is written under another one, synced, and renamed.
async fn back_up_before_migration(
    connection: &mut SqliteConnection,
    path: &Path,
    version: i64,
    clock: &dyn Clock,
) -> Result<()> {
    let folder = parent(path).join("backups");
    let part = folder.join(format!(".before-schema-{}.partial", version + 1));
    let target = folder.join(format!("before-schema-{}-{}.db", version + 1, clock.now().as_millis()));
    let refused = |error: std::io::Error| StoreError::Place {
        path: target.clone(),
        why: format!("no backup can be made before the migration: {error}"),
    };
    let name = part.to_str().ok_or_else(|| refused(std::io::Error::other("the path is not UTF-8")))?;
    make_folder(&folder, 0o600).map_err(refused)?;
    // What an earlier start left.
    let _ = std::fs::remove_file(&part);
    // SQLite would make it readable for everybody, and fills an empty one.
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(refused)?;
    let copied = sqlx::query("VACUUM INTO ?").bind(name.to_owned()).execute(connection).await;
    let copied = copied.map_err(|error| refused(std::io::Error::other(error)));
    let named = copied.and_then(|_| publish(&part, &target).map_err(refused));
    if let Err(error) = named {
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    tracing::info!(backup = %target.display(), schema = version, "backed up before the migration");
    Ok(())
}

fn migrator() -> Migrator {
    Migrator { migrations: migrations().into(), ..Migrator::DEFAULT }
}

/// Every schema that there was, each by what leads to it from the one before.
pub(super) fn migrations() -> Vec<Migration> {
    let migration = |version, description: &'static str, sql: &'static str| {
        Migration::new(version, description.into(), MigrationType::Simple, sqlx::SqlSafeStr::into_sql_str(sql), false)
    };
    vec![
        migration(1, "queue", include_str!("../../../migrations/sqlite/0001_queue.sql")),
        migration(2, "watch", include_str!("../../../migrations/sqlite/0002_watch.sql")),
        migration(3, "runs", include_str!("../../../migrations/sqlite/0003_runs.sql")),
        migration(4, "lists", include_str!("../../../migrations/sqlite/0004_lists.sql")),
        migration(5, "effects", include_str!("../../../migrations/sqlite/0005_effects.sql")),
    ]
}

/// Whether nothing is in it yet; the table of migrations, which comes first, may be there if its making was broken off.
pub(super) async fn is_empty(connection: &mut SqliteConnection) -> Result<bool> {
    let others = "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'";
    let row = sqlx::query(others).fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(0)? == 0)
}

/// The newest migration that was applied; 0 where none was.
pub(super) async fn schema_version(connection: &mut SqliteConnection) -> Result<i64> {
    let table = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations'")
        .fetch_optional(&mut *connection)
        .await?;
    if table.is_none() {
        return Ok(0);
    }
    let row = sqlx::query("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
        .fetch_one(connection)
        .await?;
    Ok(row.try_get(0)?)
}

async fn judge_schema(connection: &mut SqliteConnection, path: &Path) -> Result<()> {
    let (version, path) = (schema_version(connection).await.map_err(|error| named(error, path))?, path.display());
    match version {
        SUPPORTED_SCHEMA => Ok(()),
        0 => Err(StoreError::Corrupt(format!(
            "{path}: this is not a database of ingestd; `ingestd db restore --newest` puts the newest good backup in its \
             place"
        ))),
        newer if newer > SUPPORTED_SCHEMA => Err(StoreError::Schema(format!(
            "{path}: its schema is {newer}, and this program knows up to {SUPPORTED_SCHEMA}; use the newer ingestd, or \
             restore a backup that is older"
        ))),
        older => Err(StoreError::Schema(format!(
            "{path}: its schema is {older}, and this program needs {SUPPORTED_SCHEMA}; run `ingestd db migrate`, or \
             start the daemon"
        ))),
    }
}

pub(super) fn named(error: StoreError, path: &Path) -> StoreError {
    match error {
        StoreError::Corrupt(why) => damaged(path, &why),
        other => other,
    }
}

async fn incarnation(connection: &mut SqliteConnection) -> Result<Incarnation> {
    let row =
        sqlx::query("SELECT unhex(value) FROM kv WHERE key = 'ingestd.incarnation'").fetch_optional(connection).await?;
    let bytes: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?.flatten();
    bytes.and_then(|bytes| bytes.try_into().ok()).map(Incarnation).ok_or_else(|| {
        StoreError::Corrupt("the database has no incarnation; `ingestd db check --repair` gives it one".to_owned())
    })
}
