//! What runs now: each attempt's claim, and the ways to stop it.

use std::collections::{BTreeMap, btree_map};
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
pub struct Handle(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    stop: CancellationToken,
    lost: CancellationToken,
    reason: OnceLock<StopReason>,
    deadline: AtomicI64,
}

impl Handle {
    /// A handle of an attempt whose lease ends at `deadline` unless renewed.
    pub fn new(deadline: Boottime) -> Self {
        Self(Arc::new(Ends {
            stop: CancellationToken::new(),
            lost: CancellationToken::new(),
            reason: OnceLock::new(),
            deadline: AtomicI64::new(deadline.as_millis()),
        }))
    }

    /// Asks the attempt to stop; the first reason counts. A lost lease outweighs every other, and leaves no time.
    pub fn stop(&self, reason: StopReason) {
        // A second reason comes too late to change what the first one means.
        let _ = self.0.reason.set(reason);
        self.0.stop.cancel();
        if reason == StopReason::LeaseLost {
            self.0.lost.cancel();
        }
    }

    /// Cancelled when the attempt shall stop.
    pub fn token(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Cancelled when the attempt has no lease any more, and what it does has to end at once.
    pub fn lost(&self) -> &CancellationToken {
        &self.0.lost
    }

    /// Why, once it was asked to.
    pub fn reason(&self) -> Option<StopReason> {
        self.0.reason.get().copied()
    }

    /// When the lease ends unless renewed.
    pub fn deadline(&self) -> Boottime {
        Boottime::from_millis(self.0.deadline.load(Ordering::Relaxed))
    }

    /// Notes that the lease was renewed.
    pub fn renewed(&self, deadline: Boottime) {
        self.0.deadline.store(deadline.as_millis(), Ordering::Relaxed);
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
    /// Whether it crashed twice in a row and therefore runs alone.
    pub suspect: bool,
    /// Its file.
    pub path: String,
    /// Since when.
    pub started_at: Timestamp,
}

#[derive(Debug)]
struct Entry {
    claim: Claim,
    handle: Handle,
    work: Arc<Work>,
    started_at: Timestamp,
}

/// Every attempt that lives. What is asked at every turn is counted, not looked for.
#[derive(Debug, Default)]
pub struct Running {
    entries: BTreeMap<JobId, Entry>,
    by_pipeline: BTreeMap<String, usize>,
    suspects: usize,
}

impl Running {
    /// Adds an attempt.
    pub fn insert(&mut self, claim: Claim, work: Arc<Work>, handle: Handle, now: Timestamp) {
        match self.by_pipeline.get_mut(&work.pipeline) {
            Some(n) => *n += 1,
            None => drop(self.by_pipeline.insert(work.pipeline.clone(), 1)),
        }
        self.suspects += usize::from(work.suspect);
        let older = self.entries.insert(work.job, Entry { claim, handle, work, started_at: now });
        if let Some(older) = older {
            self.uncount(&older);
        }
    }

    /// Removes the attempt of exactly this lease.
    pub fn remove(&mut self, claim: Claim) {
        if let btree_map::Entry::Occupied(entry) = self.entries.entry(claim.job)
            && entry.get().claim == claim
        {
            let entry = entry.remove();
            self.uncount(&entry);
        }
    }

    fn uncount(&mut self, entry: &Entry) {
        self.suspects -= usize::from(entry.work.suspect);
        if let Some(n) = self.by_pipeline.get_mut(&entry.work.pipeline) {
            *n -= 1;
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
        self.by_pipeline.get(name).copied().unwrap_or(0)
    }

    /// Whether a suspect is among them, and so alone.
    pub fn has_suspect(&self) -> bool {
        self.suspects > 0
    }

    /// Every lease that is held.
    pub fn claims(&self) -> Vec<Claim> {
        self.entries.values().map(|entry| entry.claim).collect()
    }

    /// Stops those whose leases end by `limit`; answers when the first of the others does.
    pub fn stop_late(&self, limit: Boottime) -> Option<Boottime> {
        let mut earliest = None;
        for entry in self.entries.values() {
            let deadline = entry.handle.deadline();
            if deadline <= limit {
                entry.handle.stop(StopReason::LeaseLost);
            } else {
                earliest = Some(earliest.map_or(deadline, |earliest: Boottime| earliest.min(deadline)));
            }
        }
        earliest
    }

    /// The handle of exactly this lease.
    pub fn handle(&self, claim: Claim) -> Option<&Handle> {
        self.entries.get(&claim.job).filter(|entry| entry.claim == claim).map(|entry| &entry.handle)
    }

    /// Stops those that `which` chooses; answers how many.
    pub fn stop(&self, reason: StopReason, which: impl Fn(&Work) -> bool) -> usize {
        let chosen = self.entries.values().filter(|entry| which(&entry.work));
        chosen.map(|entry| entry.handle.stop(reason)).count()
    }

    /// What runs, for people.
    pub fn shown(&self) -> Vec<RunningJob> {
        self.entries.values().map(Entry::shown).collect()
    }
}

impl Entry {
    fn shown(&self) -> RunningJob {
        RunningJob {
            id: self.work.job,
            fence: self.claim.fence.0,
            pipeline: self.work.pipeline.clone(),
            suspect: self.work.suspect,
            path: self.work.path.to_string_lossy().into_owned(),
            started_at: self.started_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Fence, IdempotencyKey, Op, Priority, SourceKey, Spent};

    fn work(job: i64) -> Work {
        let nothing = crate::job::FileIdentity { dev: 0, inode: 0, size: 0, mtime_ns: 0, ctime_ns: 0 };
        Work {
            job: JobId(job),
            pipeline: "p".to_owned(),
            source: SourceKey::Path("/a".into()),
            path: "/a".into(),
            version: 1,
            op: Op::Add,
            priority: Priority::Normal,
            attempt: 1,
            execution: 1,
            spent: Spent { attempts: 0, deferrals: 0, first_started_at: Timestamp::from_millis(0) },
            suspect: false,
            identity: nothing,
            digest: None,
            completed_digest: None,
            moved_from: None,
            idempotency_key: IdempotencyKey([0; 32]),
            metadata: None,
            content: None,
            stage: None,
            disposition: None,
        }
    }

    #[test]
    fn what_is_late_is_stopped_and_the_next_deadline_is_told() {
        let mut running = Running::default();
        let deadlines = [100, 300, 200];
        let handles: Vec<Handle> = deadlines.iter().map(|ms| Handle::new(Boottime::from_millis(*ms))).collect();
        for (job, handle) in (1..).zip(&handles) {
            let claim = Claim { job: JobId(job), fence: Fence(1) };
            running.insert(claim, Arc::new(work(job)), handle.clone(), Timestamp::from_millis(0));
        }
        assert_eq!(running.stop_late(Boottime::from_millis(150)), Some(Boottime::from_millis(200)));
        assert_eq!(handles[0].reason(), Some(StopReason::LeaseLost));
        assert!(handles[0].lost().is_cancelled() && !handles[1].token().is_cancelled());
        assert_eq!(running.stop_late(Boottime::from_millis(300)), None);
        assert!(handles.iter().all(|handle| handle.lost().is_cancelled()));
    }

    #[test]
    fn a_lost_lease_outweighs_what_the_attempt_was_stopped_for() {
        let handle = Handle::new(Boottime::from_millis(0));
        handle.stop(StopReason::Interrupted);
        assert!(handle.token().is_cancelled() && !handle.lost().is_cancelled());
        handle.stop(StopReason::LeaseLost);
        assert!(handle.lost().is_cancelled());
    }
}
