//! What a restored copy needs before a daemon may work with it.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::super::error::Result;
use super::browse::json_array;
use super::tally::JUDGE_RUNS;
use crate::clock::Clock;

/// The first schema in which runs count their jobs.
const SCHEMA_OF_LISTS: i64 = 4;

/// Makes a copy that was put in the place of a database ready: jobs that were running when it was taken become
/// pending, with nothing spent and no crash counted, or make room for the newer version that waited for them; the
/// incarnation and the fences are drawn anew, so that a version number that was rolled back never meets an old
/// idempotency key, and no process that an earlier daemon started holds a lease; what is counted is counted.
///
/// # Errors
/// The copy can't be opened or written.
pub async fn after_restore(path: &Path, clock: &dyn Clock) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(path).disable_statement_logging();
    let mut connection = options.connect().await?;
    let version = super::open::schema_version(&mut connection).await?;
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    make_ready(&mut tx, clock.now().as_millis()).await?;
    recount(&mut tx).await?;
    if version >= SCHEMA_OF_LISTS {
        recount_runs(&mut tx, clock.now().as_millis()).await?;
    }
    tx.commit().await?;
    connection.close().await?;
    Ok(())
}

/// Ends what belonged to the daemons before, and draws anew what they handed out.
pub(super) async fn make_ready(tx: &mut SqliteConnection, now: i64) -> Result<()> {
    sqlx::raw_sql(include_str!("sql/make_ready.sql")).execute(&mut *tx).await?;
    sqlx::query(include_str!("sql/supersede_waiting.sql")).bind(now).execute(&mut *tx).await?;
    sqlx::query("UPDATE boots SET stopped_at = ? WHERE stopped_at IS NULL").bind(now).execute(&mut *tx).await?;
    sqlx::query(
        "INSERT INTO kv (key, value, updated_at) VALUES ('ingestd.incarnation', lower(hex(randomblob(16))), ?)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
    )
    .bind(now)
    .execute(tx)
    .await?;
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

/// Replaces what runs over lists say of their open jobs, and raises what they say of the others to what is there. One
/// that ends by it ends now, in milliseconds.
pub(super) async fn recount_runs(tx: &mut SqliteConnection, now: i64) -> Result<()> {
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
    sqlx::query(JUDGE_RUNS).bind(json_array(&runs)).bind(now).execute(tx).await?;
    Ok(())
}
