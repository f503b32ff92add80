//! From rows to values.
//!
//! A row is parsed as a whole or refused as a whole: what does not fit its type ends as
//! [`StoreError::Corrupt`] with the number of the job, and never as a job with a fact left out. The path is put
//! together from the source's scope: a watch's root and the relative path, the absolute path itself, or, under a
//! caller's key, the path that was given with it.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::super::browse::Attempt;
use super::super::error::{Result, StoreError};
use super::enqueue::{SCOPE_KEY, SCOPE_PATH};
use crate::clock::Timestamp;
use crate::job::{
    Digest, IdempotencyKey, Incarnation, Job, JobError, JobId, Priority, SkipReason, SourceKey, State, StateName,
    UnknownName,
};
use crate::run::RunId;

/// Why a row can't be read.
#[derive(Debug)]
struct Unreadable(String);

impl From<sqlx::Error> for Unreadable {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<UnknownName> for Unreadable {
    fn from(error: UnknownName) -> Self {
        Self(error.to_string())
    }
}

/// A job from a row of `sql/jobs_by_id.sql`.
pub(super) fn job(row: &SqliteRow, incarnation: &Incarnation) -> Result<Job> {
    let id = row.try_get("id")?;
    parse_job(row, JobId(id), incarnation).map_err(|why| unreadable(format_args!("job {id}"), why))
}

/// An execution from a row of `sql/history.sql` or `sql/attempts_of_job.sql`.
pub(super) fn attempt(row: &SqliteRow) -> Result<Attempt> {
    let id = row.try_get("id")?;
    let job = row.try_get("job")?;
    parse_attempt(row, id, JobId(job))
        .map_err(|why| unreadable(format_args!("row {id} of the history, of job {job},"), why))
}

/// The path of the file that job `id` is about, from a row with the columns of its source.
pub(super) fn path_of(row: &SqliteRow, id: JobId) -> Result<PathBuf> {
    let located = located(row).map_err(|why| unreadable(format_args!("job {id}"), why))?;
    Ok(located.path)
}

fn unreadable(what: impl Display, why: Unreadable) -> StoreError {
    StoreError::Corrupt(format!("{what} can't be read from the database: {}", why.0))
}

fn parse_job(row: &SqliteRow, id: JobId, incarnation: &Incarnation) -> Result<Job, Unreadable> {
    let located = located(row)?;
    let pipeline: String = row.try_get("pipeline")?;
    let version = row.try_get("version")?;
    let op = word(row, "op")?;
    let error = error(row)?;
    let idempotency_key = IdempotencyKey::derive(incarnation, &pipeline, &located.key, version, op);
    let moved_from: Option<Vec<u8>> = row.try_get("moved_from")?;
    let root: Option<Vec<u8>> = row.try_get("root")?;
    Ok(Job {
        id,
        pipeline,
        watch: located.watch,
        path: located.path,
        relative: located.relative,
        op,
        moved_from: moved_from.zip(root).map(|(name, root)| path(root).join(path(name))),
        version,
        priority: level(row)?,
        state: state(row, error.as_ref())?,
        attempt: row.try_get("attempt")?,
        executions: row.try_get("executions")?,
        crashes: row.try_get("crashes")?,
        run_at: time(row, "run_at")?,
        created_at: time(row, "created_at")?,
        started_at: maybe_time(row, "started_at")?,
        finished_at: maybe_time(row, "finished_at")?,
        // The column holds the bits of an unsigned size.
        size_bytes: row.try_get::<Option<i64>, _>("size")?.map(i64::cast_unsigned),
        digest: digest(row)?,
        idempotency_key,
        metadata: row.try_get("metadata")?,
        run: row.try_get::<Option<i64>, _>("run")?.map(RunId),
        line: row.try_get::<Option<i64>, _>("line")?.map(i64::cast_unsigned),
        repo: row.try_get("repo")?,
        content: row.try_get::<Option<Vec<u8>>, _>("content")?.map(path),
        stage: row.try_get("stage")?,
        external_id: row.try_get("external_id")?,
        result: row.try_get("result")?,
        original: original(row)?,
        error,
    })
}

fn parse_attempt(row: &SqliteRow, id: i64, job: JobId) -> Result<Attempt, Unreadable> {
    // The source may be forgotten by now: then the path is unknown, and that is no fault.
    let path = match row.try_get::<Option<i64>, _>("scope")? {
        Some(_) => Some(located(row)?.path),
        None => None,
    };
    Ok(Attempt {
        id,
        job,
        execution: row.try_get("seq")?,
        pipeline: row.try_get("pipeline")?,
        path,
        outcome: row.try_get("outcome")?,
        spent: row.try_get("spent")?,
        started_at: time(row, "started_at")?,
        finished_at: time(row, "finished_at")?,
        duration_ms: row.try_get("duration_ms")?,
        code: row.try_get("code")?,
        error: error(row)?,
        output: row.try_get("output")?,
    })
}

/// A source, as a person and as the idempotency key name it.
struct Located {
    key: SourceKey,
    watch: Option<String>,
    path: PathBuf,
    relative: PathBuf,
}

/// The source that job `id` is about, and its file's path, from a row with the columns of its source.
pub(super) fn source_of(row: &SqliteRow, id: JobId) -> Result<(SourceKey, PathBuf)> {
    origin(row)?.of_job(id)
}

/// The file that a duplicate repeats, where it is still known.
fn original(row: &SqliteRow) -> Result<Option<PathBuf>, Unreadable> {
    let origin = Origin {
        scope: row.try_get("original_scope")?,
        identity: row.try_get("original_identity")?,
        own_path: row.try_get("original_path")?,
        watch: row.try_get("original_watch")?,
        root: row.try_get("original_root")?,
    };
    Ok(if origin.scope.is_some() { Some(origin.locate()?.1) } else { None })
}

/// Reads `scope`, `watch`, `root`, `identity`, `source_path`.
fn origin(row: &SqliteRow) -> Result<Origin, sqlx::Error> {
    Ok(Origin {
        scope: row.try_get("scope")?,
        identity: row.try_get("identity")?,
        own_path: row.try_get("source_path")?,
        watch: row.try_get("watch")?,
        root: row.try_get("root")?,
    })
}

fn located(row: &SqliteRow) -> Result<Located, Unreadable> {
    let (key, path) = origin(row)?.locate()?;
    let (watch, relative) = match &key {
        SourceKey::Watched { watch, relative } => (Some(watch.clone()), relative.clone()),
        _ => (None, path.clone()),
    };
    Ok(Located { key, watch, path, relative })
}

/// The columns that tell what a job is about; missing ones are NULL.
pub(super) struct Origin {
    pub(super) scope: Option<i64>,
    pub(super) identity: Option<Vec<u8>>,
    pub(super) own_path: Option<Vec<u8>>,
    pub(super) watch: Option<String>,
    pub(super) root: Option<Vec<u8>>,
}

impl Origin {
    /// The source of job `id`, and its file's path.
    pub(super) fn of_job(self, id: JobId) -> Result<(SourceKey, PathBuf)> {
        self.locate().map_err(|why| unreadable(format_args!("job {id}"), why))
    }

    pub(super) fn locate_file(self) -> Result<PathBuf> {
        self.locate().map(|(_, path)| path).map_err(|why| unreadable("a source", why))
    }

    fn locate(self) -> Result<(SourceKey, PathBuf), Unreadable> {
        let missing = |what: &str| Unreadable(format!("its {what} is missing"));
        let scope = self.scope.ok_or_else(|| missing("source"))?;
        let identity = self.identity.ok_or_else(|| missing("source"))?;
        Ok(match scope {
            SCOPE_PATH => {
                let path = path(identity);
                (SourceKey::Path(path.clone()), path)
            }
            SCOPE_KEY => {
                let key = String::from_utf8(identity).map_err(|_| Unreadable("its key is not text".to_owned()))?;
                let path = path(self.own_path.ok_or_else(|| missing("path"))?);
                (SourceKey::Keyed { key, path: path.clone() }, path)
            }
            number => {
                let watch = self.watch.ok_or_else(|| missing(&format!("watch ({number})")))?;
                let (root, relative) = (path(self.root.ok_or_else(|| missing("root"))?), path(identity));
                let path = root.join(&relative);
                (SourceKey::Watched { watch, relative }, path)
            }
        })
    }
}

fn state(row: &SqliteRow, error: Option<&JobError>) -> Result<State, Unreadable> {
    let run_at = time(row, "run_at")?;
    let error = || error.cloned().ok_or_else(|| Unreadable("it failed without an error".to_owned()));
    let finished_at = || {
        maybe_time(row, "finished_at")?.ok_or_else(|| Unreadable("it is over, and nobody knows since when".to_owned()))
    };
    Ok(match word(row, "state")? {
        StateName::Pending => {
            State::Pending { run_at, blocked_by: row.try_get::<Option<i64>, _>("blocked_by")?.map(JobId) }
        }
        StateName::Running => State::Running {
            started_at: maybe_time(row, "started_at")?
                .ok_or_else(|| Unreadable("it runs, and nobody knows since when".to_owned()))?,
        },
        StateName::Retrying => State::Retrying { run_at, error: error()? },
        StateName::Completed => State::Completed { finished_at: finished_at()? },
        StateName::Failed => State::Failed { finished_at: finished_at()?, error: error()? },
        StateName::Cancelled => State::Cancelled { finished_at: finished_at()? },
        StateName::Skipped => State::Skipped { finished_at: finished_at()?, reason: reason(row)? },
    })
}

/// The state of job `id` and why it was skipped, where it was, from a row with these columns.
pub(super) fn standing(row: &SqliteRow, id: JobId) -> Result<(StateName, Option<SkipReason>)> {
    let parse = || {
        let state = word(row, "state")?;
        let reason = if state == StateName::Skipped { Some(reason(row)?) } else { None };
        Ok((state, reason))
    };
    parse().map_err(|why| unreadable(format_args!("job {id}"), why))
}

fn reason(row: &SqliteRow) -> Result<SkipReason, Unreadable> {
    let reason: String = row.try_get("reason")?;
    match reason.as_str() {
        "superseded" => Ok(SkipReason::Superseded { by: JobId(row.try_get("superseded_by")?) }),
        "unchanged" => Ok(SkipReason::Unchanged),
        "duplicate" => Ok(SkipReason::Duplicate { of: JobId(row.try_get("duplicate_of")?) }),
        "vanished" => Ok(SkipReason::Vanished),
        other => Err(Unreadable(format!("`{other}` is no reason to skip"))),
    }
}

fn error(row: &SqliteRow) -> Result<Option<JobError>, Unreadable> {
    let Some(kind) = row.try_get::<Option<String>, _>("error_kind")? else {
        return Ok(None);
    };
    Ok(Some(JobError {
        kind: kind.parse()?,
        message: row.try_get::<Option<String>, _>("error_message")?.unwrap_or_default(),
        permanent: row.try_get::<Option<bool>, _>("error_permanent")?.unwrap_or(false),
    }))
}

/// The error that a group of failures shares.
pub(super) fn shared_error(row: &SqliteRow, example: JobId) -> Result<JobError> {
    error(row)
        .and_then(|error| error.ok_or_else(|| Unreadable("it failed without an error".to_owned())))
        .map_err(|why| unreadable(format_args!("job {example}"), why))
}

fn level(row: &SqliteRow) -> Result<Priority, Unreadable> {
    let number = row.try_get("priority")?;
    Priority::from_number(number).ok_or_else(|| Unreadable(format!("{number} is no priority")))
}

fn digest(row: &SqliteRow) -> Result<Option<Digest>, Unreadable> {
    row.try_get::<Option<Vec<u8>>, _>("digest")?
        .map(|bytes| Digest::from_bytes(&bytes).ok_or_else(|| Unreadable("its digest has an unknown form".to_owned())))
        .transpose()
}

fn word<T: FromStr<Err = UnknownName>>(row: &SqliteRow, column: &str) -> Result<T, Unreadable> {
    Ok(row.try_get::<String, _>(column)?.parse()?)
}

fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, Unreadable> {
    Ok(Timestamp::from_millis(row.try_get(column)?))
}

fn maybe_time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, Unreadable> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
}

/// Paths are bytes, whatever they encode.
pub(super) fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use tempfile::TempDir;

    use super::super::fixture;
    use super::*;
    use crate::job::{ErrorKind, Op};
    use crate::store::Browse as _;

    #[tokio::test]
    async fn a_watched_file_has_its_path_under_the_root_whatever_its_bytes() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::sql(
            &store,
            "INSERT INTO sources (id, scope, identity, version) VALUES (1, 1, CAST('sub/' AS BLOB) || x'ff0a2e706466', 3);
             UPDATE sources SET identity = CAST(identity AS BLOB);
             INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, size, digest, metadata)
             VALUES (9, 1, 1, 3, 'modify', 3, 'pending', 5, 4, -1, x'01' || zeroblob(32), '{}')",
        )
        .await;
        fixture::sql(&store, "UPDATE jobs SET digest = CAST(digest AS BLOB)").await;
        let job = store.job(JobId(9)).await.unwrap().unwrap();
        assert_eq!(job.relative.as_os_str().as_bytes(), b"sub/\xff\n.pdf");
        assert_eq!(job.path.as_os_str().as_bytes(), b"/srv/inbox/sub/\xff\n.pdf");
        assert_eq!((job.watch.as_deref(), job.op, job.version), (Some("inbox"), Op::Modify, 3));
        assert_eq!(job.state, State::Pending { run_at: Timestamp::from_millis(5), blocked_by: None });
        assert_eq!(job.size_bytes, Some(u64::MAX));
        assert_eq!(job.priority, Priority::High);
        let key = SourceKey::Watched { watch: "inbox".to_owned(), relative: job.relative.clone() };
        let expected = IdempotencyKey::derive(store.incarnation(), "documents", &key, 3, Op::Modify);
        assert_eq!(job.idempotency_key, expected);
    }

    #[tokio::test]
    async fn files_without_a_watch_are_named_by_their_path_and_keyed_ones_by_their_key() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::sql(
            &store,
            "INSERT INTO sources (id, scope, identity, path, version) VALUES
                 (1, 0, CAST('/data/a' AS BLOB), NULL, 1), (2, -1, CAST('order-7' AS BLOB), CAST('/data/b' AS BLOB), 1);
             INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, finished_at,
                               reason, superseded_by, error_kind, error_message, error_permanent) VALUES
                 (1, 1, 1, 1, 'add', 2, 'skipped', 5, 4, 6, 'superseded', 8, NULL, NULL, NULL),
                 (2, 2, 1, 1, 'add', 2, 'failed', 5, 4, 6, NULL, NULL, 'exit', 'exit code 65', 1)",
        )
        .await;
        let by_path = store.job(JobId(1)).await.unwrap().unwrap();
        let by_key = store.job(JobId(2)).await.unwrap().unwrap();
        assert_eq!((by_path.path.clone(), by_path.watch), (PathBuf::from("/data/a"), None));
        let finished_at = Timestamp::from_millis(6);
        assert_eq!(by_path.state, State::Skipped { finished_at, reason: SkipReason::Superseded { by: JobId(8) } });
        let error = JobError::permanent(ErrorKind::Exit, "exit code 65");
        assert_eq!(by_key.state, State::Failed { finished_at, error });
        let key = SourceKey::Keyed { key: "order-7".to_owned(), path: "/data/b".into() };
        let expected = IdempotencyKey::derive(store.incarnation(), "documents", &key, 1, Op::Add);
        assert_eq!((by_key.path, by_key.idempotency_key), (PathBuf::from("/data/b"), expected));
    }

    #[tokio::test]
    async fn a_row_that_does_not_parse_is_refused_by_its_number() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 7, 1, "state, started_at, error_kind", "'retrying', 1, 'unheard-of'").await;
        let error = store.job(JobId(7)).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Corrupt(why) if why.contains("job 7") && why.contains("unheard-of")),
            "{error}"
        );
        fixture::sql(&store, "UPDATE jobs SET error_kind = 'io', digest = x'09'").await;
        let error = store.job(JobId(7)).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Corrupt(why) if why.contains("job 7") && why.contains("digest")),
            "{error}"
        );
    }
}
