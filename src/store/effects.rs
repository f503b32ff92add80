//! The ledger of effects: steps that a job's processor takes once.
//!
//! 1. Before the step [`Effects::begin_effect`] commits an intent, under the fence of the execution. After it,
//!    [`Effects::commit_effect`] commits what came of it.
//! 2. Whoever begins a step that is recorded as done is given its result, and does not take it again.
//! 3. An intent without a result is *unknown*: the step may have been taken or not. The processor decides by what sort
//!    of step it is, and may then commit it; or a person does ([`Effects::resolve_effect`]).
//! 4. Every write of an execution is guarded by job, state and fence, and so is the row: only who began it last commits
//!    it. An execution that ended before it said how a step came out leaves an intent that [`Effects::abandon_effects`] finds.

use async_trait::async_trait;

use super::error::Result;
use super::lease::Claim;
use crate::clock::Timestamp;
use crate::job::{CanonicalJson, Effect, EffectId, EffectKey, JobId, Step};

/// What follows from an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectBegun {
    /// The intent is committed: take the step, then commit it.
    Run {
        /// Its number.
        id: EffectId,
        /// Its key.
        key: EffectKey,
    },
    /// The step was taken: this came of it.
    Done {
        /// Its number.
        id: EffectId,
        /// What was committed with it.
        result: Option<CanonicalJson>,
    },
    /// The step was begun before, and nobody said how it came out. The execution may commit it.
    Unknown {
        /// Its number.
        id: EffectId,
        /// The key that the other side may know.
        key: EffectKey,
    },
    /// The lease was lost; nothing was written.
    LeaseLost,
    /// The job has as many effects as a job may have.
    TooMany {
        /// So many.
        limit: usize,
    },
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectCommitted {
    /// It is committed, now or by an earlier call of the same execution.
    Done,
    /// The lease was lost; nothing was written.
    LeaseLost,
    /// The job has no such effect.
    NoSuch,
    /// The step was done in an earlier execution, whose result stands.
    DoneBefore,
    /// This execution did not begin it.
    NotBegun,
}

/// A person's word about an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The step was taken, with this result.
    Done(Option<CanonicalJson>),
    /// It was not, or shall be taken again: it is forgotten.
    Again,
}

/// What became of a person's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectResolved {
    /// It counts.
    Done,
    /// No such effect.
    NoSuch,
    /// An execution that lives began it; its job.
    Held(JobId),
    /// It is done, and what was committed stands.
    DoneAlready,
}

/// What a look for abandoned intents found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbandonedEffects {
    /// Intents whose execution is over: unknown from now on.
    pub found: u64,
    /// Effects of failed jobs that are unknown, which wait for a person.
    pub waiting: u64,
    /// Intents that are older than the limit and whose execution lives: left alone.
    pub overdue: u64,
    /// A job with one of these, or else one of those that wait.
    pub example: Option<JobId>,
}

/// Keeps the effects.
#[async_trait]
pub trait Effects: Send + Sync {
    /// Commits the intent to take the step, unless it was begun before.
    async fn begin_effect(&self, claim: Claim, step: Step) -> Result<EffectBegun>;
    /// Commits what came of a step.
    async fn commit_effect(&self, claim: Claim, id: EffectId, result: Option<CanonicalJson>)
    -> Result<EffectCommitted>;
    /// The step was certainly not taken: the intent is forgotten. `false`: the lease was lost, or this execution did not
    /// begin it.
    async fn withdraw_effect(&self, claim: Claim, id: EffectId) -> Result<bool>;
    /// A person's word. `daemon`: whether one runs; where none does, no execution lives.
    async fn resolve_effect(&self, id: EffectId, resolution: Resolution, daemon: bool) -> Result<EffectResolved>;
    /// Looks for intents whose execution is over. Those begun before `overdue` whose execution lives are counted.
    async fn abandon_effects(&self, overdue: Timestamp) -> Result<AbandonedEffects>;
    /// The effects of a job in the order in which they were begun, at most `limit`.
    async fn effects_of(&self, job: JobId, limit: usize) -> Result<Vec<Effect>>;
    /// One effect.
    async fn effect(&self, id: EffectId) -> Result<Option<Effect>>;
}
