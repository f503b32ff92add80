//! The ledger as one execution sees it: the store's, under its lease.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::job::{CanonicalJson, EffectId, EffectKind, IdempotencyKey, LARGEST_RESULT_BYTES, Step};
use crate::processor::{Intended, Ledger, LedgerError};
use crate::store::{
    Claim, EffectBegun, EffectCommitted, Effects, NewStage, StageMoved, StageOrders, StageRefusal, Stages, StoreError,
    Whose,
};

/// The pauses while nothing can be written.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct ExecutionLedger {
    pub(super) effects: Arc<dyn Effects>,
    pub(super) stages: Arc<dyn Stages>,
    pub(super) orders: StageOrders,
    pub(super) claim: Claim,
    pub(super) key: IdempotencyKey,
}

impl std::fmt::Debug for ExecutionLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecutionLedger").field("claim", &self.claim).finish_non_exhaustive()
    }
}

#[async_trait]
impl Ledger for ExecutionLedger {
    async fn begin(&self, kind: &'static str, context: &Value) -> Result<Intended, LedgerError> {
        let step = Step::of(EffectKind::own(kind), CanonicalJson::own(context), &self.key);
        match patiently(|| self.effects.begin_effect(self.claim, step.clone())).await? {
            EffectBegun::Run { id, .. } => Ok(Intended::Run(id)),
            EffectBegun::Unknown { id, .. } => Ok(Intended::Unknown(id)),
            EffectBegun::Done { result, .. } => Ok(Intended::Done(result.map_or(Value::Null, |result| result.value()))),
            EffectBegun::LeaseLost => Err(LedgerError::LeaseLost),
            EffectBegun::TooMany { limit } => {
                Err(LedgerError::Refused(format!("the job has {limit} effects already, and may not have more")))
            }
        }
    }

    async fn commit(&self, id: EffectId, result: &Value) -> Result<(), LedgerError> {
        let result = CanonicalJson::of(result, LARGEST_RESULT_BYTES);
        let result = result.map_err(|error| LedgerError::Refused(error.to_string()))?;
        match patiently(|| self.effects.commit_effect(self.claim, id, Some(result.clone()))).await? {
            EffectCommitted::Done => Ok(()),
            EffectCommitted::LeaseLost => Err(LedgerError::LeaseLost),
            other => Err(LedgerError::Refused(format!("effect {id} can't be committed: {other:?}"))),
        }
    }

    async fn withdraw(&self, id: EffectId) -> Result<(), LedgerError> {
        let withdrawn = patiently(|| self.effects.withdraw_effect(self.claim, id)).await?;
        if withdrawn { Ok(()) } else { Err(LedgerError::LeaseLost) }
    }

    async fn reach(&self, stage: &str, external_id: Option<String>) -> Result<(), LedgerError> {
        let new = NewStage {
            whose: Whose::Execution(self.claim, self.key),
            stage: stage.to_owned(),
            external_id,
            result: None,
        };
        match patiently(|| self.stages.reach(new.clone(), self.orders.clone())).await? {
            StageMoved::Moved { .. }
            | StageMoved::Already { .. }
            | StageMoved::Refused(StageRefusal::NotForward { .. }) => Ok(()),
            StageMoved::LeaseLost => Err(LedgerError::LeaseLost),
            StageMoved::Refused(why) => Err(LedgerError::Refused(format!("stage {stage}: {why:?}"))),
        }
    }
}

/// Asks until the database can be written. Whoever waits stops waiting when its execution is stopped.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match ask().await {
            Err(error) if error.is_passing() => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer.map_err(|error| LedgerError::Refused(error.to_string())),
        }
    }
}
