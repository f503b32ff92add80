//! Runs over lists on a real file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::super::SqliteStore;
use super::super::fixture::{self, NOW};
use crate::clock::Timestamp;
use crate::job::{Digest, ErrorKind, FileIdentity, JobError, JobId, Op, Priority, SourceKey, StateName, Verdict};
use crate::run::{InputRead, Run, RunId, RunInput, RunState, RunType};
use crate::store::{
    Appetite, Backlog as _, Begun, Browse as _, Changeset, Enqueued, Holder, JobFilter, LineProblem, Lines, LinesTaken,
    Listed, Lists as _, MissingStep, NewJob, NewListRun, Prunable, Queue as _, RunSteered, Runs as _, Settlement,
    Steered, Steering as _, Upkeep as _, Want,
};

/// Reads the lists of a store.
struct Reader {
    store: Arc<SqliteStore>,
    _dir: TempDir,
}

fn me() -> Holder {
    Holder("me".to_owned())
}

/// Of another content.
fn digest() -> Digest {
    let mut bytes = vec![1];
    bytes.extend([1; 32]);
    Digest::from_bytes(&bytes).unwrap()
}

fn named(name: &str) -> NewListRun {
    NewListRun {
        name: Some(name.to_owned()),
        list: name.to_owned(),
        input: RunInput::Stdin { read: InputRead::default() },
        pipeline: "documents".to_owned(),
        dry_run: false,
        delete_missing: false,
        holder: me(),
    }
}

fn file(run: RunId, line: u64, name: &str) -> NewJob {
    let inode = name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)) % 1_000_000_007 + 1;
    NewJob {
        source: SourceKey::Path(PathBuf::from("/data").join(name)),
        pipeline: "documents".to_owned(),
        priority: Priority::Normal,
        run_at: None,
        identity: FileIdentity { dev: 1, inode, size: 3, mtime_ns: 4, ctime_ns: 5 },
        digest: None,
        metadata: None,
        force: false,
        note_only: false,
        renamed: None,
        listed: Some(Box::new(Listed { run, line, repo: None, op: None, content: None })),
    }
}

fn delete(run: RunId, line: u64, name: &str) -> NewJob {
    let mut job = file(run, line, name);
    job.identity = FileIdentity::default();
    job.listed.as_mut().unwrap().op = Some(Op::Delete);
    job
}

fn batch(run: RunId, after: u64, jobs: Vec<NewJob>) -> Lines {
    let count = u64::try_from(jobs.len()).unwrap();
    Lines {
        run,
        holder: me(),
        after,
        read: InputRead { lines: after + count, bytes: 10 * (after + count), digest: Some([7; 32]) },
        count,
        jobs,
        problems: Vec::new(),
        changesets: Vec::new(),
        current_path: None,
        rate_per_s: 1.0,
        more_worked: Duration::from_millis(5),
    }
}

impl Reader {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        store.begin_boot(1, "test").await.unwrap();
        Self { store, _dir: dir }
    }

    async fn begin(&self, new: NewListRun) -> RunId {
        match self.store.begin_list(new).await.unwrap() {
            Begun::Run { id, .. } => id,
            Begun::Active(id) => panic!("run {id} reads"),
        }
    }

    async fn run(&self, id: RunId) -> Run {
        self.store.run(id).await.unwrap().unwrap()
    }

    /// Takes files, a line each, where the run stands.
    async fn take(&self, id: RunId, names: &[&str]) -> Vec<Enqueued> {
        let after = self.run(id).await.position;
        let jobs = (after + 1..).zip(names).map(|(line, name)| match name.strip_prefix('-') {
            Some(gone) => delete(id, line, gone),
            None => file(id, line, name),
        });
        match self.store.take_lines(batch(id, after, jobs.collect())).await.unwrap() {
            LinesTaken::All(answers) => answers,
            other => panic!("{other:?}"),
        }
    }

    /// Works on at most so many jobs of a pipeline.
    async fn work(&self, most: usize, verdict: &Verdict) -> Vec<JobId> {
        let wants = vec![Want::single("documents", most)];
        let leased = self.store.lease(wants, most, Appetite::Regular).await.unwrap().work;
        let ids = leased.iter().map(|(_, work)| work.job).collect();
        let ends = leased.into_iter().map(|(lease, _)| Settlement {
            lease,
            verdict: verdict.clone(),
            code: None,
            output: Vec::new(),
            content: None,
            remember: false,
            finished_at: Timestamp::from_millis(NOW),
            duration: Duration::from_millis(1),
        });
        self.store.settle(ends.collect()).await.unwrap();
        ids
    }

    async fn sound(&self) {
        assert_eq!(self.store.check(true).await.unwrap(), Vec::<String>::new());
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.store.readers()).await.unwrap()
    }
}

fn failure() -> Verdict {
    Verdict::Fail { error: JobError::permanent(ErrorKind::Exit, "exit code 65") }
}

fn new_jobs(answers: &[Enqueued]) -> usize {
    answers.iter().filter(|answer| matches!(answer, Enqueued::New { .. })).count()
}

#[tokio::test]
async fn the_first_run_of_a_list_that_is_read_to_its_end_is_the_initial_one_even_after_it_was_pruned() {
    let reader = Reader::new().await;
    let dry = NewListRun { dry_run: true, ..named("a") };
    let mut types = Vec::new();
    for new in [named("a"), dry, named("a"), named("a"), named("b")] {
        let Begun::Run { id, run_type } = reader.store.begin_list(new.clone()).await.unwrap() else { panic!() };
        types.push(run_type);
        if types.len() == 1 {
            // Never read to its end.
            reader.store.cancel_run(id).await.unwrap();
            assert!(!reader.store.end_input(id, me()).await.unwrap());
        } else {
            assert!(reader.store.end_input(id, me()).await.unwrap());
            assert_eq!(reader.run(id).await.state, RunState::Completed);
        }
        let never = Timestamp::from_millis(i64::MAX);
        assert_eq!(reader.store.prune(Prunable::Runs, never, 9).await.unwrap(), 1);
    }
    let (initial, incremental) = (RunType::Initial, RunType::Incremental);
    assert_eq!(types, [initial, initial, initial, incremental, initial]);
}

#[tokio::test]
async fn one_run_of_a_list_is_read_at_a_time_and_any_number_of_nameless_inputs() {
    let reader = Reader::new().await;
    let first = reader.begin(named("a")).await;
    assert_eq!(reader.store.begin_list(named("a")).await.unwrap(), Begun::Active(first));
    reader.store.pause_run(first).await.unwrap();
    assert_eq!(reader.store.begin_list(named("a")).await.unwrap(), Begun::Active(first));
    let input = RunInput::File { path: "/l".into(), read: InputRead::default() };
    let of_file = NewListRun { name: None, list: "file:/l".to_owned(), input, ..named("a") };
    let second = reader.begin(of_file.clone()).await;
    assert_eq!(reader.store.begin_list(of_file).await.unwrap(), Begun::Active(second));
    let nameless = NewListRun { name: None, list: "stdin".to_owned(), ..named("a") };
    let third = reader.begin(nameless.clone()).await;
    let fourth = reader.begin(nameless).await;
    let found = reader.store.unfinished("stdin".to_owned()).await.unwrap();
    assert_eq!(found.iter().map(|found| found.run.id).collect::<Vec<_>>(), [fourth, third]);
    // A watch may have the name of a list.
    let scan = crate::store::ScanToRun {
        watch: "a".to_owned(),
        root: "/srv/inbox".into(),
        pipeline: "documents".to_owned(),
        run_type: RunType::Recovery,
    };
    assert!(!reader.store.begin_scan(scan.clone()).await.unwrap().goes_on);
    assert!(reader.store.begin_scan(scan).await.unwrap().goes_on);
    assert_eq!(reader.store.cancel_scans_but(Vec::new()).await.unwrap(), 1);
    assert_eq!(reader.run(first).await.state, RunState::Paused);
}

#[tokio::test]
async fn a_run_changes_hands_only_from_the_one_that_was_seen_and_goes_on_running() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    reader.take(id, &["1"]).await;
    let (one, two) = (Holder("one".to_owned()), Holder("two".to_owned()));
    assert!(!reader.store.take_over(id, one.clone(), two.clone()).await.unwrap());
    reader.store.pause_run(id).await.unwrap();
    assert!(reader.store.take_over(id, me(), one.clone()).await.unwrap());
    assert!(!reader.store.take_over(id, me(), two).await.unwrap());
    assert_eq!(reader.run(id).await.state, RunState::Running);
    let lines = batch(id, 1, vec![file(id, 2, "2")]);
    assert_eq!(reader.store.take_lines(lines.clone()).await.unwrap(), LinesTaken::TakenOver);
    assert!(!reader.store.end_input(id, me()).await.unwrap());
    let found = reader.store.unfinished_run(id).await.unwrap().unwrap();
    assert_eq!((found.holder, found.run.position), (one.clone(), 1));
    let lines = Lines { holder: one.clone(), ..lines };
    assert!(matches!(reader.store.take_lines(lines).await.unwrap(), LinesTaken::All(_)));
    assert!(reader.store.end_input(id, one).await.unwrap());
    assert!(reader.store.unfinished_run(id).await.unwrap().is_none());
}

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
            let whose = super::super::recover::Whose::DeadBoots { but: 1 };
            Box::pin(super::super::recover::take_back(tx, whose, 5, clock, tally))
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
