//! The duties of maintenance by hand, where no daemon runs.
//!
//! CONNECT: `maintenance::{prune_now, backup_now, checkpoint, vacuum, check}`; until then each duty is the plain
//! loop over the store's calls.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::hands::{Hands, Refusal};
use super::request::Duty;
use crate::job::StateName;
use crate::store::{CheckpointMode, Prunable};

/// Rows removed by one call, and pages given back by one call: short writes.
const SLICE: u32 = 1_000;

pub(super) async fn perform(duty: Duty, hands: &Hands) -> Result<Value, Refusal> {
    let upkeep = &hands.stores.upkeep;
    match duty {
        Duty::Checkpoint => super::execute::answer(&upkeep.checkpoint(CheckpointMode::Truncate).await?),
        Duty::Vacuum => vacuum(hands).await,
        Duty::Prune { dry_run } => prune(dry_run, hands).await,
        Duty::Backup { target } => {
            let target = target.map_or_else(|| scheduled_target(hands), |path| path.0);
            backup(target, hands).await
        }
        Duty::Check => {
            let findings = upkeep.check(true).await?;
            Ok(json!({ "findings": findings.len(), "all": findings }))
        }
    }
}

async fn vacuum(hands: &Hands) -> Result<Value, Refusal> {
    let upkeep = &hands.stores.upkeep;
    let before = upkeep.sizes().await?.free_pages;
    let mut free = before;
    while free > 0 {
        let left = upkeep.vacuum(SLICE).await?;
        if left >= free {
            break;
        }
        free = left;
    }
    Ok(json!({ "pages_freed": before.saturating_sub(free), "free_pages": free }))
}

async fn prune(dry_run: bool, hands: &Hands) -> Result<Value, Refusal> {
    let keep = hands.config().maintenance.retention.clone();
    let now = hands.clock.now();
    let kinds = [
        ("completed", Prunable::Jobs(StateName::Completed), keep.completed),
        ("skipped", Prunable::Jobs(StateName::Skipped), keep.skipped),
        ("cancelled", Prunable::Jobs(StateName::Cancelled), keep.cancelled),
        ("failed", Prunable::Jobs(StateName::Failed), keep.failed),
        ("attempts", Prunable::Attempts, keep.attempts),
        ("sources", Prunable::Sources, keep.sources),
    ];
    let mut figures = BTreeMap::new();
    for (name, what, keep) in kinds {
        let cutoff = now.minus(keep);
        let mut rows = 0;
        if dry_run {
            rows = hands.stores.upkeep.prunable(what, cutoff).await?;
        } else {
            loop {
                let removed = hands.stores.upkeep.prune(what, cutoff, SLICE).await?;
                rows += removed;
                if removed < u64::from(SLICE) {
                    break;
                }
            }
        }
        figures.insert(name, rows);
    }
    Ok(json!(figures))
}

fn scheduled_target(hands: &Hands) -> PathBuf {
    let config = hands.config();
    let folder =
        config.maintenance.backup.directory.clone().unwrap_or_else(|| config.state_directory().join("backups"));
    let time = jiff::Timestamp::from_millisecond(hands.clock.now().as_millis()).unwrap_or_default();
    folder.join(time.strftime("ingestd-%Y%m%dT%H%M%SZ.db").to_string())
}

async fn backup(target: PathBuf, hands: &Hands) -> Result<Value, Refusal> {
    if target.exists() {
        return Err(Refusal::usage(format!(
            "{} exists already; a backup never overwrites: choose another name",
            target.display()
        )));
    }
    hands.stores.upkeep.backup_to(&target).await?;
    let bytes = std::fs::metadata(&target).map(|meta| meta.len()).unwrap_or_default();
    Ok(json!({ "path": target.to_string_lossy(), "size_bytes": bytes }))
}
