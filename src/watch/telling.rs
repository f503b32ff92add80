//! What the watch's task tells of itself: its status, a few times a second at most, and whether it is idle.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::rescan::RunningScan;
use super::settle::{Sighting, WaitsFor};
use super::status::{Root, ScanKind, SettlingFile};
use super::task::{NAMES, WatchTask};

/// How often the status is told at most, except when it becomes or ceases to be idle.
const TELL_EVERY: Duration = Duration::from_millis(100);

impl WatchTask {
    /// Tells the status, unless it was told a moment ago; then answers when to.
    pub(super) fn tell(&mut self) -> Option<Instant> {
        let (now, idle) = (Instant::now(), self.is_idle());
        self.status.idle = idle;
        self.status.settling = self.settling.len();
        self.status.still_open = self.settling.still_open();
        if now < self.next_telling && self.told.borrow().idle == idle {
            return Some(self.next_telling).filter(|_| !self.is_told());
        }
        self.name_settling();
        self.describe();
        if !self.is_told() {
            self.told.send_replace(self.status.clone());
        }
        self.next_telling = now + TELL_EVERY;
        None
    }

    fn is_told(&self) -> bool {
        *self.told.borrow() == self.status
    }

    /// Some of the files that are not whole yet: those that have been known of for longest.
    fn name_settling(&mut self) {
        let mut all: Vec<(&Path, &Sighting)> = self.settling.iter().collect();
        if all.len() > NAMES {
            all.select_nth_unstable_by_key(NAMES, |(relative, file)| (file.since, *relative));
            all.truncate(NAMES);
        }
        all.sort_unstable_by_key(|(relative, file)| (file.since, *relative));
        let name = |relative: &Path| relative.display().to_string();
        let told = |(relative, file): (&Path, &Sighting)| SettlingFile {
            relative: name(relative),
            waits_for: file.waits_for,
            quiet_since: file.quiet_since,
            next_look: file.due(),
        };
        self.status.settling_files = all.into_iter().map(told).collect();
        let open = self.settling.iter().filter(|(_, file)| file.waits_for == WaitsFor::Close).take(NAMES);
        self.status.still_open_files = open.map(|(relative, _)| name(relative)).collect();
    }

    /// What is read off the parts of the task.
    fn describe(&mut self) {
        self.status.scanning = self.scan.as_ref().map(|scan| scan.progress.read());
        self.status.held_back = self.brake.held().map_or(0, |held| held.files);
        self.status.coverage = self.cover_status();
        self.status.not_ready_files = self.not_ready.iter().map(|relative| relative.display().to_string()).collect();
    }

    pub(super) fn is_idle(&self) -> bool {
        if !self.status.open || self.check_root_at.is_some_and(|at| at <= Instant::now()) {
            return false;
        }
        if self.armed.is_none() {
            return matches!(self.status.root, Root::Missing(_));
        }
        // Polls of folders without events never end, and what they find settles first.
        let asked = |scan: &RunningScan| scan.kind != ScanKind::Periodic && !self.is_poll(scan);
        let scanning = self.scan.as_ref().is_some_and(asked);
        self.scanned_once
            && !scanning
            && self.leaving.is_empty()
            && self.held.is_empty()
            && self.dirty.is_clean()
            && self.has_handed_over()
    }

    /// Notes what could not be read, and answers whether that is news: every scan meets the same errors again.
    pub(super) fn note_error(&mut self, relative: &Path, error: String) -> bool {
        let error = (relative.display().to_string(), error);
        if self.status.recent_errors.contains(&error) {
            return false;
        }
        self.status.errors += 1;
        if self.status.recent_errors.len() >= NAMES {
            self.status.recent_errors.remove(0);
        }
        self.status.recent_errors.push(error);
        true
    }

    /// Notes that a file was looked at, and whether all that it lacks is its companion.
    pub(super) fn note_companion(&mut self, relative: &Path, missing: bool) {
        if !missing {
            self.not_ready.remove(relative);
        } else if self.not_ready.len() < NAMES {
            self.not_ready.insert(relative.to_owned());
        }
    }

    /// The same for all of the tree.
    pub(super) fn note_not_ready(&mut self, first: &[PathBuf]) {
        self.not_ready = first.iter().take(NAMES).cloned().collect();
    }
}
