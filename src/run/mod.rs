//! The run: a bounded operation with progress, such as the first scan of a watch.
//!
//! Pure values, without I/O. A run's life:
//!
//! ```text
//!   running ◀──▶ paused         active: at most one run of a name
//!      ├──────▶ completed
//!      ├──────▶ failed
//!      └──────▶ cancelled
//! ```
//!
//! A run outlives the daemon that began it. One that was broken off (by a crash, a stop, a folder that went away) stays
//! `running`: nobody has to resume it, it goes on by itself as soon as that is possible, under its number. `paused` is
//! what a person wants.

mod names;

pub use names::{RunState, RunType};

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A run's number. Grows, and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What a run goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunInput {
    /// The tree of the watch that the run is named after.
    Watch {
        /// Its root.
        root: PathBuf,
    },
}

/// A run as the database tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its number.
    pub id: RunId,
    /// For a scan, the name of its watch.
    pub name: Option<String>,
    /// What it is for.
    pub run_type: RunType,
    /// Where it stands.
    pub state: RunState,
    /// What it goes through.
    pub input: RunInput,
    /// The pipeline that its jobs are for.
    pub pipeline: String,
    /// How much there is in all; `None`: that is not known before the end.
    pub total: Option<u64>,
    /// Files that were met. A scan that goes on begins at the root again, and so does this.
    pub processed: u64,
    /// New jobs of its watch that were made while it ran, over all its scans.
    pub enqueued: u64,
    /// Files that were met and needed no job.
    pub skipped: u64,
    /// How far it has come in its input; in a scan, the files that were met.
    pub position: u64,
    /// Where it is: the folder that is read.
    pub current_path: Option<PathBuf>,
    /// Files met per second by its newest scan.
    pub rate_per_s: f64,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub updated_at: Timestamp,
    /// When it reached a final state.
    pub finished_at: Option<Timestamp>,
    /// How long it was at work; what lies between two scans of it does not count.
    pub duration_ms: i64,
    /// What went wrong last, or why it stands still.
    pub last_error: Option<String>,
}
