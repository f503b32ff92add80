//! What a forced scan has yet to take again, so that the scan after one that was cut short goes on and takes none twice.
//!
//! A file that was taken again looks like any other that is known. So a forced scan keeps its place in the order in which
//! files are told (see `candidates`), and beside it the names that it came to and that were not handed over.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What is yet to be taken though nothing changed: all of it, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Force {
    reached: Reached,
    /// Names up to there that were not handed over.
    left: BTreeSet<PathBuf>,
}

/// Up to where files were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    #[default]
    Nothing,
    /// A file with its rank.
    File(i64, OsString),
    Everything,
}

impl Force {
    /// Nothing but these.
    pub fn only(left: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { reached: Reached::Everything, left: left.into_iter().collect() }
    }

    /// Whether the file with this rank and name is still to be taken.
    pub fn asks_for(&self, rank: i64, name: &Path) -> bool {
        let beyond = match &self.reached {
            Reached::Nothing => true,
            Reached::File(last, reached) => (*last, reached.as_os_str()) < (rank, name.as_os_str()),
            Reached::Everything => false,
        };
        beyond || self.left.contains(name)
    }

    /// This file, and all before it, were taken.
    pub fn taken(&mut self, rank: i64, name: &Path) {
        self.left.remove(name);
        if self.asks_for(rank, name) {
            self.reached = Reached::File(rank, name.as_os_str().to_owned());
        }
    }

    /// Asks for what either asks for.
    pub fn join(&mut self, other: Self) {
        self.left.extend(other.left);
        let reached = std::mem::take(&mut self.reached);
        self.reached = reached.min(other.reached);
    }

    /// Whether nothing is left to be taken.
    pub fn is_over(&self) -> bool {
        self.reached == Reached::Everything && self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(force: &Force, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| force.asks_for(0, Path::new(name))).collect()
    }

    #[test]
    fn what_was_taken_is_not_asked_for_again_and_what_was_left_behind_is() {
        let names = ["a", "a-b", "a/b", "b", "c"];
        let mut force = Force::default();
        assert_eq!(asked(&force, &names), names);
        force.taken(0, Path::new("a"));
        force.taken(0, Path::new("a/b"));
        assert_eq!(asked(&force, &names), ["b", "c"], "in the order of the bytes, as the walk goes");
        force.join(Force::only(["a-b".into(), "a".into()]));
        assert_eq!(asked(&force, &names), ["a", "a-b", "b", "c"]);
        force.taken(0, Path::new("a"));
        assert_eq!(asked(&force, &names), ["a-b", "b", "c"], "and the place is kept");
        let mut rest = Force::only(["c".into()]);
        assert!(!rest.is_over());
        rest.taken(0, Path::new("c"));
        assert!(rest.is_over());
    }

    #[test]
    fn a_rank_comes_before_the_name() {
        let mut force = Force::default();
        force.taken(5, Path::new("m"));
        let asks = |rank, name| force.asks_for(rank, Path::new(name));
        assert!(asks(6, "a") && asks(5, "n") && !asks(5, "m") && !asks(5, "l") && !asks(4, "z"));
    }
}
