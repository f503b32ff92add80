//! The store on SQLite.
//!
//! 1. SQLite has one writer, so the process has one: a task that owns the write connection. Whatever calls wait
//!    are written together, in one `BEGIN IMMEDIATE` transaction, and answered after its commit (`writer`).
//! 2. Calls of one kind become one statement: on the hot path the rows are parameters of a `VALUES` list (`bulk`),
//!    elsewhere one JSON array that `json_each` unrolls (`wire`).
//! 3. Reads have their own read-only connections and never wait for the writer.
//! 4. Numbers of new rows are given out here and not by SQLite, so that no insert has to be read back.
//! 5. Every change of a job's state is counted by a delta in the same transaction (`tally`).

mod accounts;
mod backlog;
mod batches;
mod boot;
mod browse;
mod bulk;
mod catalog;
mod check;
mod contents;
mod disposition;
mod effects;
mod enqueue;
mod errors;
#[cfg(test)]
mod fixture;
mod held;
mod kept;
mod lease;
mod lists;
mod look;
#[cfg(test)]
mod migrations;
mod open;
mod overview;
#[cfg(test)]
mod plans;
mod prune;
mod query;
mod queue;
mod recover;
mod restore;
mod row;
mod runs;
mod salvage;
mod settings;
mod settle;
mod sources;
mod stages;
mod stats;
mod steer;
mod steps;
mod tally;
mod upkeep;
mod values;
mod vanish;
mod ways;
mod wire;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::Notify;

use super::error::{Obstacle, Result, StoreError};
use crate::clock::Clock;
use crate::job::Incarnation;

pub use look::{foreign_log, has_foreign_log, refuse_emptied};
pub use open::{OpenMode, QueueRules, SUPPORTED_SCHEMA, migrate_in_place};
pub use restore::after_restore;
pub use salvage::{Salvage, salvage};
pub use upkeep::{verify, verify_whole};
pub use writer::WriterTask;

/// The queue, in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    readers: SqlitePool,
    writer: writer::Writer,
    incarnation: Incarnation,
    rules: std::sync::RwLock<QueueRules>,
    max_pending: std::sync::RwLock<Option<u64>>,
    /// The row of this daemon's start; unset in commands, which lease nothing.
    boot: OnceLock<i64>,
    held: held::Held,
    signals: Arc<Signals>,
}

/// Who is told after a commit.
#[derive(Debug, Default)]
pub(in crate::store::sqlite) struct Signals {
    /// Jobs may have become leasable.
    leasable: Arc<Notify>,
    /// Any job changed its state.
    activity: tokio::sync::watch::Sender<u64>,
    /// What was in the way of the last write.
    obstacle: tokio::sync::watch::Sender<Option<Obstacle>>,
    /// How often new jobs were refused because enough are waiting.
    refused: tokio::sync::watch::Sender<u64>,
}

impl SqliteStore {
    /// Where the database lives.
    pub fn database_path(&self) -> &Path {
        &self.path
    }

    /// Changes its number after every commit that moved a job.
    pub fn activity(&self) -> tokio::sync::watch::Receiver<u64> {
        self.signals.activity.subscribe()
    }

    /// What kept the last write from the disk; `None`: nothing.
    pub fn obstacle(&self) -> tokio::sync::watch::Receiver<Option<Obstacle>> {
        self.signals.obstacle.subscribe()
    }

    /// Changes its number whenever [`Queue::offer`](super::Queue::offer) refused new jobs.
    pub fn refused(&self) -> tokio::sync::watch::Receiver<u64> {
        self.signals.refused.subscribe()
    }

    /// Bounds the number of waiting jobs for [`Queue::offer`](super::Queue::offer); `None`: no bound.
    pub fn set_max_pending(&self, limit: Option<u64>) {
        *self.max_pending.write().unwrap_or_else(std::sync::PoisonError::into_inner) = limit;
    }

    /// Says that jobs may have become leasable for a reason outside the table, such as a resumed pipeline.
    pub fn nudge(&self) {
        self.signals.leasable.notify_waiters();
    }

    /// Replaces the rules that leasing and recovery go by, after a reload.
    pub fn set_rules(&self, rules: QueueRules) {
        *self.rules.write().unwrap_or_else(std::sync::PoisonError::into_inner) = rules;
    }

    /// Closes the readers and lets the writer finish what it was handed. Nothing can be written afterwards.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close();
    }

    /// Whether a write can be committed now: waits for what was handed in before.
    ///
    /// # Errors
    /// As of any write.
    pub async fn ping(&self) -> Result<()> {
        self.write(|_| Box::pin(async { Ok(()) })).await
    }

    /// Writes a little, to find out whether that can be done again.
    ///
    /// # Errors
    /// As of any write.
    pub async fn try_room(&self) -> Result<()> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let now = clock.now().as_millis();
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO kv (key, value, updated_at) VALUES ('ingestd.room', hex(randomblob(2048)), ?)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                )
                .bind(now)
                .execute(tx)
                .await?;
                Ok(())
            })
        })
        .await
    }

    fn rules(&self) -> QueueRules {
        *self.rules.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn max_pending(&self) -> Option<u64> {
        *self.max_pending.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Runs `body` in the writer's next transaction. It may run twice: again, alone, when the shared transaction
    /// failed because of another call.
    async fn write<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut SqliteConnection) -> BoxFuture<'t, Result<T>> + Send + Sync + 'static,
    {
        self.writer.errand(move |tx, _| body(tx)).await
    }

    /// As [`Self::write`], for statements that move jobs and therefore count.
    async fn write_counted<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut SqliteConnection, &'t mut tally::Tally) -> BoxFuture<'t, Result<T>>
            + Send
            + Sync
            + 'static,
    {
        self.writer.errand(body).await
    }

    /// Runs `body` on the write connection outside any transaction.
    async fn write_outside<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut SqliteConnection) -> BoxFuture<'t, Result<T>> + Send + Sync + 'static,
    {
        self.writer.outside(body).await
    }

    fn boot(&self) -> Result<i64> {
        self.boot.get().copied().ok_or_else(|| StoreError::Refused("only a daemon leases jobs".to_owned()))
    }
}
