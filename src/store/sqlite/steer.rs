//! A person's hand on the queue. Rows are few, so they are decided one by one, in one transaction.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::accounts::Succession;
use super::super::error::Result;
use super::super::steer::{Steered, Steering};
use super::SqliteStore;
use super::enqueue::{NO_JOB, parse};
use super::tally::Tally;
use crate::clock::Timestamp;
use crate::job::{JobId, Priority, StateName};

#[async_trait]
impl Steering for SqliteStore {
    async fn retry(&self, jobs: Vec<JobId>) -> Result<Vec<Steered>> {
        self.steer(jobs, Hand::Retry).await
    }

    async fn cancel(&self, jobs: Vec<JobId>) -> Result<Vec<Steered>> {
        self.steer(jobs, Hand::Cancel).await
    }

    async fn prioritize(&self, jobs: Vec<JobId>, priority: Priority) -> Result<Vec<Steered>> {
        self.steer(jobs, Hand::Prioritize(priority)).await
    }
}

#[derive(Clone, Copy, Debug)]
enum Hand {
    Retry,
    Cancel,
    Prioritize(Priority),
}

/// What the table says about a job that a person named.
struct Named {
    id: JobId,
    pipeline: i64,
    priority: i64,
    state: StateName,
    newest: Option<i64>,
    moving: bool,
    run: Option<i64>,
}

impl SqliteStore {
    async fn steer(&self, jobs: Vec<JobId>, hand: Hand) -> Result<Vec<Steered>> {
        let clock = self.clock.clone();
        self.write_counted(move |tx, tally| {
            let (jobs, now) = (jobs.clone(), clock.now());
            Box::pin(async move {
                let mut answers = Vec::with_capacity(jobs.len());
                for id in jobs {
                    answers.push(match look_up(tx, id).await? {
                        None => Steered::Unknown,
                        Some(job) => apply(tx, &job, hand, now, tally).await?,
                    });
                }
                Ok(answers)
            })
        })
        .await
    }
}

/// ?1: the job.
pub(super) const NAMED: &str = "
    SELECT j.pipeline, j.priority, j.state, t.job AS newest, d.job IS NOT NULL AS moving, j.run
    FROM jobs AS j
    LEFT JOIN taken AS t ON t.source = j.source AND t.pipeline = j.pipeline
    LEFT JOIN dispositions AS d ON d.job = j.id
    WHERE j.id = ?1";

async fn look_up(tx: &mut SqliteConnection, id: JobId) -> Result<Option<Named>> {
    let row = sqlx::query(NAMED).bind(id.0).fetch_optional(tx).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Named {
        id,
        pipeline: row.try_get("pipeline")?,
        priority: row.try_get("priority")?,
        state: parse(&row.try_get::<String, _>("state")?)?,
        newest: row.try_get("newest")?,
        moving: row.try_get("moving")?,
        run: row.try_get("run")?,
    }))
}

async fn apply(
    tx: &mut SqliteConnection,
    job: &Named,
    hand: Hand,
    now: Timestamp,
    tally: &mut Tally,
) -> Result<Steered> {
    match (hand, job.state) {
        (Hand::Retry, StateName::Failed | StateName::Cancelled) => reopen(tx, job, now, tally).await,
        (Hand::Retry, StateName::Retrying | StateName::Pending) => {
            sqlx::query("UPDATE jobs SET run_at = min(run_at, ?2) WHERE id = ?1")
                .bind(job.id.0)
                .bind(now.as_millis())
                .execute(tx)
                .await?;
            tally.unblocked();
            Ok(Steered::Done)
        }
        (Hand::Retry | Hand::Cancel, StateName::Running) => Ok(Steered::Running),
        (Hand::Cancel, StateName::Pending | StateName::Retrying) if job.moving => Ok(Steered::Refused(
            "its processor is done, and its file is on its way to where `on_success` or `on_failure` send it"
                .to_owned(),
        )),
        (Hand::Cancel, StateName::Pending | StateName::Retrying) => cancel(tx, job, now, tally).await,
        (Hand::Prioritize(level), StateName::Pending | StateName::Retrying) => {
            sqlx::query("UPDATE jobs SET priority = ?2 WHERE id = ?1")
                .bind(job.id.0)
                .bind(level.number())
                .execute(tx)
                .await?;
            tally.add(job.pipeline, job.state, job.priority, -1);
            tally.add(job.pipeline, job.state, level.number(), 1);
            Ok(Steered::Done)
        }
        (_, state) => Ok(Steered::Refused(format!("it is {state}"))),
    }
}

/// How a job stands to the newest that its pipeline was given of its source.
pub(super) fn succession(job: JobId, newest: Option<i64>) -> Succession {
    match newest {
        Some(NO_JOB) => Succession::AnotherFile,
        Some(newest) if newest != job.0 => Succession::Job(JobId(newest)),
        _ => Succession::Newest,
    }
}

/// A final job becomes pending with a fresh budget, unless its source has moved on. An older version that still runs
/// comes to its end first.
async fn reopen(tx: &mut SqliteConnection, job: &Named, now: Timestamp, tally: &mut Tally) -> Result<Steered> {
    let refused = match succession(job.id, job.newest) {
        Succession::Newest => None,
        Succession::Job(newer) => Some(format!("a newer version of its source is job {newer}; retry that one")),
        Succession::AnotherFile => {
            Some("another file has its name by now; add that one if it shall be processed".to_owned())
        }
    };
    if let Some(why) = refused {
        return Ok(Steered::Refused(why));
    }
    sqlx::query(
        "INSERT INTO attempts (job, seq, source, pipeline, priority, outcome, spent, due_at, started_at, finished_at, duration_ms)
         SELECT id, executions, source, pipeline, priority, 'reopened', 0, ?2, ?2, ?2, 0 FROM jobs WHERE id = ?1",
    )
    .bind(job.id.0)
    .bind(now.as_millis())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE jobs SET state = 'pending', run_at = ?2, finished_at = NULL, first_started_at = NULL,
                attempt = 0, deferrals = 0, crashes = 0, crashes_alone = 0,
                blocked_by = coalesce(
                    (SELECT r.id FROM jobs AS r
                     WHERE r.source = jobs.source AND r.pipeline = jobs.pipeline AND r.state = 'running'),
                    (SELECT m.id FROM dispositions AS w CROSS JOIN jobs AS m ON m.id = w.job
                     WHERE m.source = jobs.source AND m.pipeline = jobs.pipeline))
         WHERE id = ?1",
    )
    .bind(job.id.0)
    .bind(now.as_millis())
    .execute(&mut *tx)
    .await?;
    tally.moved(job.pipeline, job.priority, job.state, StateName::Pending);
    if job.run.is_some() {
        // A run that was cancelled follows its jobs again, or what is opened now would be cancelled with the rest.
        sqlx::query(
            "UPDATE runs SET state = 'running', finished_at = NULL, cancelling = NULL WHERE id = ?1 AND state = 'cancelled'",
        )
        .bind(job.run)
        .execute(tx)
        .await?;
    }
    tally.of_run(job.run, Some(job.state), StateName::Pending);
    Ok(Steered::Done)
}

async fn cancel(tx: &mut SqliteConnection, job: &Named, now: Timestamp, tally: &mut Tally) -> Result<Steered> {
    sqlx::query(
        "UPDATE jobs SET state = 'cancelled', finished_at = ?2, blocked_by = NULL, held_by = NULL WHERE id = ?1",
    )
    .bind(job.id.0)
    .bind(now.as_millis())
    .execute(tx)
    .await?;
    tally.moved(job.pipeline, job.priority, job.state, StateName::Cancelled);
    tally.of_run(job.run, Some(job.state), StateName::Cancelled);
    Ok(Steered::Done)
}
