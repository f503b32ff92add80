//! `ingestd resume`

use clap::Args;

use super::Format;
use super::context::Context;
use super::failure::Done;
use crate::control::Request;

/// What to resume.
#[derive(Args, Debug)]
pub struct Resume {
    /// The pipelines; none: all that are paused.
    #[arg(value_name = "PIPELINE")]
    pipelines: Vec<String>,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Resume, context: &mut Context) -> Done {
    let names: Vec<String> = context.ask(Request::ResumePipelines { names: args.pipelines }).await?;
    super::pause::tell("resumed", &names, args.format.json, context)
}
