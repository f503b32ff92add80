//! The root: whether it is there, whether it is the one that it was, and how its changes are noticed.

use std::time::Duration;

use tokio::time::Instant;

use super::native::Native;
use super::rescan::Coverage;
use super::status::{CoverageStatus, Mode, Root};
use super::task::{NAMES, WatchTask};
use super::tree::{FolderId, is_remote};
use crate::clock::millis;
use crate::config::WatchMode;

impl WatchTask {
    /// Looks at the root, and arms or disarms the watch. A root that is not there is looked for every
    /// `poll_interval`; one that is another folder than before is armed anew and scanned.
    pub(super) async fn check_root(&mut self) {
        self.check_root_at = None;
        let root = self.tree.root().to_owned();
        let Some(found) = self.aside(move || FolderId::readable(&root)).await else { return };
        match found {
            Ok(id) if self.armed == Some(id) && !std::mem::take(&mut self.root_went) => (),
            Ok(id) => self.arm(id).await,
            Err(error) => self.disarm(&error),
        }
        // No event tells that a link leads elsewhere.
        if self.armed.is_some() && self.real_root != self.tree.root() {
            self.check_root_at = Some(Instant::now() + self.settings.watch.poll_interval);
        }
    }

    async fn arm(&mut self, id: FolderId) {
        if self.armed.is_some() || matches!(self.status.root, Root::Missing(_)) {
            tracing::info!(watch = self.settings.name, "the folder is there; watching it");
        }
        self.native = None;
        let root = self.tree.root().to_owned();
        let look = move || (is_remote(&root), std::fs::canonicalize(&root).unwrap_or(root));
        let Some((remote, real_root)) = self.aside(look).await else { return };
        (self.remote, self.real_root, self.root_went) = (remote, real_root, false);
        self.mounted = self.find_mounts();
        self.status.mode = self.choose_mode().await;
        self.status.root = Root::Present;
        self.armed = Some(id);
        self.next_full = None;
        self.forget_tree();
        self.runs.missed();
        // The events are on from here, so whatever comes after this scan has one.
        self.dirty.everything(Instant::now());
        self.refresh_warnings();
    }

    async fn choose_mode(&mut self) -> Mode {
        match self.settings.watch.mode {
            WatchMode::Poll => return Mode::Poll("as configured".to_owned()),
            WatchMode::Auto if self.remote => return Mode::Poll("a network filesystem sends no events".to_owned()),
            WatchMode::Auto | WatchMode::Native => (),
        }
        let root = self.tree.root().to_owned();
        match self.aside(move || Native::start(&root)).await {
            Some(Ok(native)) => {
                self.native = Some(native);
                Mode::Native
            }
            Some(Err(why)) => Mode::Poll(why),
            None => Mode::None,
        }
    }

    fn disarm(&mut self, error: &std::io::Error) {
        let why = format!("{}: {error}", self.tree.root().display());
        if !matches!(self.status.root, Root::Missing(_)) {
            tracing::warn!(watch = self.settings.name, "the folder is missing or can't be read; waiting for it: {why}");
        }
        self.native = None;
        self.armed = None;
        self.next_full = None;
        self.forget_tree();
        self.forget_settling();
        self.held.clear();
        self.status.mode = Mode::None;
        self.status.root = Root::Missing(why.clone());
        self.wish.refuse(&why);
        self.check_root_at = Some(Instant::now() + self.settings.watch.poll_interval);
        self.refresh_warnings();
    }

    /// What was found out about the tree is of another one.
    fn forget_tree(&mut self) {
        self.next_poll = None;
        self.next_ripe = None;
        self.leaving.clear();
        self.coverage = Coverage::default();
        self.brake.release();
    }

    /// Native events can't cover the whole tree: from now on it is polled.
    pub(super) fn fall_back(&mut self, why: String) {
        self.native = None;
        self.coverage = Coverage::default();
        self.next_poll = None;
        self.status.mode = Mode::Poll(why);
        self.next_full = None;
        self.lost();
        self.refresh_warnings();
    }

    pub(super) fn refresh_warnings(&mut self) {
        let mut warnings = Vec::new();
        match &self.status.root {
            Root::Missing(why) => warnings.push(format!("the folder is missing or can't be read: {why}")),
            Root::Replaced => {
                let root = self.tree.root().display();
                warnings.push(format!("{root} is empty and not the folder that it was: nothing counts as deleted"));
            }
            Root::Unknown | Root::Present => (),
        }
        if let Mode::Poll(why) = &self.status.mode
            && self.settings.watch.mode != WatchMode::Poll
            && !self.remote
        {
            warnings.push(format!("polled for want of events: {why}"));
        }
        if let Some(why) = &self.coverage.why {
            warnings.push(format!("some of its folders send no events and are polled, with all below: {why}"));
        }
        if self.brake.held().is_some() {
            // Without the number, which moves: the words are logged whenever they are new.
            warnings.push(format!(
                "so many files are gone that none counts as deleted for now (`delete_brake`); \
                 `ingestd watch confirm {}` says that it is meant",
                self.settings.name
            ));
        }
        self.status.warnings = warnings;
    }

    /// Which folders are watched how, for a person.
    pub(super) fn cover_status(&self) -> CoverageStatus {
        let watch = &self.settings.watch;
        let took = self.status.last_scan.map_or(0, |scan| scan.duration_ms.unsigned_abs());
        let took = Duration::from_millis(took);
        let native = self.status.mode == Mode::Native;
        let (polled, polled_folders, because) = match &self.status.mode {
            Mode::Native => {
                let uncovered = &self.coverage.uncovered;
                let named = uncovered.iter().take(NAMES).map(|folder| folder.display().to_string());
                (named.collect(), uncovered.len() as u64, self.coverage.why.clone())
            }
            Mode::Poll(why) => (vec![String::new()], 1, Some(why.clone())),
            Mode::None => (Vec::new(), 0, None),
        };
        // A polled tree rests after each scan, and a file may come right after the scan went by.
        let polled_delay = millis(self.rest_after(took) + took + watch.settle);
        CoverageStatus {
            native_folders: if native { self.coverage.folders } else { 0 },
            polled,
            polled_folders,
            polled_because: because,
            unread: self.status.recent_errors.clone(),
            native_delay_ms: native.then(|| millis(watch.settle)),
            polled_delay_ms: (polled_folders > 0).then_some(polled_delay),
            worst_delay_ms: match self.status.mode {
                Mode::Native => Some(millis(watch.rescan_interval + took + watch.settle)),
                Mode::Poll(_) => Some(polled_delay),
                Mode::None => None,
            },
        }
    }
}
