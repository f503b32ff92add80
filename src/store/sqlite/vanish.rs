//! A watched file is gone: it is noted, what waited for it becomes moot, and where the watch asks for deletes
//! and some version was ever started, the delete becomes a version of its own.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::error::Result;
use super::super::queue::{Gone, Vanished};
use super::catalog::{Numbers, pipeline_ids, watch_ids};
use super::enqueue::parse;
use super::tally::Tally;
use super::wire;
use crate::clock::Timestamp;
use crate::job::{JobId, StateName};

/// A gone file with what is known of it.
struct Loss {
    source: i64,
    pipeline: i64,
    /// The newest job: id, state, level, executions, whether its file is on its way.
    job: Option<(i64, StateName, i64, i64, bool)>,
    /// The run of that job.
    run: Option<i64>,
    /// The pipeline's job of the source that runs or has its file on its way, whichever version it is.
    in_the_way: Option<i64>,
    started: bool,
    version: i64,
}

/// ?1: the watch, ?2: relative to its root, ?3: the pipeline.
pub(super) const LOSS: &str = "
    SELECT s.id, s.version, t.started, j.id, j.state, j.priority, iif(j.reason IS 'duplicate', 0, j.executions),
           EXISTS (SELECT 1 FROM dispositions AS d WHERE d.job = j.id),
           coalesce((SELECT r.id FROM jobs AS r
                     WHERE r.source = s.id AND r.pipeline = t.pipeline AND r.state = 'running'),
                    (SELECT m.id FROM dispositions AS w CROSS JOIN jobs AS m ON m.id = w.job
                     WHERE m.source = s.id AND m.pipeline = t.pipeline)) AS in_the_way,
           j.run
    FROM sources AS s
    LEFT JOIN taken AS t ON t.source = s.id AND t.pipeline = ?3
    LEFT JOIN jobs AS j ON j.id = t.job
    WHERE s.scope = ?1 AND s.identity = ?2 AND s.presence = 'present'";

pub(super) async fn vanish(
    tx: &mut SqliteConnection,
    gone: &[Gone],
    now: Timestamp,
    tally: &mut Tally,
) -> Result<Vec<Vanished>> {
    let pipelines = pipeline_ids(tx, gone.iter().map(|gone| gone.pipeline.as_str()).collect()).await?;
    let watches = watch_ids(tx, gone.iter().map(|gone| gone.watch.as_str()).collect()).await?;
    let mut numbers = Numbers::read(tx).await?;
    let mut answers = Vec::with_capacity(gone.len());
    for gone in gone {
        let (Some(&pipeline), Some(&scope)) = (pipelines.get(&gone.pipeline), watches.get(&gone.watch)) else {
            answers.push(Vanished::Nothing);
            continue;
        };
        let Some(loss) = look_up(tx, scope, gone, pipeline).await? else {
            answers.push(Vanished::Nothing);
            continue;
        };
        let delete = (gone.wants_job && loss.started).then(|| numbers.take_job());
        forget_waiting(tx, &loss, delete, now, tally).await?;
        answers.push(match delete {
            Some(id) => {
                insert_delete(tx, id, &loss, gone, now, tally).await?;
                Vanished::New { id: JobId(id) }
            }
            None => Vanished::Noted,
        });
        note_gone(tx, &loss, delete.is_some(), now).await?;
    }
    Ok(answers)
}

async fn look_up(tx: &mut SqliteConnection, scope: i64, gone: &Gone, pipeline: i64) -> Result<Option<Loss>> {
    let row =
        sqlx::query(LOSS).bind(scope).bind(wire::path_bytes(&gone.relative)).bind(pipeline).fetch_optional(tx).await?;
    let Some(row) = row else { return Ok(None) };
    let job = match row.try_get::<Option<i64>, _>(3)? {
        None => None,
        Some(id) => Some((
            id,
            parse::<StateName>(&row.try_get::<String, _>(4)?)?,
            row.try_get(5)?,
            row.try_get::<i64, _>(6)?,
            row.try_get(7)?,
        )),
    };
    let started = row.try_get::<Option<bool>, _>(2)?.unwrap_or(false) || job.is_some_and(|job| job.3 > 0);
    let (in_the_way, run) = (row.try_get("in_the_way")?, row.try_get("run")?);
    Ok(Some(Loss { source: row.try_get(0)?, version: row.try_get(1)?, pipeline, job, run, in_the_way, started }))
}

/// A waiting job is superseded by its delete; one that was never started is moot without one. One whose file is on its
/// way is brought to its end first.
async fn forget_waiting(
    tx: &mut SqliteConnection,
    loss: &Loss,
    delete: Option<i64>,
    now: Timestamp,
    tally: &mut Tally,
) -> Result<()> {
    let Some((id, state, priority, executions, moving)) = loss.job else { return Ok(()) };
    if !state.is_waiting() || moving || (delete.is_none() && executions > 0) {
        return Ok(());
    }
    sqlx::query(
        "UPDATE jobs SET state = 'skipped', finished_at = ?2, blocked_by = NULL, held_by = NULL, superseded_by = ?3,
                reason = CASE WHEN ?3 IS NULL THEN 'vanished' ELSE 'superseded' END
         WHERE id = ?1 AND state IN ('pending', 'retrying')",
    )
    .bind(id)
    .bind(now.as_millis())
    .bind(delete)
    .execute(tx)
    .await?;
    tally.moved(loss.pipeline, priority, state, StateName::Skipped);
    tally.of_run(loss.run, Some(state), StateName::Skipped);
    Ok(())
}

async fn insert_delete(
    tx: &mut SqliteConnection,
    id: i64,
    loss: &Loss,
    gone: &Gone,
    now: Timestamp,
    tally: &mut Tally,
) -> Result<()> {
    let superseded = loss.job.filter(|(_, state, _, _, moving)| state.is_waiting() && !moving);
    let priority = gone.priority.number().max(superseded.map_or(0, |job| job.2));
    sqlx::query(
        // A job that should have told of another name and never ran leaves that to the delete.
        "INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, blocked_by, size,
                           moved_from)
         VALUES (?1, ?2, ?3, ?4, 'delete', ?5, 'pending', ?6, ?6, ?7, 0,
                 (SELECT m.moved_from FROM jobs AS m
                  WHERE m.id = ?8 AND (m.superseded_by = ?1 OR m.reason = 'vanished'
                                       OR (m.state = 'failed' AND m.error_kind = 'vanished'))))",
    )
    .bind(id)
    .bind(loss.source)
    .bind(loss.pipeline)
    .bind(loss.version + 1)
    .bind(priority)
    .bind(now.as_millis())
    .bind(loss.in_the_way)
    .bind(loss.job.map(|job| job.0))
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE taken SET version = ?3, job = ?4, started = 1 WHERE source = ?1 AND pipeline = ?2")
        .bind(loss.source)
        .bind(loss.pipeline)
        .bind(loss.version + 1)
        .bind(id)
        .execute(tx)
        .await?;
    tally.born(loss.pipeline, StateName::Pending, priority);
    Ok(())
}

async fn note_gone(tx: &mut SqliteConnection, loss: &Loss, deleted: bool, now: Timestamp) -> Result<()> {
    // After a delete the content's digest says nothing any more: the same content arriving again is new.
    sqlx::query(
        "UPDATE sources SET presence = 'vanished', gone_at = ?2, version = version + ?3,
                digest = iif(?3, NULL, digest), digest_version = iif(?3, NULL, digest_version)
         WHERE id = ?1",
    )
    .bind(loss.source)
    .bind(now.as_millis())
    .bind(i64::from(deleted))
    .execute(tx)
    .await?;
    Ok(())
}
