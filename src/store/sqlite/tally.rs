//! Counts by deltas: what a transaction moved, written once before its commit.
//!
//! The jobs of a run are counted on the run too, and with them its verdict is given, here and nowhere else: a run whose
//! input is read ends with its last open job, and goes on when one of them is opened again.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;

use super::super::error::Result;
use super::bulk::Bulk;
use super::catalog::Catalog;
use super::wire;
use crate::clock::Timestamp;
use crate::job::StateName;

/// A slot of the rates, in milliseconds.
pub(super) const RATE_SLOT_MS: i64 = 10_000;

static NEW_COUNTERS: Bulk = Bulk::new(include_str!("sql/new_counters.sql"), 3);
static COUNT_JOBS: Bulk = Bulk::new(include_str!("sql/count_jobs.sql"), 4);
static COUNT_ENDS: Bulk = Bulk::new(include_str!("sql/count_ends.sql"), 6);
static COUNT_OF_RUNS: Bulk = Bulk::new(include_str!("sql/count_of_runs.sql"), 6);
/// ?1: the runs, ?2: now. Those whose verdict follows from their counts.
pub(super) const JUDGE_RUNS: &str = include_str!("sql/judge_runs.sql");

/// Everything that counting runs.
#[cfg(test)]
pub(super) static STATEMENTS: [&Bulk; 4] = [&NEW_COUNTERS, &COUNT_JOBS, &COUNT_ENDS, &COUNT_OF_RUNS];

/// A counter's key: pipeline, state, level.
pub(super) type Counter = (i64, &'static str, i64);

/// What happened in a transaction.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By pipeline, state and level.
    jobs: BTreeMap<Counter, i64>,
    /// By slot and pipeline: completed, failed, retried, busy milliseconds.
    ends: BTreeMap<(i64, i64), [i64; 4]>,
    /// By run: open, completed, failed, skipped, cancelled.
    runs: BTreeMap<i64, [i64; 5]>,
    leasable: bool,
}

/// Where a state counts among the jobs of a run.
const fn place_in_run(state: StateName) -> usize {
    match state {
        StateName::Pending | StateName::Running | StateName::Retrying => 0,
        StateName::Completed => 1,
        StateName::Failed => 2,
        StateName::Skipped => 3,
        StateName::Cancelled => 4,
    }
}

/// How an execution counts in the rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Failed,
    Retried,
}

impl Tally {
    /// A job came into being.
    pub(super) fn born(&mut self, pipeline: i64, state: StateName, priority: i64) {
        self.add(pipeline, state, priority, 1);
    }

    /// A job went from one state to another.
    pub(super) fn moved(&mut self, pipeline: i64, priority: i64, from: StateName, to: StateName) {
        self.add(pipeline, from, priority, -1);
        self.add(pipeline, to, priority, 1);
    }

    /// `n` jobs left the table, or came (positive).
    pub(super) fn add(&mut self, pipeline: i64, state: StateName, priority: i64, n: i64) {
        *self.jobs.entry((pipeline, state.as_str(), priority)).or_default() += n;
        if n > 0 && state.is_waiting() {
            self.leasable = true;
        }
    }

    /// A job of a run, if it is of one, came into being (`from` is `None`) or went from one state to another.
    pub(super) fn of_run(&mut self, run: Option<i64>, from: Option<StateName>, to: StateName) {
        let Some(run) = run else { return };
        let counts = self.runs.entry(run).or_default();
        if let Some(from) = from {
            counts[place_in_run(from)] -= 1;
        }
        counts[place_in_run(to)] += 1;
    }

    /// The run's verdict may follow for another reason than its jobs: its input is read.
    pub(super) fn judge(&mut self, run: i64) {
        self.runs.entry(run).or_default();
    }

    /// Counts what another one counted, too.
    pub(super) fn absorb(&mut self, other: Self) {
        for (key, n) in other.jobs {
            *self.jobs.entry(key).or_default() += n;
        }
        for (key, counts) in other.ends {
            let mine = self.ends.entry(key).or_default();
            mine.iter_mut().zip(counts).for_each(|(mine, n)| *mine += n);
        }
        for (run, counts) in other.runs {
            let mine = self.runs.entry(run).or_default();
            mine.iter_mut().zip(counts).for_each(|(mine, n)| *mine += n);
        }
        self.leasable |= other.leasable;
    }

    /// A waiting job may be leased now that could not before.
    pub(super) fn unblocked(&mut self) {
        self.leasable = true;
    }

    /// An execution ended.
    pub(super) fn ended(&mut self, pipeline: i64, at: Timestamp, how: End, busy_ms: i64) {
        let slot = at.as_millis().div_euclid(RATE_SLOT_MS) * RATE_SLOT_MS;
        let counts = self.ends.entry((slot, pipeline)).or_default();
        counts[how as usize] += 1;
        counts[3] += busy_ms;
    }

    /// Whether jobs may have become leasable.
    pub(super) const fn is_leasable(&self) -> bool {
        self.leasable
    }

    /// Whether anything moved.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Writes the deltas, and what follows for runs.
    pub(super) async fn write(&self, tx: &mut SqliteConnection, catalog: &mut Catalog, now: Timestamp) -> Result<()> {
        let moved: Vec<_> = self.jobs.iter().filter(|(_, n)| **n != 0).map(|(key, n)| (*key, *n)).collect();
        let unknown: Vec<_> = moved.iter().map(|(key, _)| *key).filter(|key| !catalog.counts(key)).collect();
        NEW_COUNTERS
            .execute(tx, &[], &unknown, |values, (pipeline, state, priority)| {
                values.push(*pipeline).push(*state).push(*priority);
            })
            .await?;
        COUNT_JOBS
            .execute(tx, &[], &moved, |values, ((pipeline, state, priority), n)| {
                values.push(*pipeline).push(*state).push(*priority).push(*n);
            })
            .await?;
        catalog.count(unknown);
        let ends: Vec<_> = self.ends.iter().map(|(key, counts)| (*key, *counts)).collect();
        COUNT_ENDS
            .execute(tx, &[], &ends, |values, ((slot, pipeline), counts)| {
                values.push(*slot).push(*pipeline);
                for count in counts {
                    values.push(*count);
                }
            })
            .await?;
        self.write_runs(tx, now).await
    }

    async fn write_runs(&self, tx: &mut SqliteConnection, now: Timestamp) -> Result<()> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let moved: Vec<_> = self.runs.iter().filter(|(_, counts)| **counts != [0; 5]).collect();
        COUNT_OF_RUNS
            .execute(tx, &[], &moved, |values, (run, counts)| {
                values.push(**run);
                for count in *counts {
                    values.push(*count);
                }
            })
            .await?;
        let runs: Vec<i64> = self.runs.keys().copied().collect();
        sqlx::query(JUDGE_RUNS).bind(wire::rows(&runs)?).bind(now.as_millis()).execute(tx).await?;
        Ok(())
    }
}
