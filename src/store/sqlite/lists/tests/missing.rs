//! What a list no longer names.

use super::*;

#[tokio::test]
async fn a_list_that_names_nothing_that_is_there_deletes_nothing() {
    let reader = Reader::new().await;
    let first = reader.begin(named("a")).await;
    reader.take(first, &["1", "2"]).await;
    reader.store.end_input(first, me()).await.unwrap();
    let second = reader.begin(NewListRun { delete_missing: true, ..named("a") }).await;
    let changeset = Changeset { line: 1, repo: None, changeset: "{}".to_owned() };
    let lines = Lines { changesets: vec![changeset], count: 1, ..batch(second, 0, Vec::new()) };
    assert!(matches!(reader.store.take_lines(lines).await.unwrap(), LinesTaken::All(_)));
    let refused = reader.store.delete_missing(second, me(), 9).await.unwrap_err();
    assert!(refused.to_string().contains("names nothing that is there"), "{refused}");
    assert_eq!(reader.number("SELECT count(*) FROM jobs WHERE op = 'delete'").await, 0);
}

#[tokio::test]
async fn what_a_list_no_longer_names_becomes_a_delete_once() {
    let reader = Reader::new().await;
    let first = reader.begin(named("a")).await;
    reader.take(first, &["1", "2", "3", "4", "-5"]).await;
    reader.store.end_input(first, me()).await.unwrap();
    let other = reader.begin(named("b")).await;
    reader.take(other, &["3"]).await;
    reader.store.end_input(other, me()).await.unwrap();
    let second = reader.begin(NewListRun { delete_missing: true, ..named("a") }).await;
    let refused = reader.store.delete_missing(second, me(), 1).await.unwrap_err();
    assert!(refused.to_string().contains("the list is empty"), "{refused}");
    reader.take(second, &["1"]).await;
    let mut steps = Vec::new();
    loop {
        match reader.store.delete_missing(second, me(), 2).await.unwrap() {
            MissingStep::More(n) => steps.push(n),
            end => break assert_eq!(end, MissingStep::Over),
        }
    }
    // 2 and 4; 3 is another list's by now, and of 5 a delete is the newest.
    assert_eq!(steps.iter().sum::<u64>(), 2, "{steps:?}");
    reader.store.end_input(second, me()).await.unwrap();
    let run = reader.run(second).await;
    assert_eq!((run.enqueued, run.skipped, run.jobs.open), (2, 1, 2));
    let jobs = reader.store.jobs(&JobFilter { run: Some(second), ..JobFilter::default() }, None, 9).await.unwrap();
    let paths: Vec<_> = jobs.iter().map(|job| (job.path.display().to_string(), job.op, job.line)).collect();
    assert_eq!(paths, [("/data/4".to_owned(), Op::Delete, None), ("/data/2".to_owned(), Op::Delete, None)]);
    let third = reader.begin(NewListRun { delete_missing: true, ..named("a") }).await;
    reader.take(third, &["1"]).await;
    assert_eq!(reader.store.delete_missing(third, me(), 9).await.unwrap(), MissingStep::Over);
    assert_eq!(new_jobs(&reader.take(third, &["2"]).await), 1, "it is there again");
    reader.sound().await;
}
