//! The duties of maintenance by hand, where no daemon runs.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::execute::answer;
use super::hands::{Hands, Refusal};
use super::request::Duty;
use crate::maintenance::{self, backup_now, backup_to, check_now, checkpoint_now, prune_now, vacuum_now};
use crate::store::{self, sqlite};

impl From<maintenance::Failure> for Refusal {
    fn from(failure: maintenance::Failure) -> Self {
        match failure {
            maintenance::Failure::Store(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

pub(super) async fn perform(duty: Duty, hands: &Hands) -> Result<Value, Refusal> {
    let upkeep = hands.stores.upkeep.as_ref();
    let settings = hands.config().maintenance.clone();
    let now = hands.clock.now();
    match duty {
        Duty::Checkpoint => answer(&checkpoint_now(upkeep).await?),
        Duty::Vacuum => answer(&vacuum_now(upkeep).await?),
        Duty::Prune { dry_run } => answer(&prune_now(upkeep, &settings.retention, now, dry_run).await?),
        Duty::Backup { target: None } => answer(&backup_now(upkeep, verify, &settings, now).await?),
        Duty::Backup { target: Some(target) } => answer(&backup_to(upkeep, verify, &target.0, now).await?),
        Duty::Check => {
            let findings = check_now(upkeep, true).await?;
            Ok(json!({ "findings": findings.len(), "all": findings }))
        }
    }
}

/// Opens a copy of the database and checks it, in the form that maintenance asks for.
fn verify(copy: PathBuf) -> futures_util::future::BoxFuture<'static, store::Result<()>> {
    Box::pin(async move { sqlite::verify(&copy).await })
}
