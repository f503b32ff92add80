//! Scans of many small files, beside `find` that asks for the same of each of them.

use std::time::Instant;

use crate::Bench;
use crate::daemon::Daemon;
use crate::onlooker::Onlooker;
use crate::report::{self, Aim, Rounds, Took, grouped, mb, ms};
use crate::tree::Tree;

/// How often the first scan is made, each time with a new database.
const FIRST: usize = 3;
/// How often a tree is scanned again.
const AGAIN: usize = 7;
/// What a scan may hold in memory.
const MEMORY_MB: f64 = 100.0;

/// As many at once as the drain of the other benchmark has; by default there are as many as processors.
const NOOP: &str = "[pipeline.p]\nkind = \"noop\"\nconcurrency = 1000\n";

/// From `watch add` until every file of the tree waits in a paused queue.
pub fn first(bench: &Bench) {
    let tree = bench.tree();
    let mut peak: f64 = 0.0;
    let ours = || {
        let daemon = Daemon::start(tempfile::tempdir().unwrap(), NOOP);
        assert!(daemon.command(&["pause"]).status().unwrap().success());
        let (begun, cpu) = (Instant::now(), daemon.cpu());
        take_up(&daemon, tree);
        Onlooker::open(&daemon.path("state/ingestd.db")).until("pending", bench.files());
        let took = Took { wall: begun.elapsed(), cpu: daemon.cpu().saturating_sub(cpu) };
        peak = peak.max(daemon.peak_memory_mb());
        daemon.stop();
        took
    };
    let rounds = Rounds::take(FIRST, ours, || tree.find());
    row(bench, "first scan", &rounds, 10.0);
    row_of_memory(bench, "first scan", peak);
}

/// `watch scan` of a tree whose files were all processed.
pub fn again(bench: &Bench) {
    let tree = bench.tree();
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), NOOP);
    take_up(&daemon, tree);
    Onlooker::open(&daemon.path("state/ingestd.db")).until("completed", bench.files());
    // A new process, whose memory is that of rescans alone. Its first one is not counted.
    let daemon = Daemon::start(daemon.stop(), NOOP);
    scan(bench, &daemon);
    let ours = || {
        let (begun, cpu) = (Instant::now(), daemon.cpu());
        scan(bench, &daemon);
        Took { wall: begun.elapsed(), cpu: daemon.cpu().saturating_sub(cpu) }
    };
    let rounds = Rounds::take(AGAIN, ours, || tree.find());
    row(bench, "rescan, nothing changed", &rounds, 2.5);
    row_of_memory(bench, "rescan", daemon.peak_memory_mb());
    daemon.stop();
}

fn take_up(daemon: &Daemon, tree: &Tree) {
    let added = daemon.command(&["watch", "add", "tree"]).arg(tree.path()).args(["--pipeline", "p"]).output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
}

fn scan(bench: &Bench, daemon: &Daemon) {
    let output = daemon.command(&["watch", "scan", "tree", "--json"]).output().unwrap();
    let scanned: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (files, enqueued) = (scanned["files"].as_u64(), scanned["enqueued"].as_u64());
    assert_eq!((files, enqueued), (Some(bench.files()), Some(0)), "{scanned}");
}

fn row(bench: &Bench, what: &str, rounds: &Rounds, aim: f64) {
    let (ours, find) = rounds.medians();
    let times = rounds.ratio().recip();
    let what = format!("{what}, {} files", grouped(bench.files() as f64));
    report::row(&what, &ms(ours), &format!("find: {}", ms(find)), Some(times), &Aim::at_most(times, aim));
}

fn row_of_memory(bench: &Bench, what: &str, peak: f64) {
    let what = format!("resident memory, {what}, {} files, peak", grouped(bench.files() as f64));
    report::row(&what, &mb(peak), "", None, &Aim::under(peak, MEMORY_MB, "MB"));
}
