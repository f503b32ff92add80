//! What a web server may answer, through the real client: every status and `Retry-After` has its verdict, and what is
//! no answer fails the attempt.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ingestd::config::{Body, HttpPipeline};
use ingestd::job::{Outcome, RetryPolicy, Spent, Verdict};
use ingestd::processor::{HttpProcessor, Processor};
use tokio_util::sync::CancellationToken;

use super::inputs::{self, Reply};
use super::properties::task;

/// How much of an answer an attempt keeps here, in bytes.
const KEPT: usize = 1_000;

/// A server that answers each connection with whatever lies ready, and hangs up.
struct Server {
    url: String,
    next: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let next = Arc::new(Mutex::new(Vec::new()));
        let ready = Arc::clone(&next);
        // It ends with the process: nothing is left to wait for.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let bytes = ready.lock().unwrap().clone();
                // Whoever has read enough hangs up.
                let _ = answer(stream, &bytes);
            }
        });
        Self { url, next }
    }
}

fn answer(mut stream: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        head.push(byte[0]);
    }
    stream.write_all(bytes)?;
    stream.shutdown(std::net::Shutdown::Write)
}

#[test]
fn a_reply_has_its_verdict_and_what_is_none_fails_the_attempt() {
    let server = Server::new();
    let pipeline = HttpPipeline {
        url: server.url.clone(),
        method: "POST".to_owned(),
        body: Body::None,
        redirects: 0,
        headers: BTreeMap::new(),
        answer_stage: None,
    };
    let processor = HttpProcessor::new("p", &pipeline, KEPT).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    super::hold("fuzz::replies", 400, &inputs::reply(), |reply| {
        *server.next.lock().unwrap() = reply.bytes();
        let report = runtime.block_on(processor.process(task(b"/a"), CancellationToken::new()));
        assert!(report.output.len() <= KEPT);
        match &reply {
            Reply::Sound { status, retry_after, .. } => {
                assert_eq!(report.code, Some(i32::from(*status)));
                has_its_verdict(&report.outcome, *status, retry_after.as_deref());
            }
            Reply::Noise(bytes) => match &report.outcome {
                Outcome::Done => assert!(bytes.starts_with(b"HTTP/1."), "done by {:?}", String::from_utf8_lossy(bytes)),
                Outcome::Failed(error) | Outcome::Deferred { error, .. } => assert!(!error.message.is_empty()),
                other => panic!("{other:?}"),
            },
        }
    });
}

fn has_its_verdict(outcome: &Outcome, status: u16, retry_after: Option<&str>) {
    let asked = retry_after.and_then(seconds);
    match (status, outcome) {
        (200..300, Outcome::Done) => {}
        (429, Outcome::Deferred { after, .. }) => is_obeyed(asked, *after),
        (503, Outcome::Deferred { after, .. }) if asked.is_some() => is_obeyed(asked, *after),
        (503, Outcome::Failed(error)) if asked.is_none() => assert!(!error.permanent),
        (408 | 500..=502 | 504.., Outcome::Failed(error)) => assert!(!error.permanent),
        (300..408 | 409..429 | 430..500, Outcome::Failed(error)) => assert!(error.permanent),
        _ => panic!("{status}, {retry_after:?}: {outcome:?}"),
    }
}

/// The wait is what was asked for; what the policy makes of it is a day at most.
fn is_obeyed(asked: Option<u64>, after: Option<Duration>) {
    let day = Duration::from_hours(24);
    let bounded = |wait: Duration| wait.min(day);
    assert_eq!(after.map(bounded), asked.map(Duration::from_secs).map(bounded));
    let now = ingestd::clock::Timestamp::from_millis(0);
    let spent = Spent { attempts: 0, deferrals: 0, first_started_at: now };
    let error = ingestd::job::JobError::transient(ingestd::job::ErrorKind::Status, "no");
    let verdict = RetryPolicy::default().judge(Outcome::Deferred { after, error }, spent, now, 1.0);
    let Verdict::Defer { run_at, .. } = verdict else { panic!("{verdict:?}") };
    assert!(run_at <= now.plus(day));
}

/// What the header asks for, in seconds, by the letter of RFC 9110: digits, or a date.
fn seconds(text: &str) -> Option<u64> {
    match text.trim_matches([' ', '\t']) {
        inputs::PAST => Some(0),
        inputs::FUTURE => Some(u64::MAX),
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().unwrap_or(u64::MAX))
        }
        _ => None,
    }
}
