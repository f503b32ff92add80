//! The watchdog: a daemon that is stopped, or one part of it that hangs, is killed and started anew; one that waits
//! for somebody else's lock is neither.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::support::{has_tools, long, text};

/// The unit's watchdog, thirty times as impatient.
const IMPATIENT: &str = "[Service]\nWatchdogSec=3s\nTimeoutAbortSec=10s\n";

fn impatient(then: &str, more: &str) -> Service {
    let service = Service::installed(then, more);
    service.drop_in("impatient", IMPATIENT);
    service.systemctl(&["restart", "ingestd"]);
    service
}

/// Waits until the daemon that is stuck was killed, and for its successor.
#[track_caller]
fn wait_restarted(service: &Service, stuck: u32, restarts: usize) {
    wait_until("the stuck daemon is gone", || !Path::new(&format!("/proc/{stuck}")).exists());
    wait_until("systemd starts another one", || service.restarts() > restarts);
    service.wait_active();
}

fn bitten(line: &Value) -> bool {
    text(line, "MESSAGE").contains("Watchdog timeout")
}

#[test]
fn a_stopped_daemon_is_killed_by_the_watchdog_and_the_queue_goes_on() {
    if !Machine::is_possible() {
        return;
    }
    let service = impatient("sleep 0.1", "");
    let rounds = if long() { 10 } else { 1 };
    for round in 0..rounds {
        let begun = service.begun();
        for number in 0..8 {
            service.put(&format!("{round}-{number}"));
        }
        wait_until("some run", || service.begun() > begun + 1);
        let (stuck, restarts) = (service.machine.outer_pid(service.main_pid()), service.restarts());
        kill_process(Pid::from_raw(i32::try_from(stuck).unwrap()).unwrap(), Signal::STOP).unwrap();
        wait_restarted(&service, stuck, restarts);
        service.wait_drained();
    }
    assert!(service.journal().iter().any(bitten), "it was the watchdog");
    // What ran when it was killed, two at a time, runs again.
    let figures = service.verdict(2 * rounds);
    eprintln!("service: {rounds} stopped daemons restarted; {figures}");
}

/// Lets every sync of a process hang until it is dropped, as a disk does that answers no more.
struct HungDisk(Child);

impl HungDisk {
    fn under(pid: u32) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=600s"]);
        command.args(["-o", "/dev/null", "-p", &pid.to_string()]);
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        wait_until("the daemon is traced", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|by| by.trim() != "0"))
        });
        Self(child)
    }
}

impl Drop for HungDisk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_part_that_hangs_starves_the_watchdog_though_the_others_live() {
    if !Machine::is_possible() || !has_tools(&["strace"]) {
        return;
    }
    let service = impatient("", "");
    service.put("before");
    service.wait_drained();
    let (stuck, restarts) = (service.machine.outer_pid(service.main_pid()), service.restarts());
    let hung = HungDisk::under(stuck);
    service.put("meanwhile");
    wait_until("the watchdog bites", || service.journal().iter().any(bitten));
    // A tracer holds what is dead.
    drop(hung);
    wait_restarted(&service, stuck, restarts);
    service.wait_drained();
    let named = |line: &Value| {
        text(line, "MESSAGE").contains("no sign of life") && text(line, "INGESTD_PARTS").contains("writer")
    };
    assert!(service.journal().iter().any(named), "the part that hangs is named");
    let dumped = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("core");
    let state = fs::read_dir(service.machine.path("/var/lib/ingestd")).unwrap();
    assert!(!state.flatten().any(dumped), "no image of the memory, with its secrets, is left");
    eprintln!("service: a hung writer restarted; {}", service.verdict(2));
}

#[test]
fn a_foreign_lock_that_outlasts_the_watchdog_restarts_nothing() {
    if !Machine::is_possible() {
        return;
    }
    // In the unit's proportion: 30 s of 90 s.
    let service = impatient("", "[database]\nbusy_timeout = \"1s\"\n");
    service.put("before");
    service.wait_drained();
    let pid = service.main_pid();
    let other = rusqlite::Connection::open(service.machine.path("/var/lib/ingestd/ingestd.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    service.put("meanwhile");
    let fed = || service.property("WatchdogTimestampMonotonic").parse::<u64>().unwrap();
    let first = fed();
    wait_until("the watchdog was fed for three times its patience", || fed() > first + 9_000_000);
    assert!(service.machine.path("/srv/inbox/meanwhile").exists(), "nothing could be written");
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    service.wait_drained();
    assert_eq!((service.main_pid(), service.restarts()), (pid, 0), "the same daemon all the time");
    service.verdict(0);
}
