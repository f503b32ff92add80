//! `ingestd runs`

use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Style, clean, count};
use super::table::{Cell, Column, Table};
use super::view::{lossy, path_base64};
use super::{Format, time};
use crate::clock::Timestamp;
use crate::job::{Digest, DigestAlgorithm};
use crate::run::{Run, RunId, RunInput, RunState, RunType};

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
}

/// A run, as JSON tells it.
#[derive(Serialize)]
struct RunView<'a> {
    id: RunId,
    name: Option<&'a str>,
    #[serde(rename = "type")]
    run_type: RunType,
    state: RunState,
    input: InputView,
    dry_run: bool,
    pipeline: &'a str,
    total: Option<u64>,
    processed: u64,
    enqueued: u64,
    completed: u64,
    failed: u64,
    skipped: u64,
    bad_lines: u64,
    position: u64,
    current_path: Option<String>,
    batch: u64,
    rate_per_s: f64,
    eta_ms: Option<u64>,
    started_at: Timestamp,
    updated_at: Timestamp,
    finished_at: Option<Timestamp>,
    duration_ms: i64,
    checkpoint_version: u32,
    changesets: [(); 0],
    last_error: Option<&'a str>,
}

#[derive(Serialize)]
struct InputView {
    kind: &'static str,
    path: Option<String>,
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl InputView {
    fn of(input: &RunInput) -> Self {
        let (kind, path, read) = match input {
            RunInput::Watch { root } => ("watch", Some(root), None),
            RunInput::File { path, read } => ("file", Some(path), Some(read)),
            RunInput::Stdin { read } => ("stdin", None, Some(read)),
        };
        let hex = |digest: [u8; 32]| Digest { algorithm: DigestAlgorithm::Blake3, bytes: digest }.to_string();
        Self {
            kind,
            path: path.map(|path| lossy(path)),
            digest: read.and_then(|read| read.digest).map(hex),
            path_base64: path.and_then(|path| path_base64(path)),
        }
    }
}

impl<'a> RunView<'a> {
    /// A scan has no lines, batches or changesets, and its jobs are not counted by how they ended.
    fn of(run: &'a Run) -> Self {
        Self {
            id: run.id,
            name: run.name.as_deref(),
            run_type: run.run_type,
            state: run.state,
            input: InputView::of(&run.input),
            dry_run: run.dry_run,
            pipeline: &run.pipeline,
            total: run.total,
            processed: run.processed,
            enqueued: run.enqueued,
            completed: run.jobs.completed,
            failed: run.jobs.failed + run.failed_lines,
            skipped: run.skipped + run.jobs.skipped,
            bad_lines: run.bad_lines,
            position: run.position,
            current_path: run.current_path.as_deref().map(lossy),
            batch: run.batch,
            rate_per_s: run.rate_per_s,
            eta_ms: None,
            started_at: run.started_at,
            updated_at: run.updated_at,
            finished_at: run.finished_at,
            duration_ms: run.duration_ms,
            checkpoint_version: run.checkpoint_version,
            changesets: [],
            last_error: run.last_error.as_deref(),
        }
    }
}

pub async fn run(args: Runs, context: &mut Context) -> Done {
    match args.verb {
        Verb::List { limit, format } => list(limit, format, context).await,
        Verb::Show { id, format } => show(id, format, context).await,
    }
}

async fn list(limit: usize, format: Format, context: &mut Context) -> Done {
    let runs = context.read().await?.runs.runs(limit).await?;
    if format.json {
        runs.iter().try_for_each(|run| context.screen.json(&RunView::of(run)))?;
        return Ok(0);
    }
    if runs.is_empty() {
        writeln!(context.screen, "no runs; the first scan of a watch is one")?;
        return Ok(0);
    }
    let mut table = Table::new([
        Column::Right("ID"),
        Column::Middle("NAME"),
        Column::Left("TYPE"),
        Column::Left("STATE"),
        Column::Right("FILES"),
        Column::Right("NEW JOBS"),
        Column::Left("STARTED"),
        Column::Right("TOOK"),
        Column::End("ERROR"),
    ]);
    for run in &runs {
        table.row([
            run.id.to_string().into(),
            run.name.as_deref().unwrap_or_default().into(),
            run.run_type.as_str().into(),
            Cell::styled(run.state.as_str(), style(run.state)),
            count(run.processed).into(),
            count(run.enqueued).into(),
            time::relative(run.started_at, context.screen.now).into(),
            time::short_ms(run.duration_ms).into(),
            run.last_error.as_deref().unwrap_or_default().into(),
        ]);
    }
    table.write(&mut context.screen)?;
    Ok(0)
}

const fn style(state: RunState) -> Style {
    match state {
        RunState::Running => Style::Blue,
        RunState::Paused => Style::Yellow,
        RunState::Failed => Style::Red,
        RunState::Completed | RunState::Cancelled => Style::Plain,
    }
}

async fn show(id: RunId, format: Format, context: &mut Context) -> Done {
    let run = context.read().await?.runs.run(id).await?;
    let run = run.ok_or_else(|| {
        Failure::not_found(format!("no run {id}; `ingestd runs list` shows those that are there (old ones are pruned)"))
    })?;
    if format.json {
        context.screen.json(&RunView::of(&run))?;
        return Ok(0);
    }
    for (name, value) in facts(&run, context.screen.now) {
        let name = context.screen.paint(&format!("{name:<12}"), Style::Dim);
        writeln!(context.screen, "{name} {}", clean(&value))?;
    }
    Ok(0)
}

fn facts(run: &Run, now: Timestamp) -> Vec<(&'static str, String)> {
    let at = |time| format!("{time} ({})", time::relative(time, now));
    let mut facts = vec![("run", run.id.to_string())];
    facts.extend(run.name.as_ref().map(|name| ("watch", name.clone())));
    facts.push(("type", run.run_type.to_string()));
    facts.push(("state", run.state.to_string()));
    facts.push(match &run.input {
        RunInput::Watch { root } => ("folder", lossy(root)),
        RunInput::File { path, .. } => ("list", lossy(path)),
        RunInput::Stdin { .. } => ("list", "standard input".to_owned()),
    });
    facts.push(("pipeline", run.pipeline.clone()));
    facts.push(("files", format!("{}, {:.0} per second", count(run.processed), run.rate_per_s)));
    facts.push(("new jobs", count(run.enqueued)));
    facts.extend(run.current_path.as_deref().map(|path| ("now in", lossy(path))));
    facts.push(("started", at(run.started_at)));
    facts.push(match run.finished_at {
        Some(finished) => ("finished", at(finished)),
        None => ("last word", at(run.updated_at)),
    });
    facts.push(("took", time::short_ms(run.duration_ms)));
    facts.extend(run.last_error.as_ref().map(|error| ("error", error.clone())));
    facts
}
