//! The wall clock is stepped while the daemon runs: a day and 400 days, forth and back.

use super::{DAY, Steppable, Timed, outlast_leases};
use crate::base::Base;
use crate::oracle::Word;
use crate::seed::Seed;
use crate::support::{count, long, text};

#[test]
fn a_step_of_the_clock_neither_delays_nor_repeats_nor_prunes() {
    let seed = Seed::of("time::steps");
    let timed = Timed::new("");
    let Some(clock) = Steppable::new(&timed.place) else { return };
    let daemon = clock.start(&timed.place);
    timed.arrive("first");
    timed.wait_drained();
    let base = Base::of(&daemon.daemon, &timed.place);
    let mut steps = [DAY, -DAY, 400 * DAY, -400 * DAY].repeat(if long() { 5 } else { 1 });
    seed.random().shuffle(&mut steps);
    let mut shows = 0;
    for (round, step) in steps.iter().enumerate() {
        timed.gets_busy(round);
        shows += step;
        clock.show(shows);
        outlast_leases();
        timed.let_go(&round.to_string());
        timed.wait_drained();
    }
    base.wait_back(&daemon.daemon, &timed.place);
    let figures = timed.oracle.verdict(&timed.place, 0);
    let jobs = timed.place.jobs();
    assert_eq!(jobs.len(), 1 + 8 * steps.len(), "a step pruned");
    assert!(jobs.iter().all(|job| count(job, "crashes") == 0), "a step expired a lease");
    seed.report(format!("{} steps, {figures}", steps.len()));
}

#[test]
fn what_waits_for_a_date_follows_the_clock_and_what_waits_for_a_while_does_not() {
    let timed = Timed::new("");
    let place = &timed.place;
    let Some(clock) = Steppable::new(place) else { return };
    let _daemon = clock.start(place);
    let add = |name: &str, when: &[&str]| {
        let path = place.at("files").join(name);
        timed.oracle.put(&path, name);
        let path = path.to_str().unwrap().to_owned();
        let output = clock.cli(place, &[&["add", &path], when].concat());
        assert!(matches!(timed.oracle.told(path.as_ref(), &output), Word::Ok(_)), "{output:?}");
        output.ids()[0]
    };
    let (noon, later) = (add("noon", &["--in", "12h"]), add("later", &["--in", "36h"]));
    let again = add("again-1", &[]);
    let due = text(&place.wait_state(again, "retrying"), "run_at").to_owned();
    clock.show(DAY);
    place.wait_state(noon, "completed");
    assert_eq!(text(&place.show(later), "state"), "pending");
    let done = place.wait_state(again, "completed");
    let instant = |date: &str| date.parse::<jiff::Timestamp>().unwrap();
    let moved = instant(text(&done, "run_at")).duration_since(instant(&due)).as_secs();
    // Under a slow machine its time may have come before the step.
    assert!(moved == 0 || (moved - DAY).abs() <= 1, "the second attempt moved by {moved} s: {done}");
    clock.show(-DAY);
    assert_eq!(text(&place.show(later), "state"), "pending");
    clock.show(2 * DAY);
    // The kernel would tell the daemon; here something else has to wake it.
    add("nudge", &[]);
    place.wait_state(later, "completed");
    timed.oracle.verdict(place, 0);
}
