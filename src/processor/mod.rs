//! What does the work: the trait, and the registry of kinds.

mod answers;
pub mod children;
mod description;
mod environment;
mod exec;
mod http;
mod ledger;
mod noop;
mod output;
mod registry;
mod template;

pub use answers::Answers;
pub use environment::{BATCH_VARIABLE, ChildEnvironment, DATABASE_VARIABLE};
pub use exec::ExecProcessor;
pub use http::HttpProcessor;
pub use ledger::{Intended, Ledger, LedgerError};
pub use noop::NoopProcessor;
pub use registry::{BuildError, build};
pub use template::{Template, TemplateError};

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::job::{Digest, Fence, FileIdentity, IdempotencyKey, JobId, Op, Outcome};

/// What a processor is told of a job: everything it may know, and nothing of the queue.
#[derive(Clone, Debug)]
pub struct Task {
    /// The job's number.
    pub job: JobId,
    /// The number of the lease under which it is worked on: whoever writes about the execution names it.
    pub fence: Fence,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The execution, from 1, spent or not.
    pub execution: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// The watch's name; `None` for jobs that were added.
    pub watch: Option<String>,
    /// The file, absolute.
    pub path: PathBuf,
    /// Relative to the watch's root; the whole path where there is no watch.
    pub relative: PathBuf,
    /// What happened to it.
    pub op: Op,
    /// The name under which processors know it, absolute, where it was renamed since.
    pub moved_from: Option<PathBuf>,
    /// Its size; zero for a delete.
    pub size: u64,
    /// Its content's digest; `None` for a delete.
    pub digest: Option<Digest>,
    /// The file as it was when it was looked at for this execution, where there is one.
    pub identity: Option<FileIdentity>,
    /// For the other side.
    pub idempotency_key: IdempotencyKey,
    /// What the caller attached, a JSON document.
    pub metadata: Option<String>,
    /// How far it had come when this execution began, where its pipeline has stages.
    pub stage: Option<String>,
    /// The file in the state directory into which the attempt's output goes while it lives.
    pub spool: PathBuf,
    /// Where steps that are taken once are recorded.
    pub ledger: Arc<dyn Ledger>,
    /// Cancelled, together with `stop`, when there is no right to work on it any more: no grace then.
    pub at_once: CancellationToken,
}

/// What an execution came to.
#[derive(Debug)]
pub struct Report {
    /// What happened.
    pub outcome: Outcome,
    /// Exit code or HTTP status.
    pub code: Option<i32>,
    /// The tail of what was printed or answered, at most the pipeline's `output`.
    pub output: Vec<u8>,
}

impl Report {
    /// A report without code and output.
    pub const fn of(outcome: Outcome) -> Self {
        Self { outcome, code: None, output: Vec::new() }
    }
}

/// What an execution of several tasks came to.
#[derive(Debug)]
pub struct BatchReport {
    /// What holds for every task that is not named.
    pub whole: Report,
    /// What was said of single tasks, by job.
    pub named: HashMap<JobId, Outcome>,
}

impl BatchReport {
    /// The same for every task, without code and output.
    pub fn of(outcome: Outcome) -> Self {
        Self { whole: Report::of(outcome), named: HashMap::new() }
    }
}

/// The idempotency key of several tasks together: SHA-256 over their keys (32 bytes each), one after the other in the
/// order of the batch.
pub fn batch_key(tasks: &[&Task]) -> IdempotencyKey {
    let mut hash = Sha256::new();
    for task in tasks {
        hash.update(task.idempotency_key.0);
    }
    IdempotencyKey(hash.finalize().into())
}

/// Something that works on one job, or on several at once.
#[async_trait]
pub trait Processor: Send + Sync {
    /// Works on the task until it is done or `stop` is cancelled. Once cancelled it has to leave nothing behind
    /// that still works, and returns soon (see also [`Task::at_once`]); what it then reports is ignored but for `code` and `output`. The
    /// pipeline's timeout arrives as such a cancellation too.
    async fn process(&self, task: Task, stop: CancellationToken) -> Report;

    /// Works on several tasks of one pipeline and operation in one go, by the same rules; at least one. What it is not
    /// made for is done one by one.
    async fn process_batch(&self, tasks: &[&Task], stop: CancellationToken) -> BatchReport {
        let mut named = HashMap::with_capacity(tasks.len());
        for task in tasks {
            named.insert(task.job, self.process((*task).clone(), stop.clone()).await.outcome);
        }
        BatchReport { whole: Report::of(Outcome::Done), named }
    }

    /// Whether somebody else does the work, so that a timeout is to be blamed on them.
    fn calls_out(&self) -> bool {
        false
    }

    /// Whether it shows its output live in the task's spool file.
    fn spools(&self) -> bool {
        false
    }
}

/// A processor that many tasks share.
pub type SharedProcessor = Arc<dyn Processor>;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A task about a file, as intake would find it in the watch `inbox`.
    pub(crate) fn task(path: &str) -> Task {
        Task {
            job: JobId(1),
            fence: Fence(1),
            attempt: 1,
            execution: 1,
            pipeline: "docs".to_owned(),
            watch: Some("inbox".to_owned()),
            path: path.into(),
            relative: path.trim_start_matches('/').into(),
            op: Op::Add,
            moved_from: None,
            size: 0,
            digest: None,
            identity: None,
            idempotency_key: IdempotencyKey([7; 32]),
            metadata: None,
            stage: None,
            spool: PathBuf::new(),
            ledger: Arc::new(ledger::tests::Memory::default()),
            at_once: CancellationToken::new(),
        }
    }
}
