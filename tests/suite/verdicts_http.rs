//! What becomes of a job by what a web server answers.

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::*;

const RETRY: &str = "retry = { max_attempts = 3, base = \"100ms\", factor = 1.0, jitter = \"none\" }";

fn place_for(url: &str, keys: &str) -> Place {
    Place::with(&format!("[pipeline.hook]\nkind = \"http\"\nurl = \"{url}\"\n{keys}\n"))
}

fn run_to(place: &Place, state: &str) -> Value {
    let id = place.add(&place.file("paper.pdf", "%PDF content"), &[]);
    place.wait_state(id, state)
}

fn kind(job: &Value) -> &str {
    text(&job["error"], "kind")
}

#[test]
fn a_success_sends_the_file_with_everything_that_was_promised() {
    let server = Server::always(Answer::Status(201, Vec::new(), "stored as 17".to_owned()));
    let place = place_for(&server.url("/in"), RETRY);
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "completed");
    assert_eq!(count(&job, "attempt"), 1);
    let received = server.received();
    assert_eq!(received.len(), 1);
    let request = &received[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/in"));
    assert_eq!(request.body, b"%PDF content");
    assert_eq!(request.header("idempotency-key"), text(&job, "idempotency_key"));
    assert_eq!(request.header("x-ingestd-job"), job["id"].to_string());
    assert_eq!(request.header("x-ingestd-attempt"), "1");
    assert_eq!(request.header("content-type"), "application/pdf");
    let logs = place.ok(&["logs", &job["id"].to_string()]).stdout;
    assert!(logs.contains("stored as 17"), "the response is kept: {logs}");
    assert_eq!(place.history()[0]["code"], 201);
}

#[test]
fn a_large_file_is_streamed_whole() {
    let server = Server::always(Answer::status(200));
    let place = place_for(&server.url("/in"), "");
    let content: Vec<u8> = (0..12_000_000_u32).map(|number| (number % 251) as u8).collect();
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("large.bin", &content), &[]);
    place.wait_state(id, "completed");
    assert!(server.received()[0].body == content);
}

#[test]
fn errors_of_the_server_are_retried_and_then_given_up() {
    for code in [500, 503, 408] {
        let server = Server::always(Answer::status(code));
        let place = place_for(&server.url("/"), RETRY);
        let _daemon = Daemon::start(&place);
        let job = run_to(&place, "failed");
        assert_eq!((count(&job, "attempt"), kind(&job)), (3, "status"), "{code}: {job}");
        assert_eq!(job["error"]["permanent"], false, "{code}: {job}");
        let attempts: Vec<String> =
            server.received().iter().map(|request| request.header("x-ingestd-attempt").to_owned()).collect();
        assert_eq!(attempts, ["1", "2", "3"], "{code}");
        let keys: std::collections::BTreeSet<String> =
            server.received().iter().map(|request| request.header("idempotency-key").to_owned()).collect();
        assert_eq!(keys.len(), 1, "{code}: the key is the same for every attempt");
    }
}

#[test]
fn other_errors_of_the_caller_fail_at_once() {
    for code in [400, 404, 422] {
        let server = Server::always(Answer::status(code));
        let place = place_for(&server.url("/"), RETRY);
        let _daemon = Daemon::start(&place);
        let job = run_to(&place, "failed");
        assert_eq!((count(&job, "attempt"), kind(&job)), (1, "status"), "{code}: {job}");
        assert_eq!(job["error"]["permanent"], true, "{code}: {job}");
        assert!(text(&job["error"], "message").contains(&code.to_string()), "{job}");
        assert_eq!(server.received().len(), 1);
    }
}

#[test]
fn retry_after_is_obeyed_and_spends_nothing() {
    let date = |seconds| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
    let server = Server::new(move |_, before| match before {
        0 => Answer::with(429, "Retry-After", "1"),
        1 => Answer::with(503, "Retry-After", &date(3)),
        _ => Answer::status(200),
    });
    let place = place_for(&server.url("/"), "retry = { base = \"10ms\", max = \"10ms\", max_attempts = 1 }");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "completed");
    assert_eq!(count(&job, "attempt"), 1, "{job}");
    let received = server.received();
    assert_eq!(received.len(), 3);
    assert!(received[1].at - received[0].at >= Duration::from_millis(950), "{:?}", received[1].at - received[0].at);
    // A date has whole seconds.
    assert!(received[2].at - received[1].at >= Duration::from_millis(1_900), "{:?}", received[2].at - received[1].at);
    assert!(received.iter().all(|request| request.header("x-ingestd-attempt") == "1"));
    let spent: Vec<bool> = place.history().iter().map(|row| row["spent"] == true).collect();
    assert_eq!(spent.iter().filter(|spent| **spent).count(), 1);
}

#[test]
fn a_429_without_retry_after_defers_with_the_backoff() {
    let server = Server::new(|_, before| Answer::status(if before < 2 { 429 } else { 200 }));
    let place = place_for(&server.url("/"), "retry = { base = \"100ms\", jitter = \"none\", max_attempts = 1 }");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "completed");
    assert_eq!((count(&job, "attempt"), server.received().len()), (1, 3), "{job}");
}

#[test]
fn retry_after_is_obeyed_up_to_a_day() {
    let server = Server::always(Answer::with(429, "Retry-After", "9999999"));
    let place = place_for(&server.url("/"), "");
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("file", "x"), &[]);
    let job = wait_for("it was deferred", || Some(place.show(id)).filter(|job| kind(job) == "status"));
    assert_eq!((text(&job, "state"), count(&job, "attempt")), ("pending", 0), "{job}");
    let run_at: jiff::Timestamp = text(&job, "run_at").parse().unwrap();
    let wait = run_at.as_second() - jiff::Timestamp::now().as_second();
    assert!((86_000..=86_400).contains(&wait), "{wait} s");
}

#[test]
fn a_redirect_beyond_the_allowed_number_fails_at_once() {
    let server = Server::new(|request, _| match request.target.as_str() {
        "/old" => Answer::with(302, "Location", "/new"),
        _ => Answer::status(200),
    });
    let place = place_for(&server.url("/old"), "");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "failed");
    assert_eq!((count(&job, "attempt"), kind(&job)), (1, "status"), "{job}");
    assert_eq!(job["error"]["permanent"], true, "{job}");
    assert_eq!(server.received().len(), 1);
}

#[test]
fn a_redirect_within_the_allowed_number_is_followed_with_the_file() {
    for (code, redirects, state) in [(307, 1, "completed"), (308, 2, "completed"), (307, 0, "failed")] {
        let server = Server::new(move |request, _| match request.target.as_str() {
            "/old" => Answer::with(code, "Location", "/new"),
            _ => Answer::status(200),
        });
        let place = place_for(&server.url("/old"), &format!("redirects = {redirects}"));
        let _daemon = Daemon::start(&place);
        run_to(&place, state);
        let last = server.received().pop().unwrap();
        assert_eq!(last.body, b"%PDF content", "{code}, {redirects}");
        assert_eq!(last.target, if state == "completed" { "/new" } else { "/old" });
    }
}

#[test]
fn a_server_that_hangs_runs_into_the_timeout() {
    let server = Server::always(Answer::Hang);
    let place = place_for(&server.url("/"), "timeout = \"300ms\"\nretry = { max_attempts = 2, base = \"10ms\" }");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "failed");
    assert_eq!((count(&job, "attempt"), kind(&job)), (2, "timeout"), "{job}");
    assert_eq!(server.received().len(), 2);
}

#[test]
fn a_server_that_hangs_up_or_is_not_there_is_a_connection_error() {
    let server = Server::always(Answer::Close);
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    for url in [server.url("/"), nobody] {
        let place = place_for(&url, "retry = { max_attempts = 2, base = \"10ms\" }");
        let _daemon = Daemon::start(&place);
        let job = run_to(&place, "failed");
        assert_eq!((count(&job, "attempt"), kind(&job)), (2, "connection"), "{job}");
        assert_eq!(job["error"]["permanent"], false, "{job}");
    }
}

#[test]
fn a_server_that_does_not_speak_tls_is_a_tls_error() {
    let server = Server::always(Answer::status(200));
    let place = place_for(&format!("https://{}/", server.host()), "retry = { max_attempts = 2, base = \"10ms\" }");
    let _daemon = Daemon::start(&place);
    let job = run_to(&place, "failed");
    assert_eq!((count(&job, "attempt"), kind(&job)), (2, "tls"), "{job}");
}
