//! A virtual machine that runs, and what it says over its lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A virtual machine. Dropped, its process is killed; in a failing test it shows the end of its console.
pub struct Running {
    process: Child,
    folder: PathBuf,
}

/// What it said of itself; what was cut off when the power went is left out.
#[derive(Debug, Default)]
pub struct Report {
    /// The files on its disk with their SHA-256, each time that it looked.
    pub files: Vec<BTreeMap<PathBuf, String>>,
    /// All jobs, each time that it looked.
    pub jobs: Vec<Vec<Value>>,
    /// Jobs that were shown as completed.
    pub completed: BTreeSet<i64>,
    /// `status --json` after a checkpoint.
    pub status: Value,
}

impl Running {
    /// Boots with this kernel and file system in memory, the disk at `socket`. Init gets these variables.
    pub fn boot(folder: &Path, kernel: &Path, archive: &Path, socket: &Path, variables: &str) -> Self {
        // By setpriv it ends with the test, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2"]);
        command.args(["-m", "512", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(archive);
        command
            .arg("-append")
            .arg(format!("console=ttyS0 panic=-1 quiet cryptomgr.notests mitigations=off {variables}"));
        let disk = format!("file=nbd+unix:///?socket={},format=raw,if=none,id=disk,cache=none", socket.display());
        command.args(["-drive", &disk, "-device", "virtio-blk-pci,drive=disk,write-cache=on"]);
        command.args(["-device", "virtio-serial-pci"]);
        for (line, device) in [("records", "virtconsole"), ("report", "virtconsole"), ("console", "isa-serial")] {
            let path = folder.join(line);
            let _ = fs::remove_file(&path);
            command.arg("-chardev").arg(format!("file,id={line},path={}", path.display()));
            command.arg("-device").arg(format!("{device},chardev={line}"));
        }
        Self { process: command.stdin(Stdio::null()).spawn().unwrap(), folder: folder.to_owned() }
    }

    /// Takes its power away.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Whether it has come to its end in order. `Err` says what it has found to be wrong.
    pub fn has_ended(&mut self) -> Result<bool, String> {
        let ended = self.process.try_wait().unwrap();
        let said = self.said("report");
        if let Some(failure) = said.lines().find_map(|line| line.strip_prefix("== failed ")) {
            return Err(format!("{failure}\n{}", self.said("console")));
        }
        assert!(ended.is_none() || said.contains("== end\n"), "the machine ended by itself: {ended:?}");
        Ok(ended.is_some())
    }

    /// Whether its daemon is ready.
    pub fn is_ready(&self) -> bool {
        self.said("report").contains("== ready\n")
    }

    /// What went out for the ledger.
    pub fn records(&self) -> Vec<u8> {
        fs::read(self.folder.join("records")).unwrap_or_default()
    }

    fn said(&self, line: &str) -> String {
        let bytes = fs::read(self.folder.join(line)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// What it said of itself so far.
    pub fn report(&self) -> Report {
        let said = self.said("report");
        let mut report = Report::default();
        // A part has a line with its name at its head, and is whole when another line of that kind ends it.
        let mut parts: Vec<&str> = said.split("== ").skip(1).collect();
        parts.pop();
        for part in parts {
            let (name, lines) = part.split_once('\n').unwrap();
            let json = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
            match name {
                "files" => report.files.push(lines.lines().filter_map(file).collect()),
                "jobs" => report.jobs.push(lines.lines().map(json).collect()),
                "completed" => report.completed.extend(lines.lines().filter_map(|id| id.parse::<i64>().ok())),
                "status" => report.status = lines.lines().map(json).next_back().unwrap_or_default(),
                _ => {}
            }
        }
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let console = self.said("console");
            let lines: Vec<&str> = console.lines().collect();
            eprintln!("--- the end of the console\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// A line of `sha256sum`.
fn file(line: &str) -> Option<(PathBuf, String)> {
    let (sum, path) = line.split_once("  ")?;
    Some((path.into(), sum.to_owned()))
}
