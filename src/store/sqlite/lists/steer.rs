//! A person's hand on a run over a list.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::super::error::Result;
use super::super::super::lists::RunSteered;
use super::super::enqueue::parse;
use super::super::tally::Tally;
use super::super::{SqliteStore, wire};
use crate::clock::Timestamp;
use crate::job::StateName;
use crate::run::{RunId, RunState};

/// Jobs of a run that are looked at in one transaction.
const SLICE: i64 = 2_000;

#[derive(Clone, Copy, Debug)]
pub(super) enum Hand {
    Pause,
    Resume,
    Cancel,
    GiveUp,
}

/// ?1: the run, ?2: now. From here on nobody reads it, and its jobs are looked through from the newest on.
const CANCEL: &str = "
    UPDATE runs SET state = 'cancelled', reading = 0, finished_at = coalesce(finished_at, ?2), updated_at = ?2,
        current_path = NULL, cancelling = 9223372036854775807
    WHERE id = ?1";

/// ?1: the run, ?2: now. From here on nobody reads it; its jobs go their way.
const GIVE_UP: &str = "
    UPDATE runs SET state = 'cancelled', reading = 0, finished_at = ?2, updated_at = ?2, current_path = NULL
    WHERE id = ?1";

/// ?1: the run, ?2: below this number, ?3: at most so many.
const NEWEST_JOBS: &str = "
    SELECT j.id, j.pipeline, j.priority, j.state, d.job IS NOT NULL AS moving
    FROM jobs AS j INDEXED BY jobs_run LEFT JOIN dispositions AS d ON d.job = j.id
    WHERE j.run = ?1 AND j.id < ?2
    ORDER BY j.id DESC LIMIT ?3 + 0";

/// ?1: the run, whose jobs are looked through: from the newest on again if some of them run.
const WHAT_RUNS: &str = "
    UPDATE runs SET cancelling = iif(
        EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_running WHERE state = 'running' AND run = ?1),
        9223372036854775807, NULL)
    WHERE id = ?1";

/// ?1: jobs, ?2: now.
const CANCEL_JOBS: &str = "
    UPDATE jobs SET state = 'cancelled', finished_at = ?2, blocked_by = NULL, held_by = NULL
    WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ('pending', 'retrying')";

impl SqliteStore {
    pub(super) async fn steer_run(&self, id: RunId, hand: Hand) -> Result<RunSteered> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let now = clock.now();
            Box::pin(async move { steer(tx, id, hand, now).await })
        })
        .await
    }

    /// Cancels what waits of a run that was cancelled, in slices.
    pub(in crate::store::sqlite) async fn cancel_waiting(&self, id: RunId, limit: usize) -> Result<u64> {
        let (mut cancelled, limit) = (0, u64::try_from(limit).unwrap_or(u64::MAX));
        while cancelled < limit {
            let clock = self.clock.clone();
            let most = i64::try_from(limit - cancelled).unwrap_or(i64::MAX).min(SLICE);
            let slice = self
                .write_counted(move |tx, tally| {
                    let now = clock.now();
                    Box::pin(async move { cancel_slice(tx, id, most, now, tally).await })
                })
                .await?;
            let Some(slice) = slice else {
                // What could not be cancelled because its file is on its way is brought to its end.
                self.release(id).await?;
                break;
            };
            cancelled += slice;
        }
        Ok(cancelled)
    }
}

async fn steer(tx: &mut SqliteConnection, id: RunId, hand: Hand, now: Timestamp) -> Result<RunSteered> {
    let found: Option<(String, bool)> = sqlx::query_as("SELECT state, list IS NOT NULL FROM runs WHERE id = ?1")
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await?;
    let Some((state, is_list)) = found else { return Ok(RunSteered::Unknown) };
    let state: RunState = parse(&state)?;
    let sql = match (hand, state) {
        _ if !is_list => return Ok(RunSteered::Refused(state)),
        (Hand::Pause, RunState::Paused) | (Hand::Resume, RunState::Running) => return Ok(RunSteered::Done),
        (Hand::Pause, RunState::Running) => "UPDATE runs SET state = 'paused', updated_at = ?2 WHERE id = ?1",
        (Hand::Resume, RunState::Paused) => "UPDATE runs SET state = 'running', updated_at = ?2 WHERE id = ?1",
        (Hand::Cancel, RunState::Running | RunState::Paused | RunState::Cancelled) => CANCEL,
        (Hand::GiveUp, RunState::Running | RunState::Paused) => GIVE_UP,
        (Hand::GiveUp, RunState::Cancelled) => return Ok(RunSteered::Done),
        _ => return Ok(RunSteered::Refused(state)),
    };
    sqlx::query(sql).bind(id.0).bind(now.as_millis()).execute(tx).await?;
    Ok(RunSteered::Done)
}

/// Looks at the next `most` jobs of a run; answers how many were cancelled, or `None` if there is nothing left to look
/// at.
async fn cancel_slice(
    tx: &mut SqliteConnection,
    id: RunId,
    most: i64,
    now: Timestamp,
    tally: &mut Tally,
) -> Result<Option<u64>> {
    let below: Option<Option<i64>> =
        sqlx::query_scalar("SELECT cancelling FROM runs WHERE id = ?1").bind(id.0).fetch_optional(&mut *tx).await?;
    let Some(below) = below.flatten() else { return Ok(None) };
    let rows = sqlx::query(NEWEST_JOBS).bind(id.0).bind(below).bind(most).fetch_all(&mut *tx).await?;
    let mut waiting: Vec<i64> = Vec::new();
    let mut last = None;
    for row in &rows {
        let job: i64 = row.try_get("id")?;
        let state: StateName = parse(row.try_get("state")?)?;
        last = Some(job);
        if state.is_waiting() && !row.try_get::<bool, _>("moving")? {
            tally.moved(row.try_get("pipeline")?, row.try_get("priority")?, state, StateName::Cancelled);
            tally.of_run(Some(id.0), Some(state), StateName::Cancelled);
            waiting.push(job);
        }
    }
    sqlx::query(CANCEL_JOBS).bind(wire::rows(&waiting)?).bind(now.as_millis()).execute(&mut *tx).await?;
    if last.is_none() {
        // What runs now is stopped by whoever cancels. Should it outlive the daemon, a start looks again.
        sqlx::query(WHAT_RUNS).bind(id.0).execute(tx).await?;
        return Ok(None);
    }
    sqlx::query("UPDATE runs SET cancelling = ?2 WHERE id = ?1").bind(id.0).bind(last).execute(tx).await?;
    Ok(Some(u64::try_from(waiting.len()).unwrap_or(u64::MAX)))
}

/// What finds its rows by an index.
#[cfg(test)]
pub(in crate::store::sqlite) const STATEMENTS: [(&str, &str); 1] = [(NEWEST_JOBS, "INDEX jobs_run (run=? AND id<?)")];
