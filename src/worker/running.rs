//! What runs now: each attempt's claim, and the ways to stop it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::clock::{Boottime, Timestamp};
use crate::job::JobId;
use crate::store::{Claim, Work};

/// Why an attempt is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The daemon stops, or a person paused the pipeline with `--now`: nothing is spent.
    Interrupted,
    /// A person cancelled the job.
    Cancelled,
    /// The lease was taken back, or could not be renewed in time: nothing may be written.
    LeaseLost,
}

/// The dispatcher's end of an attempt.
#[derive(Clone, Debug)]
pub struct Handle {
    stop: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
    deadline: Arc<AtomicI64>,
}

impl Handle {
    /// A handle of an attempt whose lease ends at `deadline` unless renewed.
    pub fn new(deadline: Boottime) -> Self {
        Self {
            stop: CancellationToken::new(),
            reason: Arc::default(),
            deadline: Arc::new(AtomicI64::new(deadline.as_millis())),
        }
    }

    /// Asks the attempt to stop; the first reason counts.
    pub fn stop(&self, reason: StopReason) {
        // A second reason comes too late to change what the first one means.
        let _ = self.reason.set(reason);
        self.stop.cancel();
    }

    /// Cancelled when the attempt shall stop.
    pub fn token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Why, once it was asked to.
    pub fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }

    /// When the lease ends unless renewed.
    pub fn deadline(&self) -> Boottime {
        Boottime::from_millis(self.deadline.load(Ordering::Relaxed))
    }

    /// Notes that the lease was renewed.
    pub fn renewed(&self, deadline: Boottime) {
        self.deadline.store(deadline.as_millis(), Ordering::Relaxed);
    }
}

/// A running job, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RunningJob {
    /// The job.
    pub id: JobId,
    /// The lease's fence.
    pub fence: i64,
    /// Its pipeline.
    pub pipeline: String,
    /// Its file.
    pub path: String,
    /// Since when.
    pub started_at: Timestamp,
}

#[derive(Debug)]
struct Entry {
    claim: Claim,
    handle: Handle,
    shown: RunningJob,
    suspect: bool,
}

/// Every attempt that lives.
#[derive(Debug, Default)]
pub struct Running {
    entries: BTreeMap<JobId, Entry>,
}

impl Running {
    /// Adds an attempt.
    pub fn insert(&mut self, claim: Claim, work: &Work, handle: Handle, now: Timestamp) {
        let shown = RunningJob {
            id: work.job,
            fence: claim.fence.0,
            pipeline: work.pipeline.clone(),
            path: work.path.to_string_lossy().into_owned(),
            started_at: now,
        };
        self.entries.insert(work.job, Entry { claim, handle, shown, suspect: work.suspect });
    }

    /// Removes the attempt of exactly this lease.
    pub fn remove(&mut self, claim: Claim) {
        if self.entries.get(&claim.job).is_some_and(|entry| entry.claim == claim) {
            self.entries.remove(&claim.job);
        }
    }

    /// How many live.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many live of one pipeline.
    pub fn of_pipeline(&self, name: &str) -> usize {
        self.entries.values().filter(|entry| entry.shown.pipeline == name).count()
    }

    /// Whether a suspect is among them, and so alone.
    pub fn has_suspect(&self) -> bool {
        self.entries.values().any(|entry| entry.suspect)
    }

    /// Every lease that is held.
    pub fn claims(&self) -> Vec<Claim> {
        self.entries.values().map(|entry| entry.claim).collect()
    }

    /// The handle of exactly this lease.
    pub fn handle(&self, claim: Claim) -> Option<&Handle> {
        self.entries.get(&claim.job).filter(|entry| entry.claim == claim).map(|entry| &entry.handle)
    }

    /// Stops those that `which` chooses; answers how many.
    pub fn stop(&self, reason: StopReason, which: impl Fn(&RunningJob) -> bool) -> usize {
        let chosen = self.entries.values().filter(|entry| which(&entry.shown));
        chosen.map(|entry| entry.handle.stop(reason)).count()
    }

    /// What runs, for people.
    pub fn shown(&self) -> Vec<RunningJob> {
        self.entries.values().map(|entry| entry.shown.clone()).collect()
    }
}
