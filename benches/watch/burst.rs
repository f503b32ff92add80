//! A burst: four processes write at once, each into folders that it makes, while the daemon watches.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::Bench;
use crate::daemon::Daemon;
use crate::onlooker::Onlooker;
use crate::report::{self, Aim, grouped, mb, ms};
use crate::tree;

/// How this program is told to write files: followed by a folder and how many.
pub const WRITER: &str = "--writer";
const WRITERS: u64 = 4;
/// The burst is never larger than this.
const MOST: u64 = 100_000;
/// What the daemon may hold in memory.
const MEMORY_MB: f64 = 150.0;

/// Writes files as one of the writers.
pub fn write(folder: &Path, files: u64) {
    tree::fill(folder, files);
}

/// All that the writers write is processed, each file once; with files that count as whole at their close, and a second
/// after it.
pub fn four_writers(bench: &Bench) {
    let files = bench.files().min(MOST) / WRITERS * WRITERS;
    let alone = tempfile::tempdir().unwrap();
    let alone = write_all(alone.path(), files);
    for settle in ["0s", "1s"] {
        burst(files, settle, alone);
    }
}

fn burst(files: u64, settle: &str, alone: Duration) {
    let config = format!(
        "[pipeline.p]\nkind = \"noop\"\nconcurrency = 1000
[watch.inbox]\npath = \"ROOT/inbox\"\npipeline = \"p\"\nsettle = \"{settle}\"\n"
    );
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), &config);
    let begun = Instant::now();
    let writing = write_all(&daemon.path("inbox"), files);
    Onlooker::open(&daemon.path("state/ingestd.db")).until("completed", files);
    let took = begun.elapsed();
    // What was taken twice, or half-written, shows after another look at everything.
    assert!(daemon.command(&["watch", "scan", "inbox"]).output().unwrap().status.success());
    daemon.drained();
    let (completed, all) = jobs(&daemon);
    let what = format!("burst of {} files by {WRITERS} processes, `settle = \"{settle}\"`", grouped(files as f64));
    let beside = format!("its writers: {}; writers without a daemon: {}", ms(writing), ms(alone));
    report::row(&format!("{what}, until all are processed"), &ms(took), &beside, None, &Aim::none());
    let counted = format!("{} completed of {} jobs", grouped(completed as f64), grouped(all as f64));
    let aim = Aim::that("each file once", completed == files && all == files);
    report::row(&format!("{what}, jobs"), &counted, "", None, &aim);
    let peak = daemon.peak_memory_mb();
    report::row(&format!("{what}, resident memory, peak"), &mb(peak), "", None, &Aim::under(peak, MEMORY_MB, "MB"));
    let (told, aim) = audit(&daemon, files);
    report::row(&format!("{what}, `ingestd audit`"), &told, "", None, &aim);
    daemon.stop();
}

fn write_all(folder: &Path, files: u64) -> Duration {
    let begun = Instant::now();
    let writers: Vec<Child> = (0..WRITERS).map(|writer| start_writer(folder, writer, files / WRITERS)).collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    begun.elapsed()
}

fn start_writer(folder: &Path, writer: u64, files: u64) -> Child {
    let folder = folder.join(format!("writer-{writer}"));
    fs::create_dir_all(&folder).unwrap();
    Command::new(std::env::current_exe().unwrap()).arg(WRITER).arg(folder).arg(files.to_string()).spawn().unwrap()
}

/// Completed jobs, and all.
fn jobs(daemon: &Daemon) -> (u64, u64) {
    let output = daemon.command(&["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let jobs = status["jobs"].as_object().unwrap();
    (jobs["completed"].as_u64().unwrap(), jobs.values().filter_map(serde_json::Value::as_u64).sum())
}

/// What the program's own proof says, and how long it took.
fn audit(daemon: &Daemon, files: u64) -> (String, Aim) {
    let begun = Instant::now();
    let output = daemon.command(&["audit", "--json"]).output().unwrap();
    let took = ms(begun.elapsed());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let completed = report["watches"]["inbox"]["counts"]["completed"].as_u64().unwrap_or_default();
    let told = format!("{} completed, {} unexplained, in {took}", grouped(completed as f64), report["unexplained"]);
    (told, Aim::that("clean", report["clean"] == true && completed == files))
}
