//! `ingestd effect`

use std::io::Write;

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Style, clean};
use super::table::{Cell, Column, Table};
use super::{Format, time};
use crate::clock::Timestamp;
use crate::control::{EffectAnswer, Execution, Request, Resolve};
use crate::job::{Effect as Recorded, EffectId, EffectKind, EffectState, Fence, JobId};
use crate::processor::BATCH_VARIABLE;

/// Effects of a job that are shown; the newest are left out.
pub const SHOWN: usize = 1_000;

/// See [`Verb`].
#[derive(Args, Debug)]
pub struct Effect {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Before a step that is to be taken once: prints `run ID KEY`, `done ID RESULT` or `unknown ID KEY`.
    Begin {
        /// What sort of step: letters a-z, digits, `_`, `.`, `-`.
        #[arg(long, value_name = "KIND")]
        kind: EffectKind,
        /// What the step is about; the same kind and context is the same step of the job.
        #[arg(long, value_name = "JSON", default_value = "null")]
        context: String,
        #[command(flatten)]
        execution: InExecution,
        #[command(flatten)]
        format: Format,
    },
    /// After the step: records that it is done.
    Commit {
        /// The effect that `begin` named.
        #[arg(value_name = "ID")]
        id: EffectId,
        /// What came of it; `begin` prints it from now on.
        #[arg(long, value_name = "JSON")]
        result: Option<String>,
        #[command(flatten)]
        execution: InExecution,
        #[command(flatten)]
        format: Format,
    },
    /// Instead of the step, or after it was refused: it was certainly not taken, and is given back.
    Abort {
        /// The effect that `begin` named.
        #[arg(value_name = "ID")]
        id: EffectId,
        #[command(flatten)]
        execution: InExecution,
        #[command(flatten)]
        format: Format,
    },
    /// Say what came of a step of which nobody knows, when no attempt works on it.
    #[command(group(ArgGroup::new("word").required(true).args(["done", "again"])))]
    Resolve {
        /// The effect.
        #[arg(value_name = "ID")]
        id: EffectId,
        /// It was done: the next attempt does not take it again.
        #[arg(long)]
        done: bool,
        /// It was not, or shall be done again: the next attempt takes it.
        #[arg(long)]
        again: bool,
        /// What came of it, with --done.
        #[arg(long, value_name = "JSON", requires = "done", conflicts_with = "again")]
        result: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// The steps that a job's processor recorded.
    List {
        /// The job.
        #[arg(value_name = "JOB")]
        job: JobId,
        #[command(flatten)]
        format: Format,
    },
}

/// The attempt for which a command speaks: inside a processor its environment says so.
#[derive(Args, Clone, Copy, Debug)]
pub struct InExecution {
    /// The job; inside a processor its own.
    #[arg(long, value_name = "ID")]
    job: Option<JobId>,
    /// The number of its attempt's lease; inside a processor its own.
    #[arg(long, value_name = "N")]
    fence: Option<i64>,
}

impl InExecution {
    /// The attempt that is meant.
    fn required(self) -> Result<Execution, Failure> {
        self.meant()?.ok_or_else(|| {
            Failure::usage(
                "which attempt? inside a processor INGESTD_JOB and INGESTD_FENCE say so; elsewhere give --job and --fence",
            )
        })
    }

    /// The same, or `None` where nothing says. In a batch everything has to be said: its environment is of many jobs.
    pub fn meant(self) -> Result<Option<Execution>, Failure> {
        let own = number("INGESTD_JOB")?;
        if own.is_none() && number(BATCH_VARIABLE)?.is_some() && (self.job.is_none() || self.fence.is_none()) {
            return Err(Failure::usage("in a batch say which job: --job and --fence, from its line"));
        }
        let Some(job) = self.job.map(|job| job.0).or(own) else { return Ok(None) };
        // Another job's attempt has another lease.
        let of_own = if own == Some(job) { number("INGESTD_FENCE")? } else { None };
        let fence = self.fence.or(of_own);
        Ok(fence.map(|fence| Execution { job: JobId(job), fence: Fence(fence) }))
    }

    /// The job that the flag names.
    pub const fn job(self) -> Option<JobId> {
        self.job
    }
}

/// A number of the environment; empty counts as absent.
fn number(name: &str) -> Result<Option<i64>, Failure> {
    let Some(text) = std::env::var_os(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Failure::usage(format!("the variable {name} is `{}`, which is no number", text.display()))),
    }
}

pub async fn run(args: Effect, context: &mut Context) -> Done {
    match args.verb {
        Verb::Begin { kind, context: about, execution, format } => {
            let execution = execution.required()?;
            let request = Request::EffectBegin { execution, kind, context: about };
            let answer: EffectAnswer = context.ask_daemon(request, execution).await?;
            begun(&answer, format, context)?;
        }
        Verb::Commit { id, result, execution, format } => {
            let execution = execution.required()?;
            let request = Request::EffectCommit { execution, id, result };
            context.ask_daemon::<()>(request, execution).await?;
            if format.json {
                context.screen.json(&serde_json::json!({ "effect": "done", "id": id }))?;
            }
        }
        Verb::Abort { id, execution, format } => {
            let execution = execution.required()?;
            context.ask_daemon::<()>(Request::EffectAbort { execution, id }, execution).await?;
            if format.json {
                context.screen.json(&serde_json::json!({ "effect": "aborted", "id": id }))?;
            }
        }
        Verb::Resolve { id, done: _, again, result, format } => {
            let resolve = if again { Resolve::Again } else { Resolve::Done(result) };
            context.ask::<()>(Request::EffectResolve { id, resolve }).await?;
            let word = if again { "forgotten: the next attempt takes the step" } else { "done" };
            if format.json {
                context
                    .screen
                    .json(&serde_json::json!({ "id": id, "resolved": if again { "again" } else { "done" } }))?;
            } else {
                writeln!(context.screen, "effect {id} is {word}")?;
            }
        }
        Verb::List { job, format } => list(job, format, context).await?,
    }
    Ok(0)
}

fn begun(answer: &EffectAnswer, format: Format, context: &mut Context) -> Result<(), Failure> {
    if format.json {
        return context.screen.json(answer);
    }
    match answer {
        EffectAnswer::Run { id, key } => writeln!(context.screen, "run {id} {key}")?,
        EffectAnswer::Done { id, result } => {
            write!(context.screen, "done {id} ")?;
            context.screen.foreign(result.to_string().as_bytes())?;
            writeln!(context.screen)?;
        }
        EffectAnswer::Unknown { id, key } => writeln!(context.screen, "unknown {id} {key}")?,
    }
    Ok(())
}

/// An effect, as `show` and `effect list` tell it.
#[derive(Serialize)]
pub struct EffectView {
    id: EffectId,
    job: JobId,
    kind: EffectKind,
    context: Value,
    state: EffectState,
    key: String,
    fence: Fence,
    result: Option<Value>,
    begun_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl From<&Recorded> for EffectView {
    fn from(effect: &Recorded) -> Self {
        Self {
            id: effect.id,
            job: effect.job,
            kind: effect.kind.clone(),
            context: effect.context.value(),
            state: effect.state,
            key: effect.key.to_string(),
            fence: effect.fence,
            result: effect.result.as_ref().map(crate::job::CanonicalJson::value),
            begun_at: effect.begun_at,
            ended_at: effect.ended_at,
        }
    }
}

async fn list(job: JobId, format: Format, context: &mut Context) -> Result<(), Failure> {
    let stores = context.read().await?;
    let effects = stores.effects.effects_of(job, SHOWN).await?;
    if effects.is_empty() && stores.browse.job(job).await?.is_none() {
        return Err(super::show::no_job(job));
    }
    if format.json {
        return effects.iter().try_for_each(|effect| context.screen.json(&EffectView::from(effect)));
    }
    table(&effects, context)
}

/// Effects as a table; nothing where there are none.
pub fn table(effects: &[Recorded], context: &mut Context) -> Result<(), Failure> {
    if effects.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        Column::Right("EFFECT"),
        Column::Left("KIND"),
        Column::Left("STATE"),
        Column::Left("BEGUN"),
        Column::Middle("CONTEXT"),
        Column::End("RESULT"),
    ]);
    for effect in effects {
        let style = match effect.state {
            EffectState::Begun => Style::Blue,
            EffectState::Done => Style::Plain,
            EffectState::Unknown => Style::Yellow,
        };
        table.row([
            effect.id.to_string().into(),
            effect.kind.as_str().into(),
            Cell::styled(effect.state.as_str(), style),
            time::relative(effect.begun_at, context.screen.now).into(),
            clean(effect.context.as_str()).into(),
            clean(effect.result.as_ref().map_or("", crate::job::CanonicalJson::as_str)).into(),
        ]);
    }
    Ok(table.write(&mut context.screen)?)
}
