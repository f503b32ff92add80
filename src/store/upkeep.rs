//! What time cleans up. Every call is short; the duties loop.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::error::Result;
use crate::clock::Timestamp;
use crate::job::StateName;

/// What pruning removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prunable {
    /// Jobs in this final state that ended before the cutoff.
    Jobs(StateName),
    /// Rows of the history, with their output, that ended before the cutoff.
    Attempts,
    /// Sources that were gone before the cutoff and have no job left.
    Sources,
    /// Runs that ended before the cutoff.
    Runs,
    /// Slots of the rates that lie before the cutoff.
    Rates,
    /// Rows of dead daemons' starts that ended before the cutoff.
    Boots,
}

/// How a checkpoint treats readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointMode {
    /// Moves what it can without waiting for anyone.
    Passive,
    /// Moves everything and cuts the WAL to nothing; waits briefly for readers.
    Truncate,
}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Checkpoint {
    /// A reader or writer was in the way.
    pub busy: bool,
    /// Frames in the WAL.
    pub wal_frames: i64,
    /// Frames moved into the database.
    pub moved_frames: i64,
}

/// Sizes, for `status` and `db stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sizes {
    /// The database's file.
    pub size_bytes: u64,
    /// Its write-ahead log.
    pub wal_bytes: u64,
    /// Pages that hold nothing.
    pub free_pages: u64,
    /// Bytes of one page.
    pub page_bytes: u64,
}

/// A file that a person added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedFile {
    /// The number of its source.
    pub source: i64,
    /// Where it was.
    pub path: PathBuf,
}

/// Steps of the wall clock ahead, the oldest first: whatever was dated before one is younger than it looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ClockSteps(Vec<ClockStep>);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct ClockStep {
    /// When, by the clock as it goes now, in milliseconds since the epoch.
    at_ms: i64,
    /// How far, in milliseconds.
    by_ms: i64,
}

/// Steps that are kept; beyond, the two oldest count as one, at the time of the later.
const MOST_STEPS: usize = 16;

impl ClockSteps {
    /// The clock was stepped by so many milliseconds and shows `now` since.
    pub fn add(&mut self, now: Timestamp, by_ms: i64) {
        for step in &mut self.0 {
            step.at_ms = step.at_ms.saturating_add(by_ms);
        }
        if by_ms > 0 {
            self.0.push(ClockStep { at_ms: now.as_millis(), by_ms });
        }
        if self.0.len() > MOST_STEPS {
            let oldest = self.0.remove(0);
            self.0[0].by_ms = self.0[0].by_ms.saturating_add(oldest.by_ms);
        }
    }

    /// The date before which everything is older than `keep`, at this time of the wall clock. Steps that were longer ago
    /// than that have nothing younger behind them. After a step back it may be earlier than it could, never later.
    pub fn cutoff(&self, now: Timestamp, keep: Duration) -> Timestamp {
        let ahead_ms =
            self.0.iter().filter(|step| now.since(Timestamp::from_millis(step.at_ms)) <= keep).map(|step| step.by_ms);
        let ahead_ms = ahead_ms.fold(0, i64::saturating_add);
        Timestamp::from_millis(now.minus(keep).as_millis().saturating_sub(ahead_ms))
    }
}

/// Looks after the database.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Removes at most `limit` rows of the kind that ended before `cutoff`; answers how many.
    async fn prune(&self, what: Prunable, cutoff: Timestamp, limit: u32) -> Result<u64>;
    /// How many rows [`Self::prune`] would remove, without a limit.
    async fn prunable(&self, what: Prunable, cutoff: Timestamp) -> Result<u64>;
    /// The steps of the wall clock that ages have to be told of.
    async fn clock_steps(&self) -> Result<ClockSteps>;
    /// Files that a person added and that were there when last looked at, a page that follows the source `after`; 0 is
    /// before the first.
    async fn added_files(&self, after: i64, limit: usize) -> Result<Vec<AddedFile>>;
    /// Notes that such files are not there any more; answers how many were noted. What waits for them is left to its
    /// attempt.
    async fn note_absent(&self, sources: Vec<i64>) -> Result<u64>;
    /// Of these files, those that hold the content of a job that may still be tried: one that is over neither as
    /// completed nor as skipped.
    async fn needed_contents(&self, contents: Vec<PathBuf>) -> Result<BTreeSet<PathBuf>>;
    /// Moves the WAL into the database.
    async fn checkpoint(&self, mode: CheckpointMode) -> Result<Checkpoint>;
    /// Gives at most `pages` free pages back to the filesystem; answers how many are still free.
    async fn vacuum(&self, pages: u32) -> Result<u64>;
    /// Lets SQLite refresh its statistics.
    async fn optimize(&self) -> Result<()>;
    /// What is wrong with the database and with the counters; empty: nothing. `full` also checks the contents
    /// of indexes, and takes time linear in the size.
    async fn check(&self, full: bool) -> Result<Vec<String>>;
    /// Writes a consistent copy to `target`, which must not exist, while work goes on.
    async fn backup_to(&self, target: &Path) -> Result<()>;
    /// Sizes now.
    async fn sizes(&self) -> Result<Sizes>;
    /// Where the database lives.
    fn path(&self) -> PathBuf;
}
