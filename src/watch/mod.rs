//! Watch folders: from "a folder is noticed" to "a version is handed to the store".
//!
//! 1. **The scan is the truth.** A walk ([`scan`]) compares what lies in the folder with what is known of it
//!    (`compare`), at the start, every `rescan_interval`, and whenever something was lost.
//! 2. **Events are hints.** [`native`] says where to look sooner. An overflow, a full channel, a watch error, an
//!    unmount, a new or moved-in folder all end as *scan this*; nothing is ever taken for true because an event
//!    said so.
//! 3. **Only whole files are taken.** What is new or changed settles first ([`settle`]): looked at ([`tree`]) when
//!    its time has come, once nobody writes it and it has been quiet for long enough.
//! 4. **What is not there may be gone, or out of sight.** A file has vanished when a look at its very name finds
//!    nothing, under the same root that was walked. A root that is missing, can't be read, or was replaced by an
//!    empty folder deletes nothing.
//!
//! [`WatchTask`] is one loop for one watch. Where filesystems send no events, or the system's limits forbid them,
//! the same scan runs every `poll_interval` instead. While the intake is closed nothing is handed over, and a scan
//! follows when it opens.

mod arm;
pub mod batches;
mod brake;
mod candidates;
mod compare;
mod dirty;
mod filter;
mod force;
mod handover;
mod ignored;
mod listing;
pub mod mounts;
pub mod native;
mod progress;
mod renames;
mod rescan;
mod rule_counts;
mod run;
pub mod scan;
pub mod settle;
mod standing;
mod status;
mod task;
mod telling;
pub mod tree;

pub use filter::{BadGlob, Filter, PRIVATE_PREFIX, Rule, Ruling};
pub use progress::ScanProgress;
pub use rule_counts::RuleCounts;
pub use run::{Made, RunCause, RunStage, RunTold, ScanRun};
pub use settle::WaitsFor;
pub use standing::Standing;
pub use status::{CoverageStatus, LastScan, Mode, Root, ScanKind, SettlingFile, WatchStatus};
pub use task::{WatchCommand, WatchHandle, WatchSettings, WatchStations, WatchTask};
pub use tree::is_remote;

#[cfg(test)]
mod tests;
