//! Leases without a worker: those of daemons that died, taken back at the next start, and those of this one
//! that were not renewed in time.
//!
//! Each is a crash of its job: nothing is spent, the crash counter rises, and after two in a row the job is a
//! suspect that runs alone. Only a crash while alone counts towards the end of its patience: so power cuts never
//! fail an innocent job, and a job that kills the daemon is found.
//!
//! Everything is set-based: a start after a crash costs a few statements, however many jobs were running.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::error::Result;
use super::super::lease::Claim;
use super::super::queue::Recovery;
use super::enqueue::parse;
use super::tally::Tally;
use super::wire;
use crate::clock::Timestamp;
use crate::job::StateName;

/// Whose leases are taken back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose<'a> {
    /// Every other boot's.
    DeadBoots {
        /// This one.
        but: i64,
    },
    /// These of this boot, which were given up.
    Lost {
        /// This one.
        boot: i64,
        /// Which.
        claims: &'a [Claim],
    },
}

/// The leases to take back, with what follows for each.
pub(super) const CRASHED: &str = "
    CREATE TEMP TABLE IF NOT EXISTS crashed
        (id INTEGER PRIMARY KEY, pipeline INTEGER, priority INTEGER, next_state TEXT,
         successor INTEGER, moving INTEGER, suspect INTEGER, run INTEGER)";

/// Newer versions go on where the crashed one is over.
pub(super) const UNBLOCK: &str = "
    UPDATE jobs SET blocked_by = NULL
    WHERE blocked_by IN (SELECT c.id FROM crashed AS c WHERE c.next_state <> 'pending')";

pub(super) async fn take_back(
    tx: &mut SqliteConnection,
    whose: Whose<'_>,
    max_crashes: u32,
    now: Timestamp,
    tally: &mut Tally,
) -> Result<Recovery> {
    gather(tx, whose, max_crashes).await?;
    sqlx::query(include_str!("sql/record_crashes.sql")).bind(now.as_millis()).execute(&mut *tx).await?;
    sqlx::query(include_str!("sql/release_crashed.sql")).execute(&mut *tx).await?;
    sqlx::query(include_str!("sql/end_crashed.sql")).bind(now.as_millis()).bind(max_crashes).execute(&mut *tx).await?;
    sqlx::query(UNBLOCK).execute(&mut *tx).await?;
    let recovery = summary(tx, now, tally).await?;
    count_of_runs(tx, tally).await?;
    sqlx::query("DELETE FROM crashed").execute(tx).await?;
    Ok(recovery)
}

/// Lists the leases to take back in [`CRASHED`].
async fn gather(tx: &mut SqliteConnection, whose: Whose<'_>, max_crashes: u32) -> Result<()> {
    sqlx::query(CRASHED).execute(&mut *tx).await?;
    let (boot, lost) = match whose {
        Whose::DeadBoots { but } => (but, None),
        Whose::Lost { boot, claims } => {
            let rows: Vec<_> = claims.iter().map(|claim| (claim.job, claim.fence)).collect();
            (boot, Some(wire::rows(&rows)?))
        }
    };
    sqlx::query(include_str!("sql/gather_crashed.sql")).bind(boot).bind(lost).bind(max_crashes).execute(tx).await?;
    Ok(())
}

/// Those that ended, on their runs.
async fn count_of_runs(tx: &mut SqliteConnection, tally: &mut Tally) -> Result<()> {
    let ended: Vec<(i64, String)> =
        sqlx::query_as("SELECT run, next_state FROM crashed WHERE run IS NOT NULL AND next_state <> 'pending'")
            .fetch_all(tx)
            .await?;
    for (run, state) in ended {
        tally.of_run(Some(run), Some(StateName::Running), parse(&state)?);
    }
    Ok(())
}

async fn summary(tx: &mut SqliteConnection, now: Timestamp, tally: &mut Tally) -> Result<Recovery> {
    let rows = sqlx::query(
        "SELECT pipeline, priority, next_state, count(*), sum(moving), sum(suspect) FROM crashed GROUP BY 1, 2, 3",
    )
    .fetch_all(tx)
    .await?;
    let mut recovery = Recovery { at_ms: now.as_millis(), ..Recovery::default() };
    for row in rows {
        let state: StateName = parse(&row.try_get::<String, _>(2)?)?;
        let (pipeline, priority, n): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
        tally.add(pipeline, StateName::Running, priority, -n);
        tally.add(pipeline, state, priority, n);
        let count = |column: usize| -> Result<u64> { Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0)) };
        let ended = count(3)?;
        recovery.dispositions += count(4)?;
        match state {
            StateName::Failed => recovery.failed += ended,
            StateName::Skipped => recovery.superseded += ended,
            _ => {
                recovery.released += ended;
                recovery.suspects += count(5)?;
            }
        }
    }
    Ok(recovery)
}
