//! What is read for people: lists, one job, counts, rates. Reads never wait for the writer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::Serialize;

use super::error::Result;
use crate::clock::Timestamp;
use crate::job::{Job, JobError, JobId, Priority, StateName};
use crate::run::RunId;

/// Which jobs are meant.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// In one of these states; empty: in any.
    pub states: Vec<StateName>,
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Of this watch.
    pub watch: Option<String>,
    /// Whose path (or relative path) matches; matched outside SQL, because paths are bytes.
    pub path: Option<globset::GlobSet>,
    /// Whose error contains this text, whatever the case.
    pub error: Option<String>,
    /// Enqueued or ended since.
    pub since: Option<Timestamp>,
    /// That a line of the list of this run asked for.
    pub run: Option<RunId>,
    /// Of this repository, as their lines say.
    pub repo: Option<String>,
}

/// An execution in the history.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its number in the history, growing with the ends of executions.
    pub id: i64,
    /// The job.
    pub job: JobId,
    /// The number of the execution within the job, from 1.
    pub execution: u32,
    /// The pipeline.
    pub pipeline: String,
    /// The file, where its source is still known.
    pub path: Option<PathBuf>,
    /// How it ended: `completed`, `retry`, `failed`, `deferred`, `interrupted`, `cancelled`, `skipped`,
    /// `crashed`; or `reopened`, where a person retried the job.
    pub outcome: String,
    /// Whether an attempt was spent.
    pub spent: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How long it took.
    pub duration_ms: i64,
    /// Exit code or HTTP status.
    pub code: Option<i32>,
    /// What went wrong.
    pub error: Option<JobError>,
    /// The tail of what it printed; only in [`Browse::attempts`].
    pub output: Option<Vec<u8>>,
}

/// Failed and retrying jobs that share an error.
#[derive(Clone, Debug)]
pub struct FailureGroup {
    /// The pipeline.
    pub pipeline: String,
    /// The error that they share.
    pub error: JobError,
    /// Given up.
    pub failed: u64,
    /// To be tried again.
    pub retrying: u64,
    /// The earliest and latest of their newest executions.
    pub first_at: Timestamp,
    /// See `first_at`.
    pub last_at: Timestamp,
    /// One of them.
    pub example: JobId,
    /// That one's path.
    pub example_path: PathBuf,
}

/// Counts and rates of the whole queue or one pipeline.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// Jobs by state and level.
    #[serde(skip)]
    pub by_state_and_priority: BTreeMap<(StateName, Priority), u64>,
    /// Jobs that ended, per second, over the last 1, 5 and 15 minutes.
    pub rate_per_s: [f64; 3],
    /// Of those that completed or failed in the last 15 minutes, the share that completed.
    pub success_rate: Option<f64>,
}

impl Counts {
    /// How many jobs are in `state`.
    pub fn in_state(&self, state: StateName) -> u64 {
        self.by_state_and_priority.iter().filter(|((s, _), _)| *s == state).map(|(_, n)| n).sum()
    }
}

/// The queue at a glance.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Over everything.
    pub total: Counts,
    /// Each pipeline that is known, and whether it is paused.
    pub pipelines: BTreeMap<String, (Counts, bool)>,
    /// When the job that is due for the longest time became due.
    pub oldest_due: Option<Timestamp>,
    /// When the next waiting job becomes due, where none is due now.
    pub next_due: Option<Timestamp>,
}

/// A daemon's start.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Its process.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it stopped, if it stopped in order.
    pub stopped_at: Option<Timestamp>,
}

/// Analytics of one pipeline, or of one hour, or of one level.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PipelineStats {
    /// Executions that ended.
    pub executions: u64,
    /// Of them completed.
    pub completed: u64,
    /// Of them failed for good.
    pub failed: u64,
    /// Of them to be tried again.
    pub retried: u64,
    /// Completed, of those that completed or failed.
    pub success_rate: Option<f64>,
    /// Durations.
    pub p50_ms: i64,
    /// See `p50_ms`.
    pub p95_ms: i64,
    /// See `p50_ms`.
    pub p99_ms: i64,
    /// Waits between due and start.
    pub wait_p50_ms: i64,
    /// See `wait_p50_ms`.
    pub wait_p95_ms: i64,
    /// Time that executions took in all.
    pub busy_ms: i64,
}

/// What `stats` shows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Over everything.
    pub total: PipelineStats,
    /// By pipeline.
    pub pipelines: BTreeMap<String, PipelineStats>,
    /// By level.
    pub priorities: BTreeMap<Priority, PipelineStats>,
    /// Executions completed in each hour (its start), oldest first.
    pub per_hour: BTreeMap<Timestamp, u64>,
}

/// A result of `db query`: column names, then rows as JSON values.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// Whether more rows were there than asked for.
    pub cut: bool,
}

/// Reads for people.
#[async_trait]
pub trait Browse: Send + Sync {
    /// Jobs that match, newest first, below `before`, at most `limit`.
    async fn jobs(&self, filter: &JobFilter, before: Option<JobId>, limit: usize) -> Result<Vec<Job>>;
    /// One job.
    async fn job(&self, id: JobId) -> Result<Option<Job>>;
    /// Every execution of a job, in order, with its output.
    async fn attempts(&self, id: JobId) -> Result<Vec<Attempt>>;
    /// The history, newest first, below `before`, at most `limit`, without output.
    async fn history(&self, filter: &JobFilter, before: Option<i64>, limit: usize) -> Result<Vec<Attempt>>;
    /// Failed and retrying jobs by error, most frequent first, at most `limit` groups.
    async fn failures(&self, limit: usize) -> Result<Vec<FailureGroup>>;
    /// The queue at a glance.
    async fn overview(&self) -> Result<Overview>;
    /// The newest start of a daemon.
    async fn last_boot(&self) -> Result<Option<Boot>>;
    /// Analytics over executions that ended since.
    async fn stats(&self, since: Timestamp) -> Result<Stats>;
    /// Runs a read-only statement, at most `limit` rows.
    async fn query(&self, sql: &str, limit: usize) -> Result<Table>;
    /// The schema's version.
    async fn schema_version(&self) -> Result<i64>;
}
