//! `ingestd show`

use std::io::Write;

use clap::Args;

use super::context::Context;
use super::effect::{EffectView, SHOWN};
use super::failure::{Done, Failure};
use super::screen::{Style, clean, size};
use super::table::{Column, Table};
use super::view::{AttemptView, JobInFull, JobView, StageView, lossy};
use super::{Format, effect, throttle, time, view, watch};
use crate::job::{Job, JobId, State};
use crate::run::RunId;
use crate::store::{Attempt, Reached};

/// Which job to show.
#[derive(Args, Debug)]
pub struct Show {
    /// The job.
    #[arg(value_name = "ID")]
    id: JobId,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Show, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let job = stores.browse.job(args.id).await?.ok_or_else(|| no_job(args.id))?;
    let attempts = stores.browse.attempts(args.id).await?;
    let effects = stores.effects.effects_of(args.id, SHOWN).await?;
    let stages = stores.stages.stages_of(args.id).await?;
    let config = context.config()?.clone();
    let job_view = JobView::of(&job, &config);
    if args.format.json {
        let attempts = attempts.iter().map(AttemptView::of).collect();
        let full = JobInFull {
            job: job_view,
            attempts,
            effects: effects.iter().map(EffectView::from).collect(),
            stages: stages.into_iter().map(StageView::from).collect(),
            result: job.result.as_deref().map(view::json_or_text),
        };
        context.screen.json(&full)?;
        return Ok(0);
    }
    let budget = config.pipelines.get(&job.pipeline).map(|pipeline| pipeline.retry.max_attempts);
    let mut facts = facts(&job, budget, context);
    facts.extend(reached(&job, &stages, context));
    facts.extend(held_back(&job, context).await?.map(|what| ("waits for", what)));
    for (name, value) in facts {
        let name = context.screen.paint(&format!("{name:<12}"), Style::Dim);
        writeln!(context.screen, "{name} {}", clean(&value))?;
    }
    if !attempts.is_empty() {
        writeln!(context.screen)?;
        table(&attempts, context)?;
    }
    if !effects.is_empty() {
        writeln!(context.screen)?;
        effect::table(&effects, context)?;
    }
    Ok(0)
}

/// Says that there is no such job.
pub fn no_job(id: JobId) -> Failure {
    Failure::not_found(format!("no job {id}; `ingestd list` shows those that are there (old ones are pruned)"))
}

fn facts(job: &Job, budget: Option<u32>, context: &Context) -> Vec<(&'static str, String)> {
    let now = context.screen.now;
    let at = |time| format!("{time} ({})", time::relative(time, now));
    let mut facts = vec![("job", job.id.to_string()), ("state", state(job))];
    facts.push(("pipeline", job.pipeline.clone()));
    facts.extend(job.watch.clone().map(|watch| ("watch", watch)));
    facts.push(("path", lossy(&job.path)));
    facts.extend(job.content.as_deref().map(|content| ("content", lossy(content))));
    facts.extend(job.run.map(|run| ("run", asked_by(run, job))));
    facts.push(("operation", format!("{}, version {}", job.op, job.version)));
    facts.extend(job.moved_from.as_deref().map(|path| ("moved from", lossy(path))));
    facts.push(("priority", job.priority.to_string()));
    let budget = budget.map(|budget| format!(" of {budget}")).unwrap_or_default();
    let crashes = if job.crashes > 0 { format!(", {} crashes in a row", job.crashes) } else { String::new() };
    facts.push(("attempts", format!("{}{budget} spent, {} executions{crashes}", job.attempt, job.executions)));
    facts.extend(job.size_bytes.map(|bytes| ("size", size(bytes))));
    facts.extend(job.digest.map(|digest| ("digest", digest.to_string())));
    facts.push(("key", job.idempotency_key.to_string()));
    facts.push(("enqueued", at(job.created_at)));
    if job.state.name().is_waiting() {
        facts.push(("due", at(job.run_at)));
    }
    facts.extend(job.started_at.map(|time| ("started", at(time))));
    facts.extend(job.finished_at.map(|time| ("finished", at(time))));
    facts.extend(job.metadata.clone().map(|metadata| ("metadata", metadata)));
    facts.extend(
        job.error
            .as_ref()
            .map(|error| ("error", format!("{error}{}", if error.permanent { " (retrying can't help)" } else { "" }))),
    );
    facts
}

/// The line of a list that asked for a job.
fn asked_by(run: RunId, job: &Job) -> String {
    let line = job.line.map(|line| format!(", line {line}")).unwrap_or_default();
    let repo = job.repo.as_deref().map(|repo| format!(", of {repo}")).unwrap_or_default();
    format!("{run}{line}{repo}")
}

/// How far the job has come, when it came there, and what the other side made of it.
fn reached(job: &Job, stages: &[Reached], context: &Context) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(stage) = &job.stage {
        let times: Vec<String> = stages
            .iter()
            .map(|reached| format!("{} {}", reached.stage, time::relative(reached.at, context.screen.now)))
            .collect();
        facts.push(("stage", format!("{stage} ({})", times.join(", "))));
    }
    facts.extend(job.external_id.clone().map(|id| ("external id", id)));
    facts.extend(job.result.clone().map(|result| ("result", result)));
    facts
}

/// What a job that could start waits for, where its pipeline is held back.
async fn held_back(job: &Job, context: &Context) -> Result<Option<String>, Failure> {
    let now = context.screen.now;
    let blocked = matches!(job.state, State::Pending { blocked_by: Some(_), .. });
    if !job.state.name().is_waiting() || blocked || job.run_at > now {
        return Ok(None);
    }
    let live = watch::live(context).await?;
    Ok(throttle::waits_for(live.as_ref().and_then(|live| live.throttles.get(&job.pipeline)), now))
}

fn state(job: &Job) -> String {
    match &job.state {
        State::Pending { blocked_by: Some(by), .. } => format!("pending, after job {by} of an older version"),
        State::Skipped { reason, .. } => format!("skipped: {}", view::skipped(reason, job)),
        other => other.name().to_string(),
    }
}

/// Executions as a table.
fn table(attempts: &[Attempt], context: &mut Context) -> Result<(), Failure> {
    let mut table = Table::new([
        Column::Right("RUN"),
        Column::Left("OUTCOME"),
        Column::Left("STARTED"),
        Column::Right("TOOK"),
        Column::Right("CODE"),
        Column::End("ERROR"),
    ]);
    for attempt in attempts {
        table.row([
            attempt.execution.to_string().into(),
            attempt.outcome.as_str().into(),
            time::relative(attempt.started_at, context.screen.now).into(),
            time::short_ms(attempt.duration_ms).into(),
            attempt.code.map(|code| code.to_string()).unwrap_or_default().into(),
            attempt.error.as_ref().map(ToString::to_string).unwrap_or_default().into(),
        ]);
    }
    Ok(table.write(&mut context.screen)?)
}
