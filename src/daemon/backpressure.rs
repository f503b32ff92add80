//! Keeps the gate of the intake by the number of waiting jobs (`queue.max_pending`), and tells the service manager
//! how things stand; and shuts the gate while the disk is full. Wakes when jobs move, at most four times a second, and never otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::gate::{Gate, Shut};
use crate::job::StateName;
use crate::lifecycle::Notifier;
use crate::store::sqlite::SqliteStore;
use crate::store::{Browse as _, Overview};
use crate::warnings::{Severity, Warnings};

const APART: Duration = Duration::from_millis(250);
/// How often a write is tried while the disk is full.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// What it works with.
pub struct Backpressure {
    pub store: Arc<SqliteStore>,
    pub activity: watch::Receiver<u64>,
    pub full: watch::Receiver<bool>,
    pub config: watch::Receiver<Arc<Config>>,
    pub gate: Gate,
    pub warnings: Warnings,
    pub notifier: Notifier,
    pub stop: CancellationToken,
}

/// Keeps the gate until told to stop.
pub async fn run(mut this: Backpressure) -> anyhow::Result<()> {
    loop {
        this.heed_the_disk();
        match this.store.overview().await {
            Ok(overview) => this.judge(&overview),
            Err(error) => tracing::debug!(%error, "the counts could not be read"),
        }
        let full = this.gate.is_shut_for(Shut::DatabaseFull);
        tokio::select! {
            () = this.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(TRY_AGAIN), if full => drop(this.store.try_room().await),
            changed = this.full.changed() => if changed.is_err() { return Ok(()) },
            changed = this.activity.changed() => if changed.is_err() { return Ok(()) },
            changed = this.config.changed() => if changed.is_err() { return Ok(()) },
        }
        tokio::select! {
            () = this.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(APART) => {}
        }
    }
}

impl Backpressure {
    /// A write that found no room shuts the gate; a write that succeeds opens it. While nothing is taken in there may
    /// be no write, so one is tried.
    fn heed_the_disk(&mut self) {
        if *self.full.borrow_and_update() {
            self.gate.shut(Shut::DatabaseFull);
            let words = "no room is left for the database: nothing is taken in until there is; make room on its disk";
            self.warnings.set("database.full", Severity::Critical, words);
        } else {
            self.gate.open(Shut::DatabaseFull);
            self.warnings.clear("database.full");
        }
    }

    fn judge(&self, overview: &Overview) {
        let in_state = |state| overview.total.in_state(state);
        let waiting = in_state(StateName::Pending) + in_state(StateName::Retrying);
        self.notifier.status(&format!(
            "{waiting} waiting, {} running, {} failed",
            in_state(StateName::Running),
            in_state(StateName::Failed)
        ));
        let limit = self.config.borrow().queue.max_pending;
        // Opens again a tenth below, so that it does not flutter.
        match limit {
            Some(limit) if waiting >= limit => {
                self.gate.shut(Shut::TooManyWaiting);
                let words = format!("{limit} jobs wait (queue.max_pending); files are taken again when some are done");
                self.warnings.set("queue.max_pending", Severity::Warning, words);
            }
            Some(limit) if waiting > limit - limit / 10 => {}
            _ => {
                self.gate.open(Shut::TooManyWaiting);
                self.warnings.clear("queue.max_pending");
            }
        }
    }
}
