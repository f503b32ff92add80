//! Kill: SIGKILL at the N-th system call of a kind, for every N until nothing is left to interrupt.
//!
//! 1. A round is a [`Journey`]'s: a traced daemon takes files and rows through everything that happens to them, and is
//!    killed before or after one call. What starts next is killed in its recovery. The last start is not touched.
//! 2. After each round the oracle judges: nothing acknowledged is missing, moved files are in their place once and
//!    whole, no private name is left, no step was taken twice, the database is sound, and what ran again is no more
//!    than what ran at the kills.
//! 3. All rounds are of one place, so that what a kill leaves behind would add up.

mod commands;
mod journey;
mod rewrites;

use self::journey::{Journey, Point};
use crate::base::Base;
use crate::oracle::Figures;
use crate::portion::Portion;
use crate::seed::Seed;
use crate::support::{Daemon, long};
use crate::tracer::{Call, Traced};

/// So many points of each kind beyond those of an untouched round: rounds differ by a few calls.
const BEYOND: usize = 3;
/// Recoveries make about so many calls.
const RECOVERY: usize = 60;

#[test]
fn a_daemon_killed_at_any_call_and_in_its_recovery_loses_nothing() {
    if !Traced::is_possible() {
        return;
    }
    let seed = Seed::of("kill");
    let mut walk = Walk::new(seed.random());
    if long() {
        walk.all();
    } else {
        walk.some();
    }
    let figures = walk.finish();
    seed.report(format!(
        "{} points killed, {} never came, {} in recoveries, {figures}",
        walk.points, walk.untouched, walk.recoveries
    ));
}

/// Rounds, and what they came to.
struct Walk {
    journey: Journey,
    base: Base,
    random: fastrand::Rng,
    totals: Vec<(Call, usize)>,
    points: usize,
    /// Rounds that passed untouched.
    untouched: usize,
    recoveries: usize,
}

impl Walk {
    /// A place whose daemon has worked before, and what a round is made of that nobody interrupts.
    fn new(random: fastrand::Rng) -> Self {
        let mut journey = Journey::new();
        let never = Point { call: None, number: usize::MAX, after: false };
        // The first one also makes the database, which later ones find.
        journey.strike(never);
        let counts = journey.strike(never);
        eprintln!("kill: an untouched round has {:?}, {} in all", counts.calls, counts.all());
        let mut daemon = Daemon::start(journey.place());
        journey.drained();
        let base = Base::of(&daemon, journey.place());
        assert_eq!(daemon.stop(), 0);
        Self {
            journey,
            base,
            random,
            totals: counts.calls.into_iter().collect(),
            points: 0,
            untouched: 0,
            recoveries: 0,
        }
    }

    /// The quick form: each kind of call once, at a point that chance chooses, and names that change on both sides.
    fn some(&mut self) {
        let mut points: Vec<(Call, usize, bool)> =
            self.totals.iter().map(|(call, total)| (*call, *total, self.random.bool())).collect();
        let renames: Vec<_> = points.iter().filter(|(call, ..)| *call == Call::Rename).copied().collect();
        points.extend(renames.into_iter().map(|(call, total, after)| (call, total, !after)));
        self.random.shuffle(&mut points);
        for (call, total, after) in points {
            let point = Point { call: Some(call), number: self.random.usize(1..=total), after };
            let recovery = self.random.usize(1..=RECOVERY);
            self.round(point, recovery);
        }
    }

    /// The long form: every call of every kind, before and after; and every call of a recovery on the way.
    fn all(&mut self) {
        let mut points = Vec::new();
        for &(call, total) in &self.totals {
            for after in [false, true] {
                points.extend((1..=total + BEYOND).map(|number| Point { call: Some(call), number, after }));
            }
        }
        let mut recovery = 1;
        for point in Portion::of("kill", points, &mut self.random) {
            recovery = if self.round(point, recovery) { recovery + 1 } else { 1 };
        }
    }

    /// Kills at a point, then in the recovery, now and then in the recovery of that, then lets it be; answers whether
    /// the points of the recoveries came.
    fn round(&mut self, point: Point, recovery: usize) -> bool {
        let struck = self.journey.strike(point);
        eprintln!("kill: {point}: {:?}", struck.at);
        self.points += struck.acted;
        self.untouched += usize::from(struck.acted == 0);
        let mut struck_again = true;
        for _ in 0..self.random.usize(1..=2) {
            let again = Point { call: None, number: recovery, after: self.random.bool() };
            let counts = self.journey.strike_recovery(again);
            eprintln!("kill: then {again}: {:?}", counts.at);
            self.recoveries += counts.acted;
            struck_again &= counts.acted > 0;
        }
        self.journey.recover();
        struck_again
    }

    /// Nothing has added up: a last daemon is back at the base.
    fn finish(&mut self) -> Figures {
        let mut daemon = Daemon::start(self.journey.place());
        let figures = self.journey.drained();
        self.base.wait_back(&daemon, self.journey.place());
        assert_eq!(daemon.stop(), 0);
        figures
    }
}
