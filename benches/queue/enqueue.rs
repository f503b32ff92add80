//! Enqueue: files that nobody has heard of become jobs.

use std::path::PathBuf;
use std::sync::Arc;

use ingestd::job::{FileIdentity, Priority, SourceKey};
use ingestd::store::sqlite::SqliteStore;
use ingestd::store::{NewJob, Queue as _};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::Bench;
use crate::database::{self, Opened, PIPELINE, WATCH};
use crate::paths;
use crate::raw::Raw;
use crate::report::{self, Aim, Rounds, Took, Watch};

const ROUNDS: usize = 9;

/// One caller, a thousand a call, call after call.
pub fn thousand_a_call(bench: &Bench) {
    const JOBS: i64 = 20_000;
    let mut ground = Ground::new(bench);
    let rounds = ground.beside_raw(JOBS, 1_000);
    let (ours, raw) = rounds.rates(JOBS);
    let ratio = rounds.ratio();
    report::row("enqueue, 1 000 a call", &ours, &format!("raw: {raw}"), Some(ratio), &Aim::at_least(ratio, 0.8));
    ground.close();
}

/// One job a call: one caller beside raw SQLite, which commits each row, and 64 callers beside the one.
pub fn one_a_call(bench: &Bench) {
    const JOBS: i64 = 640;
    const CALLERS: i64 = 64;
    let mut ground = Ground::new(bench);
    let rounds = ground.beside_raw(JOBS, 1);
    let (ours, raw) = rounds.rates(JOBS);
    let ratio = rounds.ratio();
    let beside = format!("raw, a commit each: {raw}");
    report::row("enqueue, one a call, one caller", &ours, &beside, Some(ratio), &Aim::at_least(ratio, 0.3));

    let (store, next) = (ground.ours.store.clone(), std::cell::Cell::new(ground.our_next));
    let callers = |n| {
        let first = next.replace(next.get() + JOBS);
        let share = JOBS / n;
        let calls = (0..n).map(|caller| calls(first + caller * share, share, 1)).collect();
        at_once(bench, &store, calls)
    };
    let rounds = Rounds::take(ROUNDS, || callers(CALLERS), || callers(1));
    ground.our_next = next.get();
    let (many, one) = rounds.rates(JOBS);
    let ratio = rounds.ratio();
    let beside = format!("one caller: {one}");
    report::row("enqueue, one a call, 64 callers", &many, &beside, Some(ratio), &Aim::at_least(ratio, 8.0));
    ground.close();
}

/// Two databases that start empty: the program's, and raw SQLite's.
struct Ground<'b> {
    bench: &'b Bench,
    folder: TempDir,
    ours: Opened,
    our_next: i64,
    raw: Connection,
    raw_next: i64,
}

impl<'b> Ground<'b> {
    fn new(bench: &'b Bench) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ours.db", "raw.db"] {
            database::create(bench, &folder.path().join(name), folder.path());
        }
        let ours = database::open(bench, &folder.path().join("ours.db"));
        let raw = database::connect(&folder.path().join("raw.db"));
        Self { bench, folder, ours, our_next: 1, raw, raw_next: 1 }
    }

    /// `jobs` a round, `call` in each call or transaction.
    fn beside_raw(&mut self, jobs: i64, call: i64) -> Rounds {
        let (bench, store, mut raw) = (self.bench, self.ours.store.clone(), Raw::new(&self.raw));
        let (our_next, raw_next) = (&mut self.our_next, &mut self.raw_next);
        Rounds::take(
            ROUNDS,
            || {
                let calls = calls(*our_next, jobs, call);
                *our_next += jobs;
                at_once(bench, &store, vec![calls])
            },
            || {
                let batches: Vec<_> = starts(*raw_next, jobs, call).map(|first| new_files(first, call)).collect();
                *raw_next += jobs;
                let watch = Watch::start();
                for batch in &batches {
                    raw.enqueue(batch);
                }
                watch.stop()
            },
        )
    }

    /// Closes both databases, and asserts that they hold what the queue promises.
    fn close(self) {
        self.ours.close(self.bench);
        self.raw.close().unwrap();
        for name in ["ours.db", "raw.db"] {
            database::assert_sound(self.bench, &self.folder.path().join(name));
        }
    }
}

/// Each caller makes its calls one after the other, all callers at once.
fn at_once(bench: &Bench, store: &Arc<SqliteStore>, callers: Vec<Vec<Vec<NewJob>>>) -> Took {
    let store = store.clone();
    let calling = bench.runtime.spawn(async move {
        let watch = Watch::start();
        let mut at_work = JoinSet::new();
        for calls in callers {
            let store = store.clone();
            at_work.spawn(async move {
                for call in calls {
                    store.enqueue(call).await.unwrap();
                }
            });
        }
        at_work.join_all().await;
        watch.stop()
    });
    bench.runtime.block_on(calling).unwrap()
}

fn starts(first: i64, n: i64, call: i64) -> impl Iterator<Item = i64> {
    (0..n / call).map(move |i| first + i * call)
}

fn calls(first: i64, n: i64, call: i64) -> Vec<Vec<NewJob>> {
    starts(first, n, call).map(|first| (first..first + call).map(new_job).collect()).collect()
}

fn new_files(first: i64, n: i64) -> Vec<(i64, PathBuf, FileIdentity)> {
    (first..first + n).map(|i| (i, paths::relative(i).into(), paths::identity(i))).collect()
}

fn new_job(i: i64) -> NewJob {
    NewJob {
        source: SourceKey::Watched { watch: WATCH.to_owned(), relative: paths::relative(i).into() },
        pipeline: PIPELINE.to_owned(),
        priority: Priority::Normal,
        run_at: None,
        identity: paths::identity(i),
        digest: None,
        metadata: None,
        force: false,
        note_only: false,
        renamed: None,
        listed: None,
    }
}
