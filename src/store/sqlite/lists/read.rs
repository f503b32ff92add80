//! Runs over lists, read for people.

use sqlx::Row as _;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::super::super::error::Result;
use super::super::super::lists::{Changeset, FailedLine, RepoCounts, RunSummary};
use super::super::enqueue::parse;
use super::super::runs::run;
use super::super::{row, wire};
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::run::{RunId, RunJobs};

/// ?1: the run (NULL: any), ?2: at most so many.
const PROBLEMS: &str = "
    SELECT run, line, path, op, repo, text, message FROM run_lines
    WHERE ?1 IS NULL OR run = ?1 ORDER BY run DESC, line LIMIT ?2";

/// ?1: the run (NULL: any), ?2: at most so many. Failed jobs are the few.
const FAILED_JOBS: &str = "
    SELECT j.id, j.run, j.line, j.op, j.repo, j.attempt, j.error_message, s.scope, w.name AS watch, w.root,
           coalesce(j.identity, s.identity) AS identity, s.path AS source_path
    FROM jobs AS j INDEXED BY jobs_final
        CROSS JOIN runs AS r ON r.id = j.run
        LEFT JOIN sources AS s ON s.id = j.source
        LEFT JOIN watches AS w ON w.id = s.scope
    WHERE j.state = 'failed' AND j.state IN ('completed', 'failed', 'cancelled', 'skipped')
        AND j.run IS NOT NULL AND (?1 IS NULL OR j.run = ?1)
    ORDER BY j.run DESC, j.line LIMIT ?2";

/// ?1: the run, ?2: at most so many.
pub(in crate::store::sqlite) const CHANGESETS: &str =
    "SELECT line, repo, changeset FROM run_changesets WHERE run = ?1 ORDER BY line LIMIT ?2";

/// ?1: the run.
const REPOS: &str = "
    SELECT repo, count(*) FILTER (WHERE state IN ('pending', 'running', 'retrying')) AS open,
           count(*) FILTER (WHERE state = 'completed') AS completed, count(*) FILTER (WHERE state = 'failed') AS failed,
           count(*) FILTER (WHERE state = 'skipped') AS skipped, count(*) FILTER (WHERE state = 'cancelled') AS cancelled
    FROM jobs INDEXED BY jobs_run WHERE run = ?1 AND run IS NOT NULL GROUP BY repo ORDER BY repo";

/// The newest run that was no dry one.
const LAST: &str = "SELECT * FROM runs WHERE NOT dry_run ORDER BY id DESC LIMIT 1";

/// ?1: those that began then or later. Dry runs did nothing.
const SUMMARY: &str = "
    SELECT count(*) AS total, count(*) FILTER (WHERE finished_at IS NULL) AS active,
           count(*) FILTER (WHERE finished_at IS NOT NULL) AS ended,
           count(*) FILTER (WHERE state = 'completed') AS successes,
           count(*) FILTER (WHERE state = 'failed'
                            OR (state = 'cancelled' AND bad_lines + failed_lines + jobs_failed > 0)) AS errors
    FROM runs WHERE started_at >= ?1 AND NOT dry_run";

pub(super) async fn failed_lines(readers: &SqlitePool, id: Option<RunId>, limit: usize) -> Result<Vec<FailedLine>> {
    let (id, most) = (id.map(|id| id.0), wire::count(limit));
    let mut snapshot = readers.begin().await?;
    let problems = sqlx::query(PROBLEMS).bind(id).bind(most).fetch_all(&mut *snapshot).await?;
    let jobs = sqlx::query(FAILED_JOBS).bind(id).bind(most).fetch_all(&mut *snapshot).await?;
    snapshot.commit().await?;
    let mut lines = problems.iter().map(problem).chain(jobs.iter().map(failed_job)).collect::<Result<Vec<_>>>()?;
    lines.sort_by_key(|line| (std::cmp::Reverse(line.run), line.line));
    lines.truncate(limit);
    Ok(lines)
}

fn line(row: &SqliteRow) -> Result<u64> {
    Ok(row.try_get::<Option<i64>, _>("line")?.map_or(0, i64::cast_unsigned))
}

fn problem(row: &SqliteRow) -> Result<FailedLine> {
    Ok(FailedLine {
        run: RunId(row.try_get("run")?),
        line: line(row)?,
        path: row.try_get::<Option<Vec<u8>>, _>("path")?.map(wire::path),
        op: row.try_get::<Option<&str>, _>("op")?.map(parse).transpose()?,
        repo: row.try_get("repo")?,
        job: None,
        error: row.try_get("message")?,
        tries: 0,
        text: Some(row.try_get("text")?),
    })
}

fn failed_job(row: &SqliteRow) -> Result<FailedLine> {
    let job = JobId(row.try_get("id")?);
    Ok(FailedLine {
        run: RunId(row.try_get("run")?),
        line: line(row)?,
        path: Some(row::path_of(row, job)?),
        op: Some(parse(row.try_get("op")?)?),
        repo: row.try_get("repo")?,
        job: Some(job),
        error: row.try_get::<Option<String>, _>("error_message")?.unwrap_or_default(),
        tries: row.try_get("attempt")?,
        text: None,
    })
}

pub(super) async fn changesets(readers: &SqlitePool, id: RunId, limit: usize) -> Result<Vec<Changeset>> {
    let rows = sqlx::query(CHANGESETS).bind(id.0).bind(wire::count(limit)).fetch_all(readers).await?;
    let read = |row: &SqliteRow| {
        Ok(Changeset { line: line(row)?, repo: row.try_get("repo")?, changeset: row.try_get("changeset")? })
    };
    rows.iter().map(read).collect()
}

pub(super) async fn repos(readers: &SqlitePool, id: RunId) -> Result<Vec<RepoCounts>> {
    let rows = sqlx::query(REPOS).bind(id.0).fetch_all(readers).await?;
    let counts = |row: &SqliteRow| {
        let number = |column| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
        let jobs = RunJobs {
            open: number("open")?,
            completed: number("completed")?,
            failed: number("failed")?,
            skipped: number("skipped")?,
            cancelled: number("cancelled")?,
        };
        Ok(RepoCounts { repo: row.try_get("repo")?, jobs })
    };
    rows.iter().map(counts).collect()
}

pub(super) async fn summary(readers: &SqlitePool, since: Option<Timestamp>) -> Result<RunSummary> {
    let row = sqlx::query(SUMMARY).bind(since.map_or(i64::MIN, Timestamp::as_millis)).fetch_one(readers).await?;
    let last = sqlx::query(LAST).fetch_optional(readers).await?;
    let number = |column| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    Ok(RunSummary {
        total: number("total")?,
        active: number("active")?,
        ended: number("ended")?,
        successes: number("successes")?,
        errors: number("errors")?,
        last: last.as_ref().map(run).transpose()?.filter(|run| since.is_none_or(|since| run.started_at >= since)),
    })
}
