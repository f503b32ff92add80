//! Runs over lists on a real file.

mod hands;
mod missing;
mod reading;
mod taking;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::super::SqliteStore;
use super::super::fixture::{self, NOW};
use crate::clock::Timestamp;
use crate::job::{Digest, ErrorKind, FileIdentity, JobError, JobId, Op, Priority, SourceKey, StateName, Verdict};
use crate::run::{InputRead, Run, RunId, RunInput, RunState, RunType};
use crate::store::{
    Appetite, Backlog as _, Begun, Browse as _, Changeset, Enqueued, Holder, JobFilter, LineProblem, Lines, LinesTaken,
    Listed, Lists as _, MissingStep, NewJob, NewListRun, Prunable, Queue as _, RunSteered, Runs as _, Settlement,
    Steered, Steering as _, Upkeep as _, Want,
};

/// Reads the lists of a store.
struct Reader {
    store: Arc<SqliteStore>,
    _dir: TempDir,
}

fn me() -> Holder {
    Holder("me".to_owned())
}

/// Of another content.
fn digest() -> Digest {
    let mut bytes = vec![1];
    bytes.extend([1; 32]);
    Digest::from_bytes(&bytes).unwrap()
}

fn named(name: &str) -> NewListRun {
    NewListRun {
        name: Some(name.to_owned()),
        list: name.to_owned(),
        input: RunInput::Stdin { read: InputRead::default() },
        pipeline: "documents".to_owned(),
        dry_run: false,
        delete_missing: false,
        holder: me(),
    }
}

fn file(run: RunId, line: u64, name: &str) -> NewJob {
    let inode = name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)) % 1_000_000_007 + 1;
    NewJob {
        source: SourceKey::Path(PathBuf::from("/data").join(name)),
        pipeline: "documents".to_owned(),
        priority: Priority::Normal,
        run_at: None,
        identity: FileIdentity { dev: 1, inode, size: 3, mtime_ns: 4, ctime_ns: 5 },
        digest: None,
        metadata: None,
        force: false,
        note_only: false,
        renamed: None,
        listed: Some(Box::new(Listed { run, line, repo: None, op: None, content: None })),
    }
}

fn delete(run: RunId, line: u64, name: &str) -> NewJob {
    let mut job = file(run, line, name);
    job.identity = FileIdentity::default();
    job.listed.as_mut().unwrap().op = Some(Op::Delete);
    job
}

fn batch(run: RunId, after: u64, jobs: Vec<NewJob>) -> Lines {
    let count = u64::try_from(jobs.len()).unwrap();
    Lines {
        run,
        holder: me(),
        after,
        read: InputRead { lines: after + count, bytes: 10 * (after + count), digest: Some([7; 32]) },
        count,
        jobs,
        problems: Vec::new(),
        changesets: Vec::new(),
        current_path: None,
        rate_per_s: 1.0,
        more_worked: Duration::from_millis(5),
    }
}

impl Reader {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        store.begin_boot(1, "test").await.unwrap();
        Self { store, _dir: dir }
    }

    async fn begin(&self, new: NewListRun) -> RunId {
        match self.store.begin_list(new).await.unwrap() {
            Begun::Run { id, .. } => id,
            Begun::Active(id) => panic!("run {id} reads"),
        }
    }

    async fn run(&self, id: RunId) -> Run {
        self.store.run(id).await.unwrap().unwrap()
    }

    /// Takes files, a line each, where the run stands.
    async fn take(&self, id: RunId, names: &[&str]) -> Vec<Enqueued> {
        let after = self.run(id).await.position;
        let jobs = (after + 1..).zip(names).map(|(line, name)| match name.strip_prefix('-') {
            Some(gone) => delete(id, line, gone),
            None => file(id, line, name),
        });
        match self.store.take_lines(batch(id, after, jobs.collect())).await.unwrap() {
            LinesTaken::All(answers) => answers,
            other => panic!("{other:?}"),
        }
    }

    /// Works on at most so many jobs of a pipeline.
    async fn work(&self, most: usize, verdict: &Verdict) -> Vec<JobId> {
        let wants = vec![Want::single("documents", most)];
        let leased = self.store.lease(wants, most, Appetite::Regular).await.unwrap().work;
        let ids = leased.iter().map(|(_, work)| work.job).collect();
        let ends = leased.into_iter().map(|(lease, _)| Settlement {
            lease,
            verdict: verdict.clone(),
            code: None,
            output: Vec::new(),
            content: None,
            remember: false,
            finished_at: Timestamp::from_millis(NOW),
            duration: Duration::from_millis(1),
        });
        self.store.settle(ends.collect()).await.unwrap();
        ids
    }

    async fn sound(&self) {
        assert_eq!(self.store.check(true).await.unwrap(), Vec::<String>::new());
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.store.readers()).await.unwrap()
    }
}

fn failure() -> Verdict {
    Verdict::Fail { error: JobError::permanent(ErrorKind::Exit, "exit code 65") }
}

fn new_jobs(answers: &[Enqueued]) -> usize {
    answers.iter().filter(|answer| matches!(answer, Enqueued::New { .. })).count()
}
