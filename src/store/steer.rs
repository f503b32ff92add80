//! What a person does to jobs.

use async_trait::async_trait;

use super::error::Result;
use crate::job::{JobId, Priority};

/// What became of one job that a person named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steered {
    /// Done.
    Done,
    /// It runs right now: whoever holds the lease has to stop it.
    Running,
    /// It can't be done, and why.
    Refused(String),
    /// No such job.
    Unknown,
}

/// A person's hand on the queue. The answers are in the order of the asked.
#[async_trait]
pub trait Steering: Send + Sync {
    /// Failed and cancelled jobs become pending with a fresh budget; retrying ones are due now.
    async fn retry(&self, jobs: Vec<JobId>) -> Result<Vec<Steered>>;
    /// Waiting jobs are cancelled; running ones are answered with [`Steered::Running`].
    async fn cancel(&self, jobs: Vec<JobId>) -> Result<Vec<Steered>>;
    /// Changes the level of waiting jobs.
    async fn prioritize(&self, jobs: Vec<JobId>, priority: Priority) -> Result<Vec<Steered>>;
}
