//! From a file's close to the start of its processor, one file at a time, beside the tools that remember nothing.

use std::fs::File;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::daemon::Daemon;
use crate::peer::{PROCESSOR, Peer, now, time, write_and_close};
use crate::report::{self, Aim, median, ms, percentile_99};

/// How many files count.
const FILES: usize = 200;
/// The first of each are not counted.
const WARM_UP: usize = 5;
/// Between a file and the next, so that each finds everybody idle.
const PAUSE: Duration = Duration::from_millis(40);

/// Ours and the others' in turn, and beside them what two commits and the start of `date` take by themselves.
pub fn close_to_start(_: &Bench) {
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), &config());
    let (peers, absent) = peers();
    let syncing = tempfile::tempdir().unwrap();
    let mut log = File::create(syncing.path().join("log")).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), vec![Vec::new(); peers.len()]);
    let (mut syncs, mut dates) = (Vec::new(), Vec::new());
    for file in 0..WARM_UP + FILES {
        let name = format!("{file:03}.txt");
        ours.push(write_and_close(&daemon.path("inbox"), &name));
        std::thread::sleep(PAUSE);
        for (peer, closed) in peers.iter().zip(&mut theirs) {
            closed.push(write_and_close(&peer.inbox(), &name));
            std::thread::sleep(PAUSE);
        }
        syncs.push(two_fsyncs(&mut log));
        dates.push(start_of_date());
    }
    daemon.drained();
    let started = started(&daemon);
    daemon.stop();
    let ours = delays(&ours, &started, "ingestd");
    let beside: Vec<(&str, Vec<Duration>)> = (peers.into_iter().zip(theirs))
        .map(|(peer, closed)| (peer.name, delays(&closed, &peer.stop(), "a tool beside it")))
        .collect();
    rows(&ours, &beside, &absent, (syncs, dates));
}

fn config() -> String {
    let [program, format] = PROCESSOR;
    format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"{program}\", \"{format}\"]
[watch.inbox]\npath = \"ROOT/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n"
    )
}

fn peers() -> (Vec<Peer>, Vec<&'static str>) {
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for peer in [Peer::inotifywait(), Peer::incron()] {
        match peer {
            Ok(peer) => peers.push(peer),
            Err(why) => absent.push(why),
        }
    }
    (peers, absent)
}

fn two_fsyncs(log: &mut File) -> Duration {
    let begun = Instant::now();
    for _ in 0..2 {
        log.write_all(&[1; 4_096]).unwrap();
        log.sync_all().unwrap();
    }
    begun.elapsed()
}

/// What the processor itself takes until it prints, started by a program that does nothing else.
fn start_of_date() -> Duration {
    let [program, format] = PROCESSOR;
    let begun = now();
    let output = Command::new(program).arg(format).output().unwrap();
    time(&String::from_utf8_lossy(&output.stdout)).unwrap().saturating_sub(begun)
}

/// When the processors ran, in the order of the files' names.
fn started(daemon: &Daemon) -> Vec<Duration> {
    let output = daemon.command(&["list", "--json", "--limit", "1000"]).output().unwrap();
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut started: Vec<(String, Duration)> = lines
        .map(|line| {
            let job: serde_json::Value = serde_json::from_slice(line).unwrap();
            let logs = daemon.command(&["logs", &job["id"].to_string()]).output().unwrap();
            let printed = String::from_utf8_lossy(&logs.stdout).lines().find_map(time).expect("a time");
            (job["relative"].as_str().unwrap().to_owned(), printed)
        })
        .collect();
    started.sort_unstable();
    started.into_iter().map(|(_, at)| at).collect()
}

fn delays(closed: &[Duration], started: &[Duration], who: &str) -> Vec<Duration> {
    assert_eq!(closed.len(), started.len(), "{who} started one processor for each file");
    closed.iter().zip(started).skip(WARM_UP).map(|(closed, started)| started.saturating_sub(*closed)).collect()
}

fn rows(
    ours: &[Duration],
    beside: &[(&str, Vec<Duration>)],
    absent: &[&str],
    (syncs, dates): (Vec<Duration>, Vec<Duration>),
) {
    let of_all = |of: fn(Vec<Duration>) -> Duration| {
        let told = beside.iter().map(|(name, delays)| format!("{name}: {}", ms(of(delays.clone()))));
        told.chain(absent.iter().map(|why| (*why).to_owned())).collect::<Vec<_>>().join("; ")
    };
    let (two_fsyncs, middle, slow) = (median(syncs), median(ours.to_vec()), percentile_99(ours.to_vec()));
    let millis = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    report::row("two fsyncs of 4 KiB, median of 200", "", &ms(two_fsyncs), None, &Aim::none());
    report::row(
        "start of `date`, which is part of what follows, median of 200",
        "",
        &ms(median(dates)),
        None,
        &Aim::none(),
    );
    let aim = (millis(two_fsyncs) * 100.0).round() / 100.0 + 3.0;
    let what = "file closed → processor started, idle, `settle = \"0s\"`";
    let aim = Aim::under(millis(middle), aim, "ms");
    report::row(&format!("{what}, median of {FILES}"), &ms(middle), &of_all(median), None, &aim);
    let aim = Aim::under(millis(slow), 20.0, "ms");
    report::row(&format!("{what}, 99th percentile"), &ms(slow), &of_all(percentile_99), None, &aim);
}
