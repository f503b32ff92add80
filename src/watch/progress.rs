//! How far a scan has come: counted by the walk on its own thread, read by the watch's task.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::status::ScanKind;
use crate::clock::Timestamp;

/// The counters of a scan under way.
#[derive(Debug)]
pub(super) struct Progress {
    kind: ScanKind,
    started_at: Timestamp,
    files: AtomicU64,
    folders: AtomicU64,
    found: AtomicU64,
    current: Mutex<PathBuf>,
}

/// How far a scan has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScanProgress {
    /// What it is for.
    pub kind: ScanKind,
    /// When it began.
    pub started_at: Timestamp,
    /// Files that it met so far.
    pub files: u64,
    /// Folders that it read so far.
    pub folders: u64,
    /// Of the files, those that are new or changed.
    pub found: u64,
    /// The folder that it reads, relative to the root, with replacement characters where it is not UTF-8.
    pub current: String,
}

impl ScanProgress {
    /// Files met per second, over this time.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people shows few digits")]
    pub fn rate_per_s(&self, over: Duration) -> f64 {
        self.files as f64 / over.as_secs_f64().max(0.001)
    }
}

impl Progress {
    pub fn begin(kind: ScanKind, started_at: Timestamp) -> Self {
        let zero = AtomicU64::default;
        Self { kind, started_at, files: zero(), folders: zero(), found: zero(), current: Mutex::default() }
    }

    pub fn enter(&self, folder: &Path) {
        self.folders.fetch_add(1, Ordering::Relaxed);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clear();
        current.push(folder);
    }

    pub fn meet(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub fn find(&self) {
        self.found.fetch_add(1, Ordering::Relaxed);
    }

    /// The folder that it reads, relative to the root.
    pub fn folder(&self) -> PathBuf {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn read(&self) -> ScanProgress {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ScanProgress {
            kind: self.kind,
            started_at: self.started_at,
            files: count(&self.files),
            folders: count(&self.folders),
            found: count(&self.found),
            current: self.folder().display().to_string(),
        }
    }
}
