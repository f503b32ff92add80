//! What holds a pipeline back: its circuit breaker (`breaker`) and its rate limit (`rate`, `burst`).

use std::fmt;
use std::time::Duration;

use super::section::Section;
use super::values::{DAY, Form, duration, integer, quote, show_duration};

/// `pipeline.NAME.breaker`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Different jobs that the destination has to fail in a row before it opens; zero: it never does.
    pub failures: u32,
    /// The time from its opening to the first probe; doubles with each probe that fails.
    pub cooldown: Duration,
    /// No time between two probes exceeds it; at least `cooldown`.
    pub max_cooldown: Duration,
}

/// `pipeline.NAME.rate` with its `burst`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Jobs that may start in each `period`, in the long run; at least 1.
    pub jobs: u32,
    /// Whole milliseconds, at least 1.
    pub period: Duration,
    /// Jobs that may start at once after a quiet time; at least 1.
    pub burst: u32,
}

/// Job numbers of a run of failures are kept, so there is an end to them.
const MOST_FAILURES: u32 = 10_000;
const MOST_JOBS: u32 = 1_000_000;
const MILLISECOND: Duration = Duration::from_millis(1);
const LONGEST_PERIOD: Duration = Duration::from_hours(365 * 24);

impl Default for Breaker {
    /// Five different jobs are no coincidence, and spend little. The first look after 10 s is early enough for a
    /// restart of the other side; doubling makes the delay after an outage no longer than the outage was, up to the
    /// ten minutes that a person would wait as well.
    fn default() -> Self {
        Self { failures: 5, cooldown: Duration::from_secs(10), max_cooldown: Duration::from_mins(10) }
    }
}

/// As it is written, without the burst.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.jobs, show_duration(self.period).replace(' ', ""))
    }
}

pub(super) fn breaker(mut section: Section<'_, '_, '_>) -> Breaker {
    let default = Breaker::default();
    let time = || duration(MILLISECOND..=DAY);
    let failures = section.get("failures", default.failures, &integer(0..=MOST_FAILURES));
    let cooldown = section.get("cooldown", default.cooldown, &time());
    // A first pause that is longer than the longest one by default is meant as it is written.
    let max_cooldown = section.get("max_cooldown", default.max_cooldown.max(cooldown), &time());
    if let Some(value) = section.value("max_cooldown").filter(|_| max_cooldown < cooldown) {
        let allowed = format!("at least cooldown, which is {}", quote(&show_duration(cooldown)));
        section.refuse("max_cooldown", value, Some("is less than cooldown".to_owned()), Some(allowed));
    }
    section.finish();
    Breaker { failures, cooldown, max_cooldown: max_cooldown.max(cooldown) }
}

pub(super) fn rate(section: &mut Section<'_, '_, '_>) -> Option<Rate> {
    let key = section.key("rate");
    let rate = section.get("rate", None, &form());
    let burst = integer(1..=MOST_JOBS);
    let refused = section.found.problems.iter().any(|problem| problem.key == key);
    match (rate, section.value("burst")) {
        (Some(rate), _) => Some(Rate { burst: section.get("burst", rate.jobs, &burst), ..rate }),
        (None, None) => None,
        // The rate has its own line in the report.
        (None, Some(_)) if refused => {
            section.get("burst", 1, &burst);
            None
        }
        (None, Some(value)) => {
            section.refuse("burst", value, Some("means nothing without rate".to_owned()), Some(burst.allowed));
            None
        }
    }
}

fn form() -> Form<Option<Rate>> {
    let allowed = format!(
        "a number of jobs up to {MOST_JOBS}, a slash and a duration from 1ms to {}, such as \"100/1m\"; \"\": no limit",
        show_duration(LONGEST_PERIOD)
    );
    let show = |rate: &Option<Rate>| quote(&rate.map(|rate| rate.to_string()).unwrap_or_default());
    Form::new(allowed, |raw| parse(&raw.text()?), show)
}

/// `None`: not allowed; `Some(None)`: no limit.
#[expect(clippy::option_option, reason = "a form reads a value or refuses it, and this value may be absent")]
fn parse(text: &str) -> Option<Option<Rate>> {
    if text.is_empty() {
        return Some(None);
    }
    let (jobs, period) = text.split_once('/')?;
    let jobs = jobs.trim();
    // A sign is no part of a number of jobs.
    let digits = jobs.bytes().all(|byte| byte.is_ascii_digit());
    let jobs: u32 = jobs.parse().ok().filter(|jobs| digits && (1..=MOST_JOBS).contains(jobs))?;
    let period = humantime::parse_duration(period.trim()).ok()?;
    let whole = period.subsec_nanos().is_multiple_of(1_000_000);
    (whole && (MILLISECOND..=LONGEST_PERIOD).contains(&period)).then_some(Some(Rate { jobs, period, burst: jobs }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_it_is_written() {
        for text in ["100/1m", "1/1ms", "5/1s", "1000000/365d", "3/1h30m"] {
            assert_eq!(parse(text).flatten().map(|rate| rate.to_string()).as_deref(), Some(text));
        }
        assert_eq!(parse(""), Some(None));
        assert_eq!(parse(" 5 / 1h 30m ").flatten().map(|rate| rate.period), Some(Duration::from_mins(90)));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for wrong in [
            "x", "/", "5", "5/", "/1s", "0/1m", "-1/1m", "+1/1m", "1.5/1m", "100/0s", "5/s", "5/1", "1/1us", "1/1500us",
        ]
        .into_iter()
        .chain(["1000001/1s", "99999999999999999999/1s", "1/366d", "1/99999999999999999999d", "1/1s/1s", " "])
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
