//! One execution of a job under one lease: look → process → dispose → verdict. (Of several together: see `batch`.)
//!
//! 1. *Look*: the file's content is digested unless that is known. Gone, unchanged, or newer than this version:
//!    the execution ends here.
//! 2. *Process*, until the processor is done, the pipeline's timeout passes, or somebody stops it.
//! 3. *Dispose*: the intent to move or delete the file is committed first, then the file goes its way. An
//!    execution that finds such an intent from before a crash goes on here.
//! 4. The retry policy makes the verdict, once. Settling it is the dispatcher's.
//!
//! Each step is bounded: the look by the filesystem's giving any answer within the pipeline's timeout, the processor by
//! that timeout, and all of it by the lease. When that is lost, everything ends at once, and until it has ended the
//! execution counts as at work, so that no other can begin.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::aside::{Aside, Beat, Unanswered};
use super::content;
use super::disposal::{self, Carried};
use super::ledger::ExecutionLedger;
use super::look::{being_written, unchanged, unreadable, unsettled};
use super::member::{Ended, Findings, Member, Ready, Unsettled};
use super::process::{STOP_PATIENCE, process, told};
use super::running::Handle;
use super::settings::{PipelineSettings, WorkerSettings};
use super::throttle::Execution;
use crate::clock::Clock;
use crate::config::Disposal;
use crate::intake::{Way, digest_file_while};
use crate::job::{Digest, ErrorKind, FileIdentity, JobError, Op, Outcome, SkipReason, SourceKey, Verdict};
use crate::processor::{Report, Task};
use crate::store::{
    AtWork, Content, Contents, Disposition, Dispositions, Effects, Intent, Lease, Queue, Settlement, Stages,
    StoreError, Work,
};

/// The pauses while an intent can't be committed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a file may be touched while it is on its way.
const TOUCHES: usize = 5;

/// What every attempt shares.
#[derive(Clone)]
pub struct Workshop {
    /// For a newer version that is noticed here.
    pub queue: Arc<dyn Queue>,
    /// For the intents.
    pub dispositions: Arc<dyn Dispositions>,
    /// For steps that are taken once.
    pub effects: Arc<dyn Effects>,
    /// For how far jobs have come.
    pub stages: Arc<dyn Stages>,
    /// For contents that were completed before.
    pub contents: Arc<dyn Contents>,
    /// Those that are at work.
    pub contents_at_work: content::AtWork,
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
    /// As of now; a reload is seen when the verdict falls.
    pub settings: watch::Receiver<Arc<WorkerSettings>>,
    /// For what may block.
    pub aside: Aside,
}

impl Workshop {
    /// Executes jobs of one pipeline and operation to their ends, one alone or several together. They count as at work
    /// under their leases from here on.
    pub fn attempt(
        self,
        mut members: Vec<Member>,
        pipeline: PipelineSettings,
        execution: Execution,
    ) -> impl Future<Output = Vec<Ended>> {
        let at_work: Vec<AtWork> = members.iter().map(|member| member.lease.at_work()).collect();
        async move {
            let alone = if members.len() == 1 && pipeline.batch.size <= 1 { members.pop() } else { None };
            let ended = match alone {
                Some(member) => vec![self.work_on(member, &pipeline, execution).await],
                None => Box::pin(self.work_on_all(members, &pipeline, execution)).await,
            };
            drop(at_work);
            ended
        }
    }

    async fn work_on(&self, member: Member, pipeline: &PipelineSettings, execution: Execution) -> Ended {
        let begun = Instant::now();
        let findings = match self.prepare(&member, pipeline, content::PATIENCE).await {
            Ok(ready) => self.execute(ready, &member.handle, pipeline, execution).await,
            Err(findings) => findings,
        };
        self.conclude(member, findings, begun).await
    }

    async fn execute(
        &self,
        ready: Ready,
        handle: &Handle,
        pipeline: &PipelineSettings,
        execution: Execution,
    ) -> Findings {
        let Ready { task, content, claim } = ready;
        let spool = task.spool.clone();
        let mut report = process(pipeline, task, handle, STOP_PATIENCE).await;
        execution.ended(&mut report, pipeline.processor.calls_out());
        if pipeline.processor.spools() {
            remove_spool(&spool);
        }
        Findings { report, content, claim, settled: None }
    }

    /// What there is to process; the findings where there is nothing. Somebody else's claim on the same content is
    /// waited for with so much patience.
    pub(super) async fn prepare(
        &self,
        member: &Member,
        pipeline: &PipelineSettings,
        patience: Duration,
    ) -> Result<Ready, Findings> {
        let Member { lease, work, handle } = member;
        if let Some(disposition) = &work.disposition {
            return Err(tokio::select! {
                findings = Box::pin(self.resume(lease, work, disposition.clone(), handle)) => findings,
                () = handle.lost().cancelled() => Findings::early(Outcome::Interrupted, None),
            });
        }
        let looked = tokio::select! {
            biased;
            looked = self.look(lease.at_work(), work, pipeline.timeout) => looked,
            () = handle.token().cancelled() => Err(told(Report::of(Outcome::Interrupted), handle).outcome),
        };
        let content = looked.map_err(|outcome| Findings::early(outcome, None))?;
        if let Some(moot) = self.moot(work, content.as_ref()).await {
            let unchanged = moot == Outcome::Moot(SkipReason::Unchanged);
            return Err(Findings::early(moot, content.filter(|_| unchanged)));
        }
        let claim = self
            .claim(lease, work, content.as_ref(), handle, patience)
            .await
            .map_err(|outcome| Findings::early(outcome, content))?;
        Ok(Ready { task: self.task(lease, work, content.as_ref(), handle), content, claim })
    }

    /// The verdict, and the file's way; whatever becomes of other jobs in the same execution.
    pub(super) async fn conclude(&self, member: Member, mut findings: Findings, begun: Instant) -> Ended {
        let Member { lease, work, handle } = member;
        if handle.lost().is_cancelled() {
            return Ended::LeaseLost(lease);
        }
        let finished_at = self.clock.now();
        let (verdict, remember) = match findings.settled.take() {
            Some(verdict) => (verdict, false),
            None => {
                let judged = async {
                    // Before the file goes its way.
                    let remember = self.is_to_be_remembered(&lease, &work, findings.content).await;
                    (self.judge(&lease, &work, &mut findings, &handle).await, remember)
                };
                tokio::select! {
                    judged = judged => judged,
                    () = handle.lost().cancelled() => return Ended::LeaseLost(lease),
                }
            }
        };
        let end = Settlement {
            lease,
            verdict,
            code: findings.report.code,
            output: findings.report.output,
            content: findings.content,
            remember,
            finished_at,
            duration: begun.elapsed(),
        };
        Ended::Verdict(Unsettled { end, work, claim: findings.claim })
    }

    /// The file's content as it is now; an outcome where there is nothing to process.
    async fn look(&self, at_work: AtWork, work: &Work, patience: Duration) -> Result<Option<Content>, Outcome> {
        if work.op == Op::Delete {
            return Ok(None);
        }
        let (way, algorithm) = (self.way(work), self.settings.borrow().digest);
        let known = work.known();
        let (seen, now, settle) = (work.identity, self.clock.now(), self.settle(work));
        let looked = self.aside.read(at_work, patience, move |beat| {
            let reached = way.to_file()?;
            let path = reached.path();
            match known {
                Some(known) if unchanged(path, &known.identity) => Ok(Ok(known)),
                _ => match settle.and_then(|settle| unsettled(path, &seen, settle, now)) {
                    Some(wait) => Ok(Err(wait)),
                    None => digest_file_while(path, algorithm, || beat.go_on()).map(Ok),
                },
            }
        });
        let failed = |kind, message| Err(Outcome::Failed(JobError::transient(kind, message)));
        match looked.await {
            Ok(Ok(Ok(content))) => Ok(Some(content)),
            Ok(Ok(Err(wait))) => Err(being_written(format!("{} is being written again", work.file().display()), wait)),
            Ok(Err(error)) => Err(unreadable(work, &error)),
            Err(error @ Unanswered::Hung(_)) => {
                failed(ErrorKind::Timeout, format!("{} can't be read: {error}", work.file().display()))
            }
            // Its own filesystem may well be healthy: nothing is spent.
            Err(error @ Unanswered::Crowded) => {
                Err(Outcome::Deferred { after: None, error: JobError::transient(ErrorKind::Io, error.to_string()) })
            }
            Err(error) => failed(ErrorKind::Io, error.to_string()),
        }
    }

    /// Whether the content, once completed, may stand for that of other files: where the pipeline remembers contents, and
    /// the file is still the one that was digested. What was replaced meanwhile may never have been read by the processor.
    async fn is_to_be_remembered(&self, lease: &Lease, work: &Work, content: Option<Content>) -> bool {
        let Some(content) = content.filter(|_| self.settings.borrow().remembers.contains(&work.pipeline)) else {
            return false;
        };
        let way = self.way(work);
        let look = move |_: &Beat| way.to_file()?.path().symlink_metadata();
        let found = self.aside.change(lease.at_work(), &work.path, look).await.map_err(io::Error::other).flatten();
        found.is_ok_and(|meta| FileIdentity::of(&meta).same_but_for_ctime(&content.identity))
    }

    /// How long the file's watch wants it to be quiet.
    fn settle(&self, work: &Work) -> Option<Duration> {
        match &work.source {
            SourceKey::Watched { watch, .. } => self.settings.borrow().settles.get(watch).copied(),
            _ => None,
        }
    }

    /// How the file is reached.
    pub(super) fn way(&self, work: &Work) -> Way {
        match &work.source {
            SourceKey::Watched { watch, relative } => {
                Way::watched(work.file(), relative, self.settings.borrow().follows.contains(watch))
            }
            _ => Way::named(work.file()),
        }
    }

    fn task(&self, lease: &Lease, work: &Work, content: Option<&Content>, handle: &Handle) -> Task {
        let (watch, relative) = match &work.source {
            SourceKey::Watched { watch, relative } => (Some(watch.clone()), relative.clone()),
            _ => (None, work.path.clone()),
        };
        // Not inside the value below, which would hold the settings while `ledger` asks for them again: with a reload that
        // waits in between, both would wait for ever.
        let spool = self.settings.borrow().spool.join(format!("{}-{}.out", work.job, lease.fence()));
        Task {
            job: work.job,
            fence: lease.fence(),
            attempt: work.attempt,
            execution: work.execution,
            pipeline: work.pipeline.clone(),
            watch,
            path: work.file().to_owned(),
            relative,
            op: work.op,
            moved_from: work.moved_from.clone(),
            size: content.map_or(0, |content| content.identity.size),
            identity: content.map(|content| content.identity),
            digest: content.map(|content| content.digest),
            idempotency_key: work.idempotency_key,
            metadata: work.metadata.clone(),
            stage: work.stage.clone(),
            spool,
            ledger: Arc::new(self.ledger(lease, work)),
            at_once: handle.at_once().clone(),
        }
    }

    fn ledger(&self, lease: &Lease, work: &Work) -> ExecutionLedger {
        ExecutionLedger {
            effects: self.effects.clone(),
            stages: self.stages.clone(),
            orders: self.settings.borrow().stages.clone(),
            claim: lease.claim(),
            key: work.idempotency_key,
        }
    }

    /// The verdict; where it is final and the file shall go somewhere, the file goes first.
    async fn judge(&self, lease: &Lease, work: &Work, findings: &mut Findings, handle: &Handle) -> Verdict {
        let outcome = std::mem::replace(&mut findings.report.outcome, Outcome::Interrupted);
        let verdict = self.policy(work, outcome);
        let (disposal, error) = match &verdict {
            // What is unchanged goes where the version before it would have gone, had it not been touched meanwhile; and
            // a duplicate's content was processed.
            Verdict::Complete | Verdict::Skip(SkipReason::Unchanged | SkipReason::Duplicate { .. }) => {
                (self.disposal(work).0, None)
            }
            Verdict::Fail { error } => (self.disposal(work).1, Some(error.clone())),
            _ => return verdict,
        };
        let Some(content) = findings.content else { return verdict };
        let relative = match &work.source {
            SourceKey::Watched { relative, .. } => relative.as_path(),
            _ => return verdict,
        };
        let fence = lease.fence();
        let Some(mut plan) = disposal::plan(work.job, fence, &work.path, relative, &disposal, content.identity) else {
            return verdict;
        };
        plan.error = error;
        // Boxed, because most executions have no file to move and need not carry the room for it.
        match Box::pin(self.dispose(lease, work, &mut plan, Some(content.digest), handle)).await {
            Ok(true) => verdict,
            Ok(false) => Verdict::Release,
            Err(error) => Box::pin(self.not_carried(lease, work, plan, Some(content.digest), error)).await,
        }
    }

    /// Commits the intent and carries it out; `false`: the lease was lost. A file that is another one by its times
    /// alone, because somebody touched it, is still the one that was processed.
    async fn dispose(
        &self,
        lease: &Lease,
        work: &Work,
        plan: &mut Disposition,
        digest: Option<Digest>,
        handle: &Handle,
    ) -> Result<bool, JobError> {
        for _ in 0..TOUCHES {
            let synced = self.sync_processed(lease, work, plan).await;
            match self.intend(lease, work, plan, handle).await? {
                Intent::Committed => {}
                Intent::Newer => return Ok(true),
                Intent::LeaseLost => return Ok(false),
            }
            if self.carry_out(lease, work, plan.clone(), synced).await? != Carried::AnotherFile {
                return Ok(true);
            }
            match self.same_content(lease, work, digest).await {
                Some(identity) => plan.identity = identity,
                None => break,
            }
        }
        self.dispositions.withdraw(lease.claim(), None).await.map_err(|error| not_committed(&error))
    }

    /// Commits the intent. The processor's work is done and must not be done again for want of room, so a database that
    /// can't be written just now is waited for, until somebody stops the attempt, whose lease is as good as lost
    /// then.
    async fn intend(
        &self,
        lease: &Lease,
        work: &Work,
        plan: &Disposition,
        handle: &Handle,
    ) -> Result<Intent, JobError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.dispositions.intend(lease.claim(), plan.clone(), work.idempotency_key).await {
                Err(error) if error.is_passing() => {
                    tokio::select! {
                        () = handle.token().cancelled() => return Ok(Intent::LeaseLost),
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    }
                }
                answer => return answer.map_err(|error| not_committed(&error)),
            }
        }
    }

    /// The identity of the file, if its content is still the one with this digest.
    async fn same_content(&self, lease: &Lease, work: &Work, digest: Option<Digest>) -> Option<FileIdentity> {
        let (way, digest) = (self.way(work), digest?);
        let read = move |beat: &Beat| digest_file_while(way.to_file()?.path(), digest.algorithm, || beat.go_on());
        let read = self.aside.change(lease.at_work(), &work.path, read).await.ok()?.ok()?;
        (read.digest == digest).then_some(read.identity)
    }

    fn policy(&self, work: &Work, outcome: Outcome) -> Verdict {
        let settings = self.settings.borrow().clone();
        let retry = settings.pipelines.get(&work.pipeline).map(|pipeline| pipeline.retry.clone()).unwrap_or_default();
        let now = self.clock.now();
        let spent = work.spent.moved_along(work.leased_at, (now, self.clock.boottime()));
        retry.judge(outcome, spent, now, fastrand::f64())
    }

    fn disposal(&self, work: &Work) -> (Disposal, Disposal) {
        let keep = || (Disposal::Keep, Disposal::Keep);
        match &work.source {
            SourceKey::Watched { watch, .. } if work.op != Op::Delete => {
                self.settings.borrow().disposals.get(watch).cloned().unwrap_or_else(keep)
            }
            _ => keep(),
        }
    }

    /// Makes what was processed last, where it is to be moved; what is deleted need not. `None`: nobody could.
    async fn sync_processed(&self, lease: &Lease, work: &Work, plan: &Disposition) -> Option<io::Result<()>> {
        let (plan, way) = (plan.clone(), self.way(work));
        let path = plan.path.clone();
        self.aside.change(lease.at_work(), &path, move |_| disposal::sync_processed(&plan, &way)).await.ok().flatten()
    }

    async fn carry_out(
        &self,
        lease: &Lease,
        work: &Work,
        disposition: Disposition,
        synced: Option<io::Result<()>>,
    ) -> Result<Carried, JobError> {
        let (path, way) = (disposition.path.clone(), self.way(work));
        self.aside
            .change(lease.at_work(), &path, move |_| disposal::carry_out(&disposition, &way, synced))
            .await
            .map_err(|error| JobError::transient(ErrorKind::Disposition, error.to_string()))?
    }

    /// The file could not go its way. The next attempt goes on there; if there is none, the file is given back. Somebody
    /// may have put another one in its place meanwhile, which no look at it may take for the one that was processed.
    async fn not_carried(
        &self,
        lease: &Lease,
        work: &Work,
        disposition: Disposition,
        digest: Option<Digest>,
        error: JobError,
    ) -> Verdict {
        let outcome = match error.kind {
            ErrorKind::Io => Outcome::Deferred { after: None, error },
            _ => Outcome::Failed(error),
        };
        let verdict = self.policy(work, outcome);
        if matches!(verdict, Verdict::Fail { .. }) {
            let (path, way, processed) = (disposition.path.clone(), self.way(work), disposition.identity);
            let given_back =
                self.aside.change(lease.at_work(), &path, move |_| disposal::give_back(&disposition, &way));
            match given_back.await.map_err(io::Error::other).flatten() {
                Ok(found) => {
                    let back = match found.filter(|found| !found.same_but_for_ctime(&processed)) {
                        // It may only have been touched.
                        Some(_) => self.same_content(lease, work, digest).await,
                        None => found,
                    };
                    if let Err(error) = self.dispositions.withdraw(lease.claim(), back).await {
                        tracing::warn!(job.id = %work.job, %error, "the intent could not be withdrawn");
                    }
                }
                Err(error) => {
                    tracing::error!(job.id = %work.job, path = %path.display(), %error, "the file could not be put back");
                }
            }
        }
        verdict
    }

    /// The processor was done before a crash or a failed move; only the file's way is left.
    async fn resume(&self, lease: &Lease, work: &Work, disposition: Disposition, handle: &Handle) -> Findings {
        let verdict = disposition.error.clone().map_or(Verdict::Complete, |error| Verdict::Fail { error });
        let mut plan = disposition;
        let verdict = match self.dispose(lease, work, &mut plan, work.digest, handle).await {
            Ok(true) => verdict,
            Ok(false) => Verdict::Release,
            Err(error) => self.not_carried(lease, work, plan, work.digest, error).await,
        };
        Findings { report: Report::of(Outcome::Done), content: None, claim: None, settled: Some(verdict) }
    }
}

fn not_committed(error: &StoreError) -> JobError {
    JobError::transient(ErrorKind::Disposition, format!("the intent could not be committed: {error}"))
}

/// The tail is kept with the attempt by now; what can't be removed is swept up later.
pub(super) fn remove_spool(spool: &Path) {
    match std::fs::remove_file(spool) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::debug!(path = %spool.display(), %error, "a spool file stays behind"),
    }
}
