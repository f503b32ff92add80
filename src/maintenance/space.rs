//! Watches the room on the database's filesystem. With less than `min_free_space` the gate before the queue is
//! shut, while the queue drains; a tenth more opens it again, so that it does not flap.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::duty::{Context, Duty, Failure, First, off_thread};
use crate::config;
use crate::gate::Shut;
use crate::warnings::Severity;

const KEY: &str = "database.space";
const CALM: Duration = Duration::from_secs(30);
const LOW: Duration = Duration::from_secs(5);

pub(super) struct Space;

#[async_trait]
impl Duty for Space {
    fn name(&self) -> &'static str {
        "space"
    }

    fn period(&self, context: &Context, settings: &config::Maintenance) -> Duration {
        match (context.gate.is_shut_for(Shut::LowSpace), settings.min_free_space_bytes) {
            // Also with the limit taken away meanwhile: the gate has to be opened.
            (true, _) => LOW,
            (false, 0) => Duration::ZERO,
            (false, _) => CALM,
        }
    }

    fn first(&self) -> First {
        First::AtOnce
    }

    async fn run(&self, context: &Context, settings: &config::Maintenance) -> Result<Option<Value>, Failure> {
        let database = context.upkeep.path();
        let seen = database.clone();
        let free = off_thread(move || free_bytes(&seen).map_err(Failure::file("ask for free space at", &seen))).await?;
        let least = settings.min_free_space_bytes;
        let changed = if is_low(context.gate.is_shut_for(Shut::LowSpace), free, least) {
            let message = format!(
                "less than {} MiB free for {}: no new work is taken in until there is more \
                 (maintenance.min_free_space)",
                least.div_ceil(1 << 20),
                database.display()
            );
            context.warnings.set(KEY, Severity::Warning, message);
            context.gate.shut(Shut::LowSpace)
        } else {
            context.warnings.clear(KEY);
            context.gate.open(Shut::LowSpace)
        };
        Ok(changed.then(|| json!({ "free_bytes": free, "intake_paused": context.gate.is_shut_for(Shut::LowSpace) })))
    }
}

const fn is_low(was_low: bool, free: u64, least: u64) -> bool {
    free < if was_low { least.saturating_add(least / 10) } else { least }
}

/// Bytes that this user may still write on the filesystem of `path`.
///
/// # Errors
/// What the machine says.
pub fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let room = rustix::fs::statvfs(path)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn a_tenth_more_than_the_limit_ends_the_shortage() {
        assert!(!is_low(false, 100, 100));
        assert!(is_low(false, 99, 100));
        assert!(is_low(true, 109, 100));
        assert!(!is_low(true, 110, 100));
        assert!(!is_low(true, 0, 0));
    }

    #[tokio::test]
    async fn a_shortage_shuts_the_gate_and_its_end_opens_it() {
        let (context, store, _clock) = fake::context();
        store.state().path = std::env::temp_dir();
        let mut settings = config::Maintenance { min_free_space_bytes: u64::MAX, ..config::Maintenance::default() };
        assert_eq!(Space.period(&context, &settings), CALM);
        let figures = Space.run(&context, &settings).await.unwrap().unwrap();
        assert_eq!(figures["intake_paused"], true);
        assert!(context.gate.is_shut_for(Shut::LowSpace));
        assert_eq!(context.warnings.list()[0].key, KEY);
        assert_eq!(Space.run(&context, &settings).await.unwrap(), None);

        settings.min_free_space_bytes = 0;
        assert_eq!(Space.period(&context, &settings), LOW);
        Space.run(&context, &settings).await.unwrap();
        assert!(context.gate.reasons().is_empty());
        assert!(context.warnings.list().is_empty());
        assert_eq!(Space.period(&context, &settings), Duration::ZERO);
    }
}
