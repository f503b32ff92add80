//! The retry policy as a value: decides once, from an outcome and what was spent so far, what follows.
//!
//! The wait before attempt *n + 1* is `random(0, min(max, base · factor^(n−1)))` with full jitter, which spreads
//! a crowd of retries best (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), and
//! the bound itself with none.

use std::time::Duration;

use super::{JobError, Outcome, Verdict};
use crate::clock::{Boottime, Timestamp};

/// How waits are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// Uniformly between zero and the bound.
    #[default]
    Full,
    /// Always the bound.
    None,
}

/// A pipeline's `retry` section.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts that may be spent, at least 1.
    pub max_attempts: u32,
    /// The bound of the first wait.
    pub base: Duration,
    /// What each further bound is multiplied by, at least 1.
    pub factor: f64,
    /// No bound exceeds it.
    pub max: Duration,
    /// How waits are spread.
    pub jitter: Jitter,
    /// A job is given up this long after its first execution began.
    pub max_elapsed: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            base: Duration::from_secs(5),
            factor: 3.0,
            max: Duration::from_hours(1),
            jitter: Jitter::Full,
            max_elapsed: Duration::from_hours(7 * 24),
        }
    }
}

/// What a job had spent when the execution now being judged began.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Attempts before this one.
    pub attempts: u32,
    /// Deferrals before this one.
    pub deferrals: u32,
    /// When its first execution began.
    pub first_started_at: Timestamp,
}

impl Spent {
    /// The same after the wall clock was set while an execution ran that began when the clocks showed `began`: its dates
    /// move along, so that no time seems to have passed which did not.
    #[must_use]
    pub fn moved_along(mut self, began: (Timestamp, Boottime), now: (Timestamp, Boottime)) -> Self {
        let wall_ms = now.0.as_millis().saturating_sub(began.0.as_millis());
        let step_ms = wall_ms.saturating_sub(now.1.as_millis().saturating_sub(began.1.as_millis()));
        self.first_started_at = Timestamp::from_millis(self.first_started_at.as_millis().saturating_add(step_ms));
        self
    }
}

/// The longest wait that another side may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(24);

impl RetryPolicy {
    /// Judges `outcome`. `chance` is uniform in `[0, 1)` and is only used with full jitter.
    pub fn judge(&self, outcome: Outcome, spent: Spent, now: Timestamp, chance: f64) -> Verdict {
        match outcome {
            Outcome::Done => Verdict::Complete,
            Outcome::Interrupted => Verdict::Release,
            Outcome::Cancelled => Verdict::Cancel,
            Outcome::Moot(reason) => Verdict::Skip(reason),
            Outcome::Failed(error) => {
                let attempt = spent.attempts.saturating_add(1);
                if error.permanent || attempt >= self.max_attempts {
                    return Verdict::Fail { error };
                }
                let run_at = now.plus(self.wait(attempt, chance));
                if self.too_late(run_at, spent) { Verdict::Fail { error } } else { Verdict::Retry { run_at, error } }
            }
            Outcome::Deferred { after, error } => self.defer(after, error, spent, now, chance),
        }
    }

    fn defer(&self, after: Option<Duration>, error: JobError, spent: Spent, now: Timestamp, chance: f64) -> Verdict {
        // Once the time is over the job ends, so that a destination that is gone for good does not keep it for ever.
        if self.too_late(now, spent) {
            return Verdict::Fail { error };
        }
        let wait = match after {
            Some(asked) => asked.min(LONGEST_RETRY_AFTER),
            None => self.wait(spent.deferrals.saturating_add(1), chance),
        };
        Verdict::Defer { run_at: now.plus(wait), error }
    }

    /// The wait after the `nth` spent attempt (or deferral), counted from 1.
    pub fn wait(&self, nth: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(nth.saturating_sub(1)).unwrap_or(i32::MAX);
        // Nothing stays nothing, also where the factor has grown beyond all numbers.
        let bound = if self.base.is_zero() { 0.0 } else { self.base.as_secs_f64() * self.factor.powi(exponent) };
        let part = match self.jitter {
            Jitter::None => 1.0,
            Jitter::Full => chance.clamp(0.0, 1.0),
        };
        let bound = bound.min(self.max.as_secs_f64());
        Duration::try_from_secs_f64(bound * part).map_or(self.max, |wait| wait.min(self.max))
    }

    fn too_late(&self, at: Timestamp, spent: Spent) -> bool {
        at.since(spent.first_started_at) > self.max_elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_policy_is_too_large_to_wait_by() {
        let policy = RetryPolicy { jitter: Jitter::None, ..RetryPolicy::default() };
        assert_eq!([1, 2, 3, 1_000].map(|nth| policy.wait(nth, 0.5).as_secs()), [5, 15, 45, 3_600]);
        let nothing = RetryPolicy { base: Duration::ZERO, ..policy.clone() };
        assert_eq!(nothing.wait(u32::MAX, 0.5), Duration::ZERO, "nothing, however often it is multiplied");
        let endless = RetryPolicy { max: Duration::MAX, ..policy };
        assert_eq!(endless.wait(u32::MAX, 0.5), Duration::MAX);
    }
}
