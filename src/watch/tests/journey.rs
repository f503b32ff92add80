//! Files on their way into the queue.

use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fake::Bench;
use crate::config::WatchMode;
use crate::watch::Mode;

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_there_at_the_start_is_taken_and_a_second_start_does_nothing() {
    let mut bench = Bench::new(|_| ());
    for n in 0..1_500 {
        bench.write(&format!("d{}/f{n}", n % 7), "content");
    }
    bench.start();
    bench.until("all taken", |bench| bench.store.jobs.lock().unwrap().len() == 1_500).await;
    bench.idle().await;
    bench.stop().await;
    let writes = bench.store.writes.load(Ordering::SeqCst);
    bench.start();
    bench.idle().await;
    assert_eq!(bench.status().last_scan.unwrap().files, 1_500);
    assert_eq!(bench.store.writes.load(Ordering::SeqCst), writes, "an unchanged tree is not written about");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_nobody_watched_is_exactly_what_is_taken() {
    let mut bench = Bench::new(|watch| watch.events.delete = true);
    for name in ["kept", "changed", "touched", "deleted"] {
        bench.write(name, name);
    }
    bench.start();
    bench.until_versions(&[("kept", 1), ("changed", 1), ("touched", 1), ("deleted", 1)]).await;
    // Versions get their digest at their first attempt: here, in its place.
    let digest = crate::intake::digest_file(&bench.path("touched"), crate::job::DigestAlgorithm::Blake3).unwrap();
    bench.store.rows.lock().unwrap().get_mut(std::path::Path::new("touched")).unwrap().digest = Some(digest.digest);
    bench.stop().await;
    bench.write("changed", "new content");
    bench.write("added", "added");
    File::options()
        .append(true)
        .open(bench.path("touched"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    fs::remove_file(bench.path("deleted")).unwrap();
    bench.start();
    bench.until_versions(&[("kept", 1), ("changed", 2), ("touched", 1), ("deleted", 1), ("added", 1)]).await;
    bench.until("the delete is told", |bench| bench.store.deletes.lock().unwrap().len() == 1).await;
    bench.idle().await;
    assert_eq!(bench.store.jobs.lock().unwrap().len(), 6, "each change is one job");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_slowly_is_taken_once_and_whole() {
    for settle in [Duration::ZERO, Duration::from_millis(200)] {
        let bench = Bench::started(|watch| watch.settle = settle).await;
        let mut file = File::create(bench.path("slow")).unwrap();
        for _ in 0..10 {
            file.write_all(b"0123456789").unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        bench.until("seen as open", |bench| bench.status().still_open == 1).await;
        assert_eq!(bench.status().still_open_files, ["slow"]);
        assert!(bench.store.versions().is_empty());
        drop(file);
        bench.until_versions(&[("slow", 1)]).await;
        assert_eq!(bench.store.size("slow"), 100);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_in_replaced_appended_deleted_and_touched() {
    let bench = Bench::started(|watch| watch.events.delete = true).await;
    let outside = bench.folder.path().join("outside");
    fs::write(&outside, "moved in").unwrap();
    fs::rename(&outside, bench.path("a")).unwrap();
    bench.until_versions(&[("a", 1)]).await;

    bench.write(".a.new", "replaced");
    fs::rename(bench.path(".a.new"), bench.path("a")).unwrap();
    bench.until_versions(&[("a", 2)]).await;

    File::options().append(true).open(bench.path("a")).unwrap().write_all(b" and more").unwrap();
    bench.until_versions(&[("a", 3)]).await;
    assert_eq!(bench.store.size("a"), 17);

    File::options().append(true).open(bench.path("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    bench
        .until("the touch is noted", |bench| {
            bench.store.rows.lock().unwrap().values().all(|row| row.identity.mtime_ns == 0)
        })
        .await;
    assert_eq!(bench.store.versions()["a"], 3, "a touch is no new version");

    fs::remove_file(bench.path("a")).unwrap();
    bench.until("gone", |bench| bench.store.present().is_empty()).await;
    assert_eq!(bench.store.deletes.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_new_nested_folders_are_all_found_and_those_of_a_folder_that_left_are_gone() {
    let bench = Bench::started(|_| ()).await;
    let mut expected = 0;
    for outer in 0..20 {
        for inner in 0..5 {
            for name in 0..4 {
                bench.write(&format!("o{outer}/i{inner}/deep/f{name}"), "x");
                expected += 1;
            }
        }
    }
    bench.until("all found", |bench| bench.store.versions().len() == expected).await;
    bench.idle().await;
    assert_eq!(bench.store.jobs.lock().unwrap().len(), expected, "none twice");

    fs::rename(bench.path("o3"), bench.folder.path().join("away")).unwrap();
    bench.until("20 gone", |bench| bench.store.present().len() == expected - 20).await;
    fs::rename(bench.folder.path().join("away"), bench.path("back")).unwrap();
    bench.until("20 new", |bench| bench.store.present().len() == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_finds_the_same() {
    let bench = Bench::started(|watch| watch.mode = WatchMode::Poll).await;
    assert!(matches!(bench.status().mode, Mode::Poll(_)));
    bench.write("x/a", "one");
    bench.until_versions(&[("x/a", 1)]).await;
    // An older file in its place, of the same size: only inequality tells.
    bench.write(".older", "two");
    let old = std::time::SystemTime::now() - Duration::from_hours(1);
    File::options().append(true).open(bench.path(".older")).unwrap().set_modified(old).unwrap();
    fs::rename(bench.path(".older"), bench.path("x/a")).unwrap();
    bench.until_versions(&[("x/a", 2)]).await;
    fs::remove_file(bench.path("x/a")).unwrap();
    bench.until("gone", |bench| bench.store.present().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_companion_is_taken_when_the_companion_is_there() {
    let bench = Bench::started(|watch| watch.ready_suffix = ".done".to_owned()).await;
    bench.write("a", "content");
    bench.write("b", "content");
    bench.write("b.done", "");
    bench.until_versions(&[("b", 1)]).await;
    bench.write("a.done", "");
    bench.until_versions(&[("a", 1), ("b", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_not_asked_for_make_no_jobs() {
    let bench = Bench::started(|watch| watch.events.modify = false).await;
    bench.write("a", "one");
    bench.until_versions(&[("a", 1)]).await;
    bench.write("a", "changed");
    bench.write("marker", "");
    bench.until_versions(&[("a", 1), ("marker", 1)]).await;
    bench.scan(false).await.unwrap();
    bench.idle().await;
    assert_eq!(bench.store.versions()["a"], 1);
    fs::remove_file(bench.path("a")).unwrap();
    bench.until("noted as gone", |bench| bench.store.present() == ["marker"]).await;
    assert!(bench.store.deletes.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_intake_is_closed_nothing_is_handed_over_and_then_everything() {
    let bench = Bench::started(|_| ()).await;
    bench.gate.send_replace(false);
    bench.until("closed", |bench| !bench.status().open).await;
    bench.write("a", "content");
    bench.until("the event came", |bench| bench.status().last_event_at.is_some()).await;
    assert!(bench.scan(false).await.is_err());
    assert!(bench.store.versions().is_empty() && !bench.status().idle);
    bench.gate.send_replace(true);
    bench.until_versions(&[("a", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_store_is_waited_for_and_the_batch_is_kept() {
    let bench = Bench::started(|_| ()).await;
    bench.store.busy.store(3, Ordering::SeqCst);
    bench.write("a", "content");
    bench.until_versions(&[("a", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_scan_takes_everything_again_and_answers_with_counts() {
    let bench = Bench::started(|_| ()).await;
    bench.write("a", "content");
    bench.write("b.tmp", "excluded");
    bench.until_versions(&[("a", 1)]).await;
    let plain = bench.scan(false).await.unwrap();
    assert_eq!((plain.files, plain.changed, plain.excluded), (1, 0, 1));
    assert_eq!(bench.scan(true).await.unwrap().changed, 1);
    bench.until_versions(&[("a", 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_file_is_handed_over_at_once_without_settle() {
    let bench = Bench::started(|_| ()).await;
    let mut took = Vec::new();
    for n in 0..50 {
        let name = format!("f{n}");
        let file = File::create(bench.path(&name)).unwrap();
        let started = std::time::Instant::now();
        drop(file);
        while bench.store.jobs.lock().unwrap().len() <= n {
            assert!(started.elapsed() < Duration::from_secs(10), "not handed over");
            tokio::task::yield_now().await;
        }
        took.push(started.elapsed());
    }
    took.sort();
    // Far above what it takes, and far below any timer that would tick here.
    eprintln!("median {:?}", took[took.len() / 2]);
    assert!(took[took.len() / 2] < Duration::from_millis(40), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_beyond_every_buffer_loses_nothing() {
    let bench = Bench::started(|_| ()).await;
    for n in 0..12_000 {
        File::create(bench.path(&format!("f{n}"))).unwrap();
    }
    bench.until("all taken", |bench| bench.store.rows.lock().unwrap().len() == 12_000).await;
    bench.idle().await;
    assert_eq!(bench.store.jobs.lock().unwrap().len(), 12_000, "none twice");
}
