//! What a request is carried out with.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;

use super::files::LiveFile;
use super::request::{Code, Confirmed, Duty, LiveStatus, Response, Scanned};
use crate::clock::Clock;
use crate::config::Config;
use crate::job::JobId;
use crate::store::{Accounts, Browse, Effects, Lists, Queue, Runs, Settings, Stages, Steering, StoreError, Upkeep};

/// The store, by what may be done with it.
#[derive(Clone)]
pub struct Stores {
    /// Reads for people.
    pub browse: Arc<dyn Browse>,
    /// Pauses, watches, key-value state.
    pub settings: Arc<dyn Settings>,
    /// A person's hand on jobs.
    pub steering: Arc<dyn Steering>,
    /// The queue, to enqueue.
    pub queue: Arc<dyn Queue>,
    /// What became of files, and where jobs stand.
    pub accounts: Arc<dyn Accounts>,
    /// Runs.
    pub runs: Arc<dyn Runs>,
    /// Runs over lists.
    pub lists: Arc<dyn Lists>,
    /// Steps that are taken once.
    pub effects: Arc<dyn Effects>,
    /// How far jobs have come.
    pub stages: Arc<dyn Stages>,
    /// The database's care.
    pub upkeep: Arc<dyn Upkeep>,
}

/// What [`super::execute()`] works with: the same in a daemon and in a command that found none.
#[derive(Clone)]
pub struct Hands {
    /// The effective configuration; a daemon sends the new one through it after a reload.
    pub config: watch::Receiver<Arc<Config>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The database.
    pub stores: Stores,
    /// The running daemon; `None` in a command that works by itself.
    pub live: Option<Arc<dyn Live>>,
}

impl Hands {
    /// The configuration as it is now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }
}

/// What only a running daemon can do.
#[async_trait]
pub trait Live: Send + Sync {
    /// Tells the attempts of these jobs to stop, for good. Does not wait for their end.
    async fn cancel_running(&self, jobs: &[JobId]);
    /// Tells the attempts of these pipelines to stop and be put back unspent. Does not wait for their end.
    async fn interrupt(&self, pipelines: &[String]);
    /// Reads the watches of the database again and starts, changes and stops what follows from them.
    async fn reload_watches(&self) -> Result<(), Refusal>;
    /// Scans a watch that it runs; resolves when the scan is over.
    async fn scan(&self, watch: &str, force: bool) -> Result<Scanned, Refusal>;
    /// Lets the files go that the brake of a watch that it runs holds back; answers how many.
    async fn confirm(&self, watch: &str) -> Result<Confirmed, Refusal>;
    /// What it knows of these names under the root of a watch that it runs, in their order.
    async fn files(&self, watch: &str, names: Vec<PathBuf>) -> Result<Vec<LiveFile>, Refusal>;
    /// Carries out a duty of maintenance now; answers its figures.
    async fn maintenance(&self, duty: Duty) -> Result<Value, Refusal>;
    /// What it knows and the database does not.
    async fn status(&self) -> LiveStatus;
    /// A number that moves with every change of the queue or of the daemon's condition.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of failure it is.
    pub code: Code,
    /// For people: what was wrong, and what to do.
    pub message: String,
}

impl Refusal {
    /// It failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: Code::Failed, message: message.into() }
    }

    /// It was asked for in a way that can't be.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: Code::Usage, message: message.into() }
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: Code::NotFound, message: message.into() }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let advice = match &error {
            StoreError::Busy => "; try again in a moment",
            StoreError::Full => "; make room on its filesystem and try again",
            StoreError::Disk(_) => "; look at the kernel's log, then run `ingestd db check`",
            _ => "",
        };
        Self::failed(format!("{error}{advice}"))
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        Self::Err { code: refusal.code, message: refusal.message }
    }
}
