//! Counts by deltas: what a transaction moved, written once before its commit.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;

use super::super::error::Result;
use super::wire;
use crate::clock::Timestamp;
use crate::job::StateName;

/// A slot of the rates, in milliseconds.
pub(super) const RATE_SLOT_MS: i64 = 10_000;

/// What happened in a transaction.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By pipeline, state and level.
    jobs: BTreeMap<(i64, &'static str, i64), i64>,
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
    pub(super) async fn write(&self, tx: &mut SqliteConnection) -> Result<()> {
        let jobs: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, n)| **n != 0)
            .map(|((pipeline, state, priority), n)| (pipeline, state, priority, n))
            .collect();
        if !jobs.is_empty() {
            // The row comes into being at zero and is then changed, because the CHECK sees what an upsert would insert.
            let rows = wire::rows(&jobs)?;
            sqlx::query(
                "INSERT OR IGNORE INTO counters (pipeline, state, priority, n)
                 SELECT value ->> 0, value ->> 1, value ->> 2, 0 FROM json_each(?)",
            )
            .bind(&rows)
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "UPDATE counters SET n = n + d.delta
                 FROM (SELECT value ->> 0 AS p, value ->> 1 AS s, value ->> 2 AS l, value ->> 3 AS delta FROM json_each(?)) AS d
                 WHERE pipeline = d.p AND state = d.s AND priority = d.l",
            )
            .bind(&rows)
            .execute(&mut *tx)
            .await?;
        }
        let ends: Vec<_> = self.ends.iter().map(|((slot, pipeline), counts)| (slot, pipeline, counts)).collect();
        if !ends.is_empty() {
            sqlx::query(
                "INSERT INTO rates (slot, pipeline, completed, failed, retried, busy_ms)
                 SELECT value ->> 0, value ->> 1, value ->> '$[2][0]', value ->> '$[2][1]', value ->> '$[2][2]', value ->> '$[2][3]'
                 FROM json_each(?) WHERE true
                 ON CONFLICT (slot, pipeline) DO UPDATE SET
                    completed = completed + excluded.completed, failed = failed + excluded.failed,
                    retried = retried + excluded.retried, busy_ms = busy_ms + excluded.busy_ms",
            )
            .bind(wire::rows(&ends)?)
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }
}
