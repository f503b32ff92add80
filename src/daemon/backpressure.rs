//! Keeps the gate of the intake by the number of waiting jobs (`queue.max_pending`), and tells the service manager
//! how things stand. Wakes when jobs move, at most four times a second, and never otherwise.
//!
//! The bound itself is the queue's: what is offered to a full queue is refused there, exactly. The gate spares
//! everybody the offering, from the moment when something was refused or the bound is reached until a tenth of it is
//! free again.

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

/// What it works with.
pub struct Backpressure {
    pub store: Arc<SqliteStore>,
    pub activity: watch::Receiver<u64>,
    pub refused: watch::Receiver<u64>,
    pub config: watch::Receiver<Arc<Config>>,
    pub gate: Gate,
    pub warnings: Warnings,
    pub notifier: Notifier,
    pub stop: CancellationToken,
}

/// Keeps the gate until told to stop.
pub async fn run(mut this: Backpressure) -> anyhow::Result<()> {
    loop {
        let counted = this.store.overview().await;
        match &counted {
            Ok(overview) => this.judge(overview),
            Err(error) => tracing::debug!(%error, "the counts could not be read"),
        }
        tokio::select! {
            () = this.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(APART), if counted.is_err() => {}
            changed = this.refused.changed() => if changed.is_err() { return Ok(()) } else { this.shut() },
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
            Some(limit) if waiting >= limit => self.shut(),
            Some(limit) if waiting > limit - limit / 10 => {}
            _ => {
                self.gate.open(Shut::TooManyWaiting);
                self.warnings.clear("queue.max_pending");
            }
        }
    }

    fn shut(&self) {
        let Some(limit) = self.config.borrow().queue.max_pending else { return };
        self.gate.shut(Shut::TooManyWaiting);
        let words = format!("{limit} jobs wait (queue.max_pending); files are taken again when some are done");
        self.warnings.set("queue.max_pending", Severity::Warning, words);
    }
}
