//! A run begins, changes hands, and comes to the end of its input.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};

use super::super::super::error::{Result, StoreError};
use super::super::super::lists::{Begun, Holder, NewListRun, Unfinished};
use super::super::runs::run;
use super::super::tally::Tally;
use super::super::wire;
use crate::clock::Timestamp;
use crate::run::{InputRead, RunId, RunInput, RunType};

/// ?1: the list. The run of it that is read, where there may be one only.
const READING: &str = "
    SELECT id FROM runs INDEXED BY runs_reading
    WHERE list = ?1 AND reading = 1 AND state IN ('running', 'paused') AND list IS NOT NULL
        AND (name IS NOT NULL OR input_kind = 'file')";

/// ?1: the list's name. Runs of it whose input was not read to its end.
const UNFINISHED: &str = "
    SELECT * FROM runs INDEXED BY runs_unfinished
    WHERE list = (SELECT id FROM lists WHERE name = ?1) AND reading = 1 AND state IN ('running', 'paused')
        AND list IS NOT NULL
    ORDER BY id DESC LIMIT 1000";

/// ?1: the run, ?2: who held it, ?3: who does from now on, ?4: now.
const TAKE_OVER: &str = "
    UPDATE runs SET holder = ?3, state = 'running', updated_at = ?4
    WHERE id = ?1 AND holder = ?2 AND reading = 1 AND state IN ('running', 'paused')";

/// ?1: the run, ?2: who reads, ?3: now.
const END_INPUT: &str = "
    UPDATE runs SET reading = 0, total = processed, current_path = NULL, updated_at = ?3
    WHERE id = ?1 AND holder = ?2 AND reading = 1 AND state = 'running'";

/// ?1: the run, ?2: now. A list that only was looked at was never read.
const NOTE_FIRST_READ: &str = "
    UPDATE lists SET first_read_at = ?2
    WHERE first_read_at IS NULL AND id = (SELECT list FROM runs WHERE id = ?1 AND NOT dry_run)";

/// The reads that go by an index.
#[cfg(test)]
pub(in crate::store::sqlite) const STATEMENTS: [(&str, &str); 2] =
    [(READING, "INDEX runs_reading (list=?)"), (UNFINISHED, "INDEX runs_unfinished (list=?)")];

pub(super) async fn begin(tx: &mut SqliteConnection, new: &NewListRun, now: Timestamp) -> Result<Begun> {
    let (kind, path, read) = match &new.input {
        RunInput::File { path, read } => ("file", Some(wire::path_bytes(path)), *read),
        RunInput::Stdin { read } => ("stdin", None, *read),
        RunInput::Watch { .. } => return Err(StoreError::Refused("a watch is no list".to_owned())),
    };
    let (list, is_known) = list(tx, &new.list).await?;
    if new.name.is_some() || kind == "file" {
        let reading: Option<i64> = sqlx::query_scalar(READING).bind(list).fetch_optional(&mut *tx).await?;
        if let Some(id) = reading {
            return Ok(Begun::Active(RunId(id)));
        }
    }
    let run_type = if is_known { RunType::Incremental } else { RunType::Initial };
    let id = insert(tx, new, list, run_type, (kind, path, read), now).await?;
    Ok(Begun::Run { id: RunId(id), run_type })
}

/// The number of a list, and whether a run of it came to the end of its input.
async fn list(tx: &mut SqliteConnection, name: &str) -> Result<(i64, bool)> {
    sqlx::query("INSERT INTO lists (name) VALUES (?1) ON CONFLICT (name) DO NOTHING")
        .bind(name)
        .execute(&mut *tx)
        .await?;
    let sql = "SELECT id, first_read_at IS NOT NULL FROM lists WHERE name = ?1";
    Ok(sqlx::query_as(sql).bind(name).fetch_one(tx).await?)
}

async fn insert(
    tx: &mut SqliteConnection,
    new: &NewListRun,
    list: i64,
    run_type: RunType,
    (kind, path, read): (&str, Option<&[u8]>, InputRead),
    now: Timestamp,
) -> Result<i64> {
    let rows = sqlx::query(
        "INSERT INTO runs (name, type, state, input_kind, input_path, pipeline, newest_job, started_at, updated_at,
                           list, dry_run, delete_missing, reading, holder, position, input_bytes, input_digest)
         VALUES (?1, ?2, 'running', ?3, ?4, ?5, 0, ?6, ?6, ?7, ?8, ?9, 1, ?10, ?11, ?12, ?13)
         RETURNING id",
    )
    .bind(&new.name)
    .bind(run_type.as_str())
    .bind(kind)
    .bind(path)
    .bind(&new.pipeline)
    .bind(now.as_millis())
    .bind(list)
    .bind(new.dry_run)
    .bind(new.delete_missing)
    .bind(&new.holder.0)
    .bind(wire::number(read.lines))
    .bind(wire::number(read.bytes))
    .bind(read.digest.map(|digest| digest.to_vec()))
    .fetch_all(tx)
    .await?;
    let row = rows.first().ok_or_else(|| StoreError::Other("a run was not written".to_owned()))?;
    Ok(row.try_get(0)?)
}

pub(super) async fn unfinished(readers: &SqlitePool, list: &str) -> Result<Vec<Unfinished>> {
    let rows = sqlx::query(UNFINISHED).bind(list).fetch_all(readers).await?;
    rows.iter().map(unfinished_of).collect()
}

pub(super) async fn unfinished_run(readers: &SqlitePool, id: RunId) -> Result<Option<Unfinished>> {
    let sql =
        "SELECT * FROM runs WHERE id = ?1 AND list IS NOT NULL AND reading = 1 AND state IN ('running', 'paused')";
    let row = sqlx::query(sql).bind(id.0).fetch_optional(readers).await?;
    row.as_ref().map(unfinished_of).transpose()
}

fn unfinished_of(row: &SqliteRow) -> Result<Unfinished> {
    let holder: Option<String> = row.try_get("holder")?;
    Ok(Unfinished {
        run: run(row)?,
        holder: Holder(holder.unwrap_or_default()),
        delete_missing: row.try_get("delete_missing")?,
    })
}

pub(super) async fn take_over(
    tx: &mut SqliteConnection,
    id: RunId,
    from: &Holder,
    to: &Holder,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query(TAKE_OVER).bind(id.0).bind(&from.0).bind(&to.0).bind(now.as_millis()).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

/// From here on the verdict follows the jobs: it is given at once where none is open.
pub(super) async fn end_input(
    tx: &mut SqliteConnection,
    id: RunId,
    holder: &Holder,
    now: Timestamp,
    tally: &mut Tally,
) -> Result<bool> {
    let done = sqlx::query(END_INPUT).bind(id.0).bind(&holder.0).bind(now.as_millis()).execute(&mut *tx).await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(NOTE_FIRST_READ).bind(id.0).bind(now.as_millis()).execute(tx).await?;
    tally.judge(id.0);
    Ok(true)
}
