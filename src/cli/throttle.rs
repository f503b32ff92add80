//! What holds a pipeline back, as `status`, `pipeline` and `show` tell it.

use serde::Serialize;

use super::time;
use crate::clock::Timestamp;
use crate::config::Pipeline;
use crate::control::{BreakerCondition, LiveBreaker, LiveRate, LiveThrottle};

/// A circuit breaker.
#[derive(Clone, Debug, Serialize)]
pub struct BreakerView {
    /// `closed`, `open` or `probing`.
    pub state: BreakerCondition,
    /// Since when it is open.
    pub since: Option<Timestamp>,
    /// Failures by the destination since its last sign of life.
    pub failures: u64,
    /// The last of them.
    pub last_error: Option<String>,
    /// When the next probe may start; in the past where it waits for a job that is due.
    pub next_probe_at: Option<Timestamp>,
    /// How often it opened since the daemon's start.
    pub opened: u64,
}

/// A rate limit.
#[derive(Clone, Debug, Serialize)]
pub struct RateView {
    /// As it is configured: `100/1m`.
    pub limit: String,
    /// Jobs that may start at once.
    pub burst: u32,
    /// Jobs that may start now; null where no daemon knows.
    pub tokens: Option<u64>,
    /// When the next one may, where none may now.
    pub next_at: Option<Timestamp>,
}

/// What holds a pipeline back: the daemon's word where one runs, and the configuration's otherwise, which knows of no
/// breaker where it stands.
pub fn views(live: Option<&LiveThrottle>, defined: Option<&Pipeline>) -> (Option<BreakerView>, Option<RateView>) {
    match (live, defined.and_then(|pipeline| pipeline.rate)) {
        (Some(live), _) => (live.breaker.as_ref().map(BreakerView::of), live.rate.as_ref().map(RateView::of)),
        (None, Some(rate)) => {
            (None, Some(RateView { limit: rate.to_string(), burst: rate.burst, tokens: None, next_at: None }))
        }
        (None, None) => (None, None),
    }
}

impl BreakerView {
    /// What the daemon tells of one.
    pub fn of(live: &LiveBreaker) -> Self {
        Self {
            state: live.state,
            since: live.since_ms.map(Timestamp::from_millis),
            failures: live.failures,
            last_error: live.last_error.clone(),
            next_probe_at: live.next_probe_at_ms.map(Timestamp::from_millis),
            opened: live.opened,
        }
    }

    /// Whether jobs wait for it.
    pub fn holds_back(&self) -> bool {
        self.state != BreakerCondition::Closed
    }

    /// `open since 3m ago, next probe in 8s, 7 failures (connection: …)`.
    pub fn text(&self, now: Timestamp) -> String {
        let since = self.since.map_or_else(String::new, |since| format!(" since {}", time::relative(since, now)));
        let error = self.last_error.as_deref().map_or_else(String::new, |error| format!(", the last: {error}"));
        let failures = format!("{} failures in a row{error}", self.failures);
        match (self.state, self.next_probe_at) {
            (BreakerCondition::Closed, _) if self.failures == 0 => format!("closed; opened {} times", self.opened),
            (BreakerCondition::Closed, _) => format!("closed; opened {} times; {failures}", self.opened),
            (BreakerCondition::Probing, _) => format!("open{since}, one job probes; {failures}"),
            (BreakerCondition::Open, Some(next)) if next > now => {
                format!("open{since}, next probe {}; {failures}", time::relative(next, now))
            }
            (BreakerCondition::Open, _) => format!("open{since}, the next job that is due probes; {failures}"),
        }
    }
}

impl RateView {
    /// What the daemon tells of one.
    pub fn of(live: &LiveRate) -> Self {
        let next_at = live.next_at_ms.map(Timestamp::from_millis);
        Self { limit: live.limit.clone(), burst: live.burst, tokens: Some(live.tokens), next_at }
    }

    /// Whether jobs wait for it.
    pub fn holds_back(&self) -> bool {
        self.tokens == Some(0)
    }

    /// `100/1m, burst 100; 37 may start now`.
    pub fn text(&self, now: Timestamp) -> String {
        let limit = format!("{}, burst {}", self.limit, self.burst);
        match (self.tokens, self.next_at) {
            (None, _) => limit,
            (Some(0), Some(next)) => format!("{limit}; the next may start {}", time::relative(next, now)),
            (Some(tokens), _) => format!("{limit}; {tokens} may start now"),
        }
    }
}

/// What a job of this pipeline waits for that is due, if not for a free permit.
pub fn waits_for(live: Option<&LiveThrottle>, now: Timestamp) -> Option<String> {
    let (breaker, rate) = views(live, None);
    if let Some(breaker) = breaker.filter(BreakerView::holds_back) {
        return Some(format!("its pipeline's breaker: {}", breaker.text(now)));
    }
    let rate = rate.filter(RateView::holds_back)?;
    Some(format!("its pipeline's rate: {}", rate.text(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn open(next_probe_at_ms: Option<i64>) -> LiveThrottle {
        let breaker = LiveBreaker {
            state: BreakerCondition::Open,
            since_ms: Some(NOW.as_millis() - 60_000),
            failures: 7,
            last_error: Some("connection: refused".to_owned()),
            next_probe_at_ms,
            opened: 2,
        };
        LiveThrottle { breaker: Some(breaker), rate: None }
    }

    #[test]
    fn a_job_waits_for_the_breaker_before_the_rate() {
        let mut live = open(Some(NOW.as_millis() + 20_000));
        live.rate =
            Some(LiveRate { limit: "1/1h".to_owned(), burst: 1, tokens: 0, next_at_ms: Some(NOW.as_millis() + 5_000) });
        let text = waits_for(Some(&live), NOW).unwrap();
        for part in ["breaker: open since 1m ago", "next probe in 20s", "7 failures", "connection: refused"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        live.breaker.as_mut().unwrap().state = BreakerCondition::Closed;
        assert!(waits_for(Some(&live), NOW).unwrap().contains("rate: 1/1h, burst 1; the next may start in 5.0s"));
        live.rate.as_mut().unwrap().tokens = 1;
        assert_eq!(waits_for(Some(&live), NOW), None);
        assert_eq!(waits_for(None, NOW), None);
    }

    #[test]
    fn a_probe_whose_time_has_come_waits_for_a_job() {
        assert!(
            waits_for(Some(&open(Some(NOW.as_millis() - 1))), NOW).unwrap().contains("next job that is due probes")
        );
    }
}
