//! Which scans are runs, and what is told of them.

use std::fs;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::error::TryRecvError;

use super::fake::Bench;
use crate::config::WatchMode;
use crate::watch::{Root, RunCause, RunStage, ScanRun};

/// Waits until a run is over; answers the files that its newest scan met, and the jobs that it made.
async fn over(run: &mut ScanRun) -> (u64, u64) {
    let waiting = run.told.wait_for(|told| told.stage == RunStage::Over);
    let files = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap().scanned().files;
    (files, run.made.read().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_scan_and_one_that_is_asked_for_are_runs_and_jobs_of_events_are_none() {
    let mut bench = Bench::new(|watch| watch.settle = Duration::from_millis(50));
    for n in 0..1_500 {
        bench.write(&format!("d{}/f{n}", n % 7), "content");
    }
    bench.start();
    let mut first = bench.begun.recv().await.unwrap();
    assert_eq!(first.cause, RunCause::Start);
    assert_eq!(over(&mut first).await, (1_500, 1_500), "over before all that it found was handed over");
    bench.idle().await;
    bench.write("told/by/events", "content");
    bench.until("taken", |bench| bench.store.jobs.lock().unwrap().len() == 1_501).await;
    bench.idle().await;
    assert_eq!(bench.begun.try_recv().unwrap_err(), TryRecvError::Empty);
    bench.scan(false).await.unwrap();
    let mut asked = bench.begun.recv().await.unwrap();
    assert_eq!((asked.cause, over(&mut asked).await), (RunCause::Asked, (1_501, 0)));
    assert_eq!(first.made.read().0, 1_500, "a run that is over counts no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_that_come_with_time_are_no_runs() {
    let mut bench = Bench::new(|watch| watch.mode = WatchMode::Poll);
    bench.start();
    let mut first = bench.begun.recv().await.unwrap();
    over(&mut first).await;
    let scanned = |bench: &Bench| bench.status().last_scan.map(|scan| scan.at);
    for _ in 0..3 {
        let before = scanned(&bench);
        bench.until("polled", |bench| scanned(bench) != before).await;
    }
    bench.write("a", "content");
    bench.until_versions(&[("a", 1)]).await;
    assert_eq!(bench.begun.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_broken_off_is_gone_on_with_by_the_next_full_scan() {
    let mut bench = Bench::new(|watch| watch.settle = Duration::from_secs(1));
    for n in 0..200 {
        bench.write(&format!("f{n}"), "content");
        // A time to come: however long this takes, the scan finds them as if they were just written.
        let file = fs::File::options().append(true).open(bench.path(&format!("f{n}"))).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(3_600)).unwrap();
    }
    bench.start();
    let mut run = bench.begun.recv().await.unwrap();
    // Nothing is handed over yet.
    run.told.wait_for(|told| told.stage == RunStage::HandingOver).await.unwrap();
    bench.gate.send_replace(false);
    let why = run.told.wait_for(|told| told.stage == RunStage::BrokenOff).await.unwrap().trouble.clone();
    assert!(why.is_some_and(|why| why.contains("paused")));
    assert!(bench.store.versions().is_empty());
    bench.gate.send_replace(true);
    assert_eq!(over(&mut run).await, (200, 200));
    bench.idle().await;
    assert_eq!(bench.begun.try_recv().unwrap_err(), TryRecvError::Empty);
    // That the gate moves is no reason for a run by itself.
    let before = bench.status().last_scan.unwrap().at;
    bench.gate.send_replace(false);
    bench.until("closed", |bench| !bench.status().open).await;
    bench.gate.send_replace(true);
    bench.until("scanned", |bench| bench.status().last_scan.unwrap().at != before).await;
    assert_eq!(bench.begun.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_comes_back_is_scanned_as_a_run_because_events_were_lost() {
    let mut bench = Bench::started(|_| ()).await;
    over(&mut bench.begun.recv().await.unwrap()).await;
    let away = bench.folder.path().join("away");
    fs::rename(bench.path(""), &away).unwrap();
    bench.until("missing", |bench| matches!(bench.status().root, Root::Missing(_))).await;
    fs::write(away.join("a"), "content").unwrap();
    fs::rename(&away, bench.path("")).unwrap();
    let mut run = bench.begun.recv().await.unwrap();
    assert_eq!((run.cause, over(&mut run).await), (RunCause::Lost, (1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_runs_nobody_writes_down_works_all_the_same() {
    let mut bench = Bench::new(|_| ());
    bench.write("a", "content");
    bench.begun.close();
    bench.start();
    bench.until_versions(&[("a", 1)]).await;
    bench.idle().await;
}
