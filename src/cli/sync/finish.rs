//! After the last line: what the list no longer names, the end of its input, and where asked for, its jobs.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::context::Context;
use super::super::failure::Failure;
use super::handover::{Ended, Handover, taken_over};
use super::tell::Far;
use crate::control::{Request, SyncMissing};
use crate::run::{Run, RunId, RunState};

/// How often jobs are looked at.
const LOOK: Duration = Duration::from_millis(500);

impl Handover<'_> {
    /// Makes deletes of what the list no longer names. `false`: that was refused, and why was said.
    pub async fn delete_missing(&mut self, context: &mut Context) -> Result<(Ended, bool), Failure> {
        let run = self.now(context).await?;
        let why_not = match &run {
            Run { processed: 0, .. } => Some("the list is empty"),
            Run { bad_lines: 1.., .. } | Run { failed_lines: 1.., .. } => {
                Some("some lines are wrong, and what they were to name is not known")
            }
            _ => None,
        };
        if let Some(why) = why_not {
            self.teller.say(&format!("nothing is deleted (--delete-missing): {why}"));
            return Ok((Ended::Through, false));
        }
        loop {
            let request = Request::SyncMissing { run: self.run, holder: self.holder.clone() };
            match self.steady.ask(&request, context).await? {
                SyncMissing::More { deletes } => self.far.enqueued += deletes,
                SyncMissing::Over => return Ok((Ended::Through, true)),
                SyncMissing::NotRunning { state } => {
                    if self.heed_state(state, context).await? == Ended::Stopped {
                        return Ok((Ended::Stopped, true));
                    }
                }
                SyncMissing::TakenOver => return Err(taken_over(self.run)),
            }
            if self.stop.is_cancelled() {
                return Ok((Ended::Stopped, true));
            }
            let far = self.far;
            self.teller.progress(&far, context)?;
        }
    }

    /// Says that there are no more lines.
    pub async fn end_input(&mut self, context: &mut Context) -> Result<Ended, Failure> {
        loop {
            let request = Request::SyncEnd { run: self.run, holder: self.holder.clone() };
            if self.steady.ask(&request, context).await? {
                return Ok(Ended::Through);
            }
            let run = self.now(context).await?;
            match run.state {
                // It was done before, and only the answer was lost.
                _ if !run.reading => return Ok(Ended::Through),
                RunState::Running => return Err(taken_over(self.run)),
                state => {
                    if self.heed_state(state, context).await? == Ended::Stopped {
                        return Ok(Ended::Stopped);
                    }
                }
            }
        }
    }

    /// Follows the run's jobs until the last one is over.
    pub async fn wait(&mut self, context: &mut Context) -> Result<Ended, Failure> {
        self.steady.rest(context).await;
        let mut paused = false;
        loop {
            let run = self.now(context).await?;
            if run.state.is_final() {
                return Ok(Ended::Through);
            }
            if !self.steady.expects_daemon(context).await {
                return Err(alone(self.run));
            }
            if !std::mem::replace(&mut paused, run.state == RunState::Paused) && paused {
                let id = self.run;
                self.teller.event("paused", json!(id), json!({}), context)?;
                self.teller.say(&format!("run {id} is paused; `ingestd runs resume {id}` lets it go on"));
            }
            self.teller.progress(&of_jobs(&run, self.far, context), context)?;
            tokio::select! {
                () = self.stop.cancelled() => return Ok(Ended::Stopped),
                () = sleep(LOOK) => {}
            }
        }
    }

    /// The run as it stands.
    pub async fn now(&mut self, context: &Context) -> Result<Run, Failure> {
        let stores = self.steady.stores(context).await?;
        stores.runs.run(self.run).await?.ok_or_else(|| super::super::runs::no_run(self.run))
    }

    /// The last event: the run as JSON tells it.
    pub fn tell_end(&mut self, run: Value, context: &mut Context) -> Result<(), Failure> {
        self.teller.close();
        let more = json!({ "waiting": self.far.waiting, "failed_before": self.far.failed_before });
        self.teller.event("end", run, more, context)
    }
}

/// Without a daemon nothing moves.
fn alone(run: RunId) -> Failure {
    Failure::failed(format!(
        "everything is enqueued, but no daemon runs on this database, so run {run} can't end; start one with \
         `ingestd run`, and see `ingestd runs show {run}`"
    ))
}

/// How far the jobs have come.
fn of_jobs(run: &Run, far: Far, context: &Context) -> Far {
    let jobs = &run.jobs;
    let ended = jobs.completed + jobs.failed + jobs.skipped + jobs.cancelled;
    let view = super::super::run_view::Pace::of(run, context.now());
    Far {
        done: ended,
        total: Some(ended + jobs.open),
        failed: far.failed + jobs.failed,
        rate: view.rate_per_s,
        eta: view.eta,
        ..far
    }
}
