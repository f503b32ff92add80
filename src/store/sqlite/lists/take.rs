//! Lines are taken: their jobs, what is wrong with them, and the checkpoint, in one transaction.

use std::collections::HashMap;
use std::path::Path;

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::super::error::{Result, StoreError};
use super::super::super::lists::{Changeset, Holder, LineProblem, Lines, Taken};
use super::super::super::queue::{Enqueued, NewJob};
use super::super::bulk::Bulk;
use super::super::enqueue::{Decided, Intake, Naming, parse};
use super::super::tally::Tally;
use super::super::wire;
use super::missing;
use crate::clock::{Timestamp, millis};
use crate::job::{Op, SourceKey, StateName};
use crate::run::{RunId, RunState};

static INSERT_PROBLEMS: Bulk = Bulk::new(
    "INSERT INTO run_lines (run, line, kind, path, op, repo, text, message)
     SELECT shared.run, v.* FROM (SELECT ? AS run) AS shared CROSS JOIN (ROWS) AS v WHERE v.column1 IS NOT NULL
     ON CONFLICT DO NOTHING",
    7,
);
static INSERT_CHANGESETS: Bulk = Bulk::new(
    "INSERT INTO run_changesets (run, line, repo, changeset)
     SELECT shared.run, v.* FROM (SELECT ? AS run) AS shared CROSS JOIN (ROWS) AS v WHERE v.column1 IS NOT NULL
     ON CONFLICT DO NOTHING",
    3,
);

/// ?1: the run, ?2: the line, ?3: bytes, ?4: their digest, ?5: lines that say something, ?6: more jobs, ?7: more lines
/// without one, ?8: of them duplicates, ?9: bad lines, ?10: failed ones, ?11: where it is, ?12: lines per second, ?13: more
/// time at work, ?14: what went wrong last, ?15: now.
const CHECKPOINT: &str = "
    UPDATE runs SET position = ?2, input_bytes = ?3, input_digest = ?4, processed = processed + ?5, batch = batch + 1,
        enqueued = enqueued + ?6, skipped = skipped + ?7, duplicates = duplicates + ?8, bad_lines = bad_lines + ?9,
        failed_lines = failed_lines + ?10, current_path = coalesce(?11, current_path), rate_per_s = ?12,
        duration_ms = duration_ms + ?13, last_error = coalesce(?14, last_error), updated_at = ?15
    WHERE id = ?1";

/// A run as its reader finds it.
pub(super) struct Reading {
    pub(super) list: i64,
    pub(super) position: u64,
    pub(super) dry_run: bool,
    pub(super) delete_missing: bool,
    pub(super) pipeline: String,
    /// Lines so far that say something, and those that can't be understood.
    pub(super) processed: u64,
    pub(super) bad_lines: u64,
}

/// Why somebody may not go on reading a run.
pub(super) enum Halt {
    NotRunning(RunState),
    TakenOver,
}

/// The run, if this reader may go on.
pub(super) async fn reading(
    tx: &mut SqliteConnection,
    id: RunId,
    holder: &Holder,
) -> Result<std::result::Result<Reading, Halt>> {
    let sql = "SELECT list, position, dry_run, delete_missing, pipeline, processed, bad_lines, state, reading, holder
               FROM runs WHERE id = ?1 AND list IS NOT NULL";
    let Some(row) = sqlx::query(sql).bind(id.0).fetch_optional(tx).await? else {
        return Err(StoreError::Refused(format!("there is no run {id} over a list")));
    };
    let state: RunState = parse(row.try_get("state")?)?;
    if row.try_get::<Option<&str>, _>("holder")? != Some(&holder.0) && !state.is_final() {
        return Ok(Err(Halt::TakenOver));
    }
    if state != RunState::Running || !row.try_get::<bool, _>("reading")? {
        return Ok(Err(Halt::NotRunning(state)));
    }
    let number = |column| row.try_get::<i64, _>(column).map(|n| u64::try_from(n).unwrap_or(0));
    Ok(Ok(Reading {
        list: row.try_get("list")?,
        position: number("position")?,
        dry_run: row.try_get("dry_run")?,
        delete_missing: row.try_get("delete_missing")?,
        pipeline: row.try_get("pipeline")?,
        processed: number("processed")?,
        bad_lines: number("bad_lines")?,
    }))
}

pub(super) async fn take(
    tx: &mut SqliteConnection,
    lines: &Lines,
    intake: &Intake,
    limit: Option<u64>,
    now: Timestamp,
    tally: &mut Tally,
) -> Result<Taken> {
    let run = match reading(tx, lines.run, &lines.holder).await? {
        Ok(run) => run,
        Err(Halt::NotRunning(state)) => return Ok(Taken::NotRunning(state)),
        Err(Halt::TakenOver) => return Ok(Taken::TakenOver),
    };
    if run.position != lines.after {
        return Ok(Taken::Elsewhere { line: run.position });
    }
    let naming = Naming { list: run.list, run: lines.run.0 };
    let (kept, repeats) = apart(&lines.jobs);
    let decided = if run.dry_run {
        try_out(tx, &kept, naming, intake).await?
    } else {
        intake.write_lines(tx, &kept, naming, limit, tally).await?
    };
    let (answers, duplicates) = match decided {
        Decided::All { answers, duplicates, named } => {
            if run.dry_run && run.delete_missing {
                missing::spare(tx, naming, &named).await?;
            }
            (answers, duplicates)
        }
        Decided::NeedDigests(of) => return Ok(Taken::NeedDigests(in_batch(&of, &repeats))),
        Decided::Full { room } => return Ok(Taken::Full { room }),
    };
    let answers = with_repeats(&answers, &repeats);
    let duplicates = duplicates + u64::try_from(lines.jobs.len() - kept.len()).unwrap_or(u64::MAX);
    note(tx, lines).await?;
    checkpoint(tx, lines, &answers, duplicates, now).await?;
    Ok(Taken::All(answers))
}

/// What the jobs would be: nothing of it stays.
async fn try_out(tx: &mut SqliteConnection, jobs: &[&NewJob], naming: Naming, intake: &Intake) -> Result<Decided> {
    sqlx::query("SAVEPOINT trial").execute(&mut *tx).await?;
    let decided = intake.write_lines(tx, jobs, naming, None, &mut Tally::default()).await?;
    sqlx::query("ROLLBACK TO trial").execute(&mut *tx).await?;
    sqlx::query("RELEASE trial").execute(tx).await?;
    Ok(decided)
}

/// Where the job of each line is among those that are kept, and whether it repeats that one.
type Repeats = Vec<(usize, bool)>;

/// Leaves out lines that say what the line of their source before them says, so that each needs no look of its own.
fn apart(jobs: &[NewJob]) -> (Vec<&NewJob>, Repeats) {
    let mut kept: Vec<&NewJob> = Vec::with_capacity(jobs.len());
    let mut newest: HashMap<(Name<'_>, &str), usize> = HashMap::with_capacity(jobs.len());
    let mut places = Vec::with_capacity(jobs.len());
    for job in jobs {
        let key = (Name::of(&job.source), job.pipeline.as_str());
        match newest.get(&key) {
            Some(&at) if kept.get(at).is_some_and(|before| says_the_same(before, job)) => places.push((at, true)),
            _ => {
                newest.insert(key, kept.len());
                places.push((kept.len(), false));
                kept.push(job);
            }
        }
    }
    (kept, places)
}

/// What makes two lines be about one source: under a key of the caller's, the path says nothing.
#[derive(PartialEq, Eq, Hash)]
enum Name<'a> {
    Key(&'a str),
    Path(&'a Path),
}

impl<'a> Name<'a> {
    fn of(source: &'a SourceKey) -> Self {
        match source {
            SourceKey::Keyed { key, .. } => Self::Key(key),
            SourceKey::Path(path) | SourceKey::Watched { relative: path, .. } => Self::Path(path),
        }
    }
}

fn says_the_same(one: &NewJob, other: &NewJob) -> bool {
    let said = |job: &NewJob| job.listed.as_ref().map(|listed| (listed.op, listed.content.clone()));
    let plain = one.listed.as_ref().is_none_or(|listed| listed.content.is_none());
    plain && one.identity == other.identity && one.note_only == other.note_only && said(one) == said(other)
}

fn with_repeats(answers: &[Enqueued], repeats: &Repeats) -> Vec<Enqueued> {
    let answer = |&(at, repeats): &(usize, bool)| match answers.get(at).copied() {
        Some(Enqueued::New { id, .. }) if repeats => Enqueued::Known { id, state: StateName::Pending },
        Some(answer) => answer,
        None => Enqueued::Unchanged,
    };
    repeats.iter().map(answer).collect()
}

/// The places in the batch of jobs that were kept, for those of its lines that need a digest.
fn in_batch(kept: &[usize], repeats: &Repeats) -> Vec<usize> {
    let asked = |(place, (at, _)): (usize, &(usize, bool))| kept.binary_search(at).is_ok().then_some(place);
    repeats.iter().enumerate().filter_map(asked).collect()
}

/// What became no job.
async fn note(tx: &mut SqliteConnection, lines: &Lines) -> Result<()> {
    INSERT_PROBLEMS
        .execute(tx, &[lines.run.0], &lines.problems, |values, problem: &LineProblem| {
            values.push(wire::number(problem.line)).push(if problem.bad { "bad" } else { "failed" });
            values.push(problem.path.as_deref().map(wire::path_bytes)).push(problem.op.map(Op::as_str));
            values.push(problem.repo.as_deref()).push(problem.text.as_slice()).push(problem.message.as_str());
        })
        .await?;
    INSERT_CHANGESETS
        .execute(tx, &[lines.run.0], &lines.changesets, |values, record: &Changeset| {
            values.push(wire::number(record.line)).push(record.repo.as_deref()).push(record.changeset.as_str());
        })
        .await?;
    Ok(())
}

async fn checkpoint(
    tx: &mut SqliteConnection,
    lines: &Lines,
    answers: &[Enqueued],
    duplicates: u64,
    now: Timestamp,
) -> Result<()> {
    let new = answers.iter().filter(|answer| matches!(answer, Enqueued::New { .. })).count();
    let bad = lines.problems.iter().filter(|problem| problem.bad).count();
    sqlx::query(CHECKPOINT)
        .bind(lines.run.0)
        .bind(wire::number(lines.read.lines))
        .bind(wire::number(lines.read.bytes))
        .bind(lines.read.digest.map(|digest| digest.to_vec()))
        .bind(wire::number(lines.count))
        .bind(wire::count(new))
        .bind(wire::count(answers.len() - new))
        .bind(wire::number(duplicates))
        .bind(wire::count(bad))
        .bind(wire::count(lines.problems.len() - bad))
        .bind(lines.current_path.as_deref().map(wire::path_bytes))
        .bind(lines.rate_per_s)
        .bind(millis(lines.more_worked))
        .bind(lines.problems.last().map(|problem| format!("line {}: {}", problem.line, problem.message)))
        .bind(now.as_millis())
        .execute(tx)
        .await?;
    Ok(())
}
