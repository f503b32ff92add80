//! What is left to do.

use async_trait::async_trait;
use sqlx::Row as _;

use super::super::error::Result;
use super::super::queue::{Backlog, Left};
use super::{SqliteStore, wire};
use crate::clock::Timestamp;

pub(super) const LEFT: &str = include_str!("sql/left.sql");
/// ?1: a final state, ?2: since when.
pub(super) const ENDED: &str = "
    SELECT count(*) FROM jobs
    WHERE state = ?1 AND state IN ('completed', 'failed', 'cancelled', 'skipped') AND finished_at >= ?2";

#[async_trait]
impl Backlog for SqliteStore {
    async fn left(&self, pipelines: Vec<String>) -> Result<Left> {
        let row = sqlx::query(LEFT)
            .bind(wire::rows(&pipelines)?)
            .bind(self.clock.now().as_millis())
            .fetch_one(self.readers())
            .await?;
        Ok(Left {
            running: u64::try_from(row.try_get::<i64, _>("running")?).unwrap_or(0),
            waiting: row.try_get("waiting")?,
            missing_program: row.try_get("missing_program")?,
        })
    }

    async fn ended(&self, since: Timestamp) -> Result<(u64, u64)> {
        let mut counts = [0, 0];
        for (count, state) in counts.iter_mut().zip(["completed", "failed"]) {
            let row = sqlx::query(ENDED).bind(state).bind(since.as_millis()).fetch_one(self.readers()).await?;
            *count = u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0);
        }
        Ok((counts[0], counts[1]))
    }
}
