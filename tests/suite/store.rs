//! What the store promises, call by call. Every case runs on every engine; today that is SQLite.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ingestd::clock::{Clock, ManualClock, Timestamp};
use ingestd::config::Database;
use ingestd::job::{
    Digest, DigestAlgorithm, ErrorKind, FileIdentity, JobError, JobId, Op, Priority, SkipReason, SourceKey, StateName,
    Verdict,
};
use ingestd::store::sqlite::{OpenMode, QueueRules, SqliteStore};
use ingestd::store::{
    Appetite, Content, Disposition, Dispositions, Enqueued, Gone, Intent, Lease, NewJob, Queue, Settings, Settled,
    Settlement, Sources, Steered, Steering, Upkeep, Vanished, Want, Work,
};

/// A store in a folder of its own, with a clock that moves when told.
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Arc<SqliteStore>,
}

pub(crate) const RULES: QueueRules =
    QueueRules { lease: Duration::from_mins(1), priority_aging: Duration::from_mins(10), max_crashes: 2 };

impl Fixture {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
        let store = open(&folder, &clock).await;
        store.begin_boot(1, "test").await.unwrap();
        Self { folder, clock, store }
    }

    /// As after kill -9: another daemon opens the same file.
    pub(crate) async fn restart(&mut self) -> ingestd::store::Recovery {
        self.store.close().await;
        self.store = open(&self.folder, &self.clock).await;
        self.store.begin_boot(2, "test").await.unwrap()
    }

    pub(crate) async fn enqueue(&self, job: NewJob) -> Enqueued {
        self.store.enqueue(vec![job]).await.unwrap()[0]
    }

    pub(crate) async fn lease(&self, n: usize) -> Vec<(Lease, Work)> {
        let wants = vec![Want::single("docs", n)];
        self.store.lease(wants, n, Appetite::Regular).await.unwrap().work
    }

    pub(crate) async fn lease_one(&self) -> (Lease, Work) {
        self.lease(1).await.pop().expect("a due job")
    }

    pub(crate) async fn settle(&self, lease: Lease, verdict: Verdict) -> Settled {
        self.settle_with(lease, verdict, None).await
    }

    pub(crate) async fn settle_with(&self, lease: Lease, verdict: Verdict, content: Option<Content>) -> Settled {
        let end = Settlement {
            lease,
            verdict,
            code: Some(0),
            output: b"out".to_vec(),
            content,
            remember: false,
            finished_at: self.clock.now(),
            duration: Duration::from_millis(5),
        };
        self.store.settle(vec![end]).await.unwrap()[0]
    }
}

async fn open(folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Arc<SqliteStore> {
    let database = Database { path: folder.path().join("state/q.db"), ..Database::default() };
    let (store, task) = SqliteStore::open(&database, RULES, OpenMode::Daemon, clock.clone()).await.unwrap();
    tokio::spawn(task.unwrap().run());
    store
}

pub(crate) fn file(path: &str, mtime: i64) -> NewJob {
    NewJob {
        source: SourceKey::Path(PathBuf::from(path)),
        pipeline: "docs".to_owned(),
        priority: Priority::Normal,
        run_at: None,
        identity: FileIdentity { dev: 1, inode: 2, size: 3, mtime_ns: mtime, ctime_ns: mtime },
        digest: None,
        metadata: None,
        force: false,
        note_only: false,
        renamed: None,
        listed: None,
    }
}

pub(crate) fn digest(byte: u8) -> Digest {
    Digest { algorithm: DigestAlgorithm::Blake3, bytes: [byte; 32] }
}

pub(crate) fn content(mtime: i64, byte: u8) -> Content {
    Content { identity: file("", mtime).identity, digest: digest(byte) }
}

pub(crate) fn transient() -> JobError {
    JobError::transient(ErrorKind::Exit, "exit 1")
}

pub(crate) fn id(answer: Enqueued) -> JobId {
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
    let new = id(f.enqueue(NewJob { digest: Some(digest(8)), ..file("/a", 2) }).await);
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
    assert_eq!(f.enqueue(file("/a", 2)).await, Enqueued::NeedsDigest);
    let new = id(f.enqueue(NewJob { digest: Some(digest(8)), ..file("/a", 2) }).await);
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
async fn a_renewed_lease_is_not_taken_back_although_the_database_is_locked_throughout() {
    let f = Fixture::new().await;
    f.enqueue(file("/a", 1)).await;
    let (lease, _) = f.lease_one().await;
    let other = rusqlite::Connection::open(f.folder.path().join("state/q.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..5 {
        f.clock.advance(Duration::from_secs(40));
        let deadline = f.clock.boottime().plus(RULES.lease);
        assert_eq!(f.store.renew(vec![lease.claim()]).await.unwrap(), [Some(deadline)]);
        assert_eq!(f.store.reclaim().await.unwrap(), 0);
    }
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(f.settle(lease, Verdict::Complete).await, Settled::As(StateName::Completed));
    assert_eq!(f.store.reclaim().await.unwrap(), 0);
}

#[tokio::test]
async fn a_lease_is_taken_back_once_nobody_works_under_it() {
    let f = Fixture::new().await;
    f.enqueue(file("/a", 1)).await;
    let (lease, _) = f.lease_one().await;
    let work = lease.at_work();
    f.clock.advance(Duration::from_hours(1));
    assert_eq!(f.store.renew(vec![lease.claim()]).await.unwrap(), [None], "it has expired");
    assert_eq!(f.store.reclaim().await.unwrap(), 0);
    assert!(f.lease(1).await.is_empty(), "no second execution beside the first");
    drop(work);
    assert_eq!(f.store.reclaim().await.unwrap(), 1);
    assert_eq!(f.lease(1).await.len(), 1);
}

#[tokio::test]
async fn what_is_offered_to_a_full_queue_is_refused_and_what_takes_no_place_passes() {
    let f = Fixture::new().await;
    f.store.set_max_pending(Some(2));
    let offer = async |job: NewJob| f.store.offer(vec![job]).await.unwrap()[0];
    let all = f.store.offer(vec![file("/a", 1), file("/b", 1), file("/c", 1)]).await.unwrap();
    assert!(matches!(all[..], [Enqueued::New { .. }, Enqueued::New { .. }, Enqueued::Full]), "{all:?}");
    assert!(matches!(offer(file("/a", 1)).await, Enqueued::Known { .. }));
    let newer = NewJob { digest: Some(digest(8)), ..file("/a", 2) };
    assert!(matches!(offer(newer).await, Enqueued::New { version: 2, .. }), "it takes the place of the older one");
    assert_eq!(offer(NewJob { note_only: true, ..file("/d", 1) }).await, Enqueued::Unchanged);
    assert_eq!(offer(file("/c", 1)).await, Enqueued::Full, "nothing of it was written before");
    let (lease, _) = f.lease_one().await;
    assert!(matches!(offer(file("/c", 1)).await, Enqueued::New { version: 1, .. }), "there is room");
    assert_eq!(offer(file("/e", 1)).await, Enqueued::Full);
    assert!(matches!(f.enqueue(file("/e", 1)).await, Enqueued::New { .. }), "who may not be refused is not");
    f.settle(lease, Verdict::Release).await;
    f.store.set_max_pending(None);
    assert!(matches!(offer(file("/f", 1)).await, Enqueued::New { .. }));
}

#[tokio::test]
async fn steps_of_the_wall_clock_expire_no_lease() {
    let f = Fixture::new().await;
    f.enqueue(file("/a", 1)).await;
    let (lease, _) = f.lease_one().await;
    f.clock.step_wall(f.clock.now().plus(Duration::from_hours(9600)));
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
        let wants = vec![Want::single("docs", 1)];
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
    let wants = vec![Want::single("docs", 1)];
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
    let new = id(f.enqueue(NewJob { digest: Some(digest(8)), ..file("/a", 2) }).await);
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

pub(crate) fn watched(relative: &str, mtime: i64) -> NewJob {
    NewJob {
        source: SourceKey::Watched { watch: "inbox".to_owned(), relative: PathBuf::from(relative) },
        ..file("", mtime)
    }
}

pub(crate) fn gone(relative: &str, wants_job: bool) -> Gone {
    Gone {
        watch: "inbox".to_owned(),
        relative: PathBuf::from(relative),
        pipeline: "docs".to_owned(),
        wants_job,
        priority: Priority::Normal,
    }
}

pub(crate) async fn with_watch() -> Fixture {
    let f = Fixture::new().await;
    f.store.put_watch("inbox", PathBuf::from("/in"), None).await.unwrap();
    f
}

#[tokio::test]
async fn a_job_whose_file_vanished_before_it_started_is_moot() {
    let f = with_watch().await;
    f.enqueue(watched("a", 1)).await;
    assert_eq!(f.store.vanish(vec![gone("a", true)]).await.unwrap(), [Vanished::Noted]);
    assert!(f.lease(1).await.is_empty());
    assert_eq!(f.store.vanish(vec![gone("a", true)]).await.unwrap(), [Vanished::Nothing]);
    assert!(matches!(f.enqueue(watched("a", 1)).await, Enqueued::New { version: 2, .. }), "it came back");
}

#[tokio::test]
async fn a_delete_is_a_version_of_its_own_and_so_is_what_comes_after_it() {
    let f = with_watch().await;
    f.enqueue(watched("a", 1)).await;
    let (lease, _) = f.lease_one().await;
    let [Vanished::New { id: delete }] = f.store.vanish(vec![gone("a", true)]).await.unwrap()[..] else {
        panic!("no delete")
    };
    assert!(f.lease(1).await.is_empty(), "the delete waits for the running version");
    f.settle_with(lease, Verdict::Complete, Some(content(1, 7))).await;
    let (lease, work) = f.lease_one().await;
    assert_eq!((work.job, work.op, work.version), (delete, Op::Delete, 2));
    f.settle(lease, Verdict::Complete).await;
    let again = NewJob { digest: Some(digest(7)), ..watched("a", 1) };
    assert!(matches!(f.enqueue(again).await, Enqueued::New { version: 3, .. }));
}

#[tokio::test]
async fn a_file_that_we_took_away_ourselves_is_no_delete_and_may_arrive_anew() {
    let f = with_watch().await;
    f.enqueue(watched("a", 1)).await;
    let (lease, work) = f.lease_one().await;
    let way = Disposition {
        path: work.path.clone(),
        private: PathBuf::from("/in/.ingestd-1-1"),
        target: None,
        identity: work.identity,
        error: None,
    };
    assert_eq!(f.store.intend(lease.claim(), way, work.idempotency_key).await.unwrap(), Intent::Committed);
    let seen_just_before = f.enqueue(watched("a", 1)).await;
    assert!(matches!(seen_just_before, Enqueued::Known { .. }), "{seen_just_before:?}");
    f.settle_with(lease, Verdict::Complete, Some(content(1, 7))).await;
    assert_eq!(f.store.vanish(vec![gone("a", true)]).await.unwrap(), [Vanished::Nothing]);
    assert!(f.store.present("inbox", PathBuf::new(), PathBuf::new(), 10).await.unwrap().is_empty());
    let anew = f.enqueue(watched("a", 2)).await;
    assert!(matches!(anew, Enqueued::New { version: 2, .. }), "the same name and content, arrived anew: {anew:?}");
}

#[tokio::test]
async fn an_intent_outlives_a_crash_and_is_handed_to_the_next_lease() {
    let mut f = with_watch().await;
    f.enqueue(watched("a", 1)).await;
    let (lease, work) = f.lease_one().await;
    let way = Disposition {
        path: work.path.clone(),
        private: PathBuf::from("/in/.ingestd-1-1"),
        target: Some(PathBuf::from("/done/a")),
        identity: work.identity,
        error: None,
    };
    f.store.intend(lease.claim(), way.clone(), work.idempotency_key).await.unwrap();
    assert_eq!(f.restart().await.dispositions, 1);
    let (lease, work) = f.lease_one().await;
    assert_eq!(work.disposition, Some(way));
    f.settle(lease, Verdict::Complete).await;
}

/// A running version of `a`, and a newer one that waits for it.
async fn with_newer(f: &Fixture) -> (Lease, JobId) {
    f.enqueue(watched("a", 1)).await;
    let (lease, _) = f.lease_one().await;
    let newer = id(f.enqueue(NewJob { digest: Some(digest(2)), ..watched("a", 2) }).await);
    (lease, newer)
}

#[tokio::test]
async fn a_version_waits_for_the_running_one_also_after_the_one_between_was_cancelled() {
    let f = with_watch().await;
    let (lease, between) = with_newer(&f).await;
    assert_eq!(f.store.cancel(vec![between]).await.unwrap(), [Steered::Done]);
    let newest = id(f.enqueue(NewJob { digest: Some(digest(3)), ..watched("a", 3) }).await);
    assert!(f.lease(1).await.is_empty(), "two versions of one source never run at once");
    f.settle(lease, Verdict::Complete).await;
    assert_eq!(f.lease_one().await.1.job, newest);
}

#[tokio::test]
async fn a_cancelled_version_that_is_retried_waits_for_the_running_one() {
    let f = with_watch().await;
    let (lease, newer) = with_newer(&f).await;
    f.store.cancel(vec![newer]).await.unwrap();
    assert_eq!(f.store.retry(vec![newer]).await.unwrap(), [Steered::Done]);
    assert!(f.lease(1).await.is_empty(), "two versions of one source never run at once");
    f.settle(lease, Verdict::Complete).await;
    assert_eq!(f.lease_one().await.1.job, newer);
}

#[tokio::test]
async fn a_delete_waits_for_the_running_version_also_after_the_one_between_was_cancelled() {
    let f = with_watch().await;
    let (lease, newer) = with_newer(&f).await;
    f.store.cancel(vec![newer]).await.unwrap();
    assert!(matches!(f.store.vanish(vec![gone("a", true)]).await.unwrap()[..], [Vanished::New { .. }]));
    assert!(f.lease(1).await.is_empty(), "two versions of one source never run at once");
    f.settle(lease, Verdict::Complete).await;
    assert_eq!(f.lease_one().await.1.op, Op::Delete);
}

#[tokio::test]
async fn an_older_version_is_never_tried_again_also_where_the_newer_one_was_cancelled() {
    for crash in [false, true] {
        let mut f = with_watch().await;
        let (lease, newer) = with_newer(&f).await;
        f.store.cancel(vec![newer]).await.unwrap();
        if crash {
            assert_eq!(f.restart().await.superseded, 1);
        } else {
            let retry = Verdict::Retry { run_at: f.clock.now(), error: transient() };
            assert_eq!(f.settle(lease, retry).await, Settled::As(StateName::Skipped));
        }
        assert!(f.lease(1).await.is_empty());
    }
}

pub(crate) async fn intend(f: &Fixture, lease: &Lease, work: &Work) {
    let way = Disposition {
        path: work.path.clone(),
        private: PathBuf::from("/in/.ingestd-1-1"),
        target: None,
        identity: work.identity,
        error: None,
    };
    assert_eq!(f.store.intend(lease.claim(), way, work.idempotency_key).await.unwrap(), Intent::Committed);
}

#[tokio::test]
async fn a_file_on_its_way_is_brought_to_its_end_before_the_next_version_runs() {
    let mut f = with_watch().await;
    let old = id(f.enqueue(watched("a", 1)).await);
    let (lease, work) = f.lease_one().await;
    intend(&f, &lease, &work).await;
    f.restart().await;
    let new = id(f.enqueue(watched("a", 2)).await);
    let (lease, work) = f.lease_one().await;
    assert_eq!((work.job, work.disposition.is_some()), (old, true), "the next version does not supersede it");
    assert!(f.lease(1).await.is_empty());
    let retry = Verdict::Retry { run_at: f.clock.now(), error: transient() };
    assert_eq!(f.settle(lease, retry).await, Settled::As(StateName::Retrying), "its file is still on its way");
    let (lease, work) = f.lease_one().await;
    assert_eq!((work.job, work.disposition.is_some()), (old, true));
    f.settle(lease, Verdict::Complete).await;
    assert_eq!(f.lease_one().await.1.job, new);
    assert_eq!(f.store.check(true).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_version_behind_a_file_on_its_way_takes_a_place_of_its_own() {
    let mut f = with_watch().await;
    f.enqueue(watched("a", 1)).await;
    let (lease, work) = f.lease_one().await;
    intend(&f, &lease, &work).await;
    f.restart().await;
    f.store.set_max_pending(Some(1));
    assert_eq!(f.store.offer(vec![watched("a", 2)]).await.unwrap(), [Enqueued::Full]);
    f.store.set_max_pending(Some(2));
    assert!(matches!(f.store.offer(vec![watched("a", 2)]).await.unwrap()[..], [Enqueued::New { .. }]));
}

#[tokio::test]
async fn a_file_that_was_gone_when_its_turn_came_is_processed_when_it_is_back() {
    let f = with_watch().await;
    f.enqueue(watched("a", 1)).await;
    let changed = NewJob { digest: Some(digest(2)), ..watched("a", 2) };
    f.enqueue(changed.clone()).await;
    assert_eq!(f.store.vanish(vec![gone("a", false)]).await.unwrap(), [Vanished::Noted]);
    assert!(f.lease(1).await.is_empty());
    assert!(matches!(f.enqueue(changed).await, Enqueued::New { version: 3, .. }), "it was moved away and back");
}

#[tokio::test]
async fn a_file_that_a_worker_did_not_find_is_processed_when_it_is_seen_again_as_it_was() {
    let missing = || JobError { kind: ErrorKind::Vanished, message: "gone".to_owned(), permanent: true };
    for verdict in [Verdict::Skip(SkipReason::Vanished), Verdict::Fail { error: missing() }] {
        let f = with_watch().await;
        let seen = NewJob { digest: Some(digest(1)), ..watched("a", 1) };
        f.enqueue(seen.clone()).await;
        let (lease, _) = f.lease_one().await;
        f.settle(lease, verdict.clone()).await;
        // Its folder was out of sight, and nobody ever said that the file is gone.
        let known = f.store.known("inbox", vec![PathBuf::from("a")]).await.unwrap();
        assert_ne!(known[0].unwrap().identity, seen.identity, "a scan takes it for changed");
        assert!(known[0].unwrap().present, "only the watch may say that it is gone");
        assert!(matches!(f.enqueue(seen.clone()).await, Enqueued::New { version: 2, .. }), "{verdict:?}");
        assert!(matches!(f.enqueue(seen).await, Enqueued::Known { .. }), "once");
    }
}

#[tokio::test]
async fn what_is_known_of_files_is_told_in_the_asked_order() {
    let f = with_watch().await;
    f.store.enqueue(vec![watched("b", 1), watched("a", 2)]).await.unwrap();
    let known = f.store.known("inbox", vec!["a".into(), "x".into(), "b".into()]).await.unwrap();
    assert_eq!(known[0].unwrap().identity.mtime_ns, 2);
    assert!(known[1].is_none() && known[2].unwrap().present);
    let page = f.store.present("inbox", PathBuf::new(), "a".into(), 10).await.unwrap();
    assert_eq!(page.iter().map(|file| &file.relative).collect::<Vec<_>>(), [&PathBuf::from("b")]);
}

#[tokio::test]
async fn pipelines_take_turns() {
    let f = Fixture::new().await;
    for i in 0..10 {
        f.enqueue(file(&format!("/docs/{i}"), 1)).await;
    }
    let other = NewJob { pipeline: "other".to_owned(), ..file("/other", 1) };
    f.enqueue(other).await;
    let wants = ["docs", "other"].map(|name| Want::single(name, 10)).to_vec();
    let leased = f.store.lease(wants, 4, Appetite::Regular).await.unwrap();
    let names: Vec<&str> = leased.work.iter().map(|(_, work)| work.pipeline.as_str()).collect();
    assert_eq!(names, ["docs", "other", "docs", "docs"]);
}

#[tokio::test]
async fn a_bad_call_fails_alone() {
    let f = Fixture::new().await;
    let bad = NewJob { source: SourceKey::Watched { watch: "nobody".to_owned(), relative: "a".into() }, ..file("", 1) };
    let (bad, good) = tokio::join!(f.store.enqueue(vec![bad]), f.store.enqueue(vec![file("/good", 1)]));
    assert!(bad.is_err());
    assert!(matches!(good.unwrap()[0], Enqueued::New { .. }));
}
