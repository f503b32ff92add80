//! The end of an execution, guarded by job, state and fence.
//!
//! 1. One query finds, of the asked ends, those whose lease still stands; the others are *lease lost*.
//! 2. A job is never tried again once a newer version came: what would be another try becomes `skipped`. Only a file
//!    on its way is brought to its end first.
//! 3. States, history, output, what is known of the content, and the release of the newer version are written
//!    as a handful of set-based statements.

use std::sync::Arc;

use serde::Serialize;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::error::Result;
use super::super::queue::{Settled, Settlement};
use super::tally::{End, Tally};
use super::wire;
use crate::clock::{Clock, Timestamp, millis};
use crate::job::{JobId, SkipReason, StateName, Verdict};

/// Writes ends of executions.
#[derive(Debug)]
pub(super) struct Ends {
    clock: Arc<dyn Clock>,
}

/// What the table says about an execution whose lease stands.
struct Held {
    source: i64,
    pipeline: i64,
    priority: i64,
    /// The job of the newest version, if that is another.
    successor: Option<i64>,
    /// Whether its file is on its way.
    moving: bool,
}

/// A row of the update: the job's new facts.
#[derive(Default, Serialize)]
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
    size: Option<u64>,
    digest: Option<String>,
    clear_error: bool,
    error_kind: Option<&'static str>,
    error_message: Option<&'a str>,
    error_permanent: Option<bool>,
    outcome: &'static str,
    duration_ms: i64,
    code: Option<i32>,
}

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
        if ends.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let held = held(tx, &ends).await?;
        let mut rows = Rows::default();
        let mut answers = Vec::with_capacity(ends.len());
        for (end, held) in ends.iter().zip(held) {
            answers.push(match held {
                None => Settled::LeaseLost,
                Some(held) => Settled::As(rows.add(end, &held, now, tally)),
            });
        }
        rows.write(tx).await?;
        Ok(answers)
    }
}

async fn held(tx: &mut SqliteConnection, ends: &[&Settlement]) -> Result<Vec<Option<Held>>> {
    let asked: Vec<_> = ends.iter().map(|end| (end.lease.job(), end.lease.fence())).collect();
    let rows = sqlx::query(
        "SELECT asked.key, j.source, j.pipeline, j.priority, t.job AS successor, d.job IS NOT NULL AS moving
         FROM json_each(?) AS asked
         CROSS JOIN jobs AS j ON j.id = asked.value ->> 0 AND j.fence = asked.value ->> 1 AND j.state = 'running'
         LEFT JOIN taken AS t ON t.source = j.source AND t.pipeline = j.pipeline AND t.job <> j.id
         LEFT JOIN dispositions AS d ON d.job = j.id",
    )
    .bind(wire::rows(&asked)?)
    .fetch_all(tx)
    .await?;
    let mut held: Vec<Option<Held>> = ends.iter().map(|_| None).collect();
    for row in &rows {
        if let Some(slot) = held.get_mut(usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX)) {
            *slot = Some(read_held(row)?);
        }
    }
    Ok(held)
}

fn read_held(row: &SqliteRow) -> Result<Held> {
    Ok(Held {
        source: row.try_get("source")?,
        pipeline: row.try_get("pipeline")?,
        priority: row.try_get("priority")?,
        successor: row.try_get("successor")?,
        moving: row.try_get("moving")?,
    })
}

/// What a transaction writes about the ends.
#[derive(Default)]
struct Rows<'a> {
    jobs: Vec<JobEnd<'a>>,
    contents: Vec<(i64, i64, [i64; 5], String)>,
    outputs: Vec<(i64, &'a [u8])>,
    unblocked: Vec<(i64, Option<String>)>,
}

impl<'a> Rows<'a> {
    fn add(&mut self, end: &'a Settlement, held: &Held, now: Timestamp, tally: &mut Tally) -> StateName {
        let (id, mut row) = (end.lease.job(), job_end(end));
        if let (Some(successor), true, false) = (held.successor, row.finished_at.is_none(), held.moving) {
            row.state = StateName::Skipped.as_str();
            (row.run_at, row.finished_at) = (None, Some(row.ended_at));
            (row.reason, row.superseded_by) = (Some("superseded"), Some(successor));
        }
        let state = if row.state == "skipped" { StateName::Skipped } else { state_after(&end.verdict) };
        let digest = end.content.map(|content| wire::hex(&content.digest.to_bytes()));
        if let (Some(content), Some(digest)) = (&end.content, &digest) {
            self.contents.push((held.source, id.0, wire::identity_columns(&content.identity), digest.clone()));
        }
        if !end.output.is_empty() {
            self.outputs.push((id.0, &end.output));
        }
        if held.successor.is_some() && row.finished_at.is_some() {
            self.unblocked.push((id.0, digest.filter(|_| end.verdict == Verdict::Complete)));
            tally.unblocked();
        }
        tally.moved(held.pipeline, held.priority, StateName::Running, state);
        let busy_ms = millis(end.duration);
        match &end.verdict {
            Verdict::Complete => tally.ended(held.pipeline, now, End::Completed, busy_ms),
            Verdict::Fail { .. } => tally.ended(held.pipeline, now, End::Failed, busy_ms),
            Verdict::Retry { .. } => tally.ended(held.pipeline, now, End::Retried, busy_ms),
            _ => {}
        }
        self.jobs.push(row);
        state
    }

    async fn write(&self, tx: &mut SqliteConnection) -> Result<()> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let jobs = wire::rows(&self.jobs)?;
        // The history first: it reads what the execution was before the job moves on.
        sqlx::query(include_str!("sql/insert_attempts.sql")).bind(&jobs).execute(&mut *tx).await?;
        for (id, output) in &self.outputs {
            sqlx::query(
                "INSERT OR IGNORE INTO outputs (job, seq, output) SELECT id, executions, ?2 FROM jobs WHERE id = ?1",
            )
            .bind(id)
            .bind(*output)
            .execute(&mut *tx)
            .await?;
        }
        if !self.contents.is_empty() {
            let sql = include_str!("sql/note_content.sql");
            sqlx::query(sql).bind(wire::rows(&self.contents)?).execute(&mut *tx).await?;
        }
        sqlx::query(include_str!("sql/end_jobs.sql")).bind(&jobs).execute(&mut *tx).await?;
        // A file that could not be moved yet keeps its intent: the next attempt goes on there.
        sqlx::query(
            "DELETE FROM dispositions
             WHERE job IN (SELECT value ->> 'id' FROM json_each(?) WHERE value ->> 'finished_at' IS NOT NULL)",
        )
        .bind(&jobs)
        .execute(&mut *tx)
        .await?;
        if !self.unblocked.is_empty() {
            sqlx::query(
                "UPDATE jobs SET blocked_by = NULL, baseline = coalesce(unhex(v.value ->> 1), baseline)
                 FROM json_each(?) AS v WHERE jobs.blocked_by = v.value ->> 0",
            )
            .bind(wire::rows(&self.unblocked)?)
            .execute(tx)
            .await?;
        }
        Ok(())
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

/// The job's new facts, as the verdict has them.
fn job_end(end: &Settlement) -> JobEnd<'_> {
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
        size: end.content.map(|content| content.identity.size),
        digest: end.content.map(|content| wire::hex(&content.digest.to_bytes())),
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
        Verdict::Retry { run_at, .. } | Verdict::Defer { run_at, .. } => row.run_at = Some(run_at.as_millis()),
        Verdict::Skip(reason) => {
            row.reason = Some(reason.as_str());
            if let SkipReason::Superseded { by: JobId(by) } = reason {
                row.superseded_by = Some(*by);
            }
        }
        _ => {}
    }
    row
}
