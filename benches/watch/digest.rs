//! The digest of a large file that lies in memory, beside `b3sum` on one thread; and whether the daemon answers while
//! it takes one.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ingestd::intake::digest_file;
use ingestd::job::DigestAlgorithm;

use crate::Bench;
use crate::daemon::{Daemon, children_cpu};
use crate::onlooker::Onlooker;
use crate::peer::is_installed;
use crate::report::{self, Aim, Rounds, Took, Watch, median, ms};

const CHUNK: usize = 1 << 20;
const CHUNKS: usize = 1 << 10;
const ROUNDS: usize = 9;

/// Our function in this process beside the whole of `b3sum`, its start and its end.
pub fn beside_b3sum(_: &Bench) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    make(&path);
    let ours = || {
        let watch = Watch::start();
        digest_file(&path, DigestAlgorithm::Blake3).unwrap();
        watch.stop()
    };
    let what = "digest of 1 GiB in memory";
    if is_installed("b3sum") {
        let rounds = Rounds::take(ROUNDS, ours, || b3sum(&path));
        let ((ours, other), ratio) = (rounds.medians(), rounds.ratio());
        let beside = format!("b3sum --num-threads 1: {}", gib_per_second(other));
        report::row(what, &gib_per_second(ours), &beside, Some(ratio), &Aim::at_least(ratio, 0.8));
    } else {
        let ours = median((0..ROUNDS).map(|_| ours().wall).collect());
        report::row(what, &gib_per_second(ours), "b3sum: not installed", None, &Aim::none());
    }
    answers_meanwhile(&path);
}

fn make(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut chunk = vec![0; CHUNK];
    fastrand::Rng::with_seed(1).fill(&mut chunk);
    for _ in 0..CHUNKS {
        file.write_all(&chunk).unwrap();
    }
    // What is still to be written would take the disk and a processor from whoever comes next.
    file.sync_all().unwrap();
}

fn b3sum(path: &Path) -> Took {
    let (watch, cpu) = (Watch::start(), children_cpu());
    let status = Command::new("b3sum").args(["--num-threads", "1"]).arg(path).stdout(Stdio::null()).status();
    assert!(status.unwrap().success());
    Took { wall: watch.stop().wall, cpu: children_cpu().saturating_sub(cpu) }
}

fn gib_per_second(wall: Duration) -> String {
    format!("{:.2} GiB/s", 1.0 / wall.as_secs_f64())
}

/// `ingestd status`, over and over, from the moment in which a large file that is known changes until its new version is
/// processed. Only its content tells whether it is one, so the daemon reads all of it before it takes it.
fn answers_meanwhile(path: &Path) {
    let config =
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"ROOT/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n";
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), config);
    let (inbox, onlooker) = (daemon.path("inbox"), Onlooker::open(&daemon.path("state/ingestd.db")));
    // The rename puts it there without copying.
    fs::rename(path, inbox.join("large")).unwrap();
    onlooker.until("completed", 1);
    let idle: Vec<Duration> = (0..20).map(|_| status(&daemon)).collect();
    let (mut busy, cpu, begun) = (Vec::new(), daemon.cpu(), Instant::now());
    File::options().append(true).open(inbox.join("large")).unwrap().write_all(b"more").unwrap();
    while onlooker.count("completed") < 2 {
        busy.push(status(&daemon));
    }
    let (took, cpu) = (begun.elapsed(), daemon.cpu().saturating_sub(cpu));
    eprintln!("  its new version was processed after {took:.2?}, processors {cpu:.2?}; answers after {busy:.1?}");
    let what = "`ingestd status` while the daemon digests 1 GiB";
    let row = |which: &str, busy: Duration, idle: Duration| {
        report::row(&format!("{what}, {which}"), &ms(busy), &format!("idle: {}", ms(idle)), None, &Aim::none());
    };
    row("median", median(busy.clone()), median(idle.clone()));
    row("longest", busy.into_iter().max().unwrap(), idle.into_iter().max().unwrap());
    daemon.stop();
}

fn status(daemon: &Daemon) -> Duration {
    let begun = Instant::now();
    assert!(daemon.command(&["status"]).output().unwrap().status.success());
    begun.elapsed()
}
