//! `ingestd runs`

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::context::Context;
use super::failure::{Done, Failure};
use super::run_view::{Earlier, FailedView, Pace, RunInFull, counts};
use super::screen::{Screen, Style, clean, count, plural, size};
use super::sync;
use super::table::{Cell, Column, Table};
use super::view::lossy;
use super::{Format, time};
use crate::clock::Timestamp;
use crate::control::{Request, RunHand};
use crate::run::{Run, RunId, RunInput, RunJobs, RunState};
use crate::store::Unfinished;

/// See [`Verb`].
#[derive(Args, Debug)]
pub struct Runs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the runs, newest first.
    List {
        /// At most this many.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        format: Format,
    },
    /// Everything about one run.
    Show {
        /// Its number.
        #[arg(value_name = "ID")]
        id: RunId,
        #[command(flatten)]
        format: Format,
    },
    /// Stop reading a list and starting its jobs; survives restarts.
    Pause {
        /// Its number.
        #[arg(value_name = "ID")]
        id: RunId,
    },
    /// Undo a pause.
    Resume {
        /// Its number.
        #[arg(value_name = "ID")]
        id: RunId,
    },
    /// End it for good, and cancel its jobs that wait.
    Cancel {
        /// Its number.
        #[arg(value_name = "ID")]
        id: RunId,
    },
    /// Forget a run that is over; its jobs stay.
    Remove {
        /// Its number.
        #[arg(value_name = "ID")]
        id: RunId,
    },
}

pub async fn run(args: Runs, context: &mut Context) -> Done {
    match args.verb {
        Verb::List { limit, format } => list(limit, format, context).await,
        Verb::Show { id, format } => show(id, format, context).await,
        Verb::Pause { id } => steer(id, RunHand::Pause, context).await,
        Verb::Resume { id } => steer(id, RunHand::Resume, context).await,
        Verb::Cancel { id } => steer(id, RunHand::Cancel, context).await,
        Verb::Remove { id } => steer(id, RunHand::Remove, context).await,
    }
}

async fn list(limit: usize, format: Format, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let runs = stores.runs.runs(limit).await?;
    if format.json {
        for run in &runs {
            let view = RunInFull::of(run, &stores, context.now()).await?;
            context.screen.json(&view)?;
        }
        return Ok(0);
    }
    if runs.is_empty() {
        writeln!(context.screen, "no runs; the first scan of a watch is one, and so is every `ingestd sync`")?;
        return Ok(0);
    }
    table(&runs, &mut context.screen)?;
    Ok(0)
}

fn table(runs: &[Run], screen: &mut Screen) -> Result<(), Failure> {
    let mut table = Table::new([
        Column::Right("ID"),
        Column::Middle("NAME"),
        Column::Left("TYPE"),
        Column::Left("STATE"),
        Column::Right("READ"),
        Column::Right("NEW JOBS"),
        Column::Right("WRONG"),
        Column::Left("STARTED"),
        Column::Right("TOOK"),
        Column::End("ERROR"),
    ]);
    for run in runs {
        let wrong = run.bad_lines + run.failed_lines + run.jobs.failed;
        table.row([
            run.id.to_string().into(),
            name(run).into(),
            run.run_type.as_str().into(),
            Cell::styled(state(run), style(run.state)),
            count(run.processed).into(),
            count(run.enqueued).into(),
            Cell::styled(count(wrong), if wrong > 0 { Style::Red } else { Style::Plain }),
            time::relative(run.started_at, screen.now).into(),
            time::short_ms(run.duration_ms).into(),
            run.last_error.as_deref().unwrap_or_default().into(),
        ]);
    }
    Ok(table.write(screen)?)
}

/// A run's name, or where its list comes from.
fn name(run: &Run) -> String {
    match (&run.name, &run.input) {
        (Some(name), _) => name.clone(),
        (None, RunInput::File { path, .. }) => lossy(path),
        (None, RunInput::Stdin { .. }) => "-".to_owned(),
        (None, RunInput::Watch { root }) => lossy(root),
    }
}

fn state(run: &Run) -> String {
    format!("{}{}", run.state, if run.dry_run { " (dry run)" } else { "" })
}

const fn style(state: RunState) -> Style {
    match state {
        RunState::Running => Style::Blue,
        RunState::Paused => Style::Yellow,
        RunState::Failed => Style::Red,
        RunState::Completed | RunState::Cancelled => Style::Plain,
    }
}

/// Says that there is no such run.
pub fn no_run(id: RunId) -> Failure {
    Failure::not_found(format!("no run {id}; `ingestd runs list` shows those that are there (old ones are pruned)"))
}

async fn steer(run: RunId, hand: RunHand, context: &mut Context) -> Done {
    let _: Value = context.ask(Request::RunSteer { run, hand }).await?;
    if !context.global.quiet {
        let did = match hand {
            RunHand::Pause => "paused",
            RunHand::Resume => "goes on",
            RunHand::Cancel | RunHand::GiveUp => "cancelled",
            RunHand::Remove => "removed",
        };
        writeln!(context.screen, "run {run} {did}")?;
        if hand == RunHand::Resume
            && let Some(how) = nobody_reads(run, context).await?
        {
            writeln!(context.screen, "its jobs go on; nobody reads its list: {how}")?;
        }
    }
    Ok(0)
}

/// How the list of a run goes on that was not read to its end and that nobody reads.
async fn nobody_reads(id: RunId, context: &Context) -> Result<Option<String>, Failure> {
    let stores = context.read().await?;
    let unfinished = stores.lists.unfinished_run(id).await?;
    let Some(Unfinished { run, holder, .. }) = unfinished else { return Ok(None) };
    if sync::is_read_by(context.config()?, &holder) {
        return Ok(None);
    }
    let pipe = match run.input {
        RunInput::Stdin { .. } => ", with the same list piped in again",
        _ => "",
    };
    Ok(Some(format!("`ingestd sync --resume {id}` goes on at line {}{pipe}", count(run.position + 1))))
}

/// Everything about one run.
pub async fn show(id: RunId, format: Format, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let run = stores.runs.run(id).await?.ok_or_else(|| no_run(id))?;
    let now = context.screen.now;
    let view = RunInFull::of(&run, &stores, now).await?;
    if format.json {
        context.screen.json(&view)?;
        return Ok(0);
    }
    let facts = match run.input {
        RunInput::Watch { .. } => of_scan(&run, now),
        RunInput::File { .. } | RunInput::Stdin { .. } => of_list(&run, now, nobody_reads(id, context).await?),
    };
    for (name, value) in common(&run, now, facts) {
        fact(name, &value, &mut context.screen)?;
    }
    for (repo, jobs) in view.repos() {
        let RunJobs { open, completed, failed, skipped, cancelled } = jobs;
        let text = format!(
            "{}: {open} to be done, {completed} completed, {failed} failed, {skipped} skipped, {cancelled} cancelled",
            clean(&repo)
        );
        fact("repository", &text, &mut context.screen)?;
    }
    for changeset in view.changesets() {
        fact("changeset", &changeset.to_string(), &mut context.screen)?;
    }
    if !view.errors().is_empty() {
        writeln!(context.screen)?;
        failed_table(view.errors(), false, &mut context.screen)?;
    }
    Ok(0)
}

fn fact(name: &str, value: &str, screen: &mut Screen) -> Result<(), Failure> {
    let name = screen.paint(&format!("{name:<12}"), Style::Dim);
    Ok(writeln!(screen, "{name} {}", clean(value))?)
}

type Facts = Vec<(&'static str, String)>;

fn common(run: &Run, now: Timestamp, of_input: Facts) -> Facts {
    let at = |time| format!("{time} ({})", time::relative(time, now));
    let mut facts = vec![("run", run.id.to_string())];
    let whose = if matches!(run.input, RunInput::Watch { .. }) { "watch" } else { "name" };
    facts.extend(run.name.as_ref().map(|name| (whose, name.clone())));
    facts.push(("type", format!("{}{}", run.run_type, if run.dry_run { ", a dry run" } else { "" })));
    facts.push(("state", run.state.to_string()));
    facts.push(match &run.input {
        RunInput::Watch { root } => ("folder", lossy(root)),
        RunInput::File { path, .. } => ("list", lossy(path)),
        RunInput::Stdin { .. } => ("list", "standard input".to_owned()),
    });
    facts.push(("pipeline", run.pipeline.clone()));
    facts.extend(of_input);
    facts.push(("started", at(run.started_at)));
    facts.push(match run.finished_at {
        Some(finished) => ("finished", at(finished)),
        None => ("last word", at(run.updated_at)),
    });
    facts.push(("took", time::short_ms(run.duration_ms)));
    facts.extend(run.last_error.as_ref().map(|error| ("error", error.clone())));
    facts
}

fn of_scan(run: &Run, _now: Timestamp) -> Facts {
    let mut facts = vec![("files", format!("{}, {:.0} per second", count(run.processed), run.rate_per_s))];
    facts.push(("new jobs", count(run.enqueued)));
    facts.extend(run.current_path.as_deref().map(|path| ("now in", lossy(path))));
    facts
}

fn of_list(run: &Run, now: Timestamp, nobody_reads: Option<String>) -> Facts {
    let reading = run.reading && !run.state.is_final();
    let mut facts = vec![("counts", counts(run, Earlier::default()))];
    let (RunInput::File { read, .. } | RunInput::Stdin { read }) = &run.input else { return facts };
    let how = match nobody_reads {
        Some(how) => format!("broken off at line {}; {how}", count(run.position)),
        None if reading => "is being read".to_owned(),
        None => "read".to_owned(),
    };
    let position = format!(
        "line {}, {} in {}, {:.0} lines per second; {how}",
        count(run.position),
        size(read.bytes),
        plural(run.batch, "batch", "batches"),
        run.rate_per_s
    );
    facts.push(("checkpoint", position));
    facts.extend(Pace::of(run, now).eta.map(|eta| ("left", format!("about {}", time::short(eta)))));
    facts
}

/// What did not end well, as a table.
pub fn failed_table(rows: &[FailedView], with_run: bool, screen: &mut Screen) -> Result<(), Failure> {
    let mut columns = vec![
        Column::Right("LINE"),
        Column::Left("OP"),
        Column::Left("REPO"),
        Column::Right("TRIES"),
        Column::Middle("PATH"),
        Column::End("ERROR"),
    ];
    if with_run {
        columns.insert(0, Column::Right("RUN"));
    }
    let mut table = Table::new(columns);
    for failed in rows {
        let (run, line) = failed.place();
        let [op, repo, tries] = failed.facts();
        let mut cells: Vec<Cell> =
            vec![count(line).into(), op.into(), repo.into(), tries.into(), failed.what().into(), failed.error().into()];
        if with_run {
            cells.insert(0, run.to_string().into());
        }
        table.row(cells);
    }
    Ok(table.write(screen)?)
}
