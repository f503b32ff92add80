//! What an operator should know right now: every station sets and clears its warnings here; `status` lists them
//! and `health` judges by them.
//!
//! A warning has a key, which names the condition, and a message, which is for people. Setting it again with
//! the same message changes nothing, so a loop may set it on every turn: it is logged when it appears, when
//! its words or its severity change, and when it goes. Messages therefore hold no figure that moves by itself, unless
//! it is put there by [`Warnings::reword`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::clock::{Clock, Timestamp};

/// Warnings that are kept at once. Whoever has this many needs no further one.
const LIMIT: usize = 256;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Work goes on, and somebody should look: `health` exits with 1.
    Warning,
    /// Work or data is in danger: `health` exits with 2.
    Critical,
}

/// One condition that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Names the condition, for instance `maintenance.backup` or `watch.inbox.root`.
    pub key: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, where, and what to do.
    pub message: String,
    /// Since when the condition holds, however often its words changed.
    pub since: Timestamp,
}

/// The warnings of this process; a handle, cheap to clone.
#[derive(Clone)]
pub struct Warnings {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    held: Mutex<BTreeMap<String, Warning>>,
}

impl Warnings {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { clock, held: Mutex::default() }) }
    }

    /// The condition `key` holds. Logs it, unless it is known in these words.
    pub fn set(&self, key: &str, severity: Severity, message: impl Into<String>) {
        let message = message.into();
        let mut held = self.lock();
        let known = held.get(key).cloned();
        if known.as_ref().is_some_and(|known| known.severity == severity && known.message == message) {
            return;
        }
        if known.is_none() && held.len() >= LIMIT && !make_room(&mut held, severity) {
            return;
        }
        let since = known.map_or_else(|| self.shared.clock.now(), |known| known.since);
        match severity {
            Severity::Warning => tracing::warn!(warning = key, "{message}"),
            Severity::Critical => tracing::error!(warning = key, "{message}"),
        }
        held.insert(key.to_owned(), Warning { key: key.to_owned(), severity, message, since });
    }

    /// Puts other words to a condition that holds, without logging them: for a figure in them that moves by itself.
    pub fn reword(&self, key: &str, message: impl Into<String>) {
        if let Some(known) = self.lock().get_mut(key) {
            known.message = message.into();
        }
    }

    /// The condition `key` does not hold, or not any more.
    pub fn clear(&self, key: &str) {
        if let Some(gone) = self.lock().remove(key) {
            tracing::info!(warning = key, "over: {}", gone.message);
        }
    }

    /// Every condition that holds, the worst first, then by key.
    pub fn list(&self) -> Vec<Warning> {
        let mut list: Vec<Warning> = self.lock().values().cloned().collect();
        list.sort_by_key(|warning| std::cmp::Reverse(warning.severity));
        list
    }

    /// The worst that holds.
    pub fn worst(&self) -> Option<Severity> {
        self.lock().values().map(|warning| warning.severity).max()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Warning>> {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A critical warning displaces a lesser one when the table is full; answers whether there is room.
fn make_room(held: &mut BTreeMap<String, Warning>, severity: Severity) -> bool {
    let lesser = held.values().find(|warning| warning.severity < severity).map(|warning| warning.key.clone());
    lesser.is_some_and(|key| held.remove(&key).is_some())
}

impl fmt::Debug for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_condition_keeps_its_beginning_while_its_words_change() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000)));
        let warnings = Warnings::new(clock.clone());
        warnings.set("root", Severity::Warning, "the folder is gone");
        clock.advance(Duration::from_secs(5));
        warnings.set("root", Severity::Critical, "the folder is gone, and its disk too");
        let list = warnings.list();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].since, Timestamp::from_millis(1_000));
        assert_eq!(list[0].severity, Severity::Critical);
        warnings.clear("root");
        assert!(warnings.list().is_empty());
        assert_eq!(warnings.worst(), None);
    }

    #[test]
    fn the_worst_comes_first() {
        let warnings = Warnings::new(Arc::new(ManualClock::at(Timestamp::default())));
        warnings.set("a", Severity::Warning, "a");
        warnings.set("b", Severity::Critical, "b");
        let keys: Vec<String> = warnings.list().into_iter().map(|warning| warning.key).collect();
        assert_eq!(keys, ["b", "a"]);
        assert_eq!(warnings.worst(), Some(Severity::Critical));
    }

    #[test]
    fn a_full_table_still_takes_what_is_critical() {
        let warnings = Warnings::new(Arc::new(ManualClock::at(Timestamp::default())));
        for n in 0..LIMIT + 10 {
            warnings.set(&format!("{n:04}"), Severity::Warning, "x");
        }
        assert_eq!(warnings.list().len(), LIMIT);
        warnings.set("worse", Severity::Critical, "y");
        assert_eq!(warnings.list().len(), LIMIT);
        assert_eq!(warnings.list()[0].key, "worse");
    }
}
