//! What an answer, or the lack of one, means.
//!
//! | answer | outcome |
//! |---|---|
//! | 2xx | done |
//! | 429; 503 with `Retry-After` | deferred, by `Retry-After` where it is given |
//! | 408, other 5xx, no connection, a broken one, TLS | failed, worth another attempt |
//! | none, because this machine has no handle, thread or memory to give | deferred |
//! | 3xx that is not followed, every other 4xx | failed for good |
//!
//! Messages name the origin and never the whole URL: a path, a query or a user's part may hold a secret, and failures are
//! grouped by message. Of a redirect that is not followed they name the path too, which is the other side's.

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{StatusCode, Url};

use crate::clock::Timestamp;
use crate::job::{ErrorKind, JobError, Outcome};
use crate::os;

/// The most of a message that is kept, in bytes.
const MESSAGE_LIMIT: usize = 300;

/// Scheme, host and port.
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// What follows from an answer of `url` at the time `now`.
pub fn judge(status: StatusCode, headers: &HeaderMap, url: &Url, now: Timestamp) -> Outcome {
    if status.is_success() {
        return Outcome::Done;
    }
    let after = retry_after(headers, now);
    let message = bounded(match headers.get(LOCATION).filter(|_| status.is_redirection()) {
        Some(location) => {
            let to = redirected(url, location);
            format!("{} answered {status} to {to}, which `redirects` does not allow to follow", origin(url))
        }
        None => format!("{} answered {status}", origin(url)),
    });
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Deferred { after, error: JobError::transient(ErrorKind::Status, message) }
        }
        StatusCode::SERVICE_UNAVAILABLE if after.is_some() => {
            Outcome::Deferred { after, error: JobError::transient(ErrorKind::Status, message) }
        }
        StatusCode::REQUEST_TIMEOUT => Outcome::Failed(JobError::transient(ErrorKind::Status, message)),
        _ if status.is_redirection() || status.is_client_error() => {
            Outcome::Failed(JobError::permanent(ErrorKind::Status, message))
        }
        _ => Outcome::Failed(JobError::transient(ErrorKind::Status, message)),
    }
}

/// Where an answer sends the call, without what may hold a secret.
fn redirected(url: &Url, location: &HeaderValue) -> String {
    let Ok(mut to) = url.join(&String::from_utf8_lossy(location.as_bytes())) else {
        return "an address that is none".to_owned();
    };
    // An address without a host has no user part to be emptied.
    let _ = to.set_password(None).and_then(|()| to.set_username(""));
    to.set_query(None);
    to.set_fragment(None);
    to.to_string()
}

/// The wait that the other side asks for, in seconds or as a date (RFC 9110, 10.2.3); a date that has passed asks
/// for none.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than fits is as long as can be.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date: SystemTime = httpdate::parse_http_date(text).ok()?;
    let now = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(0));
    Some(date.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(now))
}

/// What follows from a call that got no answer.
pub fn call_failed(url: &Url, error: &reqwest::Error) -> Outcome {
    let short = causes(error).any(is_shortage);
    let tls = causes(error).any(is_tls);
    let kind = match () {
        // That is no fault of the other side's.
        () if short => ErrorKind::Io,
        () if tls => ErrorKind::Tls,
        () if error.is_timeout() => ErrorKind::Timeout,
        () => ErrorKind::Connection,
    };
    // The innermost cause says it best ("connection refused"); those around it repeat where, URL and all.
    let why = causes(error).last().map_or_else(|| "the call failed".to_owned(), ToString::to_string);
    let error = JobError::transient(kind, bounded(format!("{}: {why}", origin(url))));
    if short { Outcome::Deferred { after: None, error } } else { Outcome::Failed(error) }
}

/// Whether a cause is that something of this machine has run out.
fn is_shortage(cause: &(dyn Error + 'static)) -> bool {
    let Some(error) = cause.downcast_ref::<std::io::Error>() else { return false };
    os::is_shortage(error) || error.get_ref().is_some_and(|inside| is_shortage(inside))
}

/// Whether a cause comes from the TLS layer, which hides its errors in those of input and output.
fn is_tls(cause: &(dyn Error + 'static)) -> bool {
    cause.is::<rustls::Error>()
        || cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref).is_some_and(|inside| is_tls(inside))
}

fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause: &&'a (dyn Error + 'static)| (*cause).source())
}

fn bounded(message: String) -> String {
    // Line breaks would come from the other side.
    let mut message = message.replace(char::is_control, " ");
    message.truncate(message.floor_char_boundary(MESSAGE_LIMIT));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, headers: &[(&'static str, &str)]) -> Outcome {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let url = Url::parse("https://user:secret@example.org/in?token=secret").unwrap();
        judge(StatusCode::from_u16(status).unwrap(), &map, &url, Timestamp::from_millis(784_111_777_000))
    }

    #[test]
    fn each_status_has_its_verdict() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judged(status, &[]), Outcome::Done);
        }
        for (status, permanent) in [(408, false), (500, false), (502, false), (503, false), (504, false), (599, false)]
            .into_iter()
            .chain([300, 301, 304, 307, 400, 401, 403, 404, 409, 410, 413, 422, 499].map(|status| (status, true)))
        {
            let Outcome::Failed(error) = judged(status, &[]) else { panic!("{status}") };
            assert_eq!((error.permanent, error.kind), (permanent, ErrorKind::Status), "{status}");
            assert!(error.message.starts_with(&format!("https://example.org answered {status}")), "{error}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        for (status, headers, expected) in [
            (429, vec![], None),
            (429, vec![("retry-after", "7")], Some(Duration::from_secs(7))),
            (503, vec![("retry-after", "0")], Some(Duration::ZERO)),
            (503, vec![("retry-after", "Sun, 06 Nov 1994 08:49:57 GMT")], Some(Duration::from_secs(20))),
            (503, vec![("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")], Some(Duration::ZERO)),
            (503, vec![("retry-after", "99999999999999999999999")], Some(Duration::from_secs(u64::MAX))),
            (429, vec![("retry-after", "soon")], None),
            (429, vec![("retry-after", "-7")], None),
            (429, vec![("retry-after", "+7")], None),
            (429, vec![("retry-after", "7.5")], None),
        ] {
            let Outcome::Deferred { after, error } = judged(status, &headers) else { panic!("{status} {headers:?}") };
            assert_eq!((after, error.permanent), (expected, false), "{status} {headers:?}");
        }
        assert!(matches!(judged(503, &[("retry-after", "soon")]), Outcome::Failed(_)));
    }

    #[test]
    fn messages_are_bounded_and_tell_no_secrets() {
        for (location, shown) in [
            ("https://b.example/x?token=secret", "to https://b.example/x, which"),
            ("https://me:secret@b.example/x#secret", "to https://b.example/x, which"),
            ("/there?secret", "to https://example.org/there, which"),
            ("https://secret:secret@:x/", "to an address that is none, which"),
        ] {
            let Outcome::Failed(error) = judged(302, &[("location", location)]) else { panic!() };
            assert!(error.message.contains(shown) && !error.message.contains("secret"), "{error}");
        }
        assert_eq!(bounded("é".repeat(1_000)).len(), MESSAGE_LIMIT);
    }
}
