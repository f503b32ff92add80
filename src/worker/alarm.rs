//! Waiting by clocks that count what a sleep does not.
//!
//! A timer of the runtime stands still while the machine is suspended. Two descriptors of the kernel do not:
//!
//! 1. [`Alarm`] goes off at a point of `CLOCK_BOOTTIME`, at once after a resume that slept through it. The pool has
//!    one, for the earliest deadline of its leases: an attempt costs no timer of its own.
//! 2. [`Steps`] tells that the wall clock was stepped, by an administrator, NTP or a resume: what waits until a time of
//!    day looks again.
//!
//! Neither reads a clock: whoever waits is told *when* by [`crate::clock::Clock`], and looks at it again afterwards.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::Timespec;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;

use crate::clock::{Clock, Timestamp};

/// The shortest wait that a timer is armed for; zero would disarm it.
const SHORTEST: Duration = Duration::from_millis(1);
/// How long a wait may be where the kernel does not tell of a stepped clock.
const LONGEST_DOZE: Duration = Duration::from_mins(1);
/// A point in time that never comes: some 280 000 years from now.
const NEVER_SECONDS: i64 = 1 << 43;

/// Goes off once after a span of `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// An alarm that is not set. Needs a runtime.
    ///
    /// # Errors
    /// The process has too many files open.
    pub fn new() -> io::Result<Self> {
        Ok(Self { timer: timer(TimerfdClockId::Boottime)? })
    }

    /// Sets it, in place of what it was set to.
    ///
    /// # Errors
    /// None that this kernel has a reason for.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        let after = after.max(SHORTEST);
        let seconds = i64::try_from(after.as_secs()).unwrap_or(NEVER_SECONDS).min(NEVER_SECONDS);
        let value = Timespec { tv_sec: seconds, tv_nsec: i64::from(after.subsec_nanos()) };
        arm(&self.timer, TimerfdTimerFlags::empty(), value)
    }

    /// Resolves when it has gone off since it was last set; loses nothing when dropped.
    ///
    /// # Errors
    /// None that this kernel has a reason for.
    pub async fn gone_off(&self) -> io::Result<()> {
        expired(&self.timer).await
    }
}

/// Tells when the wall clock is stepped.
#[derive(Debug)]
pub struct Steps {
    timer: AsyncFd<OwnedFd>,
}

impl Steps {
    /// Listens from now on. Needs a runtime.
    ///
    /// # Errors
    /// The process has too many files open, or the kernel can't tell.
    pub fn new() -> io::Result<Self> {
        let steps = Self { timer: timer(TimerfdClockId::Realtime)? };
        steps.listen()?;
        Ok(steps)
    }

    fn listen(&self) -> io::Result<()> {
        let never = Timespec { tv_sec: NEVER_SECONDS, tv_nsec: 0 };
        arm(&self.timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, never)
    }

    /// Resolves when the clock was stepped since the last time that it did.
    ///
    /// # Errors
    /// None that this kernel has a reason for.
    pub async fn stepped(&self) -> io::Result<()> {
        match expired(&self.timer).await {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error()) => self.listen(),
            other => other,
        }
    }
}

/// Resolves when the next job is due, or the wall clock was stepped, after which it may be.
pub async fn until_due(clock: &dyn Clock, due: Option<Timestamp>, steps: Option<&Steps>) {
    let Some(due) = due else { return std::future::pending().await };
    let wait = due.since(clock.now()) + SHORTEST;
    let stepped = async {
        match steps {
            Some(steps) if steps.stepped().await.is_ok() => {}
            _ => tokio::time::sleep(LONGEST_DOZE).await,
        }
    };
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = stepped => {}
    }
}

fn timer(clock: TimerfdClockId) -> io::Result<AsyncFd<OwnedFd>> {
    crate::os::register(timerfd_create(clock, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?)
}

fn arm(timer: &AsyncFd<OwnedFd>, flags: TimerfdTimerFlags, value: Timespec) -> io::Result<()> {
    let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
    timerfd_settime(timer, flags, &Itimerspec { it_interval: never_again, it_value: value })?;
    Ok(())
}

async fn expired(timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = timer.readable().await?;
        let mut count = [0; 8];
        if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?)) {
            return read.map(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_alarm_goes_off_once_for_each_time_that_it_is_set() {
        let alarm = Alarm::new().unwrap();
        assert!(alarm.gone_off().now_or_never().is_none(), "nobody set it");
        alarm.set(Duration::ZERO).unwrap();
        alarm.gone_off().await.unwrap();
        assert!(alarm.gone_off().now_or_never().is_none(), "it has gone off");
        alarm.set(Duration::from_hours(1)).unwrap();
        alarm.set(Duration::from_millis(5)).unwrap();
        alarm.gone_off().await.unwrap();
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_does_not_lose_the_alarm() {
        let alarm = Alarm::new().unwrap();
        alarm.set(Duration::from_millis(2)).unwrap();
        while alarm.gone_off().now_or_never().is_none() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_not_stepped_tells_nothing() {
        let steps = Steps::new().unwrap();
        assert!(steps.stepped().now_or_never().is_none());
    }
}
