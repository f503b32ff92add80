//! Looking after the database. Writes go through the writer; a backup and a person's query have a reading
//! connection of their own, so that they neither hold up the writer nor use up the pool.
//!
//! The database's file is only ever looked at with `stat`: closing any other descriptor of it would drop SQLite's
//! locks.

use std::collections::BTreeSet;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use super::super::error::{Result, StoreError};
use super::super::upkeep::{AddedFile, Checkpoint, CheckpointMode, ClockSteps, Prunable, Sizes, Upkeep};
use super::bulk::Bulk;
use super::errors::{self, WAY_OUT};
use super::{SqliteStore, check, prune, wire};
use crate::clock::Timestamp;
use crate::durable::with_suffix;

/// How long a checkpoint waits for readers: the writer stands still meanwhile.
const CHECKPOINT_PATIENCE_MS: i64 = 500;
/// How long a reading connection waits for a lock; readers hardly ever meet one in WAL mode.
const READER_PATIENCE: Duration = Duration::from_secs(10);

/// ?1: the source after which the page begins, ?2: at most so many. In the order of the key, so that the files of watches,
/// which are the many, are not read.
pub(super) const ADDED_FILES: &str = "
    SELECT id, coalesce(path, identity) FROM sources
    WHERE scope <= 0 AND presence = 'present'
        AND (scope, identity) > (coalesce((SELECT scope FROM sources WHERE id = ?1), -2),
                                 coalesce((SELECT identity FROM sources WHERE id = ?1), x''))
    ORDER BY scope, identity LIMIT ?2";

/// Files that hold the content of a job that a lease or a person's `retry` may still bring to an attempt.
pub(super) static NEEDED_CONTENTS: Bulk = Bulk::new(
    "WITH v(content) AS (ROWS)
     SELECT v.content FROM v CROSS JOIN jobs AS j INDEXED BY jobs_content
     WHERE v.content IS NOT NULL AND j.content = v.content AND j.content IS NOT NULL
         AND j.state NOT IN ('completed', 'skipped')",
    1,
);

#[async_trait]
impl Upkeep for SqliteStore {
    async fn prune(&self, what: Prunable, cutoff: Timestamp, limit: u32) -> Result<u64> {
        if what == Prunable::Runs {
            self.prune_lines(cutoff).await?;
        }
        self.write(move |tx| Box::pin(prune::batch(tx, what, cutoff.as_millis(), i64::from(limit)))).await
    }

    async fn prunable(&self, what: Prunable, cutoff: Timestamp) -> Result<u64> {
        let mut reader = self.readers().acquire().await?;
        prune::count(&mut reader, what, cutoff.as_millis()).await
    }

    async fn clock_steps(&self) -> Result<ClockSteps> {
        self.read_clock_steps().await
    }

    async fn added_files(&self, after: i64, limit: usize) -> Result<Vec<AddedFile>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = sqlx::query(ADDED_FILES).bind(after).bind(limit).fetch_all(self.readers()).await?;
        rows.iter().map(|row| Ok(AddedFile { source: row.try_get(0)?, path: wire::path(row.try_get(1)?) })).collect()
    }

    async fn note_absent(&self, sources: Vec<i64>) -> Result<u64> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (sources, now) = (wire::rows(&sources), clock.now().as_millis());
            Box::pin(async move {
                let noted = sqlx::query(
                    "UPDATE sources SET presence = 'vanished', gone_at = ?2
                     WHERE id IN (SELECT value FROM json_each(?1)) AND presence = 'present'",
                )
                .bind(sources?)
                .bind(now)
                .execute(tx)
                .await?;
                Ok(noted.rows_affected())
            })
        })
        .await
    }

    async fn needed_contents(&self, contents: Vec<PathBuf>) -> Result<BTreeSet<PathBuf>> {
        let mut reader = self.readers().acquire().await?;
        let rows = NEEDED_CONTENTS
            .fetch(&mut reader, &contents, |values, content: &PathBuf| {
                values.push(wire::path_bytes(content));
            })
            .await?;
        rows.iter().map(|row| Ok(wire::path(row.try_get(0)?))).collect()
    }

    async fn checkpoint(&self, mode: CheckpointMode) -> Result<Checkpoint> {
        self.write_outside(move |connection| Box::pin(checkpoint(connection, mode))).await
    }

    async fn vacuum(&self, pages: u32) -> Result<u64> {
        self.write(move |tx| {
            Box::pin(async move {
                // A pragma takes no bound parameter. Its statement frees a page with each step: read to its end.
                sqlx::query(AssertSqlSafe(format!("PRAGMA incremental_vacuum({pages})"))).fetch_all(&mut *tx).await?;
                Ok(sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *tx).await?)
            })
        })
        .await
    }

    async fn optimize(&self) -> Result<()> {
        self.write_outside(|connection| {
            Box::pin(async move {
                sqlx::query("PRAGMA optimize").execute(connection).await?;
                Ok(())
            })
        })
        .await
    }

    async fn check(&self, full: bool) -> Result<Vec<String>> {
        check::run(self.readers(), full).await
    }

    async fn backup_to(&self, target: &Path) -> Result<()> {
        let name = target.to_str().ok_or_else(|| {
            StoreError::Refused(format!("a backup's name has to be UTF-8 text, {} is not", target.display()))
        })?;
        claim(&self.path, target)?;
        let copied = copy(&self.path, name).await;
        if copied.is_err() {
            // What was written so far is no backup; that it can't be removed would only hide the first error.
            drop(std::fs::remove_file(target));
        }
        copied
    }

    async fn sizes(&self) -> Result<Sizes> {
        let mut reader = self.readers().acquire().await?;
        Ok(Sizes {
            size_bytes: size_of(&self.path)?,
            wal_bytes: size_of(&wal_of(&self.path))?,
            free_pages: sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *reader).await?,
            page_bytes: sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut *reader).await?,
        })
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// Checks a copy of the database that nobody writes to, and that was just made: that it is one of ours, and whole.
///
/// # Errors
/// [`StoreError::Corrupt`] where it is neither, saying what SQLite found.
pub async fn verify(path: &Path) -> Result<()> {
    examine(path, false).await
}

/// The same for a copy that lay somewhere for a while: its indexes and values too, and that this program knows its schema.
///
/// # Errors
/// As of [`verify`], and [`StoreError::Schema`].
pub async fn verify_whole(path: &Path) -> Result<()> {
    examine(path, true).await
}

async fn examine(path: &Path, full: bool) -> Result<()> {
    let mut copy = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true).connect().await?;
    let found = look_at(&mut copy, full).await;
    copy.close().await?;
    let corrupt = |why: String| StoreError::Corrupt(format!("{}: {why}", path.display()));
    match found {
        Ok(found) if found.is_empty() => Ok(()),
        Ok(found) => Err(corrupt(found.join("; "))),
        // The way out is one from the database, and this is a copy.
        Err(StoreError::Corrupt(why)) => Err(corrupt(why.replace(&format!("; {WAY_OUT}"), ""))),
        Err(other) => Err(other),
    }
}

/// An empty file passes for an empty database, so the tables are asked for too.
async fn look_at(copy: &mut SqliteConnection, full: bool) -> Result<Vec<String>> {
    let ours: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'jobs')")
        .fetch_one(&mut *copy)
        .await?;
    if !ours {
        return Ok(vec!["this is not a database of ingestd".to_owned()]);
    }
    let version = super::open::schema_version(copy).await?;
    if version > super::SUPPORTED_SCHEMA {
        return Err(StoreError::Schema(format!(
            "its schema is {version}, and this program knows up to {}",
            super::SUPPORTED_SCHEMA
        )));
    }
    check::structure(copy, full).await
}

/// A reading connection outside the pool.
pub(super) async fn own_reader(database: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(database).read_only(true).busy_timeout(READER_PATIENCE);
    Ok(options.connect().await?)
}

async fn checkpoint(connection: &mut SqliteConnection, mode: CheckpointMode) -> Result<Checkpoint> {
    let sql = match mode {
        CheckpointMode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        CheckpointMode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    let patience: i64 = sqlx::query_scalar("PRAGMA busy_timeout").fetch_one(&mut *connection).await?;
    set_patience(connection, patience.min(CHECKPOINT_PATIENCE_MS)).await?;
    let done = sqlx::query_as(sql).fetch_one(&mut *connection).await;
    set_patience(connection, patience).await?;
    let (busy, wal_frames, moved_frames) = done.map_err(not_moved)?;
    Ok(Checkpoint { busy, wal_frames, moved_frames })
}

/// What the log holds is synced, and stays there until all of it is in the database: a write that fails on the way takes
/// nothing away. A sync that fails may be the log's own, and is as bad as any.
fn not_moved(error: sqlx::Error) -> StoreError {
    if errors::is_refused_write(&error) {
        return StoreError::Upkeep(format!(
            "the write-ahead log could not be moved into the database ({error}): nothing is lost, and it is tried again; \
             look at the kernel's log, and at quotas"
        ));
    }
    error.into()
}

async fn set_patience(connection: &mut SqliteConnection, ms: i64) -> Result<()> {
    sqlx::query(AssertSqlSafe(format!("PRAGMA busy_timeout = {ms}"))).execute(connection).await?;
    Ok(())
}

/// Makes the target as an empty file that nobody had, with the permissions of the database: SQLite would make it
/// readable for everybody, and fills an empty one.
fn claim(database: &Path, target: &Path) -> Result<()> {
    let refused = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => StoreError::Refused(format!("{} exists already", target.display())),
        std::io::ErrorKind::StorageFull => StoreError::Full,
        _ => StoreError::Place { path: target.to_owned(), why: format!("the backup can't be made here: {error}") },
    };
    let mode = std::fs::metadata(database).map_err(refused)?.permissions().mode() & 0o777;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(target).map_err(refused)?;
    Ok(())
}

async fn copy(database: &Path, target: &str) -> Result<()> {
    let mut reader = own_reader(database).await?;
    let copied = sqlx::query("VACUUM INTO ?1").bind(target).execute(&mut reader).await;
    reader.close().await?;
    copied.map_err(|error| match StoreError::from(error) {
        // Nothing of the queue is written here, so nothing of it is in doubt.
        StoreError::Disk(why) => StoreError::Place {
            path: target.into(),
            why: format!("the copy can't be made: the disk failed under it, or under the database ({why})"),
        },
        other => other,
    })?;
    Ok(())
}

/// The write-ahead log's file.
pub(super) fn wal_of(database: &Path) -> PathBuf {
    with_suffix(database, "-wal")
}

fn size_of(file: &Path) -> Result<u64> {
    match std::fs::metadata(file) {
        Ok(meta) => Ok(meta.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::Place { path: file.to_owned(), why: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::fixture;
    use super::*;
    use crate::store::Browse as _;

    #[tokio::test]
    async fn a_backup_is_whole_private_and_never_written_over_something() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 100, "state", "'pending'").await;
        std::fs::set_permissions(store.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let target = dir.path().join("it's a copy?.db");
        store.backup_to(&target).await.unwrap();
        verify(&target).await.unwrap();
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
        let rows =
            super::super::query::run(&target, store.clock.clone(), "SELECT count(*) FROM jobs", 1).await.unwrap();
        assert_eq!(rows.rows, [[serde_json::json!(100)]]);

        let before = std::fs::read(&target).unwrap();
        assert!(matches!(store.backup_to(&target).await, Err(StoreError::Refused(_))));
        assert_eq!(std::fs::read(&target).unwrap(), before);
        let nowhere = store.backup_to(&dir.path().join("missing/copy.db")).await;
        assert!(matches!(nowhere, Err(StoreError::Place { .. })), "{nowhere:?}");
    }

    #[tokio::test]
    async fn a_copy_that_is_damaged_empty_or_foreign_is_not_verified() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 2_000, "state", "'pending'").await;
        let copy = dir.path().join("copy.db");
        store.backup_to(&copy).await.unwrap();
        let mut bytes = std::fs::read(&copy).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8_192].fill(0xa5);
        std::fs::write(&copy, &bytes).unwrap();
        assert!(matches!(verify(&copy).await, Err(StoreError::Corrupt(_))));
        std::fs::write(&copy, b"").unwrap();
        assert!(matches!(verify(&copy).await, Err(StoreError::Corrupt(_))));
        std::fs::write(&copy, [b'x'; 5_000]).unwrap();
        assert!(matches!(verify(&copy).await, Err(StoreError::Corrupt(_))));
    }

    #[tokio::test]
    async fn a_checkpoint_cuts_the_wal_unless_a_reader_is_in_the_way() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 500, "state", "'pending'").await;
        assert!(store.sizes().await.unwrap().wal_bytes > 0);
        let passive = store.checkpoint(CheckpointMode::Passive).await.unwrap();
        assert!(!passive.busy && passive.moved_frames == passive.wal_frames && passive.wal_frames > 0);

        fixture::jobs(&store, 501, 500, "state", "'pending'").await;
        let mut reader = store.readers().begin().await.unwrap();
        sqlx::query("SELECT count(*) FROM jobs").execute(&mut *reader).await.unwrap();
        fixture::jobs(&store, 1_001, 500, "state", "'pending'").await;
        assert!(store.checkpoint(CheckpointMode::Truncate).await.unwrap().busy);
        reader.rollback().await.unwrap();
        let cut = store.checkpoint(CheckpointMode::Truncate).await.unwrap();
        assert!(!cut.busy);
        assert_eq!(store.sizes().await.unwrap().wal_bytes, 0);
        let patience: i64 = store
            .write_outside(|connection| {
                Box::pin(async move { Ok(sqlx::query_scalar("PRAGMA busy_timeout").fetch_one(connection).await?) })
            })
            .await
            .unwrap();
        assert!(patience > CHECKPOINT_PATIENCE_MS, "the writer's patience is as before");
    }

    #[tokio::test]
    async fn free_pages_are_given_back_in_slices() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 5_000, "state, metadata", "'pending', json_object('a', hex(zeroblob(500)))").await;
        let large = store.sizes().await.unwrap();
        fixture::sql(&store, "DELETE FROM jobs").await;
        let free = store.sizes().await.unwrap().free_pages;
        assert!(free > 500, "{free}");
        assert_eq!(store.vacuum(100).await.unwrap(), free - 100);
        assert_eq!(store.vacuum(u32::MAX).await.unwrap(), 0);
        store.checkpoint(CheckpointMode::Truncate).await.unwrap();
        let small = store.sizes().await.unwrap();
        assert!(small.size_bytes < large.size_bytes.max(free * small.page_bytes));
        assert_eq!(small.free_pages, 0);
        store.optimize().await.unwrap();
        assert!(store.jobs(&crate::store::JobFilter::default(), None, 1).await.unwrap().is_empty());
    }
}
