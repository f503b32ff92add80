//! Levels and ageing: the order of the queue, and how long a job of a low level can wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ingestd::clock::{Clock, Timestamp};
use ingestd::job::{JobId, Priority, Verdict};
use ingestd::store::sqlite::QueueRules;
use ingestd::store::{Appetite, Lease, NewJob, Queue, Settlement, Want};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::store::{Fixture, RULES, file, id};

const AGING: Duration = RULES.priority_aging;

/// Jobs of one case: level, and due time as a number of quarters of `AGING` from now (so that many are equal, some lie
/// in the future, and some have aged far beyond `high`).
type Jobs = Vec<(Priority, i64)>;
/// Calls of one case: the clock moves by so many quarters, then so many are leased.
type Calls = Vec<(u32, usize)>;

fn cases() -> impl Strategy<Value = (Jobs, Calls, u32)> {
    let level = prop::sample::select(&Priority::ALL[..]);
    let jobs = prop::collection::vec((level, -14..4_i64), 0..40);
    let calls = prop::collection::vec((0..6_u32, 1..12_usize), 1..8);
    // Off, as in `RULES`, and so short that everything has aged.
    (jobs, calls, prop::sample::select(&[0, 1, 600_000][..]))
}

/// What a lease has to take, the plain way: every waiting job that is due, sorted.
fn sorted(waiting: &BTreeMap<JobId, (Priority, Timestamp)>, now: Timestamp, aging: Duration) -> Vec<JobId> {
    let mut due: Vec<_> = waiting.iter().filter(|(_, (_, at))| *at <= now).collect();
    due.sort_by_key(|(id, (level, at))| {
        let waited = now.since(*at).as_millis();
        let rises = waited.checked_div(aging.as_millis()).unwrap_or(0);
        let effective = u128::from(level.number().unsigned_abs());
        let effective = if *level == Priority::Urgent { 4 } else { (effective + rises).min(3) };
        (std::cmp::Reverse(effective), *at, **id)
    });
    due.into_iter().map(|(id, _)| *id).collect()
}

async fn lease(f: &Fixture, pipeline: &str, n: usize) -> Vec<JobId> {
    let wants = vec![Want::single(pipeline, n)];
    f.store.lease(wants, n, Appetite::Regular).await.unwrap().work.iter().map(|(_, work)| work.job).collect()
}

async fn run_case(
    f: &Fixture,
    pipeline: &str,
    jobs: &Jobs,
    calls: &Calls,
    aging: Duration,
) -> Result<(), TestCaseError> {
    f.store.set_rules(QueueRules { priority_aging: aging, ..RULES });
    let (start, quarter) = (f.clock.now(), i64::try_from(AGING.as_millis() / 4).unwrap());
    let at = |quarters: &i64| Timestamp::from_millis(start.as_millis() + quarters * quarter);
    let new = |(i, (priority, quarters)): (usize, &(Priority, i64))| NewJob {
        pipeline: pipeline.to_owned(),
        priority: *priority,
        run_at: Some(at(quarters)),
        ..file(&format!("/{pipeline}/{i}"), 1)
    };
    let answers = f.store.enqueue(jobs.iter().enumerate().map(new).collect()).await.unwrap();
    let facts = jobs.iter().map(|(priority, quarters)| (*priority, at(quarters)));
    let mut waiting: BTreeMap<_, _> = answers.into_iter().map(id).zip(facts).collect();
    for (quarters, n) in calls {
        f.clock.advance(AGING / 4 * *quarters);
        let expected: Vec<JobId> = sorted(&waiting, f.clock.now(), aging).into_iter().take(*n).collect();
        prop_assert_eq!(&lease(f, pipeline, *n).await, &expected);
        waiting.retain(|id, _| !expected.contains(id));
    }
    Ok(())
}

#[test]
fn a_lease_takes_what_sorting_every_waiting_job_would_put_first() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let f = runtime.block_on(Fixture::new());
    let case = AtomicUsize::new(0);
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let run = |(jobs, calls, aging): (Jobs, Calls, u32)| {
        // A pipeline of its own for each case: one database serves them all.
        let pipeline = format!("case-{}", case.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(run_case(&f, &pipeline, &jobs, &calls, Duration::from_millis(u64::from(aging))))
    };
    if let Err(error) = runner.run(&cases(), run) {
        panic!("{error}");
    }
}

/// A pool with so many permits, whose jobs take one step of the clock each.
const PERMITS: usize = 8;
const STEP: Duration = Duration::from_mins(2);
const DAY: u32 = 720;

/// What a day under load came to.
#[derive(Default)]
struct Day {
    /// Low and normal jobs: when due, how many waited then.
    raised: BTreeMap<JobId, (Priority, Timestamp, usize)>,
    /// Every start, in order: when, the job, its level, its due time.
    starts: Vec<(Timestamp, JobId, Priority, Timestamp)>,
    urgent: usize,
}

impl Day {
    /// Each step brings as much high work as the pool can do, and now and then a job of another level.
    async fn live(f: &Fixture) -> Self {
        let mut day = Self::default();
        let (mut running, mut waiting) = (Vec::new(), BTreeMap::new());
        for step in 0..DAY {
            let mut levels = vec![Priority::High; PERMITS];
            for (every, level) in [(5, Priority::Low), (7, Priority::Normal), (9, Priority::Urgent)] {
                levels.extend((step % every == 0).then_some(level));
            }
            let new = |(i, level): (usize, &Priority)| NewJob { priority: *level, ..file(&format!("/{step}/{i}"), 1) };
            let (arrivals, ends) = (levels.iter().enumerate().map(new).collect(), std::mem::take(&mut running));
            let (answers, settled) = tokio::join!(f.store.enqueue(arrivals), f.store.settle(ends));
            assert!(settled.is_ok());
            for (job, level) in answers.unwrap().into_iter().map(id).zip(&levels) {
                day.urgent += usize::from(*level == Priority::Urgent);
                if *level < Priority::High {
                    day.raised.insert(job, (*level, f.clock.now(), waiting.len()));
                }
                waiting.insert(job, (*level, f.clock.now()));
            }
            for (lease, job) in day.start(f, &mut waiting).await {
                running.push(completed(lease, f.clock.now()));
                assert!(!waiting.contains_key(&job));
            }
            f.clock.advance(STEP);
        }
        day
    }

    async fn start(
        &mut self,
        f: &Fixture,
        waiting: &mut BTreeMap<JobId, (Priority, Timestamp)>,
    ) -> Vec<(Lease, JobId)> {
        let wants = vec![Want::single("docs", PERMITS)];
        let leased = f.store.lease(wants, PERMITS, Appetite::Regular).await.unwrap();
        let start = |(lease, work): (Lease, ingestd::store::Work)| {
            let (level, due) = waiting.remove(&work.job).unwrap();
            self.starts.push((f.clock.now(), work.job, level, due));
            (lease, work.job)
        };
        leased.work.into_iter().map(start).collect()
    }

    fn started(&self, level: Priority) -> impl Iterator<Item = &(Timestamp, JobId, Priority, Timestamp)> {
        self.starts.iter().filter(move |start| start.2 == level)
    }
}

fn completed(lease: Lease, now: Timestamp) -> Settlement {
    Settlement {
        lease,
        verdict: Verdict::Complete,
        code: Some(0),
        output: Vec::new(),
        content: None,
        remember: false,
        finished_at: now,
        duration: STEP,
    }
}

#[tokio::test]
async fn through_a_day_flooded_with_high_work_no_low_job_waits_longer_than_the_bound() {
    let f = Fixture::new().await;
    let day = Day::live(&f).await;
    let starts: BTreeMap<JobId, Timestamp> = day.starts.iter().map(|(at, job, ..)| (*job, *at)).collect();
    let end = f.clock.now();
    // One urgent job in nine steps goes before, so nine steps make room for so many others.
    let room = PERMITS * 9 - 1;
    let mut longest = Duration::ZERO;
    for (job, (level, due, ahead)) in &day.raised {
        let rises = u32::try_from(Priority::High.number() - level.number()).unwrap();
        let queue = STEP * u32::try_from((ahead * 9).div_ceil(room) + 2).unwrap();
        let waited = starts.get(job).unwrap_or(&end).since(*due);
        assert!(waited <= AGING * rises + queue, "{level} job {job} waited {waited:?} behind {ahead}");
        longest = longest.max(waited);
    }
    assert!(longest > AGING, "the flood kept low work waiting at all: {longest:?}");
    // FIFO within a level, and `urgent` at once.
    for level in Priority::ALL {
        let order: Vec<_> = day.started(level).map(|(_, job, _, due)| (*due, *job)).collect();
        assert!(order.is_sorted(), "{level} jobs overtook each other");
    }
    assert!(day.started(Priority::Urgent).all(|(at, _, _, due)| at == due), "an urgent job waited");
    assert_eq!(day.started(Priority::Urgent).count(), day.urgent);
}

#[tokio::test]
async fn without_ageing_low_work_starves_under_a_flood_of_high() {
    let f = Fixture::new().await;
    f.store.set_rules(QueueRules { priority_aging: Duration::ZERO, ..RULES });
    let day = Day::live(&f).await;
    assert_eq!(day.started(Priority::Low).count() + day.started(Priority::Normal).count(), 0);
    assert_eq!(day.starts.len(), PERMITS * usize::try_from(DAY).unwrap(), "the pool worked all day");
}
