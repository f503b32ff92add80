//! The ways into the table of jobs: how the numbers of those that match are found, newest first.
//!
//! Each state has its index, and each way is one bounded statement along it. A state that holds a large part of the
//! table is read off the table's end instead, where its jobs are met soon. The indexes are named in the statements:
//! a partial index that is not used would go unnoticed until the table is large.

use super::super::browse::JobFilter;
use super::super::error::Result;
use super::SqliteStore;
use super::browse::sql_limit;
use crate::clock::Timestamp;
use crate::job::StateName;

/// Up to so many jobs in a state, they are found by its index and put in order; a state that holds more is met soon
/// enough by walking the table from its end.
const FEW: i64 = 20_000;

/// The numbers of the jobs that match, newest first, along one way into the table.
/// ?1: below this number, ?2: at most so many, ?3: pipeline, ?4: watch, ?5: a part of the error in lowercase,
/// ?6: enqueued or ended at or after, ?7: the state, where the way does not say it, ?8: the run, ?9: the repository. NULL
/// means any.
macro_rules! numbers {
    ($way:literal) => {
        concat!(
            "SELECT id FROM jobs ",
            $way,
            " AND id < ?1
              AND (?3 IS NULL OR pipeline = (SELECT p.id FROM pipelines AS p WHERE p.name = ?3))
              AND (?4 IS NULL OR EXISTS (SELECT 1 FROM sources AS s JOIN watches AS w ON w.id = s.scope
                                         WHERE s.id = jobs.source AND w.name = ?4))
              AND (?5 IS NULL OR instr(lower(error_message), ?5) > 0)
              AND (?6 IS NULL OR created_at >= ?6 OR finished_at >= ?6)
              AND (?7 IS NULL OR state = ?7)
              AND (?8 IS NULL OR run = ?8)
              AND (?9 IS NULL OR repo = ?9)
              ORDER BY id DESC LIMIT ?2"
        )
    };
}

pub(super) const ALL: &str = numbers!("NOT INDEXED WHERE true");
pub(super) const RUNNING: &str = numbers!("INDEXED BY jobs_running WHERE state = 'running'");
pub(super) const RETRYING: &str = numbers!("INDEXED BY jobs_retrying WHERE state = 'retrying'");
pub(super) const FINAL: &str =
    numbers!("INDEXED BY jobs_final WHERE state = ?7 AND state IN ('completed', 'failed', 'cancelled', 'skipped')");
/// A run's jobs, whatever their state.
pub(super) const OF_RUN: &str = numbers!("INDEXED BY jobs_run WHERE run = ?8 AND run IS NOT NULL");
/// Waiting jobs are in one of four indexes.
pub(super) const WAITING: [&str; 4] = [
    numbers!(
        "INDEXED BY jobs_due WHERE state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2"
    ),
    numbers!(
        "INDEXED BY jobs_suspect WHERE state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes >= 2"
    ),
    numbers!("INDEXED BY jobs_blocked WHERE blocked_by IS NOT NULL"),
    numbers!("INDEXED BY jobs_held WHERE held_by IS NOT NULL"),
];

/// A way into the table: a statement made by [`numbers!`], and the state that it is bound to.
pub(super) type Way = (&'static str, Option<StateName>);

impl SqliteStore {
    /// The ways that together lead to every job of the filter's states.
    pub(super) async fn ways(&self, filter: &JobFilter) -> Result<Vec<Way>> {
        // Where there is no way that leads to few: by the run, or through the table from its end.
        let any = if filter.run.is_some() { OF_RUN } else { ALL };
        if filter.states.is_empty() {
            return Ok(vec![(any, None)]);
        }
        let mut states = filter.states.clone();
        states.sort_unstable();
        states.dedup();
        let mut ways = Vec::new();
        for state in states {
            let held: i64 = sqlx::query_scalar("SELECT coalesce(sum(n), 0) FROM counters WHERE state = ?1")
                .bind(state.as_str())
                .fetch_one(self.readers())
                .await?;
            match state {
                StateName::Running => ways.push((RUNNING, None)),
                StateName::Retrying => ways.push((RETRYING, None)),
                _ if held > FEW => ways.push((any, Some(state))),
                StateName::Pending => ways.extend(WAITING.map(|way| (way, Some(state)))),
                _ => ways.push((FINAL, Some(state))),
            }
        }
        Ok(ways)
    }

    /// A page of numbers: the newest of what each way found.
    pub(super) async fn numbers(&self, ways: &[Way], filter: &JobFilter, below: i64, page: usize) -> Result<Vec<i64>> {
        let mut numbers: Vec<i64> = Vec::new();
        for (sql, state) in ways {
            let found: Vec<i64> = sqlx::query_scalar(*sql)
                .bind(below)
                .bind(sql_limit(page))
                .bind(&filter.pipeline)
                .bind(&filter.watch)
                .bind(filter.error.as_deref().map(str::to_ascii_lowercase))
                .bind(filter.since.map(Timestamp::as_millis))
                .bind(state.map(StateName::as_str))
                .bind(filter.run.map(|run| run.0))
                .bind(&filter.repo)
                .fetch_all(self.readers())
                .await?;
            numbers.extend(found);
        }
        // A job that moved between two of the reads was found twice.
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.dedup();
        numbers.truncate(page);
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::fixture;
    use super::*;

    #[tokio::test]
    async fn every_way_goes_by_its_index() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        for (sql, index) in [
            (ALL, "SEARCH jobs USING INTEGER PRIMARY KEY"),
            (RUNNING, "jobs_running"),
            (RETRYING, "SEARCH jobs USING INDEX jobs_retrying (state=? AND rowid<?)"),
            (FINAL, "SEARCH jobs USING INDEX jobs_final (state=?)"),
            (WAITING[0], "jobs_due"),
            (WAITING[1], "jobs_suspect"),
            (WAITING[2], "jobs_blocked"),
            (WAITING[3], "jobs_held"),
            (OF_RUN, "jobs_run (run=? AND id<?)"),
        ] {
            let plan = fixture::plan(&store, sql).await;
            assert!(plan.iter().any(|line| line.contains(index)), "{index}: {plan:#?}");
        }
    }
}
