//! What a running daemon tells of single files and folders of a watch.

use serde::{Deserialize, Serialize};

use crate::watch::WaitsFor;

/// A name under the root of a watch, as the daemon knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any of them may hold with any other")]
pub struct LiveFile {
    /// What it waits for, where it is not whole yet.
    pub waits_for: Option<WaitsFor>,
    /// Since when it has been as it is, in milliseconds since the epoch, where it is not whole yet.
    pub quiet_since_ms: Option<i64>,
    /// When the daemon looks at it next, in milliseconds since the epoch, where it is not whole yet.
    pub next_look_at_ms: Option<i64>,
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
    /// When the next scan comes to it by time at the latest, in milliseconds since the epoch.
    pub next_scan_at_ms: Option<i64>,
}
