//! How the daemon lives and ends: signals, the service manager, the watchdog, and the parts whose death is its
//! own. The only place for any of these.
//!
//! 1. **Two tokens.** *Draining* (the first SIGTERM or SIGINT): take nothing new, finish what runs. *Stopping
//!    now* (the second one): let go of everything. The second implies the first.
//! 2. **The service manager** hears READY, STATUS, RELOADING, STOPPING, and requests for more time, over
//!    `NOTIFY_SOCKET`; where there is none, all of it is silence.
//! 3. **The watchdog** is fed for the parts, not by the clock: each round, every part is asked and answers from
//!    its own loop; only when all have answered the last round is the service manager told. Without
//!    `WATCHDOG_USEC` nothing ticks.
//! 4. **Parts** are named tasks. None ends before it is told to, so the first end is news, and the composition
//!    root decides.

mod notify;
mod parts;
mod pulse;
mod signals;

pub use notify::Notifier;
pub use parts::{End, Parts};
pub use pulse::{Pulse, Pulses, feed_watchdog};
pub use signals::Signals;

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The two tokens and the wish to reload; a handle, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    draining: CancellationToken,
    stopping_now: CancellationToken,
    reload: Arc<Notify>,
}

impl Lifecycle {
    /// Cancelled when nothing new may begin.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Cancelled when everything has to end at once.
    pub fn stopping_now(&self) -> CancellationToken {
        self.stopping_now.clone()
    }

    /// Begins the graceful stop.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Begins the stop at once.
    pub fn stop_now(&self) {
        self.draining.cancel();
        self.stopping_now.cancel();
    }

    /// Resolves once for any number of SIGHUPs since the last time; for one waiter.
    pub async fn reload_asked(&self) {
        self.reload.notified().await;
    }

    /// Asks for a reload, as SIGHUP does.
    pub fn ask_reload(&self) {
        self.reload.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn stopping_now_implies_draining() {
        let lifecycle = Lifecycle::default();
        lifecycle.stop_now();
        assert!(lifecycle.draining().is_cancelled());
        assert!(lifecycle.stopping_now().is_cancelled());
    }

    #[test]
    fn wishes_to_reload_merge_and_are_not_lost() {
        let lifecycle = Lifecycle::default();
        lifecycle.ask_reload();
        lifecycle.ask_reload();
        assert!(lifecycle.reload_asked().now_or_never().is_some());
        assert!(lifecycle.reload_asked().now_or_never().is_none());
    }
}
