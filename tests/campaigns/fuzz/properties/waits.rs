//! Waits before further attempts.

use std::time::Duration;

use ingestd::clock::Timestamp;
use ingestd::job::{ErrorKind, JobError, Outcome, RetryPolicy, Spent, Verdict};

/// The longest wait that another side may ask for.
const DAY: Duration = Duration::from_hours(24);

/// A policy, and what it is asked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How it retries.
    pub retry: RetryPolicy,
    /// What was spent.
    pub spent: Spent,
    /// What the other side asks for.
    pub after: Option<Duration>,
    /// The time.
    pub now: Timestamp,
    /// Chance.
    pub chance: f64,
}

/// Waits are never longer than `max`, never shorter for a later attempt, never longer than a day because somebody
/// asks; and no verdict lies in the past.
pub fn waits(asked: &Policy) {
    let Policy { retry: policy, spent, after, now, chance } = asked;
    let mut last = Duration::ZERO;
    for nth in [0, 1, 2, 3, 10, 100, 10_000, u32::MAX] {
        let bound = policy.wait(nth, 1.0);
        assert!(bound <= policy.max && bound >= last, "{nth}: {bound:?} after {last:?}");
        assert!(policy.wait(nth, *chance) <= bound);
        last = bound;
    }
    let error = || JobError::transient(ErrorKind::Status, "no");
    for outcome in [Outcome::Failed(error()), Outcome::Deferred { after: *after, error: error() }] {
        let deferred = matches!(outcome, Outcome::Deferred { .. });
        let (most, attempts) = (if deferred { policy.max.max(DAY) } else { policy.max }, spent.attempts);
        match policy.judge(outcome, *spent, *now, *chance) {
            Verdict::Retry { run_at, .. } | Verdict::Defer { run_at, .. } => {
                assert!(run_at >= *now && run_at <= now.plus(most), "{run_at} is not within {most:?} of {now}");
                assert!(deferred || attempts.saturating_add(1) < policy.max_attempts);
            }
            Verdict::Fail { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}
