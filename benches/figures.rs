//! Figures of the whole program, beside what the machine itself takes for the same thing.
//!
//! `cargo bench --bench figures` prints the table of `benches/README.md`. Every figure is taken on the real binary
//! with a real database (durability full) in a temporary folder; set `TMPDIR` to measure another disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that can't go on has nothing to say, and its result is what it prints"
)]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daemon::Daemon;

mod daemon;

fn main() {
    // `cargo test --benches` runs benches too, with this flag; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let fsync = fsync_median();
    println!("| what | figure | beside it |\n|---|---|---|");
    row("fsync of 4 KiB on this disk, median of 200", &ms(fsync), "");
    start_and_idle();
    start_with_jobs();
    close_to_start(fsync);
    busy();
}

fn row(what: &str, figure: &str, beside: &str) {
    println!("| {what} | {figure} | {beside} |");
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1_000.0)
}

fn median(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}

fn percentile_99(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() * 99 / 100]
}

fn fsync_median() -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("file")).unwrap();
    let mut once = || {
        let begun = Instant::now();
        file.write_all(&[1; 4_096]).unwrap();
        file.sync_all().unwrap();
        begun.elapsed()
    };
    median((0..200).map(|_| once()).collect())
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

/// From a file's close to the first thing that its processor does: `date` prints the time at which it runs.
fn close_to_start(fsync: Duration) {
    let config = "
[pipeline.p]
kind = \"exec\"
command = [\"/bin/date\", \"+%s%N\"]
[watch.inbox]
path = \"ROOT/inbox\"
pipeline = \"p\"
settle = \"0s\"
";
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), config);
    std::thread::sleep(Duration::from_secs(1));
    let mut closed = std::collections::HashMap::new();
    for i in 0..200 {
        let name = format!("{i}.txt");
        fs::write(daemon.path("inbox").join(&name), b"content").unwrap();
        closed.insert(name, SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        std::thread::sleep(Duration::from_millis(30));
    }
    daemon.drained();
    let output = daemon.command(&["list", "--json", "--limit", "1000"]).output().unwrap();
    let mut delays = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let job: serde_json::Value = serde_json::from_slice(line).unwrap();
        let logs = daemon.command(&["logs", &job["id"].to_string()]).output().unwrap();
        let text = String::from_utf8_lossy(&logs.stdout);
        let printed = text.lines().find_map(|line| line.trim().parse::<u64>().ok()).expect("a time");
        let name = Path::new(job["relative"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
        delays.push(Duration::from_nanos(printed).saturating_sub(closed[&name]));
    }
    let aim = fsync * 2 + Duration::from_millis(3);
    let beside = format!("aim: under two fsyncs and 3 ms = {}; n = {}", ms(aim), delays.len());
    row("file closed to processor running, median", &ms(median(delays.clone())), &beside);
    row("file closed to processor running, 99th percentile", &ms(percentile_99(delays)), "");
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
