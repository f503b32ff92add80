//! Runs. Every write about one is guarded by its state, so that what is told of a run that was cancelled meanwhile
//! changes nothing.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::error::{Result, StoreError};
use super::super::runs::{BegunRun, RunProgress, Runs, ScanToRun};
use super::{SqliteStore, wire};
use crate::clock::{Timestamp, millis};
use crate::run::{InputRead, Run, RunId, RunInput, RunJobs, RunState, RunType};

/// ?1: the name.
pub(super) const ACTIVE: &str = "
    SELECT id, type, input_path, newest_job FROM runs
    WHERE name = ?1 AND list IS NULL AND state IN ('running', 'paused')";

/// ?1: the watch, ?2: the newest job that is counted. What was made since by a daemon that died before it could say so.
pub(super) const MADE_SINCE: &str = "
    SELECT count(*), coalesce(max(j.id), ?2)
    FROM jobs AS j CROSS JOIN sources AS s ON s.id = j.source
    WHERE j.id > ?2 AND j.op <> 'delete' AND s.scope = (SELECT id FROM watches WHERE name = ?1)";

/// ?1: the watch, ?2: its root, ?3: the pipeline, ?4: the type unless it is the first, ?5: now.
const BEGIN: &str = "
    INSERT INTO runs (name, type, state, input_kind, input_path, pipeline, newest_job, started_at, updated_at)
    VALUES (?1,
            CASE WHEN EXISTS (SELECT 1 FROM watches WHERE name = ?1 AND first_scanned_at IS NOT NULL)
                 THEN ?4 ELSE 'initial' END,
            'running', 'watch', ?2, ?3, (SELECT coalesce(max(id), 0) FROM jobs), ?5, ?5)
    RETURNING id, type";

/// ?1: the run, ?2: files met, ?3: more jobs, ?4: the newest of them, ?5: where it is, ?6: files per second, ?7: more time
/// at work, ?8: what went wrong, ?9: now.
const PROGRESS: &str = "
    UPDATE runs SET processed = ?2, position = ?2, enqueued = enqueued + ?3, skipped = max(0, ?2 - enqueued - ?3),
        newest_job = max(newest_job, ?4), current_path = ?5, rate_per_s = ?6, duration_ms = duration_ms + ?7,
        last_error = ?8, updated_at = ?9
    WHERE id = ?1 AND state = 'running'";

/// ?1: the run, ?2: the final state, ?3: now.
const END: &str = "
    UPDATE runs SET state = ?2, finished_at = ?3, current_path = NULL, total = iif(?2 = 'completed', processed, NULL)
    WHERE id = ?1";

/// ?1: runs, ?2: why, ?3: now.
const CANCEL: &str = "
    UPDATE runs SET state = 'cancelled', finished_at = ?3, updated_at = ?3, current_path = NULL, last_error = ?2
    WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ('running', 'paused')";

/// ?1: the run. A scan of its watch went through.
const NOTE_FIRST_SCAN: &str = "
    UPDATE watches SET first_scanned_at = ?2
    WHERE first_scanned_at IS NULL AND name = (SELECT name FROM runs WHERE id = ?1 AND input_kind = 'watch')";

/// ?1: below this number, ?2: at most so many.
pub(super) const NEWEST: &str = "
    SELECT *, EXISTS (SELECT 1 FROM watches AS w WHERE w.name = runs.name AND w.paused AND list IS NULL) AS waits
    FROM runs WHERE id < ?1 ORDER BY id DESC LIMIT ?2";

/// ?1: the run.
const ONE: &str = "
    SELECT *, EXISTS (SELECT 1 FROM watches AS w WHERE w.name = runs.name AND w.paused AND list IS NULL) AS waits
    FROM runs WHERE id = ?1";

#[async_trait]
impl Runs for SqliteStore {
    async fn begin_scan(&self, scan: ScanToRun) -> Result<BegunRun> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (scan, now) = (scan.clone(), clock.now());
            Box::pin(async move { begin_scan(tx, &scan, now).await })
        })
        .await
    }

    async fn note_progress(&self, id: RunId, progress: RunProgress) -> Result<bool> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (progress, now) = (progress.clone(), clock.now());
            Box::pin(async move { note_progress(tx, id, &progress, now).await })
        })
        .await
    }

    async fn end_run(&self, id: RunId, end: RunState, progress: RunProgress) -> Result<bool> {
        if !end.is_final() {
            return Err(StoreError::Refused(format!("no run ends as {end}")));
        }
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (progress, now) = (progress.clone(), clock.now());
            Box::pin(async move {
                if !note_progress(tx, id, &progress, now).await? {
                    return Ok(false);
                }
                sqlx::query(END).bind(id.0).bind(end.as_str()).bind(now.as_millis()).execute(&mut *tx).await?;
                if end == RunState::Completed {
                    sqlx::query(NOTE_FIRST_SCAN).bind(id.0).bind(now.as_millis()).execute(tx).await?;
                }
                Ok(true)
            })
        })
        .await
    }

    async fn cancel_scans_but(&self, watches: Vec<String>) -> Result<u64> {
        let active: Vec<(i64, String)> = sqlx::query_as(
            "SELECT id, name FROM runs INDEXED BY runs_active
             WHERE list IS NULL AND state IN ('running', 'paused')",
        )
        .fetch_all(self.readers())
        .await?;
        let orphans: Vec<i64> =
            active.into_iter().filter(|(_, name)| !watches.contains(name)).map(|(id, _)| id).collect();
        if orphans.is_empty() {
            return Ok(0);
        }
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (orphans, now) = (orphans.clone(), clock.now());
            Box::pin(async move { cancel(tx, &orphans, "its watch does not exist any more", now).await })
        })
        .await
    }

    async fn runs(&self, limit: usize) -> Result<Vec<Run>> {
        let rows = sqlx::query(NEWEST).bind(i64::MAX).bind(wire::count(limit)).fetch_all(self.readers()).await?;
        rows.iter().map(run_or_scan).collect()
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>> {
        let row = sqlx::query(ONE).bind(id.0).fetch_optional(self.readers()).await?;
        row.as_ref().map(run_or_scan).transpose()
    }
}

async fn begin_scan(tx: &mut SqliteConnection, scan: &ScanToRun, now: Timestamp) -> Result<BegunRun> {
    let active: Vec<(i64, String, Vec<u8>, i64)> = sqlx::query_as(ACTIVE).bind(&scan.watch).fetch_all(&mut *tx).await?;
    if let Some((id, run_type, root, newest_job)) = active.into_iter().next() {
        if root == wire::path_bytes(&scan.root) {
            let (made, newest): (i64, i64) =
                sqlx::query_as(MADE_SINCE).bind(&scan.watch).bind(newest_job).fetch_one(&mut *tx).await?;
            sqlx::query(
                "UPDATE runs SET enqueued = enqueued + ?2, newest_job = ?3, pipeline = ?4, last_error = NULL, updated_at = ?5
                 WHERE id = ?1",
            )
            .bind(id)
            .bind(made)
            .bind(newest)
            .bind(&scan.pipeline)
            .bind(now.as_millis())
            .execute(tx)
            .await?;
            return Ok(BegunRun { id: RunId(id), run_type: name(&run_type, id)?, goes_on: true });
        }
        cancel(tx, &[id], "its watch has another folder now", now).await?;
    }
    let rows = sqlx::query(BEGIN)
        .bind(&scan.watch)
        .bind(wire::path_bytes(&scan.root))
        .bind(&scan.pipeline)
        .bind(scan.run_type.as_str())
        .bind(now.as_millis())
        .fetch_all(tx)
        .await?;
    let row = rows.first().ok_or_else(|| StoreError::Other("a run was not written".to_owned()))?;
    let id = row.try_get("id")?;
    Ok(BegunRun { id: RunId(id), run_type: name(row.try_get("type")?, id)?, goes_on: false })
}

async fn note_progress(tx: &mut SqliteConnection, id: RunId, told: &RunProgress, now: Timestamp) -> Result<bool> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let done = sqlx::query(PROGRESS)
        .bind(id.0)
        .bind(number(told.processed))
        .bind(number(told.more_enqueued))
        .bind(told.newest_job.map_or(0, |job| job.0))
        .bind(told.current_path.as_deref().map(wire::path_bytes))
        .bind(told.rate_per_s)
        .bind(millis(told.more_worked))
        .bind(told.last_error.as_deref())
        .bind(now.as_millis())
        .execute(tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

async fn cancel(tx: &mut SqliteConnection, runs: &[i64], why: &str, now: Timestamp) -> Result<u64> {
    let done = sqlx::query(CANCEL).bind(wire::rows(runs)?).bind(why).bind(now.as_millis()).execute(tx).await?;
    Ok(done.rows_affected())
}

fn unreadable(id: i64, why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("run {id} can't be read from the database: {why}"))
}

fn name<T: std::str::FromStr<Err = crate::job::UnknownName>>(text: &str, id: i64) -> Result<T> {
    text.parse().map_err(|why| unreadable(id, why))
}

fn input_read(row: &SqliteRow) -> Result<InputRead> {
    let digest: Option<Vec<u8>> = row.try_get("input_digest")?;
    let number = |column| row.try_get::<i64, _>(column).map(|n| u64::try_from(n).unwrap_or(0));
    Ok(InputRead {
        lines: number("position")?,
        bytes: number("input_bytes")?,
        digest: digest.and_then(|digest| digest.try_into().ok()),
    })
}

/// A run from a row of [`NEWEST`] or [`ONE`]. An active scan is paused while its watch is.
fn run_or_scan(row: &SqliteRow) -> Result<Run> {
    let found = run(row)?;
    let waits = row.try_get("waits")? && found.state == RunState::Running;
    Ok(if waits { Run { state: RunState::Paused, ..found } } else { found })
}

/// A run from a row of the table.
pub(super) fn run(row: &SqliteRow) -> Result<Run> {
    let id: i64 = row.try_get("id")?;
    let number = |column| row.try_get::<i64, _>(column).map(|n| u64::try_from(n).unwrap_or(0));
    let time = |column| row.try_get::<i64, _>(column).map(Timestamp::from_millis);
    let path = |column| row.try_get::<Option<Vec<u8>>, _>(column).map(|bytes| bytes.map(wire::path));
    let kind: &str = row.try_get("input_kind")?;
    let input = match (kind, path("input_path")?) {
        ("watch", Some(root)) => RunInput::Watch { root },
        ("file", Some(path)) => RunInput::File { path, read: input_read(row)? },
        ("stdin", _) => RunInput::Stdin { read: input_read(row)? },
        _ => return Err(unreadable(id, format_args!("its input is of an unknown kind, `{kind}`"))),
    };
    Ok(Run {
        id: RunId(id),
        name: row.try_get("name")?,
        run_type: name::<RunType>(row.try_get("type")?, id)?,
        state: name::<RunState>(row.try_get("state")?, id)?,
        input,
        pipeline: row.try_get("pipeline")?,
        total: row.try_get::<Option<i64>, _>("total")?.map(|n| u64::try_from(n).unwrap_or(0)),
        processed: number("processed")?,
        enqueued: number("enqueued")?,
        skipped: number("skipped")?,
        position: number("position")?,
        current_path: path("current_path")?,
        rate_per_s: row.try_get("rate_per_s")?,
        started_at: time("started_at")?,
        updated_at: time("updated_at")?,
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(Timestamp::from_millis),
        duration_ms: row.try_get("duration_ms")?,
        last_error: row.try_get("last_error")?,
        dry_run: row.try_get("dry_run")?,
        reading: row.try_get("reading")?,
        bad_lines: number("bad_lines")?,
        failed_lines: number("failed_lines")?,
        duplicates: number("duplicates")?,
        deletes: number("deletes")?,
        batch: number("batch")?,
        checkpoint_version: u32::try_from(row.try_get::<i64, _>("checkpoint_version")?).unwrap_or(0),
        jobs: RunJobs {
            open: number("jobs_open")?,
            completed: number("jobs_completed")?,
            failed: number("jobs_failed")?,
            skipped: number("jobs_skipped")?,
            cancelled: number("jobs_cancelled")?,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::super::fixture::{self, NOW};
    use super::*;
    use crate::job::JobId;
    use crate::store::{Prunable, Settings as _, Upkeep as _};

    fn scan(run_type: RunType) -> ScanToRun {
        let root = PathBuf::from("/srv/inbox");
        ScanToRun { watch: "inbox".to_owned(), root, pipeline: "documents".to_owned(), run_type }
    }

    fn far(processed: u64, more_enqueued: u64) -> RunProgress {
        RunProgress { processed, more_enqueued, more_worked: Duration::from_secs(1), ..RunProgress::default() }
    }

    #[tokio::test]
    async fn the_first_scan_of_a_root_that_goes_through_is_initial_and_no_later_one() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let first = store.begin_scan(scan(RunType::Recovery)).await.unwrap();
        assert_eq!((first.run_type, first.goes_on), (RunType::Initial, false));
        assert!(store.note_progress(first.id, far(5, 3)).await.unwrap());
        let again = store.begin_scan(scan(RunType::Recovery)).await.unwrap();
        assert_eq!(again, BegunRun { goes_on: true, ..first });
        assert!(store.end_run(first.id, RunState::Completed, far(7, 2)).await.unwrap());
        assert!(!store.end_run(first.id, RunState::Completed, far(9, 9)).await.unwrap(), "it is over");
        assert!(!store.note_progress(first.id, far(9, 9)).await.unwrap(), "it is over");
        let run = store.run(first.id).await.unwrap().unwrap();
        assert_eq!((run.processed, run.enqueued, run.skipped, run.total), (7, 5, 2, Some(7)));
        assert_eq!((run.state, run.duration_ms), (RunState::Completed, 2_000));

        let later = store.begin_scan(scan(RunType::Recovery)).await.unwrap();
        assert_eq!((later.run_type, later.goes_on), (RunType::Recovery, false));
        assert!(store.end_run(later.id, RunState::Completed, far(7, 0)).await.unwrap());
        store.put_watch("inbox", PathBuf::from("/srv/other"), None).await.unwrap();
        let moved = ScanToRun { root: PathBuf::from("/srv/other"), ..scan(RunType::Incremental) };
        assert_eq!(store.begin_scan(moved).await.unwrap().run_type, RunType::Initial);
        let ids: Vec<i64> = store.runs(2).await.unwrap().iter().map(|run| run.id.0).collect();
        assert_eq!(ids, [3, 2]);
    }

    #[tokio::test]
    async fn jobs_that_a_dead_daemon_made_after_its_last_word_are_counted_when_the_run_goes_on() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 4, "state", "'pending'").await;
        let begun = store.begin_scan(scan(RunType::Incremental)).await.unwrap();
        fixture::jobs(&store, 5, 10, "state", "'pending'").await;
        let told = RunProgress { newest_job: Some(JobId(8)), ..far(4, 4) };
        store.note_progress(begun.id, told).await.unwrap();
        // Not of a file of this watch, and not of a file that is there.
        fixture::sql(
            &store,
            "UPDATE sources SET scope = 2 WHERE id = 9;
             UPDATE jobs SET op = 'delete' WHERE id = 10",
        )
        .await;
        for _ in 0..2 {
            assert!(store.begin_scan(scan(RunType::Recovery)).await.unwrap().goes_on);
            assert_eq!(store.run(begun.id).await.unwrap().unwrap().enqueued, 8);
        }
    }

    #[tokio::test]
    async fn a_run_of_a_watch_or_a_root_that_is_gone_is_cancelled_and_never_written_again() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let old = store.begin_scan(scan(RunType::Incremental)).await.unwrap();
        assert_eq!(store.cancel_scans_but(vec!["inbox".to_owned()]).await.unwrap(), 0);
        let moved = ScanToRun { root: PathBuf::from("/srv/other"), ..scan(RunType::Incremental) };
        let new = store.begin_scan(moved).await.unwrap();
        assert_ne!(new.id, old.id);
        assert_eq!(store.cancel_scans_but(vec!["other".to_owned()]).await.unwrap(), 1);
        for id in [old.id, new.id] {
            assert!(!store.note_progress(id, far(9, 9)).await.unwrap());
            let run = store.run(id).await.unwrap().unwrap();
            assert_eq!((run.state, run.processed, run.finished_at.is_some()), (RunState::Cancelled, 0, true));
            assert!(run.last_error.unwrap().contains("watch"));
        }
    }

    #[tokio::test]
    async fn old_runs_go_and_neither_an_active_one_nor_the_knowledge_of_a_first_scan() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        for _ in 0..3 {
            let begun = store.begin_scan(scan(RunType::Recovery)).await.unwrap();
            store.end_run(begun.id, RunState::Completed, far(1, 0)).await.unwrap();
        }
        let active = store.begin_scan(scan(RunType::Incremental)).await.unwrap();
        let (long_ago, later) = (Timestamp::from_millis(NOW), Timestamp::from_millis(NOW + 1));
        assert_eq!(store.prunable(Prunable::Runs, long_ago).await.unwrap(), 0);
        assert_eq!(store.prunable(Prunable::Runs, later).await.unwrap(), 3);
        assert_eq!(store.prune(Prunable::Runs, later, 2).await.unwrap(), 2);
        assert_eq!(store.prune(Prunable::Runs, later, 2).await.unwrap(), 1);
        let left: Vec<RunId> = store.runs(9).await.unwrap().iter().map(|run| run.id).collect();
        assert_eq!(left, [active.id]);
        store.end_run(active.id, RunState::Completed, far(1, 0)).await.unwrap();
        assert_eq!(store.begin_scan(scan(RunType::Recovery)).await.unwrap().run_type, RunType::Recovery);
    }
}
