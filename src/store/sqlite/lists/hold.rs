//! The jobs of paused runs are held back.
//!
//! 1. A pause only says so on the run. The lease sets aside what stands at the heads of its ranges of such runs
//!    ([`set_aside`]), a bounded number each time: these leave the index of what is due, and what stands behind them comes
//!    to the head.
//! 2. A resume gives back what was set aside, in slices, so that the writer is never away for long.
//! 3. A start gives back what nobody gave back, and goes on with cancelling.

use sqlx::sqlite::SqliteConnection;

use super::super::super::error::Result;
use super::super::{SqliteStore, wire};
use super::steer::Hand;
use crate::clock::Timestamp;
use crate::run::RunId;

/// Jobs of one level that are set aside at once, beside the heads themselves.
const AHEAD: i64 = 1_000;
/// Jobs that are given back at once.
const SLICE: i64 = 4_000;

/// ?1: jobs. Those of paused runs are held back.
const HOLD: &str = "
    UPDATE jobs SET held_by = run
    WHERE id IN (SELECT value FROM json_each(?1)) AND run IN (SELECT id FROM runs WHERE state = 'paused')";

/// ?1: a pipeline, ?2: a level, ?3: now, ?4: how many of the jobs that come next are looked at.
const HOLD_AHEAD: &str = "
    UPDATE jobs SET held_by = run
    WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_due
                 WHERE pipeline = ?1 AND priority = ?2 AND run_at <= ?3
                     AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2
                 ORDER BY run_at, id LIMIT ?4 + 0)
        AND run IN (SELECT id FROM runs WHERE state = 'paused')";

/// ?1: a run, ?2: at most so many.
const RELEASE: &str = "
    UPDATE jobs SET held_by = NULL
    WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_held WHERE held_by = ?1 LIMIT ?2 + 0)
        AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = ?1 AND runs.state = 'paused')";

/// ?1: a run. The next one for which jobs are held back.
const NEXT_HELD: &str = "SELECT min(held_by) FROM jobs WHERE held_by > ?1 AND held_by IS NOT NULL";

/// Everything that goes by an index.
#[cfg(test)]
pub(in crate::store::sqlite) const STATEMENTS: [(&str, &str); 4] = [
    (HOLD, "INDEX runs_paused"),
    (HOLD_AHEAD, "INDEX jobs_due (pipeline=? AND priority=? AND run_at<?)"),
    (RELEASE, "INDEX jobs_held (held_by=?)"),
    (NEXT_HELD, "INDEX jobs_held (held_by>?)"),
];

/// Sets aside those of the heads of a pipeline's ranges that are of paused runs, and more of them behind; answers whether
/// there were any. `heads`: numbers and levels.
pub(in crate::store::sqlite) async fn set_aside(
    tx: &mut SqliteConnection,
    pipeline: i64,
    heads: &[(i64, i64)],
    now: Timestamp,
) -> Result<bool> {
    let ids: Vec<i64> = heads.iter().map(|head| head.0).collect();
    if sqlx::query(HOLD).bind(wire::rows(&ids)?).execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let mut levels: Vec<i64> = heads.iter().map(|head| head.1).collect();
    levels.sort_unstable();
    levels.dedup();
    for level in levels {
        sqlx::query(HOLD_AHEAD).bind(pipeline).bind(level).bind(now.as_millis()).bind(AHEAD).execute(&mut *tx).await?;
    }
    Ok(true)
}

/// What a start finds undone: jobs that are held back for runs that are not paused, and runs that were being cancelled.
pub(in crate::store::sqlite) async fn repair(store: &SqliteStore) -> Result<()> {
    let mut after = i64::MIN;
    while let Some(run) = sqlx::query_scalar::<_, Option<i64>>(NEXT_HELD).bind(after).fetch_one(store.readers()).await?
    {
        store.release(RunId(run)).await?;
        after = run;
    }
    let cancelling: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM runs WHERE cancelling IS NOT NULL").fetch_all(store.readers()).await?;
    for run in cancelling {
        // Also what ran when its daemon died waits by now.
        store.steer_run(RunId(run), Hand::Cancel).await?;
        store.cancel_waiting(RunId(run), usize::MAX).await?;
    }
    Ok(())
}

impl SqliteStore {
    /// Gives back the jobs that are held back for a run, unless it is paused.
    pub(super) async fn release(&self, id: RunId) -> Result<()> {
        loop {
            let given = self
                .write_counted(move |tx, tally| {
                    Box::pin(async move {
                        tally.unblocked();
                        Ok(sqlx::query(RELEASE).bind(id.0).bind(SLICE).execute(tx).await?.rows_affected())
                    })
                })
                .await?;
            if given < SLICE.unsigned_abs() {
                return Ok(());
            }
        }
    }
}
