//! Leasing: the heads of the queue, merged exactly, fairly over the pipelines.
//!
//! 1. Each pipeline and level is one range of the index `jobs_due`, already in order; its head is read.
//! 2. A waiting job rises one level for each `priority_aging` that it has waited, never above `high`. Within one
//!    level that keeps the order, so merging the heads of the levels is exact, and no row is rewritten.
//! 3. Jobs of paused runs are set aside where they are met, and what stands behind them comes to the head.
//! 4. What is executed together is put together (`batches`). Pipelines take turns, an execution at a time, until the
//!    permits or the limit are used up.
//! 5. The chosen rows are marked with this boot, a higher fence and a deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::disposition::Disposition;
use super::super::error::{Result, StoreError};
use super::super::lease::{Lease, Place};
use super::super::queue::{Appetite, Leased, Want, Work};
use super::QueueRules;
use super::batches;
use super::bulk::Bulk;
use super::catalog::Catalog;
use super::enqueue::parse;
use super::lists;
use super::row::Origin;
use super::tally::Tally;
use super::wire;
use crate::clock::{Boottime, Clock, Timestamp, millis};
use crate::job::{Fence, IdempotencyKey, Incarnation, JobError, JobId, Priority, Spent, StateName};

/// What a lease call goes by.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub boot: i64,
    pub wants: Vec<Want>,
    pub limit: usize,
    pub appetite: Appetite,
    pub rules: QueueRules,
    pub incarnation: Incarnation,
}

/// Gives leases.
#[derive(Debug)]
pub(super) struct Leases {
    clock: Arc<dyn Clock>,
}

/// A lease call at its moment.
struct Request<'a> {
    asked: &'a Asked,
    now: Timestamp,
    boottime: Boottime,
    deadline: Boottime,
}

/// A waiting job at the head of its range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub id: i64,
    pub priority: i64,
    pub run_at: i64,
}

impl Head {
    /// Its place in the queue: effective level, then due time, then number; the smallest comes first.
    fn rank(&self, now: Timestamp, aging: Duration) -> (i64, i64, i64) {
        (-effective_priority(self.priority, Timestamp::from_millis(self.run_at), now, aging), self.run_at, self.id)
    }
}

/// The level that a job has after waiting since `due`.
pub(super) fn effective_priority(priority: i64, due: Timestamp, now: Timestamp, aging: Duration) -> i64 {
    let high = Priority::High.number();
    if priority >= high || aging.is_zero() {
        return priority;
    }
    let rises = millis(now.since(due)) / millis(aging).max(1);
    priority.saturating_add(rises).min(high)
}

impl Leases {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    /// Leases what is due. The moment counts, and not when it was asked.
    pub(super) async fn give(
        &self,
        tx: &mut SqliteConnection,
        asked: &Asked,
        catalog: &mut Catalog,
        tally: &mut Tally,
    ) -> Result<Leased> {
        let boottime = self.clock.boottime();
        let request = Request { asked, now: self.clock.now(), boottime, deadline: boottime.plus(asked.rules.lease) };
        catalog.learn_pipelines(tx, asked.wants.iter().map(|want| want.pipeline.as_str())).await?;
        let pauses = catalog.has_paused_runs(tx).await?;
        let mut queues = Vec::with_capacity(asked.wants.len());
        let mut leased = Leased::default();
        for want in &asked.wants {
            let Some(pipeline) = catalog.pipeline(&want.pipeline).filter(|pipeline| !pipeline.paused) else { continue };
            let (depth, more) = batches::depth(want, asked.limit);
            let Some(heads) = heads_that_may_run(tx, pipeline.id, &request, depth, pauses).await? else {
                // There is more to set aside than one transaction should: soon again.
                tally.unblocked();
                continue;
            };
            leased.suspect_due |= heads.suspect.is_some();
            let due = match asked.appetite {
                Appetite::Regular => heads.regular,
                Appetite::OneSuspect => heads.suspect.into_iter().collect(),
            };
            // Where one call gives no more than this, it is made again at once.
            let next_due = if due.len() < depth { heads.next_due } else { more.then_some(request.now) };
            leased.next_due = leased.next_due.into_iter().chain(next_due).min();
            queues.push(batches::gather(tx, due, want, request.now, next_due).await?);
        }
        let limit = match asked.appetite {
            Appetite::Regular => asked.limit,
            Appetite::OneSuspect => asked.limit.min(1),
        };
        let executions = take_turns(queues, limit);
        leased.executions = executions.iter().map(Vec::len).collect();
        leased.work = mark(tx, &request, executions.concat(), tally).await?;
        Ok(leased)
    }
}

/// What stands at the heads of one pipeline's ranges.
#[derive(Debug, Default)]
struct Heads {
    /// Due, in order.
    regular: Vec<Head>,
    /// Due.
    suspect: Option<Head>,
    /// When the next of either becomes due.
    next_due: Option<Timestamp>,
}

/// So often what stands at the heads is set aside in one transaction.
const SET_ASIDE: usize = 4;

/// The heads of a pipeline without jobs of paused runs; `None`: there are still some among them.
async fn heads_that_may_run(
    tx: &mut SqliteConnection,
    pipeline: i64,
    request: &Request<'_>,
    depth: usize,
    pauses: bool,
) -> Result<Option<Heads>> {
    let mut found = heads(tx, pipeline, request, depth).await?;
    if !pauses {
        return Ok(Some(found));
    }
    for _ in 0..SET_ASIDE {
        let due: Vec<_> = found.regular.iter().chain(&found.suspect).map(|head| (head.id, head.priority)).collect();
        if !lists::set_aside(tx, pipeline, &due, request.now).await? {
            return Ok(Some(found));
        }
        found = heads(tx, pipeline, request, depth).await?;
    }
    Ok(None)
}

/// The heads of a pipeline, each one range of an index.
pub(super) const HEADS: &str = include_str!("sql/heads.sql");

async fn heads(tx: &mut SqliteConnection, pipeline: i64, request: &Request<'_>, depth: usize) -> Result<Heads> {
    let regular = if request.asked.appetite == Appetite::Regular { depth } else { 0 };
    let rows = sqlx::query(HEADS)
        .bind(pipeline)
        .bind(request.now.as_millis())
        .bind(wire::count(regular))
        .fetch_all(tx)
        .await?;
    let mut heads = Heads::default();
    for row in rows {
        let head = Head { id: row.try_get(1)?, priority: row.try_get(2)?, run_at: row.try_get(3)? };
        match row.try_get::<i64, _>(0)? {
            0 => heads.regular.push(head),
            1 => heads.suspect = Some(head),
            _ => heads.next_due = heads.next_due.into_iter().chain([Timestamp::from_millis(head.run_at)]).min(),
        }
    }
    heads.regular.sort_by_key(|head| head.rank(request.now, request.asked.rules.priority_aging));
    heads.regular.truncate(depth);
    Ok(heads)
}

/// One execution from each pipeline in turn, each pipeline in its own order.
fn take_turns(queues: Vec<Vec<Vec<Head>>>, limit: usize) -> Vec<Vec<Head>> {
    let mut queues: Vec<_> = queues.into_iter().map(Vec::into_iter).collect();
    let mut chosen = Vec::new();
    while chosen.len() < limit {
        let before = chosen.len();
        for queue in &mut queues {
            if chosen.len() < limit {
                chosen.extend(queue.next());
            }
        }
        if chosen.len() == before {
            break;
        }
    }
    chosen
}

/// What a worker has to know of the chosen jobs.
pub(super) static WORK: Bulk = Bulk::new(include_str!("sql/work.sql"), 2);
/// Gives the chosen jobs to this boot.
pub(super) static MARK_LEASED: Bulk = Bulk::new(include_str!("sql/mark_leased.sql"), 1);

async fn mark(
    tx: &mut SqliteConnection,
    request: &Request<'_>,
    chosen: Vec<Head>,
    tally: &mut Tally,
) -> Result<Vec<(Lease, Work)>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<_> = chosen.iter().enumerate().map(|(at, head)| (wire::count(at), head.id)).collect();
    let mut rows = WORK
        .fetch(tx, &places, |values, (at, id)| {
            values.push(*at).push(*id);
        })
        .await?;
    let shared = [request.asked.boot, request.deadline.as_millis(), request.now.as_millis(), request.now.as_millis()];
    let marked = MARK_LEASED
        .execute(tx, &shared, &chosen, |values, head| {
            values.push(head.id);
        })
        .await?;
    if usize::try_from(marked).unwrap_or(usize::MAX) != rows.len() {
        return Err(StoreError::Other(format!("leased {marked} of {} chosen jobs", rows.len())));
    }
    // SQLite promises no order where none is asked for, and asking would sort.
    rows.sort_by_key(|row| row.try_get::<i64, _>(0).unwrap_or(i64::MAX));
    let intents = intents(tx, &rows).await?;
    rows.iter().map(|row| take(row, request, &intents, tally)).collect()
}

/// The intents of those whose files are on their way, which are few.
async fn intents(tx: &mut SqliteConnection, work: &[SqliteRow]) -> Result<BTreeMap<i64, Disposition>> {
    let mut moving = Vec::new();
    for row in work {
        if row.try_get("moving")? {
            moving.push(row.try_get::<i64, _>("id")?);
        }
    }
    if moving.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query("SELECT * FROM dispositions WHERE job IN (SELECT value FROM json_each(?))")
        .bind(wire::rows(&moving)?)
        .fetch_all(tx)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("job")?, read_disposition(row)?))).collect()
}

/// Reads a row of [`WORK`], column by column: looking each up by its name would take as long as the rest.
fn take(
    row: &SqliteRow,
    request: &Request<'_>,
    intents: &BTreeMap<i64, Disposition>,
    tally: &mut Tally,
) -> Result<(Lease, Work)> {
    let mut row = InOrder { row, next: 1 };
    let job = JobId(row.next()?);
    let place = Place { source: row.next()?, pipeline: row.next()?, priority: row.next()?, run: row.next()? };
    let state: StateName = parse(row.next()?)?;
    tally.moved(place.pipeline, place.priority, state, StateName::Running);
    let fence = Fence(row.next::<i64>()? + 1);
    let (version, op) = (row.next()?, parse(row.next()?)?);
    let (attempts, deferrals, executions) = (row.count()?, row.count()?, row.count()?);
    let suspect = row.next::<i64>()? >= 2;
    let first_started_at = row.next::<Option<i64>>()?.map_or(request.now, Timestamp::from_millis);
    let (digest, completed_digest, metadata) = (row.next()?, row.next()?, row.next()?);
    let moved_from: Option<Vec<u8>> = row.next()?;
    let (content, stage): (Option<Vec<u8>>, Option<String>) = (row.next()?, row.next()?);
    let pipeline: String = row.next()?;
    let origin = Origin {
        scope: row.next()?,
        identity: row.next()?,
        own_path: row.next()?,
        watch: row.next()?,
        root: row.next()?,
    };
    let moved_from = moved_from.zip(origin.root.clone()).map(|(name, root)| wire::path(root).join(wire::path(name)));
    let identity = wire::identity([row.next()?, row.next()?, row.next()?, row.next()?, row.next()?]);
    let digest_of_identity = row.next()?;
    let (source, path) = origin.of_job(job)?;
    let work = Work {
        job,
        idempotency_key: IdempotencyKey::derive(&request.asked.incarnation, &pipeline, &source, version, op),
        pipeline,
        source,
        path,
        version,
        op,
        priority: Priority::from_number(place.priority).unwrap_or_default(),
        attempt: attempts.saturating_add(1),
        execution: executions.saturating_add(1),
        spent: Spent { attempts, deferrals, first_started_at },
        leased_at: (request.now, request.boottime),
        suspect,
        identity,
        digest: wire::digest(digest)?,
        digest_of_identity,
        completed_digest: wire::digest(completed_digest)?,
        moved_from,
        metadata,
        content: content.map(wire::path),
        stage,
        disposition: intents.get(&job.0).cloned(),
    };
    Ok((Lease::new(job, fence, request.deadline, place), work))
}

/// A row whose columns are read one after the other.
struct InOrder<'r> {
    row: &'r SqliteRow,
    next: usize,
}

impl<'r> InOrder<'r> {
    fn next<T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self) -> Result<T> {
        self.next += 1;
        Ok(self.row.try_get(self.next - 1)?)
    }

    fn count(&mut self) -> Result<u32> {
        Ok(u32::try_from(self.next::<i64>()?).unwrap_or(u32::MAX))
    }
}

fn read_disposition(row: &SqliteRow) -> Result<Disposition> {
    let error = match row.try_get::<Option<String>, _>("error_kind")? {
        None => None,
        Some(kind) => Some(JobError {
            kind: parse(&kind)?,
            message: row.try_get::<Option<String>, _>("error_message")?.unwrap_or_default(),
            permanent: true,
        }),
    };
    Ok(Disposition {
        path: wire::path(row.try_get("path")?),
        private: wire::path(row.try_get("private")?),
        target: row.try_get::<Option<Vec<u8>>, _>("target")?.map(wire::path),
        identity: wire::identity_of(row)?,
        error,
    })
}
