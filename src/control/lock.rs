//! Who may write to a database: a lock on the file `<database>.lock`.
//!
//! 1. A daemon holds it exclusively for as long as it lives, with its process id written inside.
//! 2. A command that writes by itself holds it shared for the time of the command.
//! 3. What replaces the database (`db restore`, `db check --repair`, `db migrate`) holds it exclusively.
//! 4. A daemon that starts asks commands to wait, by a lock on `<database>.turn`: a command takes its share of that one
//!    first, for a moment. Without it commands that follow each other closely would keep a daemon out for ever.
//! 5. Whoever has it alone first brings a [`replacement`] to its end that its last holder died in, and the database's
//!    files to their [`mode`].
//!
//! The kernel lets go of it when its holder ends, however that happens, so a lock is never stale; a process id
//! that a dead holder left in the file is only ever read while somebody holds the lock. It is a file of its own
//! because opening and closing the database itself would drop SQLite's locks in this process.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{mode, replacement};
use crate::durable::{parent, with_suffix};

/// The lock's file, and that of those who wait for it, beside the database.
const LOCK: &str = ".lock";
const TURN: &str = ".turn";

/// A process that was killed holds its locks until the kernel has taken it apart.
const DYING: Duration = Duration::from_millis(500);
/// How long a starting daemon waits for commands that write, which are short.
const DAEMON_PATIENCE: Duration = Duration::from_secs(3);

/// How often it asks meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    file: File,
    exclusive: bool,
}

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{}", held(*pid))]
    Held {
        /// The one that holds it alone; `None` where commands hold it together.
        pid: Option<u32>,
    },
    /// The lock's file can't be opened.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

fn held(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("another daemon runs on this database (process {pid})"),
        None => "a command is writing to this database right now, or a daemon starts on it".to_owned(),
    }
}

impl Lock {
    /// The daemon's: exclusive, with our process id inside. Waits up to three seconds for commands, and half a second
    /// for another daemon, which may have been killed a moment ago. Blocks the thread.
    pub fn daemon(database: &Path, mode: u32) -> Result<Self, LockError> {
        let (path, mut file) = open(database, LOCK, mode)?;
        let (turn, waiting) = open(database, TURN, mode)?;
        let begun = Instant::now();
        let deadline = begun + DAEMON_PATIENCE;
        loop {
            // Ours or that of another daemon that starts: no command goes first either way.
            attempt(&turn, &waiting, FlockOperation::NonBlockingLockExclusive)?;
            if attempt(&path, &file, FlockOperation::NonBlockingLockExclusive)? {
                return Self::sign(file, &path, database, mode);
            }
            // Whether it is held alone is seen by asking for a share of it.
            if attempt(&path, &file, FlockOperation::NonBlockingLockShared)? {
                let _ = flock(&file, FlockOperation::Unlock);
            } else if begun.elapsed() >= DYING {
                return Err(LockError::Held { pid: holder(&mut file) });
            }
            if Instant::now() >= deadline {
                return Err(LockError::Held { pid: None });
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }

    /// A command's that writes: shared with other commands, refused while a daemon or a replacement holds it, or a
    /// daemon waits for it.
    pub fn shared(database: &Path, mode: u32) -> Result<Self, LockError> {
        let (turn, passing) = open(database, TURN, mode)?;
        if !attempt(&turn, &passing, FlockOperation::NonBlockingLockShared)? {
            return Err(LockError::Held { pid: None });
        }
        let (path, mut file) = open(database, LOCK, mode)?;
        if attempt(&path, &file, FlockOperation::NonBlockingLockShared)? {
            Ok(Self { file, exclusive: false })
        } else {
            Err(LockError::Held { pid: holder(&mut file) })
        }
    }

    /// For what replaces the database: exclusive, refused at once while anybody holds it.
    pub fn exclusive(database: &Path, mode: u32) -> Result<Self, LockError> {
        let (path, mut file) = open(database, LOCK, mode)?;
        if attempt(&path, &file, FlockOperation::NonBlockingLockExclusive)? {
            return Self::sign(file, &path, database, mode);
        }
        let shared = attempt(&path, &file, FlockOperation::NonBlockingLockShared)?;
        Err(LockError::Held { pid: if shared { None } else { holder(&mut file) } })
    }

    /// Completes a replacement that was broken off, if there is one and nobody is at it. To be called before a database
    /// is opened under no lock, or under a shared one.
    pub fn complete_replacement(database: &Path, mode: u32) -> Result<(), LockError> {
        if !replacement::is_pending(database) {
            return Ok(());
        }
        match Self::exclusive(database, mode) {
            Ok(_) | Err(LockError::Held { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn sign(mut file: File, path: &Path, database: &Path, mode: u32) -> Result<Self, LockError> {
        match replacement::complete(database) {
            Ok(true) => tracing::warn!(database = %database.display(), "completed a replacement that was broken off"),
            // What stays costs room and nothing else.
            Ok(false) => drop(replacement::remove_unfinished(database)),
            Err(error) => return Err(LockError::Io { path: database.to_path_buf(), error }),
        }
        mode::apply(database, mode);
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        match written {
            Ok(()) => Ok(Self { file, exclusive: true }),
            Err(error) => Err(LockError::Io { path: path.to_path_buf(), error }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.exclusive {
            // Only courtesy: a process id that stays is never read without a holder.
            let _ = self.file.set_len(0);
        }
    }
}

fn open(database: &Path, suffix: &str, mode: u32) -> Result<(PathBuf, File), LockError> {
    let path = with_suffix(database, suffix);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(mode);
    // What a link leads to is not ours to change, least of all as root.
    match options.custom_flags(libc::O_NOFOLLOW).open(&path) {
        Ok(file) => {
            // The umask may have taken bits that the configuration grants. Only the owner may put them back, and
            // whoever is not leaves the file as the owner made it.
            let _ = file.set_permissions(Permissions::from_mode(mode & 0o777));
            give_to_owner(&file, database);
            Ok((path, file))
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let error = io::Error::other("this is a link, which nobody of ours made; remove it");
            Err(LockError::Io { path, error })
        }
        Err(error) => Err(LockError::Io { path, error }),
    }
}

/// Gives a file that root made to the user whose database it belongs to: the daemon has to open it later. One that a
/// member of the database's group made is given to that group, by which the daemon opens it.
pub fn give_to_owner(file: &File, database: &Path) {
    let is_root = rustix::process::geteuid().is_root();
    let owner = match std::fs::metadata(database) {
        Err(_) if is_root => std::fs::metadata(parent(database)),
        owner => owner,
    };
    if let Ok(owner) = owner {
        let _ = fchown(file, is_root.then(|| owner.uid()), Some(owner.gid()));
    }
}

fn attempt(path: &Path, file: &File, operation: FlockOperation) -> Result<bool, LockError> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(LockError::Io { path: path.to_path_buf(), error: error.into() }),
        }
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn database() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ingestd.db");
        (folder, path)
    }

    #[test]
    fn a_daemon_keeps_everyone_out_and_is_named() {
        let (_folder, path) = database();
        let _daemon = Lock::daemon(&path, 0o600).unwrap();
        let own = std::process::id();
        for refused in [Lock::daemon(&path, 0o600), Lock::shared(&path, 0o600), Lock::exclusive(&path, 0o600)] {
            assert!(matches!(refused, Err(LockError::Held { pid: Some(pid) }) if pid == own));
        }
    }

    #[test]
    fn a_link_at_the_name_of_the_lock_leads_to_no_other_file() {
        let (folder, path) = database();
        let other = folder.path().join("other");
        std::fs::write(&other, "text").unwrap();
        std::fs::set_permissions(&other, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&other, with_suffix(&path, LOCK)).unwrap();
        let refused = Lock::exclusive(&path, 0o600).unwrap_err();
        assert!(refused.to_string().contains("link"), "{refused}");
        assert_eq!(std::fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "text");
    }

    #[test]
    fn commands_share_and_a_replacement_waits_for_none() {
        let (_folder, path) = database();
        let first = Lock::shared(&path, 0o600).unwrap();
        let _second = Lock::shared(&path, 0o600).unwrap();
        assert!(matches!(Lock::exclusive(&path, 0o600), Err(LockError::Held { pid: None })));
        drop(first);
    }

    #[test]
    fn a_starting_daemon_waits_for_a_command_to_end() {
        let (_folder, path) = database();
        let command = Lock::shared(&path, 0o600).unwrap();
        std::thread::scope(|scope| {
            let daemon = scope.spawn(|| Lock::daemon(&path, 0o600).is_ok());
            drop(command);
            assert!(daemon.join().unwrap());
        });
    }

    #[test]
    fn a_starting_daemon_comes_between_commands_that_never_pause() {
        let (_folder, path) = database();
        let started = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    while !started.load(std::sync::atomic::Ordering::Relaxed) {
                        let command = Lock::shared(&path, 0o600);
                        std::thread::sleep(Duration::from_millis(30));
                        drop(command);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(100));
            let daemon = Lock::daemon(&path, 0o600);
            started.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(daemon.is_ok(), "{daemon:?}");
        });
    }

    #[test]
    fn a_killed_process_leaves_nothing_behind() {
        let (_folder, path) = database();
        let lock_file = path.with_extension("db.lock");
        // flock(1) says on its output when the lock is its own.
        let mut child = Command::new("flock")
            .args(["--exclusive", "--no-fork"])
            .arg(&lock_file)
            .args(["sh", "-c", "echo held; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = [0; 4];
        child.stdout.take().unwrap().read_exact(&mut word).unwrap();
        assert!(matches!(Lock::shared(&path, 0o600), Err(LockError::Held { .. })));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Lock::exclusive(&path, 0o600).is_ok());
    }
}
