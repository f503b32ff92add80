//! The start of a daemon: the first one, one after a crash, one that migrates.
//!
//! It becomes ready, or leaves with exit 1 and a word. Once nothing fails any more, a start needs nobody.

use std::fs;
use std::path::Path;

use super::commands::is_whole;
use super::fault::{Fault, Here, How, Kind, Survey, Table, nothing, some_or_all, survey};
use super::journey::Journey;
use crate::older;
use crate::seed::Seed;
use crate::support::{Daemon, Place, long, wait_until};
use crate::tracer::{Call, Plan, Traced};

/// Faults that each kind of start meets in the quick form.
const QUICK: usize = 10;

/// Starts a daemon under a plan; answers it when it is ready, and otherwise how it failed.
#[track_caller]
fn start(place: &Place, plan: Plan, what: &str) -> Result<(Daemon, Traced), String> {
    let (mut daemon, traced) = Traced::daemon(place, plan);
    wait_until("the daemon is ready, or has left", || daemon.said("READY=1") > 0 || daemon.exited());
    if daemon.said("READY=1") > 0 {
        return Ok((daemon, traced));
    }
    let (code, log) = (daemon.exit_code(), daemon.log());
    let last = log.lines().last().unwrap_or_default().to_owned();
    assert_eq!(code, 1, "the exit code after {what}: {log}");
    assert!(!log.contains("panicked"), "a panic after {what}: {log}");
    eprintln!("  left: {last}");
    Err(last)
}

fn faults(found: &Survey, random: &mut fastrand::Rng) -> impl Iterator<Item = Fault> {
    // Whatever chance brings: a new database on its way to having a log.
    let (call, kind, how) = (Call::Fsync, Kind::Database, How::Error(libc::EIO));
    some_or_all(found, QUICK, random).chain([Fault { call, kind, how, lasting: true, number: 2 }])
}

/// Meets every fault of a survey by a start in a place that `prepare` made.
fn starts(prepare: impl Fn() -> Place, random: &mut fastrand::Rng, table: &mut Table, sound: impl Fn(&Place)) {
    let here = |place: &Place| Here { place: place.at("").canonicalize().unwrap(), far: "/nowhere".into() };
    let place = prepare();
    let (plan, found) = survey(&here(&place));
    drop(start(&place, plan, "nothing").unwrap());
    let found = found.lock().unwrap().clone();
    for fault in faults(&found, random) {
        eprintln!("{fault}");
        let place = prepare();
        let (plan, what) = (fault.plan(&here(&place)), fault.to_string());
        let (met, left) = match start(&place, plan, &what) {
            Ok((mut daemon, traced)) => {
                let met = traced.counts().acted > 0;
                traced.set(nothing());
                // The fault may meet it when it was ready, too.
                let left = daemon.exited();
                let code = if left { daemon.exit_code() } else { daemon.stop() };
                let log = daemon.log();
                let last = log.lines().last().unwrap_or_default();
                assert!(code == 0 || (code == 1 && met && last.starts_with("ingestd: ")), "{code}: {log}");
                (met, code == 1)
            }
            Err(last) => {
                assert!(fault.kind == Kind::Messages || last.starts_with("ingestd: "), "no last word: {last}");
                (true, true)
            }
        };
        let mut daemon = Daemon::start(&place);
        place.ok(&["kv", "set", "a", "b"]);
        place.ok(&["db", "check"]);
        sound(&place);
        assert_eq!(daemon.stop(), 0);
        if met {
            table.note(&fault, left);
        }
    }
}

#[test]
fn a_first_start_and_a_migration_that_fail_are_done_again() {
    if !Traced::is_possible() {
        return;
    }
    let seed = Seed::of("calls");
    let (mut random, mut table) = (seed.random(), Table::default());
    let pipeline = "[pipeline.p]\nkind = \"noop\"\n";
    starts(|| Place::with(pipeline), &mut random, &mut table, |_| {});

    let older = Place::with_database(pipeline);
    let file = older.file("file", "content");
    older.add(&file, &[]);
    older::take_back(&older.database());
    let prepare = || {
        let place = Place::with(pipeline);
        fs::create_dir(place.at("state")).unwrap();
        fs::copy(older.database(), place.database()).unwrap();
        place
    };
    starts(prepare, &mut random, &mut table, |place| {
        assert_eq!(place.jobs().len(), 1, "the job is still there");
        all_whole(&place.at("state/backups"));
    });
    let fates = table.fates();
    if long() {
        eprintln!("{table}");
    }
    seed.report(format_args!("starts: {}; ready {}, left {}", table.by_call(), fates.went_on, fates.left));
}

/// What has a backup's name is one.
#[track_caller]
fn all_whole(backups: &Path) {
    let backups: Vec<_> = fs::read_dir(backups).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!backups.is_empty(), "there is a backup from before the migration");
    let broken: Vec<_> = backups.iter().filter(|backup| !is_whole(backup)).collect();
    assert!(broken.is_empty(), "half a backup: {broken:?}");
}

#[test]
fn a_start_after_a_crash_that_fails_is_done_again() {
    if !Traced::is_possible() {
        return;
    }
    let seed = Seed::of("calls");
    let (mut random, mut table) = (seed.random(), Table::default());
    let mut journey = Journey::new();
    journey.start();
    journey.crash();
    let (plan, found) = survey(&journey.here);
    drop(start(&journey.place, plan, "nothing").unwrap());
    let found = found.lock().unwrap().clone();
    for fault in faults(&found, &mut random) {
        eprintln!("{fault}");
        let plan = fault.plan(&journey.here);
        match start(&journey.place, plan, &fault.to_string()) {
            Ok((mut daemon, traced)) => {
                if traced.counts().acted > 0 {
                    table.note(&fault, false);
                }
                journey.arrive();
                daemon.kill();
                journey.crashed();
            }
            Err(last) => {
                assert!(fault.kind == Kind::Messages || last.starts_with("ingestd: "), "no last word: {last}");
                table.note(&fault, true);
                journey.oracle.fault(&fault.to_string());
            }
        }
    }
    journey.start();
    journey.work_off();
    journey.undisturbed();
    let (figures, ..) = journey.end();
    let fates = table.fates();
    if long() {
        eprintln!("{table}");
    }
    let (calls, ready, left) = (table.by_call(), fates.went_on, fates.left);
    seed.report(format_args!("starts after a crash: {calls}; ready {ready}, left {left}; {figures}"));
}
