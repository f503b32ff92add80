//! A look at what is there, read-only, before it is opened for writing.
//!
//! 1. To open a database for writing changes it: the journal's mode is set at once, and the last connection that closes
//!    moves the log into the file. So what is not ours, or damaged, is told apart before that, and left as it is: what
//!    is left of it may still be salvaged.
//! 2. An empty file is a new database, unless its log or its backups tell that it had content.
//! 3. Nothing binds a log to its file but its name: SQLite plays the log of another database into this one, which then is
//!    that other one. The incarnation tells them apart: it is in both, and never changes in place.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::super::error::{Result, StoreError};
use super::check;
use super::errors::WAY_OUT;
use super::open::{OpenMode, is_empty, named, opening, reading, schema_version};
use super::upkeep::wal_of;
use crate::config::Database;
use crate::durable::with_suffix;

/// See [`look_first`].
const MOST_CHECKED_AT_START_BYTES: u64 = 16 << 20;

/// Judges what is there before it is opened for writing, which alone would change it: the journal's mode is set at once,
/// and the last connection that closes moves the log into the file. What is not ours, or damaged, is left as it is, so
/// that what is left of it may still be salvaged.
///
/// The check is linear in the size (some 0.3 s for 12 MiB), so a large database is left to `db check` and to whoever
/// reads a damaged page, and commands, which are short, leave it to the daemon.
pub(super) async fn look_first(database: &Database, mode: OpenMode) -> Result<()> {
    let path = &database.path;
    // There is a rollback journal only until a new database has its log: the making of it was broken off. No reader can
    // roll that back, the writer does.
    let unmade = size(&with_suffix(path, "-journal")) > 0;
    if size(path) == 0 || unmade {
        return Ok(());
    }
    if mode == OpenMode::Daemon && has_foreign_log(path).await? {
        return Err(foreign_log(path));
    }
    let mut connection = reading(database).connect().await.map_err(|error| opening(error, path))?;
    let looked = async {
        let version = schema_version(&mut connection).await.map_err(|error| named(error, path))?;
        if version == 0 && !is_empty(&mut connection).await? {
            return Err(not_ours(path));
        }
        if mode != OpenMode::Daemon || size(path) > MOST_CHECKED_AT_START_BYTES {
            return Ok(());
        }
        let found = check::structure(&mut connection, true).await?;
        found.first().map_or(Ok(()), |first| Err(damaged(path, first)))
    };
    let looked = looked.await;
    connection.close().await?;
    looked
}

/// The words for a file that holds something else.
pub(super) fn not_ours(path: &Path) -> StoreError {
    StoreError::Corrupt(format!(
        "{}: this is a database, but not one of ingestd; name another one with `database.url`, or put a backup in its \
         place with `ingestd db restore`",
        path.display()
    ))
}

/// The words for a damaged database, with the way out.
pub(super) fn damaged(path: &Path, why: &str) -> StoreError {
    let path = path.display();
    // SQLite's own errors come with it.
    let way_out = if why.contains(WAY_OUT) { String::new() } else { format!("; {WAY_OUT}") };
    StoreError::Corrupt(format!("{path}: {why}{way_out}"))
}

/// An empty file is a new database, and so is one that is not there, unless there was one: its log or its backups would
/// tell. What it had accepted is not given up in silence.
///
/// # Errors
/// There was one; the words say what is left of it, and the way out.
pub fn refuse_emptied(path: &Path) -> Result<()> {
    if size(path) > 0 {
        return Ok(());
    }
    let log = wal_of(path);
    let backups = path.with_file_name("backups");
    let is_hidden = |entry: &std::fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    let has_backups = || {
        let entries = std::fs::read_dir(&backups);
        entries.is_ok_and(|entries| entries.flatten().any(|entry| !is_hidden(&entry)))
    };
    let trace = if size(&log) > 0 {
        &log
    } else if has_backups() {
        &backups
    } else {
        return Ok(());
    };
    let (is, away) = if path.exists() { ("empty", "both") } else { ("gone", "that") };
    Err(StoreError::Corrupt(format!(
        "{}: the database is {is}, and there was one: {} is still there; `ingestd db restore --newest` brings back the \
         newest good backup; to begin anew, move {away} away",
        path.display(),
        trace.display()
    )))
}

/// Whether the database's log is one of another database of this program. To be asked before anything else of this process
/// opens the database: the file is looked at without its log, and closing that drops SQLite's locks.
///
/// # Errors
/// None that the database's damage brings about: whoever can't read it can't say so.
pub async fn has_foreign_log(path: &Path) -> Result<bool> {
    if size(&wal_of(path)) == 0 || size(path) == 0 {
        return Ok(false);
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging();
    let alone = incarnation_by(options.clone().immutable(true)).await?;
    let with_log = incarnation_by(options).await?;
    Ok(matches!((alone, with_log), (Some(alone), Some(with_log)) if alone != with_log))
}

async fn incarnation_by(options: SqliteConnectOptions) -> Result<Option<String>> {
    let Ok(mut connection) = options.connect().await else { return Ok(None) };
    let found = incarnation_text(&mut connection).await;
    connection.close().await?;
    Ok(found)
}

async fn incarnation_text(connection: &mut SqliteConnection) -> Option<String> {
    let sql = "SELECT value FROM kv WHERE key = 'ingestd.incarnation'";
    sqlx::query_scalar(sql).fetch_optional(connection).await.ok().flatten()
}

/// The words for a log that belongs to another database.
pub fn foreign_log(path: &Path) -> StoreError {
    StoreError::Corrupt(format!(
        "{}: its log {} is the one of another database, and would be played into it; bring back its own, or move this one \
         away and then run `ingestd db check`; `ingestd db check --repair` reads the database without it",
        path.display(),
        wal_of(path).display()
    ))
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}
