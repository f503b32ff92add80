//! What a scan found, on its way to the watch's task: in the order of the walk, or the newest or oldest first.
//!
//! An order needs all that is to be ordered, and a scan may find more files than memory should hold. So the best
//! [`MAX_ORDERED`] of a scan are told, and if there were more, another scan follows, which finds those known and takes
//! the best of the rest.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::path::PathBuf;

use tokio::sync::mpsc;

use super::batches::Batches;
use crate::config::WatchOrder;
use crate::job::FileIdentity;

/// How many candidates one scan orders; some 200 bytes each.
const MAX_ORDERED: usize = 100_000;

/// A file that may have to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub relative: PathBuf,
    pub identity: FileIdentity,
    /// Whether it is taken though nothing changed.
    pub force: bool,
    /// Whether it is whole, as the scan saw.
    pub whole: bool,
    /// Whether the database has it as present.
    pub known: bool,
}

/// The place of a file in this order; among those of the same rank, their names decide, by their bytes.
pub(super) const fn rank(order: WatchOrder, identity: &FileIdentity) -> i64 {
    match order {
        WatchOrder::Path => 0,
        WatchOrder::Newest => identity.mtime_ns.saturating_neg(),
        WatchOrder::Oldest => identity.mtime_ns,
    }
}

/// A candidate with its rank: the lower, the sooner.
#[derive(Debug, PartialEq, Eq)]
struct Ranked {
    rank: i64,
    candidate: Candidate,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.rank, self.candidate.relative.as_os_str()).cmp(&(other.rank, other.candidate.relative.as_os_str()))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Gathers candidates and tells them.
#[derive(Debug)]
pub(super) struct Candidates {
    order: WatchOrder,
    batches: Batches<Candidate>,
    /// The best so far, the worst of them on top.
    best: BinaryHeap<Ranked>,
    limit: usize,
    told: u64,
    left_out: bool,
}

impl Candidates {
    pub fn new(order: WatchOrder, listener: mpsc::Sender<Vec<Candidate>>) -> Self {
        let (batches, best) = (Batches::new(listener), BinaryHeap::new());
        Self { order, batches, best, limit: MAX_ORDERED, told: 0, left_out: false }
    }

    /// Takes one. Blocks while the listener is busy.
    pub fn add(&mut self, candidate: Candidate) {
        let rank = match self.order {
            WatchOrder::Path => return self.tell(candidate),
            order => rank(order, &candidate.identity),
        };
        self.best.push(Ranked { rank, candidate });
        if self.best.len() > self.limit {
            self.best.pop();
            self.left_out = true;
        }
    }

    fn tell(&mut self, candidate: Candidate) {
        self.told += 1;
        self.batches.push(candidate);
    }

    /// Tells the rest. `false`: nobody listens any more.
    pub fn finish(&mut self) -> bool {
        for Ranked { candidate, .. } in std::mem::take(&mut self.best).into_sorted_vec() {
            self.tell(candidate);
        }
        self.batches.finish()
    }

    /// Whether anybody listens.
    pub fn wanted(&self) -> bool {
        self.batches.wanted()
    }

    /// How many were told.
    pub const fn told(&self) -> u64 {
        self.told
    }

    /// Whether some were not told, for want of room.
    pub const fn left_out(&self) -> bool {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(order: WatchOrder, limit: usize, mtimes: &[i64]) -> (Vec<i64>, bool) {
        let (sender, mut receiver) = mpsc::channel(10);
        let mut candidates = Candidates::new(order, sender);
        candidates.limit = limit;
        for mtime_ns in mtimes {
            let identity = FileIdentity { mtime_ns: *mtime_ns, ..FileIdentity::default() };
            let relative = PathBuf::from(mtime_ns.to_string());
            candidates.add(Candidate { relative, identity, force: false, whole: true, known: false });
        }
        assert!(candidates.finish());
        let told = receiver.try_recv().unwrap().iter().map(|candidate| candidate.identity.mtime_ns).collect();
        (told, candidates.left_out())
    }

    #[test]
    fn the_newest_or_the_oldest_come_first_and_the_rest_is_left_to_another_scan() {
        let mtimes = [5, 1, 4, 2, 3];
        assert_eq!(told(WatchOrder::Path, 2, &mtimes), (mtimes.to_vec(), false));
        assert_eq!(told(WatchOrder::Newest, 5, &mtimes), (vec![5, 4, 3, 2, 1], false));
        assert_eq!(told(WatchOrder::Oldest, 2, &mtimes), (vec![1, 2], true));
        assert_eq!(told(WatchOrder::Newest, 2, &mtimes), (vec![5, 4], true));
    }
}
