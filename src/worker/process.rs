//! Runs a processor until it is done, too late, or stopped, and never waits for one that does not return.

use std::time::Duration;

use super::running::{Handle, StopReason};
use super::settings::PipelineSettings;
use crate::job::{ErrorKind, JobError, Outcome};
use crate::processor::{Report, Task};

/// A processor that does not return this long after it was told to stop is left to its fate.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Runs the pipeline's processor on the task. Its timeout is a hard one: it ends the attempt, spent, whatever else the
/// processor does, and whether or not it returns within `patience`.
pub(super) async fn process(pipeline: &PipelineSettings, task: Task, handle: &Handle, patience: Duration) -> Report {
    let stop = handle.token().child_token();
    let work = pipeline.processor.process(task, stop.clone());
    tokio::pin!(work);
    let timed_out = tokio::select! {
        biased;
        report = &mut work => return told(report, handle),
        () = tokio::time::sleep(pipeline.timeout) => true,
        () = handle.token().cancelled() => false,
    };
    stop.cancel();
    let left = Report::of(Outcome::Interrupted);
    let mut report = tokio::time::timeout(patience, work).await.unwrap_or(left);
    // Also when a stop arrives meanwhile: what was too late is spent, or it could be tried for ever.
    if timed_out && handle.reason() != Some(StopReason::Cancelled) {
        let limit = humantime::format_duration(pipeline.timeout);
        report.outcome = Outcome::Failed(JobError::transient(ErrorKind::Timeout, format!("no end after {limit}")));
        return report;
    }
    told(report, handle)
}

/// What a stop from outside means outweighs what the processor made of it.
pub(super) fn told(mut report: Report, handle: &Handle) -> Report {
    match handle.reason() {
        Some(StopReason::Cancelled) if report.outcome != Outcome::Done => report.outcome = Outcome::Cancelled,
        Some(StopReason::Interrupted) if report.outcome != Outcome::Done => report.outcome = Outcome::Interrupted,
        _ => {}
    }
    report
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::Boottime;
    use crate::job::RetryPolicy;
    use crate::processor::Processor;
    use crate::store::Batching;
    use crate::worker::Throttle;

    const SHORT: Duration = Duration::from_millis(20);

    /// Never returns, whatever it is told.
    struct Deaf;

    #[async_trait]
    impl Processor for Deaf {
        async fn process(&self, _task: Task, _stop: CancellationToken) -> Report {
            std::future::pending().await
        }
    }

    fn deaf(timeout: Duration) -> PipelineSettings {
        let clock = Arc::new(crate::clock::SystemClock);
        let warnings = crate::warnings::Warnings::new(clock.clone());
        let throttle = Throttle::new("deaf", crate::config::Breaker::default(), None, clock, warnings);
        PipelineSettings {
            processor: Arc::new(Deaf),
            concurrency: 1,
            batch: Batching::SINGLE,
            timeout,
            retry: RetryPolicy::default(),
            throttle,
        }
    }

    fn handle() -> Handle {
        Handle::new(Boottime::from_millis(0))
    }

    fn is_timeout(report: &Report) -> bool {
        matches!(&report.outcome, Outcome::Failed(error) if error.kind == ErrorKind::Timeout && !error.permanent)
    }

    #[tokio::test]
    async fn a_timeout_spends_the_attempt_of_a_processor_that_does_not_return() {
        let task = crate::processor::tests::task("/a");
        assert!(is_timeout(&process(&deaf(SHORT), task, &handle(), SHORT).await));
    }

    #[tokio::test]
    async fn a_stop_that_comes_after_the_timeout_does_not_make_it_unspent() {
        let (task, handle) = (crate::processor::tests::task("/a"), handle());
        let stopping = handle.clone();
        let (report, ()) = tokio::join!(async { process(&deaf(SHORT), task, &handle, SHORT * 5).await }, async move {
            tokio::time::sleep(SHORT * 3).await;
            stopping.stop(StopReason::Interrupted);
        });
        assert!(is_timeout(&report), "{report:?}");
    }

    #[tokio::test]
    async fn a_stop_before_the_timeout_spends_nothing_although_the_processor_does_not_return() {
        let (task, handle) = (crate::processor::tests::task("/a"), handle());
        handle.stop(StopReason::Interrupted);
        let report = process(&deaf(Duration::from_hours(1)), task, &handle, SHORT).await;
        assert_eq!(report.outcome, Outcome::Interrupted);
    }
}
