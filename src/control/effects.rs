//! Effects and stages, asked for by processors and by people.
//!
//! What belongs to an execution is refused where no daemon runs, because then no execution lives. Documents travel as
//! the text that was given and are read once, here: what is kept does not depend on the way that it came.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hands::{Hands, Refusal};
use crate::job::{
    CanonicalJson, EffectError, EffectId, EffectKind, EffectState, Fence, JobId, LARGEST_CONTEXT_BYTES,
    LARGEST_RESULT_BYTES, StateName, Step,
};
use crate::store::{
    Claim, EffectBegun, EffectCommitted, EffectResolved, NewStage, Resolution, StageMoved, StageRefusal, Whose,
};

/// The execution that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// The job.
    pub job: JobId,
    /// The lease.
    pub fence: Fence,
}

impl From<Execution> for Claim {
    fn from(execution: Execution) -> Self {
        Self { job: execution.job, fence: execution.fence }
    }
}

/// A person's word about an effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolve {
    /// It was done, with this result, a JSON document.
    Done(Option<String>),
    /// It shall be done again.
    Again,
}

/// What follows from an intent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "lowercase")]
pub enum EffectAnswer {
    /// Take the step.
    Run {
        /// The effect.
        id: EffectId,
        /// Its key.
        key: String,
    },
    /// It was taken.
    Done {
        /// The effect.
        id: EffectId,
        /// What came of it.
        result: Value,
    },
    /// Nobody knows.
    Unknown {
        /// The effect.
        id: EffectId,
        /// Its key.
        key: String,
    },
}

/// Whose stage is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageOf {
    /// That of the job that this execution works on.
    Execution(Execution),
    /// Of a job that does not run.
    Job(JobId),
    /// Of the job that the other side knows under this key.
    Key(String),
    /// Of the job to which the other side gave this name.
    External(String),
}

/// A stage that was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachStage {
    /// By which job.
    pub of: StageOf,
    /// The stage.
    pub stage: String,
    /// The name that the other side gave the job.
    pub external_id: Option<String>,
    /// What the other side answered, a JSON document.
    pub result: Option<String>,
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageAnswer {
    /// The job.
    pub job: JobId,
    /// Its stage.
    pub stage: String,
    /// Whether it is there only now.
    pub moved: bool,
    /// Where it was before.
    pub from: Option<String>,
}

/// The longest name that the other side may give.
const LONGEST_EXTERNAL_ID: usize = 1_024;

pub(super) async fn begin(
    execution: Execution,
    kind: EffectKind,
    context: &str,
    hands: &Hands,
) -> Result<EffectAnswer, Refusal> {
    attended(execution, hands)?;
    let context = document("the context", context, LARGEST_CONTEXT_BYTES)?;
    let job = hands.stores.browse.job(execution.job).await?.ok_or_else(|| over(execution))?;
    let step = Step::of(kind, context, &job.idempotency_key);
    match hands.stores.effects.begin_effect(execution.into(), step).await? {
        EffectBegun::Run { id, key } => Ok(EffectAnswer::Run { id, key: key.to_string() }),
        EffectBegun::Unknown { id, key } => Ok(EffectAnswer::Unknown { id, key: key.to_string() }),
        EffectBegun::Done { id, result } => {
            Ok(EffectAnswer::Done { id, result: result.map_or(Value::Null, |result| result.value()) })
        }
        EffectBegun::LeaseLost => Err(over(execution)),
        EffectBegun::TooMany { limit } => Err(Refusal::failed(format!(
            "job {} has {limit} effects, and may not have more; record larger steps",
            execution.job
        ))),
    }
}

pub(super) async fn commit(
    execution: Execution,
    id: EffectId,
    result: Option<&str>,
    hands: &Hands,
) -> Result<(), Refusal> {
    attended(execution, hands)?;
    let result = result.map(|text| document("the result", text, LARGEST_RESULT_BYTES)).transpose()?;
    let Execution { job, .. } = execution;
    match hands.stores.effects.commit_effect(execution.into(), id, result).await? {
        EffectCommitted::Done => Ok(()),
        EffectCommitted::LeaseLost => Err(over(execution)),
        EffectCommitted::NoSuch => Err(Refusal::not_found(format!("job {job} has no effect {id}"))),
        EffectCommitted::DoneBefore => Err(Refusal::failed(format!(
            "effect {id} was done in an earlier execution, whose result stands; `ingestd effect begin` prints it"
        ))),
        EffectCommitted::NotBegun => Err(Refusal::failed(format!(
            "effect {id} was not begun in this execution of job {job}; call `ingestd effect begin` first"
        ))),
    }
}

pub(super) async fn abort(execution: Execution, id: EffectId, hands: &Hands) -> Result<(), Refusal> {
    attended(execution, hands)?;
    let Execution { job, fence } = execution;
    if hands.stores.effects.withdraw_effect(execution.into(), id).await? {
        return Ok(());
    }
    Err(match hands.stores.effects.effect(id).await?.filter(|effect| effect.job == job) {
        None => Refusal::not_found(format!("job {job} has no effect {id}")),
        Some(effect) if effect.state == EffectState::Done => {
            Refusal::failed(format!("effect {id} is done, and can't be given back"))
        }
        Some(effect) if effect.fence < fence => Refusal::failed(format!(
            "effect {id} was not begun in this execution of job {job}; call `ingestd effect begin` first"
        )),
        Some(_) => over(execution),
    })
}

pub(super) async fn resolve(id: EffectId, resolve: Resolve, hands: &Hands) -> Result<(), Refusal> {
    let resolution = match resolve {
        Resolve::Done(result) => Resolution::Done(
            result.as_deref().map(|text| document("the result", text, LARGEST_RESULT_BYTES)).transpose()?,
        ),
        Resolve::Again => Resolution::Again,
    };
    match hands.stores.effects.resolve_effect(id, resolution, hands.live.is_some()).await? {
        EffectResolved::Done => Ok(()),
        EffectResolved::NoSuch => {
            Err(Refusal::not_found(format!("no effect {id}; `ingestd effect list JOB` shows those of a job")))
        }
        EffectResolved::Held(job) => Err(Refusal::failed(format!(
            "effect {id} is in the hands of job {job}, which runs; `ingestd cancel {job}` stops it, or wait for its end"
        ))),
        EffectResolved::DoneAlready => Err(Refusal::failed(format!(
            "effect {id} is done, and what was committed stands; only a step of which nobody knows is resolved"
        ))),
    }
}

pub(super) async fn reach(reach: ReachStage, hands: &Hands) -> Result<StageAnswer, Refusal> {
    let ReachStage { of, stage, external_id, result } = reach;
    if external_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > LONGEST_EXTERNAL_ID) {
        return Err(Refusal::usage(format!("an external id has 1 to {LONGEST_EXTERNAL_ID} bytes")));
    }
    let result = result.map(|text| document("the result", &text, LARGEST_RESULT_BYTES)).transpose()?;
    let whose = match &of {
        StageOf::Execution(execution) => {
            attended(*execution, hands)?;
            let job = hands.stores.browse.job(execution.job).await?.ok_or_else(|| over(*execution))?;
            Whose::Execution((*execution).into(), job.idempotency_key)
        }
        StageOf::Job(job) => Whose::Job(*job),
        StageOf::Key(key) => Whose::Key(key.clone()),
        StageOf::External(name) => Whose::External(name.clone()),
    };
    let result = result.map(|result| result.as_str().to_owned());
    let new = NewStage { whose, stage: stage.clone(), external_id, result };
    match hands.stores.stages.reach(new, hands.config().stage_orders()).await? {
        StageMoved::Moved { job, from } => Ok(StageAnswer { job, stage, moved: true, from }),
        StageMoved::Already { job } => Ok(StageAnswer { job, from: Some(stage.clone()), stage, moved: false }),
        StageMoved::LeaseLost => Err(match of {
            StageOf::Execution(execution) => over(execution),
            _ => Refusal::failed("the job moved on meanwhile; try again"),
        }),
        StageMoved::Refused(why) => Err(refused(why, &of, &stage)),
    }
}

fn refused(why: StageRefusal, of: &StageOf, wanted: &str) -> Refusal {
    match why {
        StageRefusal::NoJob => Refusal::not_found(match of {
            StageOf::Key(key) => format!("no job came to a stage under the idempotency key `{key}`"),
            StageOf::External(name) => format!("no job has the external id `{name}`"),
            StageOf::Job(job) | StageOf::Execution(Execution { job, .. }) => format!("no job {job}"),
        }),
        StageRefusal::Several(jobs) => {
            let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            Refusal::failed(format!("several jobs go by that name: {}; say which with --job", jobs.join(", ")))
        }
        StageRefusal::NotCompleted { job, state: StateName::Running } => Refusal::failed(format!(
            "job {job} runs, and its execution alone says how far it is; try again when it has ended (`ingestd wait {job}`)"
        )),
        StageRefusal::NotCompleted { job, state } => {
            let state = state.as_str();
            Refusal::failed(format!("job {job} is {state}; from outside only a completed job comes to a stage"))
        }
        StageRefusal::NotForward { job, pipeline, order, .. } if order.is_empty() => Refusal::failed(format!(
            "job {job} can't come to the stage `{wanted}`: pipeline `{pipeline}` declares no stages (key `stages`)"
        )),
        StageRefusal::NotForward { pipeline, order, .. } if !order.iter().any(|declared| declared == wanted) => {
            let order = order.join(", ");
            Refusal::failed(format!("no stage `{wanted}`; declared are: {order} (pipeline `{pipeline}`)"))
        }
        StageRefusal::NotForward { job, pipeline, is, order } => {
            let is = is.map_or_else(|| "at no stage yet".to_owned(), |is| format!("at `{is}`"));
            Refusal::failed(format!(
                "job {job} is {is} and can't come to `{wanted}`: pipeline `{pipeline}` moves forward through {}",
                order.join(" → ")
            ))
        }
    }
}

/// Only while a daemon runs does an execution live.
fn attended(execution: Execution, hands: &Hands) -> Result<(), Refusal> {
    if hands.live.is_some() { Ok(()) } else { Err(over(execution)) }
}

/// Says that an execution has no right to write any more.
pub fn over(execution: Execution) -> Refusal {
    let Execution { job, fence } = execution;
    Refusal::failed(format!(
        "this attempt is over: job {job} does not run under fence {fence} any more; leave without taking further steps"
    ))
}

fn document(what: &str, text: &str, limit: usize) -> Result<CanonicalJson, Refusal> {
    CanonicalJson::read(text, limit).map_err(|error: EffectError| Refusal::usage(format!("{what}: {error}")))
}
