//! Signs of life: the watchdog asks, and each part answers from the loop in which it works. A part that hangs
//! can't answer, and so the service manager is not told that all is well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::Notifier;

/// The parts that have to show life; a handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct Pulses {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The round that is asked for; 0: none was yet.
    round: watch::Sender<u64>,
    /// Each part's last answered round, for as long as the part lives.
    parts: Mutex<Vec<(&'static str, Weak<AtomicU64>)>>,
}

impl Default for Pulses {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { round: watch::Sender::new(0), parts: Mutex::default() }) }
    }
}

impl Pulses {
    /// Adds a part. It is asked until it drops its pulse.
    pub fn register(&self, name: &'static str) -> Pulse {
        let round = self.shared.round.subscribe();
        let answered = Arc::new(AtomicU64::new(*round.borrow()));
        self.parts().push((name, Arc::downgrade(&answered)));
        Pulse { round, answered }
    }

    /// Begins a new round.
    pub fn ask(&self) {
        self.shared.round.send_modify(|round| *round += 1);
    }

    /// The parts that did not answer this round yet.
    pub fn silent(&self) -> Vec<&'static str> {
        let round = *self.shared.round.borrow();
        let mut silent = Vec::new();
        self.parts().retain(|(name, answered)| {
            let Some(answered) = answered.upgrade() else { return false };
            if answered.load(Ordering::Acquire) < round {
                silent.push(*name);
            }
            true
        });
        silent
    }

    fn parts(&self) -> MutexGuard<'_, Vec<(&'static str, Weak<AtomicU64>)>> {
        self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One part's answer. In the part's loop: `() = pulse.asked() => pulse.beat()`.
#[derive(Debug)]
pub struct Pulse {
    round: watch::Receiver<u64>,
    answered: Arc<AtomicU64>,
}

impl Pulse {
    /// Resolves when the part is asked; may be dropped at any time without losing a question.
    pub async fn asked(&mut self) {
        if self.round.changed().await.is_err() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }

    /// Waits for `work` and answers meanwhile: for what may rightly last, such as a disk that is full.
    pub async fn attend<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.asked() => self.beat(),
            }
        }
    }

    /// Answers: this part lives.
    pub fn beat(&self) {
        self.answered.store(*self.round.borrow(), Ordering::Release);
    }
}

/// Feeds the service manager's watchdog, at half its patience, as long as every part answers; where it does not
/// watch, sleeps for ever. To be dropped at the end.
pub async fn feed_watchdog(notifier: Notifier, pulses: Pulses) {
    let Some(patience) = notifier.watchdog() else { return std::future::pending().await };
    loop {
        // Whoever answers within half the patience costs no feeding.
        pulses.ask();
        tokio::time::sleep(patience / 2).await;
        let mut silent = pulses.silent();
        if !silent.is_empty() {
            tracing::error!(parts = silent.join(", "), "no sign of life: the watchdog is not fed until they answer");
        }
        // A late answer counts as soon as it is there: waiting for somebody else's lock may take most of the patience.
        while !silent.is_empty() {
            tokio::time::sleep(patience / 30).await;
            silent = pulses.silent();
        }
        notifier.alive();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::notify::tests::Manager;
    use super::*;

    #[tokio::test]
    async fn a_round_is_over_when_all_have_answered() {
        let pulses = Pulses::default();
        let (mut first, mut second) = (pulses.register("dispatcher"), pulses.register("watcher"));
        assert!(pulses.silent().is_empty());
        pulses.ask();
        first.asked().await;
        first.beat();
        assert_eq!(pulses.silent(), ["watcher"]);
        second.asked().await;
        second.beat();
        assert!(pulses.silent().is_empty());
        pulses.ask();
        assert_eq!(pulses.silent(), ["dispatcher", "watcher"]);
        drop(second);
        first.beat();
        assert!(pulses.silent().is_empty());
    }

    #[test]
    fn a_part_that_joins_during_a_round_is_not_silent() {
        let pulses = Pulses::default();
        pulses.ask();
        let _late = pulses.register("maintenance");
        assert!(pulses.silent().is_empty());
    }

    #[tokio::test]
    async fn the_watchdog_starves_with_a_part_that_hangs_and_is_fed_again_when_it_answers() {
        let (manager, notifier) = Manager::new(Some(Duration::from_millis(40)));
        let pulses = Pulses::default();
        let (mut lively, hanging) = (pulses.register("writer"), pulses.register("dispatcher"));
        let feeding = tokio::spawn(feed_watchdog(notifier, pulses.clone()));
        let living = tokio::spawn(async move {
            loop {
                lively.asked().await;
                lively.beat();
            }
        });
        let hangs = async {
            while pulses.silent() != ["dispatcher"] {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), hangs).await.unwrap();
        tokio::time::sleep(Duration::from_millis(120)).await;
        assert_eq!(manager.heard(), None);

        hanging.beat();
        let began = Instant::now();
        let fed = loop {
            if let Some(word) = manager.heard() {
                break word;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "the watchdog stays hungry");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert_eq!(fed, "WATCHDOG=1\n");
        feeding.abort();
        living.abort();
    }
}
