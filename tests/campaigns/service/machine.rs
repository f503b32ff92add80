//! A machine of its own: a real systemd in a container, over this machine's `/usr`, with its own `/etc` and `/var`.
//!
//! 1. `systemd-nspawn` boots it in namespaces of its own: processes, mounts, network. Below `/usr` lies this machine's,
//!    and what is written there goes to a layer of the test's. Nothing is registered, no setting is touched.
//! 2. Everything hangs on one process, which dies with the thread of the test, and takes the machine along: an end
//!    without a chance to write anything, as of a power switch ([`Machine::power_off`]).
//! 3. What survives it lies in `/etc`, `/var`, `/srv` and `/usr` of [`Machine::path`], and a next boot finds it.
//! 4. `/srv/outside` is the test's folder: what is written there is not broken, whatever happens to the machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::support::{Output, finish, has_tools, wait_for, wait_until};

static BOOTED: AtomicUsize = AtomicUsize::new(0);

/// What a boot has no use for, and what would reach for the network, terminals or people.
const MASKED: [&str; 12] = [
    "dbus.service",
    "dbus.socket",
    "getty.target",
    "ldconfig.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-network-generator.service",
    "systemd-networkd.service",
    "systemd-sysctl.service",
    "systemd-update-utmp.service",
];

/// Its `sudo`, as far as the README uses it.
const SUDO: &str = "#!/bin/sh
if [ \"$1\" = -u ]; then user=$2; shift 2; exec setpriv --reuid \"$user\" --regid \"$user\" --init-groups \"$@\"; fi
exec env \"$@\"
";

/// A machine that is on, or was switched off.
pub struct Machine {
    folder: TempDir,
    /// Its control groups on this machine, which end with it.
    groups: Vec<PathBuf>,
    supervisor: Option<Child>,
    leader: u32,
}

impl Machine {
    /// Whether such a machine can be had here; says aloud what is skipped where not.
    pub fn is_possible() -> bool {
        if !has_tools(&["systemd-nspawn", "/usr/lib/systemd/systemd", "nsenter", "unshare", "setpriv"]) {
            return false;
        }
        let probe = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/up /mnt/work /mnt/all && \
                     mount -t overlay -o lowerdir=/usr,upperdir=/mnt/up,workdir=/mnt/work overlay /mnt/all";
        let mounts = Command::new("unshare").args(["-m", "sh", "-c", probe]).output();
        let mounts = mounts.is_ok_and(|output| output.status.success());
        let writable = |group: &PathBuf| {
            let made = group.join(format!("ingestd-probe-{}", std::process::id()));
            fs::create_dir(&made).and_then(|()| fs::remove_dir(&made)).is_ok()
        };
        let groups = own_groups();
        let possible = mounts && !groups.is_empty() && groups.iter().all(writable);
        if !possible {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because no container can be made here (root, overlays, control groups)");
        }
        possible
    }

    /// A new machine, booted, with nothing of ours on it but the files that the README installs from, in `/src`.
    #[track_caller]
    pub fn boot() -> Self {
        let folder = tempfile::Builder::new().prefix("ingestd-machine-").tempdir().unwrap();
        let (tree, outside) = (folder.path().join("tree"), folder.path().join("outside"));
        for name in ["etc/systemd/system", "var", "srv", "src", "usr", "root", "home"] {
            fs::create_dir_all(tree.join(name)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), tree.join(name)).unwrap();
        }
        fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
            .unwrap();
        fs::write(tree.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
        fs::write(tree.join("etc/os-release"), "ID=test\nVERSION_ID=1\n").unwrap();
        // Not a first boot, which would enable whatever is installed here.
        fs::write(tree.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        for unit in MASKED {
            symlink("/dev/null", tree.join("etc/systemd/system").join(unit)).unwrap();
        }
        mask_folders_of_others(&tree.join("etc/tmpfiles.d"));
        let programs = folder.path().join("upper/local/bin");
        fs::create_dir_all(&programs).unwrap();
        fs::write(programs.join("sudo"), SUDO).unwrap();
        fs::set_permissions(programs.join("sudo"), PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&outside, PermissionsExt::from_mode(0o777)).unwrap();
        let mut machine = Self { folder, groups: Vec::new(), supervisor: None, leader: 0 };
        machine.switch_on();
        machine
    }

    /// Boots it, and waits until everything that it starts by itself is up.
    #[track_caller]
    pub fn switch_on(&mut self) {
        let name = format!("ingestd-test-{}-{}", std::process::id(), BOOTED.fetch_add(1, Ordering::Relaxed));
        self.groups = own_groups().into_iter().map(|group| group.join(&name)).collect();
        let mut script = String::from("mount -t tmpfs tmpfs /run\n");
        for group in &self.groups {
            fs::create_dir(group).unwrap();
            script.extend(["echo 0 > ", group.to_str().unwrap(), "/cgroup.procs\n"]);
        }
        // Not `exec`: the first process of a namespace has to be one that waits for orphans.
        script += "systemd-nspawn \"$@\"\n";
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--fork", "--pid", "--kill-child=KILL", "--mount"]);
        command.args(["--propagation", "private", "--mount-proc", "sh", "-ec", &script, "machine"]);
        command.args(["--quiet", "--boot", "--console=pipe", "--register=no", "--keep-unit", "--link-journal=no"]);
        command.args(["--private-network", "--resolv-conf=off", "--timezone=off", "--machine=ingestd"]);
        let (here, sources) = (self.folder.path().display(), env!("CARGO_MANIFEST_DIR"));
        command.arg(format!("--directory={here}/tree")).arg(format!("--overlay=/usr:{here}/upper:/usr"));
        command.arg(format!("--bind={here}/outside:/srv/outside"));
        for source in ["systemd", "config"] {
            command.arg(format!("--bind-ro={sources}/{source}:/src/{source}"));
        }
        command.arg(format!("--bind-ro={}:/src/target/release/ingestd", env!("CARGO_BIN_EXE_ingestd")));
        let log = fs::File::create(self.folder.path().join("console")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut supervisor = command.spawn().unwrap();
        self.leader = wait_for("the machine has a first process", || {
            assert!(supervisor.try_wait().unwrap().is_none(), "no machine: {}", self.console());
            descendant(supervisor.id(), "systemd")
        });
        self.supervisor = Some(supervisor);
        wait_until("the machine is up", || {
            let state = self.run(&["systemctl", "is-system-running"]).stdout;
            matches!(state.trim(), "running" | "degraded")
        });
    }

    /// A file of the machine as the test sees it. What lies in `/run`, `/tmp` and `/dev` is gone when it is off.
    pub fn path(&self, inside: &str) -> PathBuf {
        let relative = inside.strip_prefix('/').unwrap();
        let (first, rest) = relative.split_once('/').unwrap_or((relative, ""));
        match first {
            "usr" => self.folder.path().join("upper").join(rest),
            "run" | "tmp" | "dev" => Path::new("/proc").join(self.leader.to_string()).join("root").join(relative),
            _ => self.folder.path().join("tree").join(relative),
        }
    }

    /// The folder that the machine sees as `/srv/outside`.
    pub fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// What it said on its console.
    pub fn console(&self) -> String {
        fs::read_to_string(self.folder.path().join("console")).unwrap_or_default()
    }

    /// A command on the machine, as root.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader.to_string(), "-m", "-u", "-i", "-n", "-p", "--root", "--wd", "--"]);
        command.args(arguments).env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
        command.env("HOME", "/root").env("LANG", "C.UTF-8").stdin(Stdio::null());
        command
    }

    /// Runs a command on the machine to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        finish(&mut self.command(arguments))
    }

    /// Runs a command that has to succeed; answers what it said on stdout.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
        output.stdout
    }

    /// Runs a script that has to succeed.
    #[track_caller]
    pub fn script(&self, script: &str) -> String {
        self.ok(&["sh", "-euc", script])
    }

    /// A process of the machine by the number that this machine knows it under.
    #[track_caller]
    pub fn outer_pid(&self, inner: u32) -> u32 {
        wait_for(&format!("process {inner} of the machine is found"), || self.find(inner))
    }

    /// The same, where it may have ended.
    pub fn find(&self, inner: u32) -> Option<u32> {
        descendants(self.leader).into_iter().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find(|line| line.starts_with("NSpid:")).unwrap_or_default().to_owned();
            numbers.split_whitespace().last() == Some(&inner.to_string())
        })
    }

    /// Pulls the plug: every process ends at once, nothing more is written by any of them.
    pub fn power_off(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            let _ = supervisor.kill();
            let _ = supervisor.wait();
            self.gone();
        }
    }

    /// Shuts it down in order, and waits until it is off.
    #[track_caller]
    pub fn shut_down(&mut self) {
        // The answer may not arrive any more.
        self.run(&["systemctl", "poweroff", "--no-block"]);
        let mut supervisor = self.supervisor.take().unwrap();
        wait_until("the machine is off", || supervisor.try_wait().unwrap().is_some());
        self.gone();
    }

    fn gone(&mut self) {
        let leader = PathBuf::from(format!("/proc/{}", self.leader));
        wait_until("the machine's processes are gone", || !leader.exists());
        for group in self.groups.drain(..) {
            wait_until("the machine's control groups are gone", || remove_groups(&group));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal =
                self.run(&["journalctl", "-u", "ingestd", "--no-pager", "-n", "40", "-o", "short-monotonic"]).stdout;
            eprintln!("--- the end of the machine's journal\n{journal}");
        }
        self.power_off();
    }
}

/// Packages of this machine want folders for users that the other one does not have.
fn mask_folders_of_others(masks: &Path) {
    fs::create_dir(masks).unwrap();
    for entry in fs::read_dir("/usr/lib/tmpfiles.d").into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if !name.starts_with("systemd") && !["tmp.conf", "var.conf", "legacy.conf"].contains(&name.as_str()) {
            symlink("/dev/null", masks.join(name)).unwrap();
        }
    }
}

/// The groups of this process in the hierarchies in which a systemd keeps its units.
fn own_groups() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mine = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mount = |kind: &str, option: &str| {
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find_map(|fields| {
            (fields[2] == kind && fields[3].split(',').any(|found| found == option)).then(|| PathBuf::from(fields[1]))
        })
    };
    let group = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let mount = match controllers {
            "name=systemd" => mount("cgroup", "name=systemd"),
            "" => mount("cgroup2", "rw"),
            _ => None,
        };
        Some(mount?.join(path.trim_start_matches('/')))
    };
    mine.lines().filter_map(group).collect()
}

fn remove_groups(group: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(group) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            remove_groups(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

fn descendants(pid: u32) -> Vec<u32> {
    children(pid).into_iter().flat_map(|child| std::iter::once(child).chain(descendants(child))).collect()
}

fn descendant(pid: u32, name: &str) -> Option<u32> {
    let named = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    descendants(pid).into_iter().find(named)
}
