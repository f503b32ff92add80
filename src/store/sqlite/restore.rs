//! What a restored copy needs before a daemon may work with it.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::super::error::Result;
use super::browse::json_array;
use super::tally::JUDGE_RUNS;
use crate::clock::Clock;

/// Makes a copy that was put in the place of a database ready: jobs that were running when it was taken become
/// pending, with nothing spent and no crash counted; the incarnation is drawn anew, so that a version number that
/// was rolled back never meets an old idempotency key; counters are counted.
///
/// # Errors
/// The copy can't be opened or written.
pub async fn after_restore(path: &Path, clock: &dyn Clock) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(path).disable_statement_logging();
    let mut connection = options.connect().await?;
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let now = clock.now().as_millis();
    sqlx::query("UPDATE jobs SET state = 'pending', boot = NULL, lease_deadline = NULL WHERE state = 'running'")
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE jobs SET blocked_by = NULL WHERE blocked_by IS NOT NULL").execute(&mut *tx).await?;
    sqlx::query("UPDATE boots SET stopped_at = ? WHERE stopped_at IS NULL").bind(now).execute(&mut *tx).await?;
    sqlx::query("UPDATE kv SET value = lower(hex(randomblob(16))), updated_at = ? WHERE key = 'ingestd.incarnation'")
        .bind(now)
        .execute(&mut *tx)
        .await?;
    recount(&mut tx).await?;
    tx.commit().await?;
    connection.close().await?;
    Ok(())
}

/// Replaces the counters by what the jobs say.
pub(super) async fn recount(tx: &mut SqliteConnection) -> Result<()> {
    sqlx::query("DELETE FROM counters").execute(&mut *tx).await?;
    sqlx::query(
        "INSERT INTO counters (pipeline, state, priority, n)
         SELECT pipeline, state, priority, count(*) FROM jobs GROUP BY 1, 2, 3",
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Replaces what runs over lists say of their open jobs, and raises what they say of the others to what is there.
pub(super) async fn recount_runs(tx: &mut SqliteConnection) -> Result<()> {
    sqlx::query(
        "WITH told AS (SELECT run, count(*) FILTER (WHERE state IN ('pending', 'running', 'retrying')) AS open,
                              count(*) FILTER (WHERE state = 'completed') AS completed,
                              count(*) FILTER (WHERE state = 'failed') AS failed,
                              count(*) FILTER (WHERE state = 'skipped') AS skipped,
                              count(*) FILTER (WHERE state = 'cancelled') AS cancelled
                       FROM jobs WHERE run IS NOT NULL GROUP BY run)
         UPDATE runs SET jobs_open = coalesce(t.open, 0), jobs_completed = max(r.jobs_completed, coalesce(t.completed, 0)),
                jobs_failed = max(r.jobs_failed, coalesce(t.failed, 0)),
                jobs_skipped = max(r.jobs_skipped, coalesce(t.skipped, 0)),
                jobs_cancelled = max(r.jobs_cancelled, coalesce(t.cancelled, 0))
         FROM runs AS r LEFT JOIN told AS t ON t.run = r.id
         WHERE runs.id = r.id AND runs.list IS NOT NULL",
    )
    .execute(&mut *tx)
    .await?;
    let runs: Vec<i64> = sqlx::query_scalar("SELECT id FROM runs").fetch_all(&mut *tx).await?;
    sqlx::query(JUDGE_RUNS).bind(json_array(&runs)).bind(0_i64).execute(tx).await?;
    Ok(())
}
