//! `kind = "noop"`: does nothing, successfully. To try a watch out, to keep an inventory with digests, to measure.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Processor, Report, Task};
use crate::job::Outcome;

/// The processor that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopProcessor;

#[async_trait]
impl Processor for NoopProcessor {
    async fn process(&self, _task: Task, _stop: CancellationToken) -> Report {
        Report::of(Outcome::Done)
    }
}
