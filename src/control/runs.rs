//! A person's hand on runs: pause, resume, cancel, remove.

use super::hands::{Hands, Refusal};
use crate::run::RunId;

/// What to do with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunHand {
    /// Stop reading it and starting its jobs.
    Pause,
    /// Undo that.
    Resume,
    /// End it for good, and cancel its jobs that wait.
    Cancel,
    /// Forget it.
    Remove,
}

pub(super) async fn steer(_run: RunId, _hand: RunHand, _hands: &Hands) -> Result<(), Refusal> {
    Err(Refusal::failed("not there yet"))
}
