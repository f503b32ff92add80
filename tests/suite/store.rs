//! What the store promises, call by call. Every case runs on every engine; today that is SQLite.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ingestd::clock::{Clock, ManualClock, Timestamp};
use ingestd::config::Database;
use ingestd::job::{
    Digest, DigestAlgorithm, ErrorKind, FileIdentity, JobError, JobId, Op, Priority, SkipReason, SourceKey, StateName, Verdict,
};
use ingestd::store::sqlite::{OpenMode, QueueRules, SqliteStore};
use ingestd::store::{
    Appetite, Content, Enqueued, Lease, NewJob, Queue, Settled, Settlement, Steered, Steering, Want, Work,
};

/// A store in a folder of its own, with a clock that moves when told.
struct Fixture {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Arc<SqliteStore>,
}

const RULES: QueueRules =
    QueueRules { lease: Duration::from_secs(60), priority_aging: Duration::from_secs(600), max_crashes: 2 };

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
        let store = open(&folder, &clock).await;
        store.begin_boot(1, "test").await.unwrap();
        Self { folder, clock, store }
    }

    /// As after kill -9: another daemon opens the same file.
    async fn restart(&mut self) -> ingestd::store::Recovery {
        self.store.close().await;
        self.store = open(&self.folder, &self.clock).await;
        self.store.begin_boot(2, "test").await.unwrap()
    }

    async fn enqueue(&self, job: NewJob) -> Enqueued {
        self.store.enqueue(vec![job]).await.unwrap()[0]
    }

    async fn lease(&self, n: usize) -> Vec<(Lease, Work)> {
        let wants = vec![Want { pipeline: "docs".to_owned(), permits: n }];
        self.store.lease(wants, n, Appetite::Regular).await.unwrap().work
    }

    async fn lease_one(&self) -> (Lease, Work) {
        self.lease(1).await.pop().expect("a due job")
    }

    async fn settle(&self, lease: Lease, verdict: Verdict) -> Settled {
        self.settle_with(lease, verdict, None).await
    }

    async fn settle_with(&self, lease: Lease, verdict: Verdict, content: Option<Content>) -> Settled {
        let end =
            Settlement { lease, verdict, code: Some(0), output: b"out".to_vec(), content, duration: Duration::from_millis(5) };
        self.store.settle(vec![end]).await.unwrap()[0]
    }
}

async fn open(folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Arc<SqliteStore> {
    let database = Database { path: folder.path().join("state/q.db"), ..Database::default() };
    let (store, task) = SqliteStore::open(&database, RULES, OpenMode::Daemon, clock.clone()).await.unwrap();
    tokio::spawn(task.unwrap().run());
    store
}

fn file(path: &str, mtime: i64) -> NewJob {
    NewJob {
        source: SourceKey::Path(PathBuf::from(path)),
        pipeline: "docs".to_owned(),
        priority: Priority::Normal,
        run_at: None,
        identity: FileIdentity { dev: 1, inode: 2, size: 3, mtime_ns: mtime, ctime_ns: mtime },
        digest: None,
        metadata: None,
        force: false,
    }
}

fn digest(byte: u8) -> Digest {
    Digest { algorithm: DigestAlgorithm::Blake3, bytes: [byte; 32] }
}

fn content(mtime: i64, byte: u8) -> Content {
    Content { identity: file("", mtime).identity, digest: digest(byte) }
}

fn transient() -> JobError {
    JobError::transient(ErrorKind::Exit, "exit 1")
}

fn id(answer: Enqueued) -> JobId {
    match answer {
        Enqueued::New { id, .. } | Enqueued::Known { id, .. } => id,
        other => panic!("{other:?} is no job"),
    }
}

#[tokio::test]
async fn a_version_becomes_one_job_however_often_it_is_seen() {
    let f = Fixture::new().await;
    let first = f.enqueue(file("/a", 1)).await;
    assert!(matches!(first, Enqueued::New { version: 1, .. }));
    assert_eq!(f.enqueue(file("/a", 1)).await, Enqueued::Known { id: id(first), state: StateName::Pending });
    let twice = f.store.enqueue(vec![file("/b", 1), file("/b", 1)]).await.unwrap();
    assert!(matches!(twice[0], Enqueued::New { .. }));
    assert_eq!(twice[1], Enqueued::Known { id: id(twice[0]), state: StateName::Pending });
}

#[tokio::test]
async fn a_changed_identity_is_judged_by_the_digest() {
    let f = Fixture::new().await;
    f.enqueue(file("/a", 1)).await;
    let (lease, _) = f.lease_one().await;
    assert_eq!(f.settle_with(lease, Verdict::Complete, Some(content(1, 7))).await, Settled::As(StateName::Completed));
    assert_eq!(f.enqueue(file("/a", 2)).await, Enqueued::NeedsDigest);
    let touched = NewJob { digest: Some(digest(7)), ..file("/a", 2) };
    assert!(matches!(f.enqueue(touched).await, Enqueued::Known { state: StateName::Completed, .. }));
    assert!(matches!(f.enqueue(file("/a", 2)).await, Enqueued::Known { .. }), "the identity was refreshed");
    let changed = NewJob { digest: Some(digest(8)), ..file("/a", 3) };
    assert!(matches!(f.enqueue(changed).await, Enqueued::New { version: 2, .. }));
}

#[tokio::test]
async fn a_newer_version_takes_the_place_of_a_waiting_one() {
    let f = Fixture::new().await;
    let old = id(f.enqueue(NewJob { priority: Priority::High, ..file("/a", 1) }).await);
    let new = id(f.enqueue(NewJob { force: true, ..file("/a", 1) }).await);
    assert_ne!(old, new);
    let (lease, work) = f.lease_one().await;
    assert_eq!((work.job, work.priority, work.version, work.op), (new, Priority::High, 2, Op::Modify));
    assert!(f.lease(1).await.is_empty());
    f.settle(lease, Verdict::Complete).await;
}

#[tokio::test]
async fn a_newer_version_waits_for_a_running_one_which_is_never_tried_again() {
    let f = Fixture::new().await;
    f.enqueue(file("/a", 1)).await;
    let (lease, _) = f.lease_one().await;
    let new = id(f.enqueue(file("/a", 2)).await);
    assert!(f.lease(1).await.is_empty(), "two versions of one source never run at once");
    let retry = Verdict::Retry { run_at: f.clock.now(), error: transient() };
    assert_eq!(f.settle(lease, retry).await, Settled::As(StateName::Skipped));
    let (lease, work) = f.lease_one().await;
    assert_eq!(work.job, new);
    f.settle(lease, Verdict::Complete).await;
}

#[tokio::test]
async fn a_lease_that_was_taken_back_settles_nothing() {
    let f = Fixture::new().await;
    f.enqueue(file("/a", 1)).await;
    let (stale, _) = f.lease_one().await;
    f.clock.advance(Duration::from_secs(61));
    assert_eq!(f.store.reclaim().await.unwrap(), 1);
    let (fresh, work) = f.lease_one().await;
    assert_eq!(work.spent.attempts, 0, "a crash spends nothing");
    assert_eq!(f.store.renew(vec![stale.claim()]).await.unwrap(), vec![None]);
    assert_eq!(f.settle(stale, Verdict::Complete).await, Settled::LeaseLost);
    assert_eq!(f.settle(fresh, Verdict::Complete).await, Settled::As(StateName::Completed));
}

#[tokio::test]
async fn steps_of_the_wall_clock_expire_no_lease() {
    let f = Fixture::new().await;
    f.enqueue(file("/a", 1)).await;
    let (lease, _) = f.lease_one().await;
    f.clock.step_wall(f.clock.now().plus(Duration::from_secs(400 * 86_400)));
    assert_eq!(f.store.reclaim().await.unwrap(), 0);
    assert_eq!(f.settle(lease, Verdict::Complete).await, Settled::As(StateName::Completed));
}

#[tokio::test]
async fn two_crashes_make_a_suspect_and_crashes_alone_end_it() {
    let mut f = Fixture::new().await;
    let job = id(f.enqueue(file("/a", 1)).await);
    for _ in 0..2 {
        f.lease_one().await;
        assert_eq!(f.restart().await.released, 1);
    }
    assert!(f.lease(1).await.is_empty(), "a suspect is not leased among others");
    for alone in 1..=2 {
        let wants = vec![Want { pipeline: "docs".to_owned(), permits: 1 }];
        let leased = f.store.lease(wants, 1, Appetite::OneSuspect).await.unwrap();
        assert!(leased.suspect_due && leased.work[0].1.suspect && leased.work[0].1.job == job);
        let recovery = f.restart().await;
        assert_eq!((recovery.released, recovery.failed), if alone == 1 { (1, 0) } else { (0, 1) });
    }
    assert_eq!(f.store.retry(vec![job]).await.unwrap(), vec![Steered::Done]);
    assert_eq!(f.lease_one().await.1.job, job, "a retry starts with a clean record");
}

#[tokio::test]
async fn levels_come_first_then_due_times_and_waiting_lifts_up_to_high() {
    let f = Fixture::new().await;
    let low = id(f.enqueue(NewJob { priority: Priority::Low, ..file("/low", 1) }).await);
    f.clock.advance(Duration::from_secs(601));
    let normal = id(f.enqueue(file("/normal", 1)).await);
    let urgent = id(f.enqueue(NewJob { priority: Priority::Urgent, ..file("/urgent", 1) }).await);
    let high = id(f.enqueue(NewJob { priority: Priority::High, ..file("/high", 1) }).await);
    let order: Vec<JobId> = f.lease(4).await.iter().map(|(_, work)| work.job).collect();
    assert_eq!(order, [urgent, high, low, normal]);
}

#[tokio::test]
async fn a_job_in_the_future_waits_and_says_until_when() {
    let f = Fixture::new().await;
    let due = f.clock.now().plus(Duration::from_secs(10));
    f.enqueue(NewJob { run_at: Some(due), ..file("/a", 1) }).await;
    let wants = vec![Want { pipeline: "docs".to_owned(), permits: 1 }];
    let leased = f.store.lease(wants, 1, Appetite::Regular).await.unwrap();
    assert!(leased.work.is_empty());
    assert_eq!(leased.next_due, Some(due));
    f.clock.advance(Duration::from_secs(10));
    assert_eq!(f.lease(1).await.len(), 1);
}

#[tokio::test]
async fn retry_is_refused_where_a_newer_version_exists() {
    let f = Fixture::new().await;
    let old = id(f.enqueue(file("/a", 1)).await);
    let (lease, _) = f.lease_one().await;
    f.settle(lease, Verdict::Fail { error: transient() }).await;
    let new = id(f.enqueue(file("/a", 2)).await);
    let Steered::Refused(why) = f.store.retry(vec![old]).await.unwrap().remove(0) else { panic!("not refused") };
    assert!(why.contains(&new.to_string()), "{why}");
}

#[tokio::test]
async fn a_skipped_verdict_keeps_its_reason() {
    let f = Fixture::new().await;
    f.enqueue(file("/a", 1)).await;
    let (lease, _) = f.lease_one().await;
    assert_eq!(f.settle(lease, Verdict::Skip(SkipReason::Vanished)).await, Settled::As(StateName::Skipped));
}
