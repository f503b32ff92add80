//! The process groups of commands: ended together, and never outliving their daemon for long.
//!
//! 1. Each command leads a process group of its own. [`Group`] is the right to end it; dropping that kills it.
//! 2. While the group lives, a file in the spool directory records it: the machine's boot, the group's number, the
//!    moments between which its leader was started, and the job's idempotency key.
//! 3. The kernel kills a leader when the daemon dies (see [`crate::os::begin_as_processor`]). What the leader had
//!    started is ended by [`end_strays`] at the daemon's next start.
//!
//! A number is used again once its group is gone, so [`end_strays`] touches a group only on a proof that it is the
//! recorded one: its leader was started between the recorded moments of the same boot, or one of its members has
//! the job's key in its environment. A group whose members hid both is left alone.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpgid};

use tokio_util::sync::CancellationToken;

use super::environment::KEY_VARIABLE;
use crate::clock::{Clock, SystemClock};
use crate::os;

/// How long a group that got SIGTERM may take before it gets SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(5);

/// How long to wait for a killed group to be gone; longer only if the kernel holds it (a dead network disk).
const KILL_GRACE: Duration = Duration::from_secs(1);

/// How often a group that is being ended is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A point in `/proc`'s own time: clock ticks since the machine's boot.
fn now_in_ticks() -> i64 {
    // The kernel dates processes by this clock and no other, so a manual one would prove nothing here.
    SystemClock.boottime().as_millis().saturating_mul(os::clock_ticks_per_second()) / 1_000
}

/// The machine's boot, if it may be known (a unit with `ProcSubset=pid` hides it).
fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned());
    BOOT.get_or_init(read).as_deref().filter(|id| !id.is_empty())
}

/// A running group of ours, led by a child of this process.
#[derive(Debug)]
pub struct Group {
    id: Pid,
    record: PathBuf,
    over: bool,
}

impl Group {
    /// Starts a group by `spawn`, which answers its leader's process id beside whatever it makes, and records it in
    /// the file `record`, for the job with this key.
    ///
    /// # Errors
    /// Those of `spawn`. A record that can't be written is logged and no reason not to work.
    pub fn start<T>(
        record: PathBuf,
        key: &str,
        spawn: impl FnOnce() -> io::Result<(T, Option<u32>)>,
    ) -> io::Result<(T, Self)> {
        let from = now_in_ticks();
        let (made, leader) = spawn()?;
        let to = now_in_ticks();
        let leader = leader.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let id = leader.ok_or_else(|| io::Error::other("the new process has no number"))?;
        let group = Self { id, record, over: false };
        let line = format!("{} {} {from} {to} {key}\n", boot_id().unwrap_or("-"), id.as_raw_nonzero());
        if let Err(error) = fs::write(&group.record, line) {
            tracing::warn!(path = %group.record.display(), %error, "a process group can't be recorded");
        }
        Ok((made, group))
    }

    /// Signals the whole group, while its leader has not been waited for.
    pub fn signal(&self, signal: Signal) {
        // It fails when nobody is left, which is what was wanted.
        let _ = kill_process_group(self.id, signal);
    }

    /// Ends what is left of the group after its leader was waited for: SIGTERM now, SIGKILL at `deadline` or `at_once`.
    pub async fn end_rest(&mut self, deadline: tokio::time::Instant, at_once: &CancellationToken) {
        // Numbers are given out in a circle, so in the instant since the leader's end this one can't have come
        // round again; and while a member lives, the kernel gives it to nobody.
        if kill_process_group(self.id, Signal::TERM).is_ok() {
            while tokio::time::Instant::now() < deadline && !at_once.is_cancelled() && self.lives() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let last = tokio::time::Instant::now() + KILL_GRACE;
            while self.lives() && tokio::time::Instant::now() < last {
                self.signal(Signal::KILL);
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        self.over = true;
    }

    fn lives(&self) -> bool {
        // Orphans of the group become children of a daemon that is the first process of a container: reap them.
        while let Ok(Some(_)) = waitpgid(self.id, WaitOptions::NOHANG) {}
        test_kill_process_group(self.id).is_ok() && processes().contains_key(&self.id.as_raw_nonzero().get())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.over {
            self.signal(Signal::KILL);
        }
        let _ = fs::remove_file(&self.record);
    }
}

/// A living process, as `/proc` tells it.
#[derive(Debug)]
struct Process {
    id: i32,
    started: i64,
}

/// All processes that live (zombies do not), by their group.
fn processes() -> HashMap<i32, Vec<Process>> {
    let mut groups: HashMap<i32, Vec<Process>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ends in between has no file any more, which is as good as not having been there.
        if let Some((group, started)) = fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(stat) {
            groups.entry(group).or_default().push(Process { id, started });
        }
    }
    groups
}

/// Group and start of the process that a line of `/proc/PID/stat` describes (proc(5)); `None` for one that is dead.
fn stat(line: &str) -> Option<(i32, i64)> {
    // The second field, the command's name in parentheses, may hold anything; the third follows the last of them.
    let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some((group, started))
}

/// A group that some daemon recorded.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    boot: Option<String>,
    group: Pid,
    from: i64,
    to: i64,
    key: String,
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace();
        let boot = fields.next().map(|boot| (boot != "-").then(|| boot.to_owned()))?;
        let group = Pid::from_raw(fields.next()?.parse().ok().filter(|id| *id > 1)?)?;
        let from = fields.next()?.parse().ok()?;
        let to = fields.next()?.parse().ok()?;
        let key = fields.next().filter(|key| key.len() == 64)?.to_owned();
        Some(Self { boot, group, from, to, key })
    }

    /// Whether the group that has this number now is the recorded one.
    fn is_proved_by(&self, members: &[Process]) -> bool {
        let same_boot = match (self.boot.as_deref(), boot_id()) {
            (Some(then), Some(now)) if then != now => return false,
            (then, now) => then.is_some() && now.is_some(),
        };
        let by_start = |member: &Process| {
            same_boot
                && member.id == self.group.as_raw_nonzero().get()
                && (self.from..=self.to).contains(&member.started)
        };
        members.iter().any(|member| by_start(member) || self.key_is_known_to(member))
    }

    fn key_is_known_to(&self, member: &Process) -> bool {
        let wanted = format!("{KEY_VARIABLE}={}", self.key);
        fs::read(format!("/proc/{}/environ", member.id))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
    }
}

/// Ends the groups that a dead daemon recorded in `directory` and left alive, by SIGTERM and, after [`TERM_GRACE`],
/// SIGKILL, and removes all records. Answers how many there were. Blocks for as long as they take; to be called at
/// the daemon's start, before its first command.
pub fn end_strays(directory: &Path) -> usize {
    let records: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "group"))
        .collect();
    if records.is_empty() {
        return 0;
    }
    let living = processes();
    let recorded = records.iter().filter_map(|path| Record::parse(&fs::read_to_string(path).ok()?));
    let strays: Vec<Pid> = recorded
        .filter(|record| {
            let members = living.get(&record.group.as_raw_nonzero().get());
            members.is_some_and(|members| record.is_proved_by(members))
        })
        .map(|record| record.group)
        .collect();
    end_groups(&strays);
    for path in &records {
        let _ = fs::remove_file(path);
    }
    strays.len()
}

fn end_groups(groups: &[Pid]) {
    for (signal, grace) in [(Signal::TERM, TERM_GRACE), (Signal::KILL, KILL_GRACE)] {
        for group in still_alive(groups) {
            let _ = kill_process_group(group, signal);
        }
        let deadline = Instant::now() + grace;
        while !still_alive(groups).is_empty() && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
    for group in still_alive(groups) {
        tracing::warn!(process.group = group.as_raw_nonzero(), "a process group of the last daemon can't be ended");
    }
}

fn still_alive(groups: &[Pid]) -> Vec<Pid> {
    if groups.is_empty() {
        return Vec::new();
    }
    let living = processes();
    groups.iter().copied().filter(|group| living.contains_key(&group.as_raw_nonzero().get())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::*;

    const KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";

    /// A group whose leader starts a sleeper, says so, and then runs `rest`.
    fn group(key: Option<&str>, rest: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("sleep 300 & echo started; {rest}")]).process_group(0);
        command.stdout(std::process::Stdio::piped());
        if let Some(key) = key {
            command.env(KEY_VARIABLE, key);
        }
        let mut child = command.spawn().unwrap();
        let mut started = [0; 8];
        io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut started).unwrap();
        child
    }

    fn alive(child: &Child) -> bool {
        processes().contains_key(&i32::try_from(child.id()).unwrap())
    }

    fn record(folder: &Path, boot: &str, child: &Child, window: (i64, i64), key: &str) {
        let line = format!("{boot} {} {} {} {key}\n", child.id(), window.0, window.1);
        fs::write(folder.join(format!("{}-1.group", child.id())), line).unwrap();
    }

    fn finish(mut child: Child) {
        let group = Pid::from_child(&child);
        let _ = kill_process_group(group, Signal::KILL);
        child.wait().unwrap();
    }

    #[test]
    fn a_stray_group_is_ended_by_its_leaders_start() {
        let folder = tempfile::tempdir().unwrap();
        let from = now_in_ticks();
        let child = group(None, "wait");
        record(folder.path(), boot_id().unwrap(), &child, (from, now_in_ticks()), &"0".repeat(64));
        assert_eq!(end_strays(folder.path()), 1);
        assert!(!alive(&child));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        finish(child);
    }

    #[test]
    fn a_stray_group_without_its_leader_is_ended_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = group(Some(KEY), "exit 0");
        child.wait().unwrap();
        assert!(alive(&child), "the sleeper lives on");
        record(folder.path(), "-", &child, (0, 0), KEY);
        assert_eq!(end_strays(folder.path()), 1);
        assert!(!alive(&child));
    }

    #[test]
    fn a_number_that_is_used_again_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let from = now_in_ticks();
        let child = group(Some(KEY), "wait");
        let window = (from, now_in_ticks());
        let boot = boot_id().unwrap();
        for (boot, window, key) in [
            (boot, (from - 5_000, from - 1_000), "1".repeat(64)), // an earlier process had the number
            ("another-boot", window, KEY.to_owned()),
            ("-", window, "1".repeat(64)),
        ] {
            record(folder.path(), boot, &child, window, &key);
            assert_eq!(end_strays(folder.path()), 0, "{boot} {window:?} {key}");
            assert!(alive(&child));
        }
        finish(child);
    }

    #[test]
    fn a_stray_that_ignores_sigterm_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let from = now_in_ticks();
        let child = group(None, "trap '' TERM; while :; do sleep 1; done");
        record(folder.path(), boot_id().unwrap(), &child, (from, now_in_ticks()), KEY);
        // Let the trap be set; `echo` came before it.
        let ignores = || {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim().to_owned();
            u64::from_str_radix(&mask, 16).unwrap() & (1 << 14) != 0
        };
        while !ignores() {
            std::thread::sleep(LOOK_AGAIN);
        }
        let begun = Instant::now();
        assert_eq!(end_strays(folder.path()), 1);
        assert!(begun.elapsed() >= TERM_GRACE);
        assert!(!alive(&child));
        finish(child);
    }

    #[test]
    fn rubbish_in_the_spool_directory_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "-", "- 0 1 2 k", "- -1 1 2 k", &format!("- 1 0 999999999 {KEY}"), "\u{0}"] {
            fs::write(folder.path().join("1-1.group"), text).unwrap();
            fs::write(folder.path().join("1-1"), "output").unwrap();
            assert_eq!(end_strays(folder.path()), 0);
            assert!(!folder.path().join("1-1.group").exists() && folder.path().join("1-1").exists());
        }
        assert_eq!(end_strays(Path::new("/no/such/folder")), 0);
    }

    #[test]
    fn a_commands_name_does_not_confuse_the_reader_of_stat() {
        let line = "12 (a) Z 1 (b)) S 1 77 5 0 -1 4194304 99 0 0 0 0 0 0 0 20 0 1 0 201045 3133440 394";
        assert_eq!(stat(line), Some((77, 201_045)));
        assert_eq!(stat("12 (x) Z 1 77 5 0 -1 4194304 99 0 0 0 0 0 0 0 20 0 1 0 201045 3133440 394"), None);
    }
}
