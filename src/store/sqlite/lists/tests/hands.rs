//! Runs that are paused, cancelled, forgotten.

use super::*;

#[tokio::test]
async fn jobs_of_a_paused_run_are_not_started_and_hold_up_nobody() {
    let reader = Reader::new().await;
    let many = reader.begin(named("many")).await;
    let names: Vec<String> = (0..6_000).map(|n| n.to_string()).collect();
    for chunk in names.chunks(2_000) {
        reader.take(many, &chunk.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let one = reader.begin(named("one")).await;
    reader.take(one, &["last"]).await;
    assert_eq!(reader.store.pause_run(many).await.unwrap(), RunSteered::Done);
    let lines = batch(many, 6_000, vec![file(many, 6_001, "x")]);
    assert_eq!(reader.store.take_lines(lines).await.unwrap(), LinesTaken::NotRunning(RunState::Paused));
    let mut calls = 0;
    let started = loop {
        let started = reader.work(3, &Verdict::Complete).await;
        calls += 1;
        assert!(calls < 9, "it comes to the head");
        if !started.is_empty() {
            break started;
        }
    };
    assert_eq!(started, [JobId(6_001)]);
    assert_eq!(reader.work(3, &Verdict::Complete).await, []);
    assert!(!reader.store.left(vec!["documents".to_owned()]).await.unwrap().waiting);
    let waiting = JobFilter { states: vec![StateName::Pending], ..JobFilter::default() };
    assert_eq!(reader.store.jobs(&waiting, None, 9_000).await.unwrap().len(), 6_000);
    // A start gives nothing back that is paused, and everything else.
    reader.store.begin_boot(2, "test").await.unwrap();
    assert_eq!(reader.work(3, &Verdict::Complete).await, []);
    assert!(reader.number("SELECT count(*) FROM jobs WHERE held_by IS NOT NULL").await > 3_000);
    assert_eq!(reader.store.resume_run(many).await.unwrap(), RunSteered::Done);
    assert_eq!(reader.number("SELECT count(*) FROM jobs WHERE held_by IS NOT NULL").await, 0);
    assert!(reader.store.left(vec!["documents".to_owned()]).await.unwrap().waiting);
    assert_eq!(reader.work(3, &Verdict::Complete).await, [JobId(1), JobId(2), JobId(3)]);
    fixture::sql(&reader.store, "UPDATE jobs SET held_by = 1 WHERE id = 4").await;
    reader.store.begin_boot(3, "test").await.unwrap();
    assert_eq!(reader.work(1, &Verdict::Complete).await, [JobId(4)]);
    reader.sound().await;
}

#[tokio::test]
async fn a_cancelled_run_cancels_what_waits_also_across_a_restart_and_follows_a_job_that_is_retried() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    let names: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    for chunk in names.chunks(2_500) {
        reader.take(id, &chunk.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    reader.work(2, &Verdict::Complete).await;
    reader.store.pause_run(id).await.unwrap();
    reader.work(2, &Verdict::Complete).await;
    assert_eq!(reader.store.cancel_run(id).await.unwrap(), RunSteered::Done);
    assert!(!reader.store.end_input(id, me()).await.unwrap());
    assert_eq!(reader.store.cancel_jobs_of(id, 1_000).await.unwrap(), 1_000);
    reader.sound().await;
    // The daemon dies here.
    reader.store.begin_boot(2, "test").await.unwrap();
    let run = reader.run(id).await;
    assert_eq!((run.state, run.jobs.cancelled, run.jobs.completed, run.jobs.open), (RunState::Cancelled, 4_998, 2, 0));
    assert_eq!(reader.store.cancel_jobs_of(id, 1_000).await.unwrap(), 0);
    assert_eq!(reader.number("SELECT count(*) FROM jobs WHERE held_by IS NOT NULL").await, 0);
    assert_eq!(reader.store.retry(vec![JobId(9)]).await.unwrap(), [Steered::Done]);
    reader.store.begin_boot(3, "test").await.unwrap();
    let run = reader.run(id).await;
    assert_eq!((run.state, run.jobs.cancelled, run.jobs.open), (RunState::Running, 4_997, 1));
    assert_eq!(reader.work(9, &Verdict::Complete).await, [JobId(9)]);
    assert_eq!(reader.store.pause_run(id).await.unwrap(), RunSteered::Refused(RunState::Failed));
    assert_eq!(reader.store.pause_run(RunId(99)).await.unwrap(), RunSteered::Unknown);
    reader.sound().await;
}

#[tokio::test]
async fn what_ran_when_its_run_was_cancelled_does_not_run_again_after_a_crash_and_a_run_that_was_given_up_keeps_its_jobs()
 {
    let reader = Reader::new().await;
    let (cancelled, given_up) = (reader.begin(named("a")).await, reader.begin(named("b")).await);
    reader.take(cancelled, &["1", "2"]).await;
    reader.take(given_up, &["3"]).await;
    let leased = reader.store.lease(vec![Want::single("documents", 1)], 1, Appetite::Regular).await.unwrap();
    assert_eq!(leased.work[0].1.job, JobId(1));
    assert_eq!(reader.store.give_up_run(given_up).await.unwrap(), RunSteered::Done);
    assert_eq!(reader.store.cancel_run(cancelled).await.unwrap(), RunSteered::Done);
    assert_eq!(reader.store.cancel_jobs_of(cancelled, 9).await.unwrap(), 1);
    assert_eq!(reader.store.cancel_jobs_of(cancelled, 9).await.unwrap(), 0);
    // The daemon dies here.
    reader.store.begin_boot(2, "test").await.unwrap();
    let run = reader.run(cancelled).await;
    assert_eq!((run.state, run.jobs.cancelled, run.jobs.open), (RunState::Cancelled, 2, 0));
    let run = reader.run(given_up).await;
    assert_eq!((run.state, run.jobs.cancelled, run.jobs.open), (RunState::Cancelled, 0, 1));
    assert_eq!(reader.number("SELECT count(*) FROM runs WHERE cancelling IS NOT NULL").await, 0);
    reader.sound().await;
}

#[tokio::test]
async fn a_run_that_is_over_is_forgotten_with_its_lines_and_its_jobs_stay() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    let problem = |line: u64| LineProblem {
        line,
        bad: line.is_multiple_of(2),
        path: Some("/data/p".into()),
        op: Some(Op::Add),
        repo: Some("r".to_owned()),
        text: b"\xff".to_vec(),
        message: "no such file".to_owned(),
    };
    let changeset = Changeset { line: 2, repo: None, changeset: "{\"commit\":\"x\"}".to_owned() };
    let mut job = file(id, 1, "1");
    job.listed.as_mut().unwrap().repo = Some("r".to_owned());
    let mut lines = batch(id, 0, vec![job, file(id, 2, "2")]);
    lines.problems = (3..7_003).map(problem).collect();
    lines.changesets = vec![changeset.clone()];
    reader.store.take_lines(lines).await.unwrap();
    reader.store.end_input(id, me()).await.unwrap();
    assert_eq!(reader.store.remove_run(id).await.unwrap(), RunSteered::Refused(RunState::Running));
    let failed = reader.work(1, &failure()).await[0];
    reader.work(1, &Verdict::Complete).await;

    let found = reader.store.failed_lines(Some(id), 2).await.unwrap();
    let facts: Vec<_> = found.iter().map(|line| (line.line, line.job, line.tries, line.error.as_str())).collect();
    assert_eq!(facts, [(1, Some(failed), 1, "exit code 65"), (3, None, 0, "no such file")]);
    assert_eq!(found[0].path.as_deref(), Some(std::path::Path::new("/data/1")));
    assert_eq!(
        (found[1].text.as_deref(), found[1].op, found[1].repo.as_deref()),
        (Some(&b"\xff"[..]), Some(Op::Add), Some("r"))
    );
    assert_eq!(reader.store.failed_lines(None, 9_000).await.unwrap().len(), 7_001);
    assert_eq!(reader.store.changesets(id, 9).await.unwrap(), [changeset]);
    let repos = reader.store.repos(id).await.unwrap();
    assert_eq!(
        repos.iter().map(|repo| (repo.repo.as_deref(), repo.jobs.failed, repo.jobs.completed)).collect::<Vec<_>>(),
        [(None, 0, 1), (Some("r"), 1, 0)]
    );
    let summary = reader.store.run_summary(None).await.unwrap();
    assert_eq!((summary.total, summary.active, summary.ended, summary.successes, summary.errors), (1, 0, 1, 0, 1));
    assert_eq!(summary.last.map(|run| run.id), Some(id));
    assert_eq!(reader.store.run_summary(Some(Timestamp::from_millis(NOW + 1))).await.unwrap(), Default::default());

    let second = reader.begin(named("a")).await;
    reader.store.end_input(second, me()).await.unwrap();
    reader.sound().await;
    assert_eq!(reader.store.remove_run(second).await.unwrap(), RunSteered::Done);
    assert_eq!(reader.store.remove_run(second).await.unwrap(), RunSteered::Unknown);
    assert_eq!(reader.store.prune(Prunable::Runs, Timestamp::from_millis(NOW + 1), 9).await.unwrap(), 1);
    assert_eq!(reader.number("SELECT count(*) + (SELECT count(*) FROM run_changesets) FROM run_lines").await, 0);
    assert_eq!(reader.number("SELECT count(*) FROM jobs").await, 2);
    assert_eq!(reader.store.retry(vec![failed]).await.unwrap(), [Steered::Done]);
    reader.sound().await;
}
