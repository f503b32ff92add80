//! Leasing: the heads of the queue, merged exactly, fairly over the pipelines.
//!
//! 1. Each pipeline and level is one range of the index `jobs_due`, already in order; its head is read.
//! 2. A waiting job rises one level for each `priority_aging` that it has waited, never above `high`. Within one
//!    level that keeps the order, so merging the heads of the levels is exact, and no row is rewritten.
//! 3. Pipelines take turns until the permits or the limit are used up.
//! 4. The chosen rows are marked with this boot, a higher fence and a deadline.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::disposition::Disposition;
use super::super::error::{Result, StoreError};
use super::super::lease::Lease;
use super::super::queue::{Appetite, Leased, Want, Work};
use super::enqueue::parse;
use super::row::source_of;
use super::tally::Tally;
use super::wire;
use crate::clock::{Boottime, Timestamp, millis};
use crate::job::{Fence, IdempotencyKey, Incarnation, JobError, JobId, Priority, Spent, StateName};

/// What a lease call goes by.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub boot: i64,
    pub wants: Vec<Want>,
    pub limit: usize,
    pub appetite: Appetite,
    pub now: Timestamp,
    pub deadline: Boottime,
    pub priority_aging: Duration,
    pub incarnation: Incarnation,
}

/// A waiting job at the head of its range.
#[derive(Clone, Copy, Debug)]
struct Head {
    id: i64,
    priority: i64,
    run_at: i64,
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

pub(super) async fn lease(tx: &mut SqliteConnection, request: &Request, tally: &mut Tally) -> Result<Leased> {
    let mut queues = Vec::with_capacity(request.wants.len());
    let mut leased = Leased::default();
    for want in &request.wants {
        let Some(pipeline) = pipeline_id(tx, &want.pipeline).await? else { continue };
        leased.suspect_due |= suspect_due(tx, pipeline, request.now).await?.is_some();
        let depth = want.permits.min(request.limit);
        let heads = match request.appetite {
            Appetite::Regular => regular_heads(tx, pipeline, request, depth).await?,
            Appetite::OneSuspect => suspect_due(tx, pipeline, request.now).await?.into_iter().collect(),
        };
        if heads.len() < depth {
            leased.next_due = earliest(leased.next_due, next_due(tx, pipeline, request.now).await?);
        }
        queues.push(heads);
    }
    let chosen = take_turns(
        queues,
        request.limit.min(match request.appetite {
            Appetite::Regular => usize::MAX,
            Appetite::OneSuspect => 1,
        }),
    );
    leased.work = mark(tx, request, &chosen, tally).await?;
    Ok(leased)
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

async fn pipeline_id(tx: &mut SqliteConnection, name: &str) -> Result<Option<i64>> {
    let row =
        sqlx::query("SELECT id FROM pipelines WHERE name = ? AND NOT paused").bind(name).fetch_optional(tx).await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// The due jobs of one level; the four levels are four ranges of one index.
const DUE: &str = include_str!("sql/due.sql");

async fn regular_heads(tx: &mut SqliteConnection, pipeline: i64, request: &Request, depth: usize) -> Result<Vec<Head>> {
    let mut heads = Vec::new();
    let depth_rows = i64::try_from(depth).unwrap_or(i64::MAX);
    for level in Priority::ALL {
        let rows = sqlx::query(DUE)
            .bind(pipeline)
            .bind(level.number())
            .bind(request.now.as_millis())
            .bind(depth_rows)
            .fetch_all(&mut *tx)
            .await?;
        for row in rows {
            heads.push(Head { id: row.try_get(0)?, priority: level.number(), run_at: row.try_get(1)? });
        }
    }
    heads.sort_by_key(|head| head.rank(request.now, request.priority_aging));
    heads.truncate(depth);
    Ok(heads)
}

async fn suspect_due(tx: &mut SqliteConnection, pipeline: i64, now: Timestamp) -> Result<Option<Head>> {
    let row = sqlx::query(
        "SELECT id, priority, run_at FROM jobs
         WHERE pipeline = ?1 AND run_at <= ?2
           AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND crashes >= 2
         ORDER BY run_at, id LIMIT 1",
    )
    .bind(pipeline)
    .bind(now.as_millis())
    .fetch_optional(tx)
    .await?;
    row.map(|row| Ok(Head { id: row.try_get(0)?, priority: row.try_get(1)?, run_at: row.try_get(2)? })).transpose()
}

/// When the pipeline's next job becomes due.
async fn next_due(tx: &mut SqliteConnection, pipeline: i64, now: Timestamp) -> Result<Option<Timestamp>> {
    let row = sqlx::query(include_str!("sql/next_due.sql")).bind(pipeline).bind(now.as_millis()).fetch_one(tx).await?;
    Ok(row.try_get::<Option<i64>, _>(0)?.map(Timestamp::from_millis))
}

/// One from each pipeline in turn, each pipeline in its own order.
fn take_turns(queues: Vec<Vec<Head>>, limit: usize) -> Vec<Head> {
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

async fn mark(
    tx: &mut SqliteConnection,
    request: &Request,
    chosen: &[Head],
    tally: &mut Tally,
) -> Result<Vec<(Lease, Work)>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let ids = wire::rows(&chosen.iter().map(|head| head.id).collect::<Vec<_>>())?;
    let rows = sqlx::query(include_str!("sql/work.sql")).bind(&ids).fetch_all(&mut *tx).await?;
    let marked = sqlx::query(include_str!("sql/mark_leased.sql"))
        .bind(&ids)
        .bind(request.boot)
        .bind(request.deadline.as_millis())
        .bind(request.now.as_millis())
        .execute(&mut *tx)
        .await?
        .rows_affected();
    if usize::try_from(marked).unwrap_or(usize::MAX) != rows.len() {
        return Err(StoreError::Other(format!("leased {marked} of {} chosen jobs", rows.len())));
    }
    rows.iter()
        .map(|row| {
            let state: StateName = parse(&row.try_get::<String, _>("state")?)?;
            tally.moved(row.try_get("pipeline_id")?, row.try_get("priority")?, state, StateName::Running);
            let work = read_work(row, request)?;
            let fence = Fence(row.try_get::<i64, _>("fence")? + 1);
            Ok((Lease::new(work.job, fence, request.deadline), work))
        })
        .collect()
}

fn read_work(row: &SqliteRow, request: &Request) -> Result<Work> {
    let (source, path) = source_of(row, JobId(row.try_get("id")?))?;
    let count = |name: &str| -> Result<u32> { Ok(u32::try_from(row.try_get::<i64, _>(name)?).unwrap_or(u32::MAX)) };
    let pipeline: String = row.try_get("pipeline")?;
    let op = parse(&row.try_get::<String, _>("op")?)?;
    let version = row.try_get("version")?;
    let first: Option<i64> = row.try_get("first_started_at")?;
    let spent = Spent {
        attempts: count("attempt")?,
        deferrals: count("deferrals")?,
        first_started_at: first.map_or(request.now, Timestamp::from_millis),
    };
    Ok(Work {
        job: JobId(row.try_get("id")?),
        idempotency_key: IdempotencyKey::derive(&request.incarnation, &pipeline, &source, version, op),
        pipeline,
        source,
        path,
        version,
        op,
        priority: Priority::from_number(row.try_get("priority")?).unwrap_or_default(),
        attempt: spent.attempts.saturating_add(1),
        execution: count("executions")?.saturating_add(1),
        spent,
        suspect: row.try_get::<i64, _>("crashes")? >= 2,
        identity: wire::identity([
            row.try_get("dev")?,
            row.try_get("inode")?,
            row.try_get("source_size")?,
            row.try_get("mtime_ns")?,
            row.try_get("ctime_ns")?,
        ]),
        digest: wire::digest(row.try_get("digest")?)?,
        completed_digest: wire::digest(row.try_get("baseline")?)?,
        metadata: row.try_get("metadata")?,
        disposition: read_disposition(row)?,
    })
}

fn read_disposition(row: &SqliteRow) -> Result<Option<Disposition>> {
    let Some(path) = row.try_get::<Option<Vec<u8>>, _>("d_path")? else { return Ok(None) };
    let error = match row.try_get::<Option<String>, _>("d_error_kind")? {
        None => None,
        Some(kind) => Some(JobError {
            kind: parse(&kind)?,
            message: row.try_get::<Option<String>, _>("d_error_message")?.unwrap_or_default(),
            permanent: true,
        }),
    };
    Ok(Some(Disposition {
        path: wire::path(path),
        private: wire::path(row.try_get("d_private")?),
        target: row.try_get::<Option<Vec<u8>>, _>("d_target")?.map(wire::path),
        identity: wire::identity([
            row.try_get("d_dev")?,
            row.try_get("d_inode")?,
            row.try_get("d_size")?,
            row.try_get("d_mtime_ns")?,
            row.try_get("d_ctime_ns")?,
        ]),
        error,
    }))
}
