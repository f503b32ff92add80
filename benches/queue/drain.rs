//! Drain: lease, process with nothing to do, settle, until nothing waits.

use std::path::Path;

use crate::raw::Raw;
use crate::report::{self, Aim, Rounds, Watch};
use crate::seed::Seed;
use crate::{Bench, database, paths, pool};

const JOBS: i64 = 100_000;

/// The queue alone: deletes have no file that a worker would look at.
pub fn nothing_to_read(bench: &Bench) {
    let folder = tempfile::tempdir().unwrap();
    let seeded = folder.path().join("seeded.db");
    database::create(bench, &seeded, folder.path());
    Seed::open(&seeded).deletes((1, JOBS)).close();
    let rounds = beside_raw(bench, 5, &seeded, None);
    let ratio = rounds.ratio();
    let (ours, raw) = rounds.rates(JOBS);
    let what = format!("lease → noop → settle, 100 000 jobs without a file, concurrency {}", pool::CONCURRENCY);
    report::row(&what, &ours, &format!("raw: {raw}"), Some(ratio), &Aim::at_least(ratio, 0.6));
}

/// With files, each of which is looked at and digested before its processor.
pub fn files_to_read(bench: &Bench) {
    let folder = tempfile::tempdir().unwrap();
    let (seeded, root) = (folder.path().join("seeded.db"), folder.path().join("inbox"));
    database::create(bench, &seeded, &root);
    Seed::open(&seeded).files(&paths::make(&root, JOBS)).close();
    let rounds = beside_raw(bench, 3, &seeded, Some(&root));
    let (ours, raw) = rounds.rates(JOBS);
    let what = format!("lease → digest → noop → settle, 100 000 small files, concurrency {}", pool::CONCURRENCY);
    let beside = format!("raw, digests on one thread: {raw}");
    report::row(&what, &ours, &beside, Some(rounds.ratio()), &Aim::none());
}

/// Rounds of ours and raw, each on a copy of its own of the seeded database.
fn beside_raw(bench: &Bench, n: usize, seeded: &Path, root: Option<&Path>) -> Rounds {
    let (our_path, raw_path) = (seeded.with_file_name("ours.db"), seeded.with_file_name("raw.db"));
    let rounds = Rounds::take(
        n,
        || {
            database::copy(seeded, &our_path);
            let ours = database::open_to_lease(bench, &our_path);
            let took = pool::drain(bench, &ours.store, JOBS);
            ours.close(bench);
            took
        },
        || {
            database::copy(seeded, &raw_path);
            let connection = database::connect(&raw_path);
            let mut raw = Raw::new(&connection);
            let watch = Watch::start();
            assert_eq!(raw.drain(pool::CONCURRENCY, root) as i64, JOBS);
            let took = watch.stop();
            drop(raw);
            connection.close().unwrap();
            took
        },
    );
    for path in [&our_path, &raw_path] {
        database::assert_sound(bench, path);
        let history = database::look(path).query_row("SELECT count(*) FROM attempts", [], |row| row.get(0));
        assert_eq!(history, Ok(JOBS), "one row of history for each job");
    }
    rounds
}
