//! Waiting for a time of either clock. Timers go by neither: a suspend stops them, and no step of the wall clock moves
//! them.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Boottime, Clock, Timestamp};

/// Resolves when the next job is due.
pub(super) async fn until_due(clock: Arc<dyn Clock>, due: Option<Timestamp>) {
    match due {
        // At most a minute at a time, so that a step of the wall clock is noticed.
        Some(due) => {
            let wait = due.since(clock.now()).min(Duration::from_mins(1));
            tokio::time::sleep(wait + Duration::from_millis(1)).await;
        }
        None => std::future::pending().await,
    }
}

/// Resolves at a time since the machine's boot, which a suspend does not stop as it stops timers.
pub(super) async fn until_boottime(clock: Arc<dyn Clock>, at: Option<Boottime>) {
    let Some(at) = at else { return std::future::pending().await };
    loop {
        let left = at.since(clock.boottime());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(Duration::from_secs(30))).await;
    }
}
