//! What the process does on a signal.

use std::io;

use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGIO, SIGTERM};

use super::Lifecycle;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Drain,
    StopNow,
    Reload,
    Nothing,
}

const fn wish(signal: i32, draining: bool) -> Wish {
    match (signal, draining) {
        (SIGTERM | SIGINT, false) => Wish::Drain,
        (SIGTERM | SIGINT, true) => Wish::StopNow,
        (SIGHUP, _) => Wish::Reload,
        _ => Wish::Nothing,
    }
}

/// The signals of this process, caught from its making on. Children start with the defaults.
pub struct Signals {
    stream: signal_hook_tokio::Signals,
}

impl Signals {
    /// Catches SIGTERM, SIGINT and SIGHUP; and two whose default would end the process: SIGIO, when a writer opens a file
    /// under a lease probe, and SIGXFSZ, where a write that exceeds a limit on files (`ulimit -f`) shall fail as any
    /// other does. To be called within the runtime, before the first part starts.
    ///
    /// # Errors
    /// When the machine refuses the handlers.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { stream: signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGIO, libc::SIGXFSZ])? })
    }

    /// Turns signals into what they ask for, for ever; to be dropped at the end.
    pub async fn obey(mut self, lifecycle: Lifecycle) {
        while let Some(signal) = self.stream.next().await {
            match wish(signal, lifecycle.draining.is_cancelled()) {
                Wish::Drain => {
                    tracing::info!(signal = name(signal), "stopping: running attempts may finish, nothing new starts");
                    lifecycle.drain();
                }
                Wish::StopNow => {
                    tracing::warn!(signal = name(signal), "stopping at once");
                    lifecycle.stop_now();
                }
                Wish::Reload => lifecycle.ask_reload(),
                Wish::Nothing => {}
            }
        }
    }
}

const fn name(signal: i32) -> &'static str {
    match signal {
        SIGTERM => "SIGTERM",
        SIGINT => "SIGINT",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_second_signal_to_stop_stops_at_once() {
        assert_eq!(wish(SIGTERM, false), Wish::Drain);
        assert_eq!(wish(SIGINT, true), Wish::StopNow);
        assert_eq!(wish(SIGHUP, true), Wish::Reload);
        assert_eq!(wish(SIGIO, true), Wish::Nothing);
    }

    /// Signals are the process's, so one test goes through all of them.
    #[tokio::test]
    async fn signals_of_the_process_reach_the_tokens() {
        let lifecycle = Lifecycle::default();
        let obeying = tokio::spawn(Signals::catch().unwrap().obey(lifecycle.clone()));
        let limit = Duration::from_secs(20);
        signal_hook::low_level::raise(SIGIO).unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        tokio::time::timeout(limit, lifecycle.reload_asked()).await.unwrap();
        assert!(!lifecycle.draining().is_cancelled());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        tokio::time::timeout(limit, lifecycle.draining().cancelled()).await.unwrap();
        assert!(!lifecycle.stopping_now().is_cancelled());
        signal_hook::low_level::raise(SIGINT).unwrap();
        tokio::time::timeout(limit, lifecycle.stopping_now().cancelled()).await.unwrap();
        obeying.abort();
    }
}
