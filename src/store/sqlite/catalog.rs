//! What the writer remembers of the tables between two transactions: which number a name has, which numbers come next,
//! which counters there are.
//!
//! Only the daemon's writer remembers, because it is the only one that writes; a command asks anew each time. After a
//! transaction that failed, and after any call of another kind, everything is forgotten and asked again.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::error::{Result, StoreError};
use super::tally::Counter;
use super::wire;

/// A pipeline as the table has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipeline {
    pub(super) id: i64,
    pub(super) paused: bool,
}

/// What is remembered.
#[derive(Debug)]
pub(super) struct Catalog {
    remembers: bool,
    /// `None`: the table has no such pipeline.
    pipelines: BTreeMap<String, Option<Pipeline>>,
    watches: BTreeMap<String, i64>,
    numbers: Option<Numbers>,
    counters: BTreeSet<Counter>,
    /// Whether any run is paused.
    pauses: Option<bool>,
}

impl Catalog {
    /// An empty one. `remembers`: nobody else writes to this database.
    pub(super) const fn new(remembers: bool) -> Self {
        Self {
            remembers,
            pipelines: BTreeMap::new(),
            watches: BTreeMap::new(),
            numbers: None,
            counters: BTreeSet::new(),
            pauses: None,
        }
    }

    /// Asks again from now on.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.remembers);
    }

    /// A transaction ended.
    pub(super) fn committed(&mut self) {
        if !self.remembers {
            self.forget();
        }
    }

    /// Learns these pipelines; unknown ones come into being.
    pub(super) async fn enter_pipelines(&mut self, tx: &mut SqliteConnection, names: BTreeSet<&str>) -> Result<()> {
        let missing: BTreeSet<&str> = names.into_iter().filter(|name| self.pipeline(name).is_none()).collect();
        if !missing.is_empty() {
            pipeline_ids(tx, missing.clone()).await?;
            self.pipelines.retain(|name, _| !missing.contains(name.as_str()));
            self.learn_pipelines(tx, missing.into_iter()).await?;
        }
        Ok(())
    }

    /// Learns these pipelines, as far as there are any.
    pub(super) async fn learn_pipelines(
        &mut self,
        tx: &mut SqliteConnection,
        names: impl Iterator<Item = &str> + Send,
    ) -> Result<()> {
        let wanted: Vec<&str> = names.filter(|name| !self.pipelines.contains_key(*name)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.pipelines.extend(wanted.iter().map(|name| ((*name).to_owned(), None)));
        let sql = "SELECT name, id, paused FROM pipelines WHERE name IN (SELECT value FROM json_each(?))";
        for row in sqlx::query(sql).bind(wire::rows(&wanted)?).fetch_all(tx).await? {
            let pipeline = Pipeline { id: row.try_get(1)?, paused: row.try_get(2)? };
            self.pipelines.insert(row.try_get(0)?, Some(pipeline));
        }
        Ok(())
    }

    /// Learns these watches, as far as there are any.
    pub(super) async fn learn_watches(&mut self, tx: &mut SqliteConnection, names: BTreeSet<&str>) -> Result<()> {
        let wanted: BTreeSet<&str> = names.into_iter().filter(|name| !self.watches.contains_key(*name)).collect();
        self.watches.extend(watch_ids(tx, wanted).await?);
        Ok(())
    }

    /// A pipeline that was learnt and is there.
    pub(super) fn pipeline(&self, name: &str) -> Option<Pipeline> {
        self.pipelines.get(name).copied().flatten()
    }

    /// The number of a watch that was learnt and is there.
    pub(super) fn watch(&self, name: &str) -> Option<i64> {
        self.watches.get(name).copied()
    }

    /// Whether the counter is there.
    pub(super) fn counts(&self, counter: &Counter) -> bool {
        self.counters.contains(counter)
    }

    /// These counters are there.
    pub(super) fn count(&mut self, counters: Vec<Counter>) {
        self.counters.extend(counters);
    }

    /// Whether jobs may be there that are to be held back for a paused run.
    pub(super) async fn has_paused_runs(&mut self, tx: &mut SqliteConnection) -> Result<bool> {
        if let Some(known) = self.pauses {
            return Ok(known);
        }
        let sql = "SELECT EXISTS (SELECT 1 FROM runs INDEXED BY runs_paused WHERE state = 'paused')";
        Ok(*self.pauses.insert(sqlx::query_scalar(sql).fetch_one(tx).await?))
    }

    /// The numbers to give out next.
    pub(super) async fn numbers(&mut self, tx: &mut SqliteConnection) -> Result<&mut Numbers> {
        match &mut self.numbers {
            Some(numbers) => Ok(numbers),
            none => Ok(none.insert(Numbers::read(tx).await?)),
        }
    }
}

/// The numbers of pipelines by name; unknown ones come into being.
pub(super) async fn pipeline_ids(tx: &mut SqliteConnection, names: BTreeSet<&str>) -> Result<BTreeMap<String, i64>> {
    let names: Vec<&str> = names.into_iter().collect();
    let wanted = wire::rows(&names)?;
    let mut found = ids(tx, PIPELINE_IDS, &wanted).await?;
    if found.len() < names.len() {
        sqlx::query(
            "INSERT INTO pipelines (name) SELECT value FROM json_each(?) WHERE true ON CONFLICT (name) DO NOTHING",
        )
        .bind(&wanted)
        .execute(&mut *tx)
        .await?;
        found = ids(tx, PIPELINE_IDS, &wanted).await?;
    }
    Ok(found)
}

const PIPELINE_IDS: &str = "SELECT name, id FROM pipelines WHERE name IN (SELECT value FROM json_each(?))";

/// The numbers of watches by name; those that are not known are missing.
pub(super) async fn watch_ids(tx: &mut SqliteConnection, names: BTreeSet<&str>) -> Result<BTreeMap<String, i64>> {
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
pub(super) struct Numbers {
    /// The next source's.
    source: i64,
    /// The next job's.
    job: i64,
    /// The version of a source that nobody has heard of: above all that were ever forgotten.
    pub(super) first_version: i64,
}

impl Numbers {
    pub(super) async fn read(tx: &mut SqliteConnection) -> Result<Self> {
        let row = sqlx::query(
            "SELECT (SELECT coalesce(max(id), 0) FROM sources) + 1,
                    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0) + 1,
                    coalesce((SELECT CAST(value AS INTEGER) FROM kv WHERE key = 'ingestd.version_floor'), 0) + 1",
        )
        .fetch_one(tx)
        .await?;
        Ok(Self { source: row.try_get(0)?, job: row.try_get(1)?, first_version: row.try_get(2)? })
    }

    pub(super) const fn take_job(&mut self) -> i64 {
        self.job += 1;
        self.job - 1
    }

    pub(super) const fn take_source(&mut self) -> i64 {
        self.source += 1;
        self.source - 1
    }
}

/// The words for a watch that the table does not have.
pub(super) fn unknown_watch(name: &str) -> StoreError {
    StoreError::Refused(format!("no watch `{name}` is known to the database"))
}
