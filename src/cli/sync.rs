//! `ingestd sync`
//!
//! 1. A file that this process holds locked says that it lives ([`holder`]).
//! 2. The list is opened, and its beginning tells whether a run that was broken off goes on with it ([`choose`]).
//! 3. Lines become batches ([`reader`]), and each batch is handed over ([`handover`]): jobs and checkpoint are one
//!    commit there, so wherever this process dies, the next one goes on at the very line.
//! 4. At the end the run is told so ([`finish`]), and its counts are the last line that is printed.
//!
//! A signal ends it in order: what was handed over is taken, and the rest stays for later.

mod beginning;
mod choose;
mod finish;
mod folders;
mod handover;
mod holder;
mod reader;
mod source;
mod steady;
mod tell;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::failure::{Done, Failure};
use super::run_view::{Earlier, RunInFull, counts};
use super::screen::{count, plural};
use super::{Format, note};
use crate::config::{parse_size, show_size};
use crate::lifecycle::{Lifecycle, Signals};
use crate::run::{Run, RunId, RunState};
use choose::{Chooser, Chosen};
use handover::{Ended, Handover, how_to_go_on};
use holder::Held;
pub(super) use holder::lives as is_read_by;
use reader::Reader;
use steady::Steady;
use tell::{Far, Teller};

/// The largest `--line-limit`, in bytes: a line has to fit into a request.
const MOST_LINE: u64 = 32 << 20;

const LINES: &str = "\
A line is a path (bytes, as they are), or a JSON object that begins with `{`:
  {\"path\":…, \"op\":\"add|modify|delete\", \"repo\":…, \"line\":N, \"priority\":…, \"key\":…,
   \"content\":… | \"content_base64\":… | \"content_ref\":PATH, \"metadata\":…, \"skip_index\":true}
or a changeset's record, which is kept with the run: {\"repo\":…, \"new_changeset\":{…}}

Examples:
  find /srv/docs -type f | ingestd sync --name docs -
  ingestd sync changes.jsonl --wait
  git diff --name-only --diff-filter=d HEAD~1 | ingestd sync --root ~/project -
  ingestd sync list.txt --dry-run   what would be done
  ingestd sync --resume 7           go on where run 7 was broken off

An interrupted list goes on at its line when the same command is given again.
Exit codes: 0 every line was taken well, 1 some were not, or the run can't go on,
3 no such run or pipeline.";

/// Which list, and how.
#[expect(clippy::struct_excessive_bools, reason = "these are flags of a command line")]
#[derive(Args, Debug)]
#[command(after_help = LINES)]
pub struct Sync {
    /// The list; `-`, or nothing: the standard input.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The pipeline; may be left out when there is one.
    #[arg(long, value_name = "P")]
    pipeline: Option<String>,
    /// Hand over this many lines at once.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Only look what would be done: nothing is enqueued.
    #[arg(long)]
    dry_run: bool,
    /// What this list is called: later ones of the name are later states of the same list.
    #[arg(long, value_name = "NAME", value_parser = choose::name, conflicts_with = "resume")]
    name: Option<String>,
    /// Begin anew; a run of this list that was broken off is cancelled.
    #[arg(long, conflicts_with = "resume")]
    new: bool,
    /// Go on with this run, also if it is paused.
    #[arg(long, value_name = "ID")]
    resume: Option<RunId>,
    /// What an earlier run of this list named and this one does not becomes a delete.
    #[arg(long)]
    delete_missing: bool,
    /// Wait until every job of the run is over; exit 1 if any failed.
    #[arg(long)]
    wait: bool,
    /// Relative paths count from this folder instead of the current one.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The longest line; up to 32MiB.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = line_limit)]
    line_limit: u64,
    #[command(flatten)]
    format: Format,
}

fn line_limit(text: &str) -> Result<u64, String> {
    let size = parse_size(text).filter(|size| (1..=MOST_LINE).contains(size));
    size.ok_or_else(|| format!("a size from 1B to {}, for instance 64KiB", show_size(MOST_LINE)))
}

pub async fn run(args: Sync, context: &mut Context) -> Done {
    let lifecycle = Lifecycle::default();
    let signals = Signals::catch().map_err(|error| Failure::failed(format!("signals can't be caught: {error}")))?;
    let stop = lifecycle.draining().child_token();
    tokio::select! {
        done = sync(&args, &stop, context) => done,
        () = signals.obey(lifecycle.clone()) => Ok(1),
        // A terminal that went away; and whoever asks twice wants out at once.
        () = lifecycle.reload_asked() => Ok(1),
        () = async { lifecycle.stopping_now().cancelled().await } => Ok(1),
    }
}

async fn sync(args: &Sync, stop: &CancellationToken, context: &mut Context) -> Done {
    let root = root(args)?;
    let config = context.config()?.clone();
    let mut steady = Steady::new();
    let held = Held::take(&config)?;
    let chooser = Chooser { args, context, steady: &mut steady, held: &held, root: &root, stop };
    let Some(chosen) = chooser.choose().await? else { return Ok(1) };
    let Chosen { id, goes_on, delete_missing, source, position } = chosen;
    let mut teller = Teller::new(id, args.format.json, context);
    let from = position.read;
    let mut handover = Handover {
        run: id,
        holder: held.name(),
        steady: &mut steady,
        teller: &mut teller,
        stop,
        far: Far { lines: from.lines, done: from.bytes, total: source.size_bytes(), ..Far::default() },
        from_line: from.lines,
        from_byte: from.bytes,
        worked: Duration::ZERO,
        since: Instant::now(),
        said_unknown: false,
        said_full: false,
    };
    tell_begin(&mut handover, goes_on, context).await?;
    let limit = usize::try_from(args.line_limit).unwrap_or(usize::MAX);
    let reader = Reader::new(source, position, root, args.batch as usize, limit);
    let mut whole = true;
    let mut ended = handover.run(reader, context).await?;
    if ended == Ended::Through && delete_missing {
        (ended, whole) = handover.delete_missing(context).await?;
    }
    if ended == Ended::Through {
        ended = handover.end_input(context).await?;
    }
    let read = ended == Ended::Through;
    if read && args.wait {
        ended = handover.wait(context).await?;
    }
    let run = handover.now(context).await?;
    let failed_before = handover.far.failed_before > 0;
    tell_end(&mut handover, &run, args, context).await?;
    if ended == Ended::Stopped {
        note(&stopped(&run, read));
        return Ok(1);
    }
    let failed = args.wait && (failed_before || run.state != RunState::Completed);
    Ok(u8::from(!whole || failed || run.bad_lines + run.failed_lines > 0))
}

/// The folder from which relative paths count.
fn root(args: &Sync) -> Result<PathBuf, Failure> {
    let root = args.root.clone().unwrap_or_else(|| PathBuf::from("."));
    root.canonicalize().map_err(|error| {
        Failure::usage(format!("the folder {}, from which paths count: {error}", super::view::lossy(&root)))
    })
}

async fn tell_begin(handover: &mut Handover<'_>, goes_on: bool, context: &mut Context) -> Result<(), Failure> {
    let run = handover.now(context).await?;
    if goes_on {
        let line = count(run.position + 1);
        handover.teller.say(&format!("run {} goes on at line {line}", run.id));
    }
    let stores = handover.steady.stores(context).await?;
    let view = RunInFull::of(&run, &stores, context.now()).await?;
    let event = if goes_on { "resumed" } else { "begun" };
    handover.teller.event(event, serde_json::to_value(view)?, json!({}), context)
}

async fn tell_end(handover: &mut Handover<'_>, run: &Run, args: &Sync, context: &mut Context) -> Result<(), Failure> {
    let stores = handover.steady.stores(context).await?;
    let view = serde_json::to_value(RunInFull::of(run, &stores, context.now()).await?)?;
    handover.tell_end(view, context)?;
    if !args.format.json && !context.global.quiet {
        let far = &handover.far;
        // A line that stands in the list twice waits for its own run.
        let earlier = Earlier { waiting: far.waiting.saturating_sub(run.duplicates), failed: far.failed_before };
        writeln!(context.screen, "{}", counts(run, earlier))?;
        context.screen.flush()?;
    }
    Ok(())
}

fn stopped(run: &Run, read: bool) -> String {
    if read {
        return format!(
            "stopped waiting; run {} goes on by itself: {} left (`ingestd runs show {0}`)",
            run.id,
            plural(run.jobs.open, "job is", "jobs are")
        );
    }
    format!("stopped at line {}; the same command goes on there, or: {}", count(run.position), how_to_go_on(run.id))
}
