use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::job::{Fence, JobError, JobId};

const SECOND: Duration = Duration::from_secs(1);
const BREAKER: config::Breaker = config::Breaker { failures: 2, cooldown: SECOND, max_cooldown: SECOND };

struct Bench {
    clock: Arc<ManualClock>,
    warnings: Warnings,
    throttle: Throttle,
}

fn bench(rate: Option<config::Rate>) -> Bench {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let warnings = Warnings::new(clock.clone());
    let throttle = Throttle::new("hook", BREAKER, rate, clock.clone(), warnings.clone());
    Bench { clock, warnings, throttle }
}

fn rate(jobs: u32, burst: u32) -> config::Rate {
    config::Rate { jobs, period: SECOND, burst }
}

const fn claim(job: i64) -> Claim {
    Claim { job: JobId(job), fence: Fence(1) }
}

fn refused() -> Outcome {
    Outcome::Failed(JobError::transient(ErrorKind::Connection, "refused"))
}

/// Runs a job to this end; answers what it became.
fn run(throttle: &Throttle, job: i64, outcome: Outcome) -> Outcome {
    let execution = throttle.start(claim(job));
    let mut report = Report::of(outcome);
    execution.ended(&mut report, true);
    report.outcome
}

fn open(bench: &Bench) {
    for job in 1..=2 {
        assert_eq!(run(&bench.throttle, job, refused()), refused(), "spent: it is not open yet");
    }
}

fn permits(throttle: &Throttle) -> usize {
    throttle.grant(8, Appetite::Regular).permits
}

#[test]
fn while_it_is_open_one_starts_at_a_time_and_nothing_is_spent() {
    let bench = bench(None);
    let late = bench.throttle.start(claim(9));
    open(&bench);
    let grant = bench.throttle.grant(8, Appetite::Regular);
    assert_eq!(grant, Grant { permits: 0, more_at: Some(bench.clock.boottime().plus(SECOND)) });
    let mut report = Report::of(refused());
    late.ended(&mut report, true);
    assert!(matches!(report.outcome, Outcome::Deferred { after: None, .. }), "{report:?}");
    bench.clock.advance(SECOND);
    for appetite in [Appetite::Regular, Appetite::OneSuspect] {
        assert_eq!(bench.throttle.grant(8, appetite), Grant { permits: 1, more_at: None });
    }
    let probe = bench.throttle.start(claim(3));
    assert_eq!(bench.throttle.grant(8, Appetite::OneSuspect), Grant { permits: 0, more_at: None });
    let mut report = Report::of(refused());
    probe.ended(&mut report, true);
    let Outcome::Deferred { after: Some(after), .. } = report.outcome else { panic!("{report:?}") };
    assert!(after > SECOND, "the next probe is another job");
    bench.clock.advance(SECOND);
    assert_eq!(run(&bench.throttle, 4, Outcome::Done), Outcome::Done);
    assert_eq!(permits(&bench.throttle), 8);
}

#[test]
fn a_warning_shows_while_it_is_open() {
    let bench = bench(None);
    open(&bench);
    let first = bench.warnings.list();
    assert!(first[0].message.contains("connection: refused"), "{first:?}");
    assert!(first[0].message.contains("1970-01-01T00:16:41.000Z"), "the next probe: {first:?}");
    bench.clock.advance(SECOND);
    run(&bench.throttle, 3, refused());
    let second = bench.warnings.list();
    assert_eq!(second[0].since, first[0].since);
    assert!(second[0].message.contains("1970-01-01T00:16:42.000Z"), "{second:?}");
    bench.clock.advance(SECOND);
    run(&bench.throttle, 4, Outcome::Done);
    assert!(bench.warnings.list().is_empty());
    let shown = bench.throttle.breaker().unwrap();
    assert_eq!((shown.state, shown.failures, shown.opened), (BreakerState::Closed, 0, 1));
}

#[test]
fn a_probe_that_never_got_to_its_processor_leaves_its_place() {
    let bench = bench(None);
    open(&bench);
    bench.clock.advance(SECOND);
    let probe = bench.throttle.start(claim(3));
    assert_eq!(permits(&bench.throttle), 0);
    assert_eq!(bench.throttle.breaker().unwrap().state, BreakerState::Probing);
    drop(probe);
    assert_eq!(permits(&bench.throttle), 1);
}

#[test]
fn answers_close_it_and_a_slow_command_is_one() {
    let failed = |kind| Outcome::Failed(JobError::transient(kind, ""));
    for (outcome, calls_out, closes) in [
        (failed(ErrorKind::Exit), false, true),
        (failed(ErrorKind::Timeout), false, true),
        (failed(ErrorKind::Timeout), true, false),
        (failed(ErrorKind::Unreadable), true, false),
    ] {
        let bench = bench(None);
        open(&bench);
        bench.clock.advance(SECOND);
        let mut report = Report::of(outcome.clone());
        bench.throttle.start(claim(3)).ended(&mut report, calls_out);
        assert_eq!(permits(&bench.throttle) == 8, closes, "{outcome:?}");
    }
}

#[test]
fn what_the_other_side_asks_for_is_kept_where_it_is_longer() {
    let bench = bench(None);
    open(&bench);
    bench.clock.advance(SECOND);
    let error = JobError::transient(ErrorKind::Status, "503");
    let asked = Outcome::Deferred { after: Some(SECOND * 60), error };
    let mut report = Report { outcome: asked.clone(), code: Some(503), output: Vec::new() };
    bench.throttle.start(claim(3)).ended(&mut report, true);
    assert_eq!(report.outcome, asked);
    assert_eq!(permits(&bench.throttle), 0, "a 503 is a failure of the destination");
}

#[test]
fn tokens_are_spent_by_starts_and_come_back_by_time_alone() {
    let bench = bench(Some(rate(2, 3)));
    assert_eq!(bench.throttle.grant(8, Appetite::Regular).permits, 3);
    for job in 0..3 {
        drop(bench.throttle.start(claim(job)));
    }
    let half = Duration::from_millis(500);
    let soon = Some(bench.clock.boottime().plus(half));
    assert_eq!(bench.throttle.grant(8, Appetite::Regular), Grant { permits: 0, more_at: soon });
    bench.clock.step_wall(Timestamp::from_millis(1 << 41));
    assert_eq!(permits(&bench.throttle), 0, "a step of the wall clock brings no tokens");
    assert_eq!(bench.throttle.rate().unwrap().tokens, 0);
    bench.clock.advance(half);
    assert_eq!(permits(&bench.throttle), 1);
    assert_eq!(bench.throttle.grant(1, Appetite::Regular), Grant { permits: 1, more_at: None });
}

#[test]
fn a_suspect_borrows_one_token_and_no_second() {
    let bench = bench(Some(rate(1, 1)));
    drop(bench.throttle.start(claim(1)));
    assert_eq!(bench.throttle.grant(1, Appetite::Regular).permits, 0);
    assert_eq!(bench.throttle.grant(1, Appetite::OneSuspect).permits, 1);
    drop(bench.throttle.start(claim(2)));
    assert_eq!(bench.throttle.grant(1, Appetite::OneSuspect).permits, 0);
    bench.clock.advance(SECOND);
    assert_eq!(bench.throttle.grant(1, Appetite::Regular).permits, 0, "what was borrowed comes back first");
}

#[test]
fn a_reload_forgets_neither_an_open_breaker_nor_used_tokens() {
    let old = bench(Some(rate(1, 5)));
    open(&old);
    let new = bench(Some(rate(1, 100)));
    let kept = old.throttle.going_on_as(&new.throttle, true);
    assert_eq!(permits(&kept), 0);
    assert_eq!(kept.rate().unwrap().tokens, 3);
    let running = old.throttle.start(claim(5));
    let elsewhere = kept.going_on_as(&new.throttle, false);
    assert_eq!(permits(&elsewhere), 2, "a new destination starts with a closed breaker, not with new tokens");
    assert!(old.warnings.list().is_empty());
    let mut report = Report::of(refused());
    running.ended(&mut report, true);
    assert_eq!(elsewhere.breaker().unwrap().failures, 0, "what was left says nothing about what is new");
    let free = elsewhere.going_on_as(&bench(None).throttle, true);
    assert_eq!(permits(&free), 8);
}
