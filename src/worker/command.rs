//! What the rest of the daemon asks of the pool, and how it obeys.

use tokio::sync::{mpsc, oneshot};

use super::running::{Running, RunningJob, StopReason};
use crate::job::JobId;

/// Commands that may wait for the dispatcher.
const WAITING_COMMANDS: usize = 64;

/// What the rest of the daemon asks of the dispatcher.
#[derive(Debug)]
pub enum Command {
    /// Stop these jobs, because a person cancelled them; answers how many of them run.
    Cancel {
        /// Which.
        jobs: Vec<JobId>,
        /// The answer.
        reply: oneshot::Sender<usize>,
    },
    /// Stop what runs of these pipelines, spending nothing.
    Interrupt {
        /// Which.
        pipelines: Vec<String>,
        /// How many run.
        reply: oneshot::Sender<usize>,
    },
    /// Tell what runs.
    List {
        /// The answer.
        reply: oneshot::Sender<Vec<RunningJob>>,
    },
}

/// The other stations' end of the dispatcher.
#[derive(Clone, Debug)]
pub struct Handles {
    /// Bounded.
    pub commands: mpsc::Sender<Command>,
}

impl Handles {
    /// Both ends.
    pub(super) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, waiting) = mpsc::channel(WAITING_COMMANDS);
        (Self { commands }, waiting)
    }
}

/// Does what was asked.
pub(super) fn obey(running: &Running, command: Command) {
    // Whoever asked may have gone away; the deed is done all the same.
    match command {
        Command::Cancel { jobs, reply } => {
            let n = running.stop(StopReason::Cancelled, |work| jobs.contains(&work.job));
            let _ = reply.send(n);
        }
        Command::Interrupt { pipelines, reply } => {
            let n = running.stop(StopReason::Interrupted, |work| pipelines.contains(&work.pipeline));
            let _ = reply.send(n);
        }
        Command::List { reply } => drop(reply.send(running.shown())),
    }
}
