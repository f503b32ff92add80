//! Reads what can be read of a damaged database into a new one.
//!
//! The bundled SQLite has no `.recover`, so tables are copied by ranges of rowid: a range that fails is halved
//! until the rows that can't be read stand alone, and those are stepped over and counted. Tables without rowid
//! are copied whole, or not at all. Indexes and counters are made anew.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use super::super::error::{Result, StoreError};
use super::restore::{recount, recount_runs};

/// Tables with a rowid, what others refer to first.
const BY_ROWID: [&str; 10] =
    ["boots", "pipelines", "watches", "lists", "sources", "jobs", "attempts", "dispositions", "runs", "effects"];
/// Tables without.
const WHOLE: [&str; 8] = ["kv", "taken", "outputs", "rates", "contents", "run_lines", "run_changesets", "job_stages"];
/// Rows that are copied in one statement while nothing fails.
const RANGE: i64 = 10_000;
/// Rows that are stepped over before a table is given up.
const MOST_LOST: u64 = 100_000;

/// What became of one table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Salvaged {
    /// Its name.
    pub table: &'static str,
    /// Rows copied.
    pub rows: u64,
    /// Rows (or, in a table without rowid, the whole) that could not be read.
    pub lost: u64,
}

/// Copies what can be read of `damaged` into the new database `into`.
///
/// # Errors
/// `into` exists or can't be written, or `damaged` can't even be opened as a database.
pub async fn salvage(damaged: &Path, into: &Path) -> Result<Vec<Salvaged>> {
    if into.exists() {
        return Err(StoreError::Refused(format!("{} exists; move it away first", into.display())));
    }
    super::open::create_empty(into).await?;
    let mut connection =
        SqliteConnectOptions::new().filename(damaged).foreign_keys(false).disable_statement_logging().connect().await?;
    let target = into.to_str().ok_or_else(|| StoreError::Place {
        path: into.to_owned(),
        why: "the path is not UTF-8, which SQLite needs here".to_owned(),
    })?;
    sqlx::query("ATTACH ? AS fresh").bind(target.to_owned()).execute(&mut connection).await?;
    sqlx::query("DELETE FROM fresh.kv").execute(&mut connection).await?;
    let mut report = Vec::new();
    for table in BY_ROWID {
        report.push(by_rowid(&mut connection, table).await?);
    }
    for table in WHOLE {
        report.push(whole(&mut connection, table).await?);
    }
    drop(connection.close().await);
    finish(into).await?;
    Ok(report)
}

async fn by_rowid(connection: &mut SqliteConnection, table: &'static str) -> Result<Salvaged> {
    let mut salvaged = Salvaged { table, rows: 0, lost: 0 };
    let Ok(columns) = shared_columns(connection, table).await else { return Ok(Salvaged { lost: 1, ..salvaged }) };
    let Some(columns) = columns else { return Ok(salvaged) };
    // Each alone is one probe; both in one query would read the whole table, and stumble over the damage.
    let probes = format!("SELECT (SELECT min(rowid) FROM main.{table}), (SELECT max(rowid) FROM main.{table})");
    let bounds = sqlx::query(AssertSqlSafe(probes));
    let (first, last) = match bounds.fetch_one(&mut *connection).await {
        Ok(row) => (row.try_get::<Option<i64>, _>(0)?.unwrap_or(1), row.try_get::<Option<i64>, _>(1)?.unwrap_or(0)),
        Err(_) => {
            salvaged.lost = 1;
            return Ok(salvaged);
        }
    };
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    let mut start = first;
    while start <= last {
        ranges.push((start, last.min(start.saturating_add(RANGE - 1))));
        start = start.saturating_add(RANGE);
    }
    ranges.reverse();
    while let Some((low, high)) = ranges.pop() {
        let copy = format!(
            "INSERT OR IGNORE INTO fresh.{table} ({columns}) SELECT {columns} FROM main.{table} WHERE rowid BETWEEN ? AND ?"
        );
        match sqlx::query(AssertSqlSafe(copy)).bind(low).bind(high).execute(&mut *connection).await {
            Ok(done) => salvaged.rows += done.rows_affected(),
            Err(_) if low < high && salvaged.lost < MOST_LOST => {
                let middle = low + (high - low) / 2;
                ranges.push((middle + 1, high));
                ranges.push((low, middle));
            }
            Err(_) => salvaged.lost += u64::try_from(high - low + 1).unwrap_or(1),
        }
    }
    Ok(salvaged)
}

/// The columns that the damaged database, whose schema may be older, has of this table; `None`: it has no such table.
async fn shared_columns(connection: &mut SqliteConnection, table: &'static str) -> Result<Option<String>> {
    let sql = "SELECT group_concat(fresh.name, ', ')
               FROM pragma_table_info(?1, 'fresh') AS fresh JOIN pragma_table_info(?1, 'main') AS main USING (name)";
    Ok(sqlx::query(sql).bind(table).fetch_one(connection).await?.try_get(0)?)
}

async fn whole(connection: &mut SqliteConnection, table: &'static str) -> Result<Salvaged> {
    let Ok(columns) = shared_columns(connection, table).await else { return Ok(Salvaged { table, rows: 0, lost: 1 }) };
    let Some(columns) = columns else { return Ok(Salvaged { table, rows: 0, lost: 0 }) };
    let copy = format!("INSERT OR REPLACE INTO fresh.{table} ({columns}) SELECT {columns} FROM main.{table}");
    Ok(match sqlx::query(AssertSqlSafe(copy)).execute(connection).await {
        Ok(done) => Salvaged { table, rows: done.rows_affected(), lost: 0 },
        Err(_) => Salvaged { table, rows: 0, lost: 1 },
    })
}

/// What the new database needs where rows were lost: an incarnation, whole references, true counters.
async fn finish(path: &Path) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(path).foreign_keys(false).disable_statement_logging();
    let mut connection = options.connect().await?;
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "INSERT OR IGNORE INTO kv (key, value, updated_at) VALUES ('ingestd.incarnation', lower(hex(randomblob(16))), 0)",
    )
    .execute(&mut *tx)
    .await?;
    // A job without its source has no file; the rescan finds the file again.
    sqlx::query(
        "DELETE FROM jobs WHERE source NOT IN (SELECT id FROM sources) OR pipeline NOT IN (SELECT id FROM pipelines)",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE jobs SET blocked_by = NULL WHERE blocked_by NOT IN (SELECT id FROM jobs)")
        .execute(&mut *tx)
        .await?;
    // What was taken is never less than the jobs that are there.
    sqlx::query(
        "INSERT INTO taken (source, pipeline, version, job, started)
         SELECT source, pipeline, max(version), id, max(executions > 0) FROM jobs WHERE true GROUP BY source, pipeline
         ON CONFLICT (source, pipeline) DO UPDATE SET
             version = excluded.version, job = excluded.job, started = max(started, excluded.started)
         WHERE excluded.version > version",
    )
    .execute(&mut *tx)
    .await?;
    for table in ["taken", "contents"] {
        let orphans = format!("DELETE FROM {table} WHERE source NOT IN (SELECT id FROM sources)");
        sqlx::query(AssertSqlSafe(orphans)).execute(&mut *tx).await?;
    }
    for table in ["run_lines", "run_changesets"] {
        let orphans = format!("DELETE FROM {table} WHERE run NOT IN (SELECT id FROM runs)");
        sqlx::query(AssertSqlSafe(orphans)).execute(&mut *tx).await?;
    }
    recount(&mut tx).await?;
    recount_runs(&mut tx).await?;
    tx.commit().await?;
    connection.close().await?;
    Ok(())
}
