//! Ends of executions that can't be written yet: their work is done, so they are kept until they can.

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
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

/// Whether anything was written by this connection, which is a new one since the write that failed: a transaction that
/// changes nothing needs no room, and proves nothing of it.
pub(super) async fn has_written(connection: Option<&mut SqliteConnection>) -> bool {
    let Some(connection) = connection else { return false };
    let changes = sqlx::query_scalar::<_, i64>("SELECT total_changes()").fetch_one(connection).await;
    changes.is_ok_and(|changes| changes > 0)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use crate::store::{Obstacle, StoreError};

    #[tokio::test]
    async fn a_shortage_is_over_when_something_was_written_and_not_when_nothing_was_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let store = fixture::store(&dir).await;
        let obstacle = store.obstacle();
        // The bound is the connection's own, and ends with it.
        let full = store.write(|tx| {
            Box::pin(async move {
                sqlx::query("PRAGMA max_page_count = 1").fetch_all(&mut *tx).await?;
                let large = "INSERT INTO kv (key, value, updated_at) VALUES ('a', hex(zeroblob(1000000)), 0)";
                sqlx::query(large).execute(&mut *tx).await?;
                Ok(())
            })
        });
        assert!(matches!(full.await, Err(StoreError::Full)));
        assert_eq!(*obstacle.borrow(), Some(Obstacle::NoRoom));
        store.ping().await.unwrap();
        assert_eq!(*obstacle.borrow(), Some(Obstacle::NoRoom), "nothing was written, so nothing is known");
        store.try_room().await.unwrap();
        assert_eq!(*obstacle.borrow(), None);
    }
}
