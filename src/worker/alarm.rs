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
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::{Boottime, Clock, Timestamp};

/// The shortest wait that a timer is armed for; zero would disarm it.
const SHORTEST: Duration = Duration::from_millis(1);
/// How long a wait may be where the kernel does not tell of a stepped clock.
const LONGEST_DOZE: Duration = Duration::from_mins(1);
/// How late a loose wait may be.
const LOOSE_WAIT: Duration = Duration::from_secs(30);
/// A point in time that never comes: some 280 000 years from now.
const NEVER_SECONDS: i64 = 1 << 43;

/// Goes off once at a point of `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set_for: Option<Boottime>,
}

impl Alarm {
    /// An alarm that is not set. Needs a runtime.
    ///
    /// # Errors
    /// The process has too many files open.
    pub fn new() -> io::Result<Self> {
        Ok(Self { timer: timer(TimerfdClockId::Boottime)?, set_for: None })
    }

    /// Sets it, seen from `now`. One that is set for an earlier point stays, at the cost of a comparison.
    ///
    /// # Errors
    /// None that this kernel has a reason for.
    pub fn set(&mut self, at: Boottime, now: Boottime) -> io::Result<()> {
        if self.set_for.is_some_and(|set| set <= at) {
            return Ok(());
        }
        let after = at.since(now).max(SHORTEST);
        let seconds = i64::try_from(after.as_secs()).unwrap_or(NEVER_SECONDS).min(NEVER_SECONDS);
        let value = Timespec { tv_sec: seconds, tv_nsec: i64::from(after.subsec_nanos()) };
        arm(&self.timer, TimerfdTimerFlags::empty(), value)?;
        self.set_for = Some(at);
        Ok(())
    }

    /// Resolves when it goes off, never while it is not set; loses nothing when dropped.
    pub async fn gone_off(&mut self) {
        if self.set_for.is_none() {
            std::future::pending::<()>().await;
        }
        // A timer that can't be read has nothing more to say; whoever waits then looks by itself.
        let _ = expired(&self.timer).await;
        self.set_for = None;
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

/// Resolves at a point of `CLOCK_BOOTTIME`, after a suspend half a minute late at the most: what waits so loosely needs
/// no alarm.
pub async fn until_boottime(clock: &dyn Clock, at: Option<Boottime>) {
    let Some(at) = at else { return std::future::pending().await };
    loop {
        let left = at.since(clock.boottime());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOSE_WAIT)).await;
    }
}

fn timer(clock: TimerfdClockId) -> io::Result<AsyncFd<OwnedFd>> {
    crate::os::register(timerfd_create(clock, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?, Interest::READABLE)
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

    const fn at(ms: i64) -> Boottime {
        Boottime::from_millis(ms)
    }

    #[tokio::test]
    async fn an_alarm_goes_off_once_for_each_time_that_it_is_set() {
        let mut alarm = Alarm::new().unwrap();
        assert!(alarm.gone_off().now_or_never().is_none(), "nobody set it");
        alarm.set(at(0), at(0)).unwrap();
        alarm.gone_off().await;
        assert!(alarm.gone_off().now_or_never().is_none(), "it has gone off");
        alarm.set(at(3_600_000), at(0)).unwrap();
        alarm.set(at(5), at(0)).unwrap();
        alarm.set(at(7_200_000), at(0)).unwrap();
        alarm.gone_off().await;
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_does_not_lose_the_alarm() {
        let mut alarm = Alarm::new().unwrap();
        alarm.set(at(2), at(0)).unwrap();
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
