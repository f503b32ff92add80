//! How commands reach the queue: one set of requests, one place that carries them out.
//!
//! 1. A command that writes makes a [`Request`].
//! 2. While a daemon runs, the request goes over its socket, which lies beside the database ([`client`],
//!    [`server`]): the daemon's writer stays the only one.
//! 3. Without a daemon the command opens the database itself, under a shared [`lock`], and calls the same
//!    [`execute()`] that the daemon would have called, only with no [`Live`] part.
//! 4. What only a living daemon can do (stop a running job, scan a watch) goes through [`Live`].
//!
//! The protocol is lines of JSON over a Unix socket: one request, one answer, and so on; after
//! [`Request::Changes`] the answers come by themselves, one for each change.

mod add;
pub mod client;
mod effects;
mod execute;
#[cfg(test)]
pub(crate) mod fake;
mod files;
mod hands;
mod live_watch;
pub mod lock;
pub mod mode;
pub mod replacement;
mod request;
mod runs;
pub mod server;
mod steer;
mod sync;
mod throttle;
mod upkeep;
mod watches;

pub use client::Client;
pub use effects::{EffectAnswer, Execution, ReachStage, Resolve, StageAnswer, StageOf, over};
pub use execute::execute;
pub use files::LiveFile;
pub use hands::{Hands, Live, Refusal, Stores};
pub use live_watch::{LiveWatch, ScanSummary, ScanUnderWay, WaitingFile, WatchActivity, WatchCondition};
pub use lock::{Lock, LockError};
pub use request::{
    Add, Added, AddedAs, Code, Confirmed, Duty, LiveStatus, LiveWarning, Pong, Request, Response, RunningJob, Scanned,
    SteerAnswer, SteerResult,
};
pub use runs::RunHand;
pub use server::Listener;
pub use sync::{
    Asks, Entry, ListedContent, ListedWork, SyncBegin, SyncBegun, SyncLines, SyncMissing, SyncTaken, Trouble,
};
pub use throttle::{BreakerCondition, LiveBreaker, LiveRate, LiveThrottle};
pub use watches::adopt_key;

pub use crate::job::WirePath;

use std::path::{Path, PathBuf};

/// The most bytes that one line of the protocol may have, in either direction.
pub const LINE_LIMIT: usize = 64 << 20;

/// The socket of the daemon on this database: its name with `sock` instead of `db`, beside it. Each database has
/// its own, so a command never speaks to the daemon of another one.
pub fn socket_path(database: &Path) -> PathBuf {
    database.with_extension("sock")
}
