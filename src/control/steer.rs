//! `retry`, `cancel` and `priority`.
//!
//! A waiting job is cancelled by the store at once. A running one belongs to whoever holds its lease: the attempt
//! is told to stop, and the answer waits for its end. Between the two questions the job may have moved on (its
//! attempt ended, and it waits again), so cancelling asks again after each change, until nothing is left.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::hands::{Hands, Live, Refusal};
use super::request::{SteerAnswer, SteerResult};
use crate::job::{JobId, Priority};
use crate::store::Steered;

/// How long a cancelled attempt may take to end: longer than the polite part of stopping a process group.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Without a change to hear of, the jobs are looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn retry(ids: Vec<JobId>, hands: &Hands) -> Result<Vec<SteerAnswer>, Refusal> {
    let steered = hands.stores.steering.retry(ids.clone()).await?;
    Ok(answers(ids, steered, "it runs right now"))
}

pub(super) async fn prioritize(ids: Vec<JobId>, level: Priority, hands: &Hands) -> Result<Vec<SteerAnswer>, Refusal> {
    let steered = hands.stores.steering.prioritize(ids.clone(), level).await?;
    Ok(answers(ids, steered, "it runs already"))
}

pub(super) async fn cancel(ids: Vec<JobId>, hands: &Hands) -> Result<Vec<SteerAnswer>, Refusal> {
    if let Some(live) = &hands.live {
        return cancel_with(ids, hands, live.as_ref()).await;
    }
    let steered = hands.stores.steering.cancel(ids.clone()).await?;
    let held = "it was running when its daemon died; start the daemon, which takes it back, then cancel it";
    Ok(answers(ids, steered, held))
}

async fn cancel_with(ids: Vec<JobId>, hands: &Hands, live: &dyn Live) -> Result<Vec<SteerAnswer>, Refusal> {
    let deadline = Instant::now() + STOP_LIMIT;
    let mut results: BTreeMap<JobId, SteerResult> = BTreeMap::new();
    let mut left = ids.clone();
    let mut told: Vec<JobId> = Vec::new();
    let mut changes = live.changes();
    while !left.is_empty() {
        // Seen before asking, so that a change between the question and the wait ends the wait at once.
        changes.borrow_and_update();
        let steered = hands.stores.steering.cancel(left.clone()).await?;
        let mut running = Vec::new();
        for (id, what) in left.iter().copied().zip(steered) {
            match what {
                Steered::Running => running.push(id),
                // An attempt that we stopped has cancelled its job by itself.
                Steered::Refused(_) if told.contains(&id) && is_cancelled(id, hands).await? => {
                    results.insert(id, SteerResult::Done);
                }
                other => {
                    results.insert(id, result(other, ""));
                }
            }
        }
        if running.is_empty() {
            break;
        }
        live.cancel_running(&running).await;
        told.extend(running.iter().copied());
        left = running;
        if Instant::now() >= deadline {
            break;
        }
        let until = deadline.min(Instant::now() + LOOK_AGAIN);
        // An error means that the daemon is on its way out; the deadline bounds the loop then.
        if let Ok(Err(_)) = timeout_at(until, changes.changed()).await {
            tokio::time::sleep_until(until).await;
        }
    }
    let late = format!("it was told to stop and has not ended after {} s", STOP_LIMIT.as_secs());
    Ok(ids
        .into_iter()
        .map(|id| SteerAnswer {
            id,
            result: results.get(&id).cloned().unwrap_or_else(|| SteerResult::Refused { message: late.clone() }),
        })
        .collect())
}

async fn is_cancelled(id: JobId, hands: &Hands) -> Result<bool, Refusal> {
    let job = hands.stores.browse.job(id).await?;
    Ok(job.is_some_and(|job| job.state.name() == crate::job::StateName::Cancelled))
}

fn answers(ids: Vec<JobId>, steered: Vec<Steered>, running: &str) -> Vec<SteerAnswer> {
    ids.into_iter().zip(steered).map(|(id, what)| SteerAnswer { id, result: result(what, running) }).collect()
}

fn result(what: Steered, running: &str) -> SteerResult {
    match what {
        Steered::Done => SteerResult::Done,
        Steered::Running => SteerResult::Refused { message: running.to_owned() },
        Steered::Refused(message) => SteerResult::Refused { message },
        Steered::Unknown => SteerResult::Unknown,
    }
}
