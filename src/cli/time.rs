//! Times as people write and read them.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::failure::Failure;
use crate::clock::Timestamp;

/// A point in time: RFC 3339, or local without a zone (`2026-01-02 15:04`, `2026-01-02`).
pub fn instant(text: &str) -> Result<Timestamp, Failure> {
    let text = text.trim();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp::from_millis(time.as_millisecond()));
    }
    let local = text.parse::<jiff::civil::DateTime>().ok().and_then(|time| time.to_zoned(TimeZone::system()).ok());
    match local {
        Some(time) => Ok(Timestamp::from_millis(time.timestamp().as_millisecond())),
        None => Err(Failure::usage(format!(
            "`{text}` is not a time; write 2026-01-02T15:04:05Z, or \"2026-01-02 15:04\" for local time"
        ))),
    }
}

/// A length of time: `1h 30m`, `500ms`, `7d`.
pub fn duration(text: &str) -> Result<Duration, Failure> {
    humantime::parse_duration(text)
        .map_err(|_| Failure::usage(format!("`{text}` is not a duration; write for instance 90s, \"1h 30m\" or 7d")))
}

/// A point in the future, by how long from now; one that no calendar has is none.
pub fn later(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let later = now.plus(duration(text)?);
    match jiff::Timestamp::from_millisecond(later.as_millis()) {
        Ok(_) => Ok(later),
        Err(_) => Err(Failure::usage(format!("`{text}` from now lies beyond the year 9999; write less"))),
    }
}

/// A point in the past: a time, or how long ago.
pub fn since(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    match humantime::parse_duration(text) {
        Ok(ago) => Ok(now.minus(ago)),
        Err(_) => instant(text).map_err(|_| {
            Failure::usage(format!("`{text}` is neither a time nor a duration; write 2h, 7d or 2026-01-02T15:04:05Z"))
        }),
    }
}

/// `3m ago`, `in 2h`, `now`.
pub fn relative(time: Timestamp, now: Timestamp) -> String {
    if time > now {
        return format!("in {}", short(time.since(now)));
    }
    match now.since(time) {
        ago if ago < Duration::from_secs(1) => "now".to_owned(),
        ago => format!("{} ago", short(ago)),
    }
}

/// A duration in its one largest unit, two below ten of it: `12ms`, `4.2s`, `3m`, `5h`, `12d`.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..600 if !seconds.is_multiple_of(60) => format!("{}m {}s", seconds / 60, seconds % 60),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..36_000 if !(seconds / 60).is_multiple_of(60) => {
            format!("{}h {}m", seconds / 3_600, seconds / 60 % 60)
        }
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The same, of integer milliseconds.
pub fn short_ms(ms: i64) -> String {
    short(Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_366_245_000);

    #[test]
    fn both_ways_of_writing_a_time_are_read() {
        assert_eq!(instant("2026-01-02T15:04:05Z").unwrap(), NOW);
        assert_eq!(instant("2026-01-02T16:04:05+01:00").unwrap(), NOW);
        for local in ["2026-01-02 15:04", "2026-01-02T15:04:05", "2026-01-02"] {
            assert!(instant(local).is_ok(), "{local}");
        }
        assert_eq!(instant("yesterday-ish").unwrap_err().code, 2);
    }

    #[test]
    fn what_lies_beyond_the_calendar_is_refused() {
        assert_eq!(later("90s", NOW).unwrap(), NOW.plus(Duration::from_secs(90)));
        for beyond in ["8000y", "18446744073709551615s"] {
            let refused = later(beyond, NOW).unwrap_err();
            assert!(refused.code == 2 && refused.message.contains("beyond the year 9999"), "{refused:?}");
        }
    }

    #[test]
    fn since_takes_a_duration_back_or_a_time() {
        assert_eq!(since("2h", NOW).unwrap(), NOW.minus(Duration::from_hours(2)));
        assert_eq!(since("2026-01-02T15:04:05Z", NOW).unwrap(), NOW);
        assert!(since("soon", NOW).is_err());
    }

    #[test]
    fn relative_times_are_short() {
        let ago = |seconds| relative(NOW.minus(Duration::from_secs(seconds)), NOW);
        assert_eq!([ago(0), ago(4), ago(42)], ["now", "4.0s ago", "42s ago"]);
        assert_eq!([ago(180), ago(200), ago(3_600), ago(5_400)], ["3m ago", "3m 20s ago", "1h ago", "1h 30m ago"]);
        assert_eq!(ago(86_400 * 12), "12d ago");
        assert_eq!(relative(NOW.plus(Duration::from_mins(1)), NOW), "in 1m");
        assert_eq!(short_ms(12), "12ms");
    }
}
