//! What a watch tells about itself, for `status` and `watch list`, and for `run --once`.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::progress::ScanProgress;
use super::settle::WaitsFor;
use crate::clock::Timestamp;

/// How changes are noticed right now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "why")]
pub enum Mode {
    /// Not yet: the root is not there.
    #[default]
    None,
    /// By native events.
    Native,
    /// By walks, and why.
    Poll(String),
}

/// Where the root stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "why")]
pub enum Root {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// There.
    Present,
    /// Not there, or not to be read: nothing is taken for deleted.
    Missing(String),
    /// There, empty, and not the folder that it was: nothing is taken for deleted.
    Replaced,
}

/// A file that is not whole yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettlingFile {
    /// Relative to the root, with replacement characters where it is not UTF-8 (here and below).
    pub relative: String,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// Since when it has been as it is.
    pub quiet_since: Instant,
    /// When it is looked at next.
    pub next_look: Instant,
}

/// What a scan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScanKind {
    /// The first one since the daemon's start.
    Initial,
    /// Events were lost, the root is another one, the intake was closed, or a person asked for it.
    Recovery,
    /// Its time has come: of a polled tree, or of any tree in case events were lost.
    Periodic,
    /// Some folders only: they are new, or send no events.
    Folders,
}

/// Which folders are watched how, and what that means for a new file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageStatus {
    /// Folders that send events, as of the newest full scan.
    pub native_folders: u64,
    /// Some of the folders that are polled with all that is below (the empty path: the root).
    pub polled: Vec<String>,
    /// How many there are.
    pub polled_folders: u64,
    /// Why they are polled.
    pub polled_because: Option<String>,
    /// Some of the folders and files that can't be read, with the reason.
    pub unread: Vec<(String, String)>,
    /// After how long a new file is noticed at the latest where events tell of it; that and `settle`.
    pub native_delay_ms: Option<i64>,
    /// After how long a new file is noticed at the latest where the tree is polled.
    pub polled_delay_ms: Option<i64>,
    /// After how long at the latest a new file is found of which an event was lost without a trace.
    pub worst_delay_ms: Option<i64>,
}

/// The newest full scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LastScan {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub duration_ms: i64,
    /// Files that it saw.
    pub files: u64,
    /// Of them new or changed.
    pub changed: u64,
    /// Entries left alone by a rule.
    pub excluded: u64,
    /// Of them, files whose companion is missing.
    pub not_ready: u64,
    /// Files that were too young (`min_age`).
    pub too_young: u64,
    /// Files that had vanished.
    pub vanished: u64,
    /// Entries that could not be read.
    pub errors: u64,
}

/// A watch at a glance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchStatus {
    /// How changes are noticed.
    pub mode: Mode,
    /// Where the root stands.
    pub root: Root,
    /// Whether files are handed over (not paused, and room for them).
    pub open: bool,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// Files that are not whole yet.
    pub settling: usize,
    /// Some of them, those that have been known of for longest.
    pub settling_files: Vec<SettlingFile>,
    /// Files that somebody has open for writing.
    pub still_open: usize,
    /// Some of them, relative to the root.
    pub still_open_files: Vec<String>,
    /// Some of the files that lack nothing but their companion (`ready_suffix`).
    pub not_ready_files: Vec<String>,
    /// The scan under way.
    pub scanning: Option<ScanProgress>,
    /// The newest full scan.
    pub last_scan: Option<LastScan>,
    /// How many entries each rule left alone in that scan, the most frequent first; at most some dozens.
    pub excluded_by: Vec<(String, u64)>,
    /// Which folders are watched how.
    pub coverage: CoverageStatus,
    /// Files that are gone and that the brake keeps from counting as deleted.
    pub held_back: u64,
    /// The newest native event.
    pub last_event_at: Option<Timestamp>,
    /// Times that events were lost and a scan took their place.
    pub events_lost: u64,
    /// Files that were looked at because they were new or changed.
    pub seen: u64,
    /// Jobs that were made of them.
    pub taken: u64,
    /// Files named by events that a rule excludes.
    pub excluded: u64,
    /// Files that were noted as gone.
    pub vanished: u64,
    /// Files that could not be read.
    pub errors: u64,
    /// The newest of these errors, at most a few.
    pub recent_errors: Vec<(String, String)>,
    /// Everything that was found has been handed over, except for files that somebody still writes.
    pub idle: bool,
}
