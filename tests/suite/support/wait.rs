//! Waiting for conditions.

use std::thread::sleep;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(150);

/// Waits until `holds`, or panics with what never came.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// Waits for something to be there. The pauses grow, because asking often costs the program that is waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        sleep(pause);
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}
