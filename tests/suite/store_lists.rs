//! Runs over lists, as the store promises them, through ends of the daemon at any point.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use ingestd::job::{JobId, Verdict};
use ingestd::run::{InputRead, RunId, RunInput, RunState};
use ingestd::store::{
    Begun, Browse, Enqueued, Holder, JobFilter, Lines, LinesTaken, Listed, Lists, NewJob, NewListRun, RunSteered, Runs,
    Upkeep,
};

use super::store::{Fixture, file};

const BATCH: u64 = 7;

fn reader(n: u64) -> Holder {
    Holder(format!("reader-{n}"))
}

fn list() -> NewListRun {
    NewListRun {
        name: Some("nightly".to_owned()),
        list: "nightly".to_owned(),
        input: RunInput::File { path: "/lists/nightly".into(), read: InputRead::default() },
        pipeline: "docs".to_owned(),
        dry_run: false,
        delete_missing: false,
        holder: reader(0),
    }
}

async fn begin(f: &Fixture) -> RunId {
    match f.store.begin_list(list()).await.unwrap() {
        Begun::Run { id, .. } => id,
        Begun::Active(id) => panic!("run {id} reads"),
    }
}

/// The lines after `after`, each of a file of its own.
fn lines(run: RunId, after: u64, holder: Holder) -> Lines {
    let job = |line: u64| NewJob {
        listed: Some(Box::new(Listed { run, line, repo: None, op: None, content: None })),
        ..file(&format!("/data/{line}"), 1)
    };
    Lines {
        run,
        holder,
        after,
        read: InputRead { lines: after + BATCH, bytes: 8 * (after + BATCH), digest: Some([1; 32]) },
        count: BATCH,
        jobs: (after + 1..=after + BATCH).map(job).collect(),
        problems: Vec::new(),
        changesets: Vec::new(),
        current_path: None,
        rate_per_s: 0.0,
        more_worked: Duration::ZERO,
    }
}

#[tokio::test]
async fn a_list_that_is_broken_off_anywhere_is_taken_line_by_line_once() {
    let mut f = Fixture::new().await;
    let run = begin(&f).await;
    let mut done = BTreeSet::new();
    for turn in 0..12 {
        // Whoever asks did not hear the answer, and asks again after the end of the daemon.
        let asked = lines(run, BATCH * turn, reader(turn));
        let taken = f.store.take_lines(asked.clone()).await.unwrap();
        assert!(matches!(&taken, LinesTaken::All(jobs) if jobs.iter().all(|job| matches!(job, Enqueued::New { .. }))));
        if turn % 2 == 0 {
            f.restart().await;
        }
        let again = f.store.take_lines(asked).await.unwrap();
        assert_eq!(again, LinesTaken::Elsewhere { line: BATCH * (turn + 1) });
        for (lease, work) in f.lease(5).await {
            assert!(done.insert(work.path), "twice");
            f.settle(lease, Verdict::Complete).await;
        }
        // Some are at work at the end.
        drop(f.lease(1).await);
        f.restart().await;
        assert!(f.store.take_over(run, reader(turn), reader(turn + 1)).await.unwrap());
        assert_eq!(f.store.check(true).await.unwrap(), Vec::<String>::new());
    }
    assert!(f.store.end_input(run, reader(12)).await.unwrap());
    loop {
        let leased = f.lease(9).await;
        if leased.is_empty() {
            break;
        }
        for (lease, work) in leased {
            assert!(done.insert(work.path), "twice");
            f.settle(lease, Verdict::Complete).await;
        }
    }
    assert_eq!(done, (1..=BATCH * 12).map(|line| PathBuf::from(format!("/data/{line}"))).collect());
    let run = f.store.run(run).await.unwrap().unwrap();
    assert_eq!((run.state, run.jobs.completed, run.total), (RunState::Completed, BATCH * 12, Some(BATCH * 12)));
    assert_eq!(f.store.check(true).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pause_and_a_cancel_survive_the_end_of_the_daemon() {
    let mut f = Fixture::new().await;
    let run = begin(&f).await;
    f.store.take_lines(lines(run, 0, reader(0))).await.unwrap();
    assert_eq!(f.store.pause_run(run).await.unwrap(), RunSteered::Done);
    assert!(f.lease(9).await.is_empty());
    f.restart().await;
    assert!(f.lease(9).await.is_empty());
    let more = lines(run, BATCH, reader(0));
    assert_eq!(f.store.take_lines(more.clone()).await.unwrap(), LinesTaken::NotRunning(RunState::Paused));
    let changed = f.store.resume_run(run).await.unwrap();
    assert_eq!((changed, f.lease(1).await.len()), (RunSteered::Done, 1));
    assert_eq!(f.store.cancel_run(run).await.unwrap(), RunSteered::Done);
    f.restart().await;
    assert_eq!(f.store.take_lines(more).await.unwrap(), LinesTaken::NotRunning(RunState::Cancelled));
    assert!(f.lease(9).await.len() <= 1, "only the one that was at work waits again, unless that is cancelled, too");
    let all = f.store.jobs(&JobFilter { run: Some(run), ..JobFilter::default() }, None, 99).await.unwrap();
    assert_eq!(all.len() as u64, BATCH);
    assert_eq!(f.store.check(true).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn two_that_begin_one_list_at_once_get_one_run() {
    let f = Fixture::new().await;
    let (one, two) = tokio::join!(f.store.begin_list(list()), f.store.begin_list(list()));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(matches!(one, Begun::Run { id, .. } if two == Begun::Active(id)), "{one:?} {two:?}");
    let (id, other) = (RunId(1), reader(2));
    let (one, two) = tokio::join!(f.store.take_over(id, reader(0), reader(1)), f.store.take_over(id, reader(0), other));
    assert_ne!(one.unwrap(), two.unwrap(), "one of them");
    assert!(f.store.job(JobId(1)).await.unwrap().is_none());
}
