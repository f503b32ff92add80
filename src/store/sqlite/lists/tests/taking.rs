//! What becomes of lines.

use super::*;

#[tokio::test]
async fn a_batch_that_is_handed_over_twice_is_taken_once() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    let lines = batch(id, 0, vec![file(id, 1, "1"), file(id, 2, "2")]);
    for expected in [2, 0] {
        match reader.store.take_lines(lines.clone()).await.unwrap() {
            LinesTaken::All(answers) => assert_eq!(new_jobs(&answers), expected),
            other => assert_eq!((other, expected), (LinesTaken::Elsewhere { line: 2 }, 0)),
        }
    }
    let ahead = batch(id, 9, vec![file(id, 10, "10")]);
    assert_eq!(reader.store.take_lines(ahead).await.unwrap(), LinesTaken::Elsewhere { line: 2 });
    let run = reader.run(id).await;
    assert_eq!((run.position, run.processed, run.enqueued, run.batch, run.jobs.open), (2, 2, 2, 1, 2));
    let RunInput::Stdin { read } = run.input else { panic!() };
    assert_eq!(read, InputRead { lines: 2, bytes: 20, digest: Some([7; 32]) });
    reader.sound().await;
}

#[tokio::test]
async fn lines_are_jobs_with_what_the_line_says() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    let mut job = file(id, 7, "x");
    let content = PathBuf::from("/state/content/1-7/x");
    job.metadata = Some("{\"a\":1}".to_owned());
    let listed = Listed { run: id, line: 7, repo: Some("r".into()), op: Some(Op::Modify), content: Some(content) };
    job.listed = Some(Box::new(listed));
    let LinesTaken::All(answers) = reader.store.take_lines(batch(id, 0, vec![job])).await.unwrap() else { panic!() };
    let Enqueued::New { id: job, version: 1 } = answers[0] else { panic!("{answers:?}") };
    let job = reader.store.job(job).await.unwrap().unwrap();
    assert_eq!((job.run, job.line, job.repo.as_deref(), job.op), (Some(id), Some(7), Some("r"), Op::Modify));
    assert_eq!(job.content.as_deref(), Some(std::path::Path::new("/state/content/1-7/x")));
    assert_eq!(job.metadata.as_deref(), Some("{\"a\":1}"));
}

#[tokio::test]
async fn a_batch_of_which_one_line_needs_its_digest_or_room_leaves_nothing_behind() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    reader.take(id, &["known"]).await;
    reader.work(1, &Verdict::Complete).await;
    let mut changed = file(id, 3, "known");
    changed.identity.size = 9;
    // "new" stands in it twice, so that a first round is written before the digest is asked for.
    let mut again = delete(id, 4, "new");
    again.listed.as_mut().unwrap().line = 5;
    let jobs = vec![file(id, 2, "new"), again, changed.clone(), changed.clone()];
    let state =
        "SELECT count(*) + (SELECT count(*) FROM jobs) * 100 + (SELECT sum(n) FROM counters) * 10000 FROM sources";
    let before = reader.number(state).await;
    let lines = batch(id, 1, jobs.clone());
    assert_eq!(reader.store.take_lines(lines.clone()).await.unwrap(), LinesTaken::NeedDigests(vec![2, 3]));
    assert_eq!(reader.number(state).await, before);
    reader.store.set_max_pending(Some(1));
    let mut digested = lines;
    for job in &mut digested.jobs[2..] {
        job.digest = Some(digest());
    }
    assert_eq!(reader.store.take_lines(digested.clone()).await.unwrap(), LinesTaken::Full { room: 1 });
    assert_eq!(reader.number(state).await, before);
    assert_eq!(reader.run(id).await.position, 1);
    reader.store.set_max_pending(None);
    let LinesTaken::All(answers) = reader.store.take_lines(digested).await.unwrap() else { panic!() };
    assert_eq!(new_jobs(&answers), 3, "{answers:?}");
    let run = reader.run(id).await;
    assert_eq!((run.enqueued, run.skipped, run.duplicates, run.position), (4, 1, 1, 5));
    reader.sound().await;
}

#[tokio::test]
async fn a_line_whose_source_the_run_named_before_is_a_duplicate_and_one_of_another_run_is_known() {
    let reader = Reader::new().await;
    let first = reader.begin(named("a")).await;
    assert_eq!(new_jobs(&reader.take(first, &["1", "1", "2"]).await), 2);
    assert_eq!(new_jobs(&reader.take(first, &["2", "3", "3"]).await), 1);
    let run = reader.run(first).await;
    assert_eq!((run.enqueued, run.skipped, run.duplicates), (3, 3, 3));
    reader.store.end_input(first, me()).await.unwrap();
    let second = reader.begin(named("a")).await;
    let answers = reader.take(second, &["1", "1", "4"]).await;
    assert!(matches!(answers[0], Enqueued::Known { state: StateName::Pending, .. }), "{answers:?}");
    reader.take(second, &["1"]).await;
    let run = reader.run(second).await;
    assert_eq!((run.enqueued, run.skipped, run.duplicates, run.jobs.open), (1, 3, 2, 1));
    reader.sound().await;
}

#[tokio::test]
async fn a_delete_is_a_job_unless_it_is_the_newest_and_what_comes_back_is_new() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    // A source that nobody has heard of, and one that waits.
    let answers = reader.take(id, &["-gone", "here", "-here", "-here", "here", "-gone"]).await;
    assert_eq!(new_jobs(&answers), 4, "{answers:?}");
    assert!(matches!(answers[3], Enqueued::Known { .. }) && matches!(answers[5], Enqueued::Known { .. }));
    assert_eq!(reader.run(id).await.jobs.skipped, 2, "each took the place of the one before it");
    reader.sound().await;
    assert_eq!(reader.work(9, &Verdict::Complete).await.len(), 2);
    let job = reader.store.jobs(&JobFilter::default(), None, 9).await.unwrap();
    let ops: Vec<(i64, Op)> = job.iter().rev().map(|job| (job.version, job.op)).collect();
    assert_eq!(ops, [(1, Op::Delete), (1, Op::Add), (2, Op::Delete), (3, Op::Add)]);
    // Also when nothing but the knowledge of it is left, and from another pipeline.
    reader.store.prune(Prunable::Jobs(StateName::Completed), Timestamp::from_millis(i64::MAX), 9).await.unwrap();
    assert_eq!(new_jobs(&reader.take(id, &["-gone", "here"]).await), 0);
    assert_eq!(new_jobs(&reader.take(id, &["gone"]).await), 1);
    let mut elsewhere = delete(id, 10, "here");
    elsewhere.pipeline = "hook".to_owned();
    let LinesTaken::All(answers) = reader.store.take_lines(batch(id, 9, vec![elsewhere])).await.unwrap() else {
        panic!()
    };
    assert_eq!(new_jobs(&answers), 1);
    assert_eq!(new_jobs(&reader.take(id, &["-here"]).await), 1);
    assert_eq!(new_jobs(&reader.take(id, &["-here"]).await), 0);
    reader.sound().await;
}

#[tokio::test]
async fn what_a_dry_run_takes_is_only_counted() {
    let reader = Reader::new().await;
    let id = reader.begin(NewListRun { dry_run: true, ..named("a") }).await;
    let problem = LineProblem {
        line: 3,
        bad: true,
        path: None,
        op: None,
        repo: None,
        text: b"{".to_vec(),
        message: "no JSON".to_owned(),
    };
    let lines = Lines { problems: vec![problem], ..batch(id, 0, vec![file(id, 1, "1"), file(id, 2, "2")]) };
    let LinesTaken::All(answers) = reader.store.take_lines(lines).await.unwrap() else { panic!() };
    assert_eq!(new_jobs(&answers), 2);
    assert_eq!(reader.number("SELECT count(*) + (SELECT count(*) FROM sources) FROM jobs").await, 0);
    assert_eq!(reader.number("SELECT coalesce(sum(n), 0) FROM counters").await, 0);
    reader.store.end_input(id, me()).await.unwrap();
    let run = reader.run(id).await;
    assert_eq!((run.state, run.enqueued, run.bad_lines, run.jobs.open), (RunState::Failed, 2, 1, 0));
    assert_eq!(reader.store.failed_lines(Some(id), 9).await.unwrap().len(), 1);
    // The numbers that it gave out are given out again.
    let id = reader.begin(named("a")).await;
    assert_eq!(reader.take(id, &["1"]).await, [Enqueued::New { id: JobId(1), version: 1 }]);
    reader.sound().await;
}

#[tokio::test]
async fn of_lines_about_one_key_the_last_one_counts_however_they_are_batched() {
    let reader = Reader::new().await;
    let keyed = |mut job: NewJob, key: &str| {
        let SourceKey::Path(path) = job.source else { panic!() };
        job.source = SourceKey::Keyed { key: key.to_owned(), path };
        job.digest = Some(digest());
        job
    };
    let of = |id: RunId| {
        let mut other = keyed(file(id, 5, "f5"), "L");
        other.digest = Some(Digest::from_bytes(&[[1].as_slice(), &[2; 32]].concat()).unwrap());
        vec![
            keyed(file(id, 1, "f4"), "K"),
            keyed(delete(id, 2, "f4"), "K"),
            keyed(file(id, 3, "f4"), "K"),
            keyed(file(id, 4, "f4"), "L"),
            other,
            keyed(file(id, 6, "f4"), "L"),
        ]
    };
    let id = reader.begin(named("a")).await;
    let LinesTaken::All(answers) = reader.store.take_lines(batch(id, 0, of(id))).await.unwrap() else { panic!() };
    assert_eq!(new_jobs(&answers), 6, "{answers:?}");
    let left = JobFilter { states: vec![StateName::Pending], ..JobFilter::default() };
    let left = reader.store.jobs(&left, None, 9).await.unwrap();
    let left: Vec<_> = left.iter().map(|job| (job.id.0, job.op, job.version)).collect();
    assert_eq!(left, [(6, Op::Modify, 3), (5, Op::Add, 3)]);
    reader.sound().await;
}
