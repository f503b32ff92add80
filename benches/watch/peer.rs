//! The tools that start something when a file is closed, and remember nothing.
//!
//! Each starts the same processor as the daemon does, `date`, which prints when it runs; what they print goes to a file,
//! a line for each file, in the order in which the files were closed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::TempDir;

/// Its time in nanoseconds since the epoch is the first thing that it prints.
pub const PROCESSOR: [&str; 2] = ["/bin/date", "+%s%N"];
/// Both tell that they watch in ways of their own, or not at all.
const START: Duration = Duration::from_secs(2);

/// Whether a program is on this machine.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file())
}

/// One of them at work on a folder.
pub struct Peer {
    /// What it is called in the table.
    pub name: &'static str,
    folder: TempDir,
    child: Child,
}

impl Peer {
    /// `inotifywait -m -e close_write … | while read`.
    pub fn inotifywait() -> Result<Self, &'static str> {
        if !is_installed("inotifywait") {
            return Err("inotifywait: not installed");
        }
        let folder = prepare();
        let mut command = Command::new("sh");
        let script = "inotifywait -q -m -e close_write --format %f \"$1\" | while read -r name; do $2 $3; done";
        command.args(["-c", script, "sh"]).arg(folder.path().join("inbox")).args(PROCESSOR);
        Ok(Self::start("inotifywait", folder, command))
    }

    /// incron, with a configuration of its own.
    pub fn incron() -> Result<Self, &'static str> {
        if !is_installed("incrond") {
            return Err("incron: not installed");
        }
        if !rustix::process::geteuid().is_root() {
            return Err("incron: only root may give it a configuration");
        }
        let folder = prepare();
        let root = folder.path().display();
        for made in ["tables", "users", "run"] {
            fs::create_dir(folder.path().join(made)).unwrap();
        }
        let table = format!("{root}/inbox IN_CLOSE_WRITE {}\n", PROCESSOR.join(" "));
        fs::write(folder.path().join("tables/inbox"), table).unwrap();
        let config = format!(
            "system_table_dir = {root}/tables\nuser_table_dir = {root}/users\nallowed_users = {root}/allowed\n\
             denied_users = {root}/denied\nlockfile_dir = {root}/run\nlockfile_name = incrond\n"
        );
        fs::write(folder.path().join("incron.conf"), config).unwrap();
        let mut command = Command::new("/usr/sbin/incrond");
        command.arg("-n").arg("-f").arg(folder.path().join("incron.conf"));
        Ok(Self::start("incron", folder, command))
    }

    fn start(name: &'static str, folder: TempDir, mut command: Command) -> Self {
        let out = File::create(folder.path().join("out")).unwrap();
        // A group of its own: the shell's pipeline is ended as one.
        let child = command.stdout(out).process_group(0).spawn().unwrap();
        std::thread::sleep(START);
        Self { name, folder, child }
    }

    /// Where its files go.
    pub fn inbox(&self) -> PathBuf {
        self.folder.path().join("inbox")
    }

    /// Ends it; answers when its processors ran, one after the other.
    pub fn stop(mut self) -> Vec<Duration> {
        let group = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process_group(group, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
        let printed = fs::read_to_string(self.folder.path().join("out")).unwrap();
        printed.lines().filter_map(time).collect()
    }
}

fn prepare() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("inbox")).unwrap();
    folder
}

/// The time that a processor printed, since the epoch.
pub fn time(line: &str) -> Option<Duration> {
    line.trim().parse().ok().map(Duration::from_nanos)
}

/// Writes a file as everybody's are written, and answers when it was closed, since the epoch.
pub fn write_and_close(folder: &Path, name: &str) -> Duration {
    fs::write(folder.join(name), b"content").unwrap();
    now()
}

/// The time, since the epoch.
pub fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}
