//! Calls to a small server on loopback that answers what a test tells it to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::job::FileIdentity;
use crate::processor::ledger::tests::Memory;
use crate::processor::tests::task;

/// What the server does with a call.
#[derive(Clone, Debug)]
enum Answer {
    /// Writes this, byte for byte, after it has read the whole call, and leaves the connection open.
    Say(String),
    /// Reads the head and closes.
    Close,
    /// Reads the head and never answers.
    Hang,
}

fn status(line: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    Answer::Say(format!("HTTP/1.1 {line}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

/// A call as it arrived.
#[derive(Clone, Debug)]
struct Arrived {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// A server that gives each call the next answer.
struct Server {
    url: String,
    calls: Arc<Mutex<Vec<Arrived>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn that(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&calls);
        tasks.spawn(async move {
            let mut open = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let arrived = read_call(&mut stream).await;
                seen.lock().unwrap().push(arrived);
                match answer {
                    Answer::Say(text) => {
                        // It fails where the client has read enough.
                        let _ = stream.write_all(text.as_bytes()).await;
                        open.push(stream);
                    }
                    Answer::Close => {}
                    Answer::Hang => open.push(stream),
                }
            }
            std::future::pending::<()>().await;
        });
        Self { url, calls, _tasks: tasks }
    }

    fn calls(&self) -> Vec<Arrived> {
        self.calls.lock().unwrap().clone()
    }
}

async fn read_call(stream: &mut TcpStream) -> Arrived {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    // A call whose body breaks off arrives without it.
    if stream.read_exact(&mut body).await.is_err() {
        body.clear();
    }
    Arrived { line, headers, body }
}

/// A file, and a pipeline that sends it.
struct Scene {
    folder: TempDir,
    pipeline: HttpPipeline,
}

impl Scene {
    fn to(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.pdf"), "content").unwrap();
        let pipeline = HttpPipeline {
            url: format!("{url}/in/{{name}}?job={{job}}"),
            method: "POST".to_owned(),
            body: Body::File,
            redirects: 0,
            headers: BTreeMap::from([
                ("Authorization".to_owned(), "Bearer secret".to_owned()),
                ("X-Name".to_owned(), "{name}".to_owned()),
            ]),
            answer_stage: None,
        };
        Self { folder, pipeline }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a.pdf")
    }

    fn task(&self) -> Task {
        Task { size: 7, ..task(self.path().to_str().unwrap()) }
    }

    async fn call(&self) -> Report {
        self.call_about(self.task()).await
    }

    async fn call_about(&self, task: Task) -> Report {
        let processor = HttpProcessor::new("hook", &self.pipeline, 10).unwrap();
        processor.process(task, CancellationToken::new()).await
    }
}

fn failure(report: &Report) -> &JobError {
    match &report.outcome {
        Outcome::Failed(error) | Outcome::Deferred { error, .. } => error,
        other => panic!("{other:?} is no failure"),
    }
}

#[tokio::test]
async fn a_call_carries_the_file_and_tells_of_the_job() {
    let server = Server::that(vec![status("201 Created", &[], "more than ten bytes")]).await;
    let scene = Scene::to(&server.url);
    let report = scene.call().await;
    assert_eq!((report.outcome, report.code), (Outcome::Done, Some(201)));
    assert_eq!(report.output, b" ten bytes");
    let call = &server.calls()[0];
    assert_eq!((call.line.as_str(), call.body.as_slice()), ("POST /in/a.pdf?job=1 HTTP/1.1", &b"content"[..]));
    for (name, value) in [
        ("content-length", "7"),
        ("content-type", "application/pdf"),
        ("idempotency-key", &"07".repeat(32)),
        ("x-ingestd-job", "1"),
        ("x-ingestd-attempt", "1"),
        ("authorization", "Bearer secret"),
        ("x-name", "a.pdf"),
    ] {
        assert_eq!(call.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test]
async fn each_status_has_its_verdict_over_the_wire() {
    for (line, headers, permanent, deferred) in [
        ("500 Internal Server Error", &[][..], false, None),
        ("404 Not Found", &[], true, None),
        ("408 Request Timeout", &[], false, None),
        ("429 Too Many Requests", &["Retry-After: 7"], false, Some(Some(Duration::from_secs(7)))),
        ("429 Too Many Requests", &[], false, Some(None)),
        ("503 Service Unavailable", &[], false, None),
        ("503 Service Unavailable", &["Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"], false, Some(Some(Duration::ZERO))),
        ("302 Found", &["Location: /elsewhere"], true, None),
    ] {
        let server = Server::that(vec![status(line, headers, "why")]).await;
        let report = Scene::to(&server.url).call().await;
        let error = failure(&report);
        assert_eq!((error.kind, error.permanent), (ErrorKind::Status, permanent), "{line}");
        assert!(error.message.contains(line), "{error}");
        let after = if let Outcome::Deferred { after, .. } = report.outcome { Some(after) } else { None };
        assert_eq!(after, deferred, "{line} {headers:?}");
        assert_eq!((report.output.as_slice(), report.code), (&b"why"[..], line[..3].parse().ok()));
    }
}

#[tokio::test]
async fn no_connection_and_a_broken_one_are_worth_another_attempt() {
    let closing = Server::that(vec![Answer::Close]).await;
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    for url in [closing.url.clone(), refusing] {
        let report = Scene::to(&url).call().await;
        let error = failure(&report);
        assert_eq!((error.kind, error.permanent, report.code), (ErrorKind::Connection, false, None), "{error}");
        assert!(error.message.starts_with(&url), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_tls_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 16];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let scene = Scene::to(&url);
    let report = tokio::select! {
        report = scene.call() => report,
        // A machine without certificates fails before it connects.
        _ = async { let _open = answering.await; std::future::pending::<()>().await } => unreachable!(),
    };
    let error = failure(&report);
    assert_eq!((error.kind, error.permanent), (ErrorKind::Tls, false), "{error}");
}

#[tokio::test]
async fn stop_ends_a_call_that_hangs() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned();
    for answer in [Answer::Hang, Answer::Say(half)] {
        let server = Server::that(vec![answer]).await;
        let scene = Scene::to(&server.url);
        let processor = HttpProcessor::new("hook", &scene.pipeline, 10).unwrap();
        let stop = CancellationToken::new();
        let stopping = async {
            while server.calls().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        let (report, ()) = tokio::join!(processor.process(scene.task(), stop.clone()), stopping);
        assert_eq!(report.outcome, Outcome::Interrupted);
    }
}

#[tokio::test]
async fn a_redirect_is_followed_with_the_whole_file() {
    for line in ["307 Temporary Redirect", "308 Permanent Redirect"] {
        let answers = vec![
            status(line, &["Location: /there", "Connection: close"], ""),
            status("200 OK", &["Connection: close"], ""),
        ];
        let server = Server::that(answers).await;
        let mut scene = Scene::to(&server.url);
        scene.pipeline.redirects = 1;
        assert_eq!(scene.call().await.outcome, Outcome::Done);
        let calls = server.calls();
        assert_eq!((calls[1].line.as_str(), calls[1].body.as_slice()), ("POST /there HTTP/1.1", &b"content"[..]));
        assert_eq!(calls[1].headers["authorization"], "Bearer secret");
    }
}

#[tokio::test]
async fn a_see_other_becomes_a_get_without_the_file() {
    let answers = vec![
        status("303 See Other", &["Location: /there", "Connection: close"], ""),
        status("200 OK", &["Connection: close"], ""),
    ];
    let server = Server::that(answers).await;
    let mut scene = Scene::to(&server.url);
    scene.pipeline.redirects = 1;
    assert_eq!(scene.call().await.outcome, Outcome::Done);
    let call = &server.calls()[1];
    assert_eq!((call.line.as_str(), call.body.len()), ("GET /there HTTP/1.1", 0));
    assert!(!call.headers.contains_key("content-type"));
}

#[tokio::test]
async fn redirects_beyond_the_limit_fail_for_good() {
    let hop = || status("307 Temporary Redirect", &["Location: /again", "Connection: close"], "");
    let server = Server::that(vec![hop(), hop(), hop()]).await;
    let mut scene = Scene::to(&server.url);
    scene.pipeline.redirects = 2;
    let report = scene.call().await;
    assert!(failure(&report).permanent && report.code == Some(307));
    assert_eq!(server.calls().len(), 3);
}

#[tokio::test]
async fn configured_headers_do_not_go_to_another_origin() {
    let other = Server::that(vec![status("200 OK", &[], "")]).await;
    let location = format!("Location: {}/there", other.url);
    let server = Server::that(vec![status("307 Temporary Redirect", &[&location], "")]).await;
    let mut scene = Scene::to(&server.url);
    scene.pipeline.redirects = 1;
    assert_eq!(scene.call().await.outcome, Outcome::Done);
    let call = &other.calls()[0];
    assert_eq!(call.body, b"content");
    assert!(!call.headers.contains_key("authorization") && !call.headers.contains_key("x-name"));
    assert!(call.headers.contains_key("idempotency-key"));
}

#[tokio::test]
async fn the_other_bodies_and_deletes_send_no_file() {
    let server = Server::that(vec![status("200 OK", &["Connection: close"], ""); 3]).await;
    let mut scene = Scene::to(&server.url);
    let gone = Task { op: Op::Delete, path: "/no/such/file".into(), ..scene.task() };
    assert_eq!(scene.call_about(gone).await.outcome, Outcome::Done);
    scene.pipeline.body = Body::None;
    assert_eq!(scene.call().await.outcome, Outcome::Done);
    scene.pipeline.body = Body::Metadata;
    scene.pipeline.headers.insert("Content-Type".to_owned(), "application/vnd.mine+json".to_owned());
    assert_eq!(scene.call().await.outcome, Outcome::Done);
    let calls = server.calls();
    assert!(calls[0].body.is_empty() && calls[1].body.is_empty());
    let document: Value = serde_json::from_slice(&calls[2].body).unwrap();
    assert_eq!(document["size_bytes"], 7);
    assert_eq!(calls[2].headers["content-type"], "application/vnd.mine+json", "the user's headers win");
}

#[tokio::test]
async fn a_file_that_cannot_be_sent_says_why() {
    let scene = Scene::to("http://127.0.0.1:9");
    let vanished = Task { path: "/no/such/file".into(), ..scene.task() };
    let folder = Task { path: scene.folder.path().into(), ..scene.task() };
    let fifo = Task { path: scene.folder.path().join("fifo"), ..scene.task() };
    let made = std::process::Command::new("mkfifo").arg(&fifo.path).status().unwrap();
    assert!(made.success());
    for (task, kind, permanent) in
        [(vanished, ErrorKind::Vanished, false), (folder, ErrorKind::NotAFile, true), (fifo, ErrorKind::NotAFile, true)]
    {
        let report = scene.call_about(task).await;
        let error = failure(&report);
        assert_eq!((error.kind, error.permanent), (kind, permanent), "{error}");
    }
}

#[tokio::test]
async fn another_file_than_the_one_that_was_looked_at_is_not_sent() {
    let server = Server::that(vec![status("200 OK", &["Connection: close"], ""); 2]).await;
    let scene = Scene::to(&server.url);
    let identity = FileIdentity::of(&std::fs::metadata(scene.path()).unwrap());
    let task = Task { identity: Some(identity), ..scene.task() };
    assert_eq!(scene.call_about(task.clone()).await.outcome, Outcome::Done);
    let secret = scene.folder.path().join("secret");
    std::fs::write(&secret, "keep it").unwrap();
    std::fs::remove_file(scene.path()).unwrap();
    std::os::unix::fs::symlink(&secret, scene.path()).unwrap();
    let report = scene.call_about(task).await;
    assert!(failure(&report).message.contains("another file"), "{report:?}");
    assert_eq!(server.calls().len(), 1, "nothing more was sent");
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_another_attempt() {
    // The file shrinks (or grows) after its head was sent: the server tells when that has arrived.
    for content in ["con", "content and more"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scene = Scene::to(&format!("http://{}", listener.local_addr().unwrap()));
        let path = scene.path();
        // Large enough that it can't all be under way before the server reads.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(64 << 20).unwrap();
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 1024];
            stream.read_exact(&mut some).await.unwrap();
            std::fs::write(&path, content).unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        };
        let (report, ()) = tokio::join!(scene.call(), serving);
        let error = failure(&report);
        assert_eq!((error.kind, error.permanent), (ErrorKind::Io, false), "{error}");
        assert!(error.message.contains("changed while"), "{error}");
    }
}

#[tokio::test]
async fn a_name_that_breaks_a_header_fails_for_good() {
    let scene = Scene::to("http://127.0.0.1:9");
    let path = scene.folder.path().join("a\nX-Evil: 1");
    std::fs::write(&path, "").unwrap();
    let report = scene.call_about(Task { path, ..scene.task() }).await;
    let error = failure(&report);
    assert_eq!((error.kind, error.permanent), (ErrorKind::Template, true));
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let body = "x".repeat(3 << 20);
    let server = Server::that(vec![Answer::Say(format!("HTTP/1.1 200 OK\r\n\r\n{body}"))]).await;
    let report = Scene::to(&server.url).call().await;
    assert_eq!((report.outcome, report.output.len()), (Outcome::Done, 10));
}

#[test]
fn mistakes_in_a_pipeline_name_their_key() {
    let key = |change: &dyn Fn(&mut HttpPipeline)| {
        let mut scene = Scene::to("http://example.org");
        change(&mut scene.pipeline);
        HttpProcessor::new("hook", &scene.pipeline, 0).unwrap_err().key
    };
    assert_eq!(key(&|p| p.url = "example.org/x".to_owned()), "pipeline.hook.url");
    assert_eq!(key(&|p| p.url = "ftp://example.org/".to_owned()), "pipeline.hook.url");
    assert_eq!(key(&|p| p.url = "http://example.org/{what}".to_owned()), "pipeline.hook.url");
    assert_eq!(key(&|p| p.method = "PO ST".to_owned()), "pipeline.hook.method");
    assert_eq!(key(&|p| drop(p.headers.insert("A b".to_owned(), String::new()))), "pipeline.hook.headers.A b");
    assert_eq!(key(&|p| drop(p.headers.insert("A".to_owned(), "x\r\ny".to_owned()))), "pipeline.hook.headers.A");
}

/// The ledger that a task came with, and the task.
fn recorded(scene: &Scene) -> (Arc<Memory>, Task) {
    let ledger = Arc::new(Memory::default());
    let task = Task { ledger: ledger.clone(), ..scene.task() };
    (ledger, task)
}

#[tokio::test]
async fn a_success_is_recorded_with_its_answer_before_it_is_reported_and_takes_the_job_to_its_stage() {
    let server = Server::that(vec![status("200 OK", &[], "{\"data\": {\"id\": 42}}")]).await;
    let mut scene = Scene::to(&server.url);
    scene.pipeline.answer_stage =
        Some(AnswerStage { stage: "sent".to_owned(), external_id: Some("/data/id".to_owned()) });
    let (ledger, task) = recorded(&scene);
    assert_eq!(scene.call_about(task).await.outcome, Outcome::Done);
    let said = ledger.said.lock().unwrap().clone();
    let begun = format!("begin http {{\"method\":\"POST\",\"url\":\"{}\"}}", server.url);
    assert_eq!(said[0], begun, "without path and query");
    assert!(said[1].starts_with("commit 1 ") && said[1].contains("\"external_id\":\"42\""), "{said:?}");
    assert_eq!(said[2], "reach sent Some(\"42\")");
}

#[tokio::test]
async fn an_answer_that_is_recorded_is_the_outcome_without_a_call() {
    let server = Server::that(vec![]).await;
    let scene = Scene::to(&server.url);
    let (ledger, task) = recorded(&scene);
    let answer = serde_json::json!({ "status": 202, "answer": "more than ten bytes" });
    *ledger.answer.lock().unwrap() = Some(Intended::Done(answer));
    let report = scene.call_about(task).await;
    assert_eq!((report.outcome, report.code, report.output.as_slice()), (Outcome::Done, Some(202), &b" ten bytes"[..]));
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn a_call_that_did_not_succeed_leaves_no_step_behind_and_one_that_is_unknown_is_made_again() {
    let server = Server::that(vec![status("500 Internal Server Error", &[], ""), status("200 OK", &[], "")]).await;
    let scene = Scene::to(&server.url);
    let (ledger, task) = recorded(&scene);
    scene.call_about(task).await;
    assert_eq!(ledger.said.lock().unwrap()[1], "withdraw 1");
    let (ledger, task) = recorded(&scene);
    *ledger.answer.lock().unwrap() = Some(Intended::Unknown(crate::job::EffectId(7)));
    assert_eq!(scene.call_about(task).await.outcome, Outcome::Done);
    assert!(ledger.said.lock().unwrap()[1].starts_with("commit 7"));
}

/// A look-up of names for which this machine lacks something.
struct Short(i32);

impl reqwest::dns::Resolve for Short {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let error = std::io::Error::from_raw_os_error(self.0);
        Box::pin(std::future::ready(Err(error.into())))
    }
}

#[tokio::test]
async fn a_shortage_of_handles_defers_the_job_and_is_no_word_about_the_other_side() {
    let url = Url::parse("http://example.org/").unwrap();
    for (code, deferred) in [(libc::EMFILE, true), (libc::ENFILE, true), (libc::EIO, false)] {
        let client = reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(Short(code))).build().unwrap();
        let failed = client.get(url.clone()).send().await.unwrap_err();
        for outcome in [body::unreadable(&std::io::Error::from_raw_os_error(code)), call_failed(&url, &failed)] {
            match outcome {
                Outcome::Deferred { after: None, error } => assert!(deferred && error.kind == ErrorKind::Io, "{error}"),
                other => assert!(!deferred && matches!(other, Outcome::Failed(_)), "{other:?}"),
            }
        }
    }
}
