//! Figures of the whole program, beside what the machine itself takes for the same thing.
//!
//! `cargo bench --bench figures` prints the table of `benches/README.md`. Every figure is taken on the real binary
//! with a real database (durability full) in a temporary folder; set `TMPDIR` to measure another disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a benchmark that can't go on has nothing to say, and its result is what it prints"
)]

use std::fs::{self, File};
use std::time::{Duration, Instant};

use daemon::Daemon;
use report::{median, ms};

mod daemon;
mod report;

fn main() {
    // `cargo test --benches` runs benches too, with this flag; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    println!("| what | figure | beside it |\n|---|---|---|");
    start_and_idle();
    start_with_jobs();
    busy();
}

fn row(what: &str, figure: &str, beside: &str) {
    println!("| {what} | {figure} | {beside} |");
}

const NOOP: &str = "
[pipeline.p]
kind = \"noop\"
[watch.inbox]
path = \"ROOT/inbox\"
pipeline = \"p\"
settle = \"0s\"
";

fn start_and_idle() {
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), NOOP);
    row("start to READY, new database", &ms(daemon.ready_after), "");
    std::thread::sleep(Duration::from_secs(5));
    let (ticks, wakeups, begun) = (daemon.ticks(), daemon.wakeups(), Instant::now());
    std::thread::sleep(Duration::from_mins(1));
    let seconds = begun.elapsed().as_secs_f64();
    row("resident memory, idle", &format!("{:.1} MB", daemon.memory_mb()), "aim: under 20 MB");
    let cpu = (daemon.ticks() - ticks) * 10;
    row("processor time over an idle minute", &format!("{cpu} ms"), "aim: none measurable (10 ms is one tick)");
    let rate = (daemon.wakeups() - wakeups) as f64 / seconds;
    row("wake-ups per second, idle", &format!("{rate:.2}"), "aim: nothing faster than once a second");
    daemon.stop();
}

fn start_with_jobs() {
    let paused = format!("{NOOP}\n[queue]\nconcurrency = 1\n");
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), &paused);
    assert!(daemon.command(&["pause"]).status().unwrap().success());
    for i in 0..100_000 {
        File::create(daemon.path("inbox").join(format!("{i}.txt"))).unwrap();
    }
    loop {
        let output = daemon.command(&["status", "--json"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        if status["jobs"]["pending"].as_u64() == Some(100_000) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let folder = daemon.stop();
    let daemon = Daemon::start(folder, &paused);
    row("start to READY, 100 000 jobs waiting", &ms(daemon.ready_after), "");
    row("resident memory, 100 000 jobs waiting", &format!("{:.1} MB", daemon.memory_mb()), "");
    daemon.stop();
}

fn busy() {
    let config = "
[pipeline.p]
kind = \"exec\"
command = [\"/bin/true\"]
[watch.inbox]
path = \"ROOT/inbox\"
pipeline = \"p\"
settle = \"0s\"
";
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), config);
    let other = daemon.path("other.txt");
    fs::write(&other, b"x").unwrap();
    for i in 0..20_000 {
        fs::write(daemon.path("inbox").join(format!("{i}.txt")), b"content").unwrap();
    }
    let mut adds = Vec::new();
    let mut peak: f64 = 0.0;
    for _ in 0..50 {
        let begun = Instant::now();
        let done = daemon.command(&["add", "--force", "--pipeline", "p"]).arg(&other).output().unwrap();
        adds.push(begun.elapsed());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        peak = peak.max(daemon.memory_mb());
    }
    row("`ingestd add` beside a busy daemon, median of 50", &ms(median(adds.clone())), "aim: under 50 ms");
    row("`ingestd add` beside a busy daemon, longest", &ms(adds.into_iter().max().unwrap()), "");
    row("resident memory under load (20 000 files, exec)", &format!("{peak:.1} MB"), "");
    daemon.stop();
}
