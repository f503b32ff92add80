//! Room in a bounded queue: how many more jobs may wait.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::super::error::Result;
use super::Asked;
use super::known::{Decision, Known};

/// How many jobs wait, counted on while a group is decided.
#[derive(Debug)]
pub(super) struct Room {
    waiting: u64,
}

impl Room {
    /// Reads the counters where any limit asks for it. Enqueues come first in a transaction, so they are exact.
    pub(super) async fn read(tx: &mut SqliteConnection, limits: &[Option<u64>]) -> Result<Self> {
        if limits.iter().all(Option::is_none) {
            return Ok(Self { waiting: 0 });
        }
        let sql = "SELECT coalesce(sum(n), 0) FROM counters WHERE state IN ('pending', 'retrying')";
        let waiting: i64 = sqlx::query(sql).fetch_one(tx).await?.try_get(0)?;
        Ok(Self { waiting: u64::try_from(waiting).unwrap_or(0) })
    }

    /// How many more may wait where at most `limit` may.
    pub(super) const fn left_of(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.waiting)
    }

    /// Whether what was decided may be done. What takes the place of a job that waits, and what is only noted, always
    /// may; anything else takes a place.
    pub(super) fn has_place(&mut self, decision: Decision, known: Option<&Known>, asked: &Asked<'_>) -> bool {
        let older = known.and_then(|known| known.taken.as_ref()?.row.as_ref());
        let moving = known.is_some_and(|known| known.moving.is_some());
        let takes_over = older.is_some_and(|older| older.state.is_waiting()) && !moving;
        let noted = asked.job.note_only && decision == Decision::First;
        if takes_over || noted {
            return true;
        }
        if asked.limit.is_some_and(|limit| self.waiting >= limit) {
            return false;
        }
        self.waiting += 1;
        true
    }
}
