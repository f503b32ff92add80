//! `ingestd failures`

use std::io::Write;

use clap::Args;

use super::context::Context;
use super::failure::Done;
use super::screen::{Style, clean, plural};
use super::table::cut;
use super::view::{FailureView, lossy};
use super::{Format, time};

/// How to list failures.
#[derive(Args, Debug)]
pub struct Failures {
    /// At most this many groups.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Failures, context: &mut Context) -> Done {
    let groups = context.read().await?.browse.failures(args.limit).await?;
    let screen = &mut context.screen;
    if args.format.json {
        for group in &groups {
            screen.json(&FailureView::of(group))?;
        }
        return Ok(0);
    }
    if groups.is_empty() {
        writeln!(screen, "no job has failed or is being retried")?;
    }
    let width = screen.width;
    for group in &groups {
        let count = plural(group.failed + group.retrying, "job", "jobs");
        let heading = format!("{count}, {}: {}", group.pipeline, clean(&group.error.to_string()));
        let heading = screen.paint(&cut(&heading, width), Style::Bold);
        writeln!(screen, "{heading}")?;
        let first = time::relative(group.first_at, screen.now);
        let last = time::relative(group.last_at, screen.now);
        writeln!(screen, "  {} failed, {} retrying; first {first}, last {last}", group.failed, group.retrying)?;
        let example = format!("  for instance job {}: {}", group.example, clean(&lossy(&group.example_path)));
        writeln!(screen, "{}", super::table::middle(&example, width))?;
    }
    Ok(0)
}
