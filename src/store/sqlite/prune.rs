//! Removing what is old, in batches that are chosen first and removed by their numbers.
//!
//! 1. Only final jobs go, found by `jobs_final`, and the counters with them in the same transaction. `taken` stays:
//!    a pruned job's file never looks new.
//! 2. The history goes from its lowest numbers on, which are the oldest; the output goes with its execution.
//! 3. A source goes once it was gone for long and no job is left of it, and with it what was taken of it and the
//!    contents that it stands for. Its version stays as the floor above which new sources start.
//! 4. A run goes once its lines and changesets are gone (`lists/remove`).

use sqlx::sqlite::SqliteConnection;

use super::super::error::{Result, StoreError};
use super::super::upkeep::Prunable;
use super::browse::json_array;
use crate::job::StateName;

/// ?1: the state, ?2: the cutoff, ?3: at most so many. The second condition on the state is what lets the partial
/// index be used, because SQLite plans before it knows ?1.
pub(super) const OLD_JOBS: &str = "
    SELECT id FROM jobs INDEXED BY jobs_final
    WHERE state = ?1 AND state IN ('completed', 'failed', 'cancelled', 'skipped') AND finished_at < ?2
    ORDER BY finished_at LIMIT ?3";

/// ?1: the jobs, ?2: their state.
pub(super) const UNCOUNT_JOBS: &str = "
    UPDATE counters SET n = counters.n - gone.n
    FROM (SELECT pipeline, priority, count(*) AS n
          FROM jobs WHERE id IN (SELECT value FROM json_each(?1)) GROUP BY pipeline, priority) AS gone
    WHERE counters.pipeline = gone.pipeline AND counters.state = ?2 AND counters.priority = gone.priority";

/// ?1: the jobs. Whether some version of a source was ever started decides whether its delete becomes a job, and is
/// read off the newest job for as long as that exists.
pub(super) const NOTE_STARTED: &str = "
    UPDATE taken SET started = 1
    WHERE NOT started
        AND (source, pipeline) IN (SELECT j.source, j.pipeline
                                   FROM json_each(?1) AS old
                                       CROSS JOIN jobs AS j ON j.id = old.value AND j.executions > 0
                                           AND j.reason IS NOT 'duplicate')";

/// ?1: the jobs.
pub(super) const FORGET_EFFECTS: &str = "DELETE FROM effects WHERE job IN (SELECT value FROM json_each(?1))";

/// ?1: the jobs.
pub(super) const FORGET_STAGES: &str = "DELETE FROM job_stages WHERE job IN (SELECT value FROM json_each(?1))";

/// ?1: the sources. A source that comes back after it was forgotten starts above every version that was forgotten,
/// so that no idempotency key ever stands for two contents.
pub(super) const RAISE_FLOOR: &str = "
    INSERT INTO kv (key, value, updated_at)
    SELECT 'ingestd.version_floor', max(version), 0 FROM sources WHERE id IN (SELECT value FROM json_each(?1))
    ON CONFLICT (key) DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))";

/// ?1: the sources.
pub(super) const FORGET_TAKEN: &str = "DELETE FROM taken WHERE source IN (SELECT value FROM json_each(?1))";

/// ?1: the sources.
pub(super) const FORGET_CONTENTS: &str = "DELETE FROM contents WHERE source IN (SELECT value FROM json_each(?1))";

/// ?1: the cutoff, ?2: how many of the oldest rows are looked at.
pub(super) const OLD_ATTEMPTS: &str = "
    DELETE FROM attempts
    WHERE id IN (SELECT id FROM (SELECT id, finished_at FROM attempts ORDER BY id LIMIT ?2) WHERE finished_at < ?1)
    RETURNING job, seq, outcome";

/// ?1: pairs of a job and the number of an execution.
pub(super) const OUTPUTS: &str = "
    DELETE FROM outputs WHERE (job, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))";

/// ?1: the cutoff, ?2: at most so many.
pub(super) const OLD_SOURCES: &str = "
    SELECT id FROM sources INDEXED BY sources_gone
    WHERE gone_at < ?1 AND gone_at IS NOT NULL AND presence <> 'present'
        AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_source WHERE jobs.source = sources.id)
    ORDER BY gone_at LIMIT ?2";

/// ?1: the cutoff, ?2: at most so many. Active ones have no end.
pub(super) const OLD_RUNS: &str = "
    DELETE FROM runs
    WHERE id IN (SELECT id FROM runs INDEXED BY runs_final
                 WHERE finished_at < ?1 AND finished_at IS NOT NULL
                     AND NOT EXISTS (SELECT 1 FROM run_lines AS l WHERE l.run = runs.id)
                     AND NOT EXISTS (SELECT 1 FROM run_changesets AS c WHERE c.run = runs.id)
                 ORDER BY finished_at LIMIT ?2)";

/// ?1: the cutoff, ?2: at most so many.
pub(super) const OLD_RATES: &str = "
    DELETE FROM rates
    WHERE (slot, pipeline) IN (SELECT slot, pipeline FROM rates WHERE slot < ?1 ORDER BY slot, pipeline LIMIT ?2)";

/// ?1: the cutoff, ?2: at most so many. The newest start may be a daemon that lives; one whose leases were not taken
/// back yet is still needed.
pub(super) const OLD_BOOTS: &str = "
    DELETE FROM boots
    WHERE id IN (SELECT id FROM boots
                 WHERE id < (SELECT max(id) FROM boots) AND coalesce(stopped_at, started_at) < ?1
                     AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_leased WHERE jobs.boot = boots.id)
                 ORDER BY id LIMIT ?2)";

/// Removes one batch and answers how many rows of the kind went.
pub(super) async fn batch(tx: &mut SqliteConnection, what: Prunable, cutoff: i64, limit: i64) -> Result<u64> {
    match what {
        Prunable::Jobs(state) => jobs(tx, final_state(state)?, cutoff, limit).await,
        Prunable::Attempts => attempts(tx, cutoff, limit).await,
        Prunable::Sources => sources(tx, cutoff, limit).await,
        Prunable::Runs => delete(tx, OLD_RUNS, cutoff, limit).await,
        Prunable::Rates => delete(tx, OLD_RATES, cutoff, limit).await,
        Prunable::Boots => delete(tx, OLD_BOOTS, cutoff, limit).await,
    }
}

/// How many rows of the kind would go in the end.
pub(super) async fn count(reader: &mut SqliteConnection, what: Prunable, cutoff: i64) -> Result<u64> {
    let counted = match what {
        Prunable::Jobs(state) => sqlx::query_scalar(
            "SELECT count(*) FROM jobs INDEXED BY jobs_final
                 WHERE state = ?2 AND state IN ('completed', 'failed', 'cancelled', 'skipped') AND finished_at < ?1",
        )
        .bind(cutoff)
        .bind(final_state(state)?),
        Prunable::Attempts => sqlx::query_scalar("SELECT count(*) FROM attempts WHERE finished_at < ?1").bind(cutoff),
        Prunable::Sources => sqlx::query_scalar(
            "SELECT count(*) FROM sources INDEXED BY sources_gone
             WHERE gone_at < ?1 AND gone_at IS NOT NULL AND presence <> 'present'
                 AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_source WHERE jobs.source = sources.id)",
        )
        .bind(cutoff),
        Prunable::Runs => sqlx::query_scalar("SELECT count(*) FROM runs WHERE finished_at < ?1").bind(cutoff),
        Prunable::Rates => sqlx::query_scalar("SELECT count(*) FROM rates WHERE slot < ?1").bind(cutoff),
        Prunable::Boots => sqlx::query_scalar(
            "SELECT count(*) FROM boots
             WHERE id < (SELECT max(id) FROM boots) AND coalesce(stopped_at, started_at) < ?1
                 AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_leased WHERE jobs.boot = boots.id)",
        )
        .bind(cutoff),
    };
    Ok(counted.fetch_one(reader).await?)
}

fn final_state(state: StateName) -> Result<&'static str> {
    if state.is_final() {
        return Ok(state.as_str());
    }
    Err(StoreError::Refused(format!("{state} jobs are never pruned: they are not over")))
}

async fn jobs(tx: &mut SqliteConnection, state: &'static str, cutoff: i64, limit: i64) -> Result<u64> {
    let old: Vec<i64> = sqlx::query_scalar(OLD_JOBS).bind(state).bind(cutoff).bind(limit).fetch_all(&mut *tx).await?;
    if old.is_empty() {
        return Ok(0);
    }
    let old = json_array(&old);
    sqlx::query(UNCOUNT_JOBS).bind(&old).bind(state).execute(&mut *tx).await?;
    for sql in [NOTE_STARTED, FORGET_EFFECTS, FORGET_STAGES] {
        sqlx::query(sql).bind(&old).execute(&mut *tx).await?;
    }
    let done = sqlx::query("DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?1))")
        .bind(&old)
        .execute(&mut *tx)
        .await?;
    Ok(done.rows_affected())
}

async fn attempts(tx: &mut SqliteConnection, cutoff: i64, limit: i64) -> Result<u64> {
    let gone: Vec<(i64, i64, String)> =
        sqlx::query_as(OLD_ATTEMPTS).bind(cutoff).bind(limit).fetch_all(&mut *tx).await?;
    // A `reopened` row shares the number of another execution, whose output is not its own.
    let executions = gone.iter().filter(|(_, _, outcome)| outcome != "reopened");
    let executions: serde_json::Value = executions.map(|(job, seq, _)| vec![*job, *seq]).collect();
    sqlx::query(OUTPUTS).bind(executions.to_string()).execute(&mut *tx).await?;
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

async fn sources(tx: &mut SqliteConnection, cutoff: i64, limit: i64) -> Result<u64> {
    let old: Vec<i64> = sqlx::query_scalar(OLD_SOURCES).bind(cutoff).bind(limit).fetch_all(&mut *tx).await?;
    if old.is_empty() {
        return Ok(0);
    }
    let old = json_array(&old);
    sqlx::query(RAISE_FLOOR).bind(&old).execute(&mut *tx).await?;
    for sql in [FORGET_TAKEN, FORGET_CONTENTS] {
        sqlx::query(sql).bind(&old).execute(&mut *tx).await?;
    }
    let done = sqlx::query("DELETE FROM sources WHERE id IN (SELECT value FROM json_each(?1))")
        .bind(&old)
        .execute(&mut *tx)
        .await?;
    Ok(done.rows_affected())
}

async fn delete(tx: &mut SqliteConnection, sql: &'static str, cutoff: i64, limit: i64) -> Result<u64> {
    Ok(sqlx::query(sql).bind(cutoff).bind(limit).execute(tx).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::SqliteStore;
    use super::super::fixture::{self, NOW};
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::Upkeep as _;

    const NEVER: Timestamp = Timestamp::from_millis(i64::MAX);

    async fn number(store: &SqliteStore, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(store.readers()).await.unwrap()
    }

    #[tokio::test]
    async fn old_final_jobs_go_in_batches_with_their_counters_and_their_files_stay_known() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 10, "state, finished_at", "'completed', run_at - i").await;
        fixture::jobs(&store, 11, 2, "state", "'pending'").await;
        fixture::jobs(&store, 13, 1, "state, finished_at, error_kind", "'failed', 1, 'io'").await;
        let (completed, cutoff) = (Prunable::Jobs(StateName::Completed), Timestamp::from_millis(NOW - 3));
        assert_eq!(store.prunable(completed, cutoff).await.unwrap(), 7);
        assert_eq!(store.prune(completed, cutoff, 5).await.unwrap(), 5);
        assert_eq!(number(&store, "SELECT count(*) FROM jobs WHERE id BETWEEN 6 AND 10").await, 0);
        assert_eq!(store.check(true).await.unwrap(), Vec::<String>::new());
        assert_eq!(store.prune(completed, cutoff, 5).await.unwrap(), 2);
        assert_eq!(store.prune(completed, cutoff, 5).await.unwrap(), 0);
        assert_eq!(number(&store, "SELECT count(*) FROM jobs").await, 6);
        assert_eq!(number(&store, "SELECT count(*) FROM taken").await, 13);
        assert_eq!(number(&store, "SELECT n FROM counters WHERE state = 'completed'").await, 3);
        assert_eq!(store.check(true).await.unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn jobs_that_are_not_over_are_never_pruned() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 2, "state", "'pending'").await;
        for state in StateName::ALL.into_iter().filter(|state| !state.is_final()) {
            assert!(store.prune(Prunable::Jobs(state), NEVER, 9).await.is_err());
            assert!(store.prunable(Prunable::Jobs(state), NEVER).await.is_err());
        }
        for state in StateName::ALL.into_iter().filter(|state| state.is_final()) {
            assert_eq!(store.prune(Prunable::Jobs(state), NEVER, 9).await.unwrap(), 0);
        }
        assert_eq!(number(&store, "SELECT count(*) FROM jobs").await, 2);
    }

    #[tokio::test]
    async fn the_history_goes_with_its_output_oldest_first() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::sql(
            &store,
            "INSERT INTO attempts VALUES
                 (1, 5, 1, 1, 1, 2, 'failed', 1, 0, 0, 10, 0, NULL, NULL, NULL),
                 (2, 5, 2, 1, 1, 2, 'reopened', 0, 0, 0, 11, 0, NULL, NULL, NULL),
                 (3, 5, 2, 1, 1, 2, 'failed', 1, 0, 0, 30, 0, NULL, NULL, NULL),
                 (4, 6, 1, 1, 1, 2, 'failed', 1, 0, 0, 40, 0, NULL, NULL, NULL);
             INSERT INTO outputs VALUES (5, 1, 'a'), (5, 2, 'b'), (6, 1, 'c')",
        )
        .await;
        let cutoff = Timestamp::from_millis(30);
        assert_eq!(store.prunable(Prunable::Attempts, cutoff).await.unwrap(), 2);
        assert_eq!(store.prune(Prunable::Attempts, cutoff, 1).await.unwrap(), 1);
        assert_eq!(store.prune(Prunable::Attempts, cutoff, 9).await.unwrap(), 1);
        assert_eq!(number(&store, "SELECT count(*) FROM outputs").await, 2, "the newer execution keeps its output");
        assert_eq!(store.prune(Prunable::Attempts, NEVER, 9).await.unwrap(), 2);
        assert_eq!(number(&store, "SELECT count(*) FROM outputs").await, 0);
    }

    #[tokio::test]
    async fn a_source_is_forgotten_once_it_was_gone_for_long_and_no_job_is_left() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 4, "state, finished_at", "'completed', run_at").await;
        fixture::sql(
            &store,
            "UPDATE sources SET presence = 'vanished', gone_at = id WHERE id < 4;
             DELETE FROM jobs WHERE id IN (2, 3, 4)",
        )
        .await;
        let cutoff = Timestamp::from_millis(3);
        assert_eq!(store.prunable(Prunable::Sources, cutoff).await.unwrap(), 1);
        assert_eq!(store.prune(Prunable::Sources, cutoff, 9).await.unwrap(), 1);
        assert_eq!(number(&store, "SELECT CAST(group_concat(id, '') AS INTEGER) FROM sources ORDER BY id").await, 134);
        assert_eq!(number(&store, "SELECT count(*) FROM taken WHERE source = 2").await, 0);
        assert_eq!(store.prune(Prunable::Sources, NEVER, 9).await.unwrap(), 1);
        assert_eq!(number(&store, "SELECT count(*) FROM sources WHERE id IN (1, 4)").await, 2);
    }

    #[tokio::test]
    async fn old_slots_and_boots_go_but_not_the_newest_boot_nor_one_with_a_lease() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::sql(
            &store,
            "INSERT INTO boots SELECT value, CAST(printf('%016d', value) AS BLOB), 1, 'v', value, NULL
             FROM json_each('[1, 2, 3, 4]');
             INSERT INTO rates (slot, pipeline) VALUES (0, 1), (0, 2), (10000, 1), (20000, 1)",
        )
        .await;
        fixture::jobs(&store, 1, 1, "state, boot, lease_deadline, started_at", "'running', 2, 5, 6").await;
        assert_eq!(store.prunable(Prunable::Boots, NEVER).await.unwrap(), 2);
        assert_eq!(store.prune(Prunable::Boots, Timestamp::from_millis(3), 9).await.unwrap(), 1);
        assert_eq!(store.prune(Prunable::Boots, NEVER, 9).await.unwrap(), 1);
        assert_eq!(number(&store, "SELECT CAST(group_concat(id, '') AS INTEGER) FROM boots ORDER BY id").await, 24);
        let cutoff = Timestamp::from_millis(20_000);
        assert_eq!(store.prunable(Prunable::Rates, cutoff).await.unwrap(), 3);
        assert_eq!(store.prune(Prunable::Rates, cutoff, 2).await.unwrap(), 2);
        assert_eq!(store.prune(Prunable::Rates, cutoff, 2).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn pruning_reads_no_table_whole() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let plan = fixture::plan(&store, OLD_JOBS).await;
        assert_eq!(plan, ["SEARCH jobs USING COVERING INDEX jobs_final (state=? AND finished_at<?)"]);
        fixture::assert_no_scan(&store, UNCOUNT_JOBS, "jobs").await;
        fixture::assert_no_scan(&store, OLD_SOURCES, "jobs").await;
        fixture::assert_no_scan(&store, OLD_SOURCES, "sources").await;
        fixture::assert_no_scan(&store, OUTPUTS, "outputs").await;
        fixture::assert_no_scan(&store, OLD_BOOTS, "jobs").await;
    }
}
