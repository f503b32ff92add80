//! What holds a pipeline back, in one place that the dispatcher and the attempts share: its breaker and its rate.
//!
//! 1. Before each lease the dispatcher asks how many of a pipeline's free permits count now, and when more will.
//! 2. Each start is told, and answered with an [`Execution`]. When the processor is done, the attempt tells what that
//!    says about the destination; an execution that goes away without a word (its lease was lost, it panicked, it never
//!    got to its processor) says nothing, and leaves a probe's place.
//! 3. A failure by the destination while the breaker is open becomes a deferral, so that no attempt is spent on it.
//!
//! A pipeline without a rate whose destination has not failed lately, which is nearly every one nearly always, costs a
//! look at a flag for each of these; nothing is locked. The lock is never held over an await.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::breaker::{Breaker, Leave, Meaning, Standing};
use super::rate::Bucket;
use crate::clock::{Boottime, Clock, Timestamp};
use crate::config;
use crate::job::{ErrorKind, Outcome, Testimony};
use crate::processor::Report;
use crate::store::{Appetite, Claim};
use crate::warnings::{Severity, Warnings};

/// A pipeline's throttle; a handle, cheap to clone.
#[derive(Clone)]
pub struct Throttle {
    shared: Arc<Shared>,
    /// Which destination this handle is about: what is told of one that was left is not heard.
    destination: u64,
}

struct Shared {
    pipeline: String,
    clock: Arc<dyn Clock>,
    warnings: Warnings,
    /// The breaker is closed, and nothing has failed since the last sign of life.
    calm: AtomicBool,
    /// There is no rate.
    unlimited: AtomicBool,
    state: Mutex<State>,
}

struct State {
    destination: u64,
    breaker: Breaker,
    bucket: Option<Bucket>,
    /// Of the last opening.
    opened_at: Timestamp,
    /// What was last blamed on the destination.
    last_error: Option<String>,
}

/// How many jobs may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// As many, at most what was asked for.
    pub permits: usize,
    /// When more may; `None`: no sooner than something ends, or nothing was refused.
    pub more_at: Option<Boottime>,
}

/// A breaker, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerShown {
    /// Where it stands.
    pub state: BreakerState,
    /// Since when it is open.
    pub since: Option<Timestamp>,
    /// Failures by the destination since its last sign of life.
    pub failures: u64,
    /// The last of them.
    pub last_error: Option<String>,
    /// When the next probe may start; in the past where it only waits for a job that is due.
    pub next_probe_at: Option<Timestamp>,
    /// How often it opened since the daemon's start.
    pub opened: u64,
}

/// Where a breaker stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Jobs start as ever.
    Closed,
    /// None starts.
    Open,
    /// One runs, and decides.
    Probing,
}

/// A rate, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateShown {
    /// What it goes by.
    pub rate: config::Rate,
    /// Jobs that may start now.
    pub tokens: usize,
    /// When the next one may, where none may now.
    pub next_at: Option<Timestamp>,
}

impl Throttle {
    /// A closed breaker and a full bucket. `clock` is asked for the time since the machine's boot, and for the wall
    /// clock only to tell people.
    pub fn new(
        pipeline: &str,
        breaker: config::Breaker,
        rate: Option<config::Rate>,
        clock: Arc<dyn Clock>,
        warnings: Warnings,
    ) -> Self {
        let now = clock.boottime();
        let state = State {
            destination: 0,
            breaker: Breaker::new(breaker),
            bucket: rate.map(|rate| Bucket::full(rate, now)),
            opened_at: Timestamp::default(),
            last_error: None,
        };
        let shared = Shared {
            pipeline: pipeline.to_owned(),
            clock,
            warnings,
            calm: AtomicBool::new(true),
            unlimited: AtomicBool::new(rate.is_none()),
            state: Mutex::new(state),
        };
        Self { shared: Arc::new(shared), destination: 0 }
    }

    /// How many of these permits may be leased now. Each answer takes the place of the one before: what was started
    /// on that one has to be told first.
    ///
    /// A suspect that runs alone may borrow one token, which comes back before anybody gets another: otherwise the
    /// regular jobs, which are asked for first, could use up every token for ever.
    pub fn grant(&self, asked: usize, appetite: Appetite) -> Grant {
        let everything = Grant { permits: asked, more_at: None };
        if asked == 0 || self.is_free() {
            return everything;
        }
        let now = self.shared.clock.boottime();
        let state = self.lock();
        let permits = match state.breaker.leave(now) {
            Leave::Any => asked,
            Leave::One => 1,
            Leave::NoneUntil(until) => return Grant { permits: 0, more_at: Some(until) },
            Leave::NoneYet => return Grant { permits: 0, more_at: None },
        };
        let Some(bucket) = &state.bucket else { return Grant { permits, more_at: None } };
        let borrowed = usize::from(appetite == Appetite::OneSuspect && !bucket.owes(now));
        let tokens = bucket.available(now).max(borrowed);
        let more_at = if tokens < permits { bucket.when(tokens + 1) } else { None };
        Grant { permits: permits.min(tokens), more_at }
    }

    /// A job was leased and starts.
    pub fn start(&self, claim: Claim) -> Execution {
        if !self.is_free() {
            let now = self.shared.clock.boottime();
            let mut state = self.lock();
            state.breaker.started(claim, now);
            if let Some(bucket) = &mut state.bucket {
                bucket.take(1, now);
            }
        }
        Execution { throttle: self.clone(), claim, told: false }
    }

    /// This throttle under the limits of a new one. Where the destination is another one, its breaker is closed, and
    /// what is still told of the old one counts no more.
    pub fn going_on_as(&self, new: &Self, same_destination: bool) -> Self {
        let (policy, rate) = {
            let new = new.lock();
            (new.breaker.policy(), new.bucket.as_ref().map(Bucket::rate))
        };
        let now = self.shared.clock.boottime();
        let mut state = self.lock();
        if !same_destination {
            state.destination += 1;
            state.breaker.reset();
        }
        state.breaker.change(policy, now);
        state.bucket = match (state.bucket.take(), rate) {
            (Some(mut bucket), Some(rate)) => {
                bucket.change(rate, now);
                Some(bucket)
            }
            (_, rate) => rate.map(|rate| Bucket::full(rate, now)),
        };
        self.shared.unlimited.store(state.bucket.is_none(), Ordering::Release);
        self.shared.calm.store(state.breaker.is_calm(), Ordering::Release);
        self.shared.tell(&state, now);
        Self { shared: self.shared.clone(), destination: state.destination }
    }

    /// The pipeline is gone.
    pub fn retire(&self) {
        // What still runs of it is no longer heard, or it would warn again.
        let mut state = self.lock();
        state.destination += 1;
        self.shared.warnings.clear(&self.shared.key());
    }

    /// The breaker, for people; `None` where it is turned off.
    pub fn breaker(&self) -> Option<BreakerShown> {
        let state = self.lock();
        let (open, next_probe) = match state.breaker.standing()? {
            Standing::Closed => (BreakerState::Closed, None),
            Standing::Open { next_probe } => (BreakerState::Open, Some(next_probe)),
            Standing::Probing => (BreakerState::Probing, None),
        };
        Some(BreakerShown {
            state: open,
            since: (open != BreakerState::Closed).then_some(state.opened_at),
            failures: state.breaker.failures(),
            last_error: state.last_error.clone().filter(|_| state.breaker.failures() > 0),
            next_probe_at: next_probe.map(|at| self.shared.wall(at)),
            opened: state.breaker.opened(),
        })
    }

    /// The rate, for people; `None` where there is no limit.
    pub fn rate(&self) -> Option<RateShown> {
        let now = self.shared.clock.boottime();
        let state = self.lock();
        let bucket = state.bucket.as_ref()?;
        let tokens = bucket.available(now);
        let next_at = bucket.when(1).filter(|_| tokens == 0).map(|at| self.shared.wall(at));
        Some(RateShown { rate: bucket.rate(), tokens, next_at })
    }

    fn is_free(&self) -> bool {
        self.shared.calm.load(Ordering::Acquire) && self.shared.unlimited.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An execution that was started, for as long as nothing was said of its end.
#[must_use = "an execution that is dropped says that it never got to its processor"]
pub struct Execution {
    throttle: Throttle,
    claim: Claim,
    told: bool,
}

impl Execution {
    /// The processor is done. A failure by the destination while the breaker is open becomes a deferral in the report,
    /// that of a probe for as long as the breaker waits for the next one; everything else stays as it is.
    pub fn ended(mut self, report: &mut Report, calls_out: bool) {
        self.heard(self.claim, report, calls_out);
    }

    /// The same of one call among several of the execution, the one about the job of this claim and others with it.
    /// `true`: the destination is to blame, and its breaker is open.
    pub fn heard(&mut self, claim: Claim, report: &mut Report, calls_out: bool) -> bool {
        let testimony = match &report.outcome {
            // A command that takes too long is there.
            Outcome::Failed(error) if error.kind == ErrorKind::Timeout && !calls_out => Testimony::Up,
            outcome => Testimony::of(outcome, report.code),
        };
        let least = match self.tell(claim, testimony, &report.outcome) {
            Meaning::Ordinary | Meaning::Closed => return false,
            Meaning::Opened => return true,
            Meaning::Deferred => None,
            Meaning::ProbeFailed { again_after } => Some(again_after),
        };
        let outcome = std::mem::replace(&mut report.outcome, Outcome::Interrupted);
        report.outcome = match outcome {
            Outcome::Failed(error) => Outcome::Deferred { after: least, error },
            Outcome::Deferred { after, error } => Outcome::Deferred { after: after.max(least), error },
            other => other,
        };
        true
    }

    /// The lease under which it was started.
    pub const fn claim(&self) -> Claim {
        self.claim
    }

    fn tell(&mut self, claim: Claim, testimony: Testimony, outcome: &Outcome) -> Meaning {
        self.told = true;
        let shared = &self.throttle.shared;
        // Good news is no news, and silence is none while there is no probe.
        if testimony != Testimony::Down && shared.calm.load(Ordering::Acquire) {
            return Meaning::Ordinary;
        }
        let now = shared.clock.boottime();
        let mut state = self.throttle.lock();
        if state.destination != self.throttle.destination {
            return Meaning::Ordinary;
        }
        let meaning = state.breaker.ended(claim, testimony, now);
        if let (Testimony::Down, Outcome::Failed(error) | Outcome::Deferred { error, .. }) = (testimony, outcome) {
            state.last_error = Some(error.to_string());
        }
        if meaning == Meaning::Opened {
            state.opened_at = shared.clock.now();
        }
        shared.calm.store(state.breaker.is_calm(), Ordering::Release);
        // Under the lock, so that what is told last is what happened last.
        match meaning {
            Meaning::Opened | Meaning::Closed | Meaning::ProbeFailed { .. } => shared.tell(&state, now),
            Meaning::Ordinary | Meaning::Deferred => {}
        }
        meaning
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        if !self.told {
            self.tell(self.claim, Testimony::Nothing, &Outcome::Interrupted);
        }
    }
}

impl Shared {
    fn key(&self) -> String {
        format!("pipeline.{}.breaker", self.pipeline)
    }

    /// Says that the breaker is open, or that it no longer is. The warning appears once for each opening; of what
    /// follows only its words know.
    fn tell(&self, state: &State, now: Boottime) {
        let next = match state.breaker.standing() {
            None | Some(Standing::Closed) => return self.warnings.clear(&self.key()),
            Some(Standing::Open { next_probe }) if next_probe > now => format!("the next at {}", self.wall(next_probe)),
            Some(Standing::Open { .. } | Standing::Probing) => "the next now".to_owned(),
        };
        let error = state.last_error.as_deref().unwrap_or("its destination fails");
        let message = format!(
            "pipeline `{}`: breaker open, {error}; since {} its jobs wait, one at a time is tried, {next}",
            self.pipeline, state.opened_at
        );
        self.warnings.reword(&self.key(), message.clone());
        self.warnings.set(&self.key(), Severity::Warning, message);
    }

    /// A time since the machine's boot, by the wall clock as it is now.
    fn wall(&self, at: Boottime) -> Timestamp {
        let (now, wall) = (self.clock.boottime(), self.clock.now());
        if at >= now { wall.plus(at.since(now)) } else { wall.minus(now.since(at)) }
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("pipeline", &self.shared.pipeline).finish_non_exhaustive()
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution").field("claim", &self.claim).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
