//! A wall clock that can be stepped under a running daemon, and that nobody else sees.
//!
//! libfaketime answers for the daemon's libc. It reads the offset from a file at each question, so rewriting the file
//! is the step. Monotonic clocks and the times of files stay what they are, as they do when an administrator steps the
//! machine's clock; the kernel's word of a step (`TFD_TIMER_CANCEL_ON_SET`) is missing, so the daemon has to notice
//! by itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::{Daemon, Output, Place, finish};

const FOLDERS: [&str; 3] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
/// A day in seconds.
pub const DAY: i64 = 86_400;

/// The clock of a place.
pub struct Steppable {
    library: PathBuf,
    offset: PathBuf,
}

impl Steppable {
    /// A clock that shows the machine's time; `None`, said aloud, where libfaketime is not installed.
    pub fn new(place: &Place) -> Option<Self> {
        let library = FOLDERS.iter().map(|folder| PathBuf::from(folder).join("faketime/libfaketimeMT.so.1"));
        let Some(library) = library.into_iter().find(|library| library.exists()) else {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because libfaketime is not installed");
            return None;
        };
        let clock = Self { library, offset: place.at("offset") };
        clock.show(0);
        Some(clock)
    }

    /// Steps the clock to so many seconds beside the machine's.
    pub fn show(&self, seconds: i64) {
        let fresh = self.offset.with_extension("new");
        fs::write(&fresh, format!("{seconds:+}")).unwrap();
        fs::rename(fresh, &self.offset).unwrap();
    }

    /// Lets a command live by this clock.
    pub fn rules(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.offset);
        command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1")]);
        command
    }

    /// Starts the daemon of a place by this clock.
    #[track_caller]
    pub fn start(&self, place: &Place) -> Clocked {
        let mut daemon = Daemon::spawn(place, self.rules(place.configured(&["run"])));
        daemon.ready();
        Clocked { daemon }
    }

    /// Runs a command by this clock.
    pub fn cli(&self, place: &Place, arguments: &[&str]) -> Output {
        finish(&mut self.rules(place.configured(arguments)))
    }
}

/// A daemon under a steppable clock.
pub struct Clocked {
    /// It.
    pub daemon: Daemon,
}

impl Drop for Clocked {
    /// What libfaketime shares with its children stays behind when its process is killed.
    fn drop(&mut self) {
        let pid = self.daemon.pid();
        self.daemon.kill();
        for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
            let _ = fs::remove_file(PathBuf::from("/dev/shm").join(name));
        }
    }
}

/// Longer than `queue.lease = "1s"`.
pub fn outlast_leases() {
    std::thread::sleep(Duration::from_millis(1_500));
}
