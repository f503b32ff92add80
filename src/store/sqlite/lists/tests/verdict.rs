//! How a run ends, and what it counts.

use super::*;

#[tokio::test]
async fn a_run_ends_with_its_last_job_and_a_retry_gives_its_verdict_anew() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    reader.take(id, &["1", "2", "3"]).await;
    assert_eq!(reader.work(1, &Verdict::Complete).await.len(), 1);
    let failed = reader.work(1, &failure()).await[0];
    assert_eq!(reader.run(id).await.state, RunState::Running, "it is still read");
    assert!(reader.store.end_input(id, me()).await.unwrap());
    let run = reader.run(id).await;
    assert_eq!((run.state, run.total, run.reading, run.jobs.open), (RunState::Running, Some(3), false, 1));
    reader.work(1, &Verdict::Complete).await;
    let run = reader.run(id).await;
    assert_eq!((run.state, run.jobs.completed, run.jobs.failed), (RunState::Failed, 2, 1));
    assert!(run.finished_at.is_some() && !run.is_well());
    // Whoever begins it anew does not wait for jobs.
    let next = reader.begin(named("a")).await;
    assert_eq!(reader.store.retry(vec![failed]).await.unwrap(), [Steered::Done]);
    let run = reader.run(id).await;
    assert_eq!((run.state, run.finished_at, run.jobs.open, run.jobs.failed), (RunState::Running, None, 1, 0));
    reader.sound().await;
    reader.work(1, &Verdict::Complete).await;
    let run = reader.run(id).await;
    assert_eq!((run.state, run.jobs.completed), (RunState::Completed, 3));
    // Without any open job the end of the input is the end.
    assert_eq!(new_jobs(&reader.take(next, &["1", "2", "3"]).await), 0);
    assert!(reader.store.end_input(next, me()).await.unwrap());
    let run = reader.run(next).await;
    assert_eq!((run.state, run.skipped, run.duplicates, run.enqueued), (RunState::Completed, 3, 0, 0));
    reader.sound().await;
}

#[tokio::test]
async fn the_counts_of_a_run_follow_its_jobs_on_every_way_to_their_ends() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    reader.take(id, &["1", "2", "3", "4", "5", "6"]).await;
    reader.store.end_input(id, me()).await.unwrap();
    let jobs = async || reader.run(id).await.jobs;
    let error = JobError::transient(ErrorKind::Exit, "exit code 1");
    let again = Verdict::Retry { run_at: Timestamp::from_millis(NOW), error };
    let tried = reader.work(1, &again).await;
    assert_eq!(jobs().await.open, 6, "it is tried again");
    assert_eq!(reader.store.cancel(tried).await.unwrap(), [Steered::Done]);
    assert_eq!((jobs().await.open, jobs().await.cancelled), (5, 1));
    // A newer version that comes another way takes the place of one that waits, in the run too.
    let mut newer = file(id, 1, "2");
    newer.listed = None;
    newer.identity.size = 9;
    newer.digest = Some(digest());
    assert!(matches!(reader.store.enqueue(vec![newer]).await.unwrap()[..], [Enqueued::New { .. }]));
    assert_eq!((jobs().await.open, jobs().await.skipped), (5, 1));
    // A crash of a job that has a successor ends it.
    let wants = vec![Want::single("documents", 1)];
    let leased = reader.store.lease(wants, 9, Appetite::Regular).await.unwrap().work;
    let running = leased[0].1.path.clone();
    let mut newer = file(id, 1, running.file_name().unwrap().to_str().unwrap());
    (newer.listed, newer.identity.size, newer.digest) = (None, 9, Some(digest()));
    if leased[0].1.version == 1 {
        reader.store.enqueue(vec![newer]).await.unwrap();
    }
    reader.sound().await;
    fixture::sql(&reader.store, "UPDATE jobs SET boot = 77 WHERE boot IS NOT NULL").await;
    let clock = Timestamp::from_millis(NOW);
    let recovery = reader
        .store
        .write_counted(move |tx, tally| {
            let whose = crate::store::sqlite::recover::Whose::DeadBoots { but: 1 };
            Box::pin(crate::store::sqlite::recover::take_back(tx, whose, 5, clock, tally))
        })
        .await
        .unwrap();
    assert_eq!(recovery.superseded + recovery.released, 1);
    reader.sound().await;
    reader.work(9, &Verdict::Complete).await;
    let run = reader.run(id).await;
    assert_eq!((run.jobs.open, run.state), (0, RunState::Failed), "one was cancelled: {:?}", run.jobs);
    let all = reader.number("SELECT count(*) FROM jobs WHERE run IS NOT NULL").await;
    assert_eq!(i64::try_from(run.jobs.completed + run.jobs.skipped + run.jobs.cancelled).unwrap(), all);
    assert!(all > 6, "newer versions go on for their lines");
    // What is pruned stays counted.
    for state in [StateName::Completed, StateName::Skipped, StateName::Cancelled] {
        reader.store.prune(Prunable::Jobs(state), Timestamp::from_millis(i64::MAX), 99).await.unwrap();
    }
    assert_eq!(jobs().await, run.jobs);
    reader.sound().await;
}
