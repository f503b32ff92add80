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
    #[arg(value_name = "ID", required_unless_present_any = ["failed", "cancelled"], conflicts_with_all = ["failed", "cancelled"])]
    ids: Vec<IdArg>,
    /// All failed jobs that match the filters.
    #[arg(long)]
    failed: bool,
    /// All cancelled jobs that match the filters.
    #[arg(long)]
    cancelled: bool,
    #[command(flatten)]
    filter: Filter,
    /// Only say how many jobs it would touch.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Retry, context: &mut Context) -> Done {
    let chosen = [(args.failed, StateName::Failed), (args.cancelled, StateName::Cancelled)];
    let states: Vec<StateName> = chosen.into_iter().filter_map(|(chosen, state)| chosen.then_some(state)).collect();
    let selection = if states.is_empty() {
        Selection::of_ids_alone(&args.ids, &args.filter, "--failed and --cancelled")?
    } else {
        Selection::Matching { states, filter: args.filter }
    };
    let words = Words { would: "would retry", did: "retried" };
    act(selection, args.dry_run, args.format.json, &words, context, |ids| Request::Retry { ids }).await
}
