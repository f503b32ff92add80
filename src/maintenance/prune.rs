//! Removes rows by age: only final jobs, history, runs that are over, sources that vanished long ago, old rates and
//! starts. A batch is one short write, so that the queue's own writes get in between.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::duty::{Context, Duty, Failure};
use super::{absent, content, spool};
use crate::clock::Timestamp;
use crate::config::{self, Retention};
use crate::job::StateName;
use crate::store::{Prunable, Upkeep};

/// Rows removed in one write.
const BATCH: u32 = 500;
/// The rates that people see look back a quarter of an hour; the rest serves a look at the last hour.
const RATES: Duration = Duration::from_hours(1);
/// Starts of the daemon, for looking into an incident of the last months.
const BOOTS: Duration = Duration::from_hours(90 * 24);

pub(super) struct Prune;

#[async_trait]
impl Duty for Prune {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn period(&self, _: &Context, settings: &config::Maintenance) -> Duration {
        settings.prune_interval
    }

    async fn run(&self, context: &Context, settings: &config::Maintenance) -> Result<Option<Value>, Failure> {
        let (upkeep, now) = (context.upkeep.as_ref(), context.clock.wall());
        let figures = prune_now(upkeep, &settings.retention, now, false).await?;
        let steps = upkeep.clock_steps().await?;
        let spool_files = spool::sweep(&context.spool, context.browse.as_ref(), steps.cutoff(now, spool::KEEP)).await?;
        let contents = content::sweep(&context.contents, upkeep, steps.cutoff(now, content::KEEP)).await?;
        if figures.total() + spool_files + contents > 0 {
            let rows = figures.total();
            tracing::info!(rows, spool_files, contents, "pruned what was older than its retention");
        }
        let mut value = json!(figures);
        value["spool_files"] = json!(spool_files);
        value["contents"] = json!(contents);
        Ok(Some(value))
    }
}

/// Rows removed, or, in a dry run, that would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PruneFigures {
    /// Completed jobs.
    pub completed: u64,
    /// Skipped jobs.
    pub skipped: u64,
    /// Cancelled jobs.
    pub cancelled: u64,
    /// Failed jobs.
    pub failed: u64,
    /// Rows of the history.
    pub attempts: u64,
    /// Sources that vanished.
    pub sources: u64,
    /// Runs.
    pub runs: u64,
    /// Slots of the rates.
    pub rates: u64,
    /// Starts of daemons.
    pub boots: u64,
}

impl PruneFigures {
    /// All of them.
    pub const fn total(&self) -> u64 {
        let jobs = self.completed + self.skipped + self.cancelled + self.failed;
        jobs + self.attempts + self.sources + self.runs + self.rates + self.boots
    }
}

/// Removes what is older at `now`, by the wall clock, than its retention, or only counts it. Steps of the clock make nothing
/// older.
///
/// # Errors
/// The store's; what was removed until then stays removed.
pub async fn prune_now(
    upkeep: &dyn Upkeep,
    retention: &Retention,
    now: Timestamp,
    dry_run: bool,
) -> Result<PruneFigures, Failure> {
    let mut figures = PruneFigures::default();
    if !dry_run {
        absent::note(upkeep).await?;
    }
    let steps = upkeep.clock_steps().await?;
    // Jobs come before sources, which go only when no job of theirs is left.
    let kinds = [
        (Prunable::Jobs(StateName::Completed), retention.completed, &mut figures.completed),
        (Prunable::Jobs(StateName::Skipped), retention.skipped, &mut figures.skipped),
        (Prunable::Jobs(StateName::Cancelled), retention.cancelled, &mut figures.cancelled),
        (Prunable::Jobs(StateName::Failed), retention.failed, &mut figures.failed),
        (Prunable::Attempts, retention.attempts, &mut figures.attempts),
        (Prunable::Sources, retention.sources, &mut figures.sources),
        (Prunable::Runs, retention.runs, &mut figures.runs),
        (Prunable::Rates, RATES, &mut figures.rates),
        (Prunable::Boots, BOOTS, &mut figures.boots),
    ];
    for (what, keep, count) in kinds {
        let cutoff = steps.cutoff(now, keep);
        *count = if dry_run { upkeep.prunable(what, cutoff).await? } else { remove(upkeep, what, cutoff).await? };
    }
    Ok(figures)
}

async fn remove(upkeep: &dyn Upkeep, what: Prunable, cutoff: Timestamp) -> Result<u64, Failure> {
    let mut removed = 0;
    loop {
        let batch = upkeep.prune(what, cutoff, BATCH).await?;
        removed += batch;
        if batch < u64::from(BATCH) {
            return Ok(removed);
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[tokio::test]
    async fn rows_go_in_batches_by_the_retention_of_their_kind() {
        let (context, store, clock) = fake::context();
        clock.advance(DAY * 8);
        let now = context.clock.now();
        store.fill(Prunable::Jobs(StateName::Completed), now.minus(DAY * 7 + DAY / 24), 1_200);
        store.fill(Prunable::Jobs(StateName::Completed), now.minus(DAY * 6), 3);
        store.fill(Prunable::Jobs(StateName::Failed), now.minus(DAY * 30), 5);
        store.fill(Prunable::Rates, now.minus(DAY), 7);
        let retention = Retention { failed: DAY * 20, ..config::Maintenance::default().retention };

        let dry = prune_now(&*store, &retention, now, true).await.unwrap();
        let done = prune_now(&*store, &retention, now, false).await.unwrap();
        assert_eq!(dry, done);
        assert_eq!((done.completed, done.failed, done.rates, done.total()), (1_200, 5, 7, 1_212));
        assert_eq!(store.rows(Prunable::Jobs(StateName::Completed)), 3);
        assert!(store.state().largest_batch <= BATCH);
        assert_eq!(prune_now(&*store, &retention, now, false).await.unwrap().total(), 0);
    }

    #[tokio::test]
    async fn a_step_of_the_wall_clock_prunes_nothing() {
        let (context, store, clock) = fake::context();
        let rows = || store.rows(Prunable::Jobs(StateName::Completed));
        for step in [400, -400, -30, 430] {
            store.fill(Prunable::Jobs(StateName::Completed), context.clock.wall(), 4);
            let to = context.clock.wall().as_millis() + step * crate::clock::millis(DAY);
            clock.step_wall(Timestamp::from_millis(to));
            store.state().clock_steps.add(context.clock.wall(), step * crate::clock::millis(DAY));
            Prune.run(&context, &config::Maintenance::default()).await.unwrap();
        }
        assert_eq!(rows(), 16);
        // A step that is longer ago than the retention is over: nothing is kept for ever.
        clock.advance(DAY * 8);
        Prune.run(&context, &config::Maintenance::default()).await.unwrap();
        assert_eq!(rows(), 0);
    }
}
