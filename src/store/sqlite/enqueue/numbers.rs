//! Names as numbers, and the numbers that a transaction gives out.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::super::error::{Result, StoreError};
use super::super::super::queue::NewJob;
use super::super::wire;
use super::{Key, SCOPE_KEY, SCOPE_PATH};
use crate::job::SourceKey;

/// The numbers of the pipelines and watches that a group names.
pub(super) struct Names {
    pub(super) pipelines: BTreeMap<String, i64>,
    pub(super) watches: BTreeMap<String, i64>,
}

impl Names {
    pub(super) async fn resolve(tx: &mut SqliteConnection, jobs: &[&NewJob]) -> Result<Self> {
        let wanted: BTreeSet<&str> = jobs.iter().map(|job| job.pipeline.as_str()).collect();
        let pipelines = pipeline_ids(tx, wanted).await?;
        let wanted: BTreeSet<&str> = jobs
            .iter()
            .filter_map(|job| match &job.source {
                SourceKey::Watched { watch, .. } => Some(watch.as_str()),
                _ => None,
            })
            .collect();
        let watches = watch_ids(tx, wanted).await?;
        Ok(Self { pipelines, watches })
    }

    pub(super) fn key(&self, job: &NewJob) -> Result<Key> {
        let pipeline = self.pipelines.get(&job.pipeline).copied().ok_or(StoreError::Closed)?;
        let (scope, identity) = match &job.source {
            SourceKey::Watched { watch, relative } => {
                let scope = self.watches.get(watch).copied().ok_or_else(|| unknown_watch(watch))?;
                (scope, wire::hex_path(relative))
            }
            SourceKey::Path(path) => (SCOPE_PATH, wire::hex_path(path)),
            SourceKey::Keyed { key, .. } => (SCOPE_KEY, wire::hex(key.as_bytes())),
        };
        Ok(Key { scope, identity, pipeline })
    }
}

fn unknown_watch(name: &str) -> StoreError {
    StoreError::Refused(format!("no watch `{name}` is known to the database"))
}

/// The numbers of pipelines by name; unknown ones become known.
pub(in crate::store::sqlite) async fn pipeline_ids(
    tx: &mut SqliteConnection,
    names: BTreeSet<&str>,
) -> Result<BTreeMap<String, i64>> {
    let names: Vec<&str> = names.into_iter().collect();
    let wanted = wire::rows(&names)?;
    let mut found =
        ids(tx, "SELECT name, id FROM pipelines WHERE name IN (SELECT value FROM json_each(?))", &wanted).await?;
    if found.len() < names.len() {
        sqlx::query(
            "INSERT INTO pipelines (name) SELECT value FROM json_each(?) WHERE true ON CONFLICT (name) DO NOTHING",
        )
        .bind(&wanted)
        .execute(&mut *tx)
        .await?;
        found =
            ids(tx, "SELECT name, id FROM pipelines WHERE name IN (SELECT value FROM json_each(?))", &wanted).await?;
    }
    Ok(found)
}

/// The numbers of watches by name; those that are not known are missing.
pub(in crate::store::sqlite) async fn watch_ids(
    tx: &mut SqliteConnection,
    names: BTreeSet<&str>,
) -> Result<BTreeMap<String, i64>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<&str> = names.into_iter().collect();
    ids(tx, "SELECT name, id FROM watches WHERE name IN (SELECT value FROM json_each(?))", &wire::rows(&names)?).await
}

async fn ids(tx: &mut SqliteConnection, sql: &'static str, names: &str) -> Result<BTreeMap<String, i64>> {
    let rows = sqlx::query(sql).bind(names).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The numbers that a transaction gives out.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::sqlite) struct Numbers {
    /// The next source's.
    pub source: i64,
    /// The next job's.
    pub job: i64,
    /// The version of a source that nobody has heard of: above all that were ever forgotten.
    pub first_version: i64,
}

impl Numbers {
    pub(in crate::store::sqlite) async fn read(tx: &mut SqliteConnection) -> Result<Self> {
        let row = sqlx::query(
            "SELECT (SELECT coalesce(max(id), 0) FROM sources) + 1,
                    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0) + 1,
                    coalesce((SELECT CAST(value AS INTEGER) FROM kv WHERE key = 'ingestd.version_floor'), 0) + 1",
        )
        .fetch_one(tx)
        .await?;
        Ok(Self { source: row.try_get(0)?, job: row.try_get(1)?, first_version: row.try_get(2)? })
    }

    pub(in crate::store::sqlite) const fn take_job(&mut self) -> i64 {
        self.job += 1;
        self.job - 1
    }

    pub(super) const fn take_source(&mut self) -> i64 {
        self.source += 1;
        self.source - 1
    }
}
