//! The wall clock is stepped between two daemons, of which the first was killed or stopped.
//!
//! Both live in one boot of the machine, so `CLOCK_BOOTTIME` tells the second one that the clock was stepped.

use super::{DAY, Steppable, Timed};
use crate::seed::Seed;
use crate::support::{count, long};

#[test]
fn a_step_between_two_daemons_neither_delays_nor_repeats_nor_prunes() {
    let seed = Seed::of("time::restarts");
    let timed = Timed::new("");
    let Some(clock) = Steppable::new(&timed.place) else { return };
    let mut steps = [DAY, -DAY, 400 * DAY, -400 * DAY].repeat(if long() { 5 } else { 1 });
    let mut random = seed.random();
    random.shuffle(&mut steps);
    let (mut shows, mut kills) = (0, 0);
    for (round, step) in steps.iter().enumerate() {
        let mut running = clock.start(&timed.place);
        timed.arrive(&format!("done-{round}"));
        timed.gets_busy(round);
        if random.bool() {
            running.daemon.kill();
            timed.oracle.fault("kill");
            kills += 1;
            timed.let_go(&round.to_string());
        } else {
            timed.let_go(&round.to_string());
            assert_eq!(running.daemon.stop(), 0);
        }
        drop(running);
        shows += step;
        clock.show(shows);
        let _next = clock.start(&timed.place);
        timed.wait_drained();
    }
    // The last daemon looks at what is old, too.
    let _daemon = clock.start(&timed.place);
    timed.arrive("last");
    timed.wait_drained();
    let figures = timed.oracle.verdict(&timed.place, 2 * kills);
    let jobs = timed.place.jobs();
    assert_eq!(jobs.len(), 1 + 9 * steps.len(), "a step pruned");
    assert!(jobs.iter().all(|job| count(job, "attempt") <= 2), "a step spent attempts");
    seed.report(format!("{} steps, {kills} kills, {figures}", steps.len()));
}
