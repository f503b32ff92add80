//! Ends of executions that can't be written yet: their work is done, so they are kept until they can.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::error::Result;
use super::super::queue::{Settled, Settlement};

/// The first pause before a write that failed for want of room is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a write that failed for want of room is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Ends of executions that found no room, or the lock in another process's hands.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub settles: Vec<(Vec<Settlement>, oneshot::Sender<Result<Vec<Settled>>>)>,
    pub pause: Duration,
    pub retry_at: Option<Instant>,
}

impl Kept {
    /// Resolves when what is kept shall be tried again; never where nothing is.
    pub(super) async fn due(&self) {
        match self.retry_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Hands over what is kept, which is then tried.
    pub(super) fn take(&mut self) -> Vec<(Vec<Settlement>, oneshot::Sender<Result<Vec<Settled>>>)> {
        self.retry_at = None;
        std::mem::take(&mut self.settles)
    }

    /// Tries again after a pause that grows.
    pub(super) fn postpone(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.retry_at = Some(Instant::now() + self.pause);
    }
}
