//! What is known of the files of a watch and what became of them, for the audit and for `explain`; and where a waiting
//! job stands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::error::Result;
use crate::clock::Timestamp;
use crate::job::{FileIdentity, JobId, SkipReason, StateName};

/// What is known of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Relative to the watch's root.
    pub relative: PathBuf,
    /// As it was when it was last taken.
    pub identity: FileIdentity,
    /// Whether it was there when last looked at.
    pub presence: Presence,
    /// How many versions of it there were.
    pub version: i64,
    /// The newest version that the pipeline was given; `None`: it was given none.
    pub taken: Option<Taken>,
}

/// Whether a file was there when last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was.
    Present,
    /// It was gone.
    Vanished,
    /// We moved it away, or removed it, after it was processed.
    Consumed,
}

/// The newest version of a file that a pipeline was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub version: i64,
    /// The job that it became.
    pub job: JobId,
    /// Where that job stands; `None`: it was pruned.
    pub state: Option<StateName>,
    /// Why it was skipped, where it was.
    pub reason: Option<SkipReason>,
}

/// How many waiting jobs of its pipeline come before a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Those of its own level.
    pub in_level: u64,
    /// Those of all levels.
    pub in_all: u64,
    /// There are more than these: they were not all counted.
    pub more: bool,
}

/// How a job stands to what came after it under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// Nothing did.
    Newest,
    /// A newer version is this job, for the same pipeline.
    Job(JobId),
    /// Another file has the name by now.
    AnotherFile,
}

/// Reads accounts. Nothing here walks the table of jobs.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// What is known of files of this watch and became of them in this pipeline: in the order of the bytes of their
    /// names, after `after`, at most `limit`.
    async fn accounts(&self, watch: &str, pipeline: &str, after: Option<PathBuf>, limit: usize)
    -> Result<Vec<Account>>;
    /// The same of these files, in their order; `None`: never heard of.
    async fn accounts_of(&self, watch: &str, pipeline: &str, names: Vec<PathBuf>) -> Result<Vec<Option<Account>>>;
    /// The newest job of this file that was added by its path, outside any watch.
    async fn added(&self, path: &Path) -> Result<Option<JobId>>;
    /// What came after this job, whose `retry` is refused where something did.
    async fn succession(&self, job: JobId) -> Result<Succession>;
    /// How many jobs come before this waiting job at this time, where a job rises a level for each `aging`.
    async fn ahead(&self, job: JobId, aging: Duration, now: Timestamp) -> Result<Ahead>;
    /// A job that is due, crashed twice in a row, and therefore has to run alone: one of these pipelines', as far as they
    /// are not paused.
    async fn due_suspect(&self, pipelines: Vec<String>, now: Timestamp) -> Result<Option<JobId>>;
}
