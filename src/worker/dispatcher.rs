//! The dispatcher: one loop that leases, hands out, gathers and settles.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alarm::{Alarm, Steps, until_boottime, until_due};
use super::attempt::Workshop;
use super::command::{Command, Handles, obey};
use super::given::remove_used_up;
use super::member::{Ended, Member, Unsettled};
use super::running::{self, Handle, Running, StopReason};
use super::settings::{PipelineSettings, WorkerSettings};
use super::throttle::Grant;
use super::told::{Settling, Told, report};
use crate::clock::{Boottime, Timestamp};
use crate::job::{ErrorKind, Verdict};
use crate::lifecycle::Pulse;
use crate::store::{Appetite, Lease, Leased, StoreError, Want, Work};
use crate::warnings::{Severity, Warnings};

/// The first pause after the store refused; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the last ends of executions may take to be written at a stop.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// A lease this close to its end is given up rather than worked on.
const LEASE_MARGIN: Duration = Duration::from_millis(500);

/// When the pool stops.
#[derive(Clone, Debug)]
pub struct Stops {
    /// No further job is leased.
    pub draining: CancellationToken,
    /// What still runs is stopped and released.
    pub interrupt: CancellationToken,
}

/// The pool.
pub struct Dispatcher {
    workshop: Workshop,
    commands: mpsc::Receiver<Command>,
    stops: Stops,
    pulse: Pulse,
    executions: JoinSet<Vec<Ended>>,
    by_task: HashMap<Id, running::Execution>,
    warnings: Warnings,
    /// Pipelines whose program was missing the last time.
    programless: BTreeSet<String>,
    running: Running,
    /// Ends that wait to be settled.
    ended: Vec<Unsettled>,
    /// Ends that the store was handed and has not answered: at once as a rule, later while the disk is full.
    settling: FuturesUnordered<BoxFuture<'static, Settling>>,
    pause: Option<Duration>,
    heartbeat: Instant,
    /// Goes off shortly before the first lease ends that was not renewed.
    alarm: Alarm,
    /// `None` where the kernel can't tell.
    steps: Option<Steps>,
    interrupted: bool,
    /// A suspect is due: nothing further starts until it can run alone.
    quiesce: bool,
    /// The pipeline that was served last: the next turn begins with the one after it.
    served: Option<String>,
    /// When a pipeline that is held back may start more jobs.
    throttled_until: Option<Boottime>,
}

/// What woke the loop.
enum Woken {
    /// Something may be leasable.
    Hungry,
    /// Only to look around.
    Idle,
}

impl Dispatcher {
    /// A pool that works until `stops` say otherwise. Needs a runtime.
    ///
    /// # Errors
    /// The process has too many files open for a timer.
    pub fn new(workshop: Workshop, stops: Stops, pulse: Pulse, warnings: Warnings) -> std::io::Result<(Self, Handles)> {
        let (handles, commands) = Handles::new();
        let dispatcher = Self {
            workshop,
            commands,
            stops,
            pulse,
            executions: JoinSet::new(),
            by_task: HashMap::new(),
            warnings,
            programless: BTreeSet::new(),
            running: Running::default(),
            ended: Vec::new(),
            settling: FuturesUnordered::new(),
            pause: None,
            heartbeat: Instant::now(),
            alarm: Alarm::new()?,
            steps: Steps::new().ok(),
            interrupted: false,
            quiesce: false,
            served: None,
            throttled_until: None,
        };
        Ok((dispatcher, handles))
    }

    /// Works until told to stop and everything has ended.
    ///
    /// # Errors
    /// The store failed for good.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut hungry = true;
        let mut next_due: Option<Timestamp> = None;
        let mut changed = self.interest();
        loop {
            // Once everything else has ended, a suspect's turn has come.
            while hungry || !self.ended.is_empty() || (self.quiesce && self.running.is_empty() && self.may_lease()) {
                hungry = false;
                // Interest first, then the question: what changes in between, or while the loop is busy with something
                // else, wakes the wait below. It is renewed here alone, so that no change is ever forgotten.
                changed = self.interest();
                next_due = self.turn().await?;
            }
            if self.stops.draining.is_cancelled() && self.running.is_empty() && self.ended.is_empty() {
                return self.settle_rest().await;
            }
            if self.running.is_empty() {
                self.heartbeat = Instant::now() + self.heartbeat_period();
            }
            // What is rare and urgent comes first: under load there is always an attempt that has just ended.
            let woken = tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.heartbeat), if !self.running.is_empty() => { self.renew().await?; Woken::Idle }
                () = self.alarm.gone_off() => { self.stop_late(); Woken::Idle }
                () = self.stops.interrupt.cancelled(), if !self.interrupted => { self.interrupt(); Woken::Idle }
                () = self.stops.draining.cancelled(), if self.may_lease() => Woken::Idle,
                () = self.pulse.asked() => { self.pulse.beat(); Woken::Idle }
                Some(command) = self.commands.recv() => { obey(&self.running, command); Woken::Idle }
                Ok(()) = self.workshop.settings.changed() => Woken::Hungry,
                Some(settled) = self.settling.next() => { report(settled)?; Woken::Idle }
                Some(ended) = self.executions.join_next_with_id() => { self.gather(ended); Woken::Hungry }
                () = &mut changed => Woken::Hungry,
                () = until_due(&*self.workshop.clock, next_due, self.steps.as_ref()), if self.may_lease() => Woken::Hungry,
                () = until_boottime(&*self.workshop.clock, self.throttled_until), if self.may_lease() => Woken::Hungry,
            };
            hungry = matches!(woken, Woken::Hungry);
            while let Some(ended) = self.executions.try_join_next_with_id() {
                self.gather(ended);
            }
        }
    }

    /// Resolves when jobs may have become leasable since now.
    fn interest(&self) -> Pin<Box<OwnedNotified>> {
        let mut changed = Box::pin(self.workshop.queue.changed());
        changed.as_mut().enable();
        changed
    }

    fn heartbeat_period(&self) -> Duration {
        self.workshop.settings.borrow().lease / 3
    }

    fn may_lease(&self) -> bool {
        !self.stops.draining.is_cancelled()
    }

    /// Settles what has gathered together with the next lease, and starts what was leased.
    async fn turn(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let ends = std::mem::take(&mut self.ended);
        let (wants, limit, appetite) = self.appetite();
        let queue = self.workshop.queue.clone();
        let lease = async {
            if limit == 0 || wants.is_empty() { Ok(None) } else { queue.lease(wants, limit, appetite).await.map(Some) }
        };
        self.hand_in(ends);
        tokio::pin!(lease);
        let leased = loop {
            tokio::select! {
                biased;
                Some(settled) = self.settling.next() => report(settled)?,
                leased = &mut lease => break leased,
                // Another process may hold the database's lock for a while; the loop is alive all the same, and so are
                // the leases.
                () = tokio::time::sleep_until(self.heartbeat), if !self.running.is_empty() => self.renew().await?,
                () = self.alarm.gone_off() => self.stop_late(),
                () = self.pulse.asked() => self.pulse.beat(),
                Some(command) = self.commands.recv() => obey(&self.running, command),
            }
        };
        match leased {
            Ok(Some(leased)) => Ok(self.begin(leased, appetite)),
            // The suspect's pipeline is held back meanwhile, and who waited for it is asked for at once.
            Ok(None) if appetite == Appetite::OneSuspect => {
                self.quiesce = false;
                Ok(Some(self.workshop.clock.now()))
            }
            // Nothing may start, and nothing was learned: a suspect that waits for quiet goes on waiting.
            Ok(None) => Ok(None),
            Err(error) if error.is_fatal() => Err(error),
            Err(error) => Ok(Some(self.back_off(&error))),
        }
    }

    /// Hands ends to the store. The call is made by the first poll, before the lease's, so that both share a commit.
    fn hand_in(&mut self, ended: Vec<Unsettled>) {
        if ended.is_empty() {
            return;
        }
        let workshop = self.workshop.clone();
        let contents = self.workshop.settings.borrow().contents.clone();
        let (mut ends, mut told) = (Vec::with_capacity(ended.len()), Vec::with_capacity(ended.len()));
        for Unsettled { end, work, claim: content } in ended {
            self.note_program(&work.pipeline, &end.verdict);
            let (claim, verdict, took) = (end.lease.claim(), end.verdict.clone(), end.duration);
            told.push(Told { claim, work, verdict, took, content });
            ends.push(end);
        }
        self.settling.push(Box::pin(async move {
            let answer = workshop.queue.settle(ends).await;
            if let Ok(answers) = &answer {
                workshop.take_what_came_back(&told).await;
                remove_used_up(&contents, &told, answers).await;
            }
            Settling { ends: told, answer }
        }));
    }

    /// Waits for the last answers, but not for a disk that stays full.
    async fn settle_rest(&mut self) -> Result<(), StoreError> {
        while !self.settling.is_empty() {
            match tokio::time::timeout(LAST_ANSWER, self.settling.next()).await {
                Ok(Some(settled)) => report(settled)?,
                Ok(None) => break,
                Err(_) => {
                    tracing::error!(
                        "the last ends of executions are not written yet; if they can't be before the exit, those jobs \
                         run again"
                    );
                    break;
                }
            }
        }
        Ok(())
    }

    /// How many executions may start, of which pipelines.
    fn appetite(&mut self) -> (Vec<Want>, usize, Appetite) {
        self.throttled_until = None;
        let settings = self.workshop.settings.borrow();
        let limit = settings.concurrency.unwrap_or(usize::MAX).saturating_sub(self.running.len());
        let waits_for_quiet = self.quiesce && !self.running.is_empty();
        if !self.may_lease() || self.running.has_suspect() || waits_for_quiet {
            return (Vec::new(), 0, Appetite::Regular);
        }
        let appetite = if self.quiesce { Appetite::OneSuspect } else { Appetite::Regular };
        let mut wants = Vec::new();
        for (name, pipeline) in &settings.pipelines {
            let grant = grant(&self.running, name, pipeline, appetite);
            self.throttled_until = self.throttled_until.into_iter().chain(grant.more_at).min();
            if grant.permits > 0 {
                wants.push(Want { pipeline: name.clone(), permits: grant.permits, batch: pipeline.batch });
            }
        }
        // They stand in the order of their names; the turns go on where they ended, or the first name would win every
        // single permit.
        let after = wants.partition_point(|want| self.served.as_ref().is_some_and(|served| want.pipeline <= *served));
        wants.rotate_left(after);
        let total = wants.iter().map(|want| want.permits).sum::<usize>().min(limit);
        (wants, if self.quiesce { total.min(1) } else { total }, appetite)
    }

    fn begin(&mut self, leased: Leased, appetite: Appetite) -> Option<Timestamp> {
        self.pause = None;
        let Leased { work, executions, next_due, suspect_due } = leased;
        // What runs now is let end, then the suspect has its turn, then everybody else again: neither starves.
        self.quiesce = suspect_due && appetite == Appetite::Regular;
        if appetite == Appetite::OneSuspect && work.is_empty() {
            // It was cancelled or paused before its turn came, and who waited for it is asked for at once.
            return Some(self.workshop.clock.now());
        }
        if let Some((_, work)) = work.last() {
            self.served = Some(work.pipeline.clone());
        }
        let settings = self.workshop.settings.borrow().clone();
        let now = self.workshop.clock.now();
        let mut work = work.into_iter();
        for jobs in executions {
            self.start(work.by_ref().take(jobs).collect(), &settings, now);
        }
        self.ask_throttles(&settings, appetite);
        next_due
    }

    /// When pipelines that are held back may start more, now that some of what they may has started.
    fn ask_throttles(&mut self, settings: &WorkerSettings, appetite: Appetite) {
        for (name, pipeline) in &settings.pipelines {
            let more_at = grant(&self.running, name, pipeline, appetite).more_at;
            self.throttled_until = self.throttled_until.into_iter().chain(more_at).min();
        }
    }

    /// Starts an execution of these jobs, all of one pipeline.
    fn start(&mut self, jobs: Vec<(Lease, Work)>, settings: &WorkerSettings, now: Timestamp) {
        let handles = Handle::together(jobs.iter().map(|(lease, _)| lease.deadline()));
        let members = jobs.into_iter().zip(handles);
        let members: Vec<Member> =
            members.map(|((lease, work), handle)| Member { lease, work: Arc::new(work), handle }).collect();
        let Some(first) = members.first() else { return };
        let Some(pipeline) = settings.pipelines.get(&first.work.pipeline).cloned() else {
            // A reload took the pipeline away between the question and the answer: back to where they were.
            self.ended.extend(members.into_iter().map(|member| member.put_back(now)));
            return;
        };
        if first.work.suspect {
            tracing::warn!(job.id = %first.work.job, "crashed twice in a row; running it alone");
        }
        // They were leased together, so the leases end together.
        let (claim, deadline) = (first.lease.claim(), first.lease.deadline());
        let entry = |member: &Member| (member.lease.claim(), member.work.clone(), member.handle.clone());
        let running = self.running.insert(entry(first), members.iter().skip(1).map(entry), now);
        self.set_alarm(deadline);
        let execution = pipeline.throttle.start(claim);
        let task = self.executions.spawn(self.workshop.clone().attempt(members, pipeline, execution));
        self.by_task.insert(task.id(), running);
    }

    fn gather(&mut self, ended: Result<(Id, Vec<Ended>), tokio::task::JoinError>) {
        let task = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(execution) = self.by_task.remove(&task) else { return };
        let claims = self.running.remove(execution);
        let ends = match ended {
            Ok((_, ends)) => ends,
            // Their leases are gone with it, run out, and are taken back.
            Err(error) => {
                let jobs = claims.iter().map(|claim| claim.job.to_string()).collect::<Vec<_>>().join(", ");
                return tracing::error!(job.id = %jobs, %error, "an execution panicked");
            }
        };
        for end in ends {
            match end {
                Ended::Verdict(end) => self.ended.push(end),
                Ended::LeaseLost(lease) => {
                    tracing::warn!(job.id = %lease.job(), fence = %lease.fence(), "lease lost; the attempt was stopped");
                }
            }
        }
    }

    /// A program that is missing is a warning for as long as the pipeline's attempts end so.
    fn note_program(&mut self, pipeline: &str, verdict: &Verdict) {
        let key = || format!("pipeline.{pipeline}.program");
        match verdict {
            Verdict::Defer { error, .. } | Verdict::Fail { error } if error.kind == ErrorKind::Spawn => {
                self.warnings.set(&key(), Severity::Warning, format!("pipeline `{pipeline}`: {}", error.message));
                self.programless.insert(pipeline.to_owned());
            }
            Verdict::Release | Verdict::Cancel | Verdict::Skip(_) => {}
            _ if self.programless.remove(pipeline) => self.warnings.clear(&key()),
            _ => {}
        }
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        self.heartbeat = Instant::now() + self.heartbeat_period();
        let claims = self.running.claims();
        match self.workshop.queue.renew(claims.clone()).await {
            Ok(answers) => {
                for (claim, answer) in claims.into_iter().zip(answers) {
                    let Some(handle) = self.running.handle(claim) else { continue };
                    match answer {
                        Some(deadline) => handle.renewed(deadline),
                        None => handle.stop(StopReason::LeaseLost),
                    }
                }
                Ok(())
            }
            Err(error) if error.is_fatal() => Err(error),
            Err(error) => {
                tracing::warn!(leases = claims.len(), %error, "leases could not be renewed; trying again");
                Ok(())
            }
        }
    }

    /// Sees to it that the alarm goes off before this deadline; as a rule it is set for an earlier one.
    fn set_alarm(&mut self, deadline: Boottime) {
        // What is that close counts as late.
        let now = self.workshop.clock.boottime().plus(LEASE_MARGIN);
        if let Err(error) = self.alarm.set(deadline, now) {
            // Renewals still find out, a third of a lease apart.
            tracing::error!(%error, "no alarm can be set for the ends of leases");
        }
    }

    /// Stops what was not renewed in time.
    fn stop_late(&mut self) {
        if let Some(next) = self.running.stop_late(self.workshop.clock.boottime().plus(LEASE_MARGIN)) {
            self.set_alarm(next);
        }
    }

    fn interrupt(&mut self) {
        self.interrupted = true;
        let n = self.running.stop(StopReason::Interrupted, |_| true);
        if n > 0 {
            tracing::info!(attempts = n, "stopping what still runs; nothing is spent");
        }
    }

    /// When to ask again after the store refused.
    fn back_off(&mut self, error: &StoreError) -> Timestamp {
        // That the database can't be written at all is told once, by whoever watches that.
        if self.pause.is_none() && !error.is_passing() {
            tracing::warn!(%error, "no jobs can be leased; trying again until they can");
        }
        let pause = self.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.pause = Some(pause);
        self.quiesce = false;
        self.workshop.clock.now().plus(pause)
    }
}

/// How many of a pipeline's free permits count now.
fn grant(running: &Running, name: &str, pipeline: &PipelineSettings, appetite: Appetite) -> Grant {
    pipeline.throttle.grant(pipeline.concurrency.saturating_sub(running.of_pipeline(name)), appetite)
}
