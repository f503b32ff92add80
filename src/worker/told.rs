//! What is told of executions that ended: once, when the store has answered, with pipeline and file.

use std::sync::Arc;
use std::time::Duration;

use super::content::ContentClaim;
use crate::job::Verdict;
use crate::store::{Claim, Settled, StoreError, Work};

/// An end as it is told once it is written.
pub(super) struct Told {
    pub(super) claim: Claim,
    pub(super) work: Arc<Work>,
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
    /// The right to the content, which ends once the end is written.
    pub(super) content: Option<ContentClaim>,
}

/// What was handed to the store, and its answer.
pub(super) struct Settling {
    pub(super) ends: Vec<Told>,
    pub(super) answer: Result<Vec<Settled>, StoreError>,
}

/// Says how executions ended, as the store answered.
pub(super) fn report(settled: Settling) -> Result<(), StoreError> {
    match settled.answer {
        Ok(answers) => {
            for (told, answer) in settled.ends.into_iter().zip(answers) {
                report_end(&told, answer);
                drop(told.content);
            }
            Ok(())
        }
        Err(error) if error.is_fatal() => Err(error),
        // The leases run out, and the jobs are taken back as crashed.
        Err(error) => {
            tracing::error!(ends = settled.ends.len(), %error, "ends of executions could not be written");
            Ok(())
        }
    }
}

/// Says once how an execution ended: failures aloud, the rest for who listens.
fn report_end(told: &Told, answer: Settled) {
    let (job, duration_ms) = (told.claim.job, crate::clock::millis(told.took));
    let (pipeline, path) = (told.work.pipeline.as_str(), told.work.path.display());
    match (answer, &told.verdict) {
        (Settled::LeaseLost, _) => {
            tracing::warn!(job.id = %job, %path, fence = %told.claim.fence, "lease lost; nothing was written");
        }
        (_, Verdict::Fail { error }) => tracing::warn!(job.id = %job, pipeline, %path, %error, duration_ms, "failed"),
        (_, Verdict::Retry { run_at, error }) => {
            tracing::info!(job.id = %job, pipeline, %path, %error, duration_ms, retry_at = %run_at, "will be retried");
        }
        (_, Verdict::Defer { run_at, error }) => {
            tracing::debug!(job.id = %job, pipeline, %path, %error, again_at = %run_at, "deferred");
        }
        (_, other) => tracing::debug!(job.id = %job, pipeline, %path, duration_ms, "{}", other.as_str()),
    }
}
