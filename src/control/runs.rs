//! A person's hand on runs: pause, resume, cancel, remove.
//!
//! A scan is read by its watch, so it is the watch that is paused and resumed for it; and it can't be cancelled, because
//! the watch would only begin the next one.

use super::hands::{Hands, Refusal};
use super::{steer as jobs, watches};
use crate::job::StateName;
use crate::run::{RunId, RunInput, RunState};
use crate::store::{JobFilter, RunSteered};

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
    /// End it for good in favour of another run of its list; its jobs stay.
    GiveUp,
    /// Forget it.
    Remove,
}

/// Jobs cancelled in one write.
const SLICE: usize = 1_000;
/// More than ever run at once.
const RUNNING: usize = 100_000;

pub(super) async fn steer(run: RunId, hand: RunHand, hands: &Hands) -> Result<(), Refusal> {
    let found = hands.stores.runs.run(run).await?.ok_or_else(|| unknown_run(run))?;
    if let (RunInput::Watch { .. }, Some(watch)) = (&found.input, &found.name)
        && hand != RunHand::Remove
    {
        return steer_scan(run, watch, found.state, hand, hands).await;
    }
    let lists = hands.stores.lists.as_ref();
    let steered = match hand {
        RunHand::Pause => lists.pause_run(run).await?,
        RunHand::Resume => lists.resume_run(run).await?,
        RunHand::Cancel => lists.cancel_run(run).await?,
        RunHand::GiveUp => lists.give_up_run(run).await?,
        RunHand::Remove => lists.remove_run(run).await?,
    };
    match steered {
        RunSteered::Done if hand == RunHand::Cancel => cancel_jobs(run, hands).await,
        RunSteered::Done => Ok(()),
        RunSteered::Refused(state) => Err(Refusal::failed(refused(run, hand, state))),
        RunSteered::Unknown => Err(unknown_run(run)),
    }
}

async fn steer_scan(run: RunId, watch: &str, state: RunState, hand: RunHand, hands: &Hands) -> Result<(), Refusal> {
    match (hand, state) {
        (RunHand::Pause, RunState::Running | RunState::Paused) => watches::pause(watch, true, hands).await.map(drop),
        (RunHand::Resume, RunState::Running | RunState::Paused) => watches::pause(watch, false, hands).await.map(drop),
        (RunHand::Cancel | RunHand::GiveUp, RunState::Running | RunState::Paused) => Err(Refusal::failed(format!(
            "run {run} is a scan, and its watch would only begin the next one; stop the watch with `ingestd watch pause \
             {watch}`"
        ))),
        _ => Err(Refusal::failed(refused(run, hand, state))),
    }
}

/// Says that a run is not there.
pub(super) fn unknown_run(run: RunId) -> Refusal {
    Refusal::not_found(format!("no run {run}; `ingestd runs list` shows those that are there"))
}

/// Cancels the jobs that wait, slice by slice: the run takes no more lines, so they only become fewer. One that is asked
/// again after it was cut short goes on here.
async fn cancel_jobs(run: RunId, hands: &Hands) -> Result<(), Refusal> {
    while hands.stores.lists.cancel_jobs_of(run, SLICE).await? > 0 {
        tokio::task::yield_now().await;
    }
    // What runs is stopped, or a failed attempt of it would wait again.
    let running = JobFilter { states: vec![StateName::Running], run: Some(run), ..JobFilter::default() };
    let running = hands.stores.browse.jobs(&running, None, RUNNING).await?;
    if !running.is_empty() && hands.live.is_some() {
        jobs::cancel(running.iter().map(|job| job.id).collect(), hands).await?;
    }
    Ok(())
}

/// Why a run in this state can't be steered so, and what to do.
fn refused(run: RunId, hand: RunHand, state: RunState) -> String {
    let (what, advice) = match hand {
        RunHand::Pause => ("paused", "only a running one can"),
        RunHand::Resume => ("resumed", "only a paused one can"),
        RunHand::Cancel | RunHand::GiveUp => ("cancelled", "it is over"),
        RunHand::Remove if state.is_final() => ("removed", "try again"),
        RunHand::Remove => return format!("run {run} is {state}; end it first: `ingestd runs cancel {run}`"),
    };
    format!("run {run} is {state} and can't be {what}: {advice}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::fake::lists::ListRun;
    use crate::control::fake::{Fake, hands};
    use crate::control::request::Code;
    use crate::run::InputRead;
    use crate::store::{Holder, NewListRun};

    fn with_run(state: RunState, waiting: u64) -> (Arc<Fake>, Hands) {
        let fake = Arc::new(Fake::default());
        let new = NewListRun {
            name: Some("nightly".to_owned()),
            list: "nightly".to_owned(),
            input: RunInput::Stdin { read: InputRead::default() },
            pipeline: "documents".to_owned(),
            dry_run: false,
            delete_missing: false,
            holder: Holder("me".to_owned()),
        };
        let run = ListRun { new, state, reading: true, line: 0, taken: Vec::new(), waiting, room: None };
        fake.listed.lock().unwrap().insert(RunId(1), run);
        let hands = hands(&fake, false);
        (fake, hands)
    }

    #[tokio::test]
    async fn a_run_is_paused_resumed_and_cancelled_with_all_its_waiting_jobs() {
        let (fake, hands) = with_run(RunState::Running, 2 * SLICE as u64 + 3);
        let state = || fake.listed.lock().unwrap()[&RunId(1)].state;
        steer(RunId(1), RunHand::Pause, &hands).await.unwrap();
        assert_eq!(state(), RunState::Paused);
        steer(RunId(1), RunHand::Resume, &hands).await.unwrap();
        assert_eq!(state(), RunState::Running);
        steer(RunId(1), RunHand::Cancel, &hands).await.unwrap();
        assert_eq!(state(), RunState::Cancelled);
        assert_eq!(fake.listed.lock().unwrap()[&RunId(1)].waiting, 0);
        steer(RunId(1), RunHand::Remove, &hands).await.unwrap();
        assert!(fake.listed.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_a_run_does_not_allow_is_refused_with_its_state() {
        let (_fake, hands) = with_run(RunState::Running, 0);
        let refusal = steer(RunId(1), RunHand::Remove, &hands).await.unwrap_err();
        assert_eq!(refusal.code, Code::Failed);
        assert_eq!(refusal.message, "run 1 is running; end it first: `ingestd runs cancel 1`");
        let (_fake, hands) = with_run(RunState::Failed, 0);
        for hand in [RunHand::Pause, RunHand::Resume, RunHand::Cancel] {
            let refusal = steer(RunId(1), hand, &hands).await.unwrap_err();
            assert!(refusal.code == Code::Failed && refusal.message.contains("is failed"), "{refusal:?}");
        }
        assert_eq!(steer(RunId(2), RunHand::Pause, &hands).await.unwrap_err().code, Code::NotFound);
    }
}
