//! What the store makes of a file that has another name, call by call.

use std::path::{Path, PathBuf};

use ingestd::clock::Clock;
use ingestd::job::{ErrorKind, JobError, JobId, Op, SkipReason, State, StateName, Verdict};
use ingestd::store::{
    Browse, Contents, Enqueued, NewJob, Prunable, Queue, Renamed, Settlement, Sources, Steered, Steering, Upkeep,
    Vanished,
};

use crate::store::{Fixture, content, digest, gone, id, intend, transient, watched, with_watch};

/// A file of the watch's, at `to` as it was at `from`.
fn moved(from: &str, to: &str, told: bool) -> NewJob {
    let mut job = watched(to, 1);
    // A rename changes this alone.
    job.identity.ctime_ns += 1;
    NewJob { renamed: Some(Renamed { from: PathBuf::from(from), told }), digest: Some(digest(7)), ..job }
}

/// A watch with a file `a` whose content 7 was completed.
async fn completed() -> (Fixture, JobId) {
    let f = with_watch().await;
    let job = process(&f, "a").await;
    (f, job)
}

async fn process(f: &Fixture, name: &str) -> JobId {
    let job = id(f.enqueue(watched(name, 1)).await);
    let (lease, work) = f.lease_one().await;
    assert_eq!(work.job, job);
    f.settle_with(lease, Verdict::Complete, Some(content(1, 7))).await;
    job
}

async fn path_of(f: &Fixture, job: JobId) -> PathBuf {
    f.store.job(job).await.unwrap().unwrap().path
}

#[track_caller]
fn version(answer: Enqueued) -> i64 {
    let Enqueued::New { version, .. } = answer else { panic!("{answer:?} is no new job") };
    version
}

async fn present(f: &Fixture) -> Vec<PathBuf> {
    let files = f.store.present("inbox", PathBuf::new(), PathBuf::new(), 100).await.unwrap();
    files.into_iter().map(|file| file.relative).collect()
}

async fn assert_sound(f: &Fixture) {
    assert_eq!(f.store.check(true).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_renamed_file_is_told_once_and_jobs_of_the_past_keep_their_name() {
    let (f, before) = completed().await;
    let unread = NewJob { digest: None, ..moved("a", "b", true) };
    assert_eq!(f.enqueue(unread).await, Enqueued::NeedsDigest);
    let answer = f.enqueue(moved("a", "b", true)).await;
    assert_eq!(version(answer), 2);
    let (lease, work) = f.lease_one().await;
    assert_eq!((work.op, work.path.as_path()), (Op::Modify, Path::new("/in/b")));
    assert_eq!(work.moved_from.as_deref(), Some(Path::new("/in/a")));
    f.settle_with(lease, Verdict::Complete, Some(content(1, 7))).await;
    assert_eq!(path_of(&f, before).await, Path::new("/in/a"));
    let after = f.store.job(id(answer)).await.unwrap().unwrap();
    assert_eq!((after.path, after.moved_from), (PathBuf::from("/in/b"), Some(PathBuf::from("/in/a"))));
    assert_eq!(f.store.attempts(before).await.unwrap()[0].path.as_deref(), Some(Path::new("/in/a")));
    assert_eq!(present(&f).await, [Path::new("b")]);
    assert_eq!(f.store.vanish(vec![gone("a", true)]).await.unwrap(), [Vanished::Nothing], "it is no delete");
    assert!(matches!(f.enqueue(moved("a", "b", true)).await, Enqueued::Known { .. }));
    assert_sound(&f).await;
}

#[tokio::test]
async fn a_tracked_file_moves_along_and_only_its_next_content_is_processed() {
    let (f, before) = completed().await;
    let answer = f.enqueue(moved("a", "b", false)).await;
    assert_eq!(answer, Enqueued::Known { id: before, state: StateName::Completed });
    assert!(f.lease(1).await.is_empty());
    let changed = NewJob { digest: Some(digest(8)), ..watched("b", 2) };
    assert_eq!(version(f.enqueue(changed).await), 2);
    let (_, work) = f.lease_one().await;
    assert_eq!((work.op, work.path.as_path(), work.moved_from), (Op::Modify, Path::new("/in/b"), None));
    assert_eq!(path_of(&f, before).await, Path::new("/in/a"));
    assert_sound(&f).await;
}

#[tokio::test]
async fn a_job_that_was_never_started_goes_along() {
    for told in [true, false] {
        let f = with_watch().await;
        let job = id(f.enqueue(watched("a", 1)).await);
        let answer = f.enqueue(moved("a", "b", told)).await;
        assert_eq!(answer, Enqueued::Known { id: job, state: StateName::Pending });
        let answer = f.enqueue(moved("b", "c", told)).await;
        assert_eq!(answer, Enqueued::Known { id: job, state: StateName::Pending });
        let (_, work) = f.lease_one().await;
        assert_eq!((work.job, work.op, work.moved_from), (job, Op::Add, None));
        assert_eq!(work.path, Path::new("/in/c"));
        assert_sound(&f).await;
    }
}

#[tokio::test]
async fn a_job_that_is_to_be_tried_again_gives_way_to_one_under_the_new_name() {
    for told in [true, false] {
        let f = with_watch().await;
        let old = id(f.enqueue(watched("a", 1)).await);
        let (lease, _) = f.lease_one().await;
        let retry = Verdict::Retry { run_at: f.clock.now(), error: transient() };
        f.settle_with(lease, retry, Some(content(1, 7))).await;
        let new = id(f.enqueue(moved("a", "b", told)).await);
        let skipped = f.store.job(old).await.unwrap().unwrap();
        assert!(matches!(skipped.state, State::Skipped { reason: SkipReason::Superseded { by }, .. } if by == new));
        assert_eq!(skipped.path, Path::new("/in/a"));
        let (_, work) = f.lease_one().await;
        assert_eq!((work.job, work.path.as_path()), (new, Path::new("/in/b")));
        let from = told.then(|| PathBuf::from("/in/a"));
        assert_eq!((work.op, work.moved_from), (if told { Op::Modify } else { Op::Add }, from));
        assert_sound(&f).await;
    }
}

#[tokio::test]
async fn a_rename_waits_for_the_execution_under_the_old_name() {
    for told in [true, false] {
        let f = with_watch().await;
        f.enqueue(watched("a", 1)).await;
        let (lease, work) = f.lease_one().await;
        let new = id(f.enqueue(moved("a", "b", told)).await);
        assert!(f.lease(1).await.is_empty());
        assert_eq!(path_of(&f, work.job).await, Path::new("/in/a"));
        f.settle_with(lease, Verdict::Complete, Some(content(1, 7))).await;
        let (_, work) = f.lease_one().await;
        assert_eq!((work.job, work.completed_digest), (new, Some(digest(7))));
        assert_eq!(work.moved_from, told.then(|| PathBuf::from("/in/a")), "told: processed although nothing changed");
        assert_sound(&f).await;
    }
}

#[tokio::test]
async fn a_job_whose_file_is_on_its_way_keeps_its_name_and_key_while_the_next_version_gets_another_name() {
    for told in [true, false] {
        let mut f = with_watch().await;
        // The new name was in use before, at the same version.
        let past = process(&f, "b").await;
        f.enqueue(watched("a", 1)).await;
        let (lease, first) = f.lease_one().await;
        intend(&f, &lease, &first).await;
        f.restart().await;
        let waiting = id(f.enqueue(watched("a", 2)).await);
        f.store.vanish(vec![gone("b", false)]).await.unwrap();
        let renamed = NewJob { renamed: Some(Renamed { from: "a".into(), told }), ..watched("b", 2) };
        assert_eq!(id(f.enqueue(renamed).await), waiting);
        let (lease, again) = f.lease_one().await;
        assert_eq!((again.job, &again.path), (first.job, &first.path));
        assert_eq!(again.idempotency_key, first.idempotency_key);
        assert_ne!(again.idempotency_key, f.store.job(past).await.unwrap().unwrap().idempotency_key);
        f.settle(lease, Verdict::Complete).await;
        let (_, work) = f.lease_one().await;
        assert_eq!((work.job, work.path.as_path()), (waiting, Path::new("/in/b")));
        assert_sound(&f).await;
    }
}

#[tokio::test]
async fn what_was_gone_when_its_turn_came_is_processed_under_its_new_name() {
    let lost: [(u32, Verdict); 2] = [
        (1, Verdict::Skip(SkipReason::Vanished)),
        (2, Verdict::Fail { error: JobError::permanent(ErrorKind::Vanished, "gone") }),
    ];
    for (executions, verdict) in lost {
        let f = with_watch().await;
        f.enqueue(watched("a", 1)).await;
        for _ in 1..executions {
            let (lease, _) = f.lease_one().await;
            f.settle(lease, Verdict::Release).await;
        }
        let (lease, _) = f.lease_one().await;
        f.settle(lease, verdict).await;
        f.enqueue(moved("a", "b", false)).await;
        let (_, work) = f.lease_one().await;
        assert_eq!((work.op, work.path.as_path(), work.moved_from), (Op::Add, Path::new("/in/b"), None));
        assert_sound(&f).await;
    }
}

#[tokio::test]
async fn another_content_or_identity_or_a_deleted_file_is_no_rename() {
    let (f, _) = completed().await;
    let other = NewJob { digest: Some(digest(8)), ..moved("a", "b", true) };
    assert_eq!(version(f.enqueue(other).await), 1, "b is a file of its own");
    let mut reused = moved("a", "c", true);
    reused.identity.size += 1;
    assert_eq!(version(f.enqueue(reused).await), 1);
    assert!(matches!(f.store.vanish(vec![gone("a", true)]).await.unwrap()[..], [Vanished::New { .. }]));
    assert_eq!(version(f.enqueue(moved("a", "d", true)).await), 1, "its delete is a job already");
    assert_sound(&f).await;
}

#[tokio::test]
async fn a_file_that_vanished_without_a_job_is_recognised_by_its_content() {
    let (f, _) = completed().await;
    assert_eq!(f.store.vanish(vec![gone("a", false)]).await.unwrap(), [Vanished::Noted]);
    let identity = moved("a", "b", true).identity;
    assert_eq!(f.store.known_as("inbox", vec![identity]).await.unwrap(), [[Path::new("a")]]);
    assert_eq!(version(f.enqueue(moved("a", "b", true)).await), 2);
    let mut reused = identity;
    reused.mtime_ns += 1;
    let found = f.store.known_as("inbox", vec![reused, identity]).await.unwrap();
    assert_eq!(found, [vec![], vec![PathBuf::from("b")]]);
    assert_sound(&f).await;
}

#[tokio::test]
async fn a_file_is_found_however_often_its_number_on_disk_was_used_before() {
    let f = with_watch().await;
    for n in 0..50 {
        let mut file = watched(&format!("{n}"), 100 + n);
        file.identity.inode = 5;
        f.enqueue(file).await;
        f.store.vanish(vec![gone(&format!("{n}"), false)]).await.unwrap();
    }
    let mut file = watched("a", 500);
    file.identity.inode = 5;
    let identity = file.identity;
    f.enqueue(file).await;
    assert_eq!(f.store.known_as("inbox", vec![identity]).await.unwrap(), [[Path::new("a")]]);
}

#[tokio::test]
async fn no_name_has_one_version_twice_whatever_is_renamed_over_it() {
    let (f, first) = completed().await;
    let mut keys = vec![f.store.job(first).await.unwrap().unwrap().idempotency_key];
    let mut steps: Vec<(NewJob, &str)> = vec![
        (moved("a", "b", true), "b"),
        (watched("a", 5), "a"),
        (moved("b", "c", true), "c"),
        (moved("c", "b", true), "b"),
    ];
    for (job, name) in steps.drain(..) {
        let renamed = job.renamed.is_some();
        let job = id(f.enqueue(job).await);
        let (lease, work) = f.lease_one().await;
        assert_eq!((work.job, work.path), (job, Path::new("/in").join(name)));
        keys.push(work.idempotency_key);
        let seen = if renamed { content(1, 7) } else { content(5, 9) };
        f.settle_with(lease, Verdict::Complete, Some(seen)).await;
        assert_eq!(f.store.job(job).await.unwrap().unwrap().idempotency_key, work.idempotency_key);
        assert_sound(&f).await;
    }
    assert_eq!(f.store.vanish(vec![gone("a", true)]).await.unwrap().len(), 1);
    let (lease, work) = f.lease_one().await;
    keys.push(work.idempotency_key);
    f.settle(lease, Verdict::Complete).await;
    // A source of the past had this name, and its jobs are over.
    let again = id(f.enqueue(moved("b", "a", true)).await);
    let (_, work) = f.lease_one().await;
    assert_eq!((work.job, work.path.as_path()), (again, Path::new("/in/a")));
    keys.push(work.idempotency_key);
    let all: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(all.len(), keys.len(), "{keys:?}");
    assert_sound(&f).await;
}

#[tokio::test]
async fn a_name_whose_delete_waits_is_not_taken_over() {
    let f = with_watch().await;
    process(&f, "b").await;
    process(&f, "a").await;
    let [Vanished::New { id: delete }] = f.store.vanish(vec![gone("b", true)]).await.unwrap()[..] else {
        panic!("no delete")
    };
    let new = id(f.enqueue(moved("a", "b", true)).await);
    let (_, work) = f.lease_one().await;
    assert_eq!((work.job, work.version, work.moved_from), (new, 3, None), "the next version of b");
    let superseded = f.store.job(delete).await.unwrap().unwrap();
    assert_eq!(superseded.state.name(), StateName::Skipped);
    assert_sound(&f).await;
}

#[tokio::test]
async fn what_failed_is_not_processed_anew_but_retried_under_its_new_name() {
    let f = with_watch().await;
    let job = id(f.enqueue(watched("a", 1)).await);
    let (lease, _) = f.lease_one().await;
    f.settle_with(lease, Verdict::Fail { error: transient() }, Some(content(1, 7))).await;
    assert!(matches!(f.enqueue(moved("a", "b", false)).await, Enqueued::Known { state: StateName::Failed, .. }));
    assert_eq!(f.store.retry(vec![job]).await.unwrap(), [Steered::Done]);
    let (_, work) = f.lease_one().await;
    assert_eq!((work.job, work.path.as_path()), (job, Path::new("/in/b")));
    assert_sound(&f).await;
}

#[tokio::test]
async fn renames_of_a_whole_folder_and_of_one_name_after_the_other_are_one_call() {
    let f = with_watch().await;
    for n in 0..40 {
        let mut file = watched(&format!("x/{n}"), 1);
        file.identity.inode = 100 + n;
        f.enqueue(file).await;
    }
    let renames: Vec<NewJob> = (0..40)
        .map(|n| {
            let mut file = moved(&format!("x/{n}"), &format!("y/{n}"), true);
            file.identity.inode = 100 + n;
            file
        })
        .collect();
    let answers = f.store.enqueue(renames.clone()).await.unwrap();
    assert!(answers.iter().all(|answer| matches!(answer, Enqueued::Known { .. })), "{answers:?}");
    let paths: Vec<PathBuf> = f.lease(40).await.into_iter().map(|(_, work)| work.path).collect();
    assert!(paths.iter().all(|path| path.starts_with("/in/y")), "{paths:?}");
    // In one call: the second name is seen after the first was left.
    let mut chain = vec![moved("y/0", "z", true), moved("z", "zz", true)];
    for job in &mut chain {
        job.identity.inode = 100;
    }
    f.store.enqueue(chain).await.unwrap();
    assert!(present(&f).await.contains(&PathBuf::from("zz")));
    assert_sound(&f).await;
}

#[tokio::test]
async fn a_content_is_known_to_be_completed_under_its_first_name_until_that_is_forgotten() {
    let f = with_watch().await;
    let first = id(f.enqueue(watched("a", 1)).await);
    let (lease, _) = f.lease_one().await;
    assert_eq!(f.store.completed_elsewhere(&lease, digest(7)).await.unwrap(), None);
    complete(&f, lease).await;
    let second = id(f.enqueue(watched("b", 1)).await);
    let (lease, _) = f.lease_one().await;
    let original = f.store.completed_elsewhere(&lease, digest(7)).await.unwrap().unwrap();
    assert_eq!((original.job, original.path.as_path()), (first, Path::new("/in/a")));
    assert_eq!(f.store.completed_elsewhere(&lease, digest(8)).await.unwrap(), None);
    let duplicate = Verdict::Skip(SkipReason::Duplicate { of: original.job });
    f.settle_with(lease, duplicate, Some(content(1, 7))).await;
    f.store.prune(Prunable::Jobs(StateName::Completed), f.clock.now().plus(DAY), 10).await.unwrap();
    let skipped = f.store.job(second).await.unwrap().unwrap();
    assert!(matches!(skipped.state, State::Skipped { reason: SkipReason::Duplicate { of }, .. } if of == first));
    assert_eq!(skipped.original.as_deref(), Some(Path::new("/in/a")), "known by its content, though the job is pruned");
    assert_eq!(f.store.vanish(vec![gone("b", true)]).await.unwrap(), [Vanished::Noted], "nobody was told of b");
    f.store.vanish(vec![gone("a", false)]).await.unwrap();
    assert_eq!(f.store.prune(Prunable::Sources, f.clock.now().plus(DAY), 10).await.unwrap(), 1);
    f.enqueue(watched("c", 1)).await;
    let (lease, _) = f.lease_one().await;
    assert_eq!(f.store.completed_elsewhere(&lease, digest(7)).await.unwrap(), None);
    assert_sound(&f).await;
}

const DAY: std::time::Duration = std::time::Duration::from_hours(24);

async fn complete(f: &Fixture, lease: ingestd::store::Lease) {
    let end = Settlement {
        lease,
        verdict: Verdict::Complete,
        code: None,
        output: Vec::new(),
        content: Some(content(1, 7)),
        remember: true,
        finished_at: f.clock.now(),
        duration: std::time::Duration::ZERO,
    };
    f.store.settle(vec![end]).await.unwrap();
}
