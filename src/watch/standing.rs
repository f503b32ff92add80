//! What the watch's task knows of single names under its root, for `explain` and the audit: it alone knows what
//! settles, what is being read, and which scan comes next.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::settle::WaitsFor;
use super::status::{Mode, ScanKind};
use super::task::WatchTask;
use crate::clock::Timestamp;

/// What a watch knows of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any of them may hold with any other")]
pub struct Standing {
    /// What it waits for, and since when it has been as it is, and when it is looked at next: where it is not whole.
    pub settling: Option<(WaitsFor, Timestamp, Timestamp)>,
    /// Its digest is being taken, or waits its turn.
    pub reading: bool,
    /// A scan that is under way or due comes to it, other than those that come round by time.
    pub scan_due: bool,
    /// It was found gone, and is looked for once more before that is noted.
    pub leaving: bool,
    /// Why it, or a folder above it, could not be read.
    pub error: Option<String>,
    /// Whether events tell of it; otherwise scans have to find it.
    pub native: bool,
    /// When the next scan comes to it by time at the latest.
    pub next_scan_at: Option<Timestamp>,
}

impl WatchTask {
    /// What is known of each of these names.
    pub(super) fn standings(&self, names: &[PathBuf]) -> Vec<Standing> {
        names.iter().map(|name| self.standing(name)).collect()
    }

    fn standing(&self, name: &Path) -> Standing {
        let native =
            self.status.mode == Mode::Native && !self.coverage.uncovered.iter().any(|out| name.starts_with(out));
        let next_poll = self.next_poll.filter(|_| !native);
        Standing {
            settling: self.settling.get(name).map(|file| {
                let (since, due) = (self.wall(file.quiet_since), self.wall(file.due()));
                (file.waits_for, since, due)
            }),
            reading: self.intake.holds(&self.tree.absolute(name)),
            scan_due: self.dirty.covers(name) || self.is_being_scanned(name),
            leaving: self.leaving.contains(name) || self.held.contains(name),
            error: self.error_of(name),
            native,
            next_scan_at: next_poll.into_iter().chain(self.next_full).min().map(|at| self.wall(at)),
        }
    }

    /// Whether a scan is under way that was asked for by more than the time.
    fn is_being_scanned(&self, name: &Path) -> bool {
        let asked = |scan: &&super::rescan::RunningScan| scan.kind != ScanKind::Periodic && !self.is_poll(scan);
        self.scan.as_ref().filter(asked).is_some_and(|scan| scan.comes_to(name))
    }

    fn error_of(&self, name: &Path) -> Option<String> {
        let errors = &self.status.recent_errors;
        let found = name.ancestors().find_map(|above| {
            let above = above.display().to_string();
            errors.iter().find(|(path, _)| *path == above)
        });
        found.map(|(_, error)| error.clone())
    }

    /// A moment of the timers by the wall clock.
    fn wall(&self, at: Instant) -> Timestamp {
        let (now, wall) = (Instant::now(), self.clock.now());
        if at >= now { wall.plus(at - now) } else { wall.minus(now - at) }
    }
}
