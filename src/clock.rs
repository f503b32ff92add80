//! The only place that reads the time.
//!
//! Two clocks matter. The *wall clock* dates rows and decides when a job is due; it may be stepped.
//! *Boot time* (`CLOCK_BOOTTIME`) only ever grows, also through a suspend, and judges leases: a step of the
//! wall clock therefore never expires one.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// A point in wall-clock time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `ms` milliseconds after the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant moved into the future; saturates.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// This instant moved into the past; saturates.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// How long ago `earlier` was, seen from here; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339 in UTC with milliseconds, as every output of the program shows times.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "@{}ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A duration as the integer number of milliseconds that tables and JSON hold; saturates.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A point on `CLOCK_BOOTTIME`, in milliseconds; comparable only within one boot of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boottime(i64);

impl Boottime {
    /// The point `ms` milliseconds after the machine's boot.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the machine's boot.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This point moved into the future; saturates.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// The time from `earlier` until here; zero when `earlier` lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A source of both clocks.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// The clock that judges leases.
    fn boottime(&self) -> Boottime;
    /// What the machine calls the boot that [`Self::boottime`] counts from; empty where it has no name.
    fn boot_name(&self) -> String;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }

    fn boottime(&self) -> Boottime {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Boottime(time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000))
    }

    fn boot_name(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|name| name.trim().to_owned())
            .unwrap_or_default()
    }
}

/// A clock that moves only when told, for tests.
#[derive(Debug)]
pub struct ManualClock {
    times: Mutex<(Timestamp, Boottime)>,
    boots: std::sync::atomic::AtomicU32,
}

impl ManualClock {
    /// A clock that stands at `now`, with the boot at zero.
    pub fn at(now: Timestamp) -> Self {
        Self { times: Mutex::new((now, Boottime(0))), boots: 0.into() }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut times = self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        times.0 = times.0.plus(by);
        times.1 = times.1.plus(by);
    }

    /// Steps the wall clock alone, as an administrator or NTP does.
    pub fn step_wall(&self, to: Timestamp) {
        let mut times = self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        times.0 = to;
    }

    /// Boots the machine anew, with this on its wall clock.
    pub fn reboot(&self, wall: Timestamp) {
        let mut times = self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *times = (wall, Boottime(0));
        self.boots.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn boottime(&self) -> Boottime {
        self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1
    }

    fn boot_name(&self) -> String {
        format!("boot-{}", self.boots.load(std::sync::atomic::Ordering::Relaxed))
    }
}
