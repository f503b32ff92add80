//! What a running daemon tells of the breakers and rate limits of its pipelines.

use serde::{Deserialize, Serialize};

/// What holds a pipeline back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveThrottle {
    /// Its circuit breaker; `None` where it is turned off.
    pub breaker: Option<LiveBreaker>,
    /// Its rate limit; `None` where there is none.
    pub rate: Option<LiveRate>,
}

/// A circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveBreaker {
    /// Where it stands.
    pub state: BreakerCondition,
    /// Since when it is open, in milliseconds since the epoch.
    pub since_ms: Option<i64>,
    /// Failures by the destination since its last sign of life.
    pub failures: u64,
    /// The last of them.
    pub last_error: Option<String>,
    /// When the next probe may start, in milliseconds since the epoch.
    pub next_probe_at_ms: Option<i64>,
    /// How often it opened since the daemon's start.
    pub opened: u64,
}

/// Where a circuit breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakerCondition {
    /// Jobs start as ever.
    Closed,
    /// None starts until the next probe.
    Open,
    /// One runs, and decides.
    Probing,
}

/// A rate limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveRate {
    /// As it is configured: `100/1m`.
    pub limit: String,
    /// Jobs that may start at once.
    pub burst: u32,
    /// Jobs that may start now.
    pub tokens: u64,
    /// When the next one may, where none may now; in milliseconds since the epoch.
    pub next_at_ms: Option<i64>,
}
