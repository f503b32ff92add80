//! The circuit breaker of a pipeline, as a state machine. Pure; the time comes by parameter, and chance plays no part.
//!
//! ```text
//!            enough different jobs fail by the destination, none succeeds between
//!   closed ───────────────────────────────────────────────────────────────────▶ open ◀────────┐
//!     ▲                                                          its time comes: │            │ the probe fails:
//!     │                                                               one starts ▼            │ twice the time
//!     └──────────────── any execution finds the destination up ─────────────── probing ───────┘
//! ```
//!
//! 1. *Different jobs*: one document whose request makes the server fail, however often it is tried, never opens it.
//! 2. Nothing else starts while it is open. What ran when it opened may still end, and close it.
//! 3. A probe that ends without a word about the destination (stopped, nothing to do, its file unreadable) leaves its
//!    place to the next one at once.
//! 4. Probes are not spread by chance: there is one breaker for each pipeline, not a crowd of clients to be parted.

use std::time::Duration;

use crate::clock::Boottime;
use crate::config::Breaker as Policy;
use crate::job::{JobId, Testimony};
use crate::store::Claim;

/// See the module.
#[derive(Clone, Debug)]
pub struct Breaker {
    policy: Policy,
    phase: Phase,
    /// Failures by the destination since the last sign of life.
    failures: u64,
    opened: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The jobs that failed in a row, each once.
    Closed(Vec<JobId>),
    Open {
        /// The time between probes.
        cooldown: Duration,
        next_probe: Boottime,
        probe: Option<Claim>,
    },
}

/// How many jobs may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// As many as may otherwise.
    Any,
    /// A probe.
    One,
    /// None until then.
    NoneUntil(Boottime),
    /// None until the probe has ended.
    NoneYet,
}

/// What the end of an execution means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing that the breaker has a say in.
    Ordinary,
    /// The failure that opened it. Its attempt is spent, as those before it were.
    Opened,
    /// A failure while it is open: no attempt is spent.
    Deferred,
    /// The same, of the probe.
    ProbeFailed {
        /// The wait until the next probe and a little more, so that the next one is another job if there is one,
        /// whatever their priorities: one job that always fails must not keep the breaker open.
        again_after: Duration,
    },
    /// The destination is back.
    Closed,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Jobs start as ever.
    Closed,
    /// None starts.
    Open {
        /// When one does.
        next_probe: Boottime,
    },
    /// One runs, and decides.
    Probing,
}

impl Breaker {
    /// A closed one.
    pub const fn new(policy: Policy) -> Self {
        Self { policy, phase: Phase::Closed(Vec::new()), failures: 0, opened: 0 }
    }

    /// How many jobs may start now.
    pub fn leave(&self, now: Boottime) -> Leave {
        match &self.phase {
            Phase::Closed(_) => Leave::Any,
            Phase::Open { probe: Some(_), .. } => Leave::NoneYet,
            Phase::Open { next_probe, .. } if now < *next_probe => Leave::NoneUntil(*next_probe),
            Phase::Open { .. } => Leave::One,
        }
    }

    /// An execution starts; while a probe is due, it is the probe.
    pub fn started(&mut self, claim: Claim, now: Boottime) {
        if let Phase::Open { next_probe, probe: probe @ None, .. } = &mut self.phase
            && now >= *next_probe
        {
            *probe = Some(claim);
        }
    }

    /// An execution ended.
    pub fn ended(&mut self, claim: Claim, testimony: Testimony, now: Boottime) -> Meaning {
        match testimony {
            Testimony::Up => self.close(),
            Testimony::Down => self.failed(claim, now),
            Testimony::Nothing => {
                if let Phase::Open { probe, .. } = &mut self.phase
                    && *probe == Some(claim)
                {
                    *probe = None;
                }
                Meaning::Ordinary
            }
        }
    }

    fn close(&mut self) -> Meaning {
        self.failures = 0;
        match std::mem::replace(&mut self.phase, Phase::Closed(Vec::new())) {
            Phase::Closed(_) => Meaning::Ordinary,
            Phase::Open { .. } => Meaning::Closed,
        }
    }

    fn failed(&mut self, claim: Claim, now: Boottime) -> Meaning {
        if self.policy.failures == 0 {
            return Meaning::Ordinary;
        }
        self.failures = self.failures.saturating_add(1);
        match &mut self.phase {
            Phase::Closed(jobs) => {
                if !jobs.contains(&claim.job) {
                    jobs.push(claim.job);
                }
                if jobs.len() < usize::try_from(self.policy.failures).unwrap_or(usize::MAX) {
                    return Meaning::Ordinary;
                }
                let cooldown = self.policy.cooldown;
                self.phase = Phase::Open { cooldown, next_probe: now.plus(cooldown), probe: None };
                self.opened += 1;
                Meaning::Opened
            }
            Phase::Open { cooldown, next_probe, probe } if *probe == Some(claim) => {
                *cooldown = cooldown.saturating_mul(2).min(self.policy.max_cooldown);
                *next_probe = now.plus(*cooldown);
                *probe = None;
                Meaning::ProbeFailed { again_after: cooldown.saturating_add(*cooldown / 10) }
            }
            Phase::Open { .. } => Meaning::Deferred,
        }
    }

    /// Goes by another policy from now on. An open breaker stays open, and waits no longer than the new policy would
    /// let it; one that is turned off closes.
    pub fn change(&mut self, policy: Policy, now: Boottime) {
        self.policy = policy;
        if policy.failures == 0 {
            self.close();
        }
        if let Phase::Open { cooldown, next_probe, .. } = &mut self.phase {
            *cooldown = (*cooldown).clamp(policy.cooldown, policy.max_cooldown.max(policy.cooldown));
            *next_probe = (*next_probe).min(now.plus(*cooldown));
        }
    }

    /// The destination is another one: nothing is known of it.
    pub fn reset(&mut self) {
        self.close();
    }

    /// Where it stands; `None` where it is turned off.
    pub const fn standing(&self) -> Option<Standing> {
        if self.policy.failures == 0 {
            return None;
        }
        Some(match &self.phase {
            Phase::Closed(_) => Standing::Closed,
            Phase::Open { probe: Some(_), .. } => Standing::Probing,
            Phase::Open { next_probe, .. } => Standing::Open { next_probe: *next_probe },
        })
    }

    /// Whether it is closed, and nothing has failed since the last sign of life.
    pub const fn is_calm(&self) -> bool {
        matches!(&self.phase, Phase::Closed(jobs) if jobs.is_empty())
    }

    /// Failures by the destination since the last sign of life.
    pub const fn failures(&self) -> u64 {
        self.failures
    }

    /// How often it opened.
    pub const fn opened(&self) -> u64 {
        self.opened
    }

    /// What it goes by.
    pub const fn policy(&self) -> Policy {
        self.policy
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::Fence;

    const POLICY: Policy =
        Policy { failures: 3, cooldown: Duration::from_secs(10), max_cooldown: Duration::from_secs(35) };

    const fn at(seconds: i64) -> Boottime {
        Boottime::from_millis(seconds * 1_000)
    }

    const fn claim(job: i64) -> Claim {
        Claim { job: JobId(job), fence: Fence(1) }
    }

    fn opened_at(seconds: i64) -> Breaker {
        let mut breaker = Breaker::new(POLICY);
        for job in 1..=2 {
            assert_eq!(breaker.ended(claim(job), Testimony::Down, at(seconds)), Meaning::Ordinary);
        }
        assert_eq!(breaker.ended(claim(3), Testimony::Down, at(seconds)), Meaning::Opened);
        breaker
    }

    #[test]
    fn it_opens_after_that_many_different_jobs_in_a_row() {
        let breaker = opened_at(0);
        assert_eq!(breaker.leave(at(9)), Leave::NoneUntil(at(10)));
        assert_eq!(breaker.standing(), Some(Standing::Open { next_probe: at(10) }));
        assert_eq!((breaker.failures(), breaker.opened()), (3, 1));
    }

    #[test]
    fn one_job_alone_never_opens_it() {
        let mut breaker = Breaker::new(POLICY);
        for fence in 1..100 {
            let again = Claim { fence: Fence(fence), ..claim(1) };
            assert_eq!(breaker.ended(again, Testimony::Down, at(fence)), Meaning::Ordinary);
        }
        assert_eq!(breaker.leave(at(100)), Leave::Any);
    }

    #[test]
    fn a_sign_of_life_ends_the_run_and_silence_does_not() {
        let mut breaker = Breaker::new(POLICY);
        for (job, testimony) in [Testimony::Down, Testimony::Down, Testimony::Up, Testimony::Down, Testimony::Down]
            .into_iter()
            .chain([Testimony::Nothing, Testimony::Nothing])
            .enumerate()
        {
            assert_eq!(breaker.ended(claim(i64::try_from(job).unwrap()), testimony, at(0)), Meaning::Ordinary);
        }
        assert_eq!(breaker.ended(claim(9), Testimony::Down, at(0)), Meaning::Opened);
    }

    #[test]
    fn probes_come_one_at_a_time_and_ever_later_up_to_the_longest_pause() {
        let mut breaker = opened_at(0);
        let mut now = 10;
        for pause in [20, 35, 35] {
            assert_eq!(breaker.leave(at(now)), Leave::One);
            breaker.started(claim(now), at(now));
            assert_eq!(breaker.leave(at(now)), Leave::NoneYet);
            breaker.started(claim(-1), at(now));
            assert_eq!(breaker.ended(claim(-1), Testimony::Down, at(now)), Meaning::Deferred, "a second is no probe");
            let meaning = breaker.ended(claim(now), Testimony::Down, at(now + 1));
            assert_eq!(meaning, Meaning::ProbeFailed { again_after: Duration::from_secs(pause) * 11 / 10 });
            let pause = i64::try_from(pause).unwrap();
            assert_eq!(breaker.leave(at(now + pause)), Leave::NoneUntil(at(now + 1 + pause)));
            now += 1 + pause;
        }
        breaker.started(claim(99), at(now));
        assert_eq!(breaker.ended(claim(99), Testimony::Up, at(now)), Meaning::Closed);
        assert_eq!((breaker.leave(at(now)), breaker.is_calm(), breaker.opened()), (Leave::Any, true, 1));
    }

    #[test]
    fn what_still_ran_when_it_opened_is_deferred_or_closes_it() {
        let mut breaker = opened_at(0);
        assert_eq!(breaker.ended(claim(4), Testimony::Down, at(1)), Meaning::Deferred);
        assert_eq!(breaker.leave(at(9)), Leave::NoneUntil(at(10)), "it postpones no probe");
        assert_eq!(breaker.ended(claim(5), Testimony::Up, at(2)), Meaning::Closed);
    }

    #[test]
    fn a_probe_without_a_word_leaves_its_place_at_once() {
        let mut breaker = opened_at(0);
        breaker.started(claim(7), at(11));
        let stale = Claim { fence: Fence(0), ..claim(7) };
        breaker.ended(stale, Testimony::Nothing, at(12));
        assert_eq!(breaker.leave(at(12)), Leave::NoneYet, "an older lease of the same job is not the probe");
        breaker.ended(claim(7), Testimony::Nothing, at(12));
        assert_eq!(breaker.leave(at(12)), Leave::One);
    }

    #[test]
    fn another_policy_applies_to_an_open_breaker_without_closing_it() {
        let mut breaker = opened_at(0);
        let second = Duration::from_secs(1);
        breaker.change(Policy { cooldown: second, max_cooldown: second, ..POLICY }, at(2));
        assert_eq!(breaker.leave(at(2)), Leave::NoneUntil(at(3)));
        breaker.change(Policy { cooldown: 60 * second, max_cooldown: 60 * second, ..POLICY }, at(2));
        assert_eq!(breaker.leave(at(2)), Leave::NoneUntil(at(3)), "a promised probe is not put off");
        breaker.change(Policy { failures: 0, ..POLICY }, at(2));
        assert_eq!((breaker.leave(at(2)), breaker.standing()), (Leave::Any, None));
        for job in 0..100 {
            assert_eq!(breaker.ended(claim(job), Testimony::Down, at(3)), Meaning::Ordinary);
        }
        assert!(breaker.is_calm());
    }

    fn testimony() -> impl Strategy<Value = Testimony> {
        prop_oneof![3 => Just(Testimony::Down), 1 => Just(Testimony::Up), 1 => Just(Testimony::Nothing)]
    }

    proptest! {
        /// Whatever happens in whatever order: at most one starts while it is open, none before its time, and it
        /// always lets somebody start in the end.
        #[test]
        fn it_never_floods_and_never_blocks_for_ever(
            steps in prop::collection::vec((0_i64..15, testimony(), any::<prop::sample::Index>()), 1..200)
        ) {
            let mut breaker = Breaker::new(POLICY);
            let (mut now, mut next, mut running) = (0, 0, Vec::new());
            for (seconds, testimony, which) in steps {
                now += seconds;
                let starts = match breaker.leave(at(now)) {
                    Leave::Any => 3_usize.saturating_sub(running.len()),
                    Leave::One => 1,
                    Leave::NoneUntil(until) => {
                        prop_assert!(until > at(now) && until <= at(now + 35));
                        0
                    }
                    Leave::NoneYet => {
                        prop_assert!(!running.is_empty(), "nothing runs, and nothing may start");
                        0
                    }
                };
                for _ in 0..starts {
                    next += 1;
                    breaker.started(claim(next), at(now));
                    running.push(claim(next));
                }
                if starts == 1 && breaker.standing() != Some(Standing::Closed) {
                    prop_assert_eq!(breaker.leave(at(now)), Leave::NoneYet);
                }
                if !running.is_empty() {
                    let ends = running.swap_remove(which.index(running.len()));
                    let was_closed = breaker.standing() == Some(Standing::Closed);
                    let meaning = breaker.ended(ends, testimony, at(now));
                    let spends = matches!(meaning, Meaning::Ordinary | Meaning::Opened);
                    prop_assert!(testimony != Testimony::Down || spends == was_closed);
                }
            }
        }
    }
}
