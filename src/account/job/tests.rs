use std::collections::BTreeMap;

use super::*;
use crate::config::{ExecPipeline, ProcessorKind};
use crate::control::fake;
use crate::control::{LiveThrottle, RunningJob, WirePath};
use crate::job::StateName;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::of(ProcessorKind::Exec(ExecPipeline::of(vec!["true".to_owned()])));
    pipeline.concurrency = 2;
    pipeline
}

fn live(running: &[(i64, &str, bool)]) -> LiveStatus {
    let running = running.iter().map(|(id, pipeline, suspect)| RunningJob {
        id: JobId(*id),
        pipeline: (*pipeline).to_owned(),
        suspect: *suspect,
        path: WirePath("/a".into()),
        started_at_ms: 0,
    });
    LiveStatus { running: running.collect(), ..LiveStatus::default() }
}

struct Case {
    job: Job,
    last: Option<Attempt>,
    pipeline: Option<Pipeline>,
    live: Option<LiveStatus>,
    ahead: Ahead,
    paused: bool,
    paused_run: Option<RunId>,
    concurrency: Option<usize>,
    due_suspect: Option<JobId>,
}

impl Case {
    fn new(state: StateName) -> Self {
        let mut job = fake::job(JobId(7), state);
        job.run_at = NOW;
        Self {
            job,
            last: None,
            pipeline: Some(pipeline()),
            live: Some(LiveStatus::default()),
            ahead: Ahead::default(),
            paused: false,
            paused_run: None,
            concurrency: None,
            due_suspect: None,
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            job: &self.job,
            last: self.last.as_ref(),
            now: NOW,
            pipeline: self.pipeline.as_ref(),
            paused: self.paused,
            paused_run: self.paused_run,
            concurrency: self.concurrency,
            daemon: self.live.as_ref(),
            ahead: self.ahead,
            due_suspect: self.due_suspect,
            rate_per_s: 2.0,
        }
    }

    fn holds(&self) -> Vec<Hold> {
        self.facts().holds()
    }
}

fn attempt(outcome: &str, code: Option<i32>) -> Attempt {
    Attempt {
        id: 1,
        job: JobId(7),
        execution: 1,
        pipeline: "documents".to_owned(),
        path: None,
        outcome: outcome.to_owned(),
        spent: true,
        started_at: NOW,
        finished_at: NOW,
        duration_ms: 1,
        code,
        error: None,
        output: None,
    }
}

#[test]
fn a_due_job_that_nothing_holds_is_next() {
    assert_eq!(Case::new(StateName::Pending).holds(), []);
}

#[test]
fn everything_that_holds_is_told_and_what_stops_most_comes_first() {
    let mut case = Case::new(StateName::Pending);
    let mut told = live(&[(1, "documents", false), (2, "documents", false), (3, "hook", false)]);
    (told.stopping, told.locked, told.shut) = (true, true, vec![Shut::TooManyWaiting, Shut::DatabaseFull]);
    let breaker = LiveBreaker {
        state: BreakerCondition::Open,
        since_ms: None,
        failures: 5,
        last_error: None,
        next_probe_at_ms: None,
        opened: 1,
    };
    let rate = LiveRate { limit: "1/1h".to_owned(), burst: 1, tokens: 0, next_at_ms: None };
    let throttle = LiveThrottle { breaker: Some(breaker.clone()), rate: Some(rate.clone()) };
    told.throttles = BTreeMap::from([("documents".to_owned(), throttle)]);
    case.live = Some(told);
    case.paused = true;
    case.paused_run = Some(RunId(5));
    case.concurrency = Some(3);
    case.due_suspect = Some(JobId(9));
    case.ahead = Ahead { in_level: 4, in_all: 6, more: false };
    let expected = [
        Hold::Stopping,
        Hold::Locked,
        Hold::NoRoom,
        Hold::Paused,
        Hold::RunPaused(RunId(5)),
        Hold::Quiet(JobId(9)),
        Hold::Breaker(breaker),
        Hold::Rate(rate),
        Hold::Concurrency(2, vec![JobId(1), JobId(2)]),
        Hold::QueueConcurrency(3, vec![JobId(1), JobId(2), JobId(3)]),
        Hold::Behind(case.ahead, Some(Duration::from_secs(3))),
    ];
    assert_eq!(case.holds(), expected);
}

#[test]
fn without_a_daemon_nothing_is_known_of_the_pool_and_the_rest_is_told_all_the_same() {
    let mut case = Case::new(StateName::Pending);
    (case.live, case.pipeline, case.paused) = (None, None, true);
    assert_eq!(case.holds(), [Hold::NoDaemon, Hold::Undefined, Hold::Paused]);
}

#[test]
fn a_job_that_is_not_due_says_until_when_and_why() {
    let later = NOW.plus(Duration::from_mins(1));
    let mut case = Case::new(StateName::Pending);
    case.job.run_at = later;
    case.ahead = Ahead { in_level: 1, in_all: 1, more: false };
    assert_eq!(case.holds(), [Hold::NotDue(later, Why::Asked)], "what is before it does not matter yet");
    case.last = Some(attempt("crashed", None));
    assert_eq!(case.holds(), [Hold::NotDue(later, Why::Asked)]);
    case.last = Some(attempt("deferred", Some(75)));
    let error = JobError::transient(ErrorKind::Exit, "exit code 75");
    case.job.error = Some(error.clone());
    assert_eq!(case.holds(), [Hold::NotDue(later, Why::Deferred(Some(error)))]);
    let mut case = Case::new(StateName::Retrying);
    case.job.run_at = later;
    let error = JobError::transient(ErrorKind::Exit, "exit code 1");
    assert_eq!(case.holds(), [Hold::NotDue(later, Why::Retry(error))]);
}

#[test]
fn a_blocked_job_names_what_blocks_it_and_a_suspect_what_it_runs_after() {
    let mut case = Case::new(StateName::Pending);
    case.job.state = State::Pending { run_at: NOW, blocked_by: Some(JobId(3)) };
    case.ahead = Ahead { in_level: 1, in_all: 1, more: false };
    assert_eq!(case.holds(), [Hold::Blocked(JobId(3))]);
    let mut case = Case::new(StateName::Pending);
    case.job.crashes = 2;
    case.due_suspect = Some(case.job.id);
    case.live = Some(live(&[(3, "hook", false)]));
    assert_eq!(case.holds(), [Hold::Alone(vec![JobId(3)])]);
    // One that runs alone keeps all others from starting.
    let mut case = Case::new(StateName::Pending);
    case.live = Some(live(&[(3, "hook", true)]));
    assert_eq!(case.holds(), [Hold::Quiet(JobId(3))]);
}

#[test]
fn a_closed_breaker_and_a_full_bucket_hold_nothing() {
    let mut case = Case::new(StateName::Pending);
    let breaker = LiveBreaker {
        state: BreakerCondition::Closed,
        since_ms: None,
        failures: 1,
        last_error: None,
        next_probe_at_ms: None,
        opened: 0,
    };
    let rate = LiveRate { limit: "1/1h".to_owned(), burst: 1, tokens: 1, next_at_ms: None };
    let mut told = live(&[(1, "documents", false), (2, "hook", false)]);
    told.throttles =
        BTreeMap::from([("documents".to_owned(), LiveThrottle { breaker: Some(breaker), rate: Some(rate) })]);
    case.live = Some(told);
    case.concurrency = Some(3);
    assert_eq!(case.holds(), []);
}

#[test]
fn a_failed_job_names_the_rule_that_gave_it_up() {
    use ErrorKind::{Crash, Exit, NotAFile, Status, Timeout};
    let table = [
        (JobError::permanent(Exit, ""), Some(65), 1, GivenUp::ExitCode(65, Some(1))),
        (JobError::permanent(Exit, ""), Some(3), 1, GivenUp::ExitCode(3, None)),
        (JobError::permanent(Status, ""), Some(404), 1, GivenUp::Status(Some(404))),
        (JobError::permanent(NotAFile, ""), None, 1, GivenUp::Permanent(NotAFile)),
        (JobError::permanent(Crash, ""), None, 0, GivenUp::Crashes),
        (JobError::transient(Timeout, ""), None, 10, GivenUp::Attempts),
        (JobError::transient(Exit, ""), Some(1), 9, GivenUp::Elapsed),
    ];
    for (error, code, attempts, expected) in table {
        let mut case = Case::new(StateName::Failed);
        case.job.attempt = attempts;
        case.last = Some(attempt("failed", code));
        assert_eq!(case.facts().given_up(&error), expected, "{error} {code:?}");
    }
}
