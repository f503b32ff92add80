//! The gate before the queue: shut while taking in more work would do harm, whatever the reason.
//!
//! Each reason shuts and opens for itself; the gate is open when none is left. Intake waits at it with
//! [`Gate::opened`] before it enqueues; what is in the queue drains meanwhile.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Why the gate is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shut {
    /// Little room is left on the database's filesystem.
    LowSpace,
    /// A write met a full disk.
    DatabaseFull,
    /// As many jobs wait as `queue.max_pending` allows.
    TooManyWaiting,
}

/// The gate; a handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    reasons: Arc<watch::Sender<Vec<Shut>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { reasons: Arc::new(watch::Sender::new(Vec::new())) }
    }
}

impl Gate {
    /// Shuts it for this reason; `false`: it was already.
    pub fn shut(&self, reason: Shut) -> bool {
        self.reasons.send_if_modified(|reasons| {
            let new = !reasons.contains(&reason);
            if new {
                reasons.push(reason);
            }
            new
        })
    }

    /// This reason no longer holds; `false`: it did not.
    pub fn open(&self, reason: Shut) -> bool {
        self.reasons.send_if_modified(|reasons| {
            let before = reasons.len();
            reasons.retain(|held| *held != reason);
            reasons.len() < before
        })
    }

    /// Whether it is shut for this reason.
    pub fn is_shut_for(&self, reason: Shut) -> bool {
        self.reasons.borrow().contains(&reason)
    }

    /// Why it is shut; empty: it is open.
    pub fn reasons(&self) -> Vec<Shut> {
        self.reasons.borrow().clone()
    }

    /// Changes whenever a reason comes or goes.
    pub fn changes(&self) -> watch::Receiver<Vec<Shut>> {
        self.reasons.subscribe()
    }

    /// Resolves when it is open, at once where it is.
    pub async fn opened(&self) {
        let mut reasons = self.reasons.subscribe();
        // An error would mean that the sender is gone, which `self` holds.
        let _ = reasons.wait_for(Vec::is_empty).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn it_opens_when_the_last_reason_is_gone() {
        let gate = Gate::default();
        assert!(gate.opened().now_or_never().is_some());
        assert!(gate.shut(Shut::LowSpace));
        assert!(!gate.shut(Shut::LowSpace));
        gate.shut(Shut::DatabaseFull);
        gate.open(Shut::LowSpace);
        assert!(gate.opened().now_or_never().is_none());
        assert_eq!(gate.reasons(), [Shut::DatabaseFull]);
        assert!(gate.open(Shut::DatabaseFull));
        assert!(!gate.open(Shut::DatabaseFull));
        assert!(gate.opened().now_or_never().is_some());
    }
}
