//! `kind = "http"`: makes an HTTP call about each job, with the file streamed from disk as its body.
//!
//! 1. URL and headers are rendered; what can't be put there fails at once.
//! 2. The call is sent, its file opened anew for each hop. Redirects are followed here and not by the client,
//!    because a body that streams can't be replayed: 307 and 308 repeat the call, 303 (and 301, 302 after a POST)
//!    turn it into a GET. The pipeline's own headers stay with the origin for which they were written.
//! 3. The status decides (see `verdict`), the tail of the answer is kept. If the file changed while it was sent,
//!    nobody knows what arrived, and the attempt has failed.
//!
//! 4. The call is a step in the job's ledger: a success is recorded before it is reported, and never called for again.
//!
//! The pipeline's timeout arrives as `stop`, which drops the call wherever it is. The client is built with the first
//! call, so a daemon without HTTP pipelines never loads certificates.

mod batch;
mod body;
mod client;
mod verdict;

use std::path::Path;

use async_trait::async_trait;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::body::OpenFile;
use self::client::Clients;
use self::verdict::{call_failed, judge};
use super::description::description;
use super::output::Tail;
use super::registry::BuildError;
use super::template::Template;
use super::{BatchReport, Intended, LedgerError, Processor, Report, Task, batch_key};
use crate::clock::{Clock, SystemClock};
use crate::config::{AnswerStage, Body, HttpPipeline};
use crate::job::{ErrorKind, JobError, Op, Outcome};

/// How much of an answer is read, in bytes; the rest is not waited for.
const ANSWER_LIMIT: usize = 1 << 20;

/// The longest name that an answer may give a job, in bytes.
const LONGEST_NAME: usize = 1_024;

/// The processor that makes HTTP calls.
#[derive(Debug)]
pub struct HttpProcessor {
    url: Template,
    method: Method,
    body: Body,
    redirects: usize,
    headers: Vec<(HeaderName, Template)>,
    answer_stage: Option<AnswerStage>,
    clients: Clients,
    output_limit: usize,
}

/// What a call is about.
#[derive(Clone, Copy)]
enum About<'t> {
    Job(&'t Task),
    Batch(&'t [&'t Task]),
}

/// A call on its way over redirects.
struct Call {
    method: Method,
    url: Url,
    body: Body,
    /// Whether it still goes where the pipeline's headers were meant to go.
    at_home: bool,
}

impl HttpProcessor {
    /// A processor for the pipeline `name`, which keeps at most `output_limit` bytes of each answer.
    ///
    /// # Errors
    /// A URL, method or header that can't be, or a text that is no template: each names its key.
    pub fn new(name: &str, pipeline: &HttpPipeline, output_limit: usize) -> Result<Self, BuildError> {
        let wrong = |rest: &str, why: &dyn std::fmt::Display| BuildError::new(format!("pipeline.{name}.{rest}"), why);
        let url = Template::parse(&pipeline.url).map_err(|why| wrong("url", &why))?;
        check_url(&url).map_err(|why| wrong("url", &why))?;
        let method = Method::from_bytes(pipeline.method.as_bytes())
            .map_err(|_| wrong("method", &format!("`{}` is no HTTP method", pipeline.method)))?;
        let mut headers = Vec::new();
        for (header, text) in &pipeline.headers {
            let key = format!("headers.{header}");
            let parsed = HeaderName::from_bytes(header.as_bytes())
                .map_err(|_| wrong(&key, &format!("`{header}` is no header's name")))?;
            if text.chars().any(char::is_control) {
                return Err(wrong(&key, &"holds a control character (a line break?), which no header may"));
            }
            headers.push((parsed, Template::parse(text).map_err(|why| wrong(&key, &why))?));
        }
        let (body, redirects) = (pipeline.body, pipeline.redirects);
        let answer_stage = pipeline.answer_stage.clone();
        Ok(Self { url, method, body, redirects, headers, answer_stage, clients: Clients::default(), output_limit })
    }

    /// The call as a step that is taken once. What was answered with success before is the outcome without a call; a
    /// call of which nobody knows how it came out is safe to repeat, because it carries the idempotency key.
    async fn call_once(&self, task: &Task) -> Result<Report, Outcome> {
        let url = self.url_for(task).map_err(Outcome::Failed)?;
        // Path and query may hold a secret, and the ledger is there to be read.
        let context = json!({ "method": self.method.as_str(), "url": url.origin().ascii_serialization() });
        let id = match task.ledger.begin("http", &context).await? {
            Intended::Done(answer) => {
                self.reach(task, &answer).await;
                return Ok(self.replayed(&answer));
            }
            Intended::Run(id) | Intended::Unknown(id) => id,
        };
        let (report, external_id) = self.call(task, url).await.unwrap_or_else(|outcome| (Report::of(outcome), None));
        if report.outcome != Outcome::Done {
            unrecorded(task, task.ledger.withdraw(id).await);
            return Ok(report);
        }
        let mut answer = json!({ "status": report.code, "answer": String::from_utf8_lossy(&report.output) });
        if let Some(external_id) = external_id {
            answer["external_id"] = external_id.into();
        }
        unrecorded(task, task.ledger.commit(id, &answer).await);
        self.reach(task, &answer).await;
        Ok(report)
    }

    fn url_for(&self, task: &Task) -> Result<Url, JobError> {
        let invalid = |error| JobError::permanent(ErrorKind::Template, format!("the URL becomes invalid: {error}"));
        Url::parse(&self.url.render_url(task)?).map_err(invalid)
    }

    /// Takes the job to where a success takes it.
    async fn reach(&self, task: &Task, answer: &Value) {
        if let Some(AnswerStage { stage, .. }) = &self.answer_stage {
            let external_id = answer["external_id"].as_str().map(str::to_owned);
            unrecorded(task, task.ledger.reach(stage, external_id).await);
        }
    }

    /// The name that an answer gives the job: a text or a number at the configured place.
    fn external_id(&self, answer: &[u8]) -> Option<String> {
        let pointer = self.answer_stage.as_ref()?.external_id.as_deref()?;
        match serde_json::from_slice::<Value>(answer).ok()?.pointer(pointer)? {
            Value::String(name) => Some(name.clone()).filter(|name| (1..=LONGEST_NAME).contains(&name.len())),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// What an earlier execution was answered.
    fn replayed(&self, answer: &Value) -> Report {
        let mut tail = Tail::new(self.output_limit);
        tail.push(answer["answer"].as_str().unwrap_or_default().as_bytes());
        let code = answer["status"].as_i64().and_then(|status| i32::try_from(status).ok());
        Report { outcome: Outcome::Done, code, output: tail.into_bytes() }
    }

    async fn call(&self, task: &Task, url: Url) -> Result<(Report, Option<String>), Outcome> {
        let configured = self.configured_headers(task).map_err(Outcome::Failed)?;
        // A vanished file has no body to send.
        let body = if task.op == Op::Delete && self.body == Body::File { Body::None } else { self.body };
        let call = Call { method: self.method.clone(), url, body, at_home: true };
        let (response, url) = self.follow(call, About::Job(task), &configured).await?;
        let named = self.answer_stage.as_ref().is_some_and(|answer| answer.external_id.is_some());
        let mut answer = Vec::new();
        let heard = |chunk: &[u8]| {
            if named {
                answer.extend_from_slice(chunk);
            }
        };
        let report = self.report(response, &url, ANSWER_LIMIT, heard).await;
        Ok((report, self.external_id(&answer)))
    }

    /// Sends the call wherever it is redirected; answers with the last answer, and whose it is.
    async fn follow(
        &self,
        mut call: Call,
        about: About<'_>,
        configured: &HeaderMap,
    ) -> Result<(Response, Url), Outcome> {
        let mut redirects_left = self.redirects;
        loop {
            let response = self.send(&call, about, configured).await?;
            match call.after(&response, redirects_left) {
                Some(next) => call = next,
                None => return Ok((response, call.url)),
            }
            redirects_left -= 1;
        }
    }

    /// Sends the call and waits for the answer's head.
    async fn send(&self, call: &Call, about: About<'_>, configured: &HeaderMap) -> Result<Response, Outcome> {
        let client = self.clients.for_url(&call.url).map_err(|error| call_failed(&call.url, &error))?;
        let mut headers = about.headers();
        let mut file = None;
        let mut request = client.request(call.method.clone(), call.url.clone());
        match (call.body, about) {
            (Body::File, About::Job(task)) => {
                let opened = OpenFile::open(&task.path, task.identity.as_ref()).await?;
                headers.insert(CONTENT_TYPE, content_type(&task.path));
                headers.insert(CONTENT_LENGTH, HeaderValue::from(opened.length()));
                request = request.body(opened.stream().await?);
                file = Some(opened);
            }
            (Body::Metadata, _) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                request = request.body(about.description());
            }
            (Body::None, _) | (Body::File, About::Batch(_)) => {}
        }
        if call.at_home {
            headers.extend(configured.clone());
        }
        let answer = request.headers(headers).send().await;
        // Asked first: a file that shrank breaks the connection, and that is not the other side's fault.
        if let Some(file) = file {
            file.is_unchanged().await?;
        }
        answer.map_err(|error| call_failed(&call.url, &error))
    }

    /// What an answer comes to. Its body is read for so many bytes at most, and `heard` by whoever wants it.
    async fn report(
        &self,
        mut response: Response,
        url: &Url,
        limit: usize,
        mut heard: impl FnMut(&[u8]) + Send,
    ) -> Report {
        let status = response.status();
        let outcome = judge(status, response.headers(), url, SystemClock.now());
        let mut tail = Tail::new(self.output_limit);
        let mut read = 0;
        // A connection that breaks here has already told its status.
        while let Ok(Some(chunk)) = response.chunk().await {
            tail.push(&chunk);
            heard(&chunk);
            read += chunk.len();
            if read >= limit {
                break;
            }
        }
        Report { outcome, code: Some(i32::from(status.as_u16())), output: tail.into_bytes() }
    }

    fn configured_headers(&self, task: &Task) -> Result<HeaderMap, JobError> {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, template) in &self.headers {
            let value = HeaderValue::from_bytes(&template.render_header(name.as_str(), task)?);
            let mut value = value.map_err(|_| {
                JobError::permanent(ErrorKind::Template, format!("the header {name} would hold what no header may"))
            })?;
            // Configured headers may hold a secret; this keeps their values out of debug output.
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }
}

#[async_trait]
impl Processor for HttpProcessor {
    async fn process(&self, task: Task, stop: CancellationToken) -> Report {
        tokio::select! {
            biased;
            () = stop.cancelled() => Report::of(Outcome::Interrupted),
            report = self.call_once(&task) => report.unwrap_or_else(Report::of),
        }
    }

    async fn process_batch(&self, tasks: &[&Task], stop: CancellationToken) -> BatchReport {
        tokio::select! {
            biased;
            () = stop.cancelled() => BatchReport::of(Outcome::Interrupted),
            report = self.call_about_all(tasks) => report.unwrap_or_else(BatchReport::of),
        }
    }

    fn calls_out(&self) -> bool {
        true
    }
}

impl Call {
    /// The call that this answer redirects to, if it does and may.
    fn after(&self, response: &Response, redirects_left: usize) -> Option<Self> {
        let status = response.status();
        let turns_into_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return None,
        };
        if redirects_left == 0 {
            return None;
        }
        let location = std::str::from_utf8(response.headers().get(LOCATION)?.as_bytes()).ok()?;
        let url = self.url.join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let at_home = self.at_home && url.origin() == self.url.origin();
        Some(if turns_into_get {
            Self { method: Method::GET, url, body: Body::None, at_home }
        } else {
            Self { method: self.method.clone(), url, body: self.body, at_home }
        })
    }
}

impl About<'_> {
    /// The headers that tell the other side of it.
    fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let key = match self {
            Self::Job(task) => {
                headers.insert("x-ingestd-job", HeaderValue::from(task.job.0));
                headers.insert("x-ingestd-attempt", HeaderValue::from(task.attempt));
                task.idempotency_key
            }
            Self::Batch(tasks) => {
                headers.insert("x-ingestd-batch", HeaderValue::from(tasks.len()));
                batch_key(tasks)
            }
        };
        if let Ok(key) = HeaderValue::from_str(&key.to_string()) {
            headers.insert("idempotency-key", key);
        }
        headers
    }

    /// The job, or the array of all, as JSON.
    fn description(self) -> String {
        match self {
            Self::Job(task) => description(task).to_string(),
            Self::Batch(tasks) => Value::Array(tasks.iter().map(|task| description(task)).collect()).to_string(),
        }
    }
}

/// What could not be recorded is only told: the call was made, and its verdict follows in any case.
fn unrecorded(task: &Task, noted: Result<(), LedgerError>) {
    if let Err(error @ LedgerError::Refused(_)) = noted {
        tracing::warn!(job.id = %task.job, %error, "what came of a call could not be recorded");
    }
}

/// What the file's name says of its content.
fn content_type(path: &Path) -> HeaderValue {
    let guess = mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream");
    HeaderValue::from_static(guess)
}

/// Whether the template makes a URL that can be called, whatever its placeholders become.
fn check_url(template: &Template) -> Result<(), String> {
    let url = Url::parse(&template.sample()).map_err(|error| format!("is no URL: {error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(()),
        other => Err(format!("`{other}` is neither http nor https")),
    }
}

#[cfg(test)]
mod tests;
