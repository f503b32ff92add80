//! What the tests of the real program share.
//!
//! 1. A [`Place`] is a folder of its own for each test: configuration, state directory, inbox, and the command line
//!    with an environment that holds nothing of the machine's.
//! 2. A [`Daemon`] runs in a place; it is ready when it says so to its service manager, and dies with the test.
//! 3. Nothing sleeps for luck: [`wait_until`] and [`wait_for`] wait for conditions, and say which never came.
//! 4. A [`Confined`] daemon lives in namespaces of its own: limits and mounts end with it, and no test ever changes a
//!    setting of the machine (`/proc/sys/fs/inotify` is the whole machine's, whatever the namespace).
//! 5. Processors leave traces outside the program: the [`Ledger`] of an exec job, the requests at a [`Server`].

mod confined;
mod daemon;
mod files;
mod http;
mod ledger;
mod opens;
mod place;
mod processes;
mod stranger;
mod terminal;
mod tools;
mod wait;

pub use confined::{Confined, Limits};
pub use daemon::{Daemon, Process};
pub use files::{blake3_of, corpus, sha256_of, write_new};
pub use http::{Answer, Received, Server, Slow};
pub use ledger::Ledger;
pub use opens::Opens;
pub use place::{Output, Place, count, finish, text};
pub use processes::marked_processes;
pub use stranger::{NOBODY, daemon_again_as_nobody, daemon_as_nobody, nobody_can_run};
pub use terminal::Terminal;
pub use tools::{has_tools, run};
pub use wait::{wait_for, wait_until};

/// Whether the long forms are asked for: `INGESTD_LONG=1`.
pub fn long() -> bool {
    std::env::var_os("INGESTD_LONG").is_some_and(|value| value == "1")
}
