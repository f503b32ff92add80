//! `ingestd pause`

use std::io::Write;

use clap::Args;

use super::Format;
use super::context::Context;
use super::failure::Done;
use crate::control::Request;

/// What to pause.
#[derive(Args, Debug)]
pub struct Pause {
    /// The pipelines; none: all.
    #[arg(value_name = "PIPELINE")]
    pipelines: Vec<String>,
    /// Also interrupt what runs; it is put back without spending an attempt.
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Pause, context: &mut Context) -> Done {
    let request = Request::PausePipelines { names: args.pipelines, now: args.now };
    let names: Vec<String> = context.ask(request).await?;
    tell("paused", &names, args.format.json, context)
}

/// Says which pipelines were paused or resumed.
pub fn tell(verb: &str, names: &[String], json: bool, context: &mut Context) -> Done {
    if json {
        context.screen.json(&serde_json::json!({ verb: names }))?;
    } else if !context.global.quiet {
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        writeln!(context.screen, "{verb} {names}")?;
    }
    Ok(0)
}
