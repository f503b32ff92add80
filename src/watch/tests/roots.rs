//! Roots that are missing, come, go, and are replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::fake::Bench;
use crate::watch::Root;

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_does_not_exist_is_a_warning_and_is_picked_up_when_it_appears() {
    let mut bench = Bench::new(|_| ());
    fs::remove_dir(bench.path("")).unwrap();
    bench.start();
    bench.idle().await;
    assert!(matches!(bench.status().root, Root::Missing(_)));
    assert_eq!(bench.status().warnings.len(), 1);
    bench.write("a", "content");
    bench.until_versions(&[("a", 1)]).await;
    bench.until("no warning", |bench| bench.status().warnings.is_empty()).await;
    bench.write("b", "content");
    bench.until_versions(&[("a", 1), ("b", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_can_not_be_read_deletes_nothing_and_is_picked_up_when_it_can() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root reads every folder, so this needs another user");
        return;
    }
    let bench = Bench::started(|_| ()).await;
    bench.write("a", "content");
    bench.until_versions(&[("a", 1)]).await;
    fs::set_permissions(bench.path(""), fs::Permissions::from_mode(0o0)).unwrap();
    assert!(bench.scan(false).await.unwrap_err().contains("ermission"));
    assert_eq!(bench.store.present(), ["a"]);
    fs::set_permissions(bench.path(""), fs::Permissions::from_mode(0o700)).unwrap();
    bench.until("present", |bench| bench.status().root == Root::Present && bench.status().idle).await;
    bench.write("b", "content");
    bench.until_versions(&[("a", 1), ("b", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_moved_away_and_back_deletes_nothing_and_is_watched_again() {
    let bench = Bench::started(|watch| watch.events.delete = true).await;
    bench.write("x/a", "content");
    bench.until_versions(&[("x/a", 1)]).await;
    let away = bench.folder.path().join("away");
    fs::rename(bench.path(""), &away).unwrap();
    bench.until("missing", |bench| matches!(bench.status().root, Root::Missing(_))).await;
    fs::rename(&away, bench.path("")).unwrap();
    bench.until("present", |bench| bench.status().root == Root::Present && bench.status().idle).await;
    assert_eq!(bench.store.present(), ["x/a"]);
    bench.write("x/b", "content");
    bench.until_versions(&[("x/a", 1), ("x/b", 1)]).await;
    assert!(bench.store.deletes.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_in_place_of_the_root_deletes_nothing_until_something_is_in_it() {
    let bench = Bench::started(|watch| watch.events.delete = true).await;
    bench.write("a", "content");
    bench.write("b", "content");
    bench.until_versions(&[("a", 1), ("b", 1)]).await;
    bench.scan(false).await.unwrap();
    let away = bench.folder.path().join("away");
    fs::rename(bench.path(""), &away).unwrap();
    fs::create_dir(bench.path("")).unwrap();
    bench.until("replaced", |bench| bench.status().root == Root::Replaced && bench.status().idle).await;
    assert_eq!(bench.store.present().len(), 2);
    bench.write("c", "content");
    bench.until("c is there", |bench| bench.store.versions().contains_key("c")).await;
    bench.scan(false).await.unwrap();
    bench.until("a and b are gone", |bench| bench.store.present() == ["c"]).await;
    bench.until("present", |bench| bench.status().root == Root::Present).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_a_link_and_leads_elsewhere_by_now_is_watched_there() {
    let mut bench = Bench::new(|watch| watch.rescan_interval = std::time::Duration::from_hours(2));
    let (one, two) = (bench.folder.path().join("one"), bench.folder.path().join("two"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    fs::write(two.join("b"), "content").unwrap();
    fs::remove_dir(bench.path("")).unwrap();
    std::os::unix::fs::symlink(&one, bench.config.path.clone()).unwrap();
    bench.start();
    bench.idle().await;
    fs::remove_file(&bench.config.path).unwrap();
    std::os::unix::fs::symlink(&two, &bench.config.path).unwrap();
    bench.until_versions(&[("b", 1)]).await;
}
