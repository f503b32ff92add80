//! The rows that a round of enqueues writes, and where a new version stands in the queue.

use sqlx::sqlite::SqliteConnection;

use super::super::super::error::Result;
use super::super::super::queue::NewJob;
use super::super::tally::Tally;
use super::super::wire;
use super::Asked;
use super::known::{Known, Taken};
use crate::clock::Timestamp;
use crate::job::{Digest, JobId, Op, SourceKey, StateName};

/// The rows that a round writes.
#[derive(Default)]
pub(super) struct Plan<'a> {
    pub(super) sources: Vec<(i64, i64, &'a str, Option<String>, [i64; 5], Option<String>, i64)>,
    pub(super) touched: Vec<(i64, [i64; 5], i64, Option<String>, Option<String>)>,
    pub(super) jobs: Vec<JobRow<'a>>,
    pub(super) superseded: Vec<(i64, i64)>,
    pub(super) noted: Vec<Noted>,
}

/// What `taken` holds of a source that was only noted.
pub(super) const NO_JOB: i64 = 0;

#[derive(serde::Serialize)]
pub(super) struct Noted {
    pub(super) source: i64,
    pub(super) pipeline: i64,
    pub(super) version: i64,
    pub(super) id: i64,
    pub(super) started: bool,
}

#[derive(serde::Serialize)]
pub(super) struct JobRow<'a> {
    pub(super) id: i64,
    pub(super) source: i64,
    pub(super) pipeline: i64,
    pub(super) version: i64,
    pub(super) op: &'static str,
    pub(super) priority: i64,
    pub(super) run_at: i64,
    pub(super) blocked_by: Option<i64>,
    pub(super) size: u64,
    pub(super) digest: Option<String>,
    pub(super) metadata: Option<&'a str>,
    pub(super) started: bool,
}

impl<'a> Plan<'a> {
    pub(super) fn first(&mut self, source: i64, asked: &Asked<'a>, version: i64) {
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
    pub(super) fn note(&mut self, source: i64, asked: &Asked<'a>, version: i64) {
        self.first(source, asked, version);
        self.noted.push(Noted { source, pipeline: asked.key.pipeline, version, id: NO_JOB, started: false });
    }

    pub(super) fn touch(&mut self, source: i64, asked: &Asked<'a>, version: i64, digest: Option<Digest>) {
        self.touched.push((
            source,
            wire::identity_columns(&asked.job.identity),
            version,
            digest.map(|digest| wire::hex(&digest.to_bytes())),
            own_path(&asked.job.source),
        ));
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

    pub(super) async fn write(&self, tx: &mut SqliteConnection, now: Timestamp) -> Result<()> {
        if !self.sources.is_empty() {
            let sql = include_str!("../sql/insert_sources.sql");
            sqlx::query(sql).bind(wire::rows(&self.sources)?).execute(&mut *tx).await?;
        }
        if !self.touched.is_empty() {
            let sql = include_str!("../sql/touch_sources.sql");
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
            sqlx::query(include_str!("../sql/note_taken.sql")).bind(wire::rows(&self.noted)?).execute(&mut *tx).await?;
        }
        if !self.jobs.is_empty() {
            insert_jobs(tx, &wire::rows(&self.jobs)?, now).await?;
        }
        Ok(())
    }
}

/// Inserts jobs and notes them as the newest of their sources.
pub(super) async fn insert_jobs(tx: &mut SqliteConnection, rows: &str, now: Timestamp) -> Result<()> {
    sqlx::query(include_str!("../sql/insert_jobs.sql")).bind(rows).bind(now.as_millis()).execute(&mut *tx).await?;
    sqlx::query(include_str!("../sql/note_taken.sql")).bind(rows).execute(tx).await?;
    Ok(())
}

pub(super) fn own_path(source: &SourceKey) -> Option<String> {
    match source {
        SourceKey::Keyed { path, .. } => Some(wire::hex_path(path)),
        _ => None,
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
