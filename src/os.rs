//! The operating system's corners that no safe crate reaches, and the only unsafe code of the program.
//!
//! Each function here is a safe door to one such corner, and says why what happens behind it is sound.
#![allow(unsafe_code, reason = "the one fenced module: every use stands beside its reason")]

use std::io;

use tokio::process::Command;

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

/// How many of the clock ticks in which `/proc` counts make a second (`sysconf(_SC_CLK_TCK)`; 100 nearly everywhere).
pub fn clock_ticks_per_second() -> i64 {
    // SAFETY: `sysconf` reads a constant and has no preconditions.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks } else { 100 }
}
