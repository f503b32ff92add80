//! The run: a bounded operation with progress: a scan of a watch, or a list that is worked through.
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
//! A run over a list first reads it, line by line; each batch of lines becomes jobs in the transaction that moves its
//! checkpoint. Then it follows its jobs until the last one is over: it completed if every line ended well. A `retry` of
//! one of its jobs takes it back to `running`, and the verdict is given anew. Only while it reads, no other run of its
//! name may.
//!
//! A run outlives the daemon that began it. One that was broken off (by a crash, a stop, a folder that went away) stays
//! `running`: nobody has to resume it, it goes on by itself as soon as that is possible, under its number. `paused` is
//! what a person wants.

pub mod line;
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
    /// The lines of a file.
    File {
        /// Absolute.
        path: PathBuf,
        /// How far it was read, and the digest of that.
        read: InputRead,
    },
    /// The lines of a standard input.
    Stdin {
        /// How far it was read, and the digest of that.
        read: InputRead,
    },
}

/// How far the bytes of a list were read: what the same list begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRead {
    /// Whole lines.
    pub lines: u64,
    /// Their bytes, with the ends of the lines.
    pub bytes: u64,
    /// The BLAKE3 digest of these bytes.
    pub digest: Option<[u8; 32]>,
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
    /// Whether it only looks what would be done.
    pub dry_run: bool,
    /// Whether there is more of its input to read.
    pub reading: bool,
    /// Lines that can't be understood.
    pub bad_lines: u64,
    /// Lines that can't be done, such as those that name no file.
    pub failed_lines: u64,
    /// Of what was skipped, lines whose source an earlier line had named.
    pub duplicates: u64,
    /// Of the new jobs, deletes of what the list no longer names.
    pub deletes: u64,
    /// Batches of lines so far.
    pub batch: u64,
    /// The form of the checkpoint.
    pub checkpoint_version: u32,
    /// Where its jobs stand.
    pub jobs: RunJobs,
}

/// Where the jobs of a run stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunJobs {
    /// Not over yet.
    pub open: u64,
    /// Done.
    pub completed: u64,
    /// Given up.
    pub failed: u64,
    /// Became moot.
    pub skipped: u64,
    /// Stopped by a person.
    pub cancelled: u64,
}

impl Run {
    /// Whether every line ended well so far.
    pub const fn is_well(&self) -> bool {
        self.bad_lines == 0 && self.failed_lines == 0 && self.jobs.failed == 0 && self.jobs.cancelled == 0
    }
}
