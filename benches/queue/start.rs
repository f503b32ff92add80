//! A start after a crash.

use tempfile::TempDir;

use crate::Bench;
use crate::daemon::Daemon;
use crate::database;
use crate::report::{self, Aim, median};
use crate::seed::Seed;

/// A configuration without a watch: what is in the database is all there is.
pub const NOOP: &str = "[pipeline.p]\nkind = \"noop\"\n";

/// A folder with a filled database where the daemon looks for it.
pub fn seeded(bench: &Bench, fill: impl FnOnce(Seed) -> Seed) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/ingestd.db");
    database::create(bench, &path, &folder.path().join("inbox"));
    fill(Seed::open(&path)).close();
    folder
}

/// A daemon that died with 100 000 jobs running: the next one is ready when all of them can be leased again.
pub fn after_a_crash(bench: &Bench) {
    let start = |fill: fn(Seed) -> Seed| {
        let daemon = Daemon::start(seeded(bench, fill), NOOP);
        let took = daemon.ready_after;
        let folder = daemon.stop();
        let waiting = "SELECT coalesce(sum(n), 0) FROM counters WHERE state = 'pending'";
        let waiting: i64 =
            database::look(&folder.path().join("state/ingestd.db")).query_row(waiting, [], |row| row.get(0)).unwrap();
        (took, waiting)
    };
    let mut interrupted = Vec::new();
    let mut empty = Vec::new();
    for _ in 0..3 {
        let (took, waiting) = start(|seed| seed.interrupted_deletes((1, 100_000)).paused());
        assert_eq!(waiting, 100_000);
        interrupted.push(took);
        empty.push(start(Seed::paused).0);
    }
    let (took, empty) = (median(interrupted), median(empty));
    let (figure, beside) = (report::ms(took), format!("empty database: {}", report::ms(empty)));
    let aim = Aim::under(took.as_secs_f64() * 1_000.0, 1_000.0, "ms");
    report::row("start with 100 000 interrupted jobs → all leasable", &figure, &beside, None, &aim);
}
