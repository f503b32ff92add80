//! Daemon and processors stand still for longer than a lease.
//!
//! A daemon that stood still has lost its leases: it ends the work under them, and only then somebody begins anew. A
//! processor that stands still costs nothing, because its daemon goes on to renew. Each processor holds a lock for as
//! long as any process of its group lives, so that whoever begins too early is found out by the kernel.

use rustix::process::{Pid, Signal, kill_process_group};

use super::outlast_leases;
use crate::oracle::{Oracle, Record};
use crate::scenario::Scenario;
use crate::seed::Seed;
use crate::support::{Daemon, Place, long, wait_for};

/// Holds the lock of its job for as long as anybody of its group lives. Whoever gets it after another one writes into the
/// ledger that the other is over; whoever does not get it tells on both.
pub const GATE: &str = "exec 9>> \"HERE/lock-$INGESTD_JOB\"\nflock -n 9 || echo $INGESTD_JOB >> HERE/overlaps\n\
     [ -e \"HERE/began-$INGESTD_JOB\" ] && printf 'fault\\tended\\0' >> HERE/oracle\n\
     : > \"HERE/began-$INGESTD_JOB\"\nexec /bin/sh HERE/oracle.sh \"$1\"\n";

#[derive(Clone, Copy, Debug)]
enum Still {
    Daemon,
    Processors,
    Both,
}

#[test]
fn whoever_stands_still_for_longer_than_a_lease_is_over_before_another_begins() {
    let seed = Seed::of("time::suspended");
    let place = Place::new();
    let oracle = Oracle::new(&place.at(""), "sleep 1");
    let here = place.at("").to_str().unwrap().trim_end_matches('/').to_owned();
    std::fs::write(place.at("gate.sh"), GATE.replace("HERE", &here)).unwrap();
    place.configure(
        "[queue]\nlease = \"1s\"\nmax_crashes = 100\n[pipeline.record]\nkind = \"exec\"\nconcurrency = 2\n\
         command = [\"/bin/sh\", \"@PLACE@/gate.sh\", \"{path}\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
         on_success = { move = \"@PLACE@/done\" }\n",
    );
    std::fs::create_dir(place.at("done")).unwrap();
    let scenario = Scenario { place, oracle };
    let (daemon, base) = scenario.at_work();
    let mut freezes = [Still::Daemon, Still::Processors, Still::Both].repeat(if long() { 10 } else { 1 });
    seed.random().shuffle(&mut freezes);
    let mut repeats = 0;
    for (round, still) in freezes.iter().enumerate() {
        for number in 0..4 {
            scenario.arrive(&format!("file-{number}-{round}"));
        }
        let processors = wait_for("two are at work", || Some(at_work(&scenario.oracle)).filter(|two| two.len() >= 2));
        freeze(&daemon, &processors, *still);
        // Each that was at work under a lost lease begins anew; one that began meanwhile may, too.
        repeats += if matches!(still, Still::Processors) { 0 } else { 2 };
        scenario.wait_drained();
    }
    base.wait_back(&daemon, &scenario.place);
    let figures = scenario.oracle.verdict(&scenario.place, repeats);
    scenario.oracle.moved(&scenario.place.inbox(), &scenario.place.at("done"));
    let overlaps = std::fs::read_to_string(scenario.place.at("overlaps")).unwrap_or_default();
    assert_eq!(overlaps, "", "jobs that were at work twice at once");
    seed.report(format!("{} freezes, {figures}", freezes.len()));
}

/// The processors that have begun and not ended.
fn at_work(oracle: &Oracle) -> Vec<u32> {
    let mut open = Vec::new();
    for record in oracle.records() {
        match record {
            Record::Begin(execution) => open.push(execution.pid),
            Record::End(execution) => open.retain(|pid| *pid != execution.pid),
            Record::Fault(_) => open.clear(),
            _ => {}
        }
    }
    open
}

fn freeze(daemon: &Daemon, processors: &[u32], still: Still) {
    let signal = |signal: Signal| {
        if !matches!(still, Still::Processors) {
            daemon.signal(signal);
        }
        if !matches!(still, Still::Daemon) {
            for pid in processors {
                // One that has ended meanwhile needs no signal.
                let _ = kill_process_group(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), signal);
            }
        }
    };
    signal(Signal::STOP);
    outlast_leases();
    signal(Signal::CONT);
}
