//! `ingestd stage`

use std::io::Write;

use clap::Args;

use super::Format;
use super::context::Context;
use super::effect::InExecution;
use super::failure::{Done, Failure};
use crate::control::{ReachStage, Request, StageAnswer, StageOf};

/// Moves a job forward to a stage that its pipeline declares. Inside a processor, its own job; elsewhere one that does
/// not run, found by what the other side knows of it.
#[derive(Args, Debug)]
pub struct Stage {
    /// The stage.
    #[arg(value_name = "NAME")]
    name: String,
    /// Inside a processor: the name that the other side gave the job, kept with it. Elsewhere: the job with this name.
    #[arg(long, value_name = "X")]
    external_id: Option<String>,
    /// What the other side answered, kept with the job.
    #[arg(long, value_name = "JSON")]
    result: Option<String>,
    /// The job that the other side knows under this key: the one given to `add`, or the job's own.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["job", "fence"])]
    idempotency_key: Option<String>,
    #[command(flatten)]
    execution: InExecution,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Stage, context: &mut Context) -> Done {
    let Stage { name: stage, external_id, result, idempotency_key, execution, format } = args;
    let of = whose(idempotency_key, execution, external_id.as_deref())?;
    // A name that finds the job need not be given to it.
    let external_id = external_id.filter(|_| !matches!(of, StageOf::External(_)));
    let request = Request::Stage(ReachStage { of: of.clone(), stage, external_id, result });
    let answer: StageAnswer = match of {
        StageOf::Execution(execution) => context.ask_daemon(request, execution).await?,
        _ => context.ask(request).await?,
    };
    if format.json {
        context.screen.json(&answer)?;
        return Ok(0);
    }
    let StageAnswer { job, stage, moved, from } = answer;
    match (moved, from) {
        (true, Some(from)) => writeln!(context.screen, "job {job}: {from} → {stage}")?,
        (true, None) => writeln!(context.screen, "job {job}: {stage}")?,
        (false, _) => writeln!(context.screen, "job {job} was at {stage} already")?,
    }
    Ok(0)
}

/// Whose stage is meant: the key's, the flag's, the external name's outside a processor, the processor's own.
fn whose(key: Option<String>, execution: InExecution, external_id: Option<&str>) -> Result<StageOf, Failure> {
    if let Some(key) = key {
        return Ok(StageOf::Key(key));
    }
    match (execution.meant()?, execution.job(), external_id) {
        (Some(execution), _, _) => Ok(StageOf::Execution(execution)),
        (None, Some(job), _) => Ok(StageOf::Job(job)),
        (None, None, Some(name)) => Ok(StageOf::External(name.to_owned())),
        (None, None, None) => Err(Failure::usage(
            "whose stage? inside a processor it is its own job's; elsewhere give --external-id, --job or --idempotency-key",
        )),
    }
}
