//! A file that has another name: the source gets it, and keeps its number, its digest and its jobs.
//!
//! 1. [`recognise`] is pure: it is the same file if device, inode, size and modification time are, and the digest where
//!    one is known, and no other pipeline has work on it. The caller has seen that there is nothing under the old name.
//! 2. [`follow_up`] is pure too. A job that was never started goes along with its source. One that was gives way to a
//!    job under the new name. Where nothing waits, processors are told by a job, if they shall be.
//! 3. Jobs of the past keep the name under which they ran.
//! 4. Under the old name a source stays behind that holds nothing but the version: so no name ever has one version
//!    twice, and no idempotency key stands for two contents. If a source of the past has the new name, it is that one.

use sqlx::sqlite::SqliteConnection;

use super::super::super::error::Result;
use super::super::super::queue::{NewJob, Renamed};
use super::super::bulk::Bulk;
use super::Asked;
use super::known::{Known, Taken, TakenRow};
use super::rows::SourceRow;
use crate::job::Op;

/// Whether a file under a new name is the known one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recognised<'k> {
    /// It is another file.
    No,
    /// Only the content can tell.
    TakeDigest,
    /// It is.
    Yes(&'k Known),
}

/// What becomes of the work on a file that has another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FollowUp<'k> {
    /// It is done, or was given up.
    Nothing,
    /// Its job waits, and goes along.
    Along,
    /// There is a new job, which takes the place of the one that waits, if one does.
    Job { op: Op, moved_from: Option<&'k [u8]> },
}

/// Compares what was seen under a name that is new, or where nothing was any more (`to`), with what is known under the
/// old name. `used`: the highest version that the new name ever had.
pub(super) fn recognise<'k>(new: &NewJob, to: Option<&Known>, from: Option<&'k Known>, used: i64) -> Recognised<'k> {
    let (Some(renamed), Some(from)) = (&new.renamed, from) else { return Recognised::No };
    let newest = from.taken.as_ref().and_then(|taken| taken.row.as_ref());
    let deleted = newest.is_some_and(|job| job.op == Op::Delete);
    let another = from.consumed || from.elsewhere || deleted || !from.identity.same_but_for_ctime(&new.identity);
    if another || to.is_some_and(is_in_use) || (!renamed.told && can_not_go_along(newest, used)) {
        return Recognised::No;
    }
    match (from.current_digest(), new.digest) {
        (None, _) if from.present => Recognised::Yes(from),
        (Some(_), None) => Recognised::TakeDigest,
        (Some(old), Some(new)) if old == new => Recognised::Yes(from),
        _ => Recognised::No,
    }
}

/// Whether something is known to be under the name, or a job of what was there has not come to its end: then its own
/// versions go on.
fn is_in_use(to: &Known) -> bool {
    let newest = to.taken.as_ref().and_then(|taken| taken.row.as_ref());
    to.present
        || to.moving.is_some()
        || to.in_the_way.is_some()
        || to.elsewhere
        || newest.is_some_and(|job| !job.state.is_final())
}

/// Whether the newest job may be retried by a person, but not under the new name, which had its version before.
fn can_not_go_along(newest: Option<&TakenRow>, used: i64) -> bool {
    newest.is_some_and(|job| job.may_be_reopened() && job.version <= used)
}

/// What follows for the work. `used`: the highest version that the new name ever had.
pub(super) fn follow_up<'k>(new: &NewJob, renamed: &'k Renamed, from: &'k Known, used: i64) -> FollowUp<'k> {
    let tell = renamed.told || new.force;
    let old_name = super::super::wire::path_bytes(&renamed.from);
    let Some(Taken { row, started, .. }) = &from.taken else {
        return if new.note_only { FollowUp::Nothing } else { FollowUp::Job { op: Op::Add, moved_from: None } };
    };
    let handed = row.as_ref().is_some_and(TakenRow::was_handed_over);
    match row {
        Some(job) if job.state.is_waiting() && job.executions == 0 && from.moving.is_none() && job.version > used => {
            FollowUp::Along
        }
        Some(job) if !job.state.is_final() || job.vanished => match (tell && (*started || handed), handed) {
            (true, true) => FollowUp::Job { op: Op::Modify, moved_from: Some(old_name) },
            (true, false) => {
                FollowUp::Job { op: Op::Modify, moved_from: Some(job.moved_from.as_deref().unwrap_or(old_name)) }
            }
            (false, _) => FollowUp::Job { op: job.op, moved_from: job.moved_from.as_deref() },
        },
        _ if tell && (*started || handed) => FollowUp::Job { op: Op::Modify, moved_from: Some(old_name) },
        _ if tell && !new.note_only => FollowUp::Job { op: Op::Add, moved_from: None },
        _ => FollowUp::Nothing,
    }
}

/// The rows that renames write.
#[derive(Default)]
pub(super) struct Moves<'a> {
    /// Sources with the names that their jobs keep, the one that goes along, and whether otherwise all do.
    frozen: Vec<(i64, &'a [u8], Option<i64>, bool)>,
    /// Sources of the past, with the names that they are given.
    swapped: Vec<(i64, &'a [u8])>,
    named: Vec<(i64, &'a [u8])>,
    /// What stays behind: new sources, and of all of them the number, that of the source that left, the version.
    left: Vec<SourceRow<'a>>,
    left_behind: Vec<(i64, i64, i64)>,
    /// Sources whose version has another number, before and after.
    lifted: Vec<(i64, i64, i64)>,
    told: Vec<(i64, Vec<u8>)>,
}

/// A source under its new name.
pub(super) struct Move<'p> {
    pub(super) from: &'p Known,
    pub(super) to: Option<&'p Known>,
    /// The number of what stays behind, unless `to` is known.
    pub(super) left: i64,
    pub(super) version: i64,
    pub(super) follow_up: FollowUp<'p>,
}

impl<'a> Moves<'a> {
    /// The source of `asked` has the asked name from now on.
    pub(super) fn add(&mut self, asked: &Asked<'a>, old_name: &'a [u8], moved: &Move<'_>) {
        let (from, new_name) = (moved.from, asked.key.identity);
        let taken = from.taken.as_ref();
        let along = taken.filter(|taken| taken.row.as_ref().is_some_and(TakenRow::may_be_reopened));
        let along = along.filter(|_| moved.follow_up == FollowUp::Nothing).map(|taken| taken.job.0);
        self.frozen.push((from.source, old_name, along, false));
        self.named.push((from.source, new_name));
        let left = match moved.to {
            Some(to) => {
                self.frozen.push((to.source, new_name, None, true));
                self.swapped.push((to.source, old_name));
                to.source
            }
            None => {
                self.left.push(SourceRow::empty(moved.left, asked.key.scope, old_name, from.version));
                moved.left
            }
        };
        let version = moved.to.map_or(0, |to| to.version).max(from.version);
        self.left_behind.push((left, from.source, version));
        if moved.follow_up == FollowUp::Nothing && moved.version != from.version {
            self.lifted.push((from.source, from.version, moved.version));
        }
    }

    /// The job's processor is told of the name that it knows.
    pub(super) fn tell(&mut self, job: i64, name: &[u8]) {
        self.told.push((job, name.to_vec()));
    }

    /// Gives the names. Every statement finds the tables as they were before, but for what is superseded.
    pub(super) async fn write(&self, tx: &mut SqliteConnection, now: i64) -> Result<()> {
        if self.named.is_empty() {
            return Ok(());
        }
        FREEZE_NAMES
            .execute(tx, &[], &self.frozen, |values, (source, name, along, all)| {
                values.push(*source).push(*name).push(*along).push(*all);
            })
            .await?;
        CLEAR_NAMES
            .execute(tx, &[], &self.swapped, |values, (source, _)| {
                values.push(*source);
            })
            .await?;
        for names in [&self.named, &self.swapped] {
            NAME_SOURCES
                .execute(tx, &[], names, |values, (source, name)| {
                    values.push(*source).push(*name);
                })
                .await?;
        }
        super::rows::INSERT_SOURCES.execute(tx, &[], &self.left, SourceRow::bind_new).await?;
        LEAVE_NAMES
            .execute(tx, &[], &self.left_behind, |values, (left, _, version)| {
                values.push(now).push(*left).push(*version);
            })
            .await?;
        LEAVE_TAKEN
            .execute(tx, &[], &self.left_behind, |values, (left, from, version)| {
                values.push(*left).push(*from).push(*version);
            })
            .await?;
        LIFT_TAKEN
            .execute(tx, &[], &self.lifted, |values, (source, before, version)| {
                values.push(*source).push(*before).push(*version);
            })
            .await?;
        Ok(())
    }

    /// After the jobs were written.
    pub(super) async fn write_told(&self, tx: &mut SqliteConnection) -> Result<()> {
        NOTE_MOVES
            .execute(tx, &[], &self.told, |values, (job, name)| {
                values.push(*job).push(name.as_slice());
            })
            .await?;
        Ok(())
    }
}

static FREEZE_NAMES: Bulk = Bulk::new(include_str!("../sql/freeze_names.sql"), 4);
static CLEAR_NAMES: Bulk = Bulk::new(include_str!("../sql/clear_names.sql"), 1);
static NAME_SOURCES: Bulk = Bulk::new(include_str!("../sql/name_sources.sql"), 2);
pub(super) static LEAVE_NAMES: Bulk = Bulk::new(include_str!("../sql/leave_names.sql"), 3);
static LEAVE_TAKEN: Bulk = Bulk::new(include_str!("../sql/leave_taken.sql"), 3);
static LIFT_TAKEN: Bulk = Bulk::new(include_str!("../sql/lift_taken.sql"), 3);
static NOTE_MOVES: Bulk = Bulk::new(include_str!("../sql/note_moves.sql"), 2);

/// Everything that a rename may write beside an enqueue.
#[cfg(test)]
pub(in crate::store::sqlite) static STATEMENTS: [&Bulk; 7] =
    [&FREEZE_NAMES, &CLEAR_NAMES, &NAME_SOURCES, &LEAVE_NAMES, &LEAVE_TAKEN, &LIFT_TAKEN, &NOTE_MOVES];
