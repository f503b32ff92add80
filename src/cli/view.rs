//! The shapes of the JSON output: names and order are promises.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use super::effect::EffectView;
use crate::clock::Timestamp;
use crate::config::{Config, Dedupe, Disposal, OnRename, Watch, WatchMode, WatchOrder, show_size};
use crate::job::{Job, JobError, JobId, Op, Priority, SkipReason, State, StateName};
use crate::store::{Attempt, Counts, FailureGroup, Reached};

/// A job.
#[derive(Serialize)]
pub struct JobView<'a> {
    id: JobId,
    pipeline: &'a str,
    watch: Option<&'a str>,
    path: String,
    relative: String,
    op: Op,
    moved_from: Option<String>,
    version: i64,
    priority: Priority,
    state: StateName,
    reason: Option<&'static str>,
    duplicate_of: Option<JobId>,
    attempt: u32,
    max_attempts: Option<u32>,
    crashes: u32,
    run_at: Timestamp,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    duration_ms: Option<u64>,
    size_bytes: Option<u64>,
    digest: Option<String>,
    idempotency_key: String,
    run: Option<i64>,
    line: Option<u64>,
    repo: Option<&'a str>,
    stage: Option<&'a str>,
    external_id: Option<&'a str>,
    metadata: Option<Value>,
    error: Option<&'a JobError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    superseded_by: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_by: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl<'a> JobView<'a> {
    /// The view of a job; the budget comes from its pipeline, where that is still defined.
    pub fn of(job: &'a Job, config: &Config) -> Self {
        let (reason, superseded_by) = match &job.state {
            State::Skipped { reason: SkipReason::Superseded { by }, .. } => (Some("superseded"), Some(*by)),
            State::Skipped { reason, .. } => (Some(reason.as_str()), None),
            _ => (None, None),
        };
        let duplicate_of = match job.state {
            State::Skipped { reason: SkipReason::Duplicate { of }, .. } => Some(of),
            _ => None,
        };
        let blocked_by = match job.state {
            State::Pending { blocked_by, .. } => blocked_by,
            _ => None,
        };
        Self {
            id: job.id,
            pipeline: &job.pipeline,
            watch: job.watch.as_deref(),
            path: lossy(&job.path),
            relative: lossy(&job.relative),
            op: job.op,
            moved_from: job.moved_from.as_deref().map(lossy),
            version: job.version,
            priority: job.priority,
            state: job.state.name(),
            reason,
            duplicate_of,
            attempt: job.attempt,
            max_attempts: config.pipelines.get(&job.pipeline).map(|pipeline| pipeline.retry.max_attempts),
            crashes: job.crashes,
            run_at: job.run_at,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            duration_ms: duration_ms(job),
            size_bytes: job.size_bytes,
            digest: job.digest.map(|digest| digest.to_string()),
            idempotency_key: job.idempotency_key.to_string(),
            run: job.run.map(|run| run.0),
            line: job.line,
            repo: job.repo.as_deref(),
            stage: job.stage.as_deref(),
            external_id: job.external_id.as_deref(),
            metadata: job.metadata.as_deref().map(json_or_text),
            error: job.error.as_ref(),
            superseded_by,
            blocked_by,
            path_base64: path_base64(&job.path),
        }
    }
}

/// How long the newest execution of an ended job took.
pub fn duration_ms(job: &Job) -> Option<u64> {
    let (started, finished) = (job.started_at?, job.finished_at?);
    u64::try_from(finished.since(started).as_millis()).ok()
}

/// Why a job was skipped, with the file that it repeats.
pub fn skipped(reason: &SkipReason, job: &Job) -> String {
    match &job.original {
        Some(original) => format!("{reason}, {}", lossy(original)),
        None => reason.to_string(),
    }
}

/// A text that is JSON, as what it says; any other text as a string.
pub fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// A path with replacement characters where it is not UTF-8.
pub fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The exact bytes of a path that is not UTF-8.
pub fn path_base64(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_bytes();
    std::str::from_utf8(bytes).is_err().then(|| STANDARD.encode(bytes))
}

/// An execution in the history.
#[derive(Serialize)]
pub struct AttemptView<'a> {
    id: i64,
    job: JobId,
    execution: u32,
    pipeline: &'a str,
    path: Option<String>,
    outcome: &'a str,
    spent: bool,
    started_at: Timestamp,
    finished_at: Timestamp,
    duration_ms: i64,
    code: Option<i32>,
    error: Option<&'a JobError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl<'a> AttemptView<'a> {
    /// The view of an execution, with its output where it was read.
    pub fn of(attempt: &'a Attempt) -> Self {
        let output = attempt.output.as_deref();
        Self {
            id: attempt.id,
            job: attempt.job,
            execution: attempt.execution,
            pipeline: &attempt.pipeline,
            path: attempt.path.as_deref().map(lossy),
            outcome: &attempt.outcome,
            spent: attempt.spent,
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
            duration_ms: attempt.duration_ms,
            code: attempt.code,
            error: attempt.error.as_ref(),
            output: output.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
            output_base64: output
                .filter(|bytes| std::str::from_utf8(bytes).is_err())
                .map(|bytes| STANDARD.encode(bytes)),
            path_base64: attempt.path.as_deref().and_then(path_base64),
        }
    }
}

/// A job with its history, for `show`.
#[derive(Serialize)]
pub struct JobInFull<'a> {
    /// The job's own fields.
    #[serde(flatten)]
    pub job: JobView<'a>,
    /// Every execution, in order.
    pub attempts: Vec<AttemptView<'a>>,
    /// The steps that its processor recorded.
    pub effects: Vec<EffectView>,
    /// The stages that it came to, in order.
    pub stages: Vec<StageView>,
    /// What the other side answered.
    pub result: Option<Value>,
}

/// A stage that a job came to.
#[derive(Serialize)]
pub struct StageView {
    stage: String,
    at: Timestamp,
}

impl From<Reached> for StageView {
    fn from(reached: Reached) -> Self {
        Self { stage: reached.stage, at: reached.at }
    }
}

/// Jobs that share an error.
#[derive(Serialize)]
pub struct FailureView<'a> {
    pipeline: &'a str,
    error: &'a JobError,
    count: u64,
    failed: u64,
    retrying: u64,
    first_at: Timestamp,
    last_at: Timestamp,
    example: JobId,
    example_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl<'a> FailureView<'a> {
    /// The view of a group.
    pub fn of(group: &'a FailureGroup) -> Self {
        Self {
            pipeline: &group.pipeline,
            error: &group.error,
            count: group.failed + group.retrying,
            failed: group.failed,
            retrying: group.retrying,
            first_at: group.first_at,
            last_at: group.last_at,
            example: group.example,
            example_path: lossy(&group.example_path),
            path_base64: path_base64(&group.example_path),
        }
    }
}

/// Jobs by state, with every state there.
pub fn by_state(counts: &Counts) -> BTreeMap<StateName, u64> {
    StateName::ALL.into_iter().map(|state| (state, counts.in_state(state))).collect()
}

/// Rates over 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rates {
    /// Over one minute.
    #[serde(rename = "1m")]
    pub one: f64,
    /// Over five.
    #[serde(rename = "5m")]
    pub five: f64,
    /// Over fifteen.
    #[serde(rename = "15m")]
    pub fifteen: f64,
}

impl From<[f64; 3]> for Rates {
    fn from([one, five, fifteen]: [f64; 3]) -> Self {
        Self { one, five, fifteen }
    }
}

/// A watch with every key, as the configuration spells them.
pub fn watch(watch: &Watch) -> Value {
    let events = [(watch.events.add, "add"), (watch.events.modify, "modify"), (watch.events.delete, "delete")];
    let events: Vec<&str> = events.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
    let mode = match watch.mode {
        WatchMode::Auto => "auto",
        WatchMode::Native => "native",
        WatchMode::Poll => "poll",
    };
    let order = match watch.order {
        WatchOrder::Path => "path",
        WatchOrder::Newest => "newest",
        WatchOrder::Oldest => "oldest",
    };
    let on_rename = match watch.on_rename {
        OnRename::Modify => "modify",
        OnRename::Separate => "separate",
        OnRename::Track => "track",
    };
    let dedupe = match watch.dedupe {
        Dedupe::None => "none",
        Dedupe::Content => "content",
    };
    let span = |duration| humantime::format_duration(duration).to_string();
    serde_json::json!({
        "path": lossy(&watch.path),
        "pipeline": watch.pipeline,
        "recursive": watch.recursive,
        "include": watch.include,
        "exclude": watch.exclude,
        "ignore_files": watch.ignore_files,
        "priority": watch.priority,
        "settle": span(watch.settle),
        "ready_suffix": watch.ready_suffix,
        "events": events,
        "mode": mode,
        "poll_interval": span(watch.poll_interval),
        "rescan_interval": span(watch.rescan_interval),
        "follow_symlinks": watch.follow_symlinks,
        "on_success": disposal(&watch.on_success),
        "on_failure": disposal(&watch.on_failure),
        "max_depth": watch.max_depth.unwrap_or(0),
        "min_size": show_size(watch.min_size_bytes),
        "max_size": show_size(watch.max_size_bytes.unwrap_or(0)),
        "min_age": span(watch.min_age),
        "order": order,
        "on_rename": on_rename,
        "dedupe": dedupe,
        "delete_brake": { "above": watch.delete_brake.above, "share": watch.delete_brake.share,
            "wait": span(watch.delete_brake.wait) },
    })
}

fn disposal(disposal: &Disposal) -> Value {
    match disposal {
        Disposal::Keep => Value::from("keep"),
        Disposal::Delete => Value::from("delete"),
        Disposal::Move(folder) => serde_json::json!({ "move": lossy(folder) }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::{DeleteBrake, watch_from_json};
    use crate::control::fake::{config, job};

    #[test]
    fn a_watch_is_shown_in_the_words_that_define_it() {
        let changed = Watch {
            max_depth: Some(3),
            min_size_bytes: 1 << 10,
            max_size_bytes: Some(1_500),
            min_age: Duration::from_mins(90),
            order: WatchOrder::Newest,
            on_rename: OnRename::Separate,
            dedupe: Dedupe::Content,
            delete_brake: DeleteBrake { above: 5, share: 0.25, wait: Duration::ZERO },
            on_success: Disposal::Move("/srv/done".into()),
            ..Watch::of("/srv/in".into(), "p".to_owned())
        };
        for shown in [changed, Watch::of("/srv/in".into(), "p".to_owned())] {
            assert_eq!(watch_from_json("inbox", &watch(&shown)).unwrap(), shown);
        }
    }

    #[test]
    fn a_job_has_the_promised_fields_in_the_promised_order() {
        let mut job = job(JobId(1), StateName::Completed);
        job.metadata = Some(r#"{"a":1}"#.to_owned());
        let key = job.idempotency_key;
        let expected = format!(
            r#"{{"id":1,"pipeline":"documents","watch":"inbox","path":"/srv/inbox/a.pdf","relative":"a.pdf","op":"add","moved_from":null,"version":1,"priority":"normal","state":"completed","reason":null,"duplicate_of":null,"attempt":1,"max_attempts":10,"crashes":0,"run_at":"2023-11-14T22:13:20.000Z","created_at":"2023-11-14T22:13:20.000Z","started_at":"2023-11-14T22:13:20.000Z","finished_at":"2023-11-14T22:13:20.012Z","duration_ms":12,"size_bytes":3,"digest":null,"idempotency_key":"{key}","run":null,"line":null,"repo":null,"stage":null,"external_id":null,"metadata":{{"a":1}},"error":null}}"#
        );
        assert_eq!(serde_json::to_string(&JobView::of(&job, &config())).unwrap(), expected);
    }

    #[test]
    fn a_failed_job_tells_kind_message_and_permanence() {
        let job = job(JobId(1), StateName::Failed);
        let value = serde_json::to_value(JobView::of(&job, &config())).unwrap();
        let error = serde_json::json!({ "kind": "exit", "message": "exit code 1", "permanent": false });
        assert_eq!(value["error"], error);
    }

    #[test]
    fn a_superseded_job_names_its_successor() {
        let job = job(JobId(1), StateName::Skipped);
        let value = serde_json::to_value(JobView::of(&job, &config())).unwrap();
        assert_eq!((value["reason"].as_str(), value["superseded_by"].as_i64()), (Some("superseded"), Some(2)));
    }

    #[test]
    fn a_path_that_is_not_utf8_is_there_exactly() {
        let mut job = job(JobId(1), StateName::Pending);
        job.path = PathBuf::from(OsString::from_vec(b"/srv/\xff".to_vec()));
        let value = serde_json::to_value(JobView::of(&job, &config())).unwrap();
        assert_eq!(value["path"], "/srv/\u{fffd}");
        assert_eq!(STANDARD.decode(value["path_base64"].as_str().unwrap()).unwrap(), b"/srv/\xff");
    }
}
