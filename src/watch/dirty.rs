//! What has to be scanned, and when. Pure.
//!
//! A folder that appears is scanned at once and once more a little later: files that were put into it before its
//! native watch was in place had no event, and the watch may be set up after the first scan went by.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// When a new folder is scanned again.
pub const AGAIN: Duration = Duration::from_millis(300);
/// With more folders than this, everything is scanned.
const LIMIT: usize = 1_024;

/// Folders that have to be scanned.
#[derive(Debug, Default)]
pub struct Dirty {
    folders: BTreeSet<(Instant, PathBuf)>,
    everything: Option<Instant>,
}

/// What to scan now.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// These folders, none below another.
    Folders(Vec<PathBuf>),
    /// All of it.
    Everything,
}

impl Dirty {
    /// A folder is new or changed in a way that events do not tell.
    pub fn folder(&mut self, relative: PathBuf, now: Instant) {
        if self.folders.len() + 2 > LIMIT {
            self.folders.clear();
            self.everything(now + AGAIN);
        }
        self.folders.insert((now + AGAIN, relative.clone()));
        self.folders.insert((now, relative));
    }

    /// Something was lost: everything has to be scanned at that time, or sooner if that was so before.
    pub fn everything(&mut self, at: Instant) {
        self.everything = Some(self.everything.map_or(at, |sooner| sooner.min(at)));
    }

    /// Whether nothing has to be scanned, now or later.
    pub fn is_clean(&self) -> bool {
        self.folders.is_empty() && self.everything.is_none()
    }

    /// Whether a scan that is due, now or later, comes to this name.
    pub fn covers(&self, relative: &Path) -> bool {
        self.everything.is_some() || self.folders.iter().any(|(_, folder)| relative.starts_with(folder))
    }

    /// Whether everything has to be scanned, now or later.
    pub const fn wants_everything(&self) -> bool {
        self.everything.is_some()
    }

    /// When the next scan is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.everything.into_iter().chain(self.folders.first().map(|(due, _)| *due)).min()
    }

    /// Takes what is due. A scan of everything takes the folders that are due by then with it.
    pub fn take(&mut self, now: Instant) -> Due {
        let mut folders: Vec<PathBuf> = Vec::new();
        while self.folders.first().is_some_and(|(due, _)| *due <= now) {
            folders.extend(self.folders.pop_first().map(|(_, folder)| folder));
        }
        if self.everything.take_if(|due| *due <= now).is_some() {
            return Due::Everything;
        }
        folders.sort_unstable();
        folders.dedup_by(|below, above| below.starts_with(&*above));
        if folders.is_empty() { Due::Nothing } else { Due::Folders(folders) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_is_scanned_now_and_once_more() {
        let (mut dirty, now) = (Dirty::default(), Instant::now());
        dirty.folder(PathBuf::from("a"), now);
        dirty.folder(PathBuf::from("a/b"), now);
        dirty.folder(PathBuf::from("ab"), now);
        assert!(dirty.covers(Path::new("a/x")) && !dirty.covers(Path::new("abc")));
        assert_eq!(dirty.take(now), Due::Folders(vec![PathBuf::from("a"), PathBuf::from("ab")]));
        assert_eq!(dirty.take(now), Due::Nothing);
        assert_eq!(dirty.next_due(), Some(now + AGAIN));
        assert_eq!(dirty.take(now + AGAIN), Due::Folders(vec![PathBuf::from("a"), PathBuf::from("ab")]));
        assert!(dirty.is_clean());
    }

    #[test]
    fn too_many_folders_become_everything() {
        let (mut dirty, now) = (Dirty::default(), Instant::now());
        for n in 0..LIMIT {
            dirty.folder(PathBuf::from(n.to_string()), now);
        }
        assert!(dirty.folders.len() <= LIMIT);
        assert_eq!(dirty.take(now + AGAIN), Due::Everything);
        assert!(dirty.is_clean());
    }
}
