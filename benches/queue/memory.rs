//! Resident memory of the whole program.

use std::time::Duration;

use crate::Bench;
use crate::daemon::Daemon;
use crate::report::{self, Aim};
use crate::start::{NOOP, seeded};

const WATCHING: &str = "
[pipeline.p]
kind = \"noop\"
[watch.inbox]
path = \"ROOT/inbox\"
pipeline = \"p\"
settle = \"0s\"
";

/// Resident memory: idle, and with many jobs waiting, resting and at work.
pub fn resident(bench: &Bench) {
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), WATCHING);
    std::thread::sleep(Duration::from_secs(5));
    let idle = daemon.memory_mb();
    report::row("resident memory, idle", &report::mb(idle), "", None, &Aim::under(idle, 20.0, "MB"));
    daemon.stop();
    waiting_memory(bench, "1 million", 1_000_000);
    if bench.long {
        waiting_memory(bench, "10 million", 10_000_000);
    }
}

fn waiting_memory(bench: &Bench, name: &str, n: i64) {
    let row = |what: &str, figure: f64| {
        let aim = Aim::under(figure, 60.0, "MB");
        report::row(&format!("resident memory, {name} waiting, {what}"), &report::mb(figure), "", None, &aim);
    };
    let daemon = Daemon::start(seeded(bench, |seed| seed.deletes((1, n)).paused()), NOOP);
    std::thread::sleep(Duration::from_secs(5));
    row("paused", daemon.memory_mb());
    assert!(daemon.command(&["resume"]).status().unwrap().success());
    std::thread::sleep(Duration::from_secs(20));
    assert!(daemon.open_jobs() > 0, "it was at work all the time");
    row("noop at work, peak", daemon.peak_memory_mb());
    daemon.stop();
}
