//! Wall time that is never ahead of the time that passed.
//!
//! Read once from the wall clock, then carried forward by boot time. When somebody sets the clock a year ahead or back,
//! rows do not look a year old.

use std::fmt;
use std::sync::Arc;

use crate::clock::{Boottime, Clock, Timestamp};

/// A clock that shows dates, goes back with the wall clock, and ahead only as fast as time passes.
#[derive(Clone)]
pub struct Steady {
    clock: Arc<dyn Clock>,
    wall: Timestamp,
    boot: Boottime,
}

impl Steady {
    /// Starts at what the wall clock shows now.
    pub fn anchored(clock: Arc<dyn Clock>) -> Self {
        let (wall, boot) = (clock.now(), clock.boottime());
        Self { clock, wall, boot }
    }

    /// The anchor and the time that passed since, or the wall clock where that is behind: rows that are dated after a
    /// step back look no older than they are.
    pub fn now(&self) -> Timestamp {
        self.wall.plus(self.clock.boottime().since(self.boot)).min(self.clock.now())
    }

    /// What the wall clock shows: for dates that people read.
    pub fn wall(&self) -> Timestamp {
        self.clock.now()
    }

    /// Boot time: for deadlines.
    pub fn boottime(&self) -> Boottime {
        self.clock.boottime()
    }
}

impl fmt::Debug for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Steady({})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_step_of_the_wall_clock_does_not_move_it() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
        let steady = Steady::anchored(clock.clone());
        clock.step_wall(Timestamp::from_millis(9_000_000_000));
        assert_eq!(steady.now(), Timestamp::from_millis(1_000_000));
        clock.advance(Duration::from_secs(3));
        assert_eq!(steady.now(), Timestamp::from_millis(1_003_000));
        assert_eq!(steady.wall(), Timestamp::from_millis(9_000_003_000));
        clock.step_wall(Timestamp::from_millis(500_000));
        assert_eq!(steady.now(), Timestamp::from_millis(500_000));
    }
}
