//! Scans: their order, what they cover, and what they leave for later.

use std::fs::File;
use std::time::{Duration, SystemTime};

use super::fake::Bench;
use crate::clock::{Clock, SystemClock};
use crate::config::WatchOrder;
use crate::watch::Mode;

fn dated(bench: &Bench, relative: &str, days_ago: u64) {
    bench.write(relative, "content");
    let at = SystemTime::now() - Duration::from_hours(24 * days_ago);
    File::options().append(true).open(bench.path(relative)).unwrap().set_modified(at).unwrap();
}

async fn taken_in(order: WatchOrder) -> Vec<String> {
    let mut bench = Bench::new(|watch| watch.order = order);
    for (relative, days_ago) in [("b", 3), ("a/old", 9), ("c", 1), ("a/new", 2)] {
        dated(&bench, relative, days_ago);
    }
    bench.start();
    bench.idle().await;
    bench.store.jobs.lock().unwrap().iter().map(|(path, _)| path.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_takes_files_by_path_or_the_newest_or_oldest_first() {
    // The status change is of now, so that no file counts as quiet for long; without settle that does not matter.
    assert_eq!(taken_in(WatchOrder::Path).await, ["a/new", "a/old", "b", "c"]);
    assert_eq!(taken_in(WatchOrder::Newest).await, ["c", "a/new", "b", "a/old"]);
    assert_eq!(taken_in(WatchOrder::Oldest).await, ["a/old", "b", "a/new", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_folder_is_watched_by_itself_and_the_delay_is_told() {
    let mut bench = Bench::new(|watch| {
        watch.settle = Duration::from_millis(10);
        watch.rescan_interval = Duration::from_hours(2);
    });
    for relative in ["a/b/file", "c/file", ".git/objects/file"] {
        bench.write(relative, "content");
    }
    bench.start();
    bench.idle().await;
    let coverage = bench.status().coverage;
    assert_eq!((coverage.native_folders, coverage.polled_folders), (4, 0));
    assert_eq!((coverage.native_delay_ms, coverage.polled_delay_ms), (Some(10), None));
    assert!(coverage.worst_delay_ms.unwrap() >= 7_200_010);
    // Deep in the tree, where no scan goes before the hour: only its own event can tell.
    bench.write("a/b/late", "content");
    bench.until("late", |bench| bench.store.versions().contains_key("a/b/late")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_renamed_is_watched_under_its_new_name() {
    let bench = Bench::started(|watch| watch.rescan_interval = Duration::from_hours(2)).await;
    bench.write("a/x/one", "content");
    bench.until_versions(&[("a/x/one", 1)]).await;
    std::fs::rename(bench.path("a"), bench.path("b")).unwrap();
    bench.until("the new name", |bench| bench.store.versions().contains_key("b/x/one") && bench.status().idle).await;
    bench.write("b/x/two", "content");
    bench.until("two", |bench| bench.store.versions().contains_key("b/x/two")).await;
    // The old name, used again, is watched like any other.
    bench.write("a/x/three", "content");
    bench.until("three", |bench| bench.store.versions().contains_key("a/x/three")).await;
    bench.until("idle", |bench| bench.status().idle).await;
    bench.write("a/x/four", "content");
    bench.until("four", |bench| bench.store.versions().contains_key("a/x/four")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polled_tree_says_so_with_its_delay() {
    let bench = Bench::started(|watch| watch.mode = crate::config::WatchMode::Poll).await;
    let status = bench.status();
    assert_eq!(status.mode, Mode::Poll("as configured".to_owned()));
    assert_eq!(status.coverage.native_delay_ms, None);
    assert!(status.coverage.polled_delay_ms.unwrap() >= 50);
    assert_eq!(status.coverage.worst_delay_ms, status.coverage.polled_delay_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_too_young_are_left_out_of_a_scan_and_taken_by_a_later_one() {
    let mut bench = Bench::new(|watch| watch.min_age = Duration::from_secs(3));
    bench.write("young", "content");
    dated(&bench, "old", 1);
    bench.start();
    bench.idle().await;
    assert_eq!(bench.store.versions().keys().collect::<Vec<_>>(), ["old"]);
    bench.until_versions(&[("old", 1), ("young", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_skipped_is_noted_though_it_is_young_and_has_not_been_quiet() {
    for settle_ms in [0, 300] {
        let mut bench = Bench::new(|watch| {
            watch.settle = Duration::from_millis(settle_ms);
            watch.min_age = Duration::from_millis(300);
        });
        bench.write("old", "content");
        let open = File::create(bench.path("open")).unwrap();
        bench.adopt_before = Some(SystemClock.now().plus(Duration::from_millis(20)));
        bench.start();
        bench.idle().await;
        bench.write("new", "content");
        bench.until_versions(&[("new", 1)]).await;
        drop(open);
        bench.write("old", "changed");
        bench.until_versions(&[("new", 1), ("old", 2)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_ignore_file_decides_anew_at_once() {
    let mut bench = Bench::new(|watch| {
        watch.ignore_files = true;
        watch.rescan_interval = Duration::from_hours(2);
    });
    bench.write("deep/.gitignore", "*.log\n");
    bench.write("deep/er/a.log", "content");
    bench.start();
    bench.idle().await;
    assert!(bench.store.versions().is_empty());
    bench.write("deep/.gitignore", "*.tmp\n");
    bench.until_versions(&[("deep/er/a.log", 1)]).await;
}
