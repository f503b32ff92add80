//! When a duty runs next: pure, judged by boot time.

use std::time::Duration;

use crate::clock::{Boottime, Timestamp, millis};

/// The pause after the first passing error; it doubles with each one that follows.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest such pause.
const LAST_RETRY: Duration = Duration::from_mins(10);

/// One duty's place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The period counts from here.
    base: Boottime,
    /// Whether it is due whatever the period.
    at_once: bool,
    /// Passing errors in a row.
    passing: u32,
}

impl Slot {
    /// Due when one period has passed since `now`.
    pub(super) const fn from(now: Boottime) -> Self {
        Self { base: now, at_once: false, passing: 0 }
    }

    /// Due now.
    pub(super) const fn at_once(now: Boottime) -> Self {
        Self { base: now, at_once: true, passing: 0 }
    }

    /// Due when one period has passed since `last`. A last run in the future, after the clock was set back,
    /// counts as now: the duty is put off by one period at most.
    pub(super) fn since(last: Timestamp, wall: Timestamp, now: Boottime) -> Self {
        let age_ms = millis(wall.since(last));
        Self::from(Boottime::from_millis(now.as_millis().saturating_sub(age_ms)))
    }

    /// When it is due with this period; `None`: it is off.
    pub(super) fn due(&self, period: Duration) -> Option<Boottime> {
        match (period, self.at_once, self.passing) {
            (Duration::ZERO, ..) => None,
            (_, true, _) => Some(self.base),
            (_, _, 0) => Some(self.base.plus(period)),
            (_, _, passing) => Some(self.base.plus(retry_pause(passing).min(period))),
        }
    }

    /// It ran, well or in a way that only its period may mend.
    pub(super) const fn ran(&mut self, now: Boottime) {
        *self = Self::from(now);
    }

    /// It met a passing error.
    pub(super) const fn passed_over(&mut self, now: Boottime) {
        *self = Self { base: now, at_once: false, passing: self.passing.saturating_add(1) };
    }
}

fn retry_pause(passing: u32) -> Duration {
    let doublings = passing.saturating_sub(1).min(16);
    FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const NOW: Boottime = Boottime::from_millis(10_000);

    #[test]
    fn the_next_run_is_a_period_after_the_last_and_a_new_period_counts_at_once() {
        let mut slot = Slot::from(NOW);
        assert_eq!(slot.due(HOUR), Some(NOW.plus(HOUR)));
        assert_eq!(slot.due(HOUR * 2), Some(NOW.plus(HOUR * 2)));
        assert_eq!(slot.due(Duration::ZERO), None);
        slot.ran(NOW.plus(HOUR));
        assert_eq!(slot.due(HOUR), Some(NOW.plus(HOUR * 2)));
        assert_eq!(Slot::at_once(NOW).due(HOUR), Some(NOW));
        assert_eq!(Slot::at_once(NOW).due(Duration::ZERO), None);
    }

    #[test]
    fn a_restart_neither_repeats_a_duty_nor_puts_it_off() {
        let wall = Timestamp::from_millis(1_000_000_000);
        let recent = Slot::since(wall.minus(HOUR / 4), wall, NOW);
        assert_eq!(recent.due(HOUR), Some(NOW.plus(HOUR * 3 / 4)));
        let overdue = Slot::since(wall.minus(HOUR * 9), wall, NOW);
        assert!(overdue.due(HOUR).unwrap() < NOW);
        let from_the_future = Slot::since(wall.plus(HOUR * 9), wall, NOW);
        assert_eq!(from_the_future.due(HOUR), Some(NOW.plus(HOUR)));
    }

    #[test]
    fn passing_errors_are_tried_again_after_growing_pauses_up_to_the_period() {
        let mut slot = Slot::from(NOW);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            slot.passed_over(NOW);
            pauses.push(slot.due(HOUR).unwrap().since(NOW).as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(slot.due(Duration::from_secs(7)), Some(NOW.plus(Duration::from_secs(7))));
        slot.ran(NOW);
        assert_eq!(slot.due(HOUR), Some(NOW.plus(HOUR)));
    }
}
