//! Takes back leases that were not renewed in time: three looks in the life of a lease, so that a lost one is
//! found at the latest a third of its length after its end.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::duty::{Context, Duty, Failure, First};
use crate::config;

pub(super) struct Reclaim;

#[async_trait]
impl Duty for Reclaim {
    fn name(&self) -> &'static str {
        "reclaim"
    }

    fn period(&self, context: &Context, _: &config::Maintenance) -> Duration {
        // A lease of nothing would otherwise read as "off" or spin.
        (*context.lease.borrow() / 3).max(Duration::from_millis(100))
    }

    fn first(&self) -> First {
        First::AfterPeriod
    }

    async fn run(&self, context: &Context, _: &config::Maintenance) -> Result<Option<Value>, Failure> {
        let reclaimed = context.queue.reclaim().await?;
        if reclaimed == 0 {
            return Ok(None);
        }
        tracing::warn!(leases = reclaimed, "took back leases that were not renewed in time");
        Ok(Some(json!({ "leases": reclaimed })))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[tokio::test]
    async fn what_took_nothing_back_leaves_no_record() {
        let (context, store, _clock) = fake::context();
        let settings = config::Maintenance::default();
        assert_eq!(Reclaim.run(&context, &settings).await.unwrap(), None);
        store.state().reclaimable = 2;
        assert_eq!(Reclaim.run(&context, &settings).await.unwrap(), Some(json!({ "leases": 2 })));
        assert_eq!(Reclaim.period(&context, &settings), Duration::from_secs(20));
    }
}
