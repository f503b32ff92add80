//! Reads what can be read of a damaged database into a new one.
//!
//! 1. The damaged one is attached read-only: not a byte of it, or of its log, is changed by being read. A log of another
//!    database is left out.
//! 2. The bundled SQLite has no `.recover`, so tables are copied by ranges of rowid: a range that fails is halved
//!    until the rows that can't be read stand alone, and those are stepped over. Tables without rowid are copied from
//!    their beginning until it fails, and from their end.
//! 3. A row that breaks a CHECK, or holds a value of another type than its column, is left behind. A row that only an index
//!    still names was lost without anything failing: its page is one of an earlier time.
//! 4. What refers to rows that are lost goes as well: a number that is given out again must not lead to another's rows. A
//!    file whose job is lost is processed again.
//! 5. Indexes and counters are made anew, and the rest is as after a restore ([`super::restore`]).

mod copy;

use std::fmt;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::super::error::{Result, StoreError};
use super::look::{has_foreign_log, refuse_emptied};
use super::restore::{make_ready, recount, recount_runs};
use super::values;
use crate::clock::Clock;
use copy::{HIGHEST, bound, copy};

/// A table, and the schema that brought it.
struct Table {
    name: &'static str,
    since: i64,
    has_rowid: bool,
}

const fn by_rowid(name: &'static str, since: i64) -> Table {
    Table { name, since, has_rowid: true }
}

const fn by_key(name: &'static str, since: i64) -> Table {
    Table { name, since, has_rowid: false }
}

/// What is copied. Not the counters, which are counted, nor `_sqlx_migrations`, which the new database has.
const TABLES: [Table; 18] = [
    by_rowid("boots", 1),
    by_rowid("pipelines", 1),
    by_rowid("watches", 1),
    by_rowid("lists", 4),
    by_rowid("sources", 1),
    by_rowid("jobs", 1),
    by_rowid("attempts", 1),
    by_rowid("dispositions", 1),
    by_rowid("runs", 3),
    by_rowid("effects", 5),
    by_key("kv", 1),
    by_key("taken", 1),
    by_key("outputs", 1),
    by_key("rates", 1),
    by_key("contents", 2),
    by_key("run_lines", 4),
    by_key("run_changesets", 4),
    by_key("job_stages", 5),
];

/// Ranges that are kept of one table.
const MOST_RANGES: usize = 100;

/// What became of the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvage {
    /// Rows that were copied.
    pub rows: u64,
    /// What was lost, table by table; empty: nothing.
    pub lost: Vec<Lost>,
    /// The log was one of another database, and was not read; what the database's own would have held is lost.
    pub log_is_foreign: bool,
}

/// What was lost of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Its name.
    pub table: &'static str,
    /// The whole of it.
    pub whole: bool,
    /// Rows from the first number up to the last, which could not be read; as many were lost at most.
    pub ranges: Vec<(i64, i64)>,
    /// Some rows in the middle of a table whose rows have no numbers.
    pub some: bool,
    /// Rows that could be read and make no sense.
    pub senseless: u64,
    /// Rows that an index names, and that are in no page of the table that can be read.
    pub absent: u64,
    /// Rows that referred to what was lost.
    pub orphans: u64,
    /// The numbers of all rows that are missing for one of the other reasons, as ranges.
    missing: Vec<(i64, i64)>,
}

impl Lost {
    const fn is_nothing(&self) -> bool {
        !self.whole
            && self.ranges.is_empty()
            && !self.some
            && self.senseless == 0
            && self.absent == 0
            && self.orphans == 0
    }

    fn add_range(&mut self, low: i64, high: i64) {
        let is_full = self.ranges.len() >= MOST_RANGES;
        match self.ranges.last_mut() {
            Some((_, last)) if *last >= low.saturating_sub(1) || is_full => *last = high,
            _ => self.ranges.push((low, high)),
        }
        self.missing.push((low, high));
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.whole {
            parts.push("all of it".to_owned());
        }
        parts.extend(self.ranges.iter().map(|(low, high)| match (low == high, *high) {
            (true, _) => format!("row {low}"),
            (false, HIGHEST) => format!("rows from {low} on"),
            (false, _) => format!("rows {low} to {high}"),
        }));
        if self.some {
            parts.push("some rows that can't be told apart".to_owned());
        }
        if self.senseless > 0 {
            parts.push(format!("{} rows that make no sense", self.senseless));
        }
        if self.absent > 0 {
            parts.push(format!("{} rows that only an index still names", self.absent));
        }
        if self.orphans > 0 {
            parts.push(format!("{} rows that belong to what was lost", self.orphans));
        }
        write!(f, "{}: {}", self.table, parts.join(", "))
    }
}

/// Copies what can be read of `damaged` into the new database `into`.
///
/// # Errors
/// `into` exists or can't be written, or nothing of `damaged` can be read as a database of this program.
pub async fn salvage(damaged: &Path, into: &Path, clock: &dyn Clock) -> Result<Salvage> {
    if into.exists() {
        return Err(StoreError::Refused(format!("{} exists; move it away first", into.display())));
    }
    // To open an empty file, though it were to read, removes its log.
    refuse_emptied(damaged)?;
    let log_is_foreign = has_foreign_log(damaged).await?;
    super::open::create_empty(into).await?;
    let options = SqliteConnectOptions::new().filename(into).foreign_keys(false).disable_statement_logging();
    // It is synced when it is whole.
    let mut connection = options.pragma("synchronous", "off").pragma("writable_schema", "on").connect().await?;
    let attached = sqlx::query("ATTACH ? AS damaged").bind(read_only(damaged, log_is_foreign));
    match attached.execute(&mut connection).await.map_err(StoreError::from) {
        Err(StoreError::Corrupt(_)) => return Err(unreadable(damaged)),
        attached => attached?,
    };
    sqlx::query("DELETE FROM main.kv").execute(&mut connection).await?;
    let version = schema_of(&mut connection).await;
    let mut salvage = Salvage { log_is_foreign, ..Salvage::default() };
    let mut found = 0;
    for table in &TABLES {
        let (rows, lost) = copy(&mut connection, table, version, &mut found).await?;
        salvage.rows += rows;
        salvage.lost.push(Lost { table: table.name, ..lost });
    }
    if found == 0 {
        return Err(unreadable(damaged));
    }
    keep_numbers(&mut connection).await?;
    sqlx::query("DETACH damaged").execute(&mut connection).await?;
    garbled_texts(&mut connection).await?;
    finish(&mut connection, clock, &mut salvage).await?;
    connection.close().await?;
    salvage.lost.retain(|lost| !lost.is_nothing());
    Ok(salvage)
}

fn unreadable(damaged: &Path) -> StoreError {
    StoreError::Corrupt(format!(
        "{}: nothing of it can be read as a database of ingestd; `ingestd db restore --newest` puts the newest good \
         backup in its place",
        damaged.display()
    ))
}

/// The file as a URI that asks for no more than to be read, with its log or without.
fn read_only(file: &Path, alone: bool) -> String {
    let mut uri = "file:".to_owned();
    for byte in file.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri + if alone { "?mode=ro&immutable=1" } else { "?mode=ro" }
}

/// The schema that the damaged one had: ours, unless it can say otherwise.
async fn schema_of(connection: &mut SqliteConnection) -> i64 {
    let sql = "SELECT coalesce(max(version), 0) FROM damaged._sqlx_migrations WHERE success";
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap_or(super::SUPPORTED_SCHEMA)
}

/// Numbers that were given out are not given out again, though the rows that had them are lost.
async fn keep_numbers(connection: &mut SqliteConnection) -> Result<()> {
    for (table, others) in [
        ("jobs", &["main.taken", "main.attempts", "main.effects", "main.job_stages"][..]),
        ("runs", &[]),
        ("effects", &[]),
    ] {
        let mut highest = 0;
        let told = format!("SELECT seq FROM damaged.sqlite_sequence WHERE name = '{table}'");
        highest = highest.max(bound(connection, &told).await.ok().flatten().unwrap_or(0));
        for other in others {
            highest = highest.max(bound(connection, &format!("SELECT max(job) FROM {other}")).await?.unwrap_or(0));
        }
        sqlx::query(
            "INSERT INTO main.sqlite_sequence (name, seq)
             SELECT ?1, 0 WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_sequence WHERE name = ?1)",
        )
        .bind(table)
        .execute(&mut *connection)
        .await?;
        sqlx::query("UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1")
            .bind(table)
            .bind(highest)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Replaces what is no text by what is left of it, so that its row can be read.
async fn garbled_texts(connection: &mut SqliteConnection) -> Result<()> {
    for table in &TABLES {
        let columns = values::columns(connection, "main", table.name).await?;
        for column in columns.iter().filter(|column| column.is_text()) {
            for text in values::garbled(connection, table.name, &column.name).await? {
                let (table, column) = (table.name, &column.name);
                let mend = format!("UPDATE OR REPLACE {table} SET {column} = ?1 WHERE CAST({column} AS BLOB) = ?2");
                let mended = sqlx::query(AssertSqlSafe(mend)).bind(String::from_utf8_lossy(&text).into_owned());
                if mended.bind(text.clone()).execute(&mut *connection).await.is_err() {
                    // It is one of a few words, which this is not.
                    let remove = format!("DELETE FROM {table} WHERE CAST({column} AS BLOB) = ?1");
                    sqlx::query(AssertSqlSafe(remove)).bind(text).execute(&mut *connection).await?;
                }
            }
        }
    }
    Ok(())
}

/// What refers to what is lost, in the order in which one follows from the other. A job without its source has no file,
/// and one without its pipeline nothing that would run it; the rescan finds the file again.
const ORPHANS: [(&str, &str); 13] = [
    ("sources", "scope > 0 AND scope NOT IN (SELECT id FROM watches)"),
    ("jobs", "source NOT IN (SELECT id FROM sources) OR pipeline NOT IN (SELECT id FROM pipelines)"),
    ("taken", "source NOT IN (SELECT id FROM sources) OR pipeline NOT IN (SELECT id FROM pipelines)"),
    ("contents", "source NOT IN (SELECT id FROM sources) OR pipeline NOT IN (SELECT id FROM pipelines)"),
    ("attempts", "pipeline NOT IN (SELECT id FROM pipelines)"),
    ("rates", "pipeline NOT IN (SELECT id FROM pipelines)"),
    ("dispositions", "job NOT IN (SELECT id FROM jobs WHERE state IN ('pending', 'running', 'retrying'))"),
    ("outputs", "job NOT IN (SELECT id FROM jobs) AND job NOT IN (SELECT job FROM attempts)"),
    ("effects", "job NOT IN (SELECT id FROM jobs)"),
    ("job_stages", "job NOT IN (SELECT id FROM jobs)"),
    ("run_lines", "run NOT IN (SELECT id FROM runs)"),
    ("run_changesets", "run NOT IN (SELECT id FROM runs)"),
    ("runs", "list IS NOT NULL AND list NOT IN (SELECT id FROM lists)"),
];

/// A file whose job is lost counts as not there, so that what lies under its name arrives anew: it was known and taken, and
/// nobody could say whether it was processed.
async fn forget_processed(tx: &mut SqliteConnection, salvage: &Salvage, now: i64) -> Result<()> {
    // Also without what is known of the file, which would be taken for the one that went.
    const FORGOTTEN: &str = "UPDATE sources SET presence = 'consumed', gone_at = ?1, dev = 0, inode = 0, size = 0,
                                    mtime_ns = 0, ctime_ns = 0, digest = NULL, digest_version = NULL
                             WHERE presence = 'present' AND id";
    let of = |table: &str| salvage.lost.iter().find(|lost| lost.table == table).filter(|lost| !lost.is_nothing());
    let (jobs, taken) = (of("jobs"), of("taken"));
    for (low, high) in jobs.into_iter().flat_map(|jobs| &jobs.missing) {
        let sql = format!(
            "{FORGOTTEN} IN (SELECT source FROM taken WHERE job BETWEEN ?2 AND ?3 AND job NOT IN (SELECT id FROM jobs))"
        );
        sqlx::query(AssertSqlSafe(sql)).bind(now).bind(low).bind(high).execute(&mut *tx).await?;
    }
    if jobs.is_some() && taken.is_some() {
        let sql = format!("{FORGOTTEN} NOT IN (SELECT source FROM taken UNION ALL SELECT source FROM jobs)");
        sqlx::query(AssertSqlSafe(sql)).bind(now).execute(tx).await?;
    }
    Ok(())
}

/// What the new database needs where rows were lost: whole references, true counters, and what a restore needs.
async fn finish(connection: &mut SqliteConnection, clock: &dyn Clock, salvage: &mut Salvage) -> Result<()> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    for (table, orphaned) in ORPHANS {
        let sql = format!("DELETE FROM {table} WHERE {orphaned}");
        let gone = sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await?.rows_affected();
        if let Some(lost) = salvage.lost.iter_mut().find(|lost| lost.table == table) {
            lost.orphans += gone;
        }
    }
    // Nobody would give back what a run that is lost held back.
    sqlx::query(
        "UPDATE jobs SET held_by = NULL WHERE held_by IS NOT NULL
         AND held_by NOT IN (SELECT id FROM runs WHERE state = 'paused')",
    )
    .execute(&mut *tx)
    .await?;
    let now = clock.now().as_millis();
    forget_processed(&mut tx, salvage, now).await?;
    make_ready(&mut tx, now).await?;
    // What was taken is never less than the jobs that are there, and a source no older than what was taken of it.
    sqlx::query(
        "INSERT INTO taken (source, pipeline, version, job, started)
         SELECT source, pipeline, max(version), id, max(executions > 0) FROM jobs WHERE true GROUP BY source, pipeline
         ON CONFLICT (source, pipeline) DO UPDATE SET
             version = excluded.version, job = excluded.job, started = max(started, excluded.started)
         WHERE excluded.version > version",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE sources SET version = t.version FROM (SELECT source, max(version) AS version FROM taken GROUP BY source) AS t
         WHERE t.source = sources.id AND t.version > sources.version",
    )
    .execute(&mut *tx)
    .await?;
    recount(&mut tx).await?;
    recount_runs(&mut tx, now).await?;
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests;
