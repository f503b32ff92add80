//! Removing what is old, in batches that are chosen first and removed by their numbers.
//!
//! 1. Only final jobs go, found by `jobs_final`, and the counters with them in the same transaction. `taken` stays:
//!    a pruned job's file never looks new.
//! 2. The history goes from its lowest numbers on, which are the oldest; the output goes with its execution.
//! 3. A source goes once it was gone for long and no job is left of it, and with it what was taken of it.

use sqlx::sqlite::SqliteConnection;

use super::super::error::{Result, StoreError};
use super::super::upkeep::Prunable;
use super::browse::json_array;
use crate::job::StateName;

/// ?1: the state, ?2: the cutoff, ?3: at most so many. The second condition on the state is what lets the partial
/// index be used, because SQLite plans before it knows ?1.
const OLD_JOBS: &str = "
    SELECT id FROM jobs INDEXED BY jobs_final
    WHERE state = ?1 AND state IN ('completed', 'failed', 'cancelled', 'skipped') AND finished_at < ?2
    ORDER BY finished_at LIMIT ?3";

/// ?1: the jobs, ?2: their state.
const UNCOUNT_JOBS: &str = "
    UPDATE counters SET n = n - gone.n
    FROM (SELECT pipeline, priority, count(*) AS n
          FROM jobs WHERE id IN (SELECT value FROM json_each(?1)) GROUP BY pipeline, priority) AS gone
    WHERE counters.pipeline = gone.pipeline AND counters.state = ?2 AND counters.priority = gone.priority";

/// ?1: the cutoff, ?2: how many of the oldest rows are looked at.
const OLD_ATTEMPTS: &str = "
    DELETE FROM attempts
    WHERE id IN (SELECT id FROM (SELECT id, finished_at FROM attempts ORDER BY id LIMIT ?2) WHERE finished_at < ?1)
    RETURNING job, seq, outcome";

/// ?1: pairs of a job and the number of an execution.
const OUTPUTS: &str = "
    DELETE FROM outputs WHERE (job, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))";

/// ?1: the cutoff, ?2: at most so many.
const OLD_SOURCES: &str = "
    SELECT id FROM sources INDEXED BY sources_gone
    WHERE gone_at < ?1 AND gone_at IS NOT NULL AND presence <> 'present'
        AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_source WHERE jobs.source = sources.id)
    ORDER BY gone_at LIMIT ?2";

/// ?1: the cutoff, ?2: at most so many.
const OLD_RATES: &str = "
    DELETE FROM rates
    WHERE (slot, pipeline) IN (SELECT slot, pipeline FROM rates WHERE slot < ?1 ORDER BY slot, pipeline LIMIT ?2)";

/// ?1: the cutoff, ?2: at most so many. The newest start may be a daemon that lives; one whose leases were not taken
/// back yet is still needed.
const OLD_BOOTS: &str = "
    DELETE FROM boots
    WHERE id IN (SELECT id FROM boots
                 WHERE id < (SELECT max(id) FROM boots) AND coalesce(stopped_at, started_at) < ?1
                     AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_leased WHERE jobs.boot = boots.id)
                 ORDER BY id LIMIT ?2)";

/// Removes one batch and answers how many rows of the kind went.
pub(super) async fn batch(tx: &mut SqliteConnection, what: Prunable, cutoff: i64, limit: i64) -> Result<u64> {
    match what {
        Prunable::Jobs(state) => jobs(tx, final_state(state)?, cutoff, limit).await,
        Prunable::Attempts => attempts(tx, cutoff, limit).await,
        Prunable::Sources => sources(tx, cutoff, limit).await,
        Prunable::Rates => delete(tx, OLD_RATES, cutoff, limit).await,
        Prunable::Boots => delete(tx, OLD_BOOTS, cutoff, limit).await,
    }
}

/// How many rows of the kind would go in the end.
pub(super) async fn count(reader: &mut SqliteConnection, what: Prunable, cutoff: i64) -> Result<u64> {
    let counted = match what {
        Prunable::Jobs(state) => sqlx::query_scalar(
            "SELECT count(*) FROM jobs INDEXED BY jobs_final
                 WHERE state = ?2 AND state IN ('completed', 'failed', 'cancelled', 'skipped') AND finished_at < ?1",
        )
        .bind(cutoff)
        .bind(final_state(state)?),
        Prunable::Attempts => sqlx::query_scalar("SELECT count(*) FROM attempts WHERE finished_at < ?1").bind(cutoff),
        Prunable::Sources => sqlx::query_scalar(
            "SELECT count(*) FROM sources INDEXED BY sources_gone
             WHERE gone_at < ?1 AND gone_at IS NOT NULL AND presence <> 'present'
                 AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_source WHERE jobs.source = sources.id)",
        )
        .bind(cutoff),
        Prunable::Rates => sqlx::query_scalar("SELECT count(*) FROM rates WHERE slot < ?1").bind(cutoff),
        Prunable::Boots => sqlx::query_scalar(
            "SELECT count(*) FROM boots
             WHERE id < (SELECT max(id) FROM boots) AND coalesce(stopped_at, started_at) < ?1
                 AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_leased WHERE jobs.boot = boots.id)",
        )
        .bind(cutoff),
    };
    Ok(counted.fetch_one(reader).await?)
}

fn final_state(state: StateName) -> Result<&'static str> {
    if state.is_final() {
        return Ok(state.as_str());
    }
    Err(StoreError::Refused(format!("{state} jobs are never pruned: they are not over")))
}

async fn jobs(tx: &mut SqliteConnection, state: &'static str, cutoff: i64, limit: i64) -> Result<u64> {
    let old: Vec<i64> = sqlx::query_scalar(OLD_JOBS).bind(state).bind(cutoff).bind(limit).fetch_all(&mut *tx).await?;
    if old.is_empty() {
        return Ok(0);
    }
    let old = json_array(&old);
    sqlx::query(UNCOUNT_JOBS).bind(&old).bind(state).execute(&mut *tx).await?;
    let done = sqlx::query("DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?1))")
        .bind(&old)
        .execute(&mut *tx)
        .await?;
    Ok(done.rows_affected())
}

async fn attempts(tx: &mut SqliteConnection, cutoff: i64, limit: i64) -> Result<u64> {
    let gone: Vec<(i64, i64, String)> =
        sqlx::query_as(OLD_ATTEMPTS).bind(cutoff).bind(limit).fetch_all(&mut *tx).await?;
    // A `reopened` row shares the number of another execution, whose output is not its own.
    let executions: Vec<_> =
        gone.iter().filter(|(_, _, outcome)| outcome != "reopened").map(|(j, s, _)| [*j, *s]).collect();
    let executions = serde_json::Value::from_iter(executions.into_iter().map(|pair| pair.to_vec())).to_string();
    sqlx::query(OUTPUTS).bind(executions).execute(&mut *tx).await?;
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

async fn sources(tx: &mut SqliteConnection, cutoff: i64, limit: i64) -> Result<u64> {
    let old: Vec<i64> = sqlx::query_scalar(OLD_SOURCES).bind(cutoff).bind(limit).fetch_all(&mut *tx).await?;
    if old.is_empty() {
        return Ok(0);
    }
    let old = json_array(&old);
    sqlx::query("DELETE FROM taken WHERE source IN (SELECT value FROM json_each(?1))")
        .bind(&old)
        .execute(&mut *tx)
        .await?;
    let done = sqlx::query("DELETE FROM sources WHERE id IN (SELECT value FROM json_each(?1))")
        .bind(&old)
        .execute(&mut *tx)
        .await?;
    Ok(done.rows_affected())
}

async fn delete(tx: &mut SqliteConnection, sql: &'static str, cutoff: i64, limit: i64) -> Result<u64> {
    Ok(sqlx::query(sql).bind(cutoff).bind(limit).execute(tx).await?.rows_affected())
}
