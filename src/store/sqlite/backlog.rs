//! What is left to do.

use async_trait::async_trait;
use sqlx::Row as _;

use super::super::error::Result;
use super::super::queue::{Backlog, Left};
use super::{SqliteStore, wire};
use crate::clock::Timestamp;

#[async_trait]
impl Backlog for SqliteStore {
    async fn left(&self, pipelines: Vec<String>, since: Timestamp) -> Result<Left> {
        let row = sqlx::query(include_str!("sql/left.sql"))
            .bind(wire::rows(&pipelines)?)
            .bind(self.clock.now().as_millis())
            .bind(since.as_millis())
            .fetch_one(self.readers())
            .await?;
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        Ok(Left {
            running: count(row.try_get("running")?),
            waiting: row.try_get("waiting")?,
            failed: count(row.try_get("failed")?),
            missing_program: row.try_get("missing_program")?,
        })
    }
}
