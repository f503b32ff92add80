//! What runs now: each job's claim, and the ways to stop its execution. Executions are what permits are counted by; one
//! may be about many jobs.

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

/// The dispatcher's end of a job's attempt.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    /// Shared by the jobs of one execution, as is `at_once`: what stops one of them stops it.
    stop: CancellationToken,
    at_once: CancellationToken,
    /// This job's alone, as is everything below.
    lost: CancellationToken,
    reason: OnceLock<StopReason>,
    deadline: AtomicI64,
}

impl Handle {
    /// A handle of an attempt whose lease ends at `deadline` unless renewed.
    pub fn new(deadline: Boottime) -> Self {
        let lost = CancellationToken::new();
        Self::of(CancellationToken::new(), lost.clone(), lost, deadline)
    }

    /// The handles of the jobs of one execution.
    pub fn together(deadlines: impl ExactSizeIterator<Item = Boottime>) -> Vec<Self> {
        if deadlines.len() == 1 {
            return deadlines.map(Self::new).collect();
        }
        let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
        deadlines.map(|deadline| Self::of(stop.clone(), at_once.clone(), CancellationToken::new(), deadline)).collect()
    }

    fn of(stop: CancellationToken, at_once: CancellationToken, lost: CancellationToken, deadline: Boottime) -> Self {
        let (reason, deadline) = (OnceLock::new(), AtomicI64::new(deadline.as_millis()));
        Self(Arc::new(Ends { stop, at_once, lost, reason, deadline }))
    }

    /// Asks the execution to stop, for this job's sake; the first reason counts. A lost lease outweighs every other,
    /// and leaves no time.
    pub fn stop(&self, reason: StopReason) {
        // A second reason comes too late to change what the first one means.
        let _ = self.0.reason.set(reason);
        self.0.stop.cancel();
        if reason == StopReason::LeaseLost {
            self.0.lost.cancel();
            self.0.at_once.cancel();
        }
    }

    /// Cancelled when the execution shall stop, for the sake of any of its jobs.
    pub fn token(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Cancelled when a lease of the execution is lost, and what it does has to end at once.
    pub fn at_once(&self) -> &CancellationToken {
        &self.0.at_once
    }

    /// Cancelled when the job itself has no lease any more, and nothing may be written about it.
    pub fn lost(&self) -> &CancellationToken {
        &self.0.lost
    }

    /// Why, once it was asked to for the sake of this job.
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

/// Every execution that lives, and its jobs. What is asked at every turn is counted, not looked for.
#[derive(Debug, Default)]
pub struct Running {
    entries: BTreeMap<JobId, Entry>,
    by_pipeline: BTreeMap<String, usize>,
    executions: usize,
    suspects: usize,
}

/// An execution that counts as running, until it is given back to [`Running::remove`].
#[derive(Debug)]
#[must_use = "it counts for ever unless it is given back"]
pub struct Execution {
    claims: Vec<Claim>,
    /// The first job's: all are of its pipeline.
    work: Arc<Work>,
}

impl Running {
    /// Adds an execution: this job, and those that it is executed with.
    pub fn insert(
        &mut self,
        first: (Claim, Arc<Work>, Handle),
        others: impl IntoIterator<Item = (Claim, Arc<Work>, Handle)>,
        now: Timestamp,
    ) -> Execution {
        let work = first.1.clone();
        match self.by_pipeline.get_mut(&work.pipeline) {
            Some(n) => *n += 1,
            None => drop(self.by_pipeline.insert(work.pipeline.clone(), 1)),
        }
        self.executions += 1;
        self.suspects += usize::from(work.suspect);
        let mut claims = Vec::with_capacity(1);
        for (claim, work, handle) in std::iter::once(first).chain(others) {
            claims.push(claim);
            self.entries.insert(work.job, Entry { claim, handle, work, started_at: now });
        }
        Execution { claims, work }
    }

    /// Removes an execution; answers its leases.
    pub fn remove(&mut self, execution: Execution) -> Vec<Claim> {
        let Execution { claims, work } = execution;
        self.executions -= 1;
        self.suspects -= usize::from(work.suspect);
        if let Some(n) = self.by_pipeline.get_mut(&work.pipeline) {
            *n -= 1;
        }
        for claim in &claims {
            // A job that was leased again meanwhile is another execution's.
            if let btree_map::Entry::Occupied(entry) = self.entries.entry(claim.job)
                && entry.get().claim == *claim
            {
                entry.remove();
            }
        }
        claims
    }

    /// How many executions live.
    pub fn len(&self) -> usize {
        self.executions
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.executions == 0
    }

    /// How many executions live of one pipeline.
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
            leased_at: (Timestamp::from_millis(0), Boottime::from_millis(0)),
            suspect: false,
            identity: nothing,
            digest: None,
            digest_of_identity: false,
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
            let _ = running.insert((claim, Arc::new(work(job)), handle.clone()), [], Timestamp::from_millis(0));
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

    #[test]
    fn an_execution_of_many_jobs_counts_once_and_each_of_its_jobs_can_be_stopped() {
        let mut running = Running::default();
        let deadlines = [100, 200, 300].map(Boottime::from_millis);
        let handles = Handle::together(deadlines.into_iter());
        let mut members = (1..)
            .zip(&handles)
            .map(|(job, handle)| (Claim { job: JobId(job), fence: Fence(1) }, Arc::new(work(job)), handle.clone()));
        let execution = running.insert(members.next().unwrap(), members, Timestamp::from_millis(0));
        assert_eq!((running.len(), running.of_pipeline("p"), running.claims().len()), (1, 1, 3));
        assert_eq!(running.stop(StopReason::Cancelled, |work| work.job == JobId(2)), 1);
        assert!(handles.iter().all(|handle| handle.token().is_cancelled() && !handle.at_once().is_cancelled()));
        assert_eq!(handles[1].reason(), Some(StopReason::Cancelled));
        assert_eq!((handles[0].reason(), handles[2].reason()), (None, None));
        assert_eq!(running.remove(execution).len(), 3);
        assert_eq!((running.len(), running.of_pipeline("p"), running.claims().len()), (0, 0, 0));
    }

    #[test]
    fn the_lost_lease_of_one_job_ends_all_at_once_and_takes_only_its_own_right_to_write() {
        let handles = Handle::together([100, 200].map(Boottime::from_millis).into_iter());
        handles[0].stop(StopReason::LeaseLost);
        assert!(handles.iter().all(|handle| handle.token().is_cancelled() && handle.at_once().is_cancelled()));
        assert!(handles[0].lost().is_cancelled() && !handles[1].lost().is_cancelled());
        assert_eq!(handles[1].reason(), None);
    }
}
