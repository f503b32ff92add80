//! The body plan of a duty, and what it finds around it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;

use super::abandon::Abandon;
use super::backup::{Backup, Verify};
use super::check::Check;
use super::checkpoint::{Checkpoint, Overflow};
use super::prune::Prune;
use super::reclaim::Reclaim;
use super::space::Space;
use super::steady::Steady;
use super::vacuum::Vacuum;
use crate::config;
use crate::gate::Gate;
use crate::intake::ContentFolder;
use crate::store::{Browse, Effects, Queue, Settings, StoreError, Upkeep};
use crate::warnings::Warnings;

/// Every duty, in the order in which those that are due together run.
pub(super) static DUTIES: [&dyn Duty; 9] =
    [&Reclaim, &Abandon, &Space, &Overflow, &Checkpoint, &Prune, &Vacuum, &Check, &Backup];

/// Something that has to be done from time to time.
#[async_trait]
pub(super) trait Duty: Send + Sync {
    /// Its name in `status`, in its record's key and in its warning's.
    fn name(&self) -> &'static str;

    /// From one run to the next; zero: off.
    fn period(&self, context: &Context, settings: &config::Maintenance) -> Duration;

    /// When it runs for the first time in this process.
    fn first(&self) -> First {
        First::AsRecorded
    }

    /// Takes up again, at the start of a process, what the figures of its last run in another one mean for people.
    fn recall(&self, _context: &Context, _figures: &Value) {}

    /// Does it once; answers the figures, or `None` where nothing was to do and nothing is worth keeping.
    async fn run(&self, context: &Context, settings: &config::Maintenance) -> Result<Option<Value>, Failure>;
}

/// When a duty runs for the first time in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// At once.
    AtOnce,
    /// When one period has passed.
    AfterPeriod,
    /// When one period has passed since its last run in any process.
    AsRecorded,
}

/// What the duties work with.
#[derive(Clone)]
pub struct Context {
    /// The database's upkeep.
    pub upkeep: Arc<dyn Upkeep>,
    /// For taking back leases.
    pub queue: Arc<dyn Queue>,
    /// For knowing which jobs run.
    pub browse: Arc<dyn Browse>,
    /// For finding steps whose execution is over.
    pub effects: Arc<dyn Effects>,
    /// Keeps the records of runs.
    pub settings: Arc<dyn Settings>,
    /// Judges ages.
    pub clock: Steady,
    /// Takes what people should know.
    pub warnings: Warnings,
    /// Shut while room is short.
    pub gate: Gate,
    /// `queue.lease`, as it is now.
    pub lease: watch::Receiver<Duration>,
    /// The folder of spool files, of this database. A file's name begins with its job's number.
    pub spool: PathBuf,
    /// Contents that lines of lists brought along.
    pub contents: ContentFolder,
    /// Opens a copy of the database and checks it.
    pub verify: Verify,
}

/// Why a duty could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store's error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or folder beside the database could not be handled.
    #[error("could not {doing} {path}: {source}", path = path.display())]
    File {
        /// What was tried, as a verb.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
    /// It was not tried, and the words say why.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// Turns an error of the machine into one that says what was tried with which file.
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { doing, path: path.to_owned(), source }
    }

    /// Whether trying again soon may help.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_passing())
    }
}

/// Runs file system calls that may take a while where they hold nobody up.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(died) => Err(Failure::Refused(format!("a thread for file system work died: {died}"))),
    }
}
