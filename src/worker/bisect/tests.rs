//! A processor that records what it is given and answers as told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::*;
use crate::clock::{Boottime, SystemClock};
use crate::config::Breaker;
use crate::job::{Fence, JobId, RetryPolicy};
use crate::processor::Processor;
use crate::store::Batching;
use crate::warnings::Warnings;
use crate::worker::Throttle;

type Script = dyn Fn(&[i64]) -> BatchReport + Send + Sync;

struct Scripted {
    runs: Mutex<Vec<Vec<i64>>>,
    script: Box<Script>,
}

#[async_trait]
impl Processor for Scripted {
    async fn process(&self, _task: Task, _stop: CancellationToken) -> Report {
        Report::of(Outcome::Interrupted)
    }

    async fn process_batch(&self, tasks: &[&Task], _stop: CancellationToken) -> BatchReport {
        let jobs: Vec<i64> = tasks.iter().map(|task| task.job.0).collect();
        self.runs.lock().unwrap().push(jobs.clone());
        (self.script)(&jobs)
    }

    fn calls_out(&self) -> bool {
        true
    }
}

fn failed(kind: ErrorKind) -> Outcome {
    Outcome::Failed(JobError::transient(kind, "x"))
}

fn whole(outcome: Outcome, code: i32) -> BatchReport {
    BatchReport { whole: Report { outcome, code: Some(code), output: b"said".to_vec() }, named: HashMap::new() }
}

/// Jobs 1 to `n` in one execution, whose breaker opens after so many failures; answers their outcomes and the runs.
async fn outcomes(
    n: i64,
    failures: u32,
    handles: &[Handle],
    script: impl Fn(&[i64]) -> BatchReport + Send + Sync + 'static,
) -> (Vec<Outcome>, Vec<Vec<i64>>) {
    let clock = Arc::new(SystemClock);
    let breaker = Breaker { failures, ..Breaker::default() };
    let throttle = Throttle::new("p", breaker, None, clock.clone(), Warnings::new(clock));
    let processor = Arc::new(Scripted { runs: Mutex::default(), script: Box::new(script) });
    let pipeline = PipelineSettings {
        processor: processor.clone(),
        concurrency: 1,
        batch: Batching { size: 100, linger: Duration::ZERO },
        timeout: Duration::from_hours(1),
        retry: RetryPolicy::default(),
        throttle: throttle.clone(),
    };
    let tasks: Vec<Task> = (1..=n).map(|job| Task { job: JobId(job), ..crate::processor::tests::task("/a") }).collect();
    let tasks: Vec<&Task> = tasks.iter().collect();
    let handles: Vec<&Handle> = handles.iter().collect();
    let execution = throttle.start(Claim { job: JobId(1), fence: Fence(1) });
    let reports = process_together(&pipeline, &tasks, &handles, execution).await;
    let outcomes = reports.into_iter().map(|report| report.outcome).collect();
    let runs = processor.runs.lock().unwrap().clone();
    (outcomes, runs)
}

fn handles(n: usize) -> Vec<Handle> {
    Handle::together((0..n).map(|_| Boottime::from_millis(0)))
}

#[tokio::test]
async fn the_culprits_are_found_and_nobody_else_fails() {
    for (n, culprits) in
        [(1, vec![1]), (2, vec![2]), (7, vec![4]), (8, vec![1, 8]), (5, vec![1, 2, 3, 4, 5]), (9, vec![])]
    {
        let poison = culprits.clone();
        let (outcomes, runs) = outcomes(n, 0, &handles(usize::try_from(n).unwrap()), move |jobs| {
            let bad = jobs.iter().any(|job| poison.contains(job));
            whole(if bad { failed(ErrorKind::Exit) } else { Outcome::Done }, i32::from(bad))
        })
        .await;
        let expected: Vec<Outcome> =
            (1..=n).map(|job| if culprits.contains(&job) { failed(ErrorKind::Exit) } else { Outcome::Done }).collect();
        assert_eq!(outcomes, expected, "{n} {culprits:?}");
        assert!(runs.len() < 2 * usize::try_from(n).unwrap(), "{runs:?}");
        assert!(culprits.iter().all(|culprit| runs.contains(&vec![*culprit])), "each failed alone: {runs:?}");
    }
}

#[tokio::test]
async fn the_first_half_comes_first() {
    let (_, runs) = outcomes(4, 0, &handles(4), |_| whole(failed(ErrorKind::Exit), 1)).await;
    assert_eq!(runs, [vec![1, 2, 3, 4], vec![1, 2], vec![1], vec![2], vec![3, 4], vec![3], vec![4]]);
}

#[tokio::test]
async fn jobs_that_were_named_are_not_run_again() {
    let (outcomes, runs) = outcomes(4, 0, &handles(4), |jobs| {
        let named = [(JobId(1), Outcome::Done), (JobId(3), failed(ErrorKind::Answer))];
        let named = if jobs.len() == 4 { HashMap::from(named) } else { HashMap::new() };
        BatchReport { named, ..whole(if jobs == [2] { Outcome::Done } else { failed(ErrorKind::Exit) }, 1) }
    })
    .await;
    assert_eq!(outcomes, [Outcome::Done, Outcome::Done, failed(ErrorKind::Answer), failed(ErrorKind::Exit)]);
    assert_eq!(runs, [vec![1, 2, 3, 4], vec![2], vec![4]]);
}

#[tokio::test]
async fn what_no_job_can_have_caused_is_everybodys_and_not_tried_again() {
    let later = Outcome::Deferred { after: None, error: JobError::transient(ErrorKind::Exit, "later") };
    for outcome in [later, failed(ErrorKind::Connection), failed(ErrorKind::Tls), failed(ErrorKind::Spawn)] {
        let said = outcome.clone();
        let (outcomes, runs) = outcomes(4, 0, &handles(4), move |_| whole(said.clone(), 1)).await;
        assert_eq!((outcomes, runs.len()), (vec![outcome; 4], 1));
    }
}

#[tokio::test]
async fn a_destination_that_is_down_opens_the_breaker_and_is_not_asked_for_every_half() {
    let (outcomes, runs) = outcomes(64, 3, &handles(64), |_| whole(failed(ErrorKind::Status), 500)).await;
    // The halves down to the first job, and the two after it: three different jobs were the first of a failed run.
    assert!(runs.len() < 12, "{runs:?}");
    let spent = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count();
    assert_eq!(spent, 2, "those that failed alone before it opened");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Deferred { .. })));
}

#[tokio::test]
async fn a_stop_between_two_runs_puts_back_whoever_has_not_ended() {
    let handles = handles(4);
    let stopping = handles[3].clone();
    let (outcomes, runs) = outcomes(4, 0, &handles, move |jobs| match jobs {
        [1, 2] => {
            stopping.stop(StopReason::Cancelled);
            whole(Outcome::Done, 0)
        }
        _ => whole(failed(ErrorKind::Exit), 1),
    })
    .await;
    assert_eq!(outcomes, [Outcome::Done, Outcome::Done, Outcome::Interrupted, Outcome::Cancelled]);
    assert_eq!(runs, [vec![1, 2, 3, 4], vec![1, 2]]);
}

#[tokio::test]
async fn a_failure_in_the_moment_of_a_stop_is_nobodys() {
    let handles = handles(2);
    let stopping = handles[0].clone();
    let (outcomes, _) = outcomes(2, 0, &handles, move |_| {
        stopping.stop(StopReason::Interrupted);
        whole(failed(ErrorKind::Exit), 1)
    })
    .await;
    assert_eq!(outcomes, [Outcome::Interrupted, Outcome::Interrupted]);
}
