//! `sync`: batches of a list's lines, from the command that reads the list to the queue.
//!
//! 1. The command reads and parses; what it understood of each line is an [`Entry`], what it did not is a
//!    [`Trouble`]. A batch goes over with the line after which it stands.
//! 2. Here the files are looked at, inline contents are put into files that survive a power cut, and digests are
//!    taken where the store asks for them.
//! 3. The store takes jobs, problems and checkpoint in one transaction. Whoever asks again after a lost answer is told
//!    at which line the run is.

mod carry_out;

pub(super) use carry_out::{begin, end, lines, missing, take_over};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::WirePath;
use crate::run::{InputRead, RunId, RunState};
use crate::store::Holder;

pub use crate::run::line::{Asks, Entry, ListedContent, ListedWork, Trouble};

/// A run over a list that is to begin. Answered with [`SyncBegun`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncBegin {
    /// As a person named it.
    pub name: Option<String>,
    /// What makes two runs runs of the same list: its name, or where it comes from.
    pub list: String,
    /// The file that is read, absolute; `None`: a standard input.
    pub input: Option<WirePath>,
    /// `None`: the only one.
    pub pipeline: Option<String>,
    /// Only look what would be done.
    pub dry_run: bool,
    /// What an earlier run of the list named and this one does not becomes a delete.
    pub delete_missing: bool,
    /// Who reads.
    pub holder: Holder,
}

/// See [`SyncBegin`]. Another run of its name that reads is a refusal that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncBegun {
    /// The run.
    pub id: RunId,
}

/// A batch of lines. Answered with [`SyncTaken`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncLines {
    /// The run.
    pub run: RunId,
    /// Who reads it.
    pub holder: Holder,
    /// The line after which they stand.
    pub after: u64,
    /// How far the input is read with them.
    pub read: InputRead,
    /// Lines that say something: all but empty ones.
    pub count: u64,
    /// What was understood, in the order of the lines.
    pub entries: Vec<Entry>,
    /// What was not.
    pub troubles: Vec<Trouble>,
    /// Lines per second.
    pub rate_per_s: f64,
    /// More time at work.
    pub more_worked: Duration,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum SyncTaken {
    /// It was taken.
    All {
        /// New jobs.
        enqueued: u64,
        /// Lines that needed none.
        skipped: u64,
        /// Of these, lines whose job, made before, is not over yet.
        #[serde(default)]
        waiting: u64,
        /// Of these, lines whose job, made before, failed or was cancelled.
        #[serde(default)]
        failed_before: u64,
        /// Lines that can't be done, with what is wrong: those of this batch.
        failed: Vec<Trouble>,
    },
    /// Nothing of it: only so many more jobs may wait now. Come again with fewer, or later.
    Full {
        /// How many.
        room: u64,
    },
    /// Nothing of it: the run is at another line. A batch that ends there was taken before.
    Elsewhere {
        /// The line.
        line: u64,
    },
    /// Nothing of it: a person paused or cancelled the run, or it is over.
    NotRunning {
        /// Where it stands.
        state: RunState,
    },
    /// Nothing of it: somebody else reads it now.
    TakenOver,
}

/// What became of asking for the deletes of what a list no longer names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum SyncMissing {
    /// So many jobs were made in this step; ask again.
    More {
        /// How many.
        deletes: u64,
    },
    /// Nothing is left.
    Over,
    /// A person paused or cancelled the run.
    NotRunning {
        /// Where it stands.
        state: RunState,
    },
    /// Somebody else reads it now.
    TakenOver,
}

#[cfg(test)]
mod tests;
