//! What time cleans up. One loop runs the duties, one at a time, each when its period is over.
//!
//! 1. **A duty** is one file: a name, a period (zero: off), a run. It keeps nothing between runs; what it has to
//!    say to people it says through [`Warnings`](crate::warnings::Warnings).
//! 2. **When.** The next run is the last one plus the period. The last one of a slow duty is kept in the
//!    database (`ingestd.maintenance.NAME`), so a restart neither repeats it at once nor puts it off for ever,
//!    and `status` shows it. A passing error is tried again after a short, growing pause; any other error waits
//!    for the next period. Either shows as a warning until the duty succeeds.
//! 3. **On demand.** The same functions answer commands, through [`MaintenanceHandle`] beside a daemon and
//!    called directly without one.
//! 4. **Any await may be the last.** When the daemon stops, the running duty is dropped where it stands. Each is
//!    built so that this leaves nothing wrong: short store calls, and files that get their name when complete.
//!
//! Ages are judged by the [`Steady`] clock, so a step of the wall clock never prunes a row.

mod abandon;
mod absent;
mod backup;
mod check;
mod checkpoint;
mod command;
mod content;
mod duty;
#[cfg(test)]
mod fake;
mod prune;
mod readers;
mod reclaim;
mod record;
mod rotation;
mod runner;
mod schedule;
mod space;
mod spool;
mod steady;
mod vacuum;

pub use backup::{BackupFigures, Verify, backup_now, backup_to, directory as backup_directory};
pub use check::check_now;
pub use checkpoint::checkpoint_now;
pub use command::{MaintenanceCommand, MaintenanceHandle, Request, channel};
pub use duty::{Context, Failure};
pub use prune::{PruneFigures, prune_now};
pub use readers::{Holder, holders};
pub use record::{PREFIX, Record};
pub use rotation::{BackupFile, list as list_backups};
pub use runner::run;
pub use space::free_bytes;
pub use steady::Steady;
pub use vacuum::{VacuumFigures, vacuum_now};
