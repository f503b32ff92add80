//! Deletions: one by one, by the thousand, and those that are none.

use std::fs;
use std::time::Duration;

use tokio::sync::oneshot;

use super::fake::Bench;
use crate::config::DeleteBrake;
use crate::watch::WatchCommand;

const HOUR: Duration = Duration::from_hours(1);

fn deleted(bench: &Bench) -> usize {
    bench.store.deletes.lock().unwrap().len()
}

async fn filled(files: usize, polled: bool) -> Bench {
    let mut bench = Bench::new(|watch| {
        watch.events.delete = true;
        watch.delete_brake = DeleteBrake { above: 10, share: 0.5, wait: HOUR };
        if polled {
            watch.mode = crate::config::WatchMode::Poll;
        }
    });
    for n in 0..files {
        bench.write(&format!("d{}/f{n}", n % 4), "content");
    }
    bench.start();
    bench.until("all taken", |bench| bench.store.versions().len() == files && bench.status().idle).await;
    bench
}

async fn confirm(bench: &Bench) -> u64 {
    let (reply, answer) = oneshot::channel();
    bench.handle.as_ref().unwrap().commands.send(WatchCommand::Confirm { reply }).await.unwrap();
    answer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_deletions_are_told_whether_by_events_or_by_a_scan() {
    for polled in [false, true] {
        let bench = filled(20, polled).await;
        for n in 0..10 {
            fs::remove_file(bench.path(&format!("d{}/f{n}", n % 4))).unwrap();
        }
        bench.until("ten deleted", |bench| deleted(bench) == 10).await;
        assert_eq!(bench.status().held_back, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn most_files_gone_at_once_are_held_back_until_a_person_confirms() {
    for polled in [false, true] {
        let mut bench = filled(24, polled).await;
        bench.stop().await;
        for n in 0..20 {
            fs::remove_file(bench.path(&format!("d{}/f{n}", n % 4))).unwrap();
        }
        bench.start();
        bench.until("held", |bench| bench.status().held_back == 20).await;
        assert!(bench.status().warnings[0].contains("ingestd watch confirm inbox"), "{:?}", bench.status().warnings);
        assert!(bench.scan(false).await.is_ok());
        assert_eq!(deleted(&bench), 0);
        assert_eq!(confirm(&bench).await, 20);
        bench.until("deleted", |bench| deleted(bench) == 20).await;
        bench.until("released", |bench| bench.status().held_back == 0 && bench.status().warnings.is_empty()).await;
        assert_eq!(confirm(&bench).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_back_were_never_deleted() {
    let bench = filled(24, false).await;
    fs::rename(bench.path("d0"), bench.folder.path().join("away0")).unwrap();
    fs::rename(bench.path("d1"), bench.folder.path().join("away1")).unwrap();
    fs::rename(bench.path("d2"), bench.folder.path().join("away2")).unwrap();
    bench.until("held", |bench| bench.status().held_back > 0).await;
    for n in 0..3 {
        fs::rename(bench.folder.path().join(format!("away{n}")), bench.path(&format!("d{n}"))).unwrap();
    }
    assert!(bench.scan(false).await.is_ok());
    bench.until("released", |bench| bench.status().held_back == 0).await;
    // Those that went before the brake saw how many there are may have been told; never all of them.
    assert!(deleted(&bench) <= 12, "{}", deleted(&bench));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_a_scan_finds_emptied_counts_as_unmounted() {
    let mut bench = filled(10, false).await;
    bench.stop().await;
    for folder in ["d0", "d1", "d2", "d3"] {
        fs::remove_dir_all(bench.path(folder)).unwrap();
    }
    bench.start();
    bench.until("held", |bench| bench.status().held_back == 10).await;
    assert_eq!(deleted(&bench), 0);
}
