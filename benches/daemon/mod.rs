//! The real daemon as a child, with the benchmark as its service manager.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_ingestd");

/// A daemon on a configuration of its own.
pub struct Daemon {
    folder: tempfile::TempDir,
    child: Child,
    /// From its start to its word that it is ready.
    pub ready_after: Duration,
}

impl Daemon {
    /// Starts one in a folder, with its database in `state/ingestd.db`; in the configuration, `ROOT` stands for the
    /// folder.
    pub fn start(folder: tempfile::TempDir, config: &str) -> Self {
        let root = folder.path();
        fs::create_dir_all(root.join("inbox")).unwrap();
        let text = format!(
            "[database]\nurl = \"sqlite://{0}/state/ingestd.db\"\n[log]\nlevel = \"warn\"\n{1}",
            root.display(),
            config.replace("ROOT", &root.display().to_string())
        );
        fs::write(root.join("ingestd.toml"), text).unwrap();
        let socket = root.join("notify");
        let _ = fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).unwrap();
        notify.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let begun = Instant::now();
        let child = Command::new(BINARY)
            .args(["run", "--config"])
            .arg(root.join("ingestd.toml"))
            .env("NOTIFY_SOCKET", &socket)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut buffer = [0; 4_096];
        loop {
            let n = notify.recv(&mut buffer).unwrap();
            if String::from_utf8_lossy(&buffer[..n]).contains("READY=1") {
                break;
            }
        }
        let ready_after = begun.elapsed();
        // Further words have somewhere to go for as long as the daemon lives.
        std::thread::spawn(move || while notify.recv(&mut [0; 4_096]).is_ok() {});
        Self { folder, child, ready_after }
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that speaks to it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).arg("--config").arg(self.path("ingestd.toml")).stdout(Stdio::piped());
        command
    }

    /// Stops it in order, and gives its folder back.
    pub fn stop(mut self) -> tempfile::TempDir {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.child.wait().unwrap();
        self.folder
    }

    /// Resident memory now.
    pub fn memory_mb(&self) -> f64 {
        self.status_mb("VmRSS:")
    }

    /// The most that was ever resident.
    pub fn peak_memory_mb(&self) -> f64 {
        self.status_mb("VmHWM:")
    }

    fn status_mb(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
    }

    /// Processor time so far, in clock ticks (a hundredth of a second each).
    pub fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Voluntary context switches of all its threads so far.
    pub fn wakeups(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of = |path: PathBuf| {
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
        };
        tasks.map(|task| of(task.unwrap().path())).sum()
    }

    /// Waits until no job waits or runs.
    pub fn drained(&self) {
        while self.open_jobs() > 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Jobs that wait or run.
    pub fn open_jobs(&self) -> u64 {
        let output = self.command(&["status", "--json"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let jobs = &status["jobs"];
        ["pending", "running", "retrying"].iter().map(|state| jobs[*state].as_u64().unwrap_or(0)).sum()
    }
}
