//! No effects and no stages.

use async_trait::async_trait;

use super::Fake;
use crate::clock::Timestamp;
use crate::job::{CanonicalJson, Effect, EffectId, JobId, Step};
use crate::store::{
    AbandonedEffects, Claim, EffectBegun, EffectCommitted, EffectResolved, Effects, NewStage, Reached, Resolution,
    Result, StageMoved, StageOrders, StageRefusal, StageTimes, Stages,
};

#[async_trait]
impl Effects for Fake {
    async fn begin_effect(&self, _claim: Claim, _step: Step) -> Result<EffectBegun> {
        Ok(EffectBegun::LeaseLost)
    }

    async fn commit_effect(&self, _: Claim, _: EffectId, _: Option<CanonicalJson>) -> Result<EffectCommitted> {
        Ok(EffectCommitted::LeaseLost)
    }

    async fn withdraw_effect(&self, _claim: Claim, _id: EffectId) -> Result<bool> {
        Ok(false)
    }

    async fn resolve_effect(&self, _: EffectId, _: Resolution, _daemon: bool) -> Result<EffectResolved> {
        Ok(EffectResolved::NoSuch)
    }

    async fn abandon_effects(&self, _overdue: Timestamp) -> Result<AbandonedEffects> {
        Ok(AbandonedEffects::default())
    }

    async fn effects_of(&self, _job: JobId, _limit: usize) -> Result<Vec<Effect>> {
        Ok(Vec::new())
    }

    async fn effect(&self, _id: EffectId) -> Result<Option<Effect>> {
        Ok(None)
    }
}

#[async_trait]
impl Stages for Fake {
    async fn reach(&self, _new: NewStage, _orders: StageOrders) -> Result<StageMoved> {
        Ok(StageMoved::Refused(StageRefusal::NoJob))
    }

    async fn stages_of(&self, _job: JobId) -> Result<Vec<Reached>> {
        Ok(Vec::new())
    }

    async fn stage_times(&self, _since: Timestamp) -> Result<Vec<StageTimes>> {
        Ok(Vec::new())
    }
}
