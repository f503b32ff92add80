//! Failing system calls: whatever the disk refuses, nothing is acknowledged that is not kept, and nobody stays stuck.
//!
//! 1. A round is a file's whole journey, with everything around it: files arrive, are added, stand in a list; they are
//!    leased, executed with an effect, moved within a filesystem and to another, settled; then checkpoint, pruning, a
//!    backup. A survey counts which calls it makes on which kinds of files ([`fault`]).
//! 2. At the N-th of them the tracer answers an error in place of the kernel, once or until the fault is lifted.
//! 3. The daemon either goes on, or leaves with a failing exit and a last word; then a restart needs nobody. Stopping
//!    it works while the fault lasts. What was refused is asked for again, as a person would.
//! 4. After each fault the queue drains, and the oracle judges ([`journey`]). Commands without a daemon and the start of
//!    one are broken likewise ([`commands`], [`start`]).

mod commands;
mod fault;
mod journey;
mod start;

use self::fault::{Fate, Fault, How, Kind, every, sample, survey};
use self::journey::Journey;
use crate::portion::Portion;
use crate::seed::Seed;
use crate::support::long;
use crate::tracer::{Call, Traced};

/// A lasting fault at a later number differs little from one before: the long form takes so many steps.
const LATER: usize = 4;

/// The quick form's faults beside those that are certain.
const QUICK: usize = 24;

#[test]
fn a_daemon_outlives_or_survives_every_failing_call() {
    if !Traced::is_possible() {
        return;
    }
    let seed = Seed::of("calls");
    let mut random = seed.random();
    let mut journey = Journey::new();
    journey.start();
    journey.undisturbed();
    let (plan, found) = survey(&journey.here);
    journey.traced().set(plan);
    journey.undisturbed();
    let found = found.lock().unwrap().clone();
    if long() {
        for fault in Portion::of("calls", every(&found, LATER), &mut random) {
            eprintln!("{fault}");
            journey.suffer(&fault, random.bool());
        }
    } else {
        let mut faults = certain(&mut random);
        faults.extend(sample(&found, QUICK, &mut random));
        for fault in faults {
            eprintln!("{fault}");
            journey.suffer(&fault, random.u8(..3) == 0);
        }
    }
    let (figures, table, stopped) = journey.end();
    let by_call = table.by_call();
    eprintln!("{table}");
    let Fate { went_on, left } = table.fates();
    seed.report(format_args!("{by_call}; went on {went_on}, left {left}, stopped meanwhile {stopped}; {figures}"));
}

/// What a disk does that is full, or breaks, met early in a round: these are among the quick form's faults whatever
/// chance brings.
fn certain(random: &mut fastrand::Rng) -> Vec<Fault> {
    let mut fault = |call, kind, how, lasting| Fault { call, kind, how, lasting, number: random.usize(1..=8) };
    vec![
        fault(Call::Pwrite, Kind::Wal, How::Error(libc::ENOSPC), false),
        fault(Call::Pwrite, Kind::Wal, How::Error(libc::ENOSPC), true),
        fault(Call::Fsync, Kind::Wal, How::Error(libc::EIO), false),
        fault(Call::Pwrite, Kind::Wal, How::Short, true),
    ]
}
