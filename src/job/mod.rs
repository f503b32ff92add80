//! The job: one durable unit of work, *this version of this source, through this pipeline*.
//!
//! Pure values, without I/O. A job's life:
//!
//! ```text
//!   pending ──lease──▶ running ──done──────▶ completed
//!      ▲                 │ ├──permanent────▶ failed      (a person's retry reopens failed and cancelled)
//!      │◀─defer, release─┘ ├──cancel───────▶ cancelled
//!      │   crash           ├──moot─────────▶ skipped
//!   retrying ◀──transient──┘
//! ```

mod effect;
mod id;
mod key;
mod outcome;
mod priority;
mod retry;
mod source;
mod state;
mod wire_path;

pub use effect::{
    CanonicalJson, Effect, EffectError, EffectId, EffectKey, EffectKind, EffectState, LARGEST_CONTEXT_BYTES,
    LARGEST_RESULT_BYTES, Step,
};
pub use id::{Fence, JobId};
pub use key::{IdempotencyKey, Incarnation};
pub use outcome::{ErrorKind, JobError, Outcome, Testimony, Verdict};
pub use priority::Priority;
pub use retry::{Jitter, RetryPolicy, Spent};
pub use source::{Digest, DigestAlgorithm, FileIdentity, Op, SourceKey};
pub use state::{SkipReason, State, StateName, UnknownName};
pub use wire_path::WirePath;

use std::path::PathBuf;

use crate::clock::Timestamp;
use crate::run::RunId;

/// A job as the queue tells it: what it is about, and the state it is in.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number, never used again.
    pub id: JobId,
    /// The pipeline that does it.
    pub pipeline: String,
    /// The watch that found the file; `None` for jobs that a person or a list added.
    pub watch: Option<String>,
    /// The file, absolute.
    pub path: PathBuf,
    /// The file relative to its watch's root; the whole path where there is no watch.
    pub relative: PathBuf,
    /// What happened to the file.
    pub op: Op,
    /// The name under which processors knew the file until then, absolute, where it was renamed.
    pub moved_from: Option<PathBuf>,
    /// Which version of its source it is, from 1.
    pub version: i64,
    /// How soon it wants to run.
    pub priority: Priority,
    /// Where it stands, with the facts that are true there.
    pub state: State,
    /// Attempts spent; a success counts.
    pub attempt: u32,
    /// Executions begun, spent or not.
    pub executions: u32,
    /// Crashes in a row.
    pub crashes: u32,
    /// When it becomes or became due.
    pub run_at: Timestamp,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When its newest execution began.
    pub started_at: Option<Timestamp>,
    /// When it reached a final state.
    pub finished_at: Option<Timestamp>,
    /// The file's size as last seen.
    pub size_bytes: Option<u64>,
    /// The content's digest, once taken.
    pub digest: Option<Digest>,
    /// The key that the other side may use to recognise a repetition.
    pub idempotency_key: IdempotencyKey,
    /// What the caller attached, a JSON document.
    pub metadata: Option<String>,
    /// The run of the list that asked for it, its line there, and the repository that the line names.
    pub run: Option<RunId>,
    /// See `run`.
    pub line: Option<u64>,
    /// See `run`.
    pub repo: Option<String>,
    /// The file that holds the content, where that is not `path`.
    pub content: Option<PathBuf>,
    /// How far it has come, where its pipeline has stages.
    pub stage: Option<String>,
    /// The name that the other side gave it.
    pub external_id: Option<String>,
    /// What the other side answered, a JSON document.
    pub result: Option<String>,
    /// Of a duplicate: the file whose content it repeats, under the name that it has now, if it is still known.
    pub original: Option<PathBuf>,
    /// The newest error.
    pub error: Option<JobError>,
}
