//! Where jobs are kept: the queue's semantics, behind narrow traits.
//!
//! 1. **A version becomes a job once.** [`Queue::enqueue`] compares what was seen with what is known of the
//!    source, and decides in the transaction that writes the job: new, known, changed. A newer version takes the
//!    place of one that waits, and waits for one that runs.
//! 2. **A lease is the only right to act.** [`Queue::lease`] hands out [`Lease`]s, each with a fence that grows;
//!    [`Queue::settle`] takes them back with a verdict, guarded by job, state and fence.
//! 3. **A lease ends by itself.** It is renewed while its attempt lives, judged by boot time, taken back by
//!    [`Queue::reclaim`] once nobody works under it, and those of dead daemons are taken back at the next start.
//! 4. **Only a commit that succeeded counts.** Every call answers after its transaction's commit.
//!
//! The traits are narrow so that a worker *cannot* prune and a watch *cannot* settle.

mod accounts;
mod browse;
mod contents;
mod disposition;
mod effects;
mod error;
mod lease;
mod lists;
mod queue;
mod runs;
mod settings;
mod sources;
pub mod sqlite;
mod stages;
mod steer;
mod upkeep;

pub use accounts::{Account, Accounts, Ahead, Presence, Succession, Taken};
pub use browse::{Attempt, Boot, Browse, Counts, FailureGroup, JobFilter, Overview, PipelineStats, Stats, Table};
pub use contents::{Completed, Contents};
pub use disposition::{Disposition, Dispositions, Intent};
pub use effects::{AbandonedEffects, EffectBegun, EffectCommitted, EffectResolved, Effects, Resolution};
pub use error::{Obstacle, Result, StoreError};
pub use lease::{AtWork, Claim, Lease};
pub use lists::{
    Begun, Changeset, FailedLine, Holder, LineProblem, Lines, Lists, MissingStep, NewListRun, RepoCounts, RunSteered,
    RunSummary, Taken as LinesTaken, Unfinished,
};
pub use queue::{
    Appetite, Backlog, Batching, Content, Enqueued, Gone, Leased, Left, Listed, NewJob, Queue, Recovery, Renamed,
    Settled, Settlement, Vanished, Want, Work,
};
pub use runs::{BegunRun, RunProgress, Runs, ScanToRun};
pub use settings::{KvEntry, Settings, WatchRow};
pub use sources::{KnownFile, PresentFile, Sources};
pub use stages::{NewStage, Reached, StageMoved, StageOrders, StageRefusal, StageTimes, Stages, Whose};
pub use steer::{Steered, Steering};
pub use upkeep::{AddedFile, Checkpoint, CheckpointMode, ClockSteps, Prunable, Sizes, Upkeep};
