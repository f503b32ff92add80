//! Duties on demand, in the daemon's own loop: one at a time with the scheduled ones, so that two backups or a
//! vacuum and a check never meet.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::backup::{backup_now, backup_to};
use super::check::{Check, check_now, figures};
use super::checkpoint::checkpoint_now;
use super::duty::{Context, Duty, Failure};
use super::prune::{Prune, prune_now};
use super::vacuum::vacuum_now;
use crate::config;

/// Requests that may wait at once.
const WAITING: usize = 16;

/// What a person asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaintenanceCommand {
    /// `db checkpoint`
    Checkpoint,
    /// `db vacuum`: to the last free page.
    Vacuum,
    /// `db prune`
    Prune {
        /// Only count.
        dry_run: bool,
    },
    /// `db backup`
    Backup {
        /// Under this name; `None`: in the folder of the scheduled ones, with rotation.
        target: Option<PathBuf>,
    },
    /// `db check`, contents of indexes too.
    Check,
}

/// A command, and who waits for its figures.
#[derive(Debug)]
pub struct Request {
    pub(super) command: MaintenanceCommand,
    pub(super) reply: oneshot::Sender<Result<Value, Failure>>,
}

/// Hands commands to the running loop; cheap to clone.
#[derive(Clone, Debug)]
pub struct MaintenanceHandle {
    requests: mpsc::Sender<Request>,
}

/// A handle, and the end that [`run`](super::run) takes.
pub fn channel() -> (MaintenanceHandle, mpsc::Receiver<Request>) {
    let (requests, receiver) = mpsc::channel(WAITING);
    (MaintenanceHandle { requests }, receiver)
}

impl MaintenanceHandle {
    /// Has the command done and answers its figures, after whatever the loop does right now.
    ///
    /// # Errors
    /// The command's, and that the daemon is stopping.
    pub async fn ask(&self, command: MaintenanceCommand) -> Result<Value, Failure> {
        let stopping = || Failure::Refused("the daemon is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { command, reply }).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

impl MaintenanceCommand {
    /// The duty that need not run soon, once this is done.
    pub(super) const fn stands_for(&self) -> Option<&'static str> {
        match self {
            Self::Checkpoint => Some("checkpoint"),
            Self::Vacuum => Some("vacuum"),
            Self::Prune { dry_run: false } => Some("prune"),
            Self::Backup { target: None } => Some("backup"),
            Self::Check => Some("check"),
            Self::Prune { dry_run: true } | Self::Backup { target: Some(_) } => None,
        }
    }

    /// Does it.
    pub(super) async fn run(&self, context: &Context, settings: &config::Maintenance) -> Result<Value, Failure> {
        let upkeep = context.upkeep.as_ref();
        let wall = context.clock.wall();
        match self {
            Self::Checkpoint => Ok(json!(checkpoint_now(upkeep).await?)),
            Self::Vacuum => Ok(json!(vacuum_now(upkeep).await?)),
            // It stands for the duty, and so does all that the duty does.
            Self::Prune { dry_run: false } => Ok(Prune.run(context, settings).await?.unwrap_or_default()),
            Self::Prune { dry_run: true } => Ok(json!(prune_now(upkeep, &settings.retention, wall, true).await?)),
            Self::Backup { target: None } => Ok(json!(backup_now(upkeep, context.verify, settings, wall).await?)),
            Self::Backup { target: Some(target) } => Ok(json!(backup_to(upkeep, context.verify, target, wall).await?)),
            Self::Check => {
                let findings = check_now(upkeep, true).await?;
                let mut value = figures(&findings);
                Check.recall(context, &value);
                value["all"] = json!(findings);
                Ok(value)
            }
        }
    }
}
