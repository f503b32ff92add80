//! Counts by deltas: what a transaction moved, written once before its commit.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;

use super::super::error::Result;
use super::bulk::Bulk;
use super::catalog::Catalog;
use crate::clock::Timestamp;
use crate::job::StateName;

/// A slot of the rates, in milliseconds.
pub(super) const RATE_SLOT_MS: i64 = 10_000;

static NEW_COUNTERS: Bulk = Bulk::new(include_str!("sql/new_counters.sql"), 3);
static COUNT_JOBS: Bulk = Bulk::new(include_str!("sql/count_jobs.sql"), 4);
static COUNT_ENDS: Bulk = Bulk::new(include_str!("sql/count_ends.sql"), 6);

/// Everything that counting runs.
#[cfg(test)]
pub(super) static STATEMENTS: [&Bulk; 3] = [&NEW_COUNTERS, &COUNT_JOBS, &COUNT_ENDS];

/// A counter's key: pipeline, state, level.
pub(super) type Counter = (i64, &'static str, i64);

/// What happened in a transaction.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By pipeline, state and level.
    jobs: BTreeMap<Counter, i64>,
    /// By slot and pipeline: completed, failed, retried, busy milliseconds.
    ends: BTreeMap<(i64, i64), [i64; 4]>,
    leasable: bool,
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

    /// Writes the deltas.
    pub(super) async fn write(&self, tx: &mut SqliteConnection, catalog: &mut Catalog) -> Result<()> {
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
        Ok(())
    }
}
