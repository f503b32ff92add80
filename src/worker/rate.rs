//! A token bucket: how many jobs may start now, and when the next one may. Pure; the time comes by parameter.
//!
//! The bucket holds up to `burst` tokens, each start takes one, and in each period `jobs` of them come back, evenly. In
//! any time *t* at most `burst + jobs · t / period` jobs therefore start. The time is the one since the machine's boot,
//! which nobody steps.
//!
//! Arithmetic is exact: a token is as many units as the period has milliseconds, and each millisecond brings as many
//! units as the period has jobs. (The token bucket of J. Turner, "New Directions in Communications", 1986.)

use std::time::Duration;

use crate::clock::{Boottime, millis};
use crate::config::Rate;

/// See the module.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    /// In units; below zero where more was taken than was there.
    level: i128,
    /// When the level was true.
    at: Boottime,
}

impl Bucket {
    /// A full bucket.
    pub fn full(rate: Rate, now: Boottime) -> Self {
        Self { rate, level: token(rate) * i128::from(rate.burst), at: now }
    }

    /// The tokens that are there.
    pub fn available(&self, now: Boottime) -> usize {
        let tokens = self.level_at(now).max(0) / token(self.rate);
        usize::try_from(tokens).unwrap_or(usize::MAX)
    }

    /// Whether more was taken than was there, and is not back yet.
    pub fn owes(&self, now: Boottime) -> bool {
        self.level_at(now) < 0
    }

    /// Takes tokens, of which more may be taken than are there: what is owed comes back before anything else.
    pub fn take(&mut self, tokens: usize, now: Boottime) {
        self.level = self.level_at(now) - token(self.rate) * i128::try_from(tokens).unwrap_or(i128::MAX >> 64);
        self.at = self.at.max(now);
    }

    /// When so many tokens are there, at the earliest; `None` where there never are.
    pub fn when(&self, tokens: usize) -> Option<Boottime> {
        if tokens > usize::try_from(self.rate.burst).unwrap_or(usize::MAX) {
            return None;
        }
        let missing = (token(self.rate) * i128::try_from(tokens).ok()? - self.level).max(0);
        let per_millisecond = i128::from(self.rate.jobs);
        // Rounded up: a millisecond too early there is one token too few.
        let wait_ms = (missing + per_millisecond - 1) / per_millisecond;
        Some(self.at.plus(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(u64::MAX))))
    }

    /// Goes by another rate from now on, with the tokens that are there as far as they fit.
    pub fn change(&mut self, rate: Rate, now: Boottime) {
        let level = self.level_at(now) * token(rate) / token(self.rate);
        *self = Self { rate, level: level.min(token(rate) * i128::from(rate.burst)), at: self.at.max(now) };
    }

    /// What it goes by.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    fn level_at(&self, now: Boottime) -> i128 {
        let passed_ms = i128::from(millis(now.since(self.at)));
        (self.level + passed_ms * i128::from(self.rate.jobs)).min(token(self.rate) * i128::from(self.rate.burst))
    }
}

/// The units of a token.
fn token(rate: Rate) -> i128 {
    i128::from(millis(rate.period)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(jobs: u32, period_ms: u64, burst: u32) -> Rate {
        Rate { jobs, period: Duration::from_millis(period_ms), burst }
    }

    const fn at(ms: i64) -> Boottime {
        Boottime::from_millis(ms)
    }

    proptest! {
        /// The promise, over every window of a greedy user who looks at arbitrary times.
        #[test]
        fn no_window_has_more_starts_than_the_burst_and_its_share(
            jobs in 1_u32..200, period in 1_u64..5_000, burst in 1_u32..50, steps in prop::collection::vec(0_i64..3_000, 1..60)
        ) {
            let rate = rate(jobs, period, burst);
            let mut bucket = Bucket::full(rate, at(0));
            let (mut now, mut starts) = (0, Vec::new());
            for step in steps {
                now += step;
                let tokens = bucket.available(at(now));
                bucket.take(tokens, at(now));
                prop_assert_eq!(bucket.available(at(now)), 0);
                starts.push((now, i128::try_from(tokens).unwrap()));
            }
            for (first, (begun, _)) in starts.iter().enumerate() {
                let mut sum = 0;
                for (ended, tokens) in &starts[first..] {
                    sum += tokens;
                    let share = i128::from(burst) * i128::from(period) + i128::from(ended - begun) * i128::from(jobs);
                    prop_assert!(sum * i128::from(period) <= share);
                }
            }
        }

        /// No millisecond is lost or given away: whoever waits as told finds the token, and not before.
        #[test]
        fn a_token_is_there_exactly_when_it_was_foretold(
            jobs in 1_u32..2_000, period in 1_u64..100_000, burst in 1_u32..20, taken in 0_usize..40
        ) {
            let mut bucket = Bucket::full(rate(jobs, period, burst), at(5));
            bucket.take(taken, at(5));
            for wanted in 1..=usize::try_from(burst).unwrap() {
                let when = bucket.when(wanted).unwrap();
                prop_assert!(bucket.available(when) >= wanted);
                let before = at(when.as_millis() - 1);
                prop_assert!(when <= at(5) || bucket.available(before) < wanted);
            }
            prop_assert_eq!(bucket.when(usize::try_from(burst).unwrap() + 1), None);
        }
    }

    #[test]
    fn in_the_long_run_it_gives_exactly_the_rate() {
        // 7 in 10 s is no whole number of milliseconds apart.
        let mut bucket = Bucket::full(rate(7, 10_000, 1), at(0));
        let (mut now, mut starts) = (at(0), 0);
        while now < at(1_000_000) {
            bucket.take(1, now);
            starts += 1;
            now = bucket.when(1).unwrap();
        }
        assert_eq!(starts, 700);
    }

    #[test]
    fn a_clock_that_goes_back_neither_blocks_nor_floods() {
        let mut bucket = Bucket::full(rate(1, 1_000, 3), at(10_000));
        bucket.take(3, at(10_000));
        assert_eq!(bucket.available(at(2_000)), 0);
        bucket.take(0, at(2_000));
        assert_eq!(bucket.when(1), Some(at(11_000)));
        assert_eq!(bucket.available(at(i64::MAX)), 3, "however long it is quiet");
    }

    #[test]
    fn another_rate_keeps_what_was_used() {
        let mut bucket = Bucket::full(rate(10, 1_000, 10), at(0));
        bucket.take(9, at(0));
        bucket.change(rate(100, 60_000, 50), at(0));
        assert_eq!(bucket.available(at(0)), 1, "a reload is no way around the limit");
        bucket.change(rate(100, 60_000, 1), at(600_000));
        assert_eq!(bucket.available(at(600_000)), 1);
        assert_eq!(bucket.rate().burst, 1);
    }

    #[test]
    fn what_is_owed_comes_back_first() {
        let mut bucket = Bucket::full(rate(1, 1_000, 1), at(0));
        bucket.take(3, at(0));
        assert_eq!((bucket.available(at(2_999)), bucket.available(at(3_000))), (0, 1));
    }
}
