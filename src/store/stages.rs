//! How far jobs have come: stages that a pipeline declares in order, and that a job moves through forward only.
//!
//! Inside an execution a move is guarded by its fence. Outside, a confirmation from the other side finds its job by what
//! that side was told or answered, and moves it once it completed.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::error::Result;
use super::lease::Claim;
use crate::clock::Timestamp;
use crate::job::{IdempotencyKey, JobId, StateName};

/// The declared stages of each pipeline that has some, in order.
pub type StageOrders = Arc<BTreeMap<String, Vec<String>>>;

/// Whose stage is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// That of the job under this lease. The other side is told the key.
    Execution(Claim, IdempotencyKey),
    /// Of a job that completed.
    Job(JobId),
    /// Of the job that the other side knows under this key: the caller's (`add --idempotency-key`), or a job's own.
    Key(String),
    /// Of the job to which the other side gave this name.
    External(String),
}

/// A stage that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStage {
    /// By which job.
    pub whose: Whose,
    /// Its name.
    pub stage: String,
    /// The name that the other side gave the job.
    pub external_id: Option<String>,
    /// What the other side answered, a JSON document.
    pub result: Option<String>,
}

/// What became of a [`NewStage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageMoved {
    /// The job is at the stage.
    Moved {
        /// The job.
        job: JobId,
        /// Where it was.
        from: Option<String>,
    },
    /// It was there before.
    Already {
        /// The job.
        job: JobId,
    },
    /// The lease was lost; nothing was written.
    LeaseLost,
    /// Nothing was written, because this can't be.
    Refused(StageRefusal),
}

/// Why a stage is not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageRefusal {
    /// No such job.
    NoJob,
    /// Several jobs have that name.
    Several(Vec<JobId>),
    /// Asked from outside: only a job that completed is moved from there, and one that runs says by itself how far it is.
    NotCompleted {
        /// The job.
        job: JobId,
        /// Its state.
        state: StateName,
    },
    /// The stage is none of the pipeline's, or the job is further already.
    NotForward {
        /// The job.
        job: JobId,
        /// Its pipeline.
        pipeline: String,
        /// Where it is.
        is: Option<String>,
        /// The declared stages.
        order: Vec<String>,
    },
}

/// When a job came to a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The stage.
    pub stage: String,
    /// When.
    pub at: Timestamp,
}

/// How long jobs of a pipeline took from one stage to the next that they came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StageTimes {
    /// The pipeline.
    pub pipeline: String,
    /// From this stage.
    pub from: String,
    /// To this one.
    pub to: String,
    /// So many jobs.
    pub jobs: u64,
    /// The time.
    pub p50_ms: i64,
    /// See `p50_ms`.
    pub p95_ms: i64,
}

/// Keeps the stages.
#[async_trait]
pub trait Stages: Send + Sync {
    /// Moves a job to a stage, if that lies ahead by these orders.
    async fn reach(&self, new: NewStage, orders: StageOrders) -> Result<StageMoved>;
    /// The stages of a job in the order in which it came to them.
    async fn stages_of(&self, job: JobId) -> Result<Vec<Reached>>;
    /// How long the newest jobs took from stage to stage since then.
    async fn stage_times(&self, since: Timestamp) -> Result<Vec<StageTimes>>;
}
