//! What the pool goes by: replaced as a whole by a reload, read when it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::throttle::Throttle;
use crate::config::Disposal;
use crate::intake::ContentFolder;
use crate::job::{DigestAlgorithm, RetryPolicy};
use crate::processor::SharedProcessor;
use crate::store::{Batching, StageOrders};

/// The pool's settings.
#[derive(Clone)]
pub struct WorkerSettings {
    /// Executions that may run at once over all pipelines; `None`: no further limit.
    pub concurrency: Option<usize>,
    /// How long a lease lasts unless renewed.
    pub lease: Duration,
    /// How contents are digested.
    pub digest: DigestAlgorithm,
    /// Where the live output of attempts goes.
    pub spool: PathBuf,
    /// Where contents that lines of lists bring along are kept.
    pub contents: ContentFolder,
    /// What the pipelines do.
    pub pipelines: BTreeMap<String, PipelineSettings>,
    /// The declared stages of pipelines.
    pub stages: StageOrders,
    /// By watch: what happens to a file after success, and after failure.
    pub disposals: BTreeMap<String, (Disposal, Disposal)>,
    /// Watches whose files are skipped where their content was completed under another name.
    pub dedupes: BTreeSet<String>,
    /// The pipelines of those watches: what they complete is remembered by its content.
    pub remembers: BTreeSet<String>,
    /// Watches that follow symbolic links.
    pub follows: BTreeSet<String>,
    /// By watch: how long a file has to be quiet before it counts as whole.
    pub settles: BTreeMap<String, Duration>,
}

/// One pipeline's.
#[derive(Clone)]
pub struct PipelineSettings {
    /// What does the work.
    pub processor: SharedProcessor,
    /// Executions that may run at once.
    pub concurrency: usize,
    /// How jobs are put together to executions.
    pub batch: Batching,
    /// An attempt that takes longer is ended and has failed.
    pub timeout: Duration,
    /// What follows a failure.
    pub retry: RetryPolicy,
    /// What holds it back: its breaker and its rate limit.
    pub throttle: Throttle,
}
