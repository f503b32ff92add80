//! Analytics over the history.
//!
//! The history is walked by its key in short reads, so that a long evaluation never keeps the write-ahead log from
//! being cut, and folded into histograms of bounded size: exact below 64 ms, and beyond that within 1/32 (each power
//! of two is cut into 32 parts, as in `HdrHistogram`). Its rows are in the order of their ends, so the first one of
//! interest is found by bisection.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};

use super::super::browse::{PipelineStats, Stats};
use super::super::error::{Result, StoreError};
use super::SqliteStore;
use crate::clock::Timestamp;
use crate::job::Priority;

/// Rows that are read at once.
const PAGE: i64 = 10_000;
const HOUR_MS: i64 = 3_600_000;

/// Executions after a number, oldest first. A person's `retry` has a row too, and is no execution.
pub(super) const EXECUTIONS: &str = "
    SELECT id, pipeline, priority, outcome, spent, due_at, started_at, finished_at, duration_ms
    FROM attempts
    WHERE id > ?1
    ORDER BY id
    LIMIT ?2";

struct Execution {
    id: i64,
    pipeline: i64,
    priority: i64,
    outcome: String,
    spent: bool,
    due_at: i64,
    started_at: i64,
    finished_at: i64,
    duration_ms: i64,
}

impl<'r> FromRow<'r, SqliteRow> for Execution {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            pipeline: row.try_get("pipeline")?,
            priority: row.try_get("priority")?,
            outcome: row.try_get("outcome")?,
            spent: row.try_get("spent")?,
            due_at: row.try_get("due_at")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
            duration_ms: row.try_get("duration_ms")?,
        })
    }
}

impl SqliteStore {
    pub(super) async fn read_stats(&self, since: Timestamp) -> Result<Stats> {
        let names: Vec<(i64, String)> =
            sqlx::query_as("SELECT id, name FROM pipelines LIMIT 100000").fetch_all(self.readers()).await?;
        let names: BTreeMap<i64, String> = names.into_iter().collect();
        let mut folds = Folds::default();
        let mut after = self.first_attempt_since(since).await?.saturating_sub(1);
        loop {
            let page: Vec<Execution> =
                sqlx::query_as(EXECUTIONS).bind(after).bind(PAGE).fetch_all(self.readers()).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for execution in page.iter().filter(|e| e.finished_at >= since.as_millis() && e.outcome != "reopened") {
                folds.add(execution)?;
            }
        }
        Ok(folds.finish(&names))
    }

    /// The number of the first row of the history that ended at or after `since`, by bisection. Where the wall clock
    /// was stepped back, rows near the step may be missed.
    pub(super) async fn first_attempt_since(&self, since: Timestamp) -> Result<i64> {
        let ends: (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT (SELECT min(id) FROM attempts), (SELECT max(id) FROM attempts)")
                .fetch_one(self.readers())
                .await?;
        let (Some(mut low), Some(newest)) = ends else { return Ok(0) };
        // Every row below `low` ended before; none from `high` on did.
        let mut high = newest.saturating_add(1);
        while low < high {
            let middle = low + (high - low) / 2;
            let row: Option<(i64, i64)> =
                sqlx::query_as("SELECT id, finished_at FROM attempts WHERE id >= ?1 ORDER BY id LIMIT 1")
                    .bind(middle)
                    .fetch_optional(self.readers())
                    .await?;
            match row {
                Some((id, finished_at)) if finished_at < since.as_millis() => low = id + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

/// Everything that `stats` shows, while it is being gathered.
#[derive(Default)]
struct Folds {
    total: Fold,
    pipelines: BTreeMap<i64, Fold>,
    priorities: BTreeMap<Priority, Fold>,
    per_hour: BTreeMap<Timestamp, u64>,
}

impl Folds {
    fn add(&mut self, execution: &Execution) -> Result<()> {
        let level = Priority::from_number(execution.priority)
            .ok_or_else(|| StoreError::Corrupt(format!("row {} of the history has no known priority", execution.id)))?;
        self.total.add(execution);
        self.pipelines.entry(execution.pipeline).or_default().add(execution);
        self.priorities.entry(level).or_default().add(execution);
        if execution.outcome == "completed" {
            let hour = execution.finished_at.div_euclid(HOUR_MS) * HOUR_MS;
            *self.per_hour.entry(Timestamp::from_millis(hour)).or_default() += 1;
        }
        Ok(())
    }

    fn finish(self, names: &BTreeMap<i64, String>) -> Stats {
        let name = |id: i64| names.get(&id).cloned().unwrap_or_else(|| format!("#{id}"));
        Stats {
            total: self.total.finish(),
            pipelines: self.pipelines.into_iter().map(|(id, fold)| (name(id), fold.finish())).collect(),
            priorities: self.priorities.into_iter().map(|(level, fold)| (level, fold.finish())).collect(),
            per_hour: self.per_hour,
        }
    }
}

#[derive(Default)]
struct Fold {
    stats: PipelineStats,
    durations: Histogram,
    waits: Histogram,
}

impl Fold {
    fn add(&mut self, execution: &Execution) {
        self.stats.executions += 1;
        match execution.outcome.as_str() {
            "completed" => self.stats.completed += 1,
            "failed" => self.stats.failed += 1,
            "retry" => self.stats.retried += 1,
            _ => {}
        }
        self.stats.busy_ms = self.stats.busy_ms.saturating_add(execution.duration_ms);
        // What was interrupted or deferred says nothing about how long the work takes.
        if execution.spent {
            self.durations.add(execution.duration_ms);
        }
        self.waits.add(execution.started_at.saturating_sub(execution.due_at));
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of executions stay far below 2^52")]
    fn finish(mut self) -> PipelineStats {
        let judged = self.stats.completed + self.stats.failed;
        self.stats.success_rate = (judged > 0).then(|| self.stats.completed as f64 / judged as f64);
        self.stats.p50_ms = self.durations.percentile(50);
        self.stats.p95_ms = self.durations.percentile(95);
        self.stats.p99_ms = self.durations.percentile(99);
        self.stats.wait_p50_ms = self.waits.percentile(50);
        self.stats.wait_p95_ms = self.waits.percentile(95);
        self.stats
    }
}

/// How often each length of time occurred, by its bucket.
#[derive(Default)]
struct Histogram {
    buckets: BTreeMap<u32, u64>,
    count: u64,
}

impl Histogram {
    fn add(&mut self, ms: i64) {
        *self.buckets.entry(bucket(u64::try_from(ms).unwrap_or(0))).or_default() += 1;
        self.count += 1;
    }

    /// The least value that at least `percent` of all do not exceed (nearest rank); zero of nothing.
    fn percentile(&self, percent: u64) -> i64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, n) in &self.buckets {
            seen += n;
            if seen >= rank {
                return i64::try_from(floor_of(*bucket)).unwrap_or(i64::MAX);
            }
        }
        0
    }
}

/// Values below 64 have a bucket each; beyond, the highest six bits and their position make the bucket.
fn bucket(value: u64) -> u32 {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(6);
    shift * 32 + u32::try_from(value >> shift).unwrap_or(0)
}

/// The least value of a bucket.
fn floor_of(bucket: u32) -> u64 {
    let shift = (bucket / 32).saturating_sub(1);
    u64::from(bucket - shift * 32) << shift
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::fixture;
    use super::*;
    use crate::store::Browse as _;

    #[test]
    fn buckets_follow_each_other_without_gaps_and_are_narrow() {
        let mut last = 0;
        for value in (0..100_000).chain([u64::from(u32::MAX), u64::MAX / 2, u64::MAX]) {
            let bucket = bucket(value);
            assert!(bucket >= last && (value > 100_000 || bucket <= last + 1), "{value}");
            let floor = floor_of(bucket);
            assert!(floor <= value && value - floor <= value / 32, "{value}: {floor}");
            last = bucket;
        }
        assert_eq!((0..64).map(|value| floor_of(bucket(value))).collect::<Vec<_>>(), (0..64).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn executions_are_told_by_pipeline_level_and_hour_from_the_asked_time_on() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::sql(
            &store,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
             INSERT INTO attempts SELECT i, i, 1, i, 1, 2, 'completed', 1, 0, 3, 3600000 + i, i, 0, NULL, NULL FROM n;
             INSERT INTO attempts VALUES
                 (200, 1, 2, 1, 2, 4, 'failed', 1, 0, 40, 7200000, 5, 1, 'exit', 'x'),
                 (201, 1, 3, 1, 2, 4, 'deferred', 0, 0, 40, 7200001, 1000, 75, 'exit', 'x'),
                 (202, 1, 3, 1, 2, 4, 'reopened', 0, 0, 40, 7200002, 0, NULL, NULL, NULL)",
        )
        .await;
        let stats = store.stats(Timestamp::from_millis(0)).await.unwrap();
        let documents = &stats.pipelines["documents"];
        assert_eq!((documents.executions, documents.completed, documents.success_rate), (100, 100, Some(1.0)));
        assert_eq!((documents.p50_ms, documents.wait_p95_ms, documents.busy_ms), (50, 3, 5_050));
        assert!((92..=95).contains(&documents.p95_ms) && (96..=99).contains(&documents.p99_ms));
        let hook = &stats.pipelines["hook"];
        assert_eq!((hook.executions, hook.failed, hook.p99_ms, hook.busy_ms), (2, 1, 5, 1_005));
        assert_eq!(stats.priorities[&Priority::Urgent].executions, 2);
        assert_eq!(stats.per_hour, BTreeMap::from([(Timestamp::from_millis(3_600_000), 100)]));
        assert_eq!(stats.total.executions, 102);
        for (since, executions) in [(3_600_051, 52), (3_600_100, 3), (7_200_000, 2), (7_200_001, 1), (8_000_000, 0)] {
            let stats = store.stats(Timestamp::from_millis(since)).await.unwrap();
            assert_eq!(stats.total.executions, executions, "since {since}");
        }
    }

    #[tokio::test]
    async fn the_history_is_read_by_its_key() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        assert_eq!(store.stats(Timestamp::from_millis(0)).await.unwrap().total.executions, 0);
        fixture::assert_no_scan(&store, EXECUTIONS, "attempts").await;
    }
}
