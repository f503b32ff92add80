//! A version becomes a job, once: what was seen is compared with what is known, and the decision is written in
//! the same transaction.
//!
//! 1. One query brings, for every asked version, what is known of its source and the newest job that its
//!    pipeline was given of it.
//! 2. [`decide`] is pure: same version, refreshed identity, new version, or *take the digest first*.
//! 3. The decisions are written as a handful of set-based statements. Numbers are given out here.
//!
//! A source that is asked for twice in one group is decided in two rounds, so that the second sees the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::error::{Result, StoreError};
use super::super::queue::{Enqueued, NewJob};
use super::tally::Tally;
use super::wire;
use crate::clock::{Clock, Timestamp};
use crate::job::{Digest, FileIdentity, JobId, Op, SourceKey, StateName};

/// The scope of absolute paths.
pub(super) const SCOPE_PATH: i64 = 0;
/// The scope of identities that the caller chose.
pub(super) const SCOPE_KEY: i64 = -1;

/// Writes enqueues.
#[derive(Debug)]
pub(super) struct Intake {
    clock: Arc<dyn Clock>,
}

/// What is known of an asked version's source.
#[derive(Clone, Debug)]
struct Known {
    source: i64,
    version: i64,
    identity: FileIdentity,
    digest: Option<Digest>,
    digest_version: Option<i64>,
    present: bool,
    consumed: bool,
    /// The file as it was processed, while it is on its way to where `on_success` or `on_failure` send it.
    moving: Option<FileIdentity>,
    taken: Option<Taken>,
}

impl Known {
    /// The digest of the newest version's content, where it was taken.
    fn current_digest(&self) -> Option<Digest> {
        self.digest.filter(|_| self.digest_version == Some(self.version))
    }
}

/// The newest version that the pipeline was given of a source.
#[derive(Clone, Debug)]
struct Taken {
    version: i64,
    job: JobId,
    started: bool,
    /// The job itself, unless it was pruned.
    row: Option<TakenRow>,
}

#[derive(Clone, Debug)]
struct TakenRow {
    state: StateName,
    op: Op,
    priority: i64,
    run_at: Timestamp,
    executions: i64,
    deferrals: i64,
    blocked_by: Option<i64>,
    vanished: bool,
}

/// What follows for one asked version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Nobody has heard of the source.
    First,
    /// Its version is this one already; `refresh`: its identity on disk is a new one all the same.
    Same { refresh: bool },
    /// A pipeline that was not given this version yet.
    AnotherPipeline,
    /// New content, or content that came anew.
    Raise { op: Op },
    /// Only the content can tell.
    TakeDigest,
}

impl Intake {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    pub(super) async fn write<'a>(
        &self,
        tx: &mut SqliteConnection,
        jobs: impl Iterator<Item = &'a NewJob> + Send,
        tally: &mut Tally,
    ) -> Result<Vec<Enqueued>> {
        let jobs: Vec<&NewJob> = jobs.collect();
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let names = Names::resolve(tx, &jobs).await?;
        let keys: Vec<Key> = jobs.iter().map(|job| names.key(job)).collect::<Result<_>>()?;
        let mut answers = vec![Enqueued::NeedsDigest; jobs.len()];
        let mut left: Vec<usize> = (0..jobs.len()).collect();
        while !left.is_empty() {
            let mut seen = BTreeSet::new();
            let (round, later) = left.into_iter().partition(|&i| seen.insert((keys[i].scope, &keys[i].identity)));
            let round: Vec<Asked<'_>> =
                Vec::<usize>::into_iter(round).map(|at| Asked { at, job: jobs[at], key: &keys[at] }).collect();
            write_round(tx, &round, now, tally, &mut answers).await?;
            left = later;
        }
        Ok(answers)
    }
}

/// Where a source and a pipeline stand in the tables.
#[derive(Debug)]
struct Key {
    scope: i64,
    identity: String,
    pipeline: i64,
}

struct Asked<'a> {
    at: usize,
    job: &'a NewJob,
    key: &'a Key,
}

/// The numbers of the pipelines and watches that a group names.
struct Names {
    pipelines: BTreeMap<String, i64>,
    watches: BTreeMap<String, i64>,
}

impl Names {
    async fn resolve(tx: &mut SqliteConnection, jobs: &[&NewJob]) -> Result<Self> {
        let wanted: BTreeSet<&str> = jobs.iter().map(|job| job.pipeline.as_str()).collect();
        let pipelines = pipeline_ids(tx, wanted).await?;
        let wanted: BTreeSet<&str> = jobs
            .iter()
            .filter_map(|job| match &job.source {
                SourceKey::Watched { watch, .. } => Some(watch.as_str()),
                _ => None,
            })
            .collect();
        let watches = watch_ids(tx, wanted).await?;
        Ok(Self { pipelines, watches })
    }

    fn key(&self, job: &NewJob) -> Result<Key> {
        let pipeline = self.pipelines.get(&job.pipeline).copied().ok_or(StoreError::Closed)?;
        let (scope, identity) = match &job.source {
            SourceKey::Watched { watch, relative } => {
                let scope = self.watches.get(watch).copied().ok_or_else(|| unknown_watch(watch))?;
                (scope, wire::hex_path(relative))
            }
            SourceKey::Path(path) => (SCOPE_PATH, wire::hex_path(path)),
            SourceKey::Keyed { key, .. } => (SCOPE_KEY, wire::hex(key.as_bytes())),
        };
        Ok(Key { scope, identity, pipeline })
    }
}

fn unknown_watch(name: &str) -> StoreError {
    StoreError::Refused(format!("no watch `{name}` is known to the database"))
}

/// The numbers of pipelines by name; unknown ones become known.
pub(super) async fn pipeline_ids(tx: &mut SqliteConnection, names: BTreeSet<&str>) -> Result<BTreeMap<String, i64>> {
    let names: Vec<&str> = names.into_iter().collect();
    let wanted = wire::rows(&names)?;
    let mut found =
        ids(tx, "SELECT name, id FROM pipelines WHERE name IN (SELECT value FROM json_each(?))", &wanted).await?;
    if found.len() < names.len() {
        sqlx::query(
            "INSERT INTO pipelines (name) SELECT value FROM json_each(?) WHERE true ON CONFLICT (name) DO NOTHING",
        )
        .bind(&wanted)
        .execute(&mut *tx)
        .await?;
        found =
            ids(tx, "SELECT name, id FROM pipelines WHERE name IN (SELECT value FROM json_each(?))", &wanted).await?;
    }
    Ok(found)
}

/// The numbers of watches by name; those that are not known are missing.
pub(super) async fn watch_ids(tx: &mut SqliteConnection, names: BTreeSet<&str>) -> Result<BTreeMap<String, i64>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<&str> = names.into_iter().collect();
    ids(tx, "SELECT name, id FROM watches WHERE name IN (SELECT value FROM json_each(?))", &wire::rows(&names)?).await
}

async fn ids(tx: &mut SqliteConnection, sql: &'static str, names: &str) -> Result<BTreeMap<String, i64>> {
    let rows = sqlx::query(sql).bind(names).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The numbers that a transaction gives out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// The next source's.
    pub source: i64,
    /// The next job's.
    pub job: i64,
    /// The version of a source that nobody has heard of: above all that were ever forgotten.
    pub first_version: i64,
}

impl Numbers {
    pub(super) async fn read(tx: &mut SqliteConnection) -> Result<Self> {
        let row = sqlx::query(
            "SELECT (SELECT coalesce(max(id), 0) FROM sources) + 1,
                    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0) + 1,
                    coalesce((SELECT CAST(value AS INTEGER) FROM kv WHERE key = 'ingestd.version_floor'), 0) + 1",
        )
        .fetch_one(tx)
        .await?;
        Ok(Self { source: row.try_get(0)?, job: row.try_get(1)?, first_version: row.try_get(2)? })
    }

    pub(super) const fn take_job(&mut self) -> i64 {
        self.job += 1;
        self.job - 1
    }

    const fn take_source(&mut self) -> i64 {
        self.source += 1;
        self.source - 1
    }
}

async fn write_round(
    tx: &mut SqliteConnection,
    round: &[Asked<'_>],
    now: Timestamp,
    tally: &mut Tally,
    answers: &mut [Enqueued],
) -> Result<()> {
    let known = look_up(tx, round).await?;
    let mut numbers = Numbers::read(tx).await?;
    let mut plan = Plan::default();
    for (asked, known) in round.iter().zip(&known) {
        let decision = known.as_ref().map_or(Decision::First, |known| decide(asked.job, known));
        answers[asked.at] = match (decision, known) {
            (Decision::TakeDigest, _) => Enqueued::NeedsDigest,
            (Decision::Same { refresh }, Some(known)) => {
                if refresh {
                    plan.touch(known.source, asked, known.version, known.current_digest());
                }
                same(known)
            }
            (Decision::AnotherPipeline, Some(known)) => {
                let (id, version) = (numbers.take_job(), known.version);
                plan.insert(id, known.source, asked, version, Op::Add, Some(known), now, tally);
                Enqueued::New { id: JobId(id), version }
            }
            (Decision::Raise { op }, Some(known)) => {
                let (id, version) = (numbers.take_job(), known.version + 1);
                plan.touch(known.source, asked, version, asked.job.digest);
                plan.insert(id, known.source, asked, version, op, Some(known), now, tally);
                Enqueued::New { id: JobId(id), version }
            }
            (_, _) if asked.job.note_only => {
                plan.note(numbers.take_source(), asked, numbers.first_version);
                Enqueued::Unchanged
            }
            (_, _) => {
                let (id, source, version) = (numbers.take_job(), numbers.take_source(), numbers.first_version);
                plan.first(source, asked, version);
                plan.insert(id, source, asked, version, Op::Add, None, now, tally);
                Enqueued::New { id: JobId(id), version }
            }
        };
    }
    plan.write(tx, now).await
}

const fn same(known: &Known) -> Enqueued {
    match &known.taken {
        Some(Taken { job, row: Some(row), .. }) => Enqueued::Known { id: *job, state: row.state },
        _ => Enqueued::Unchanged,
    }
}

/// Compares what was seen with what is known.
fn decide(new: &NewJob, known: &Known) -> Decision {
    if new.note_only {
        return Decision::Same { refresh: !known.present };
    }
    if known.consumed {
        // We take the old file away ourselves: whatever else is there arrived anew. But the old file may have been
        // seen just before it went.
        let old =
            known.moving.is_some_and(|old| old.same_but_for_ctime(&new.identity)) || new.identity == known.identity;
        return if old { Decision::Same { refresh: false } } else { Decision::Raise { op: Op::Add } };
    }
    let Some(taken) = &known.taken else { return Decision::AnotherPipeline };
    if new.force {
        return Decision::Raise { op: Op::Modify };
    }
    let came_back = !known.present
        && taken.row.as_ref().is_none_or(|row| row.op == Op::Delete || row.vanished)
        && known.current_digest().is_none();
    if came_back {
        return Decision::Raise { op: Op::Add };
    }
    if new.identity == known.identity {
        return current(known, taken, !known.present);
    }
    // The digest decides. Where the old one was never taken, nobody can say that the content is the same.
    match (new.digest, known.current_digest()) {
        (None, _) => Decision::TakeDigest,
        (Some(digest), Some(old)) if digest == old => current(known, taken, true),
        (Some(_), _) => Decision::Raise { op: Op::Modify },
    }
}

const fn current(known: &Known, taken: &Taken, refresh: bool) -> Decision {
    if taken.version < known.version { Decision::AnotherPipeline } else { Decision::Same { refresh } }
}

async fn look_up(tx: &mut SqliteConnection, round: &[Asked<'_>]) -> Result<Vec<Option<Known>>> {
    let keys: Vec<_> = round.iter().map(|asked| (asked.key.scope, &asked.key.identity, asked.key.pipeline)).collect();
    let rows = sqlx::query(include_str!("sql/look_up.sql")).bind(wire::rows(&keys)?).fetch_all(tx).await?;
    let mut known = vec![None; round.len()];
    for row in rows {
        let at = usize::try_from(row.try_get::<i64, _>("at")?).unwrap_or(usize::MAX);
        if let Some(slot) = known.get_mut(at) {
            *slot = Some(read_known(&row)?);
        }
    }
    Ok(known)
}

fn read_known(row: &SqliteRow) -> Result<Known> {
    let word = |name: &str| -> Result<Option<String>> { Ok(row.try_get(name)?) };
    let taken = match row.try_get::<Option<i64>, _>("taken_version")? {
        None => None,
        Some(version) => Some(Taken {
            version,
            job: JobId(row.try_get("taken_job")?),
            started: row.try_get::<bool, _>("taken_started")?,
            row: match word("job_state")? {
                None => None,
                Some(state) => Some(TakenRow {
                    state: parse(&state)?,
                    op: parse(&word("job_op")?.unwrap_or_default())?,
                    priority: row.try_get("job_priority")?,
                    run_at: Timestamp::from_millis(row.try_get("job_run_at")?),
                    executions: row.try_get("job_executions")?,
                    deferrals: row.try_get("job_deferrals")?,
                    blocked_by: row.try_get("job_blocked_by")?,
                    vanished: word("job_reason")?.as_deref() == Some("vanished"),
                }),
            },
        }),
    };
    let presence = word("presence")?.unwrap_or_default();
    Ok(Known {
        source: row.try_get("source")?,
        version: row.try_get("version")?,
        identity: wire::identity([
            row.try_get("dev")?,
            row.try_get("inode")?,
            row.try_get("size")?,
            row.try_get("mtime_ns")?,
            row.try_get("ctime_ns")?,
        ]),
        digest: wire::digest(row.try_get("digest")?)?,
        digest_version: row.try_get("digest_version")?,
        present: presence == "present",
        consumed: presence == "consumed",
        moving: match row.try_get::<Option<i64>, _>("d_dev")? {
            None => None,
            Some(dev) => Some(wire::identity([
                dev,
                row.try_get("d_inode")?,
                row.try_get("d_size")?,
                row.try_get("d_mtime_ns")?,
                row.try_get("d_ctime_ns")?,
            ])),
        },
        taken,
    })
}

/// A word of the tables as its enum.
pub(super) fn parse<T: std::str::FromStr>(word: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    word.parse().map_err(|error| StoreError::Corrupt(format!("a row of the database holds an unknown word: {error}")))
}

/// The rows that a round writes.
#[derive(Default)]
struct Plan<'a> {
    sources: Vec<(i64, i64, &'a str, Option<String>, [i64; 5], Option<String>, i64)>,
    touched: Vec<(i64, [i64; 5], i64, Option<String>, Option<String>)>,
    jobs: Vec<JobRow<'a>>,
    superseded: Vec<(i64, i64)>,
    noted: Vec<Noted>,
}

/// What `taken` holds of a source that was only noted.
const NO_JOB: i64 = 0;

#[derive(serde::Serialize)]
struct Noted {
    source: i64,
    pipeline: i64,
    version: i64,
    id: i64,
    started: bool,
}

#[derive(serde::Serialize)]
struct JobRow<'a> {
    id: i64,
    source: i64,
    pipeline: i64,
    version: i64,
    op: &'static str,
    priority: i64,
    run_at: i64,
    blocked_by: Option<i64>,
    size: u64,
    digest: Option<String>,
    metadata: Option<&'a str>,
    started: bool,
}

impl<'a> Plan<'a> {
    fn first(&mut self, source: i64, asked: &Asked<'a>, version: i64) {
        self.sources.push((
            source,
            asked.key.scope,
            &asked.key.identity,
            own_path(&asked.job.source),
            wire::identity_columns(&asked.job.identity),
            asked.job.digest.map(|digest| wire::hex(&digest.to_bytes())),
            version,
        ));
    }

    /// Known from now on, without a job.
    fn note(&mut self, source: i64, asked: &Asked<'a>, version: i64) {
        self.first(source, asked, version);
        self.noted.push(Noted { source, pipeline: asked.key.pipeline, version, id: NO_JOB, started: false });
    }

    fn touch(&mut self, source: i64, asked: &Asked<'a>, version: i64, digest: Option<Digest>) {
        self.touched.push((
            source,
            wire::identity_columns(&asked.job.identity),
            version,
            digest.map(|digest| wire::hex(&digest.to_bytes())),
            own_path(&asked.job.source),
        ));
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one row, named by the caller")]
    fn insert(
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
        let place = Place::after(older, asked.job, now);
        if let Some((older, from)) = place.supersedes {
            self.superseded.push((older.0, id));
            tally.moved(asked.key.pipeline, place.older_priority, from, StateName::Skipped);
        }
        tally.born(asked.key.pipeline, StateName::Pending, place.priority);
        self.jobs.push(JobRow {
            id,
            source,
            pipeline: asked.key.pipeline,
            version,
            op: op.as_str(),
            priority: place.priority,
            run_at: place.run_at.as_millis(),
            blocked_by: place.blocked_by,
            size: asked.job.identity.size,
            digest: asked.job.digest.map(|digest| wire::hex(&digest.to_bytes())),
            metadata: asked.job.metadata.as_deref(),
            started: older
                .is_some_and(|older| older.started || older.row.as_ref().is_some_and(|row| row.executions > 0)),
        });
    }

    async fn write(&self, tx: &mut SqliteConnection, now: Timestamp) -> Result<()> {
        if !self.sources.is_empty() {
            let sql = include_str!("sql/insert_sources.sql");
            sqlx::query(sql).bind(wire::rows(&self.sources)?).execute(&mut *tx).await?;
        }
        if !self.touched.is_empty() {
            let sql = include_str!("sql/touch_sources.sql");
            sqlx::query(sql).bind(wire::rows(&self.touched)?).execute(&mut *tx).await?;
        }
        if !self.superseded.is_empty() {
            sqlx::query(
                "UPDATE jobs SET state = 'skipped', reason = 'superseded', superseded_by = v.value ->> 1,
                        finished_at = ?2, blocked_by = NULL
                 FROM json_each(?1) AS v WHERE jobs.id = v.value ->> 0 AND jobs.state IN ('pending', 'retrying')",
            )
            .bind(wire::rows(&self.superseded)?)
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await?;
        }
        if !self.noted.is_empty() {
            sqlx::query(include_str!("sql/note_taken.sql")).bind(wire::rows(&self.noted)?).execute(&mut *tx).await?;
        }
        if !self.jobs.is_empty() {
            insert_jobs(tx, &wire::rows(&self.jobs)?, now).await?;
        }
        Ok(())
    }
}

/// Inserts jobs and notes them as the newest of their sources.
async fn insert_jobs(tx: &mut SqliteConnection, rows: &str, now: Timestamp) -> Result<()> {
    sqlx::query(include_str!("sql/insert_jobs.sql")).bind(rows).bind(now.as_millis()).execute(&mut *tx).await?;
    sqlx::query(include_str!("sql/note_taken.sql")).bind(rows).execute(tx).await?;
    Ok(())
}

fn own_path(source: &SourceKey) -> Option<String> {
    match source {
        SourceKey::Keyed { path, .. } => Some(wire::hex_path(path)),
        _ => None,
    }
}

/// Where a new version stands in the queue, given the older one's job.
struct Place {
    priority: i64,
    older_priority: i64,
    run_at: Timestamp,
    blocked_by: Option<i64>,
    supersedes: Option<(JobId, StateName)>,
}

impl Place {
    fn after(older: Option<&Taken>, new: &NewJob, now: Timestamp) -> Self {
        let asked = new.run_at.unwrap_or(now);
        let mut place = Self {
            priority: new.priority.number(),
            older_priority: 0,
            run_at: asked,
            blocked_by: None,
            supersedes: None,
        };
        let Some(Taken { job, row: Some(row), .. }) = older else { return place };
        match row.state {
            StateName::Running => place.blocked_by = Some(job.0),
            StateName::Pending | StateName::Retrying => {
                place.supersedes = Some((*job, row.state));
                place.older_priority = row.priority;
                place.priority = place.priority.max(row.priority);
                place.blocked_by = row.blocked_by;
                // It takes over the place; but a wait that punished the old content does not bind the new one.
                if row.state == StateName::Pending && row.deferrals == 0 {
                    place.run_at = new.run_at.unwrap_or(row.run_at);
                }
            }
            _ => {}
        }
        place
    }
}
