//! The ledger of effects. Each call of an execution is one statement, which asks for the lease too.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::effects::{AbandonedEffects, EffectBegun, EffectCommitted, EffectResolved, Effects, Resolution};
use super::super::error::{Result, StoreError};
use super::super::lease::Claim;
use super::{SqliteStore, wire};
use crate::clock::Timestamp;
use crate::job::{CanonicalJson, Effect, EffectId, EffectKey, EffectState, Fence, JobId, Step};

/// Effects that one job may have.
const LARGEST_LEDGER: i64 = 10_000;

/// Failed jobs with unknown effects that are counted.
const COUNTED: i64 = 1_000;

/// ?1: the job, ?2: its fence, ?3: the step, ?4: the key, ?5: the kind, ?6: the context, ?7: now, ?8: how many a job may
/// have. The state that it answers says what follows: `begun` only where the row is new, so that of two who begin at once
/// one is told to run. Nothing is answered where the lease does not stand.
pub(super) const BEGIN: &str = "
    INSERT INTO effects (job, step, key, kind, context, state, fence, begun_at)
    SELECT j.id, ?3, ?4, ?5, ?6, 'begun', ?2, ?7 FROM jobs AS j
    WHERE j.id = ?1 AND j.fence = ?2 AND j.state = 'running'
        AND (NOT EXISTS (SELECT 1 FROM effects WHERE job = ?1 LIMIT 1 OFFSET ?8 - 1)
             OR EXISTS (SELECT 1 FROM effects WHERE job = ?1 AND step = ?3))
    ON CONFLICT (job, step) DO UPDATE SET
        state = iif(state = 'done', 'done', 'unknown'),
        fence = iif(state = 'done', fence, excluded.fence),
        ended_at = coalesce(ended_at, ?7)
    RETURNING id, state, key, result";

/// ?1: the job, ?2: its fence, ?3: the effect, ?4: the result, ?5: now.
pub(super) const COMMIT: &str = "
    UPDATE effects SET state = 'done', result = ?4, ended_at = ?5
    WHERE id = ?3 AND job = ?1 AND fence = ?2 AND state <> 'done'
        AND EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND fence = ?2 AND state = 'running')";

/// ?1: the job, ?2: its fence, ?3: the effect.
pub(super) const WITHDRAW: &str = "
    DELETE FROM effects
    WHERE id = ?3 AND job = ?1 AND fence = ?2 AND state <> 'done'
        AND EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND fence = ?2 AND state = 'running')";

/// Whether there is an intent whose execution is over.
pub(super) const ANY_ABANDONED: &str = "
    SELECT 1 FROM effects AS e INDEXED BY effects_begun
    WHERE e.state = 'begun'
        AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = e.job AND j.fence = e.fence AND j.state = 'running')
    LIMIT 1";

/// ?1: now.
pub(super) const ABANDON: &str = "
    UPDATE effects INDEXED BY effects_begun SET state = 'unknown', ended_at = ?1
    WHERE state = 'begun'
        AND NOT EXISTS (SELECT 1 FROM jobs AS j
                        WHERE j.id = effects.job AND j.fence = effects.fence AND j.state = 'running')";

/// ?1: at most so many.
pub(super) const WAITING: &str = "
    SELECT e.job FROM effects AS e INDEXED BY effects_unknown
        CROSS JOIN jobs AS j ON j.id = e.job AND j.state = 'failed'
    WHERE e.state = 'unknown' ORDER BY e.job LIMIT ?1";

/// ?1: the limit of age, ?2: at most so many.
pub(super) const OVERDUE: &str = "
    SELECT job FROM effects INDEXED BY effects_begun WHERE state = 'begun' AND begun_at < ?1 ORDER BY begun_at LIMIT ?2";

/// ?1: the job, ?2: at most so many.
pub(super) const OF_JOB: &str = "SELECT * FROM effects WHERE job = ?1 ORDER BY id LIMIT ?2";

#[async_trait]
impl Effects for SqliteStore {
    async fn begin_effect(&self, claim: Claim, step: Step) -> Result<EffectBegun> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (step, now) = (step.clone(), clock.now());
            Box::pin(async move { begin(tx, claim, &step, LARGEST_LEDGER, now).await })
        })
        .await
    }

    async fn commit_effect(
        &self,
        claim: Claim,
        id: EffectId,
        result: Option<CanonicalJson>,
    ) -> Result<EffectCommitted> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (result, now) = (result.clone(), clock.now());
            Box::pin(async move { commit(tx, claim, id, result.as_ref(), now).await })
        })
        .await
    }

    async fn withdraw_effect(&self, claim: Claim, id: EffectId) -> Result<bool> {
        self.write(move |tx| {
            Box::pin(async move {
                let gone = sqlx::query(WITHDRAW).bind(claim.job.0).bind(claim.fence.0).bind(id.0).execute(tx).await?;
                Ok(gone.rows_affected() == 1)
            })
        })
        .await
    }

    async fn resolve_effect(&self, id: EffectId, resolution: Resolution, daemon: bool) -> Result<EffectResolved> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (resolution, now) = (resolution.clone(), clock.now());
            Box::pin(async move { resolve(tx, id, &resolution, daemon, now).await })
        })
        .await
    }

    async fn abandon_effects(&self, overdue: Timestamp) -> Result<AbandonedEffects> {
        let mut look = AbandonedEffects::default();
        // Most of the time there is none, and a read finds that out without a commit.
        if sqlx::query(ANY_ABANDONED).fetch_optional(self.readers()).await?.is_some() {
            let clock = self.clock.clone();
            look.found = self
                .write(move |tx| {
                    let now = clock.now();
                    Box::pin(async move { abandon(tx, now).await })
                })
                .await?;
        }
        let waiting: Vec<i64> = sqlx::query_scalar(WAITING).bind(COUNTED).fetch_all(self.readers()).await?;
        let overdue: Vec<i64> =
            sqlx::query_scalar(OVERDUE).bind(overdue.as_millis()).bind(COUNTED).fetch_all(self.readers()).await?;
        look.example = overdue.first().or(waiting.first()).copied().map(JobId);
        (look.waiting, look.overdue) = (waiting.len() as u64, overdue.len() as u64);
        Ok(look)
    }

    async fn effects_of(&self, job: JobId, limit: usize) -> Result<Vec<Effect>> {
        let rows = sqlx::query(OF_JOB).bind(job.0).bind(wire::count(limit)).fetch_all(self.readers()).await?;
        rows.iter().map(effect).collect()
    }

    async fn effect(&self, id: EffectId) -> Result<Option<Effect>> {
        let row = sqlx::query("SELECT * FROM effects WHERE id = ?1").bind(id.0).fetch_optional(self.readers()).await?;
        row.as_ref().map(effect).transpose()
    }
}

/// Writes the intent.
pub(super) async fn begin(
    tx: &mut SqliteConnection,
    claim: Claim,
    step: &Step,
    limit: i64,
    now: Timestamp,
) -> Result<EffectBegun> {
    let rows = sqlx::query(BEGIN)
        .bind(claim.job.0)
        .bind(claim.fence.0)
        .bind(step.digest().to_vec())
        .bind(step.key.0.to_vec())
        .bind(step.kind.as_str())
        .bind(step.context.as_str())
        .bind(now.as_millis())
        .bind(limit)
        .fetch_all(&mut *tx)
        .await?;
    let Some(row) = rows.first() else {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        return Ok(if stands(tx, claim).await? { EffectBegun::TooMany { limit } } else { EffectBegun::LeaseLost });
    };
    let id = EffectId(row.try_get(0)?);
    Ok(match state(&row.try_get::<String, _>(1)?, id)? {
        EffectState::Begun => EffectBegun::Run { id, key: key(row.try_get(2)?, id)? },
        EffectState::Unknown => EffectBegun::Unknown { id, key: key(row.try_get(2)?, id)? },
        EffectState::Done => {
            EffectBegun::Done { id, result: row.try_get::<Option<String>, _>(3)?.map(CanonicalJson::stored) }
        }
    })
}

async fn commit(
    tx: &mut SqliteConnection,
    claim: Claim,
    id: EffectId,
    result: Option<&CanonicalJson>,
    now: Timestamp,
) -> Result<EffectCommitted> {
    let done = sqlx::query(COMMIT)
        .bind(claim.job.0)
        .bind(claim.fence.0)
        .bind(id.0)
        .bind(result.map(CanonicalJson::as_str))
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await?;
    if done.rows_affected() == 1 {
        return Ok(EffectCommitted::Done);
    }
    if !stands(tx, claim).await? {
        return Ok(EffectCommitted::LeaseLost);
    }
    let row: Option<(i64, String)> = sqlx::query_as("SELECT fence, state FROM effects WHERE id = ?1 AND job = ?2")
        .bind(id.0)
        .bind(claim.job.0)
        .fetch_optional(tx)
        .await?;
    Ok(match row {
        None => EffectCommitted::NoSuch,
        Some((fence, state)) if state == EffectState::Done.as_str() => {
            if fence == claim.fence.0 {
                EffectCommitted::Done
            } else {
                EffectCommitted::DoneBefore
            }
        }
        Some(_) => EffectCommitted::NotBegun,
    })
}

async fn resolve(
    tx: &mut SqliteConnection,
    id: EffectId,
    resolution: &Resolution,
    daemon: bool,
    now: Timestamp,
) -> Result<EffectResolved> {
    let row: Option<(i64, String, bool)> = sqlx::query_as(
        "SELECT e.job, e.state,
                EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = e.job AND j.fence = e.fence AND j.state = 'running')
         FROM effects AS e WHERE e.id = ?1",
    )
    .bind(id.0)
    .fetch_optional(&mut *tx)
    .await?;
    let Some((job, state, runs)) = row else { return Ok(EffectResolved::NoSuch) };
    if state == EffectState::Done.as_str() {
        return Ok(EffectResolved::DoneAlready);
    }
    if runs && daemon {
        return Ok(EffectResolved::Held(JobId(job)));
    }
    match resolution {
        Resolution::Done(result) => {
            sqlx::query("UPDATE effects SET state = 'done', result = ?2, ended_at = ?3 WHERE id = ?1")
                .bind(id.0)
                .bind(result.as_ref().map(CanonicalJson::as_str))
                .bind(now.as_millis())
                .execute(tx)
                .await?;
        }
        Resolution::Again => {
            sqlx::query("DELETE FROM effects WHERE id = ?1").bind(id.0).execute(tx).await?;
        }
    }
    Ok(EffectResolved::Done)
}

/// Marks the intents whose execution is over; answers how many.
pub(super) async fn abandon(tx: &mut SqliteConnection, now: Timestamp) -> Result<u64> {
    Ok(sqlx::query(ABANDON).bind(now.as_millis()).execute(tx).await?.rows_affected())
}

/// Whether the claim's lease still stands.
pub(super) async fn stands(tx: &mut SqliteConnection, claim: Claim) -> Result<bool> {
    let row = sqlx::query("SELECT 1 FROM jobs WHERE id = ? AND fence = ? AND state = 'running'")
        .bind(claim.job.0)
        .bind(claim.fence.0)
        .fetch_optional(tx)
        .await?;
    Ok(row.is_some())
}

fn effect(row: &SqliteRow) -> Result<Effect> {
    let id = EffectId(row.try_get("id")?);
    let kind: String = row.try_get("kind")?;
    Ok(Effect {
        id,
        job: JobId(row.try_get("job")?),
        key: key(row.try_get("key")?, id)?,
        kind: kind.parse().map_err(|error| unreadable(id, &error))?,
        context: CanonicalJson::stored(row.try_get("context")?),
        state: state(&row.try_get::<String, _>("state")?, id)?,
        fence: Fence(row.try_get("fence")?),
        result: row.try_get::<Option<String>, _>("result")?.map(CanonicalJson::stored),
        begun_at: Timestamp::from_millis(row.try_get("begun_at")?),
        ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(Timestamp::from_millis),
    })
}

fn state(word: &str, id: EffectId) -> Result<EffectState> {
    word.parse().map_err(|error| unreadable(id, &error))
}

fn key(bytes: Vec<u8>, id: EffectId) -> Result<EffectKey> {
    bytes.try_into().map(EffectKey).map_err(|_| unreadable(id, &"its key has another length"))
}

fn unreadable(id: EffectId, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("effect {id} can't be read from the database: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::super::fixture::{self, NOW};
    use super::*;
    use crate::job::{EffectKind, IdempotencyKey, StateName};
    use crate::store::{Prunable, Upkeep as _};

    const FIRST: Claim = Claim { job: JobId(1), fence: Fence(5) };
    const SECOND: Claim = Claim { job: JobId(1), fence: Fence(6) };

    /// A store in which job 1 runs under fence 5.
    async fn running(dir: &TempDir) -> Arc<SqliteStore> {
        let store = fixture::store(dir).await;
        let columns = "state, boot, lease_deadline, started_at, fence";
        fixture::jobs(&store, 1, 1, columns, "'running', 1, 5, 6, 5").await;
        store
    }

    /// The next execution of job 1 begins.
    async fn run_again(store: &SqliteStore) {
        fixture::sql(store, "UPDATE jobs SET fence = 6 WHERE id = 1").await;
    }

    fn step(kind: &'static str) -> Step {
        Step::of(EffectKind::own(kind), CanonicalJson::own(&serde_json::json!({ "n": 1 })), &IdempotencyKey([7; 32]))
    }

    fn json(text: &str) -> Option<CanonicalJson> {
        Some(CanonicalJson::stored(text.to_owned()))
    }

    async fn begin(store: &SqliteStore, claim: Claim) -> EffectBegun {
        store.begin_effect(claim, step("upload")).await.unwrap()
    }

    #[tokio::test]
    async fn a_step_that_is_done_is_answered_by_its_result_in_every_later_execution() {
        let dir = TempDir::new().unwrap();
        let store = running(&dir).await;
        let EffectBegun::Run { id, key } = begin(&store, FIRST).await else { panic!("it is new") };
        assert_eq!(key, step("upload").key);
        for _ in 0..2 {
            assert_eq!(store.commit_effect(FIRST, id, json("[1]")).await.unwrap(), EffectCommitted::Done);
        }
        let done = EffectBegun::Done { id, result: json("[1]") };
        assert_eq!(begin(&store, FIRST).await, done);
        run_again(&store).await;
        assert_eq!(begin(&store, SECOND).await, done);
        assert_eq!(store.commit_effect(SECOND, id, json("[2]")).await.unwrap(), EffectCommitted::DoneBefore);
        assert!(!store.withdraw_effect(SECOND, id).await.unwrap());
        assert_eq!(store.effects_of(JobId(1), 9).await.unwrap()[0].result, json("[1]"));
    }

    #[tokio::test]
    async fn an_intent_without_a_result_is_unknown_to_whoever_comes_next_and_that_one_may_commit_it() {
        let dir = TempDir::new().unwrap();
        let store = running(&dir).await;
        let EffectBegun::Run { id, key } = begin(&store, FIRST).await else { panic!("it is new") };
        assert_eq!(begin(&store, FIRST).await, EffectBegun::Unknown { id, key }, "somebody else of this execution");
        run_again(&store).await;
        assert_eq!(store.commit_effect(SECOND, id, None).await.unwrap(), EffectCommitted::NotBegun);
        assert_eq!(begin(&store, SECOND).await, EffectBegun::Unknown { id, key });
        assert_eq!(store.commit_effect(SECOND, id, None).await.unwrap(), EffectCommitted::Done);
        assert_eq!(begin(&store, SECOND).await, EffectBegun::Done { id, result: None });
    }

    #[tokio::test]
    async fn a_stale_fence_writes_nothing() {
        let dir = TempDir::new().unwrap();
        let store = running(&dir).await;
        let EffectBegun::Run { id, .. } = begin(&store, FIRST).await else { panic!("it is new") };
        run_again(&store).await;
        assert_eq!(begin(&store, FIRST).await, EffectBegun::LeaseLost);
        assert_eq!(store.commit_effect(FIRST, id, None).await.unwrap(), EffectCommitted::LeaseLost);
        assert!(!store.withdraw_effect(FIRST, id).await.unwrap());
        assert_eq!(store.effect(id).await.unwrap().unwrap().state, EffectState::Begun);
    }

    #[tokio::test]
    async fn a_step_that_was_withdrawn_is_taken_anew() {
        let dir = TempDir::new().unwrap();
        let store = running(&dir).await;
        let EffectBegun::Run { id, .. } = begin(&store, FIRST).await else { panic!("it is new") };
        assert!(store.withdraw_effect(FIRST, id).await.unwrap());
        assert!(matches!(begin(&store, FIRST).await, EffectBegun::Run { id: next, .. } if next > id));
    }

    #[tokio::test]
    async fn abandoned_intents_are_found_and_those_that_live_are_left_alone() {
        let dir = TempDir::new().unwrap();
        let store = running(&dir).await;
        let EffectBegun::Run { id, .. } = begin(&store, FIRST).await else { panic!("it is new") };
        let now = Timestamp::from_millis(NOW);
        assert_eq!(store.abandon_effects(now).await.unwrap(), AbandonedEffects::default());
        let overdue = store.abandon_effects(Timestamp::from_millis(NOW + 1)).await.unwrap();
        assert_eq!((overdue.found, overdue.overdue, overdue.example), (0, 1, Some(JobId(1))));
        run_again(&store).await;
        assert_eq!(store.abandon_effects(now).await.unwrap().found, 1);
        assert_eq!(store.effect(id).await.unwrap().unwrap().state, EffectState::Unknown);
        fixture::sql(
            &store,
            "UPDATE jobs SET state = 'failed', finished_at = 1, boot = NULL, lease_deadline = NULL, error_kind = 'io'",
        )
        .await;
        assert_eq!(store.abandon_effects(now).await.unwrap().waiting, 1);
    }

    #[tokio::test]
    async fn a_person_says_how_a_step_came_out_unless_an_execution_holds_it() {
        let dir = TempDir::new().unwrap();
        let store = running(&dir).await;
        let EffectBegun::Run { id, .. } = begin(&store, FIRST).await else { panic!("it is new") };
        let resolve = |id, resolution: Resolution, daemon| store.resolve_effect(id, resolution, daemon);
        let held = EffectResolved::Held(JobId(1));
        assert_eq!(resolve(id, Resolution::Again, true).await.unwrap(), held);
        run_again(&store).await;
        assert_eq!(resolve(id, Resolution::Again, true).await.unwrap(), EffectResolved::Done);
        let EffectBegun::Run { id: second, .. } = begin(&store, SECOND).await else { panic!("it was forgotten") };
        assert_eq!(resolve(second, Resolution::Done(json("9")), true).await.unwrap(), held);
        assert_eq!(resolve(second, Resolution::Done(json("9")), false).await.unwrap(), EffectResolved::Done);
        assert_eq!(begin(&store, SECOND).await, EffectBegun::Done { id: second, result: json("9") });
        for again in [Resolution::Done(None), Resolution::Again] {
            assert_eq!(resolve(second, again, false).await.unwrap(), EffectResolved::DoneAlready);
        }
        assert_eq!(resolve(id, Resolution::Again, false).await.unwrap(), EffectResolved::NoSuch);
    }

    #[tokio::test]
    async fn a_job_has_no_more_effects_than_it_may_and_those_that_it_has_are_answered() {
        let dir = TempDir::new().unwrap();
        let store = running(&dir).await;
        let begin = |kind| {
            store.write(move |tx| {
                Box::pin(async move { super::begin(tx, FIRST, &step(kind), 2, Timestamp::from_millis(NOW)).await })
            })
        };
        assert!(matches!(begin("a").await.unwrap(), EffectBegun::Run { .. }));
        assert!(matches!(begin("b").await.unwrap(), EffectBegun::Run { .. }));
        assert_eq!(begin("c").await.unwrap(), EffectBegun::TooMany { limit: 2 });
        assert!(matches!(begin("b").await.unwrap(), EffectBegun::Unknown { .. }));
    }

    #[tokio::test]
    async fn effects_and_stages_go_with_their_job() {
        let dir = TempDir::new().unwrap();
        let store = running(&dir).await;
        begin(&store, FIRST).await;
        fixture::sql(
            &store,
            "INSERT INTO job_stages VALUES (1, 'sent', 1);
             UPDATE jobs SET state = 'completed', finished_at = 1, boot = NULL, lease_deadline = NULL",
        )
        .await;
        let never = Timestamp::from_millis(i64::MAX);
        assert_eq!(store.prune(Prunable::Jobs(StateName::Completed), never, 9).await.unwrap(), 1);
        for table in ["SELECT count(*) FROM effects", "SELECT count(*) FROM job_stages"] {
            let left: i64 = sqlx::query_scalar(table).fetch_one(store.readers()).await.unwrap();
            assert_eq!(left, 0, "{table}");
        }
    }
}
