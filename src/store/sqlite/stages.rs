//! Stages of jobs. Whether a move leads forward is decided in the transaction that writes it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::error::{Result, StoreError};
use super::super::stages::{NewStage, Reached, StageMoved, StageOrders, StageRefusal, StageTimes, Stages, Whose};
use super::enqueue::SCOPE_KEY;
use super::{SqliteStore, wire};
use crate::clock::Timestamp;
use crate::job::{JobId, StateName};

/// Jobs that are named where several have a name.
const NAMED: usize = 10;

/// Stages that are looked at for their times, the newest jobs' first.
const LOOKED_AT: i64 = 50_000;

/// ?1: the name that the other side gave, ?2: at most so many.
pub(super) const BY_EXTERNAL: &str = "
    SELECT id FROM jobs INDEXED BY jobs_external WHERE external_id = ?1 AND external_id IS NOT NULL ORDER BY id LIMIT ?2";

/// ?1: the scope of callers' keys, ?2: the key, ?3: at most so many. Of each pipeline, the job of the newest version.
pub(super) const BY_CALLERS_KEY: &str = "
    SELECT j.id FROM sources AS s
        CROSS JOIN taken AS t ON t.source = s.id
        CROSS JOIN jobs AS j ON j.id = t.job
    WHERE s.scope = ?1 AND s.identity = CAST(?2 AS BLOB) ORDER BY j.id LIMIT ?3";

/// ?1: the key, ?2: at most so many.
pub(super) const BY_KEY: &str = "
    SELECT id FROM jobs INDEXED BY jobs_key WHERE key = ?1 AND key IS NOT NULL ORDER BY id LIMIT ?2";

/// ?1: the job.
pub(super) const PLACE: &str = "
    SELECT j.fence, j.state, j.stage, p.name FROM jobs AS j CROSS JOIN pipelines AS p ON p.id = j.pipeline
    WHERE j.id = ?1";

/// ?1: the job, ?2: the stage, ?3: the other side's name for it, ?4: what that answered, ?5: its key.
const REACH: &str = "
    UPDATE jobs SET stage = ?2, external_id = coalesce(?3, external_id), result = coalesce(?4, result),
        key = coalesce(?5, key)
    WHERE id = ?1";

/// ?1: since when, ?2: how many of the newest are looked at.
pub(super) const TIMES: &str = "
    SELECT s.job, s.stage, s.at, p.name
    FROM (SELECT job, stage, at FROM job_stages ORDER BY job DESC, stage LIMIT ?2) AS s
        CROSS JOIN jobs AS j ON j.id = s.job
        CROSS JOIN pipelines AS p ON p.id = j.pipeline
    WHERE s.at >= ?1";

#[async_trait]
impl Stages for SqliteStore {
    async fn reach(&self, new: NewStage, orders: StageOrders) -> Result<StageMoved> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (new, orders, now) = (new.clone(), orders.clone(), clock.now());
            Box::pin(async move { reach(tx, &new, &orders, now).await })
        })
        .await
    }

    async fn stages_of(&self, job: JobId) -> Result<Vec<Reached>> {
        let rows: Vec<(String, i64)> = sqlx::query_as("SELECT stage, at FROM job_stages WHERE job = ?1 ORDER BY at")
            .bind(job.0)
            .fetch_all(self.readers())
            .await?;
        Ok(rows.into_iter().map(|(stage, at)| Reached { stage, at: Timestamp::from_millis(at) }).collect())
    }

    async fn stage_times(&self, since: Timestamp) -> Result<Vec<StageTimes>> {
        let rows: Vec<(i64, String, i64, String)> =
            sqlx::query_as(TIMES).bind(since.as_millis()).bind(LOOKED_AT).fetch_all(self.readers()).await?;
        let mut jobs: BTreeMap<(String, i64), Vec<(i64, String)>> = BTreeMap::new();
        for (job, stage, at, pipeline) in rows {
            jobs.entry((pipeline, job)).or_default().push((at, stage));
        }
        let mut steps: BTreeMap<(String, String, String), Vec<i64>> = BTreeMap::new();
        for ((pipeline, _), mut reached) in jobs {
            reached.sort();
            for pair in reached.windows(2) {
                let [(from_at, from), (to_at, to)] = pair else { continue };
                steps.entry((pipeline.clone(), from.clone(), to.clone())).or_default().push(to_at - from_at);
            }
        }
        Ok(steps.into_iter().map(times).collect())
    }
}

fn times(((pipeline, from, to), mut took): ((String, String, String), Vec<i64>)) -> StageTimes {
    took.sort_unstable();
    let percentile = |percent: usize| took.get((took.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(0);
    StageTimes { pipeline, from, to, jobs: took.len() as u64, p50_ms: percentile(50), p95_ms: percentile(95) }
}

/// Where a job stands.
struct Place {
    fence: i64,
    state: StateName,
    stage: Option<String>,
    pipeline: String,
}

async fn reach(tx: &mut SqliteConnection, new: &NewStage, orders: &StageOrders, now: Timestamp) -> Result<StageMoved> {
    let job = match find(tx, &new.whose).await?.as_slice() {
        [] => return Ok(StageMoved::Refused(StageRefusal::NoJob)),
        [job] => *job,
        several => return Ok(StageMoved::Refused(StageRefusal::Several(several.to_vec()))),
    };
    let Some(place) = place(tx, job).await? else { return Ok(StageMoved::Refused(StageRefusal::NoJob)) };
    let runs = place.state == StateName::Running;
    let key = match &new.whose {
        Whose::Execution(claim, _) if !runs || place.fence != claim.fence.0 => return Ok(StageMoved::LeaseLost),
        Whose::Execution(_, key) => Some(key.0.to_vec()),
        _ if place.state != StateName::Completed => {
            return Ok(StageMoved::Refused(StageRefusal::NotCompleted { job, state: place.state }));
        }
        _ => None,
    };
    let order = orders.get(&place.pipeline).cloned().unwrap_or_default();
    let at = |stage: &str| order.iter().position(|declared| declared == stage);
    // A stage that is no longer declared lies before all that are.
    let is = place.stage.as_deref().and_then(at);
    let again = match at(&new.stage) {
        Some(to) if is.is_none_or(|is| to > is) => false,
        Some(to) if is == Some(to) => true,
        _ => {
            let Place { stage: is, pipeline, .. } = place;
            return Ok(StageMoved::Refused(StageRefusal::NotForward { job, pipeline, is, order }));
        }
    };
    // A confirmation counts once; an execution that comes to its stage anew may have a new name for it.
    if !again || key.is_some() {
        write(tx, job, new, key, now).await?;
    }
    Ok(if again { StageMoved::Already { job } } else { StageMoved::Moved { job, from: place.stage } })
}

async fn write(
    tx: &mut SqliteConnection,
    job: JobId,
    new: &NewStage,
    key: Option<Vec<u8>>,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(REACH)
        .bind(job.0)
        .bind(&new.stage)
        .bind(new.external_id.as_deref())
        .bind(new.result.as_deref())
        .bind(key)
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO job_stages (job, stage, at) VALUES (?1, ?2, ?3) ON CONFLICT (job, stage) DO NOTHING")
        .bind(job.0)
        .bind(&new.stage)
        .bind(now.as_millis())
        .execute(tx)
        .await?;
    Ok(())
}

/// The jobs that are meant: more than one only where the name does not tell.
async fn find(tx: &mut SqliteConnection, whose: &Whose) -> Result<Vec<JobId>> {
    let most = wire::count(NAMED);
    let rows: Vec<i64> = match whose {
        Whose::Execution(claim, _) => vec![claim.job.0],
        Whose::Job(job) => vec![job.0],
        Whose::External(name) => sqlx::query_scalar(BY_EXTERNAL).bind(name).bind(most).fetch_all(tx).await?,
        Whose::Key(key) => {
            let found: Vec<i64> =
                sqlx::query_scalar(BY_CALLERS_KEY).bind(SCOPE_KEY).bind(key).bind(most).fetch_all(&mut *tx).await?;
            match (found.is_empty(), wire::unhex(key)) {
                (true, Some(key)) => sqlx::query_scalar(BY_KEY).bind(key).bind(most).fetch_all(tx).await?,
                _ => found,
            }
        }
    };
    Ok(rows.into_iter().map(JobId).collect())
}

async fn place(tx: &mut SqliteConnection, job: JobId) -> Result<Option<Place>> {
    let row = sqlx::query(PLACE).bind(job.0).fetch_optional(tx).await?;
    row.map(|row| {
        let state: String = row.try_get(1)?;
        let state =
            state.parse().map_err(|error| StoreError::Corrupt(format!("the state of a job can't be read: {error}")))?;
        Ok(Place { fence: row.try_get(0)?, state, stage: row.try_get(2)?, pipeline: row.try_get(3)? })
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::super::fixture::{self, NOW};
    use super::*;
    use crate::job::{Fence, IdempotencyKey};
    use crate::store::{Browse as _, Claim};

    const CLAIM: Claim = Claim { job: JobId(1), fence: Fence(5) };

    fn orders() -> StageOrders {
        let stages = ["planned", "sent", "confirmed"].map(str::to_owned).to_vec();
        Arc::new(BTreeMap::from([("documents".to_owned(), stages)]))
    }

    fn to(whose: Whose, stage: &str) -> NewStage {
        NewStage { whose, stage: stage.to_owned(), external_id: None, result: None }
    }

    fn execution(stage: &str) -> NewStage {
        to(Whose::Execution(CLAIM, IdempotencyKey([7; 32])), stage)
    }

    /// Job 1 runs under fence 5, job 2 is completed.
    async fn store(dir: &TempDir) -> Arc<SqliteStore> {
        let store = fixture::store(dir).await;
        fixture::jobs(&store, 1, 1, "state, boot, lease_deadline, started_at, fence", "'running', 1, 5, 6, 5").await;
        fixture::jobs(&store, 2, 1, "state, finished_at", "'completed', 9").await;
        store
    }

    async fn reach(store: &SqliteStore, new: NewStage) -> StageMoved {
        store.reach(new, orders()).await.unwrap()
    }

    fn refusal(moved: StageMoved) -> StageRefusal {
        match moved {
            StageMoved::Refused(why) => why,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[tokio::test]
    async fn an_execution_moves_its_job_forward_only_and_under_its_fence() {
        let dir = TempDir::new().unwrap();
        let store = store(&dir).await;
        let new = NewStage { external_id: Some("x-1".to_owned()), ..execution("sent") };
        assert_eq!(reach(&store, new).await, StageMoved::Moved { job: JobId(1), from: None });
        let new = NewStage { external_id: Some("x-2".to_owned()), ..execution("sent") };
        assert_eq!(reach(&store, new).await, StageMoved::Already { job: JobId(1) });
        let job = store.job(JobId(1)).await.unwrap().unwrap();
        assert_eq!((job.stage.as_deref(), job.external_id.as_deref()), (Some("sent"), Some("x-2")));
        for wrong in ["planned", "unheard-of"] {
            let why = refusal(reach(&store, execution(wrong)).await);
            assert!(
                matches!(why, StageRefusal::NotForward { is: Some(is), order, .. } if is == "sent" && order.len() == 3)
            );
        }
        let stale = Whose::Execution(Claim { fence: Fence(4), ..CLAIM }, IdempotencyKey([7; 32]));
        assert_eq!(reach(&store, to(stale, "confirmed")).await, StageMoved::LeaseLost);
        assert_eq!(
            refusal(reach(&store, to(Whose::Job(JobId(1)), "confirmed")).await),
            StageRefusal::NotCompleted { job: JobId(1), state: StateName::Running }
        );
    }

    #[tokio::test]
    async fn a_confirmation_finds_its_job_by_what_the_other_side_knows_and_counts_once() {
        let dir = TempDir::new().unwrap();
        let store = store(&dir).await;
        let key = IdempotencyKey([7; 32]).to_string();
        reach(&store, NewStage { external_id: Some("12345".to_owned()), ..execution("sent") }).await;
        fixture::sql(
            &store,
            "UPDATE jobs SET state = 'completed', finished_at = 9, boot = NULL, lease_deadline = NULL WHERE id = 1",
        )
        .await;
        let done = NewStage { result: Some("1".to_owned()), ..to(Whose::External("12345".to_owned()), "confirmed") };
        let from = Some("sent".to_owned());
        assert_eq!(reach(&store, done).await, StageMoved::Moved { job: JobId(1), from });
        let again = NewStage { result: Some("2".to_owned()), ..to(Whose::Key(key), "confirmed") };
        assert_eq!(reach(&store, again).await, StageMoved::Already { job: JobId(1) });
        assert_eq!(store.job(JobId(1)).await.unwrap().unwrap().result.as_deref(), Some("1"));
        let stages: Vec<String> = store.stages_of(JobId(1)).await.unwrap().into_iter().map(|r| r.stage).collect();
        assert_eq!(stages.len(), 2);
        assert_eq!(refusal(reach(&store, to(Whose::External("1".to_owned()), "sent")).await), StageRefusal::NoJob);
    }

    #[tokio::test]
    async fn a_name_of_several_jobs_is_refused_with_their_numbers() {
        let dir = TempDir::new().unwrap();
        let store = store(&dir).await;
        fixture::sql(&store, "UPDATE jobs SET external_id = 'x'").await;
        let why = refusal(reach(&store, to(Whose::External("x".to_owned()), "sent")).await);
        assert_eq!(why, StageRefusal::Several(vec![JobId(1), JobId(2)]));
    }

    #[tokio::test]
    async fn a_callers_key_means_the_newest_version_of_its_source() {
        let dir = TempDir::new().unwrap();
        let store = store(&dir).await;
        fixture::sql(
            &store,
            "UPDATE sources SET scope = -1, identity = CAST('order-7' AS BLOB), path = x'61' WHERE id = 2",
        )
        .await;
        let moved = reach(&store, to(Whose::Key("order-7".to_owned()), "sent")).await;
        assert_eq!(moved, StageMoved::Moved { job: JobId(2), from: None });
    }

    #[tokio::test]
    async fn the_times_between_stages_are_told_by_pipeline() {
        let dir = TempDir::new().unwrap();
        let store = store(&dir).await;
        fixture::sql(
            &store,
            "INSERT INTO job_stages VALUES (1, 'sent', 1000), (1, 'planned', 400), (1, 'confirmed', 5000),
                                           (2, 'planned', 500), (2, 'sent', 700)",
        )
        .await;
        let times = store.stage_times(Timestamp::from_millis(0)).await.unwrap();
        let told: Vec<_> = times.iter().map(|t| (t.from.as_str(), t.to.as_str(), t.jobs, t.p50_ms, t.p95_ms)).collect();
        assert_eq!(told, [("planned", "sent", 2, 200, 600), ("sent", "confirmed", 1, 4_000, 4_000)]);
        assert!(store.stage_times(Timestamp::from_millis(NOW)).await.unwrap().is_empty());
    }
}
