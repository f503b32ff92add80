//! The rows that a round of enqueues writes, and where a new version stands in the queue.

use sqlx::sqlite::SqliteConnection;

use super::super::super::error::Result;
use super::super::super::queue::{Enqueued, NewJob};
use super::super::bulk::{Bulk, Values};
use super::super::tally::Tally;
use super::super::wire;
use super::Asked;
use super::known::{Known, Taken};
use super::lines::{LineOf, Naming};
use super::rename::{self, Moves};
use crate::clock::Timestamp;
use crate::job::{Digest, JobId, Op, SourceKey, StateName};

/// The rows that a round writes.
#[derive(Default)]
pub(super) struct Plan<'a> {
    sources: Vec<SourceRow<'a>>,
    touched: Vec<SourceRow<'a>>,
    jobs: Vec<JobRow<'a>>,
    listed: Vec<(JobRow<'a>, LineOf<'a>)>,
    superseded: Vec<(i64, i64)>,
    taken: Vec<TakenRow>,
    /// Sources without a file from now on, with their versions.
    left: Vec<(i64, i64)>,
    /// The run that names the sources, where lines of a list are decided.
    naming: Option<Naming>,
    /// Known sources and their pipelines that it names.
    named: Vec<(i64, i64)>,
    /// How many of them it had named before.
    pub(super) duplicates: u64,
    pub(super) moves: Moves<'a>,
}

/// What `taken` holds of a source that was only noted, or that a rename left behind.
pub(in crate::store::sqlite) const NO_JOB: i64 = 0;

/// A source as it was seen.
pub(super) struct SourceRow<'a> {
    id: i64,
    scope: i64,
    identity: &'a [u8],
    path: Option<&'a [u8]>,
    file: [i64; 5],
    digest: Option<Digest>,
    version: i64,
}

/// A row of `jobs`.
struct JobRow<'a> {
    id: i64,
    source: i64,
    pipeline: i64,
    version: i64,
    op: &'static str,
    priority: i64,
    run_at: i64,
    blocked_by: Option<i64>,
    size: i64,
    digest: Option<Digest>,
    metadata: Option<&'a str>,
}

/// A row of `taken`.
struct TakenRow {
    source: i64,
    pipeline: i64,
    version: i64,
    job: i64,
    started: bool,
}

pub(super) static INSERT_SOURCES: Bulk = Bulk::new(include_str!("../sql/insert_sources.sql"), 11);
static TOUCH_SOURCES: Bulk = Bulk::new(include_str!("../sql/touch_sources.sql"), 9);
static SUPERSEDE: Bulk = Bulk::new(include_str!("../sql/supersede.sql"), 2);
static INSERT_JOBS: Bulk = Bulk::new(include_str!("../sql/insert_jobs.sql"), 11);
static NOTE_TAKEN: Bulk = Bulk::new(include_str!("../sql/note_taken.sql"), 5);
static INSERT_LISTED: Bulk = Bulk::new(include_str!("../sql/insert_listed.sql"), 15);
static NOTE_NAMED: Bulk = Bulk::new(include_str!("../sql/note_named.sql"), 5);
static NAME_KNOWN: Bulk = Bulk::new(include_str!("../sql/name_known.sql"), 2);

/// Everything that an enqueue may write.
#[cfg(test)]
pub(in crate::store::sqlite) static STATEMENTS: [&Bulk; 8] =
    [&INSERT_SOURCES, &TOUCH_SOURCES, &SUPERSEDE, &INSERT_JOBS, &NOTE_TAKEN, &INSERT_LISTED, &NOTE_NAMED, &NAME_KNOWN];

impl<'a> Plan<'a> {
    pub(super) fn named_by(naming: Option<Naming>) -> Self {
        Self { naming, ..Self::default() }
    }

    /// A source that nobody has heard of.
    pub(super) fn first(&mut self, source: i64, asked: &Asked<'a>, version: i64) {
        self.sources.push(SourceRow::seen(source, asked, version, asked.job.digest));
    }

    /// Known from now on, without a job.
    pub(super) fn note(&mut self, source: i64, asked: &Asked<'a>, version: i64) {
        self.first(source, asked, version);
        self.taken.push(TakenRow { source, pipeline: asked.key.pipeline, version, job: NO_JOB, started: false });
    }

    /// A known source is there, as it is now.
    pub(super) fn touch(&mut self, source: i64, asked: &Asked<'a>, version: i64, digest: Option<Digest>) {
        self.touched.push(SourceRow::seen(source, asked, version, digest));
    }

    /// A known source has no file from now on.
    pub(super) fn leave(&mut self, source: i64, version: i64) {
        self.left.push((source, version));
    }

    /// The run names a source for which it needs no job.
    pub(super) fn name_known(&mut self, asked: &Asked<'_>, known: Option<&Known>, answer: Enqueued) {
        let (Some(naming), Enqueued::Known { .. } | Enqueued::Unchanged) = (self.naming, answer) else { return };
        let Some(known) = known else { return };
        let before = known.taken.as_ref().and_then(|taken| taken.list_run);
        if before == Some(naming.run) {
            self.duplicates += 1;
        } else {
            self.named.push((known.source, asked.key.pipeline));
        }
    }

    /// The sources that the run names for the first time, with their pipelines.
    pub(super) fn names(&self) -> impl Iterator<Item = (i64, i64)> {
        let noted = self.taken.iter().map(|row| (row.source, row.pipeline));
        self.named.iter().copied().chain(noted)
    }

    /// A version of a file that was not renamed since tells the name that the one before it should have told.
    pub(super) fn carry_name(&mut self, id: i64, asked: &Asked<'_>, known: &Known, now: Timestamp) {
        let place = Place::after(Some(known), asked.job, now);
        if let Some(name) = known.taken.as_ref().and_then(|older| place.name_to_tell(older)) {
            self.moves.tell(id, name);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one row, named by the caller")]
    pub(super) fn insert(
        &mut self,
        id: i64,
        source: i64,
        asked: &Asked<'a>,
        version: i64,
        op: Op,
        known: Option<&Known>,
        now: Timestamp,
        tally: &mut Tally,
    ) {
        let older = known.and_then(|known| known.taken.as_ref());
        let place = Place::after(known, asked.job, now);
        if let Some((superseded, from)) = place.supersedes {
            self.superseded.push((superseded.0, id));
            tally.moved(asked.key.pipeline, place.older_priority, from, StateName::Skipped);
            tally.of_run(older.and_then(Taken::run), Some(from), StateName::Skipped);
        }
        tally.born(asked.key.pipeline, StateName::Pending, place.priority);
        let row = JobRow {
            id,
            source,
            pipeline: asked.key.pipeline,
            version,
            op: op.as_str(),
            priority: place.priority,
            run_at: place.run_at.as_millis(),
            blocked_by: place.blocked_by,
            size: asked.job.identity.size.cast_signed(),
            digest: asked.job.digest,
            metadata: asked.job.metadata.as_deref(),
        };
        let line = match asked.job.listed.as_deref() {
            Some(listed) => Some(LineOf::said(listed)),
            None => older.and_then(LineOf::goes_on),
        };
        match line {
            None => self.jobs.push(row),
            Some(line) => {
                tally.of_run(Some(line.run), None, StateName::Pending);
                self.listed.push((row, line));
            }
        }
        let started = older.is_some_and(|older| {
            older.started || older.row.as_ref().is_some_and(|row| row.executions > 0 && !row.duplicate)
        });
        self.taken.push(TakenRow { source, pipeline: asked.key.pipeline, version, job: id, started });
    }

    pub(super) async fn write(&self, tx: &mut SqliteConnection, now: Timestamp) -> Result<()> {
        let now = now.as_millis();
        SUPERSEDE
            .execute(tx, &[now], &self.superseded, |values, (older, newer)| {
                values.push(*older).push(*newer);
            })
            .await?;
        self.moves.write(tx, now).await?;
        INSERT_SOURCES.execute(tx, &[], &self.sources, SourceRow::bind_new).await?;
        TOUCH_SOURCES.execute(tx, &[], &self.touched, SourceRow::bind_touched).await?;
        rename::LEAVE_NAMES
            .execute(tx, &[], &self.left, |values, (source, version)| {
                values.push(now).push(*source).push(*version);
            })
            .await?;
        INSERT_JOBS.execute(tx, &[now], &self.jobs, JobRow::bind).await?;
        INSERT_LISTED
            .execute(tx, &[now], &self.listed, |values, (row, line)| {
                JobRow::bind(values, row);
                line.bind(values);
            })
            .await?;
        match self.naming {
            None => NOTE_TAKEN.execute(tx, &[], &self.taken, TakenRow::bind).await?,
            Some(naming) => {
                NAME_KNOWN
                    .execute(tx, &naming.columns(), &self.named, |values, (source, pipeline)| {
                        values.push(*source).push(*pipeline);
                    })
                    .await?;
                NOTE_NAMED.execute(tx, &naming.columns(), &self.taken, TakenRow::bind).await?
            }
        };
        self.moves.write_told(tx).await
    }
}

impl<'a> SourceRow<'a> {
    fn seen(id: i64, asked: &Asked<'a>, version: i64, digest: Option<Digest>) -> Self {
        let path = match &asked.job.source {
            SourceKey::Keyed { path, .. } => Some(wire::path_bytes(path)),
            _ => None,
        };
        let file = wire::identity_columns(&asked.job.identity);
        Self { id, scope: asked.key.scope, identity: asked.key.identity, path, file, digest, version }
    }

    /// A name without a file.
    pub(super) const fn empty(id: i64, scope: i64, identity: &'a [u8], version: i64) -> Self {
        Self { id, scope, identity, path: None, file: [0; 5], digest: None, version }
    }

    pub(super) fn bind_new(values: &mut Values, row: &Self) {
        values.push(row.id).push(row.scope).push(row.identity).push(row.path);
        row.bind_facts(values);
    }

    fn bind_touched(values: &mut Values, row: &Self) {
        values.push(row.id).push(row.path);
        row.bind_facts(values);
    }

    fn bind_facts(&self, values: &mut Values) {
        for column in self.file {
            values.push(column);
        }
        values.push(wire::digest_column(self.digest)).push(self.version);
    }
}

impl JobRow<'_> {
    fn bind(values: &mut Values, row: &Self) {
        values.push(row.id).push(row.source).push(row.pipeline).push(row.version).push(row.op).push(row.priority);
        values.push(row.run_at).push(row.blocked_by).push(row.size).push(wire::digest_column(row.digest));
        values.push(row.metadata);
    }
}

impl TakenRow {
    fn bind(values: &mut Values, row: &Self) {
        values.push(row.source).push(row.pipeline).push(row.version).push(row.job).push(row.started);
    }
}

/// Where a new version stands in the queue, given what is known of the older ones.
pub(super) struct Place {
    pub(super) priority: i64,
    pub(super) older_priority: i64,
    pub(super) run_at: Timestamp,
    pub(super) blocked_by: Option<i64>,
    pub(super) supersedes: Option<(JobId, StateName)>,
}

impl Place {
    /// The name that processors know, where the older version should have told of another one and never ran: its place
    /// is taken by this version, or its file was not there.
    fn name_to_tell<'k>(&self, older: &'k Taken) -> Option<&'k [u8]> {
        let row = older.row.as_ref().filter(|row| self.supersedes.is_some() || row.vanished)?;
        row.moved_from.as_deref()
    }

    pub(super) fn after(known: Option<&Known>, new: &NewJob, now: Timestamp) -> Self {
        let asked = new.run_at.unwrap_or(now);
        let mut place = Self {
            priority: new.priority.number(),
            older_priority: 0,
            run_at: asked,
            blocked_by: known.and_then(|known| known.in_the_way),
            supersedes: None,
        };
        let Some(Known { taken: Some(Taken { job, row: Some(row), .. }), moving, .. }) = known else { return place };
        // One whose file is on its way is brought to its end first.
        if row.state.is_waiting() && moving.is_none() {
            place.supersedes = Some((*job, row.state));
            place.older_priority = row.priority;
            place.priority = place.priority.max(row.priority);
            // It takes over the place; but a wait that punished the old content does not bind the new one.
            if row.state == StateName::Pending && row.deferrals == 0 {
                place.run_at = new.run_at.unwrap_or(row.run_at);
            }
        }
        place
    }
}
