//! Enqueue: files that nobody has heard of become jobs.

use std::path::PathBuf;
use std::time::Instant;

use ingestd::job::{FileIdentity, Priority, SourceKey};
use ingestd::store::{NewJob, Queue as _};

use crate::Bench;
use crate::database::{self, PIPELINE, WATCH};
use crate::paths;
use crate::raw::Raw;
use crate::report::{self, Aim, Rounds};

/// One caller, a thousand a call, call after call.
pub fn thousand_a_call(bench: &Bench) {
    const ROUNDS: usize = 9;
    const CALLS: i64 = 20;
    const CALL: i64 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let [our_path, raw_path] = ["ours.db", "raw.db"].map(|name| {
        let path = folder.path().join(name);
        database::create(bench, &path, folder.path());
        path
    });
    let ours = database::open(bench, &our_path);
    let connection = database::connect(&raw_path);
    let mut raw = Raw::new(&connection);
    let (mut our_next, mut raw_next) = (1, 1);
    let rounds = Rounds::take(
        ROUNDS,
        || {
            let calls: Vec<_> = (0..CALLS).map(|call| new_jobs(our_next + call * CALL, CALL)).collect();
            our_next += CALLS * CALL;
            let store = ours.store.clone();
            let calling = bench.runtime.spawn(async move {
                let begun = Instant::now();
                for call in calls {
                    store.enqueue(call).await.unwrap();
                }
                begun.elapsed()
            });
            bench.runtime.block_on(calling).unwrap()
        },
        || {
            let calls: Vec<_> = (0..CALLS).map(|call| new_files(raw_next + call * CALL, CALL)).collect();
            raw_next += CALLS * CALL;
            let begun = Instant::now();
            for call in &calls {
                raw.enqueue(call);
            }
            begun.elapsed()
        },
    );
    drop(raw);
    connection.close().unwrap();
    ours.close(bench);
    for path in [&our_path, &raw_path] {
        database::assert_sound(bench, path);
    }
    let (our_rate, raw_rate) = rounds.rates(usize::try_from(CALLS * CALL).unwrap());
    let ratio = rounds.ratio();
    report::row(
        "enqueue, 1 000 a call",
        &our_rate,
        &format!("raw: {raw_rate}"),
        Some(ratio),
        &Aim::at_least(ratio, 0.8),
    );
}

fn new_files(first: i64, n: i64) -> Vec<(i64, PathBuf, FileIdentity)> {
    (first..first + n).map(|i| (i, paths::relative(i).into(), paths::identity(i))).collect()
}

fn new_jobs(first: i64, n: i64) -> Vec<NewJob> {
    (first..first + n).map(new_job).collect()
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
    }
}
