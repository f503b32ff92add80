//! `ingestd status --summary` and `--failed`: runs, all together.

use std::io::Write;

use serde::Serialize;

use super::Format;
use super::context::Context;
use super::failure::Done;
use super::run_view::{Earlier, FailedView, RunInFull, counts};
use super::runs::{failed_table, no_run};
use super::screen::count;
use super::status::line;
use crate::run::RunId;

/// All runs at a glance, as JSON tells it.
#[derive(Serialize)]
struct SummaryView {
    total: u64,
    active: u64,
    /// Over, however they ended.
    completed: u64,
    successes: u64,
    errors: u64,
    last: Option<RunInFull>,
}

/// All runs at a glance.
pub async fn summary(format: Format, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let summary = stores.lists.run_summary(None).await?;
    if format.json {
        let last = match &summary.last {
            Some(run) => Some(RunInFull::of(run, &stores, context.now()).await?),
            None => None,
        };
        context.screen.json(&SummaryView {
            total: summary.total,
            active: summary.active,
            completed: summary.ended,
            successes: summary.successes,
            errors: summary.errors,
            last,
        })?;
        return Ok(0);
    }
    for (name, number) in [
        ("total", summary.total),
        ("active", summary.active),
        ("completed", summary.ended),
        ("successes", summary.successes),
        ("errors", summary.errors),
    ] {
        line(name, &count(number), &mut context.screen)?;
    }
    let last = summary.last.as_ref().map_or_else(|| "none".to_owned(), |run| counts(run, Earlier::default()));
    line("last", &last, &mut context.screen)?;
    Ok(0)
}

/// What did not end well, in one run or in all.
pub async fn failed(run: Option<RunId>, limit: usize, format: Format, context: &mut Context) -> Done {
    let stores = context.read().await?;
    if let Some(id) = run
        && stores.runs.run(id).await?.is_none()
    {
        return Err(no_run(id));
    }
    let rows = stores.lists.failed_lines(run, limit).await?;
    let rows: Vec<FailedView> = rows.into_iter().map(Into::into).collect();
    if format.json {
        rows.iter().try_for_each(|row| context.screen.json(row))?;
    } else if rows.is_empty() {
        writeln!(context.screen, "nothing failed")?;
    } else {
        failed_table(&rows, run.is_none(), &mut context.screen)?;
    }
    Ok(0)
}
