//! The end of a run that is to end by itself: everything that was found has been handed over, and everything
//! handed over is done.

use std::collections::BTreeMap;
use std::time::Duration;

use super::watches::{Handle, WatchShown};
use super::{EXIT_DONE, EXIT_FAILED, House};
use crate::gate::Shut;
use crate::job::StateName;
use crate::run::{Run, RunInput, RunState};
use crate::store::{Backlog as _, Browse as _, Runs as _};
use crate::watch::{Root, WaitsFor};

/// How long after the watches were idle and the queue empty both are asked again, because a file may be between.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// So often in a row is the gate found shut with nothing to do before that counts: it opens a moment after there is room.
const STUCK_LOOKS: u32 = 50;
/// Without a sign of change, how often the question is asked: only paused work could change without one.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Runs among which paused ones are looked for, the newest first.
const RUNS_LOOKED_AT: usize = 1_000;

/// Resolves with the exit status when nothing is left to do.
pub async fn everything_done(house: &House, watching: &Handle) -> anyhow::Result<u8> {
    let begun = house.clock.now();
    let mut activity = house.store.activity();
    let (mut quiet, mut stuck) = (0, 0);
    loop {
        activity.mark_unchanged();
        let watches = watching.status().await;
        let idle = watches.iter().all(|watch| watch.status.idle || watch.paused);
        let pipelines = house.config.borrow().pipelines.keys().cloned().collect();
        let left = house.store.left(pipelines).await?;
        if let Some(missing) = left.missing_program {
            tracing::error!("{missing}");
            return Ok(EXIT_FAILED);
        }
        // Whoever waits without an end in sight shuts the gate for good.
        let shut = house.gate.is_shut_for(Shut::TooManyWaiting) && !left.waiting && left.running == 0;
        stuck = if shut { stuck + 1 } else { 0 };
        if stuck == STUCK_LOOKS {
            name_held_back(house).await?;
            tracing::error!(
                "queue.max_pending is reached by jobs that this run does not wait for; not all was taken in"
            );
            return Ok(EXIT_FAILED);
        }
        quiet = if idle && !left.waiting && left.running == 0 { quiet + 1 } else { 0 };
        if quiet == 2 {
            watches.iter().for_each(name_waiting);
            let away = watches.iter().filter(|watch| matches!(watch.status.root, Root::Missing(_))).count();
            name_held_back(house).await?;
            let (completed, failed) = house.store.ended(begun).await?;
            tracing::info!(completed, failed, "everything found is done");
            return Ok(if failed == 0 && away == 0 { EXIT_DONE } else { EXIT_FAILED });
        }
        let pause = if quiet == 1 || stuck > 0 { ASK_AGAIN } else { LONGEST_WAIT };
        tokio::select! {
            changed = activity.changed(), if quiet == 0 => if changed.is_err() { return Ok(EXIT_FAILED) },
            () = watching.changed(), if quiet == 0 => {}
            () = tokio::time::sleep(pause) => {}
        }
        // Under load something changes with every commit; asking a little later is asking less often.
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Says which files of a watch are not taken yet, and why.
fn name_waiting(shown: &WatchShown) {
    let (watch, status) = (&shown.name, &shown.status);
    for file in &status.still_open_files {
        tracing::warn!(watch, file, "still being written; it was not processed");
    }
    let young = status.settling_files.iter().filter(|file| file.waits_for == WaitsFor::Age).count() as u64;
    let young = young.max(status.last_scan.map_or(0, |scan| scan.too_young));
    if young > 0 {
        tracing::warn!(watch, files = young, "younger than `min_age`; they were not waited for");
    }
    for file in &status.not_ready_files {
        tracing::warn!(watch, file, "its ready file is missing (`ready_suffix`); it was not processed");
    }
}

/// Says which jobs stay behind, because a person wanted it so.
async fn name_held_back(house: &House) -> anyhow::Result<()> {
    let mut held: BTreeMap<String, u64> = BTreeMap::new();
    for run in house.store.runs(RUNS_LOOKED_AT).await?.iter().filter(|run| is_held(run)) {
        let (id, jobs) = (run.id, run.jobs.open);
        tracing::warn!(
            run.id = id.0,
            jobs,
            "run {id} is paused; its jobs were not waited for (`ingestd runs resume {id}` lets it go on)"
        );
        *held.entry(run.pipeline.clone()).or_default() += jobs;
    }
    for (pipeline, (counts, paused)) in &house.store.overview().await?.pipelines {
        let waiting = counts.in_state(StateName::Pending) + counts.in_state(StateName::Retrying);
        let jobs = waiting.saturating_sub(held.get(pipeline).copied().unwrap_or(0));
        match (jobs, paused) {
            (0, _) => {}
            (_, true) => tracing::warn!(pipeline, jobs, "paused; its jobs were not waited for"),
            (_, false) => tracing::warn!(pipeline, jobs, "due later, or without a pipeline; not waited for"),
        }
    }
    Ok(())
}

/// Whether a person's pause of a list's run holds jobs back.
fn is_held(run: &Run) -> bool {
    run.state == RunState::Paused && run.jobs.open > 0 && !matches!(run.input, RunInput::Watch { .. })
}
