//! What a running daemon tells of a watch.

use serde::{Deserialize, Serialize};

use crate::watch::{CoverageStatus, ScanKind, WaitsFor};

/// A watch as the daemon runs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveWatch {
    /// Its name.
    pub name: String,
    /// What it does.
    pub condition: WatchCondition,
    /// Files that are not whole yet.
    pub settling: u64,
    /// When its last comparison ended, in milliseconds since the epoch.
    pub last_scan_at_ms: Option<i64>,
    /// What is wrong with it.
    pub warning: Option<String>,
    /// After how long a new file is noticed at the latest, `settle` included, unless an event is lost without a trace.
    #[serde(default)]
    pub delay_ms: i64,
    /// Whether files that are gone are kept from counting as deleted, because of their number or because the root is
    /// another folder.
    #[serde(default)]
    pub held_back: bool,
    /// What it has done since the daemon started, and what it is about.
    #[serde(default)]
    pub activity: WatchActivity,
}

/// What a watch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchCondition {
    /// It listens to events.
    Native,
    /// It walks its tree again and again.
    Poll,
    /// It compares its tree with what is known.
    Scanning,
    /// A person paused it.
    Paused,
    /// Its folder is not there.
    Missing,
}

/// What a watch has done since the daemon started, and what it is about. Times are in milliseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchActivity {
    /// Files that were whole, and new or changed.
    pub seen: u64,
    /// Jobs that were made of them.
    pub taken: u64,
    /// Files that were noted as gone.
    pub vanished: u64,
    /// Files and folders that could not be read.
    pub errors: u64,
    /// The newest of them, with the reason.
    pub recent_errors: Vec<(String, String)>,
    /// The newest event.
    pub last_event_at_ms: Option<i64>,
    /// Times that events were lost and a scan took their place.
    pub events_lost: u64,
    /// The newest scan of the whole folder.
    pub last_scan: Option<ScanSummary>,
    /// How many entries each rule left alone in it, the most frequent first.
    pub excluded_by: Vec<(String, u64)>,
    /// The scan under way.
    pub scanning: Option<ScanUnderWay>,
    /// Some of the files that are not whole yet, those known for longest first.
    pub waiting: Vec<WaitingFile>,
    /// Some of the files that lack nothing but their companion (`ready_suffix`).
    pub not_ready: Vec<String>,
    /// Which folders are watched how.
    pub coverage: CoverageStatus,
    /// Files that are gone and that the brake keeps from counting as deleted.
    pub held_back: u64,
}

/// A scan of the whole folder that went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanSummary {
    /// How long it took.
    pub duration_ms: i64,
    /// Files that it met.
    pub files: u64,
    /// Of them new or changed.
    pub changed: u64,
    /// Entries that a rule left alone.
    pub excluded: u64,
    /// Of them, files whose companion was missing.
    pub not_ready: u64,
    /// Files that were too young.
    pub too_young: u64,
    /// Files that were gone.
    pub vanished: u64,
    /// Entries that could not be read.
    pub errors: u64,
}

/// A scan under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanUnderWay {
    /// What it is for.
    pub kind: ScanKind,
    /// When it began.
    pub started_at_ms: i64,
    /// Files that it met so far.
    pub files: u64,
    /// Of them new or changed.
    pub found: u64,
    /// Files met per second.
    #[serde(default)]
    pub rate_per_s: f64,
    /// The folder that it reads, relative to the root.
    pub current: String,
}

/// A file that is not whole yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingFile {
    /// Relative to the root, with replacement characters where it is not UTF-8.
    pub relative: String,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// Since when it has been as it is.
    pub quiet_since_ms: i64,
    /// When the daemon looks at it next.
    pub next_look_at_ms: i64,
}
