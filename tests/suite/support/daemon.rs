//! The daemon as a child, with the test as its service manager.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::Place;
use super::wait::{wait_for, wait_until};

static STARTED: AtomicUsize = AtomicUsize::new(0);
/// Ends the thread that listens; no daemon says this.
const GOODBYE: &[u8] = b"GOODBYE";

/// A running daemon. Dropped, it is killed; in a failing test it shows the end of its log.
pub struct Daemon {
    process: Box<dyn Process>,
    log: PathBuf,
    manager: Manager,
}

impl Daemon {
    /// Starts the daemon of a place and waits until it says that it is ready.
    #[track_caller]
    pub fn start(place: &Place) -> Self {
        let mut daemon = Self::spawn(place, place.configured(&["run"]));
        daemon.ready();
        daemon
    }

    /// Starts a daemon with these arguments, without waiting.
    pub fn spawn(place: &Place, command: Command) -> Self {
        Self::spawn_as(place, command, |mut command| Box::new(command.spawn().unwrap()))
    }

    /// The same, by somebody who watches over its process.
    pub fn spawn_as(place: &Place, mut command: Command, spawn: impl FnOnce(Command) -> Box<dyn Process>) -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = place.at(format!("log-{number}"));
        let manager = Manager::new(place.at(format!("notify-{number}")));
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).env("NOTIFY_SOCKET", &manager.address);
        Self { process: spawn(command), log, manager }
    }

    /// Waits for READY=1.
    #[track_caller]
    pub fn ready(&mut self) {
        wait_until("the daemon is ready", || {
            if let Some(status) = self.process.try_wait() {
                panic!("the daemon ended with {status} instead of becoming ready");
            }
            self.said("READY=1") > 0
        });
    }

    /// How often it said this to its service manager.
    pub fn said(&self, line: &str) -> usize {
        let heard = self.manager.heard.lock().unwrap();
        heard.iter().flat_map(|message| message.lines()).filter(|said| *said == line).count()
    }

    /// What it said to its service manager that begins so.
    pub fn heard(&self, beginning: &str) -> Vec<String> {
        let heard = self.manager.heard.lock().unwrap();
        let lines = heard.iter().flat_map(|message| message.lines());
        lines.filter(|line| line.starts_with(beginning)).map(str::to_owned).collect()
    }

    /// The socket on which its service manager listens.
    pub fn address(&self) -> &Path {
        &self.manager.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(process, signal).unwrap();
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
        self.process.wait();
    }

    /// SIGTERM; answers the exit code.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.exit_code()
    }

    /// Waits for its end; answers the exit code, or -1 for a signal.
    #[track_caller]
    pub fn exit_code(&mut self) -> i32 {
        wait_for("the daemon ends", || self.process.try_wait()).code().unwrap_or(-1)
    }

    /// Whether it has ended.
    pub fn exited(&mut self) -> bool {
        self.process.try_wait().is_some()
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of the daemon's log\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// The process of a daemon: a child, or whatever a campaign makes of it.
pub trait Process {
    /// Its number.
    fn id(&self) -> u32;
    /// kill -9, unless it has ended.
    fn kill(&mut self);
    /// How it ended; `None` while it runs.
    fn try_wait(&mut self) -> Option<ExitStatus>;
    /// Waits for its end.
    fn wait(&mut self) -> ExitStatus;
}

impl Process for Child {
    fn id(&self) -> u32 {
        Self::id(self)
    }

    fn kill(&mut self) {
        Self::kill(self).unwrap();
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        Self::try_wait(self).unwrap()
    }

    fn wait(&mut self) -> ExitStatus {
        Self::wait(self).unwrap()
    }
}

/// A service manager that hears everything at once: a daemon must never wait for it.
struct Manager {
    address: PathBuf,
    heard: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Manager {
    fn new(address: PathBuf) -> Self {
        let socket = UnixDatagram::bind(&address).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&heard);
        let listener = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                if &buffer[..length] == GOODBYE {
                    return;
                }
                shared.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
        Self { address, heard, listener: Some(listener) }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(GOODBYE, &self.address));
        if let (Ok(_), Some(listener)) = (sent, self.listener.take()) {
            let _ = listener.join();
        }
    }
}
