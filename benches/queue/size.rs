//! What a completed job takes on the disk.

use ingestd::job::{FileIdentity, Priority, SourceKey};
use ingestd::store::{NewJob, Queue as _};

use crate::database::{self, PIPELINE, WATCH};
use crate::report::{self, Aim};
use crate::{Bench, paths, pool};

const JOBS: i64 = 100_000;

/// Real files are enqueued, digested and completed by the program, each in one attempt; then everything is in the
/// database's file, which is divided by their number.
pub fn bytes_per_job(bench: &Bench) {
    let folder = tempfile::tempdir().unwrap();
    let (path, root) = (folder.path().join("ours.db"), folder.path().join("inbox"));
    database::create(bench, &path, &root);
    let empty = length(&path);
    let ours = database::open_to_lease(bench, &path);
    for call in paths::make(&root, JOBS).chunks(1_000) {
        let jobs = call.iter().map(|(relative, file)| arrived(relative.clone(), *file)).collect();
        bench.runtime.block_on(ours.store.enqueue(jobs)).unwrap();
    }
    pool::drain(bench, &ours.store, JOBS);
    // The last connection moves the WAL into the database.
    ours.close(bench);
    let each = (length(&path) - empty) as f64 / JOBS as f64;
    let what = "database, per completed job with one attempt, path of 60 bytes";
    report::row(what, &format!("{each:.0} bytes"), "100 000 jobs", None, &Aim::up_to(each, 600.0, "bytes"));
}

fn length(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn arrived(relative: std::path::PathBuf, identity: FileIdentity) -> NewJob {
    NewJob {
        source: SourceKey::Watched { watch: WATCH.to_owned(), relative },
        pipeline: PIPELINE.to_owned(),
        priority: Priority::Normal,
        run_at: None,
        identity,
        digest: None,
        metadata: None,
        force: false,
        note_only: false,
        renamed: None,
        listed: None,
    }
}
