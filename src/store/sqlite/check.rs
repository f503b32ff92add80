//! What is wrong with the database, in sentences: SQLite's own check, the references, and the queue's promises.

use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::super::error::{Result, StoreError};

/// The promises that no CHECK can hold, each as a statement that yields one sentence for each breach.
const PROMISES: &str = include_str!("sql/promises.sql");

/// Breaches that are reported at most of each kind.
const MOST: i64 = 100;

/// Everything that is wrong; empty: nothing.
pub(super) async fn run(readers: &SqlitePool, full: bool) -> Result<Vec<String>> {
    // One snapshot, so that counters and rows are of one moment.
    let mut snapshot = readers.begin().await?;
    let mut found = match structure(&mut snapshot, full).await {
        // What SQLite refuses to read is a finding, and the rest can't be trusted then.
        Err(StoreError::Corrupt(why)) => return Ok(vec![why]),
        found => found?,
    };
    found.extend(references(&mut snapshot).await?);
    found.extend(sqlx::query_scalar::<_, String>(PROMISES).bind(MOST).fetch_all(&mut *snapshot).await?);
    snapshot.commit().await?;
    Ok(found)
}

/// What SQLite finds in its own structure; `full` also compares indexes with their tables.
pub(super) async fn structure(reader: &mut SqliteConnection, full: bool) -> Result<Vec<String>> {
    let sql = if full { "PRAGMA integrity_check(100)" } else { "PRAGMA quick_check(100)" };
    let lines: Vec<String> = sqlx::query_scalar(sql).fetch_all(reader).await?;
    Ok(lines.into_iter().filter(|line| line != "ok").map(|line| format!("the file is damaged: {line}")).collect())
}

async fn references(reader: &mut SqliteConnection) -> Result<Vec<String>> {
    let rows: Vec<(String, Option<i64>, String)> =
        sqlx::query_as(r#"SELECT "table", rowid, parent FROM pragma_foreign_key_check LIMIT ?1"#)
            .bind(MOST)
            .fetch_all(reader)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(table, row, parent)| match row {
            Some(row) => format!("row {row} of {table} refers to a row of {parent} that does not exist"),
            None => format!("a row of {table} refers to a row of {parent} that does not exist"),
        })
        .collect())
}
