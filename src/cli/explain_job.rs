//! `ingestd explain ID`: everything about a job that could hold it, gathered.

use std::io::Write;

use serde::Serialize;

use super::context::Context;
use super::explain::{self, Reason};
use super::failure::{Done, Failure};
use super::job_words::Words;
use super::logs::newest;
use super::screen::clean;
use super::show::no_job;
use super::view::{JobView, lossy};
use super::{Format, watch};
use crate::account::job::Facts;
use crate::clock::Timestamp;
use crate::config::Loaded;
use crate::control::{LiveStatus, Stores};
use crate::job::{Job, JobId};
use crate::run::{RunId, RunState};
use crate::store::{Ahead, Attempt, Overview, Succession};

/// What is said of a job.
#[derive(Serialize)]
struct Explanation<'a> {
    job: JobView<'a>,
    reasons: Vec<Reason>,
}

pub async fn run(id: JobId, format: Format, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let job = stores.browse.job(id).await?.ok_or_else(|| no_job(id))?;
    let known = Known::gather(&job, &stores, context).await?;
    let loaded = context.loaded()?;
    let reasons = known.words(&job, loaded, context.screen.now).reasons();
    if format.json {
        let view = JobView::of(&job, context.config()?);
        let explanation = serde_json::to_value(Explanation { job: view, reasons })?;
        context.screen.json(&explanation)?;
        return Ok(0);
    }
    writeln!(context.screen, "{}", clean(&format!("job {id} is {}: {}", job.state.name(), lossy(&job.path))))?;
    explain::write(&reasons, &mut context.screen)?;
    Ok(0)
}

/// What is known about a job, beside the job itself.
struct Known {
    last: Option<Attempt>,
    overview: Overview,
    live: Option<LiveStatus>,
    ahead: Ahead,
    succession: Succession,
    due_suspect: Option<JobId>,
    paused_run: Option<RunId>,
    process: Option<u32>,
}

impl Known {
    async fn gather(job: &Job, stores: &Stores, context: &Context) -> Result<Self, Failure> {
        let config = context.config()?;
        let (now, aging) = (context.screen.now, config.queue.priority_aging);
        let waits = job.state.name().is_waiting();
        let spool = config.spool();
        Ok(Self {
            last: stores.browse.attempts(job.id).await?.pop(),
            overview: stores.browse.overview().await?,
            live: watch::live(context).await?,
            ahead: if waits { stores.accounts.ahead(job.id, aging, now).await? } else { Ahead::default() },
            succession: stores.accounts.succession(job.id).await?,
            due_suspect: stores.accounts.due_suspect(config.pipelines.keys().cloned().collect(), now).await?,
            paused_run: match job.run {
                Some(id) => stores.runs.run(id).await?.filter(|run| run.state == RunState::Paused).map(|run| run.id),
                None => None,
            },
            // The record of a running command's group names its first process second.
            process: newest(job.id, &spool, ".group")
                .and_then(|record| std::fs::read_to_string(record).ok()?.split(' ').nth(1)?.parse().ok()),
        })
    }

    fn words<'a>(&'a self, job: &'a Job, loaded: &'a Loaded, now: Timestamp) -> Words<'a> {
        let counts = self.overview.pipelines.get(&job.pipeline);
        let facts = Facts {
            job,
            last: self.last.as_ref(),
            now,
            pipeline: loaded.config.pipelines.get(&job.pipeline),
            paused: counts.is_some_and(|(_, paused)| *paused),
            paused_run: self.paused_run,
            concurrency: loaded.config.queue.concurrency,
            daemon: self.live.as_ref(),
            ahead: self.ahead,
            due_suspect: self.due_suspect,
            rate_per_s: counts.map_or(0.0, |(counts, _)| counts.rate_per_s[1]),
        };
        Words { facts, succession: self.succession, process: self.process, loaded }
    }
}
