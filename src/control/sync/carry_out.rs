//! Carries out what `sync` asks for: requests become calls of intake and store, answers become words.

use std::sync::Arc;

use super::{Asks, Entry, SyncBegin, SyncBegun, SyncLines, SyncMissing, SyncTaken, Trouble};
use crate::control::add::{own_files, the_pipeline};
use crate::control::hands::{Hands, Refusal};
use crate::control::runs::unknown_run;
use crate::intake::{ContentFolder, ListBatch, ListIntake, ListLine, NotTaken};
use crate::job::{StateName, WirePath};
use crate::run::{InputRead, RunId, RunInput};
use crate::store::{Begun, Changeset, Enqueued, Holder, LineProblem, LinesTaken, MissingStep, NewListRun};

/// Deletes made in one step.
const MISSING: usize = 1_000;

pub(in crate::control) async fn begin(begin: SyncBegin, hands: &Hands) -> Result<SyncBegun, Refusal> {
    let pipeline = the_pipeline(begin.pipeline.as_deref(), &hands.config())?;
    let read = InputRead::default();
    let input = match begin.input {
        Some(WirePath(path)) if path.is_absolute() => RunInput::File { path, read },
        Some(WirePath(path)) => {
            return Err(Refusal::usage(format!("`{}` is not an absolute path", path.display())));
        }
        None => RunInput::Stdin { read },
    };
    let list = begin.list.clone();
    let new = NewListRun {
        name: begin.name,
        list: begin.list,
        input,
        pipeline,
        dry_run: begin.dry_run,
        delete_missing: begin.delete_missing,
        holder: begin.holder,
    };
    match hands.stores.lists.begin_list(new).await? {
        Begun::Run { id, .. } => Ok(SyncBegun { id }),
        Begun::Active(id) => Err(Refusal::failed(format!(
            "run {id} of `{list}` is still being read; wait for it, go on with it (`ingestd sync --resume {id} …`), or \
             end it (`ingestd runs cancel {id}`)"
        ))),
    }
}

pub(in crate::control) async fn take_over(
    run: RunId,
    from: Holder,
    to: Holder,
    hands: &Hands,
) -> Result<bool, Refusal> {
    Ok(hands.stores.lists.take_over(run, from, to).await?)
}

pub(in crate::control) async fn lines(lines: SyncLines, hands: &Hands) -> Result<SyncTaken, Refusal> {
    let run = hands.stores.runs.run(lines.run).await?.ok_or_else(|| unknown_run(lines.run))?;
    let config = hands.config();
    let intake = ListIntake {
        lists: Arc::clone(&hands.stores.lists),
        algorithm: config.queue.digest,
        contents: ContentFolder::new(config.contents(), config.database.mode),
        own: own_files(&hands.stores.upkeep.path()),
        pipeline: run.pipeline,
        dry_run: run.dry_run,
    };
    let taken = intake.take(batch(lines)).await?;
    Ok(match taken.taken {
        LinesTaken::All(answers) => {
            let enqueued = answers.iter().filter(|answer| matches!(answer, Enqueued::New { .. })).count() as u64;
            let failed = taken.failed.into_iter().map(told).collect();
            let skipped = answers.len() as u64 - enqueued;
            let (waiting, failed_before) = known(&answers);
            SyncTaken::All { enqueued, skipped, waiting, failed_before, failed }
        }
        LinesTaken::Full { room } => SyncTaken::Full { room },
        LinesTaken::Elsewhere { line } => SyncTaken::Elsewhere { line },
        LinesTaken::NotRunning(state) => SyncTaken::NotRunning { state },
        LinesTaken::TakenOver => SyncTaken::TakenOver,
        LinesTaken::NeedDigests(_) => return Err(Refusal::failed("the files change while they are read; try again")),
    })
}

/// Lines whose jobs were made before: how many of these are not over, and how many did not end well.
fn known(answers: &[Enqueued]) -> (u64, u64) {
    let (mut waiting, mut failed) = (0, 0);
    for answer in answers {
        match answer {
            Enqueued::Known { state: StateName::Pending | StateName::Running | StateName::Retrying, .. } => {
                waiting += 1;
            }
            Enqueued::Known { state: StateName::Failed | StateName::Cancelled, .. } => failed += 1,
            _ => {}
        }
    }
    (waiting, failed)
}

pub(in crate::control) async fn missing(run: RunId, holder: Holder, hands: &Hands) -> Result<SyncMissing, Refusal> {
    Ok(match hands.stores.lists.delete_missing(run, holder, MISSING).await? {
        MissingStep::More(deletes) => SyncMissing::More { deletes },
        MissingStep::Over => SyncMissing::Over,
        MissingStep::NotRunning(state) => SyncMissing::NotRunning { state },
        MissingStep::TakenOver => SyncMissing::TakenOver,
    })
}

pub(in crate::control) async fn end(run: RunId, holder: Holder, hands: &Hands) -> Result<bool, Refusal> {
    Ok(hands.stores.lists.end_input(run, holder).await?)
}

impl From<NotTaken> for Refusal {
    fn from(error: NotTaken) -> Self {
        match error {
            NotTaken::Store(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

/// The batch as intake takes it. Lines that only look well have a problem as those that do not.
fn batch(lines: SyncLines) -> ListBatch {
    let mut batch = ListBatch {
        run: lines.run,
        holder: lines.holder,
        after: lines.after,
        read: lines.read,
        count: lines.count,
        lines: Vec::with_capacity(lines.entries.len()),
        problems: lines.troubles.into_iter().map(bad).collect(),
        changesets: Vec::new(),
        rate_per_s: lines.rate_per_s,
        more_worked: lines.more_worked,
    };
    for Entry { line, text, asks } in lines.entries {
        match asks {
            Asks::Work(work) => batch.lines.push(ListLine { line, text, work }),
            Asks::Changeset { repo, changeset } => match serde_json::from_str::<serde::de::IgnoredAny>(&changeset) {
                Ok(_) => batch.changesets.push(Changeset { line, repo, changeset }),
                Err(error) => {
                    let message = format!("the changeset is not JSON: {error}");
                    batch.problems.push(bad(Trouble { line, text, message }));
                }
            },
        }
    }
    batch
}

fn bad(trouble: Trouble) -> LineProblem {
    let Trouble { line, text, message } = trouble;
    LineProblem { line, bad: true, path: None, op: None, repo: None, text: text.into_bytes(), message }
}

fn told(problem: LineProblem) -> Trouble {
    let text = String::from_utf8_lossy(&problem.text).into_owned();
    Trouble { line: problem.line, text, message: problem.message }
}
