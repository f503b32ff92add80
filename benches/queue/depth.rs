//! The cost of a lease, with few jobs waiting and with many, most of them delayed, and beside many that are finished.

use std::path::{Path, PathBuf};

use ingestd::clock::{Clock as _, SystemClock};
use ingestd::job::Verdict;
use ingestd::store::{Appetite, Lease, Queue as _, Settlement, Want};
use tempfile::TempDir;

use crate::Bench;
use crate::database::{self, Opened, PIPELINE};
use crate::report::{self, Aim, Rounds, Took, Watch};
use crate::seed::Seed;

const FEW: i64 = 10_000;
const MILLION: i64 = 1_000_000;
/// Jobs in each lease, and leases in each round.
const LEASE: usize = 100;
const LEASES: u32 = 10;
/// All rounds together take fewer than wait in the small database.
const ROUNDS: usize = 9;

/// One figure for each size, beside the small database.
pub fn lease(bench: &Bench) {
    deep(bench, "1 million waiting", |seed| seed.deletes((1, MILLION)));
    deep(bench, "1 million waiting, 9 of 10 delayed", |seed| seed.delayed_deletes((1, MILLION)));
    if bench.long {
        deep(bench, "10 million waiting", |seed| seed.deletes((1, 10 * MILLION)));
        deep(bench, "10 million waiting, 9 of 10 delayed", |seed| seed.delayed_deletes((1, 10 * MILLION)));
        let behind = (5 * MILLION + 1, 5 * MILLION + FEW);
        deep(bench, "10 000 waiting, 5 million finished", |seed| seed.completed((1, 5 * MILLION)).deletes(behind));
    }
}

fn deep(bench: &Bench, what: &str, fill: impl FnOnce(Seed) -> Seed) {
    let folder = tempfile::tempdir().unwrap();
    let few = made(bench, &folder, "few.db", |seed| seed.deletes((1, FEW)));
    let many = made(bench, &folder, "many.db", fill);
    let opened = [&few, &many].map(|path| database::open_to_lease(bench, path));
    let rounds = Rounds::take(ROUNDS, || leases(bench, &opened[1]), || leases(bench, &opened[0]));
    for opened in opened {
        opened.close(bench);
    }
    for path in [&few, &many] {
        database::assert_sound(bench, path);
    }
    let slower = 1.0 / rounds.ratio();
    let (many, few) = rounds.each(LEASES);
    let beside = format!("10 000 waiting: {few}");
    report::row(&format!("lease of 100, {what}"), &many, &beside, Some(slower), &Aim::at_most(slower, 1.5));
}

fn made(bench: &Bench, folder: &TempDir, name: &str, fill: impl FnOnce(Seed) -> Seed) -> PathBuf {
    let path: &Path = &folder.path().join(name);
    database::create(bench, path, folder.path());
    let begun = std::time::Instant::now();
    fill(Seed::open(path)).close();
    eprintln!("  {name} made in {:.1?}", begun.elapsed());
    path.to_owned()
}

/// What the leases of a round took. What was leased is completed in between, so that the next lease finds others.
fn leases(bench: &Bench, opened: &Opened) -> Took {
    let store = opened.store.clone();
    let leasing = bench.runtime.spawn(async move {
        let mut took = Took::default();
        for _ in 0..LEASES {
            let want = Want::single(PIPELINE, LEASE);
            let watch = Watch::start();
            let leased = store.lease(vec![want], LEASE, Appetite::Regular).await.unwrap();
            took += watch.stop();
            assert_eq!(leased.work.len(), LEASE);
            store.settle(leased.work.into_iter().map(|(lease, _)| completed(lease)).collect()).await.unwrap();
        }
        took
    });
    bench.runtime.block_on(leasing).unwrap()
}

fn completed(lease: Lease) -> Settlement {
    Settlement {
        lease,
        verdict: Verdict::Complete,
        code: None,
        output: Vec::new(),
        content: None,
        remember: false,
        finished_at: SystemClock.now(),
        duration: std::time::Duration::ZERO,
    }
}
