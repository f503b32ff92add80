//! Gives free pages back to the filesystem in slices, so that no single write is long, and lets SQLite refresh
//! its statistics.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::duty::{Context, Duty, Failure};
use crate::config;
use crate::store::Upkeep;

/// Pages given back in one write: 4 MiB.
const SLICE: u32 = 1_000;
/// Free pages that the daily run leaves: the queue would soon ask the filesystem for them again.
const FLOOR: u64 = 1_000;

pub(super) struct Vacuum;

#[async_trait]
impl Duty for Vacuum {
    fn name(&self) -> &'static str {
        "vacuum"
    }

    fn period(&self, _: &Context, settings: &config::Maintenance) -> Duration {
        settings.vacuum_interval
    }

    async fn run(&self, context: &Context, _: &config::Maintenance) -> Result<Option<Value>, Failure> {
        let figures = shrink(context.upkeep.as_ref(), FLOOR).await?;
        if figures.returned_pages > 0 {
            tracing::info!(pages = figures.returned_pages, "gave free pages back");
        }
        Ok(Some(json!(figures)))
    }
}

/// What a vacuum did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VacuumFigures {
    /// Pages given back.
    pub returned_pages: u64,
    /// The same in bytes.
    pub returned_bytes: u64,
    /// Pages that are still free.
    pub free_pages: u64,
}

/// Gives every free page back, and refreshes the statistics.
///
/// # Errors
/// The store's; what was given back until then stays so.
pub async fn vacuum_now(upkeep: &dyn Upkeep) -> Result<VacuumFigures, Failure> {
    shrink(upkeep, 0).await
}

async fn shrink(upkeep: &dyn Upkeep, floor: u64) -> Result<VacuumFigures, Failure> {
    let sizes = upkeep.sizes().await?;
    let mut free = sizes.free_pages;
    while free > floor {
        let slice = SLICE.min(u32::try_from(free - floor).unwrap_or(SLICE));
        let left = upkeep.vacuum(slice).await?;
        // Nothing moved (the database was made without incremental vacuum), or work freed pages as fast.
        if left >= free {
            break;
        }
        free = left;
        tokio::task::yield_now().await;
    }
    upkeep.optimize().await?;
    let returned_pages = sizes.free_pages.saturating_sub(free);
    Ok(VacuumFigures { returned_pages, returned_bytes: returned_pages * sizes.page_bytes, free_pages: free })
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[tokio::test]
    async fn pages_go_back_in_slices_down_to_the_floor() {
        let (context, store, _clock) = fake::context();
        store.state().free_pages = 3_500;
        Vacuum.run(&context, &config::Maintenance::default()).await.unwrap();
        assert_eq!(store.state().free_pages, FLOOR);
        assert_eq!(store.state().vacuums, [1_000, 1_000, 500]);
        let all = vacuum_now(&*store).await.unwrap();
        assert_eq!((all.returned_pages, all.returned_bytes, all.free_pages), (1_000, 4_096_000, 0));
        assert_eq!(store.state().optimized, 2);
    }

    #[tokio::test]
    async fn a_database_that_can_not_shrink_ends_the_loop() {
        let (_context, store, _clock) = fake::context();
        store.state().free_pages = 3_500;
        store.state().stuck = true;
        assert_eq!(vacuum_now(&*store).await.unwrap().returned_pages, 0);
    }
}
