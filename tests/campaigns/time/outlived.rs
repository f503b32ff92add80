//! Work that is not over when its lease is: a processor waits for a disk that hangs, and the kernel lets nobody end it.
//!
//! The daemon stands still for longer than the lease, goes on, and kills the processor, which does not die before its
//! disk answers. Until then its job must not begin anew. Each processor holds a lock for as long as it lives, so that
//! whoever begins too early is found out by the kernel.

use rustix::process::Signal;

use super::outlast_leases;
use super::suspended::GATE;
use crate::oracle::Oracle;
use crate::power::Outlet;
use crate::scenario::Scenario;
use crate::seed::Seed;
use crate::support::{Daemon, Place, long, wait_until};

/// The first execution of a job asks the disk.
const ASKS: &str = "[ -e \"HERE/asked-$INGESTD_JOB\" ] || { : > \"HERE/asked-$INGESTD_JOB\"; : < HERE/disk/file; }";

#[test]
fn a_job_does_not_begin_anew_while_its_processor_cannot_be_ended() {
    if !Outlet::is_possible() {
        return;
    }
    let seed = Seed::of("time::outlived");
    let place = Place::new();
    let here = |script: &str| script.replace("HERE", place.at("").to_str().unwrap().trim_end_matches('/'));
    let oracle = Oracle::new(&place.at(""), &here(ASKS));
    std::fs::write(place.at("gate.sh"), here(GATE)).unwrap();
    place.configure(
        "[queue]\nlease = \"1s\"\n[pipeline.record]\nkind = \"exec\"\n\
         command = [\"/bin/sh\", \"@PLACE@/gate.sh\", \"{path}\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
         on_success = { move = \"@PLACE@/done\" }\n",
    );
    std::fs::create_dir(place.at("done")).unwrap();
    let scenario = Scenario { place, oracle };
    let mut outlet = Outlet::new(1, seed.random());
    outlet.on(&[scenario.place.at("disk")], None);
    std::fs::write(scenario.place.at("disk/file"), "").unwrap();
    let overlaps = || std::fs::read_to_string(scenario.place.at("overlaps")).unwrap_or_default();
    let mut daemon = Daemon::start(&scenario.place);
    let rounds = if long() { 10 } else { 1 };
    for round in 1..=rounds {
        outlet.hang();
        scenario.arrive(&format!("file-{round}"));
        wait_until("the processor asks the disk", || outlet.is_awaited());
        daemon.signal(Signal::STOP);
        outlast_leases();
        daemon.signal(Signal::CONT);
        let is_told = || daemon.log().matches("a lease has ended before the work under it").count() == round;
        wait_until("the lease is over", || is_told() || !overlaps().is_empty());
        assert_eq!(overlaps(), "", "jobs that began anew beside themselves");
        outlet.go_on();
        scenario.wait_drained();
    }
    assert_eq!(overlaps(), "", "jobs that began anew beside themselves");
    let figures = scenario.oracle.verdict(&scenario.place, rounds);
    assert_eq!(figures.repeated, rounds, "each was broken off");
    scenario.oracle.moved(&scenario.place.inbox(), &scenario.place.at("done"));
    assert_eq!(daemon.stop(), 0);
    seed.report(format!("{rounds} processors outlived their leases, {figures}"));
}
