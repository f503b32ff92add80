//! Runs a processor on several jobs together, and finds the one that makes all of them fail.
//!
//! 1. What the processor says of single jobs counts, whatever the rest came to.
//! 2. If the whole failed in a way that one job may have caused (an exit code, a signal, a status, the timeout) and
//!    several jobs were not named, each half of these is run again by itself, and so on: jobs of a half that succeeds
//!    are done, and a job that fails alone has failed. All of that is one execution, and one attempt of each job.
//! 3. What no job can have caused (a deferral, a missing program, no connection, an open breaker) is everybody's, and
//!    nothing is run again. The breaker is told of every run, so that a destination that is down is not asked once for
//!    every half.
//! 4. A stop in between ends it: those whose turn had not come, and those among whom the culprit was looked for, are
//!    put back at no cost.
//!
//! Each run has the whole timeout of the pipeline. One culprit among n jobs costs some 2·log₂ n runs more, and a batch
//! of nothing but culprits 2n − 1 runs in all.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::process::{STOP_PATIENCE, told};
use super::running::{Handle, StopReason};
use super::settings::PipelineSettings;
use super::throttle::Execution;
use crate::job::{ErrorKind, JobError, Outcome};
use crate::processor::{BatchReport, Report, Task};
use crate::store::Claim;

/// The most of its output that one execution keeps with all its jobs together, in bytes: as much as a single job may.
const MOST_KEPT: usize = 16 << 20;

/// Runs the pipeline's processor on the tasks, with the handles of their jobs; answers a report for each, in order.
pub(super) async fn process_together(
    pipeline: &PipelineSettings,
    tasks: &[&Task],
    handles: &[&Handle],
    execution: Execution,
) -> Vec<Report> {
    let Some(stop) = handles.first().map(|handle| handle.token().clone()) else { return Vec::new() };
    let mut search = Search { pipeline, tasks, handles, execution, stop, first: true, reports: Vec::new() };
    search.reports.resize_with(tasks.len(), || None);
    let mut parts = vec![(0..tasks.len()).collect::<Vec<usize>>()];
    while let Some(part) = parts.pop() {
        match search.run(part).await {
            Next::Done => {}
            // The first half first, so that the order of the queue is kept.
            Next::Halves(first, second) => parts.extend([second, first]),
            Next::GiveUp(outcome) => {
                for part in parts.drain(..) {
                    search.share(&part, &Report::of(outcome.clone()), false);
                }
            }
        }
    }
    let missing = || Report::of(Outcome::Interrupted);
    search.reports.into_iter().map(|report| report.unwrap_or_else(missing)).collect()
}

/// The search for a culprit.
struct Search<'a> {
    pipeline: &'a PipelineSettings,
    tasks: &'a [&'a Task],
    handles: &'a [&'a Handle],
    execution: Execution,
    stop: CancellationToken,
    /// Nothing was run yet.
    first: bool,
    reports: Vec<Option<Report>>,
}

/// What follows from the run of a part.
enum Next {
    /// Every job of it has its report.
    Done,
    /// Each of these is to be run by itself.
    Halves(Vec<usize>, Vec<usize>),
    /// What has not been run will not be, and comes to this.
    GiveUp(Outcome),
}

impl Search<'_> {
    /// Runs the processor on a part of the jobs.
    async fn run(&mut self, part: Vec<usize>) -> Next {
        if self.stop.is_cancelled() {
            self.share(&part, &Report::of(Outcome::Interrupted), false);
            return Next::Done;
        }
        let tasks: Vec<&Task> = part.iter().map(|at| self.tasks[*at]).collect();
        let (BatchReport { mut whole, mut named }, timed_out) = call(self.pipeline, &tasks, &self.stop).await;
        // Whoever answers for single jobs is there, whatever the status.
        let answered = !named.is_empty() && matches!(whole.outcome, Outcome::Failed(_));
        let held = if answered { self.hear_answer(&part, &whole) } else { self.hear(&part, &mut whole) };
        let mut rest = Vec::new();
        for at in part {
            match named.remove(&self.tasks[at].job) {
                Some(outcome) => self.reports[at] = Some(self.named(at, outcome, &whole)),
                None => rest.push(at),
            }
        }
        if rest.len() < 2 || !(timed_out || may_be_caused(&whole.outcome)) {
            self.share(&rest, &whole, timed_out);
            return if held { Next::GiveUp(deferred(&whole.outcome)) } else { Next::Done };
        }
        if self.stop.is_cancelled() {
            self.share(&rest, &Report { outcome: Outcome::Interrupted, ..whole }, false);
            return Next::Done;
        }
        if held {
            // The run that opened the breaker spends an attempt where it was about one job; here it may be anyone's.
            let outcome = deferred(&whole.outcome);
            self.share(&rest, &Report { outcome: outcome.clone(), ..whole }, false);
            return Next::GiveUp(outcome);
        }
        tracing::debug!(pipeline = %self.tasks[rest[0]].pipeline, jobs = rest.len(), "failed together; trying halves");
        let second = rest.split_off(rest.len().div_ceil(2));
        Next::Halves(rest, second)
    }

    /// Tells the breaker what a run came to; `true`: it is open.
    fn hear(&mut self, part: &[usize], whole: &mut Report) -> bool {
        // The first run is the execution's own word, which a probe waits for. After that the part's first job speaks,
        // so that it counts as what it is: another job that failed.
        let own = std::mem::replace(&mut self.first, false);
        let claim = part.first().filter(|_| !own).map(|at| self.tasks[*at]);
        let claim = claim.map_or(self.execution.claim(), |task| Claim { job: task.job, fence: task.fence });
        self.execution.heard(claim, whole, self.pipeline.processor.calls_out())
    }

    fn hear_answer(&mut self, part: &[usize], whole: &Report) -> bool {
        self.hear(part, &mut Report { outcome: Outcome::Done, code: whole.code, output: Vec::new() })
    }

    /// The report of a job of which the processor spoke; only a person who cancelled it may contradict.
    fn named(&self, at: usize, outcome: Outcome, whole: &Report) -> Report {
        let report = Report { outcome, ..self.copy(whole) };
        match self.handles[at].reason() {
            Some(StopReason::Cancelled) => told(report, self.handles[at]),
            _ => report,
        }
    }

    /// The same report for all of these, but for those that somebody stopped. What was too late is spent even so, or
    /// it could be tried for ever.
    fn share(&mut self, jobs: &[usize], whole: &Report, timed_out: bool) {
        for at in jobs {
            let (report, handle) = (self.copy(whole), self.handles[*at]);
            let spent = timed_out && handle.reason() != Some(StopReason::Cancelled);
            self.reports[*at] = Some(if spent { report } else { told(report, handle) });
        }
    }

    fn copy(&self, whole: &Report) -> Report {
        let most = MOST_KEPT / self.tasks.len().max(1);
        let output = whole.output[whole.output.len().saturating_sub(most)..].to_vec();
        Report { outcome: whole.outcome.clone(), code: whole.code, output }
    }
}

/// Runs the processor once, for no longer than the pipeline's timeout; answers whether that was too short.
async fn call(pipeline: &PipelineSettings, tasks: &[&Task], stop: &CancellationToken) -> (BatchReport, bool) {
    call_patiently(pipeline, tasks, stop, STOP_PATIENCE).await
}

async fn call_patiently(
    pipeline: &PipelineSettings,
    tasks: &[&Task],
    stop: &CancellationToken,
    patience: Duration,
) -> (BatchReport, bool) {
    let own = stop.child_token();
    let work = pipeline.processor.process_batch(tasks, own.clone());
    tokio::pin!(work);
    let timed_out = tokio::select! {
        biased;
        report = &mut work => return (report, false),
        () = tokio::time::sleep(pipeline.timeout) => true,
        () = stop.cancelled() => false,
    };
    own.cancel();
    let left = BatchReport::of(Outcome::Interrupted);
    let mut report = tokio::time::timeout(patience, work).await.unwrap_or(left);
    if timed_out {
        let limit = humantime::format_duration(pipeline.timeout);
        let error = JobError::transient(ErrorKind::Timeout, format!("no end after {limit}"));
        report.whole.outcome = Outcome::Failed(error);
    }
    (report, timed_out)
}

/// Whether one job may have made all of them fail.
fn may_be_caused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(error)
        if matches!(error.kind, ErrorKind::Exit | ErrorKind::Signal | ErrorKind::Status))
}

/// The same, later and at no cost.
fn deferred(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(error) => Outcome::Deferred { after: None, error: error.clone() },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
