//! What earlier runs of a list named and this one did not becomes deletes.
//!
//! Each step takes the next sources by the index over what names them last. Whatever becomes of one, the list names it no
//! longer: so the steps come to an end, and a later run does not ask again.
//!
//! A dry run makes no jobs, and counts once what it would make. What it names is only stamped with its number, where the
//! list named it before: any later run still sees an older one than itself there.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::super::error::{Result, StoreError};
use super::super::super::lists::{Holder, MissingStep};
use super::super::super::queue::{Enqueued, Listed, NewJob};
use super::super::bulk::Bulk;
use super::super::enqueue::{Decided, Intake, Naming, SCOPE_KEY, SCOPE_PATH};
use super::super::tally::Tally;
use super::super::wire;
use super::take::{Halt, Reading, reading};
use crate::clock::Timestamp;
use crate::job::{FileIdentity, Op, Priority, SourceKey};
use crate::run::RunId;

/// ?1: the list, ?2: the run, ?3: its pipeline, ?4: at most so many.
pub(in crate::store::sqlite) const MISSING: &str = "
    SELECT t.source, t.pipeline, s.scope, s.identity, s.path
    FROM taken AS t INDEXED BY taken_list CROSS JOIN sources AS s ON s.id = t.source
    WHERE t.list = ?1 AND t.list_run < ?2 AND t.list IS NOT NULL
        AND t.pipeline = (SELECT id FROM pipelines WHERE name = ?3)
    LIMIT ?4";

/// ?1: the list, ?2: the run. Whether it names anything that is there.
const NAMES_ANYTHING: &str = "
    SELECT EXISTS (SELECT 1 FROM taken AS t INDEXED BY taken_list CROSS JOIN sources AS s ON s.id = t.source
                   WHERE t.list = ?1 AND t.list_run = ?2 AND t.list IS NOT NULL AND s.presence = 'present')";

static UNNAME: Bulk = Bulk::new(
    "WITH v(source, pipeline) AS (ROWS)
     UPDATE taken SET list = NULL, list_run = NULL FROM v
     WHERE taken.source = v.source AND taken.pipeline = v.pipeline",
    2,
);

/// ?1: the list, ?2: the run, ?3: its pipeline.
pub(in crate::store::sqlite) const COUNT_MISSING: &str = "
    SELECT count(*) FROM taken INDEXED BY taken_list
    WHERE list = ?1 AND list_run < ?2 AND list IS NOT NULL AND pipeline = (SELECT id FROM pipelines WHERE name = ?3)";

static SPARE: Bulk = Bulk::new(
    "WITH shared(list, run) AS (SELECT ?, ?), v(source, pipeline) AS (ROWS)
     UPDATE taken SET list_run = (SELECT run FROM shared) FROM v
     WHERE taken.source = v.source AND taken.pipeline = v.pipeline AND taken.list = (SELECT list FROM shared)",
    2,
);

/// A dry run names these sources: they are not missing from its list.
pub(super) async fn spare(tx: &mut SqliteConnection, naming: Naming, named: &[(i64, i64)]) -> Result<()> {
    SPARE
        .execute(tx, &[naming.list, naming.run], named, |values, (source, pipeline)| {
            values.push(*source).push(*pipeline);
        })
        .await?;
    Ok(())
}

/// Counts what a dry run would delete. Asked again, it counts the same and says that nothing is left to do.
async fn count(tx: &mut SqliteConnection, id: RunId, run: &Reading, now: Timestamp) -> Result<MissingStep> {
    let (deletes, counted): (i64, i64) = (
        sqlx::query_scalar(COUNT_MISSING).bind(run.list).bind(id.0).bind(&run.pipeline).fetch_one(&mut *tx).await?,
        sqlx::query_scalar("SELECT deletes FROM runs WHERE id = ?1").bind(id.0).fetch_one(&mut *tx).await?,
    );
    if deletes == counted {
        return Ok(MissingStep::Over);
    }
    sqlx::query("UPDATE runs SET enqueued = enqueued - deletes + ?2, deletes = ?2, updated_at = ?3 WHERE id = ?1")
        .bind(id.0)
        .bind(deletes)
        .bind(now.as_millis())
        .execute(tx)
        .await?;
    Ok(MissingStep::More(u64::try_from(deletes).unwrap_or(0)))
}

pub(super) async fn step(
    tx: &mut SqliteConnection,
    id: RunId,
    holder: &Holder,
    limit: usize,
    intake: &Intake,
    now: Timestamp,
    tally: &mut Tally,
) -> Result<MissingStep> {
    let run = match reading(tx, id, holder).await? {
        Ok(run) => run,
        Err(Halt::NotRunning(state)) => return Ok(MissingStep::NotRunning(state)),
        Err(Halt::TakenOver) => return Ok(MissingStep::TakenOver),
    };
    refuse(&run)?;
    if !run.delete_missing {
        return Ok(MissingStep::Over);
    }
    if run.dry_run {
        return count(tx, id, &run, now).await;
    }
    if !sqlx::query_scalar::<_, bool>(NAMES_ANYTHING).bind(run.list).bind(id.0).fetch_one(&mut *tx).await? {
        return Err(refusal("the list names nothing that is there"));
    }
    let rows = sqlx::query(MISSING)
        .bind(run.list)
        .bind(id.0)
        .bind(&run.pipeline)
        .bind(wire::count(limit))
        .fetch_all(&mut *tx)
        .await?;
    if rows.is_empty() {
        return Ok(MissingStep::Over);
    }
    let jobs: Vec<NewJob> = rows.iter().map(|row| delete(row, id, &run.pipeline)).collect::<Result<_>>()?;
    let jobs: Vec<&NewJob> = jobs.iter().collect();
    let naming = Naming { list: run.list, run: id.0 };
    let Decided::All { answers, .. } = intake.write_lines(tx, &jobs, naming, None, tally).await? else {
        return Err(StoreError::Other("a delete was not decided".to_owned()));
    };
    let places = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<Vec<(i64, i64)>>>()?;
    UNNAME
        .execute(tx, &[], &places, |values, (source, pipeline)| {
            values.push(*source).push(*pipeline);
        })
        .await?;
    let new = answers.iter().filter(|answer| matches!(answer, Enqueued::New { .. })).count();
    sqlx::query("UPDATE runs SET enqueued = enqueued + ?2, deletes = deletes + ?2, updated_at = ?3 WHERE id = ?1")
        .bind(id.0)
        .bind(wire::count(new))
        .bind(now.as_millis())
        .execute(tx)
        .await?;
    Ok(MissingStep::More(u64::try_from(new).unwrap_or(u64::MAX)))
}

/// A list that says nothing, or that can't be understood, says nothing about what is gone.
fn refuse(run: &Reading) -> Result<()> {
    let why = match (run.processed, run.bad_lines) {
        (0, _) => "the list is empty".to_owned(),
        (_, 0) => return Ok(()),
        (_, bad) => format!("{bad} of its lines can't be understood"),
    };
    Err(refusal(&why))
}

fn refusal(why: &str) -> StoreError {
    StoreError::Refused(format!("{why}, so nothing is taken for missing from it, and nothing was deleted"))
}

fn delete(row: &SqliteRow, run: RunId, pipeline: &str) -> Result<NewJob> {
    let identity: Vec<u8> = row.try_get("identity")?;
    let source = match row.try_get::<i64, _>("scope")? {
        SCOPE_PATH => SourceKey::Path(wire::path(identity)),
        SCOPE_KEY => SourceKey::Keyed {
            key: String::from_utf8(identity)
                .map_err(|_| StoreError::Corrupt("the key of a source is not text".to_owned()))?,
            path: wire::path(row.try_get("path")?),
        },
        scope => return Err(StoreError::Corrupt(format!("a list names a source of watch {scope}"))),
    };
    Ok(NewJob {
        source,
        pipeline: pipeline.to_owned(),
        priority: Priority::default(),
        run_at: None,
        identity: FileIdentity::default(),
        digest: None,
        metadata: None,
        force: false,
        note_only: false,
        renamed: None,
        listed: Some(Box::new(Listed { run, line: 0, repo: None, op: Some(Op::Delete), content: None })),
    })
}
