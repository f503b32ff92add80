//! Runs: begun once, told from time to time how far they have come, ended once.
//!
//! At most one run of a name is active. A scan that begins while the run of its watch is active (a daemon died, or the
//! folder went away) goes on with that run, so that no crash leaves one behind.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::error::Result;
use crate::job::JobId;
use crate::run::{Run, RunId, RunState, RunType};

/// A scan that is to be a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanToRun {
    /// The watch, which gives the run its name.
    pub watch: String,
    /// Its root.
    pub root: PathBuf,
    /// Where its files go.
    pub pipeline: String,
    /// What it is for, unless no scan of this root has gone through yet: then it is the initial one.
    pub run_type: RunType,
}

/// A run that a scan belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BegunRun {
    /// Its number.
    pub id: RunId,
    /// What it is for.
    pub run_type: RunType,
    /// Whether it was begun before, and goes on.
    pub goes_on: bool,
}

/// How far a run has come. What is said to be *more* is added to what the run has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunProgress {
    /// Files met by its newest scan.
    pub processed: u64,
    /// More new jobs.
    pub more_enqueued: u64,
    /// The newest of all its jobs.
    pub newest_job: Option<JobId>,
    /// Where it is.
    pub current_path: Option<PathBuf>,
    /// Files met per second.
    pub rate_per_s: f64,
    /// More time at work.
    pub more_worked: Duration,
    /// What went wrong last, or why it stands still.
    pub last_error: Option<String>,
}

/// Writes and reads runs.
#[async_trait]
pub trait Runs: Send + Sync {
    /// Begins the run of a scan, or goes on with the active one of its watch. One over another root is cancelled.
    async fn begin_scan(&self, scan: ScanToRun) -> Result<BegunRun>;
    /// Notes how far a run has come; `false`: it is not running any more.
    async fn note_progress(&self, id: RunId, progress: RunProgress) -> Result<bool>;
    /// Ends a run, and notes how far it came; `false`: it was not running any more.
    async fn end_run(&self, id: RunId, end: RunState, progress: RunProgress) -> Result<bool>;
    /// Cancels the active scans of all watches but these, which exist; answers how many.
    async fn cancel_scans_but(&self, watches: Vec<String>) -> Result<u64>;
    /// The runs, newest first, at most `limit`.
    async fn runs(&self, limit: usize) -> Result<Vec<Run>>;
    /// One run.
    async fn run(&self, id: RunId) -> Result<Option<Run>>;
}
