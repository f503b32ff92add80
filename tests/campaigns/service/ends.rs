//! Ends under load: stopped within the time, killed again and again, the machine shut down, the plug pulled.

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::seed::Seed;
use crate::support::{count, long, wait_for};

fn put_many(service: &Service, round: usize, files: usize) {
    for number in 0..files {
        service.put(&format!("{round}-{number}"));
    }
}

#[test]
fn a_stop_under_load_is_in_time_in_order_and_spends_nothing() {
    if !Machine::is_possible() {
        return;
    }
    // Two run for ever, and are put back when the grace is over.
    let service = Service::installed("[ -e /srv/outside/go ] || sleep 1000", "[shutdown]\ngrace = \"500ms\"\n");
    let rounds = if long() { 10 } else { 2 };
    for round in 0..rounds {
        let _ = fs::remove_file(service.machine.outside().join("go"));
        let begun = service.begun();
        put_many(&service, round, 6);
        wait_until("two run", || service.begun() >= begun + 2);
        service.systemctl(&["stop", "ingestd"]);
        assert_eq!(service.property("Result"), "success", "neither a timeout nor a failing exit");
        assert_eq!((service.property("ExecMainCode"), service.property("ExecMainStatus")), ("1".into(), "0".into()));
        for job in service.jobs().iter().filter(|job| job["state"] != "completed") {
            assert_eq!((count(job, "attempt"), count(job, "crashes")), (0, 0), "{job}");
        }
        fs::write(service.machine.outside().join("go"), "").unwrap();
        service.systemctl(&["start", "ingestd"]);
        service.wait_drained();
    }
    eprintln!("service: {rounds} stops under load; {}", service.verdict(2 * rounds));
}

#[test]
fn a_daemon_that_is_killed_again_and_again_is_started_again_and_again() {
    if !Machine::is_possible() {
        return;
    }
    let seed = Seed::of("service");
    let mut random = seed.random();
    // Each kill may meet the same job, and is none of its doing.
    let service = Service::installed("sleep 0.05", "[queue]\nmax_crashes = 1000\n");
    // Without pauses, so that a limit of starts would be met. (Where control groups are of the old kind, a systemd in a
    // container is not told that a group is empty, and may wait for that as long as for a stop.)
    service.drop_in("at-once", "[Service]\nRestartSec=10ms\nTimeoutStopSec=5s\n");
    let kills = if long() { 100 } else { 10 };
    for kill in 0..kills {
        let begun = service.begun();
        put_many(&service, kill, 4);
        // At work, or wherever chance has it, which is often a start.
        if random.bool() {
            wait_until("some run", || service.begun() > begun);
        }
        std::thread::sleep(std::time::Duration::from_millis(random.u64(0..150)));
        let pid = wait_main(&service);
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        wait_until("it is gone", || !Path::new(&format!("/proc/{pid}")).exists());
    }
    service.wait_active();
    service.wait_drained();
    assert!(service.restarts() >= kills, "systemd gave up: {} restarts", service.restarts());
    let figures = service.verdict(4 * kills);
    seed.report(format_args!("{kills} kills in a row; {figures}"));
}

/// The daemon that runs now, however soon after the last one's end.
fn wait_main(service: &Service) -> u32 {
    wait_for("a daemon runs", || service.machine.find(service.main_pid()))
}

#[test]
fn a_machine_that_goes_down_under_load_comes_up_with_the_whole_queue() {
    if !Machine::is_possible() {
        return;
    }
    let seed = Seed::of("service");
    let mut random = seed.random();
    let mut service = Service::installed("sleep 0.1", "");
    let rounds = if long() { 20 } else { 2 };
    let mut cut = 0;
    for round in 0..rounds {
        let begun = service.begun();
        put_many(&service, round, 8);
        wait_until("some run", || service.begun() > begun);
        // In the quick form once each.
        if if long() { random.bool() } else { round == 0 } {
            service.machine.shut_down();
            let console = service.machine.console();
            assert!(!console.contains("timed out"), "the service held the machine up: {console}");
        } else {
            service.machine.power_off();
            cut += 1;
        }
        service.machine.switch_on();
        service.wait_active();
        service.wait_drained();
    }
    let figures = service.verdict(2 * rounds);
    seed.report(format_args!("{} shut down, {cut} switched off under load; {figures}", rounds - cut));
}
