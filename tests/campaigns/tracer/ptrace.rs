//! ptrace, behind safe doors: the only unsafe code of the campaigns.
//!
//! Every request and every wait has to come from the thread that started the process (`__WNOTHREAD` keeps it from
//! reaping other threads' children). A process may be killed at any moment, whatever it stops for: a request that
//! comes too late finds nobody, and that is no error.

#![expect(unsafe_code, reason = "no safe crate of ours reaches ptrace; each use stands beside its reason")]

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::ptr;

/// Bit that marks the stop at a system call (`PTRACE_O_TRACESYSGOOD`).
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// Why a thread reported.
#[derive(Debug)]
pub enum Report {
    /// It ended (for the first thread: the whole process did).
    Ended(ExitStatus),
    /// It enters a system call or leaves one.
    Syscall,
    /// Something that only has to be gone on from: a thread was made, a program was loaded.
    Event,
    /// It is about to get this signal.
    Signal(i32),
}

/// Where in a system call a thread stands.
#[derive(Debug)]
pub enum Syscall {
    /// It has not happened yet.
    Enter {
        /// Its number.
        number: i64,
        /// What it is given.
        arguments: [u64; 6],
    },
    /// It is over.
    Leave,
}

/// What can be changed of a thread that stands in a system call.
#[derive(Clone, Copy, Debug)]
pub enum Register {
    /// The call's number, at its entry: -1 is no call.
    Number,
    /// What it answers, at its exit.
    Result,
    /// Its third argument, at its entry; to be restored at its exit, as callers rely on it.
    Third,
}

/// Has the command's process ask to be traced by the thread that spawns it.
pub fn ask_to_be_traced(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions may be called: this is one plain system call
    // that takes no memory of ours.
    unsafe {
        command.pre_exec(|| {
            match libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
}

/// Says what is to be followed: threads, not children; and that nothing outlives the tracing thread.
pub fn begin(process: i32) {
    let options =
        libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_EXITKILL;
    request(libc::PTRACE_SETOPTIONS, process, 0, u64::from(options.cast_unsigned()));
}

/// Lets a thread go on to the next system call, with a signal or none (0).
pub fn resume(thread: i32, signal: i32) {
    request(libc::PTRACE_SYSCALL, thread, 0, u64::from(signal.cast_unsigned()));
}

/// Changes a register of a stopped thread.
#[cfg(target_arch = "x86_64")]
pub fn set(thread: i32, register: Register, value: i64) {
    // The places of orig_rax, rax and rdx in `user_regs_struct`, which comes first in the user area.
    let word: u64 = match register {
        Register::Number => 15,
        Register::Result => 10,
        Register::Third => 12,
    };
    request(libc::PTRACE_POKEUSER, thread, word * 8, value.cast_unsigned());
}

/// Nothing is traced where it isn't known how.
#[cfg(not(target_arch = "x86_64"))]
pub fn set(_thread: i32, _register: Register, _value: i64) {}

/// Where in a system call a stopped thread stands; `None` if it is gone.
pub fn syscall(thread: i32) -> Option<Syscall> {
    // SAFETY: an all-zero `ptrace_syscall_info` is a valid value of it. The kernel writes no more than the size that
    // it is given as `addr`, and which field of the union it wrote is said by `op`.
    unsafe {
        let mut info: libc::ptrace_syscall_info = std::mem::zeroed();
        let size = size_of::<libc::ptrace_syscall_info>();
        let wrote = libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info);
        match info.op {
            _ if wrote <= 0 => None,
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                Some(Syscall::Enter { number: info.u.entry.nr.cast_signed(), arguments: info.u.entry.args })
            }
            _ => Some(Syscall::Leave),
        }
    }
}

/// Waits for the next report of a thread that this thread traces; `None` when there is none left.
pub fn wait() -> Option<(i32, Report)> {
    let mut status = 0;
    // SAFETY: the kernel writes the status into a live integer.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    if thread == -1 {
        return match io::Error::last_os_error().kind() {
            io::ErrorKind::Interrupted => wait(),
            _ => None,
        };
    }
    let report = if !libc::WIFSTOPPED(status) {
        Report::Ended(ExitStatus::from_raw(status))
    } else if libc::WSTOPSIG(status) == SYSCALL_STOP {
        Report::Syscall
    } else if status >> 16 != 0 {
        Report::Event
    } else {
        Report::Signal(libc::WSTOPSIG(status))
    };
    Some((thread, report))
}

fn request(what: libc::c_uint, thread: i32, address: u64, data: u64) {
    // SAFETY: for these requests the kernel takes both as integers and touches no memory of ours. Where the thread is
    // gone (ESRCH) there is nothing left to do.
    unsafe { libc::ptrace(what, thread, address, data) };
}
