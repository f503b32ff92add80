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
use std::time::Duration;

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
        let testimony = match &report.outcome {
            // A command that takes too long is there.
            Outcome::Failed(error) if error.kind == ErrorKind::Timeout && !calls_out => Testimony::Up,
            outcome => Testimony::of(outcome, report.code),
        };
        let meaning = self.tell(testimony, &report.outcome);
        let least = match meaning {
            Meaning::Deferred => None,
            Meaning::ProbeFailed { again_after } => Some(again_after),
            Meaning::Ordinary | Meaning::Opened | Meaning::Closed => return,
        };
        let outcome = std::mem::replace(&mut report.outcome, Outcome::Interrupted);
        report.outcome = match outcome {
            Outcome::Failed(error) => Outcome::Deferred { after: least, error },
            Outcome::Deferred { after, error } => Outcome::Deferred { after: after.max(least), error },
            other => other,
        };
    }

    fn tell(&mut self, testimony: Testimony, outcome: &Outcome) -> Meaning {
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
        let meaning = state.breaker.ended(self.claim, testimony, now);
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
            self.tell(Testimony::Nothing, &Outcome::Interrupted);
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
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::job::{Fence, JobError, JobId};

    const SECOND: Duration = Duration::from_secs(1);
    const BREAKER: config::Breaker = config::Breaker { failures: 2, cooldown: SECOND, max_cooldown: SECOND };

    struct Bench {
        clock: Arc<ManualClock>,
        warnings: Warnings,
        throttle: Throttle,
    }

    fn bench(rate: Option<config::Rate>) -> Bench {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
        let warnings = Warnings::new(clock.clone());
        let throttle = Throttle::new("hook", BREAKER, rate, clock.clone(), warnings.clone());
        Bench { clock, warnings, throttle }
    }

    fn rate(jobs: u32, burst: u32) -> config::Rate {
        config::Rate { jobs, period: SECOND, burst }
    }

    const fn claim(job: i64) -> Claim {
        Claim { job: JobId(job), fence: Fence(1) }
    }

    fn refused() -> Outcome {
        Outcome::Failed(JobError::transient(ErrorKind::Connection, "refused"))
    }

    /// Runs a job to this end; answers what it became.
    fn run(throttle: &Throttle, job: i64, outcome: Outcome) -> Outcome {
        let execution = throttle.start(claim(job));
        let mut report = Report::of(outcome);
        execution.ended(&mut report, true);
        report.outcome
    }

    fn open(bench: &Bench) {
        for job in 1..=2 {
            assert_eq!(run(&bench.throttle, job, refused()), refused(), "spent: it is not open yet");
        }
    }

    fn permits(throttle: &Throttle) -> usize {
        throttle.grant(8, Appetite::Regular).permits
    }

    #[test]
    fn while_it_is_open_one_starts_at_a_time_and_nothing_is_spent() {
        let bench = bench(None);
        let late = bench.throttle.start(claim(9));
        open(&bench);
        let grant = bench.throttle.grant(8, Appetite::Regular);
        assert_eq!(grant, Grant { permits: 0, more_at: Some(bench.clock.boottime().plus(SECOND)) });
        let mut report = Report::of(refused());
        late.ended(&mut report, true);
        assert!(matches!(report.outcome, Outcome::Deferred { after: None, .. }), "{report:?}");
        bench.clock.advance(SECOND);
        for appetite in [Appetite::Regular, Appetite::OneSuspect] {
            assert_eq!(bench.throttle.grant(8, appetite), Grant { permits: 1, more_at: None });
        }
        let probe = bench.throttle.start(claim(3));
        assert_eq!(bench.throttle.grant(8, Appetite::OneSuspect), Grant { permits: 0, more_at: None });
        let mut report = Report::of(refused());
        probe.ended(&mut report, true);
        let Outcome::Deferred { after: Some(after), .. } = report.outcome else { panic!("{report:?}") };
        assert!(after > SECOND, "the next probe is another job");
        bench.clock.advance(SECOND);
        assert_eq!(run(&bench.throttle, 4, Outcome::Done), Outcome::Done);
        assert_eq!(permits(&bench.throttle), 8);
    }

    #[test]
    fn a_warning_shows_while_it_is_open() {
        let bench = bench(None);
        open(&bench);
        let first = bench.warnings.list();
        assert!(first[0].message.contains("connection: refused"), "{first:?}");
        assert!(first[0].message.contains("1970-01-01T00:16:41.000Z"), "the next probe: {first:?}");
        bench.clock.advance(SECOND);
        run(&bench.throttle, 3, refused());
        let second = bench.warnings.list();
        assert_eq!(second[0].since, first[0].since);
        assert!(second[0].message.contains("1970-01-01T00:16:42.000Z"), "{second:?}");
        bench.clock.advance(SECOND);
        run(&bench.throttle, 4, Outcome::Done);
        assert!(bench.warnings.list().is_empty());
        let shown = bench.throttle.breaker().unwrap();
        assert_eq!((shown.state, shown.failures, shown.opened), (BreakerState::Closed, 0, 1));
    }

    #[test]
    fn a_probe_that_never_got_to_its_processor_leaves_its_place() {
        let bench = bench(None);
        open(&bench);
        bench.clock.advance(SECOND);
        let probe = bench.throttle.start(claim(3));
        assert_eq!(permits(&bench.throttle), 0);
        assert_eq!(bench.throttle.breaker().unwrap().state, BreakerState::Probing);
        drop(probe);
        assert_eq!(permits(&bench.throttle), 1);
    }

    #[test]
    fn answers_close_it_and_a_slow_command_is_one() {
        let failed = |kind| Outcome::Failed(JobError::transient(kind, ""));
        for (outcome, calls_out, closes) in [
            (failed(ErrorKind::Exit), false, true),
            (failed(ErrorKind::Timeout), false, true),
            (failed(ErrorKind::Timeout), true, false),
            (failed(ErrorKind::Unreadable), true, false),
        ] {
            let bench = bench(None);
            open(&bench);
            bench.clock.advance(SECOND);
            let mut report = Report::of(outcome.clone());
            bench.throttle.start(claim(3)).ended(&mut report, calls_out);
            assert_eq!(permits(&bench.throttle) == 8, closes, "{outcome:?}");
        }
    }

    #[test]
    fn what_the_other_side_asks_for_is_kept_where_it_is_longer() {
        let bench = bench(None);
        open(&bench);
        bench.clock.advance(SECOND);
        let error = JobError::transient(ErrorKind::Status, "503");
        let asked = Outcome::Deferred { after: Some(SECOND * 60), error };
        let mut report = Report { outcome: asked.clone(), code: Some(503), output: Vec::new() };
        bench.throttle.start(claim(3)).ended(&mut report, true);
        assert_eq!(report.outcome, asked);
        assert_eq!(permits(&bench.throttle), 0, "a 503 is a failure of the destination");
    }

    #[test]
    fn tokens_are_spent_by_starts_and_come_back_by_time_alone() {
        let bench = bench(Some(rate(2, 3)));
        assert_eq!(bench.throttle.grant(8, Appetite::Regular).permits, 3);
        for job in 0..3 {
            drop(bench.throttle.start(claim(job)));
        }
        let half = Duration::from_millis(500);
        let soon = Some(bench.clock.boottime().plus(half));
        assert_eq!(bench.throttle.grant(8, Appetite::Regular), Grant { permits: 0, more_at: soon });
        bench.clock.step_wall(Timestamp::from_millis(1 << 41));
        assert_eq!(permits(&bench.throttle), 0, "a step of the wall clock brings no tokens");
        assert_eq!(bench.throttle.rate().unwrap().tokens, 0);
        bench.clock.advance(half);
        assert_eq!(permits(&bench.throttle), 1);
        assert_eq!(bench.throttle.grant(1, Appetite::Regular), Grant { permits: 1, more_at: None });
    }

    #[test]
    fn a_suspect_borrows_one_token_and_no_second() {
        let bench = bench(Some(rate(1, 1)));
        drop(bench.throttle.start(claim(1)));
        assert_eq!(bench.throttle.grant(1, Appetite::Regular).permits, 0);
        assert_eq!(bench.throttle.grant(1, Appetite::OneSuspect).permits, 1);
        drop(bench.throttle.start(claim(2)));
        assert_eq!(bench.throttle.grant(1, Appetite::OneSuspect).permits, 0);
        bench.clock.advance(SECOND);
        assert_eq!(bench.throttle.grant(1, Appetite::Regular).permits, 0, "what was borrowed comes back first");
    }

    #[test]
    fn a_reload_forgets_neither_an_open_breaker_nor_used_tokens() {
        let old = bench(Some(rate(1, 5)));
        open(&old);
        let new = bench(Some(rate(1, 100)));
        let kept = old.throttle.going_on_as(&new.throttle, true);
        assert_eq!(permits(&kept), 0);
        assert_eq!(kept.rate().unwrap().tokens, 3);
        let running = old.throttle.start(claim(5));
        let elsewhere = kept.going_on_as(&new.throttle, false);
        assert_eq!(permits(&elsewhere), 2, "a new destination starts with a closed breaker, not with new tokens");
        assert!(old.warnings.list().is_empty());
        let mut report = Report::of(refused());
        running.ended(&mut report, true);
        assert_eq!(elsewhere.breaker().unwrap().failures, 0, "what was left says nothing about what is new");
        let free = elsewhere.going_on_as(&bench(None).throttle, true);
        assert_eq!(permits(&free), 8);
    }
}
