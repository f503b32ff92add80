//! Renames within a watch: a file under a new name is looked for among the known ones, and a name that is gone is not
//! told at once.
//!
//! 1. **Recognised** is a file under a name that is new, or where nothing was any more, if a file with its device,
//!    inode, size and modification time is known under a name at which there is nothing now. Its digest, where one is
//!    known, is taken by the intake, and the queue decides.
//! 2. **Held back** is a name that an event told to be gone, because its file may be on its way in under another: until
//!    its quiet time has passed once more, and a grace, and no scan is under way that could find it. Then it is looked
//!    for once more, and told. (What scans find gone comes after everything that they found; see `rescan`.)

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::handover::Whole;
use super::task::WatchTask;
use crate::config::OnRename;
use crate::intake::patiently;
use crate::store::{Renamed, StoreError};

/// How much longer than `settle` a file that is gone is waited for under another name.
const GRACE: Duration = Duration::from_secs(2);
/// How long at most for the sake of scans: in a tree that changes all the time there is always one.
const PATIENCE: Duration = Duration::from_mins(1);
/// Names that are held back at most of which events told; beyond, a scan has to find them later.
pub(super) const MOST_HELD: usize = 16_384;
/// How many are let go at once.
const BATCH: usize = 1_000;

/// A name that is held back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub due: Instant,
    pub since: Instant,
}

/// Names that are gone and not told yet, each with its own time. Pure.
#[derive(Debug)]
pub(super) struct Held {
    limit: usize,
    names: HashMap<PathBuf, Hold>,
    order: BTreeSet<(Instant, PathBuf)>,
}

impl Held {
    /// None yet; there is room for `limit`.
    pub fn new(limit: usize) -> Self {
        Self { limit, names: HashMap::new(), order: BTreeSet::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether this name is held back.
    pub fn contains(&self, name: &Path) -> bool {
        self.names.contains_key(name)
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    pub fn clear(&mut self) {
        self.names.clear();
        self.order.clear();
    }

    /// Holds a name back, unless it is held already. `false`: there is no room.
    pub fn add(&mut self, name: PathBuf, hold: Hold) -> bool {
        if self.names.contains_key(&name) {
            return true;
        }
        if self.names.len() >= self.limit {
            return false;
        }
        self.order.insert((hold.due, name.clone()));
        self.names.insert(name, hold);
        true
    }

    /// Takes some of those that are due.
    pub fn take(&mut self, now: Instant) -> Vec<(PathBuf, Hold)> {
        let mut taken = Vec::new();
        while taken.len() < BATCH
            && self.next_due().is_some_and(|due| due <= now)
            && let Some((_, name)) = self.order.pop_first()
        {
            taken.extend(self.names.remove_entry(&name));
        }
        taken
    }
}

impl WatchTask {
    /// Whether renames are recognised here, and if so, whether processors are told of them.
    pub(super) fn renames(&self) -> Option<bool> {
        match self.settings.watch.on_rename {
            OnRename::Separate => None,
            OnRename::Track => Some(false),
            OnRename::Modify => self.settings.watch.events.modify.then_some(true),
        }
    }

    /// How long a name that is gone is waited for under another: the file there has to settle.
    pub(super) fn time_for_renames(&self) -> Duration {
        self.settings.watch.settle + GRACE
    }

    /// For each of these files, the known one that it may be, where its name is new.
    pub(super) async fn origins(&self, files: &[(Whole, bool)]) -> Result<Vec<Option<Renamed>>, StoreError> {
        let mut origins = vec![None; files.len()];
        let new: Vec<usize> = (0..files.len()).filter(|at| files[*at].1).collect();
        let Some(told) = self.renames().filter(|_| !new.is_empty()) else { return Ok(origins) };
        let identities: Vec<_> = new.iter().map(|at| files[*at].0.identity).collect();
        let call = || self.scanner.sources.known_as(&self.settings.name, identities.clone());
        let names = patiently(&self.stop, "looking for renamed files", call).await?.unwrap_or_default();
        let asked: Vec<PathBuf> = names.iter().flatten().cloned().collect();
        if asked.is_empty() {
            return Ok(origins);
        }
        // A root that went away meanwhile proves nothing.
        let missing = self.scanner.missing(asked, self.armed).await.unwrap_or_default();
        let missing: BTreeSet<PathBuf> = missing.into_iter().collect();
        for (at, names) in new.into_iter().zip(names) {
            let from = names.into_iter().find(|name| missing.contains(name));
            origins[at] = from.map(|from| Renamed { from, told });
        }
        Ok(origins)
    }

    /// Events told that files are gone.
    pub(super) async fn hold_back(&mut self, names: Vec<PathBuf>) -> Result<(), StoreError> {
        if self.renames().is_none() {
            return self.vanish(names).await;
        }
        let now = Instant::now();
        let hold = Hold { due: now + self.time_for_renames(), since: now };
        for name in names {
            if !self.held.add(name, hold) {
                self.turned_away();
            }
        }
        Ok(())
    }

    /// Tells those that were held back for long enough.
    pub(super) async fn let_go(&mut self, now: Instant) -> Result<(), StoreError> {
        let scans = self.scan.is_some() || !self.dirty.is_clean();
        let mut gone = Vec::new();
        for (name, hold) in self.held.take(now) {
            if scans && now < hold.since + PATIENCE {
                self.held.add(name, Hold { due: now + GRACE, ..hold });
            } else {
                gone.push(name);
            }
        }
        let gone = self.keep_read(gone);
        match self.scanner.missing(gone, self.armed).await {
            Ok(missing) => self.vanish(missing).await,
            Err(_) => {
                self.look_around_anew();
                Ok(())
            }
        }
    }

    /// Of names that are gone, those that no file may have had that is being read; the others are held back.
    pub(super) fn keep_read(&mut self, names: Vec<PathBuf>) -> Vec<PathBuf> {
        let now = Instant::now();
        let (read, others): (Vec<_>, Vec<_>) = {
            let renamed = self.intake.renamed();
            names.into_iter().partition(|name| renamed.contains(name.as_path()))
        };
        for name in read {
            if !self.held.add(name, Hold { due: now + GRACE, since: now }) {
                self.turned_away();
            }
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_let_go_in_the_order_of_their_times_and_their_number_is_bounded() {
        let (mut held, now) = (Held::new(MOST_HELD), Instant::now());
        let hold = |seconds| Hold { due: now + Duration::from_secs(seconds), since: now };
        assert!(held.add("late".into(), hold(2)) && held.add("soon".into(), hold(1)));
        assert!(held.add("soon".into(), hold(9)), "the first time stands");
        assert_eq!(held.next_due(), Some(now + Duration::from_secs(1)));
        let taken = held.take(now + Duration::from_secs(1));
        assert_eq!(taken.iter().map(|(name, _)| name.as_path()).collect::<Vec<_>>(), [Path::new("soon")]);
        for n in 0..MOST_HELD {
            held.add(n.to_string().into(), hold(3));
        }
        assert_eq!(held.names.len(), MOST_HELD);
        assert!(!held.add("more".into(), hold(3)));
        assert_eq!(held.take(now + Duration::from_secs(3)).len(), BATCH);
    }
}
