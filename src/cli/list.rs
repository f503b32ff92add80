//! `ingestd list`

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::Format;
use super::context::Context;
use super::failure::{Done, Failure};
use super::filter::{Filter, Pages};
use super::screen::{Screen, Style};
use super::table::{Cell, Column, Table};
use super::{time, view};
use crate::job::{Job, State, StateName};

/// Which jobs to list.
#[derive(Args, Debug)]
pub struct List {
    /// Only jobs in these states: pending, running, retrying, completed, failed, cancelled, skipped.
    #[arg(long, value_name = "S", value_delimiter = ',')]
    state: Vec<StateName>,
    #[command(flatten)]
    filter: Filter,
    /// At most this many; 0: all.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: List, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let filter = args.filter.resolve(args.state, context, &stores).await?;
    let mut pages = Pages::new(stores.browse.as_ref(), &filter, args.limit);
    let config = context.config()?.clone();
    let mut any = false;
    loop {
        let jobs = pages.next().await?;
        if jobs.is_empty() {
            break;
        }
        any = true;
        if context.global.quiet {
            for job in &jobs {
                writeln!(context.screen, "{}", job.id)?;
            }
        } else if args.format.json {
            for job in &jobs {
                context.screen.json(&view::JobView::of(job, &config))?;
            }
        } else {
            table(&jobs, &mut context.screen)?;
        }
    }
    if !any && !args.format.json && !context.global.quiet {
        writeln!(context.screen, "no jobs match")?;
    }
    Ok(0)
}

/// A page of jobs as a table.
fn table(jobs: &[Job], screen: &mut Screen) -> Result<(), Failure> {
    let mut table = Table::new([
        Column::Right("ID"),
        Column::Left("STATE"),
        Column::Left("WHEN"),
        Column::Left("PIPELINE"),
        Column::Middle("PATH"),
        Column::End("NOTE"),
    ]);
    for job in jobs {
        table.row([
            job.id.to_string().into(),
            state(job.state.name()),
            time::relative(when(job), screen.now).into(),
            job.pipeline.as_str().into(),
            view::lossy(&job.path).into(),
            note(job, screen).into(),
        ]);
    }
    Ok(table.write(screen)?)
}

/// A state in its colour.
pub fn state(state: StateName) -> Cell {
    let style = match state {
        StateName::Completed => Style::Green,
        StateName::Failed => Style::Red,
        StateName::Retrying => Style::Yellow,
        StateName::Running => Style::Blue,
        StateName::Cancelled | StateName::Skipped => Style::Dim,
        StateName::Pending => Style::Plain,
    };
    Cell::styled(state.as_str(), style)
}

/// The time that tells most about where a job stands.
fn when(job: &Job) -> crate::clock::Timestamp {
    match &job.state {
        State::Pending { run_at, .. } | State::Retrying { run_at, .. } => (*run_at).max(job.created_at),
        State::Running { started_at } => *started_at,
        State::Completed { finished_at }
        | State::Failed { finished_at, .. }
        | State::Cancelled { finished_at }
        | State::Skipped { finished_at, .. } => *finished_at,
    }
}

fn note(job: &Job, screen: &Screen) -> String {
    match &job.state {
        State::Pending { blocked_by: Some(by), .. } => format!("after job {by}"),
        State::Skipped { reason, .. } => view::skipped(reason, job),
        State::Running { started_at } => format!("for {}", time::short(screen.now.since(*started_at))),
        State::Completed { .. } => {
            view::duration_ms(job).map(|ms| time::short(Duration::from_millis(ms))).unwrap_or_default()
        }
        _ => job.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::tests::Paper;
    use crate::control::fake::job;
    use crate::job::JobId;

    #[test]
    fn a_list_fits_eighty_columns() {
        let paper = Paper::default();
        let mut jobs: Vec<Job> = StateName::ALL.iter().zip(1..).map(|(state, id)| job(JobId(id), *state)).collect();
        jobs[0].path = format!("/srv/inbox/{}/report.pdf", "deep/".repeat(30)).into();
        if let Some(error) = &mut jobs[4].error {
            error.message = "no such thing ".repeat(20);
        }
        table(&jobs, &mut paper.screen()).unwrap();
        let text = paper.text();
        assert_eq!(text.lines().count(), 8);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("1m ago") && text.contains("report.pdf"), "{text}");
    }
}
