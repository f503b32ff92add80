//! Why a job does not run, or why it ended as it did.
//!
//! A waiting job may be held by several things at once. They are told in the order in which they bind: what stops the
//! whole daemon first, then what stops its pipeline, then what stops this one, and last what only makes it wait its
//! turn. Taking the first away shows the next to be the one that binds.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::Pipeline;
use crate::control::{BreakerCondition, LiveBreaker, LiveRate, LiveStatus};
use crate::gate::Shut;
use crate::job::{ErrorKind, Job, JobError, JobId, State};
use crate::run::RunId;
use crate::store::{Ahead, Attempt};

/// Crashes in a row after which a job runs alone.
const SUSPECT: u32 = 2;

/// What is known about a job and about what could hold it.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The job.
    pub job: &'a Job,
    /// The last of its executions that ended.
    pub last: Option<&'a Attempt>,
    /// The time.
    pub now: Timestamp,
    /// Its pipeline, where the configuration defines it.
    pub pipeline: Option<&'a Pipeline>,
    /// Whether a person paused that.
    pub paused: bool,
    /// The run over a list that it is of, where a person paused that.
    pub paused_run: Option<RunId>,
    /// `queue.concurrency`.
    pub concurrency: Option<usize>,
    /// The daemon's word; `None`: none runs.
    pub daemon: Option<&'a LiveStatus>,
    /// What waits before it.
    pub ahead: Ahead,
    /// A job that is due and has to run alone.
    pub due_suspect: Option<JobId>,
    /// Jobs of its pipeline that end, per second.
    pub rate_per_s: f64,
}

/// Something that holds a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// No daemon runs on the database.
    NoDaemon,
    /// The daemon stops, and starts nothing any more.
    Stopping,
    /// Another process holds the database's lock: no lease can be written.
    Locked,
    /// The disk of the database is full: no lease can be written.
    NoRoom,
    /// The configuration does not define its pipeline.
    Undefined,
    /// A person paused its pipeline.
    Paused,
    /// A person paused its run.
    RunPaused(RunId),
    /// This job of an older version of its file runs, or has its file on its way.
    Blocked(JobId),
    /// It is not due before this time.
    NotDue(Timestamp, Why),
    /// It crashed twice in a row and runs alone, after these.
    Alone(Vec<JobId>),
    /// This one has to run alone, and nothing starts beside or before it.
    Quiet(JobId),
    /// Its destination is down, as far as is known.
    Breaker(LiveBreaker),
    /// As many started as its pipeline's rate allows.
    Rate(LiveRate),
    /// As many of its pipeline run as may: these.
    Concurrency(usize, Vec<JobId>),
    /// As many run as may at all: these.
    QueueConcurrency(usize, Vec<JobId>),
    /// Others of its pipeline come first; and how long those take, at the pace of the last five minutes.
    Behind(Ahead, Option<Duration>),
}

/// Why a job is due later.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// Whoever enqueued it said so.
    Asked,
    /// An attempt failed: the next one follows after a wait.
    Retry(JobError),
    /// It was put off, at no cost to its attempts.
    Deferred(Option<JobError>),
}

/// By which rule a job was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// This exit code is permanent; it is this item of the list, where it still stands there.
    ExitCode(i32, Option<usize>),
    /// This HTTP status says that trying again can't help.
    Status(Option<i32>),
    /// It took the daemon down too often while it ran alone.
    Crashes,
    /// This kind of error is met by every attempt.
    Permanent(ErrorKind),
    /// It had as many attempts as it may.
    Attempts,
    /// It was tried for as long as it may be.
    Elapsed,
}

impl Facts<'_> {
    /// Everything that holds a waiting job, the binding one first; empty: nothing does, and it starts at the dispatcher's
    /// next turn.
    pub fn holds(&self) -> Vec<Hold> {
        let mut holds = Vec::new();
        holds.extend(self.daemon_holds());
        if self.pipeline.is_none() {
            holds.push(Hold::Undefined);
        }
        if self.paused {
            holds.push(Hold::Paused);
        }
        holds.extend(self.paused_run.map(Hold::RunPaused));
        holds.extend(self.own_holds());
        if let Some(live) = self.daemon {
            holds.extend(self.pool_holds(live));
        }
        if self.ahead.in_all > 0 && self.is_due() {
            holds.push(Hold::Behind(self.ahead, self.estimate()));
        }
        holds
    }

    fn daemon_holds(&self) -> Vec<Hold> {
        let Some(live) = self.daemon else { return vec![Hold::NoDaemon] };
        let told = [
            (live.stopping, Hold::Stopping),
            (live.locked, Hold::Locked),
            (live.shut.contains(&Shut::DatabaseFull), Hold::NoRoom),
        ];
        told.into_iter().filter_map(|(holds, hold)| holds.then_some(hold)).collect()
    }

    fn own_holds(&self) -> Vec<Hold> {
        let mut holds = Vec::new();
        if let State::Pending { blocked_by: Some(by), .. } = self.job.state {
            holds.push(Hold::Blocked(by));
        }
        if self.job.run_at > self.now {
            holds.push(Hold::NotDue(self.job.run_at, self.why_later()));
        }
        holds
    }

    fn why_later(&self) -> Why {
        match &self.job.state {
            State::Retrying { error, .. } => Why::Retry(error.clone()),
            _ if self.last.is_some_and(|last| last.outcome == "deferred") => Why::Deferred(self.job.error.clone()),
            _ => Why::Asked,
        }
    }

    /// What the pool says to a job of this pipeline, were it due.
    fn pool_holds(&self, live: &LiveStatus) -> Vec<Hold> {
        let mut holds = Vec::new();
        let all: Vec<JobId> = live.running.iter().map(|job| job.id).collect();
        let alone = live.running.iter().find(|job| job.suspect).map(|job| job.id).or(self.due_suspect);
        if self.job.crashes >= SUSPECT {
            holds.push(Hold::Alone(all.clone()));
        } else if let Some(suspect) = alone {
            holds.push(Hold::Quiet(suspect));
        }
        let throttle = live.throttles.get(&self.job.pipeline);
        let breaker = throttle.and_then(|throttle| throttle.breaker.clone());
        holds.extend(breaker.filter(|breaker| breaker.state != BreakerCondition::Closed).map(Hold::Breaker));
        let rate = throttle.and_then(|throttle| throttle.rate.clone());
        holds.extend(rate.filter(|rate| rate.tokens == 0).map(Hold::Rate));
        let of_pipeline = live.running.iter().filter(|job| job.pipeline == self.job.pipeline);
        let mine: Vec<JobId> = of_pipeline.map(|job| job.id).collect();
        if let Some(pipeline) = self.pipeline.filter(|pipeline| mine.len() >= pipeline.concurrency) {
            holds.push(Hold::Concurrency(pipeline.concurrency, mine));
        }
        if let Some(limit) = self.concurrency.filter(|limit| all.len() >= *limit) {
            holds.push(Hold::QueueConcurrency(limit, all));
        }
        holds
    }

    fn is_due(&self) -> bool {
        self.job.run_at <= self.now && !matches!(self.job.state, State::Pending { blocked_by: Some(_), .. })
    }

    fn estimate(&self) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "an estimate; counts of jobs stay far below 2^52")]
        let seconds = self.ahead.in_all as f64 / self.rate_per_s;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The rule by which a failed job was given up, as far as its history and today's configuration tell it.
    pub fn given_up(&self, error: &JobError) -> GivenUp {
        let code = self.last.and_then(|last| last.code);
        match (error.kind, error.permanent, code) {
            (ErrorKind::Crash, _, _) => GivenUp::Crashes,
            (ErrorKind::Exit, true, Some(code)) => GivenUp::ExitCode(code, self.permanent_code(code)),
            (ErrorKind::Status, true, code) => GivenUp::Status(code),
            (kind, true, _) => GivenUp::Permanent(kind),
            _ if self.pipeline.is_some_and(|pipeline| self.job.attempt >= pipeline.retry.max_attempts) => {
                GivenUp::Attempts
            }
            _ => GivenUp::Elapsed,
        }
    }

    fn permanent_code(&self, code: i32) -> Option<usize> {
        match &self.pipeline?.kind {
            crate::config::ProcessorKind::Exec(exec) => {
                exec.permanent_exit_codes.iter().position(|other| *other == code)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
