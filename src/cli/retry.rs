//! `ingestd retry`

use clap::Args;

use super::Format;
use super::context::Context;
use super::failure::Done;
use super::filter::Filter;
use super::selection::{IdArg, Selection, Words, act};
use crate::control::Request;
use crate::job::StateName;

/// Which jobs to try again.
#[derive(Args, Debug)]
pub struct Retry {
    /// The jobs; `-` reads their numbers from stdin.
    #[arg(value_name = "ID", required_unless_present = "failed", conflicts_with = "failed")]
    ids: Vec<IdArg>,
    /// All failed jobs that match the filters.
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    filter: Filter,
    /// Only say how many jobs it would touch.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Retry, context: &mut Context) -> Done {
    let selection = if args.failed {
        Selection::Matching { states: vec![StateName::Failed], filter: args.filter }
    } else {
        Selection::of_ids_alone(&args.ids, &args.filter, "--failed")?
    };
    let words = Words { would: "would retry", did: "retried" };
    act(selection, args.dry_run, args.format.json, &words, context, |ids| Request::Retry { ids }).await
}
