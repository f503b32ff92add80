//! Passes on what a watch tells: that it changed, what a person should know, that its first scan is over.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::control::adopt_key;
use crate::intake::patiently;
use crate::store::sqlite::SqliteStore;
use crate::store::{Settings as _, StoreError};
use crate::warnings::{Severity, Warnings};
use crate::watch::WatchStatus;

/// See the module.
pub(super) struct Herald {
    pub status: watch::Receiver<WatchStatus>,
    pub moved: Arc<Notify>,
    pub stop: CancellationToken,
    pub warnings: Warnings,
    pub name: String,
    /// Set until the first scan of a watch that skips what was there is over.
    pub adopting: Option<Arc<SqliteStore>>,
}

impl Herald {
    /// Tells until the watch ends. An error is one of the store that the daemon has to leave for.
    pub async fn tell(mut self) -> Result<(), StoreError> {
        let key = format!("watch.{}", self.name);
        loop {
            let status = self.status.borrow_and_update().clone();
            let words = status.warnings.join("; ");
            if words.is_empty() {
                self.warnings.clear(&key);
            } else {
                self.warnings.set(&key, Severity::Warning, format!("watch `{}`: {words}", self.name));
            }
            if status.last_scan.is_some()
                && status.idle
                && let Some(store) = self.adopting.take()
            {
                let key = adopt_key(&self.name);
                patiently(&self.stop, "noting the end of a first scan", || store.kv_delete(&key)).await?;
            }
            self.moved.notify_waiters();
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = self.status.changed() => if changed.is_err() { break },
            }
        }
        self.warnings.clear(&key);
        Ok(())
    }
}
