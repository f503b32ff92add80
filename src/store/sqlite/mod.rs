//! SQLite.

mod browse;
mod check;
#[cfg(test)]
mod fixture;
mod overview;
mod prune;
mod query;
mod row;
mod settings;
mod stats;
mod upkeep;
mod ways;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use super::error::{Result, StoreError};
use crate::clock::Clock;
use crate::job::Incarnation;

pub use upkeep::verify;

/// A stand-in.
#[derive(Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    writer: tokio::sync::Mutex<SqliteConnection>,
    clock: Arc<dyn Clock>,
    path: PathBuf,
    incarnation: Incarnation,
}

impl SqliteStore {
    /// A stand-in.
    pub async fn stand_in(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .pragma("auto_vacuum", "INCREMENTAL")
            .journal_mode(SqliteJournalMode::Wal);
        let mut writer = options.connect().await?;
        sqlx::raw_sql(include_str!("../../../migrations/sqlite/0001_queue.sql")).execute(&mut writer).await?;
        sqlx::raw_sql(
            "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, success BOOLEAN NOT NULL);
             INSERT INTO _sqlx_migrations VALUES (1, 1)",
        )
        .execute(&mut writer)
        .await?;
        let reading = SqliteConnectOptions::new().filename(path).read_only(true).pragma("query_only", "1");
        let readers = SqlitePoolOptions::new().max_connections(2).connect_with(reading).await?;
        let (writer, path) = (tokio::sync::Mutex::new(writer), path.to_owned());
        Ok(Self { readers, writer, clock, path, incarnation: Incarnation([7; 16]) })
    }

    fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    async fn write<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut SqliteConnection) -> BoxFuture<'t, Result<T>> + Send + Sync + 'static,
    {
        let mut writer = self.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let answer = body(&mut tx).await?;
        tx.commit().await?;
        Ok(answer)
    }

    async fn write_outside<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut SqliteConnection) -> BoxFuture<'t, Result<T>> + Send + Sync + 'static,
    {
        let mut writer = self.writer.lock().await;
        body(&mut writer).await
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) if matches!(inner.code().as_deref(), Some("11" | "26")) => {
                Self::Corrupt(inner.message().to_owned())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}
