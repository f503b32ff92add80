//! `ingestd cancel`

use clap::Args;

use super::Format;
use super::context::Context;
use super::failure::{Done, Failure};
use super::filter::Filter;
use super::selection::{IdArg, Selection, Words, act};
use crate::control::Request;
use crate::job::StateName;

/// Which jobs to cancel.
#[derive(Args, Debug)]
pub struct Cancel {
    /// The jobs; `-` reads their numbers from stdin.
    #[arg(value_name = "ID", required_unless_present = "state", conflicts_with = "state")]
    ids: Vec<IdArg>,
    /// All jobs in these states that match the filters: pending, retrying, running.
    #[arg(long, value_name = "S", value_delimiter = ',')]
    state: Vec<StateName>,
    #[command(flatten)]
    filter: Filter,
    /// Only say how many jobs it would touch.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Cancel, context: &mut Context) -> Done {
    if let Some(state) = args.state.iter().find(|state| state.is_final()) {
        return Err(Failure::usage(format!(
            "{state} jobs are final; only pending, retrying and running ones end here"
        )));
    }
    let selection = if args.state.is_empty() {
        Selection::of_ids_alone(&args.ids, &args.filter, "--state")?
    } else {
        Selection::Matching { states: args.state, filter: args.filter }
    };
    let words = Words { would: "would cancel", did: "cancelled" };
    act(selection, args.dry_run, args.format.json, &words, context, |ids| Request::Cancel { ids }).await
}
