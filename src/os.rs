//! The operating system's corners that no safe crate reaches, and the only unsafe code of the program.
//!
//! Each function here is a safe door to one such corner, and says why what happens behind it is sound.
//!
//! **Who writes?** Linux grants a *read lease* (`F_SETLEASE`, `F_RDLCK`) on a file only while nobody has it open
//! for writing. Asking for one and giving it back at once therefore tells whether a writer is there. It needs the
//! file's owner or `CAP_LEASE`. Somebody who opens the file for writing in between waits until the lease is given
//! back, and the kernel tells us with SIGIO, whose default would end the process: [`ignore_lease_breaks`] comes
//! first.
#![allow(unsafe_code, reason = "the one fenced module: every use stands beside its reason")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Once;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// Whether somebody has a file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Nobody.
    None,
    /// Somebody.
    Some,
    /// It can't be told: not our file, or a filesystem without leases.
    Unknown,
}

/// Makes the signal that announces a broken lease harmless. Works once per process, later calls do nothing.
///
/// It is a handler that does nothing, and not `SIG_IGN`: an ignored signal stays ignored in the programs that we
/// start, a handler does not.
pub fn ignore_lease_breaks() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `action` is fully initialised (all-zero is a valid `sigaction`), and the handler touches nothing,
        // so it is async-signal-safe. SA_RESTART keeps interrupted calls going.
        let failed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGIO, &raw const action, std::ptr::null_mut()) != 0
        };
        if failed {
            tracing::warn!(error = %io::Error::last_os_error(), "SIGIO could not be handled");
        }
    });
}

/// Lets the runtime tell when a descriptor is ready for this. Needs a runtime.
///
/// # Errors
/// The runtime can watch no more of them, or not this kind.
pub fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, is always the same descriptor, and is closed only when it is dropped, which the
    // `AsyncFd` that owns it does after it has taken it off the runtime's list.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Asks whether somebody has `file`, which is open for reading only, open for writing.
pub fn writers(file: &File) -> Writers {
    ignore_lease_breaks();
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open for as long as `file` is borrowed; F_SETLEASE takes an int and touches no
    // memory of ours.
    let granted = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) } == 0;
    if !granted {
        return match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN) => Writers::Some,
            _ => Writers::Unknown,
        };
    }
    // SAFETY: as above. Should it fail, closing the descriptor gives the lease back.
    unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    Writers::None
}

/// Has the command's process begin life as a processor should:
///
/// * it gets SIGKILL when the daemon dies, however the daemon dies (`PR_SET_PDEATHSIG`). The kernel sends it when
///   the *thread* that forked ends, so the command has to be spawned from a thread that lives as long as the
///   daemon: tokio's worker threads do, those of `spawn_blocking` and `block_in_place` do not;
/// * it inherits no ambient capability, because those are the daemon's own (`CAP_LEASE`);
/// * no signal is blocked, whatever the daemon's threads block. (SIGPIPE is set to its default by std.)
pub fn begin_as_processor(command: &mut Command) {
    let daemon = std::process::id();
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe functions may be
    // called: `after_fork` makes plain system calls on its own stack, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || after_fork(daemon));
    }
}

fn after_fork(daemon: u32) -> io::Result<()> {
    // SAFETY: `prctl` takes integers here, and the mask is a live value on this stack that `sigemptyset` initialised
    // before it is read.
    unsafe {
        let none: libc::c_ulong = 0;
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, none, none, none) != 0 {
            return Err(io::Error::last_os_error());
        }
        // The daemon may have died between the fork and the line above; then no signal will come any more.
        if u32::try_from(libc::getppid()) != Ok(daemon) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // A kernel without ambient capabilities (before 4.3) refuses, and has none to hand on.
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, none, none, none);
        let mut mask = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut mask);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether the system has no file, thread or memory to give right now, which says nothing about what it was wanted for.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM))
}

/// How many of the clock ticks in which `/proc` counts make a second (`sysconf(_SC_CLK_TCK)`; 100 nearly everywhere).
pub fn clock_ticks_per_second() -> i64 {
    // SAFETY: `sysconf` reads a constant and has no preconditions.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks } else { 100 }
}

/// Lets all threads share one heap. Each thread of SQLite's would get one of its own, which keeps what was freed there;
/// a command that opens the database again and again would grow by each.
#[cfg(target_env = "gnu")]
pub fn share_one_heap() {
    // SAFETY: sets a parameter of the allocator, and touches no memory of ours. Where it is refused, nothing changes.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Other allocators know no such heaps.
#[cfg(not(target_env = "gnu"))]
pub const fn share_one_heap() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_seen_while_it_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(writers(&reader), Writers::Some);
        drop(writer);
        assert_eq!(writers(&reader), Writers::None);
    }

    #[test]
    fn a_writer_that_opens_during_a_probe_does_not_end_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "content").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    drop(File::options().append(true).open(&path).unwrap());
                }
            });
            let reader = File::open(&path).unwrap();
            for _ in 0..20_000 {
                writers(&reader);
            }
        });
    }
}
