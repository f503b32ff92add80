//! Reads for people.
//!
//! A list is read in two steps: the numbers of a page (`ways`), then those jobs with everything that belongs to
//! them. Pages go by key (`id < before`), never by offset, and each statement is
//! bounded. Globs are matched here, because SQLite can't match bytes; so a list by path goes on page by page until
//! enough match.

use async_trait::async_trait;
use globset::GlobSet;
use sqlx::Row as _;

use super::super::browse::{Attempt, Boot, Browse, FailureGroup, JobFilter, Overview, Stats, Table};
use super::super::error::{Result, StoreError};
use super::{SqliteStore, row};
use crate::clock::Timestamp;
use crate::job::{Job, JobId, SourceKey, StateName};

/// Jobs that are read at once.
const PAGE: usize = 1_000;
/// Executions of one job that are shown, the newest.
const MOST_ATTEMPTS: i64 = 1_000;
/// Jobs of each state that `failures` looks at, the newest.
const MOST_FAILURES: i64 = 100_000;

/// The files of the jobs with these numbers (?1: a JSON array), newest first.
pub(super) const FILES: &str = "
    SELECT j.id, s.scope, w.name AS watch, w.root,
           coalesce(j.identity, s.identity) AS identity, s.path AS source_path
    FROM json_each(?1) AS chosen
        CROSS JOIN jobs AS j ON j.id = chosen.value
        LEFT JOIN sources AS s ON s.id = j.source
        LEFT JOIN watches AS w ON w.id = s.scope
    ORDER BY j.id DESC";
pub(super) const JOBS_BY_ID: &str = include_str!("sql/jobs_by_id.sql");
pub(super) const ATTEMPTS_OF_JOB: &str = include_str!("sql/attempts_of_job.sql");
pub(super) const HISTORY: &str = include_str!("sql/history.sql");
pub(super) const FAILURES: &str = include_str!("sql/failures.sql");

#[async_trait]
impl Browse for SqliteStore {
    async fn jobs(&self, filter: &JobFilter, before: Option<JobId>, limit: usize) -> Result<Vec<Job>> {
        let ways = self.ways(filter).await?;
        let page = if filter.path.is_some() { PAGE } else { limit.min(PAGE) };
        let mut below = before.map_or(i64::MAX, |id| id.0);
        let mut found = Vec::new();
        while found.len() < limit {
            let numbers = self.numbers(&ways, filter, below, page).await?;
            let next = numbers.last().copied().filter(|_| numbers.len() == page);
            let mut numbers = match &filter.path {
                Some(glob) => self.matching(&numbers, glob).await?,
                None => numbers,
            };
            numbers.truncate(limit - found.len());
            found.extend(self.jobs_by_id(&numbers).await?);
            let Some(last) = next else { break };
            below = last;
        }
        Ok(found)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>> {
        Ok(self.jobs_by_id(&[id.0]).await?.pop())
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<Attempt>> {
        let rows = sqlx::query(ATTEMPTS_OF_JOB).bind(id.0).bind(MOST_ATTEMPTS).fetch_all(self.readers()).await?;
        rows.iter().rev().map(row::attempt).collect()
    }

    /// `filter.states` means the executions that led to one of these states.
    async fn history(&self, filter: &JobFilter, before: Option<i64>, limit: usize) -> Result<Vec<Attempt>> {
        let page = if filter.path.is_some() { PAGE } else { limit.min(PAGE) };
        let from = match filter.since {
            Some(since) => self.first_attempt_since(since).await?,
            None => i64::MIN,
        };
        let outcomes = (!filter.states.is_empty()).then(|| outcomes_to(&filter.states));
        let mut below = before.unwrap_or(i64::MAX);
        let mut found = Vec::new();
        while found.len() < limit {
            let rows = sqlx::query(HISTORY)
                .bind(below)
                .bind(sql_limit(page))
                .bind(from)
                .bind(&filter.pipeline)
                .bind(&filter.watch)
                .bind(filter.error.as_deref().map(str::to_ascii_lowercase))
                .bind(filter.since.map(Timestamp::as_millis))
                .bind(&outcomes)
                .bind(filter.run.map(|run| run.0))
                .bind(&filter.repo)
                .fetch_all(self.readers())
                .await?;
            let attempts = rows.iter().map(row::attempt).collect::<Result<Vec<_>>>()?;
            let last = attempts.last().map(|attempt| attempt.id);
            found.extend(
                attempts.into_iter().filter(|attempt| attempt_matches(filter, attempt)).take(limit - found.len()),
            );
            match last {
                Some(last) if rows.len() == page => below = last,
                _ => break,
            }
        }
        Ok(found)
    }

    async fn failures(&self, limit: usize) -> Result<Vec<FailureGroup>> {
        let rows = sqlx::query(FAILURES).bind(MOST_FAILURES).bind(sql_limit(limit)).fetch_all(self.readers()).await?;
        rows.iter().map(failure_group).collect()
    }

    async fn overview(&self) -> Result<Overview> {
        self.read_overview().await
    }

    async fn last_boot(&self) -> Result<Option<Boot>> {
        let row: Option<(u32, String, i64, Option<i64>)> =
            sqlx::query_as("SELECT pid, version, started_at, stopped_at FROM boots ORDER BY id DESC LIMIT 1")
                .fetch_optional(self.readers())
                .await?;
        Ok(row.map(|(pid, version, started_at, stopped_at)| Boot {
            pid,
            version,
            started_at: Timestamp::from_millis(started_at),
            stopped_at: stopped_at.map(Timestamp::from_millis),
        }))
    }

    async fn stats(&self, since: Timestamp) -> Result<Stats> {
        self.read_stats(since).await
    }

    async fn query(&self, sql: &str, limit: usize) -> Result<Table> {
        super::query::run(&self.path, self.clock.clone(), sql, limit).await
    }

    async fn schema_version(&self) -> Result<i64> {
        let version: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(self.readers())
            .await?;
        version.ok_or_else(|| {
            StoreError::Schema("the database has no schema yet; `ingestd db migrate` makes it".to_owned())
        })
    }
}

impl SqliteStore {
    async fn jobs_by_id(&self, numbers: &[i64]) -> Result<Vec<Job>> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(JOBS_BY_ID).bind(json_array(numbers)).fetch_all(self.readers()).await?;
        rows.iter().map(|row| row::job(row, self.incarnation())).collect()
    }

    /// Those of the jobs whose file matches. Most don't, so nothing else is read of them.
    async fn matching(&self, numbers: &[i64], glob: &GlobSet) -> Result<Vec<i64>> {
        let rows = sqlx::query(FILES).bind(json_array(numbers)).fetch_all(self.readers()).await?;
        let mut found = Vec::new();
        for row in &rows {
            let id = row.try_get("id")?;
            let (source, path) = row::source_of(row, JobId(id))?;
            let relative = matches!(&source, SourceKey::Watched { relative, .. } if glob.is_match(relative));
            if relative || glob.is_match(path) {
                found.push(id);
            }
        }
        Ok(found)
    }
}

fn attempt_matches(filter: &JobFilter, attempt: &Attempt) -> bool {
    filter.path.as_ref().is_none_or(|glob| attempt.path.as_ref().is_some_and(|path| glob.is_match(path)))
}

fn failure_group(row: &sqlx::sqlite::SqliteRow) -> Result<FailureGroup> {
    let example = JobId(row.try_get("example")?);
    Ok(FailureGroup {
        pipeline: row.try_get("pipeline")?,
        error: row::shared_error(row, example)?,
        failed: row.try_get("failed")?,
        retrying: row.try_get("retrying")?,
        first_at: Timestamp::from_millis(row.try_get("first_at")?),
        last_at: Timestamp::from_millis(row.try_get("last_at")?),
        example,
        example_path: row::path_of(row, example)?,
    })
}

/// The outcomes of executions that lead to these states, as a JSON array.
fn outcomes_to(states: &[StateName]) -> String {
    let words = states.iter().flat_map(|state| -> &[&str] {
        match state {
            StateName::Pending => &["deferred", "interrupted", "crashed", "reopened"],
            StateName::Running => &[],
            StateName::Retrying => &["retry"],
            StateName::Completed => &["completed"],
            StateName::Failed => &["failed"],
            StateName::Cancelled => &["cancelled"],
            StateName::Skipped => &["skipped"],
        }
    });
    words.copied().collect::<serde_json::Value>().to_string()
}

/// Numbers as one bound parameter for `json_each`.
pub(super) fn json_array(numbers: &[i64]) -> String {
    serde_json::Value::from(numbers).to_string()
}

/// A count as `LIMIT` takes it.
pub(super) fn sql_limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::fixture::{self, NOW};
    use super::*;
    use crate::run::RunId;

    fn in_state(state: StateName) -> JobFilter {
        JobFilter { states: vec![state], ..JobFilter::default() }
    }

    fn ids(jobs: &[Job]) -> Vec<i64> {
        jobs.iter().map(|job| job.id.0).collect()
    }

    /// Jobs 1–10 in every state, with files `1.pdf` and so on.
    async fn mixed(dir: &TempDir) -> std::sync::Arc<SqliteStore> {
        let store = fixture::store(dir).await;
        fixture::jobs(&store, 1, 3, "state, finished_at", "'completed', run_at + i").await;
        fixture::jobs(&store, 4, 2, "state", "'pending'").await;
        fixture::jobs(&store, 6, 1, "state, crashes", "'pending', 2").await;
        fixture::jobs(&store, 7, 1, "state, blocked_by", "'pending', 8").await;
        fixture::sql(&store, "INSERT INTO boots VALUES (1, zeroblob(16), 42, '0.1.0', 5, NULL)").await;
        fixture::jobs(&store, 8, 1, "state, boot, lease_deadline, started_at", "'running', 1, 5, 6").await;
        fixture::jobs(&store, 9, 1, "state, error_kind, error_message, started_at", "'retrying', 'exit', 'Exit 3', 50")
            .await;
        let failed = "'failed', 'exit', 'Exit 3', 1, 60, 70";
        fixture::jobs(
            &store,
            10,
            1,
            "state, error_kind, error_message, error_permanent, started_at, finished_at",
            failed,
        )
        .await;
        store
    }

    #[tokio::test]
    async fn a_list_is_newest_first_and_pages_by_key() {
        let dir = TempDir::new().unwrap();
        let store = mixed(&dir).await;
        let all = JobFilter::default();
        assert_eq!(ids(&store.jobs(&all, None, 3).await.unwrap()), [10, 9, 8]);
        assert_eq!(ids(&store.jobs(&all, Some(JobId(8)), 100).await.unwrap()), [7, 6, 5, 4, 3, 2, 1]);
        assert!(store.jobs(&all, None, 0).await.unwrap().is_empty());
        assert!(store.job(JobId(11)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_list_by_state_finds_every_job_of_it_and_no_other() {
        let dir = TempDir::new().unwrap();
        let store = mixed(&dir).await;
        let expected: [(StateName, &[i64]); 7] = [
            (StateName::Pending, &[7, 6, 5, 4]),
            (StateName::Running, &[8]),
            (StateName::Retrying, &[9]),
            (StateName::Completed, &[3, 2, 1]),
            (StateName::Failed, &[10]),
            (StateName::Cancelled, &[]),
            (StateName::Skipped, &[]),
        ];
        for (state, numbers) in expected {
            assert_eq!(ids(&store.jobs(&in_state(state), None, 50).await.unwrap()), numbers, "{state}");
            // With many jobs in the state the table is walked instead; it has to find the same.
            fixture::sql(&store, "UPDATE counters SET n = n + 30000").await;
            assert_eq!(ids(&store.jobs(&in_state(state), None, 50).await.unwrap()), numbers, "{state}, walked");
            fixture::sql(&store, "UPDATE counters SET n = n - 30000").await;
        }
        let two = JobFilter { states: vec![StateName::Failed, StateName::Completed], ..JobFilter::default() };
        assert_eq!(ids(&store.jobs(&two, None, 2).await.unwrap()), [10, 3]);
        assert_eq!(ids(&store.jobs(&two, Some(JobId(3)), 2).await.unwrap()), [2, 1]);
    }

    #[tokio::test]
    async fn every_filter_makes_a_difference() {
        let dir = TempDir::new().unwrap();
        let store = mixed(&dir).await;
        fixture::sql(&store, "UPDATE jobs SET pipeline = 2 WHERE id = 2; UPDATE jobs SET created_at = 1 WHERE id < 10")
            .await;
        let found = async |filter: JobFilter| ids(&store.jobs(&filter, None, 50).await.unwrap());
        let none = JobFilter::default();
        assert_eq!(found(JobFilter { pipeline: Some("hook".into()), ..none.clone() }).await, [2]);
        assert_eq!(found(JobFilter { pipeline: Some("none".into()), ..none.clone() }).await, Vec::<i64>::new());
        assert_eq!(found(JobFilter { watch: Some("inbox".into()), ..none.clone() }).await.len(), 10);
        assert_eq!(found(JobFilter { watch: Some("other".into()), ..none.clone() }).await.len(), 0);
        assert_eq!(found(JobFilter { error: Some("eXIT".into()), ..none.clone() }).await, [10, 9]);
        fixture::sql(
            &store,
            "UPDATE jobs SET run = 5 + id % 2, repo = 'r' || (id % 3) WHERE id > 2; UPDATE jobs SET held_by = 5 WHERE id = 4",
        )
        .await;
        let of_run = JobFilter { run: Some(RunId(5)), ..none.clone() };
        assert_eq!(found(of_run.clone()).await, [10, 8, 6, 4]);
        assert_eq!(found(JobFilter { repo: Some("r1".into()), ..of_run.clone() }).await, [10, 4]);
        assert_eq!(found(JobFilter { repo: Some("r2".into()), ..none.clone() }).await, [8, 5]);
        assert_eq!(found(JobFilter { states: vec![StateName::Pending], ..of_run.clone() }).await, [6, 4]);
        fixture::sql(&store, "UPDATE counters SET n = n + 30000").await;
        assert_eq!(found(JobFilter { states: vec![StateName::Pending], ..of_run }).await, [6, 4], "walked");
        fixture::sql(&store, "UPDATE counters SET n = n - 30000; UPDATE jobs SET held_by = NULL").await;
        let since = Some(Timestamp::from_millis(NOW));
        assert_eq!(found(JobFilter { since, ..none.clone() }).await, [10, 3, 2, 1]);
        let glob = |glob| Some(GlobSet::new([globset::Glob::new(glob).unwrap()]).unwrap());
        assert_eq!(found(JobFilter { path: glob("1*.pdf"), ..none.clone() }).await, [10, 1]);
        assert_eq!(found(JobFilter { path: glob("/srv/inbox/3.*"), ..none }).await, [3]);
    }

    #[tokio::test]
    async fn a_glob_is_looked_for_beyond_the_first_page() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 2_500, "state, finished_at", "'completed', run_at").await;
        let path = Some(GlobSet::new([globset::Glob::new("7.pdf").unwrap()]).unwrap());
        for states in [vec![], vec![StateName::Completed]] {
            let filter = JobFilter { path: path.clone(), states, ..JobFilter::default() };
            assert_eq!(ids(&store.jobs(&filter, None, 5).await.unwrap()), [7]);
        }
        assert_eq!(store.jobs(&JobFilter::default(), None, 2_200).await.unwrap().len(), 2_200);
    }

    #[tokio::test]
    async fn failures_are_grouped_by_their_error() {
        let dir = TempDir::new().unwrap();
        let store = mixed(&dir).await;
        fixture::jobs(
            &store,
            20,
            3,
            "state, error_kind, error_message, started_at",
            "'retrying', 'timeout', 'slow', i",
        )
        .await;
        let groups = store.failures(10).await.unwrap();
        let told: Vec<_> = groups.iter().map(|g| (g.error.to_string(), g.failed, g.retrying, g.example.0)).collect();
        assert_eq!(told, [("timeout: slow".to_owned(), 0, 3, 22), ("exit: Exit 3".to_owned(), 1, 1, 10)]);
        assert_eq!((groups[0].first_at.as_millis(), groups[0].last_at.as_millis()), (20, 22));
        assert_eq!(groups[1].example_path.to_str(), Some("/srv/inbox/10.pdf"));
        assert_eq!(store.failures(1).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_history_outlives_jobs_and_sources_and_shows_output_only_with_its_job() {
        let dir = TempDir::new().unwrap();
        let store = mixed(&dir).await;
        fixture::sql(
            &store,
            "INSERT INTO attempts VALUES
                 (1, 10, 1, 10, 1, 2, 'retry', 1, 5, 6, 16, 10, 3, 'exit', 'Exit 3'),
                 (2, 99, 1, 99, 2, 2, 'completed', 1, 5, 6, 26, 20, 0, NULL, NULL),
                 (3, 10, 2, 10, 1, 2, 'failed', 1, 5, 6, 36, 30, 3, 'exit', 'Exit 3'),
                 (4, 10, 2, 10, 1, 2, 'reopened', 0, 5, 6, 46, 0, NULL, NULL, NULL);
             INSERT INTO outputs VALUES (10, 1, x'61'), (10, 2, x'62')",
        )
        .await;
        let of_job = store.attempts(JobId(10)).await.unwrap();
        let told: Vec<_> = of_job.iter().map(|a| (a.id, a.execution, a.output.as_deref())).collect();
        assert_eq!(told, [(1, 1, Some(&b"a"[..])), (3, 2, Some(&b"b"[..])), (4, 2, None)]);

        let history = store.history(&JobFilter::default(), None, 3).await.unwrap();
        assert_eq!(history.iter().map(|a| a.id).collect::<Vec<_>>(), [4, 3, 2]);
        assert_eq!((history[2].path.as_deref(), history[1].output.as_deref()), (None, None));
        let found = async |filter: JobFilter| -> Vec<i64> {
            store.history(&filter, Some(4), 50).await.unwrap().iter().map(|a| a.id).collect()
        };
        assert_eq!(found(in_state(StateName::Retrying)).await, [1]);
        assert_eq!(found(in_state(StateName::Running)).await, Vec::<i64>::new());
        assert_eq!(found(JobFilter { pipeline: Some("hook".into()), ..JobFilter::default() }).await, [2]);
        let since = Some(Timestamp::from_millis(26));
        assert_eq!(found(JobFilter { since, ..JobFilter::default() }).await, [3, 2]);
        let path = Some(GlobSet::new([globset::Glob::new("/srv/inbox/*").unwrap()]).unwrap());
        assert_eq!(found(JobFilter { path, ..JobFilter::default() }).await, [3, 1]);
    }

    #[tokio::test]
    async fn failures_history_and_single_jobs_are_read_by_index() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let plan = fixture::plan(&store, FAILURES).await;
        for index in ["jobs_final (state=?)", "jobs_retrying (state=?)"] {
            assert!(plan.iter().any(|line| line.contains(index)), "{index}: {plan:#?}");
        }
        fixture::assert_no_scan(&store, HISTORY, "a").await;
        fixture::assert_no_scan(&store, JOBS_BY_ID, "j").await;
        fixture::assert_no_scan(&store, ATTEMPTS_OF_JOB, "a").await;
    }

    #[tokio::test]
    async fn the_newest_boot_and_the_schema_are_told() {
        let dir = TempDir::new().unwrap();
        let store = mixed(&dir).await;
        let boot = store.last_boot().await.unwrap().unwrap();
        assert_eq!((boot.pid, boot.version.as_str(), boot.stopped_at), (42, "0.1.0", None));
        assert!(store.schema_version().await.unwrap() >= 1);
    }
}
