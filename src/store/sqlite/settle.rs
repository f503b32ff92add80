//! The end of an execution, guarded by job, state and fence.
//!
//! 1. A job is never tried again once a newer version came: what would be another try becomes `skipped`. Only a file
//!    on its way is brought to its end first.
//! 2. The history is written for those whose lease still stands, and so counts them; only where some are missing is it
//!    asked which. The others are *lease lost*.
//! 3. States, output, what is known of the content, and the release of the newer version are written
//!    as a handful of set-based statements.
//!
//! Two ends of one source are written one after the other, so that the second sees what the first left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::error::Result;
use super::super::lease::Place;
use super::super::queue::{Content, Settled, Settlement};
use super::bulk::{Bulk, Values};
use super::tally::{End, Tally};
use super::wire;
use crate::clock::{Clock, Timestamp, millis};
use crate::job::{Digest, JobId, SkipReason, StateName, Verdict};

/// Writes ends of executions.
#[derive(Debug)]
pub(super) struct Ends {
    clock: Arc<dyn Clock>,
}

/// A row of the update and one of the history: the job's new facts.
#[derive(Default)]
struct JobEnd<'a> {
    id: i64,
    fence: i64,
    state: &'static str,
    run_at: Option<i64>,
    ended_at: i64,
    finished_at: Option<i64>,
    spent: bool,
    deferred: bool,
    reason: Option<&'static str>,
    superseded_by: Option<i64>,
    size: Option<i64>,
    digest: Option<Digest>,
    clear_error: bool,
    error_kind: Option<&'static str>,
    error_message: Option<&'a str>,
    error_permanent: Option<bool>,
    outcome: &'static str,
    duration_ms: i64,
    code: Option<i32>,
}

/// The newest versions, where they are others than those that end.
static SUCCESSORS: Bulk = Bulk::new(include_str!("sql/successors.sql"), 3);
static INSERT_ATTEMPTS: Bulk = Bulk::new(include_str!("sql/insert_attempts.sql"), 9);
static STANDING: Bulk = Bulk::new(include_str!("sql/standing.sql"), 3);
static KEEP_OUTPUTS: Bulk = Bulk::new(include_str!("sql/keep_outputs.sql"), 2);
static NOTE_CONTENT: Bulk = Bulk::new(include_str!("sql/note_content.sql"), 8);
static DIVIDE_VERSIONS: Bulk = Bulk::new(include_str!("sql/divide_versions.sql"), 9);
static TAKE_DIVIDED: Bulk = Bulk::new(include_str!("sql/take_divided.sql"), 2);
static NOTE_OTHER_FILE: Bulk = Bulk::new(include_str!("sql/note_other_file.sql"), 8);
static REMEMBER_CONTENTS: Bulk = Bulk::new(include_str!("sql/remember_contents.sql"), 4);
static MARK_DUPLICATES: Bulk = Bulk::new(include_str!("sql/mark_duplicates.sql"), 2);
static LOOK_ANEW: Bulk = Bulk::new(include_str!("sql/look_anew.sql"), 2);
static END_JOBS: Bulk = Bulk::new(include_str!("sql/end_jobs.sql"), 15);
static UNBLOCK: Bulk = Bulk::new(include_str!("sql/unblock.sql"), 2);
/// A file that could not be moved yet keeps its intent: the next attempt goes on there.
static FORGET_INTENTS: Bulk = Bulk::new("DELETE FROM dispositions WHERE job IN (ROWS) RETURNING effect", 1);
/// The steps that files on their way were are done.
static DONE_EFFECTS: Bulk = Bulk::new(include_str!("sql/done_effects.sql"), 2);

/// Everything that a settle may run.
#[cfg(test)]
pub(super) static STATEMENTS: [&Bulk; 15] = [
    &SUCCESSORS,
    &INSERT_ATTEMPTS,
    &STANDING,
    &KEEP_OUTPUTS,
    &NOTE_CONTENT,
    &DIVIDE_VERSIONS,
    &TAKE_DIVIDED,
    &NOTE_OTHER_FILE,
    &REMEMBER_CONTENTS,
    &MARK_DUPLICATES,
    &LOOK_ANEW,
    &END_JOBS,
    &UNBLOCK,
    &FORGET_INTENTS,
    &DONE_EFFECTS,
];

impl Ends {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    pub(super) async fn write<'a>(
        &self,
        tx: &mut SqliteConnection,
        ends: impl Iterator<Item = &'a Settlement> + Send,
        tally: &mut Tally,
    ) -> Result<Vec<Settled>> {
        let ends: Vec<&Settlement> = ends.collect();
        let mut answers = vec![Settled::LeaseLost; ends.len()];
        for round in rounds(&ends) {
            let of_round: Vec<&Settlement> = round.iter().map(|&at| ends[at]).collect();
            for (at, answer) in round.into_iter().zip(self.write_round(tx, &of_round, tally).await?) {
                answers[at] = answer;
            }
        }
        Ok(answers)
    }

    async fn write_round(
        &self,
        tx: &mut SqliteConnection,
        ends: &[&Settlement],
        tally: &mut Tally,
    ) -> Result<Vec<Settled>> {
        let now = self.clock.now();
        let successors = successors(tx, ends).await?;
        let rows: Vec<JobEnd<'_>> = ends.iter().map(|end| job_end(end, &successors, now)).collect();
        // The history first: it reads what the execution was before the job moves on, and counts the leases that stand.
        let written = INSERT_ATTEMPTS.execute(tx, &[], &rows, JobEnd::bind_attempt).await?;
        let stands = if usize::try_from(written) == Ok(rows.len()) {
            vec![true; rows.len()]
        } else {
            standing(tx, &rows).await?
        };
        let mut effects = Effects::default();
        let mut answers = Vec::with_capacity(ends.len());
        for ((&end, row), stands) in ends.iter().zip(rows).zip(stands) {
            answers.push(if stands {
                Settled::As(effects.add(end, row, successors.contains_key(&end.lease.job().0), now, tally))
            } else {
                Settled::LeaseLost
            });
        }
        effects.write(tx).await?;
        Ok(answers)
    }
}

/// The places of the ends in rounds in which each source has one end at most.
fn rounds(ends: &[&Settlement]) -> Vec<Vec<usize>> {
    let mut left: Vec<usize> = (0..ends.len()).collect();
    let mut rounds = Vec::new();
    while !left.is_empty() {
        let mut sources = BTreeSet::new();
        let (round, later) = left.into_iter().partition(|&at| sources.insert(ends[at].lease.place().source));
        rounds.push(round);
        left = later;
    }
    rounds
}

/// The newest version of an execution's source, where that is another job.
#[derive(Clone, Copy)]
struct Successor {
    id: i64,
    /// The file of the execution that ends is on its way.
    moving: bool,
}

/// By job, the newer version.
async fn successors(tx: &mut SqliteConnection, ends: &[&Settlement]) -> Result<BTreeMap<i64, Successor>> {
    let rows = SUCCESSORS
        .fetch(tx, ends, |values, end| {
            let place = end.lease.place();
            values.push(end.lease.job().0).push(place.source).push(place.pipeline);
        })
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, Successor { id: row.try_get(1)?, moving: row.try_get(2)? }))).collect()
}

/// Which of the leases still stand.
async fn standing(tx: &mut SqliteConnection, rows: &[JobEnd<'_>]) -> Result<Vec<bool>> {
    let asked: Vec<_> = rows.iter().enumerate().map(|(at, row)| (wire::count(at), row.id, row.fence)).collect();
    let found = STANDING
        .fetch(tx, &asked, |values, (at, id, fence)| {
            values.push(*at).push(*id).push(*fence);
        })
        .await?;
    let mut stands = vec![false; rows.len()];
    for row in found {
        let at = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
        if let Some(stands) = stands.get_mut(at) {
            *stands = true;
        }
    }
    Ok(stands)
}

/// What a transaction writes about the ends beside the history.
#[derive(Default)]
struct Effects<'a> {
    jobs: Vec<JobEnd<'a>>,
    contents: Vec<Worked>,
    /// Pipeline, source and job of contents that are completed, to be found again.
    remembered: Vec<(Place, i64, Digest)>,
    duplicates: Vec<(i64, i64)>,
    /// Sources whose file was not there, with the job.
    missed: Vec<(i64, i64)>,
    outputs: Vec<(i64, &'a [u8])>,
    unblocked: Vec<(i64, Option<Digest>)>,
}

impl<'a> Effects<'a> {
    fn add(
        &mut self,
        end: &'a Settlement,
        row: JobEnd<'a>,
        newer: bool,
        now: Timestamp,
        tally: &mut Tally,
    ) -> StateName {
        let (id, place) = (end.lease.job().0, end.lease.place());
        let state = if row.reason.is_some() { StateName::Skipped } else { state_after(&end.verdict) };
        if let Some(content) = end.content {
            self.contents.push(Worked {
                place,
                job: id,
                content,
                over: row.finished_at.is_some(),
                completed: end.verdict == Verdict::Complete,
            });
            if end.remember && end.verdict == Verdict::Complete {
                self.remembered.push((place, id, content.digest));
            }
        }
        if let Verdict::Skip(SkipReason::Duplicate { of }) = end.verdict {
            self.duplicates.push((id, of.0));
        }
        if end.verdict.missed_its_file() {
            self.missed.push((place.source, id));
        }
        if !end.output.is_empty() {
            self.outputs.push((id, &end.output));
        }
        if newer && row.finished_at.is_some() {
            let completed = end.content.filter(|_| end.verdict == Verdict::Complete);
            self.unblocked.push((id, completed.map(|content| content.digest)));
            tally.unblocked();
        }
        tally.moved(place.pipeline, place.priority, StateName::Running, state);
        tally.of_run(place.run, Some(StateName::Running), state);
        let how = match &end.verdict {
            Verdict::Complete => Some(End::Completed),
            Verdict::Fail { .. } => Some(End::Failed),
            Verdict::Retry { .. } => Some(End::Retried),
            _ => None,
        };
        if let Some(how) = how {
            tally.ended(place.pipeline, now, how, row.duration_ms);
        }
        self.jobs.push(row);
        state
    }

    async fn write(&self, tx: &mut SqliteConnection) -> Result<()> {
        KEEP_OUTPUTS
            .execute(tx, &[], &self.outputs, |values, (id, output)| {
                values.push(*id).push(*output);
            })
            .await?;
        let known = NOTE_CONTENT.execute(tx, &[], &self.contents, |values, worked| worked.bind(values)).await?;
        if usize::try_from(known) != Ok(self.contents.len()) {
            self.note_other_files(tx).await?;
        }
        REMEMBER_CONTENTS
            .execute(tx, &[], &self.remembered, |values, (place, job, digest)| {
                values.push(place.pipeline).push(wire::digest_column(Some(*digest))).push(place.source).push(*job);
            })
            .await?;
        LOOK_ANEW
            .execute(tx, &[], &self.missed, |values, (source, id)| {
                values.push(*source).push(*id);
            })
            .await?;
        END_JOBS.execute(tx, &[], &self.jobs, JobEnd::bind_job).await?;
        MARK_DUPLICATES
            .execute(tx, &[], &self.duplicates, |values, (job, original)| {
                values.push(*job).push(*original);
            })
            .await?;
        let over: Vec<i64> = self.jobs.iter().filter(|job| job.finished_at.is_some()).map(|job| job.id).collect();
        let arrived = FORGET_INTENTS
            .fetch(tx, &over, |values, id| {
                values.push(*id);
            })
            .await?;
        if !arrived.is_empty() {
            self.arrived(tx, &arrived).await?;
        }
        UNBLOCK
            .execute(tx, &[], &self.unblocked, |values, (id, digest)| {
                values.push(*id).push(wire::digest_column(*digest));
            })
            .await?;
        Ok(())
    }
}

impl Effects<'_> {
    /// Notes contents that may not be what their versions were known to be.
    async fn note_other_files(&self, tx: &mut SqliteConnection) -> Result<()> {
        let divided = DIVIDE_VERSIONS.fetch(tx, &self.contents, Worked::bind_with_end).await?;
        let divided = divided.iter().map(|row| row.try_get(0)).collect::<Result<BTreeSet<i64>, _>>()?;
        let (divided, others): (Vec<_>, Vec<_>) =
            self.contents.iter().partition(|worked| divided.contains(&worked.place.source));
        let completed: Vec<_> = divided.into_iter().filter(|worked| worked.completed).collect();
        TAKE_DIVIDED
            .execute(tx, &[], &completed, |values, worked| {
                values.push(worked.place.source).push(worked.place.pipeline);
            })
            .await?;
        NOTE_OTHER_FILE.execute(tx, &[], &others, |values, worked| worked.bind(values)).await?;
        Ok(())
    }

    /// Files that were on their way are where they belong.
    async fn arrived(&self, tx: &mut SqliteConnection, rows: &[SqliteRow]) -> Result<()> {
        let at = self.jobs.iter().map(|job| job.ended_at).max().unwrap_or_default();
        let effects = rows.iter().map(|row| Ok((row.try_get::<Option<i64>, _>(0)?, at)));
        let effects: Vec<(Option<i64>, i64)> = effects.collect::<Result<_>>()?;
        DONE_EFFECTS
            .execute(tx, &[], &effects, |values, (effect, at)| {
                values.push(*effect).push(*at);
            })
            .await?;
        Ok(())
    }
}

/// What an execution worked on.
struct Worked {
    place: Place,
    job: i64,
    content: Content,
    /// Its job is not tried again.
    over: bool,
    completed: bool,
}

impl Worked {
    fn bind(&self, values: &mut Values) {
        values.push(self.place.source).push(self.job);
        for column in wire::identity_columns(&self.content.identity) {
            values.push(column);
        }
        values.push(wire::digest_column(Some(self.content.digest)));
    }

    fn bind_with_end(values: &mut Values, worked: &Self) {
        worked.bind(values);
        values.push(worked.over);
    }
}

impl JobEnd<'_> {
    fn bind_attempt(values: &mut Values, end: &Self) {
        values.push(end.id).push(end.fence).push(end.outcome).push(end.spent).push(end.ended_at);
        values.push(end.duration_ms).push(end.code).push(end.error_kind).push(end.error_message);
    }

    fn bind_job(values: &mut Values, end: &Self) {
        values.push(end.id).push(end.fence).push(end.state).push(end.run_at).push(end.finished_at);
        values.push(end.spent).push(end.deferred).push(end.reason).push(end.superseded_by).push(end.size);
        values.push(wire::digest_column(end.digest)).push(end.clear_error).push(end.error_kind);
        values.push(end.error_message).push(end.error_permanent);
    }
}

const fn state_after(verdict: &Verdict) -> StateName {
    match verdict {
        Verdict::Complete => StateName::Completed,
        Verdict::Retry { .. } => StateName::Retrying,
        Verdict::Fail { .. } => StateName::Failed,
        Verdict::Defer { .. } | Verdict::Release => StateName::Pending,
        Verdict::Cancel => StateName::Cancelled,
        Verdict::Skip(_) => StateName::Skipped,
    }
}

/// The job's new facts, as the verdict has them; where a newer version came, there is no other try.
fn job_end<'a>(end: &'a Settlement, successors: &BTreeMap<i64, Successor>, now: Timestamp) -> JobEnd<'a> {
    let state = state_after(&end.verdict);
    let error = end.verdict.error();
    let mut row = JobEnd {
        id: end.lease.job().0,
        fence: end.lease.fence().0,
        state: state.as_str(),
        ended_at: end.finished_at.as_millis(),
        finished_at: state.is_final().then_some(end.finished_at.as_millis()),
        spent: end.verdict.spends(),
        deferred: matches!(end.verdict, Verdict::Defer { .. }),
        size: end.content.map(|content| content.identity.size.cast_signed()),
        digest: end.content.map(|content| content.digest),
        clear_error: end.verdict == Verdict::Complete,
        error_kind: error.map(|error| error.kind.as_str()),
        error_message: error.map(|error| error.message.as_str()),
        error_permanent: error.map(|error| error.permanent),
        outcome: end.verdict.as_str(),
        duration_ms: millis(end.duration),
        code: end.code,
        ..JobEnd::default()
    };
    match &end.verdict {
        Verdict::Retry { run_at, .. } | Verdict::Defer { run_at, .. } => {
            // An end that lies ahead was dated before the clock was set back, and so was what comes after it.
            let back_ms = end.finished_at.as_millis().saturating_sub(now.as_millis()).max(0);
            row.run_at = Some(run_at.as_millis().saturating_sub(back_ms));
        }
        Verdict::Skip(reason) => {
            row.reason = Some(reason.as_str());
            if let SkipReason::Superseded { by: JobId(by) } = reason {
                row.superseded_by = Some(*by);
            }
        }
        _ => {}
    }
    if let (Some(successor), None) = (successors.get(&row.id).filter(|newer| !newer.moving), row.finished_at) {
        row.state = StateName::Skipped.as_str();
        (row.run_at, row.finished_at) = (None, Some(row.ended_at));
        (row.reason, row.superseded_by) = (Some("superseded"), Some(successor.id));
    }
    row
}
