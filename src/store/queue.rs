//! The queue itself: enqueue, lease, renew, settle, recover.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::disposition::Disposition;
use super::error::Result;
use super::lease::{Claim, Lease};
use crate::clock::{Boottime, Timestamp};
use crate::job::{Digest, FileIdentity, IdempotencyKey, JobId, Op, Priority, SourceKey, Spent, StateName, Verdict};
use crate::run::RunId;

/// A version of a source that somebody saw, asked to become a job.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// What it is about.
    pub source: SourceKey,
    /// The pipeline that shall do it.
    pub pipeline: String,
    /// How soon.
    pub priority: Priority,
    /// Not before; `None` is now.
    pub run_at: Option<Timestamp>,
    /// What the filesystem says about the file.
    pub identity: FileIdentity,
    /// The content's digest, where it was taken; see [`Enqueued::NeedsDigest`].
    pub digest: Option<Digest>,
    /// A JSON document for the processor.
    pub metadata: Option<String>,
    /// Process it again although nothing changed.
    pub force: bool,
    /// Of a source that nobody has heard of, only take note: it is known from then on, and its changes are seen.
    pub note_only: bool,
    /// Where the source is a file that may be one known under another name.
    pub renamed: Option<Renamed>,
    /// Where a line of a list asks for it.
    pub listed: Option<Box<Listed>>,
}

/// What a line of a list says beside its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The run.
    pub run: RunId,
    /// The line, from 1, or the number that the line gives itself.
    pub line: u64,
    /// The repository that the line names.
    pub repo: Option<String>,
    /// What happened, where the line says so. A delete needs no file, and becomes a job whether or not a version of the
    /// source was ever started, unless a delete is the newest that is known of it.
    pub op: Option<Op>,
    /// The file that holds the content, where that is not the source's own path.
    pub content: Option<PathBuf>,
}

/// A file's name until now, at which there is nothing any more. The queue takes it for the same file if that is what its
/// identity, and its digest where one is known, say; else for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// Relative to the root of the same watch.
    pub from: PathBuf,
    /// Whether processors are told; else the source only moves along, and content that was processed stays so.
    pub told: bool,
}

/// What became of a [`NewJob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It is a job now.
    New {
        /// Its number.
        id: JobId,
        /// The version that it is of its source.
        version: i64,
    },
    /// This version through this pipeline is a job already.
    Known {
        /// That job's number.
        id: JobId,
        /// Where it stands.
        state: StateName,
    },
    /// This version went through this pipeline before, and its job was pruned since.
    Unchanged,
    /// As many jobs wait as may ([`Queue::offer`]): nothing was written. Ask again when some are done.
    Full,
    /// The source is known and its identity on disk changed: take the content's digest and call again with it.
    NeedsDigest,
}

/// A watched file that is no longer there.
#[derive(Clone, Debug)]
pub struct Gone {
    /// The watch's name.
    pub watch: String,
    /// Relative to its root.
    pub relative: PathBuf,
    /// The watch's pipeline.
    pub pipeline: String,
    /// Whether the watch asks for deletes.
    pub wants_job: bool,
    /// The level of the delete's job.
    pub priority: Priority,
}

/// What became of a [`Gone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vanished {
    /// Noted; it is no job, because nobody asked or nothing of it was ever started.
    Noted,
    /// The delete is a job now.
    New {
        /// Its number.
        id: JobId,
    },
    /// Nothing to note: never known, noted before, or moved away by ourselves.
    Nothing,
}

/// What of a pipeline may start now.
#[derive(Clone, Debug)]
pub struct Want {
    /// The pipeline.
    pub pipeline: String,
    /// Its free permits: executions.
    pub permits: usize,
    /// How many jobs an execution takes.
    pub batch: Batching,
}

/// How a pipeline's jobs are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Jobs that one execution takes at most; never 0.
    pub size: usize,
    /// How long a batch that is not full may wait, counted from when its first job became due.
    pub linger: Duration,
}

impl Batching {
    /// One job to each execution.
    pub const SINGLE: Self = Self { size: 1, linger: Duration::ZERO };
}

impl Want {
    /// A pipeline whose jobs are executed one by one.
    pub fn single(pipeline: impl Into<String>, permits: usize) -> Self {
        Self { pipeline: pipeline.into(), permits, batch: Batching::SINGLE }
    }
}

/// Which kind of job a lease call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    /// Jobs that have not crashed twice in a row.
    Regular,
    /// One suspect, because nothing else runs.
    OneSuspect,
}

/// What a worker needs to know about the job that it leased.
#[derive(Clone, Debug)]
pub struct Work {
    /// The job's number.
    pub job: JobId,
    /// The pipeline.
    pub pipeline: String,
    /// Where it comes from.
    pub source: SourceKey,
    /// The file, absolute.
    pub path: PathBuf,
    /// Which version of the source.
    pub version: i64,
    /// What happened to the file.
    pub op: Op,
    /// The level.
    pub priority: Priority,
    /// The number of this attempt, from 1: those spent, and one.
    pub attempt: u32,
    /// The number of this execution, from 1, spent or not.
    pub execution: u32,
    /// What the retry policy judges by.
    pub spent: Spent,
    /// What both clocks showed when it was leased.
    pub leased_at: (Timestamp, Boottime),
    /// Whether it crashed twice in a row and therefore runs alone.
    pub suspect: bool,
    /// The identity of the file that this job is about, as intake saw it.
    pub identity: FileIdentity,
    /// The content's digest, where an earlier execution or intake took it.
    pub digest: Option<Digest>,
    /// Whether it was taken of the file with this identity: that may be what another pipeline saw since.
    pub digest_of_identity: bool,
    /// The digest with which the version before this one completed, where that is known.
    pub completed_digest: Option<Digest>,
    /// The name under which processors know the file, absolute, where it was renamed since.
    pub moved_from: Option<PathBuf>,
    /// For the other side.
    pub idempotency_key: IdempotencyKey,
    /// What the caller attached.
    pub metadata: Option<String>,
    /// The file that holds the content, where that is not the source's own path.
    pub content: Option<PathBuf>,
    /// How far it had come, where its pipeline has stages.
    pub stage: Option<String>,
    /// The processor was done before, and the file was on its way: go on there.
    pub disposition: Option<Disposition>,
}

impl Work {
    /// The file that holds the content.
    pub fn file(&self) -> &Path {
        self.content.as_deref().unwrap_or(&self.path)
    }

    /// The content, as far as a look at the file's identity can tell.
    pub fn known(&self) -> Option<Content> {
        let digest = self.digest.filter(|_| self.digest_of_identity)?;
        Some(Content { identity: self.identity, digest })
    }
}

/// What a lease call found.
#[derive(Debug, Default)]
pub struct Leased {
    /// The jobs, execution by execution, first the one that comes first.
    pub work: Vec<(Lease, Work)>,
    /// How many of them each execution takes: of one pipeline and one operation.
    pub executions: Vec<usize>,
    /// When to ask again at the latest: the earliest time at which another job of the asked pipelines becomes due.
    pub next_due: Option<Timestamp>,
    /// Whether a suspect is due.
    pub suspect_due: bool,
}

/// What is known of the content that an execution worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The file as it was when its digest was taken.
    pub identity: FileIdentity,
    /// The digest.
    pub digest: Digest,
}

/// The end of an execution.
#[derive(Debug)]
pub struct Settlement {
    /// The right to end it.
    pub lease: Lease,
    /// What follows.
    pub verdict: Verdict,
    /// Exit code or HTTP status.
    pub code: Option<i32>,
    /// The tail of what it printed or was answered.
    pub output: Vec<u8>,
    /// What it worked on.
    pub content: Option<Content>,
    /// Whether the content, once completed, shall be found again ([`Contents`](super::Contents)).
    pub remember: bool,
    /// When it ended, which is before the verdict looked at the clock.
    pub finished_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
}

/// What became of a [`Settlement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Written. The state is the verdict's, except that a job whose successor waits is never tried again.
    As(StateName),
    /// The lease was taken back before; nothing was written.
    LeaseLost,
}

/// What a start found and put right.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Recovery {
    /// When.
    pub at_ms: i64,
    /// Daemons that had died.
    pub dead_boots: u64,
    /// Leases taken back.
    pub released: u64,
    /// Jobs that are suspects now.
    pub suspects: u64,
    /// Jobs given up after too many crashes while alone.
    pub failed: u64,
    /// Jobs that a newer version had superseded meanwhile.
    pub superseded: u64,
    /// Files found on their way to where `on_success` or `on_failure` send them.
    pub dispositions: u64,
    /// Steps that were begun, and of which nobody knows how they came out.
    #[serde(default)]
    pub effects: u64,
}

/// The calls by which jobs come, are worked on, and end. Each takes many at once and is one transaction,
/// shared with whatever else waits to be written.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Turns versions into jobs; the answers are in the order of the asked.
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>>;
    /// As [`Self::enqueue`], but while as many jobs wait as `queue.max_pending` allows, those that would be one more are
    /// answered [`Enqueued::Full`]. The bound is exact for what is offered; jobs that come back to wait, newer versions
    /// that a worker finds, and deletes are let in beyond it.
    async fn offer(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        self.enqueue(jobs).await
    }
    /// Notes that files are gone.
    async fn vanish(&self, gone: Vec<Gone>) -> Result<Vec<Vanished>>;
    /// Leases what is due, for at most `limit` executions in all: the pipelines take turns, in the order of `wants`, and
    /// the last one that was served comes last in the answer.
    async fn lease(&self, wants: Vec<Want>, limit: usize, appetite: Appetite) -> Result<Leased>;
    /// Prolongs leases; answers each with its new deadline, or `None` where it was lost or has expired. Does not depend
    /// on whether anything can be written just now.
    async fn renew(&self, claims: Vec<Claim>) -> Result<Vec<Option<Boottime>>>;
    /// Ends executions; the answers are in the order of the asked.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>>;
    /// Takes back the leases of this boot that were not renewed in time, but for those under which somebody still
    /// works ([`Lease::at_work`]): these when that has ended.
    async fn reclaim(&self) -> Result<u64>;
    /// Resolves when jobs may have become leasable since the future was made: make it, enable it, then query.
    fn changed(&self) -> tokio::sync::futures::OwnedNotified;
}

/// What is left to do, for a daemon that ends when everything found is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Jobs that run.
    pub running: u64,
    /// Whether jobs wait that will run by themselves: due, to be retried, deferred, or behind another.
    pub waiting: bool,
    /// Where a pipeline's program is missing: what was said about it.
    pub missing_program: Option<String>,
}

/// Tells what is left.
#[async_trait]
pub trait Backlog: Send + Sync {
    /// What is left of these pipelines, but for the paused ones and for jobs that a person put into the future.
    async fn left(&self, pipelines: Vec<String>) -> Result<Left>;
    /// Jobs that completed, and jobs that failed for good, since then.
    async fn ended(&self, since: Timestamp) -> Result<(u64, u64)>;
}
