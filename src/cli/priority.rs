//! `ingestd priority`

use clap::Args;

use super::Format;
use super::context::Context;
use super::failure::Done;
use super::selection::{IdArg, Selection, Words, act};
use crate::control::Request;

/// The level, and the jobs that get it.
#[derive(Args, Debug)]
pub struct Priority {
    /// The level: low, normal, high or urgent.
    #[arg(value_name = "LEVEL")]
    level: crate::job::Priority,
    /// The jobs; `-` reads their numbers from stdin.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<IdArg>,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Priority, context: &mut Context) -> Done {
    let level = args.level;
    let words = Words { would: "would change", did: "changed" };
    let selection = Selection::of_ids(&args.ids)?;
    act(selection, false, args.format.json, &words, context, |ids| Request::Prioritize { ids, level }).await
}
