//! One call for many jobs: an array of their descriptions out, an array or lines of answers by job back, whatever the
//! status; jobs that are not named go by the status.

use super::{About, BatchReport, Body, Call, HttpProcessor, Outcome, Task};
use crate::processor::answers::Answers;

/// How much of an answer is read, in bytes: some 1 600 for each job of the largest batch.
const ANSWER_LIMIT: usize = 16 << 20;

impl HttpProcessor {
    /// Makes the call; at least one task.
    pub(super) async fn call_about_all(&self, tasks: &[&Task]) -> Result<BatchReport, Outcome> {
        let Some(first) = tasks.first() else { return Ok(BatchReport::of(Outcome::Interrupted)) };
        // No placeholder of a single job is in them: the configuration refuses that.
        let configured = self.configured_headers(first).map_err(Outcome::Failed)?;
        let url = self.url_for(first).map_err(Outcome::Failed)?;
        let call = Call { method: self.method.clone(), url, body: Body::Metadata, at_home: true };
        let (response, url) = self.follow(call, About::Batch(tasks), &configured).await?;
        let mut answer = Vec::new();
        let whole = self.report(response, &url, ANSWER_LIMIT, |chunk| answer.extend_from_slice(chunk)).await;
        if answer.len() >= ANSWER_LIMIT {
            tracing::warn!(pipeline = %first.pipeline, limit = ANSWER_LIMIT, "the answer to a batch was cut off");
        }
        let mut answers = Answers::about(tasks);
        answers.push_body(&answer);
        Ok(BatchReport { whole, named: answers.finish() })
    }
}
