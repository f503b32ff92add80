//! `ingestd history`

use std::io::Write;

use clap::Args;

use super::context::Context;
use super::failure::{Done, Failure};
use super::filter::Filter;
use super::screen::Screen;
use super::table::{Column, Table};
use super::view::{AttemptView, lossy};
use super::{Format, time};
use crate::job::StateName;
use crate::store::{Attempt, Browse, JobFilter};

/// Attempts read at once.
const PAGE: usize = 500;

/// Which attempts to list.
#[derive(Args, Debug)]
pub struct History {
    /// Only attempts of jobs that are in these states now.
    #[arg(long, value_name = "S", value_delimiter = ',')]
    state: Vec<StateName>,
    #[command(flatten)]
    filter: Filter,
    /// At most this many, the newest; 0: all.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: History, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let filter = args.filter.resolve(args.state, context, &stores).await?;
    let pages = pages(args.limit, &filter, stores.browse.as_ref()).await?;
    for (before, length) in pages.iter().rev() {
        let mut attempts = stores.browse.history(&filter, *before, *length).await?;
        attempts.reverse();
        if args.format.json {
            attempts.iter().try_for_each(|attempt| context.screen.json(&AttemptView::of(attempt)))?;
        } else {
            table(&attempts, &mut context.screen)?;
        }
    }
    if pages.is_empty() && !args.format.json {
        writeln!(context.screen, "no attempts match")?;
    }
    Ok(0)
}

/// Where the pages of the newest `limit` attempts begin, and their lengths, newest first. The history is told in
/// order, oldest first, and read from its end: so the pages are found first and read again backwards, and never
/// more than one lies in memory.
async fn pages(limit: usize, filter: &JobFilter, browse: &dyn Browse) -> Result<Vec<(Option<i64>, usize)>, Failure> {
    let mut left = if limit == 0 { usize::MAX } else { limit };
    let mut pages = Vec::new();
    let mut before = None;
    while left > 0 {
        let ask = left.min(PAGE);
        let attempts = browse.history(filter, before, ask).await?;
        if attempts.is_empty() {
            break;
        }
        pages.push((before, attempts.len()));
        before = attempts.last().map(|attempt| attempt.id);
        left = if attempts.len() < ask { 0 } else { left - attempts.len() };
    }
    Ok(pages)
}

fn table(attempts: &[Attempt], screen: &mut Screen) -> Result<(), Failure> {
    let mut table = Table::new([
        Column::Right("JOB"),
        Column::Right("RUN"),
        Column::Left("OUTCOME"),
        Column::Left("ENDED"),
        Column::Right("TOOK"),
        Column::Middle("PATH"),
        Column::End("ERROR"),
    ]);
    for attempt in attempts {
        table.row([
            attempt.job.to_string().into(),
            attempt.execution.to_string().into(),
            attempt.outcome.as_str().into(),
            time::relative(attempt.finished_at, screen.now).into(),
            time::short_ms(attempt.duration_ms).into(),
            attempt.path.as_deref().map(lossy).unwrap_or_default().into(),
            attempt.error.as_ref().map(|error| error.message.clone()).unwrap_or_default().into(),
        ]);
    }
    Ok(table.write(screen)?)
}
