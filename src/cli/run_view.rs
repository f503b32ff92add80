//! A run, for programs and for people.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::screen::{approximate, count, plural};
use super::view::{json_or_text, lossy, path_base64};
use crate::clock::Timestamp;
use crate::control::Stores;
use crate::job::{Digest, DigestAlgorithm, JobId, Op};
use crate::run::{Run, RunId, RunInput, RunJobs, RunState, RunType};
use crate::store::{Changeset, FailedLine, RepoCounts};

/// Lines and jobs with which something is wrong that are shown with a run.
const ERRORS: usize = 20;
/// Changesets that are shown with it.
const CHANGESETS: usize = 1_000;

/// A run with what belongs to it, as JSON tells it.
#[derive(Serialize)]
pub struct RunInFull {
    id: RunId,
    name: Option<String>,
    #[serde(rename = "type")]
    run_type: RunType,
    state: RunState,
    input: InputView,
    dry_run: bool,
    pipeline: String,
    total: Option<u64>,
    processed: u64,
    enqueued: u64,
    completed: u64,
    failed: u64,
    skipped: u64,
    bad_lines: u64,
    position: u64,
    current_path: Option<String>,
    batch: u64,
    rate_per_s: f64,
    eta_ms: Option<u64>,
    started_at: Timestamp,
    updated_at: Timestamp,
    finished_at: Option<Timestamp>,
    duration_ms: i64,
    checkpoint_version: u32,
    changesets: Vec<Value>,
    last_error: Option<String>,
    reading: bool,
    failed_lines: u64,
    duplicates: u64,
    deletes: u64,
    open: u64,
    cancelled: u64,
    /// The first of them; `status --failed --run` has them all.
    errors: Vec<FailedView>,
    repos: Vec<RepoView>,
}

#[derive(Serialize)]
struct InputView {
    kind: &'static str,
    path: Option<String>,
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl InputView {
    fn of(input: &RunInput) -> Self {
        let (kind, path, read) = match input {
            RunInput::Watch { root } => ("watch", Some(root), None),
            RunInput::File { path, read } => ("file", Some(path), Some(read)),
            RunInput::Stdin { read } => ("stdin", None, Some(read)),
        };
        let hex = |digest: [u8; 32]| Digest { algorithm: DigestAlgorithm::Blake3, bytes: digest }.to_string();
        Self {
            kind,
            path: path.map(|path| lossy(path)),
            digest: read.and_then(|read| read.digest).map(hex),
            path_base64: path.and_then(|path| path_base64(path)),
        }
    }
}

/// Something that did not end well.
#[derive(Serialize)]
pub struct FailedView {
    run: RunId,
    line: u64,
    path: Option<String>,
    op: Option<Op>,
    repo: Option<String>,
    job: Option<JobId>,
    error: String,
    tries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl From<FailedLine> for FailedView {
    fn from(failed: FailedLine) -> Self {
        Self {
            run: failed.run,
            line: failed.line,
            path: failed.path.as_deref().map(lossy),
            op: failed.op,
            repo: failed.repo,
            job: failed.job,
            error: failed.error,
            tries: failed.tries,
            text: failed.text.map(|text| String::from_utf8_lossy(&text).into_owned()),
            path_base64: failed.path.as_deref().and_then(path_base64),
        }
    }
}

#[derive(Serialize)]
struct RepoView {
    repo: Option<String>,
    #[serde(flatten)]
    jobs: RunJobs,
}

impl From<RepoCounts> for RepoView {
    fn from(counts: RepoCounts) -> Self {
        Self { repo: counts.repo, jobs: counts.jobs }
    }
}

/// A changeset's own fields, with its line and repository.
fn changeset(changeset: Changeset) -> Value {
    let mut fields = match json_or_text(&changeset.changeset) {
        Value::Object(fields) => fields,
        other => Map::from_iter([("changeset".to_owned(), other)]),
    };
    fields.insert("line".to_owned(), json!(changeset.line));
    fields.insert("repo".to_owned(), json!(changeset.repo));
    Value::Object(fields)
}

impl RunInFull {
    /// A run with what belongs to it.
    pub async fn of(run: &Run, stores: &Stores, now: Timestamp) -> Result<Self, Failure> {
        let is_list = !matches!(run.input, RunInput::Watch { .. });
        let mut view = Self::alone(run, now);
        if is_list {
            let lists = &stores.lists;
            view.changesets = lists.changesets(run.id, CHANGESETS).await?.into_iter().map(changeset).collect();
            view.errors = lists.failed_lines(Some(run.id), ERRORS).await?.into_iter().map(Into::into).collect();
            view.repos = lists.repos(run.id).await?.into_iter().map(Into::into).collect();
        }
        Ok(view)
    }

    /// What a scan has: no lines, batches or changesets, and its jobs are not counted by how they ended.
    fn alone(run: &Run, now: Timestamp) -> Self {
        let pace = Pace::of(run, now);
        Self {
            id: run.id,
            name: run.name.clone(),
            run_type: run.run_type,
            state: run.state,
            input: InputView::of(&run.input),
            dry_run: run.dry_run,
            pipeline: run.pipeline.clone(),
            total: run.total,
            processed: run.processed,
            enqueued: run.enqueued,
            completed: run.jobs.completed,
            failed: run.jobs.failed + run.failed_lines,
            skipped: run.skipped + run.jobs.skipped,
            bad_lines: run.bad_lines,
            position: run.position,
            current_path: run.current_path.as_deref().map(lossy),
            batch: run.batch,
            rate_per_s: run.rate_per_s,
            eta_ms: pace.eta.map(|eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX)),
            started_at: run.started_at,
            updated_at: run.updated_at,
            finished_at: run.finished_at,
            duration_ms: run.duration_ms,
            checkpoint_version: run.checkpoint_version,
            changesets: Vec::new(),
            last_error: run.last_error.clone(),
            reading: run.reading && !run.state.is_final(),
            failed_lines: run.failed_lines,
            duplicates: run.duplicates,
            deletes: run.deletes,
            open: run.jobs.open,
            cancelled: run.jobs.cancelled,
            errors: Vec::new(),
            repos: Vec::new(),
        }
    }

    /// The changesets, by line.
    pub fn changesets(&self) -> &[Value] {
        &self.changesets
    }

    /// What did not end well.
    pub fn errors(&self) -> &[FailedView] {
        &self.errors
    }

    /// Its jobs by repository, where any line names one.
    pub fn repos(&self) -> BTreeMap<String, RunJobs> {
        let named = self.repos.iter().any(|repo| repo.repo.is_some());
        let rows = self.repos.iter().filter(|_| named);
        rows.map(|repo| (repo.repo.clone().unwrap_or_else(|| "(none)".to_owned()), repo.jobs)).collect()
    }
}

impl FailedView {
    /// In which line of which run.
    pub const fn place(&self) -> (RunId, u64) {
        (self.run, self.line)
    }

    /// What it is about, as far as that is known.
    pub fn what(&self) -> String {
        self.path.clone().or_else(|| self.text.clone()).unwrap_or_default()
    }

    /// Operation, repository, tries.
    pub fn facts(&self) -> [String; 3] {
        [
            self.op.map(|op| op.to_string()).unwrap_or_default(),
            self.repo.clone().unwrap_or_default(),
            self.tries.to_string(),
        ]
    }

    /// What went wrong.
    pub fn error(&self) -> &str {
        &self.error
    }
}

/// How fast a run's jobs end, and when the last one does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Jobs that ended, per second since it began.
    pub rate_per_s: f64,
    /// How long it still takes: to read the list, or to do its jobs.
    pub eta: Option<Duration>,
}

impl Pace {
    /// Of a list's run that is at work. How long a list on a standard input is, nobody knows.
    pub fn of(run: &Run, now: Timestamp) -> Self {
        if run.state != RunState::Running || matches!(run.input, RunInput::Watch { .. }) {
            return Self::default();
        }
        let jobs = &run.jobs;
        let ended = approximate(jobs.completed + jobs.failed + jobs.skipped + jobs.cancelled);
        let rate_per_s = ended / now.since(run.started_at).as_secs_f64().max(0.001);
        let (left, rate) = match &run.input {
            RunInput::File { path, read } if run.reading => {
                let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
                let bytes_per_line = approximate(read.bytes) / approximate(read.lines.max(1));
                (approximate(size.saturating_sub(read.bytes)), run.rate_per_s * bytes_per_line)
            }
            RunInput::Stdin { .. } if run.reading => return Self { rate_per_s, eta: None },
            _ => (approximate(jobs.open), rate_per_s),
        };
        let eta = (rate > 0.0).then(|| Duration::try_from_secs_f64(left / rate).ok()).flatten();
        Self { rate_per_s, eta }
    }
}

/// How jobs of earlier runs stand, for whose versions lines needed none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Earlier {
    /// Not over yet.
    pub waiting: u64,
    /// Failed or cancelled.
    pub failed: u64,
}

/// A run's counts in a sentence.
pub fn counts(run: &Run, earlier: Earlier) -> String {
    let would = if run.dry_run { "would be new jobs" } else { "new jobs" };
    let deletes = match run.deletes {
        0 => String::new(),
        deletes => format!(" ({} of what is missing)", plural(deletes, "delete", "deletes")),
    };
    let mut parts = vec![plural(run.processed, "line", "lines"), format!("{} {would}{deletes}", count(run.enqueued))];
    let mut none = Vec::new();
    none.extend((run.duplicates > 0).then(|| plural(run.duplicates, "duplicate", "duplicates")));
    none.extend((earlier.waiting > 0).then(|| plural(earlier.waiting, "still waits", "still wait")));
    none.extend((earlier.failed > 0).then(|| {
        format!("{} failed before: `ingestd retry --failed` or `--cancelled` tries again", count(earlier.failed))
    }));
    let none = if none.is_empty() { String::new() } else { format!(" ({})", none.join(", ")) };
    parts.push(format!("{} needed none{none}", count(run.skipped)));
    let jobs = &run.jobs;
    let more = [
        (run.bad_lines, "bad"),
        (run.failed_lines, "can't be done"),
        (jobs.completed, "completed"),
        (jobs.failed, "failed"),
        (jobs.skipped, "skipped"),
        (jobs.cancelled, "cancelled"),
        (jobs.open, "to be done"),
    ];
    parts.extend(more.into_iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{} {word}", count(n))));
    format!("run {}, {}: {}", run.id, run.state, parts.join(", "))
}
