//! A daemon in namespaces of its own, where limits and mounts are nobody else's and end with it.
//!
//! Limits are those of `/proc/sys/user`, which belong to the user namespace. What is mounted is seen by the daemon, by
//! what [`Confined::inside`] runs, and under [`Confined::seen`], and by nobody else.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Daemon, Place, run};

/// What the daemon may use up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// `user.max_inotify_watches`.
    pub watches: Option<u32>,
    /// `user.max_inotify_instances`.
    pub instances: Option<u32>,
}

/// A daemon in namespaces of its own.
pub struct Confined {
    /// It.
    pub daemon: Daemon,
}

impl Confined {
    /// Whether namespaces can be made here; says aloud what is skipped where not.
    pub fn is_possible() -> bool {
        let probe = "test -w /proc/sys/user/max_inotify_watches && mount -t tmpfs tmpfs /mnt";
        let possible = Command::new("unshare").args(["-Urm", "sh", "-c", probe]).output();
        let possible = possible.is_ok_and(|output| output.status.success());
        if !possible {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because no namespaces can be made here");
        }
        possible
    }

    /// Starts the daemon of a place under these limits, after `first` (shell) has run in its namespaces.
    #[track_caller]
    pub fn start(place: &Place, limits: Limits, first: &str) -> Self {
        let mut confined = Self::spawn(place, limits, first);
        confined.daemon.ready();
        confined
    }

    /// The same, without waiting.
    pub fn spawn(place: &Place, limits: Limits, first: &str) -> Self {
        let plain = place.configured(&["run"]);
        let limit = |value: Option<u32>, name: &str| {
            value.map(|value| format!("echo {value} > /proc/sys/user/{name}\n")).unwrap_or_default()
        };
        let script = format!(
            "set -e\n{}{}{first}\nexec \"$@\"",
            limit(limits.watches, "max_inotify_watches"),
            limit(limits.instances, "max_inotify_instances")
        );
        let mut command = Command::new("unshare");
        command.args(["-Urm", "--propagation", "private", "sh", "-c", &script, "confined"]);
        command.arg(plain.get_program()).args(plain.get_args());
        command.env_clear().current_dir(place.at("")).stdin(std::process::Stdio::null());
        for (name, value) in plain.get_envs() {
            value.map(|value| command.env(name, value));
        }
        Self { daemon: Daemon::spawn(place, command) }
    }

    /// Runs a shell script in its namespaces.
    #[track_caller]
    pub fn inside(&self, script: &str) {
        let pid = self.daemon.pid().to_string();
        run(Command::new("nsenter").args(["-t", &pid, "-U", "-m", "--preserve-credentials", "sh", "-ec", script]));
    }

    /// A path as the daemon sees it, with what is mounted there.
    pub fn seen(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.daemon.pid().to_string()).join("root").join(path.strip_prefix("/").unwrap())
    }
}
