//! Moves the write-ahead log (WAL) into the database, and cuts it off.
//!
//! In passing (PASSIVE) while the queue works, which waits for nobody; to nothing (TRUNCATE) while nothing runs,
//! and whenever the log has grown past a limit, which is looked at more often than the interval. A reader that
//! stays in the way lets the log grow without end, so it is named.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::duty::{Context, Duty, Failure, First, off_thread};
use super::readers::{Holder, holders};
use crate::config;
use crate::job::StateName;
use crate::store::{self, CheckpointMode, JobFilter, Upkeep};
use crate::warnings::Severity;

const KEY: &str = "database.wal";
/// Past this size the log is cut whatever runs.
const LIMIT_BYTES: u64 = 64 << 20;
/// How often the size is looked at.
const LOOK: Duration = Duration::from_secs(30);
/// Four pages. The record of a checkpoint is written to the log too: without a floor an idle daemon would find
/// its own record there each time, and write for ever.
const FLOOR_BYTES: u64 = 16 << 10;

/// Each `wal_checkpoint_interval`.
pub(super) struct Checkpoint;

#[async_trait]
impl Duty for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn period(&self, _: &Context, settings: &config::Maintenance) -> Duration {
        settings.wal_checkpoint_interval
    }

    fn first(&self) -> First {
        First::AfterPeriod
    }

    async fn run(&self, context: &Context, _: &config::Maintenance) -> Result<Option<Value>, Failure> {
        if context.upkeep.sizes().await?.wal_bytes <= FLOOR_BYTES {
            context.warnings.clear(KEY);
            return Ok(None);
        }
        let mode = if is_idle(context).await? { CheckpointMode::Truncate } else { CheckpointMode::Passive };
        checkpoint(context, mode).await.map(Some)
    }
}

/// Whenever the log is too long.
pub(super) struct Overflow;

#[async_trait]
impl Duty for Overflow {
    fn name(&self) -> &'static str {
        "wal-limit"
    }

    fn period(&self, _: &Context, settings: &config::Maintenance) -> Duration {
        // Off together with the checkpoints: whoever turns those off does them himself.
        settings.wal_checkpoint_interval.min(LOOK)
    }

    fn first(&self) -> First {
        First::AfterPeriod
    }

    async fn run(&self, context: &Context, _: &config::Maintenance) -> Result<Option<Value>, Failure> {
        if context.upkeep.sizes().await?.wal_bytes <= LIMIT_BYTES {
            return Ok(None);
        }
        checkpoint(context, CheckpointMode::Truncate).await.map(Some)
    }
}

/// Moves everything into the database and cuts the log to nothing, as far as readers allow it.
///
/// # Errors
/// The store's.
pub async fn checkpoint_now(upkeep: &dyn Upkeep) -> Result<store::Checkpoint, Failure> {
    Ok(upkeep.checkpoint(CheckpointMode::Truncate).await?)
}

async fn is_idle(context: &Context) -> Result<bool, Failure> {
    let running = JobFilter { states: vec![StateName::Running], ..JobFilter::default() };
    Ok(context.browse.jobs(&running, None, 1).await?.is_empty())
}

async fn checkpoint(context: &Context, mode: CheckpointMode) -> Result<Value, Failure> {
    let done = context.upkeep.checkpoint(mode).await?;
    let complete = !done.busy && done.moved_frames >= done.wal_frames;
    let in_the_way = if complete {
        Vec::new()
    } else {
        let database = context.upkeep.path();
        off_thread(move || Ok(holders(&database))).await?
    };
    // Without a foreign process it was one of our own short reads, and the next checkpoint gets further.
    if in_the_way.is_empty() {
        context.warnings.clear(KEY);
    } else {
        context.warnings.set(KEY, Severity::Warning, blame(&in_the_way));
    }
    Ok(json!({ "mode": mode_name(mode), "checkpoint": done }))
}

fn blame(holders: &[Holder]) -> String {
    let names: Vec<String> = holders.iter().map(Holder::to_string).collect();
    format!(
        "the write-ahead log can't be emptied and grows: {} has the database open and may hold a read \
         transaction; end it",
        names.join(", ")
    )
}

const fn mode_name(mode: CheckpointMode) -> &'static str {
    match mode {
        CheckpointMode::Passive => "passive",
        CheckpointMode::Truncate => "truncate",
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;
    use crate::job::JobId;

    #[tokio::test]
    async fn it_truncates_when_nothing_runs_and_goes_in_passing_otherwise() {
        let (context, store, _clock) = fake::context();
        let settings = config::Maintenance::default();
        store.state().wal_bytes = 1 << 20;
        Checkpoint.run(&context, &settings).await.unwrap();
        store.state().running = vec![JobId(1)];
        store.state().wal_bytes = 1 << 20;
        Checkpoint.run(&context, &settings).await.unwrap();
        assert_eq!(store.state().checkpoints, [CheckpointMode::Truncate, CheckpointMode::Passive]);
    }

    #[tokio::test]
    async fn its_own_record_does_not_keep_it_busy() {
        let (context, store, _clock) = fake::context();
        store.state().wal_bytes = 2 * 4_120 + 32;
        assert_eq!(Checkpoint.run(&context, &config::Maintenance::default()).await.unwrap(), None);
        assert!(store.state().checkpoints.is_empty());
    }

    #[tokio::test]
    async fn a_long_log_is_cut_although_jobs_run() {
        let (context, store, _clock) = fake::context();
        let settings = config::Maintenance::default();
        store.state().running = vec![JobId(1)];
        store.state().wal_bytes = LIMIT_BYTES;
        assert_eq!(Overflow.run(&context, &settings).await.unwrap(), None);
        store.state().wal_bytes = LIMIT_BYTES + 1;
        assert!(Overflow.run(&context, &settings).await.unwrap().is_some());
        assert_eq!(store.state().checkpoints, [CheckpointMode::Truncate]);
    }

    #[tokio::test]
    async fn a_foreign_reader_in_the_way_is_named_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (mut context, store, _clock) = fake::context();
        store.state().path = folder.path().join("ingestd.db");
        context.upkeep = store.clone();
        std::fs::write(folder.path().join("ingestd.db-wal"), "x").unwrap();
        let reader = std::fs::File::open(folder.path().join("ingestd.db-wal")).unwrap();
        // `cat` reads the log as its input and then blocks on its output, a pipe that nobody empties.
        let mut cat = std::process::Command::new("cat");
        cat.args(["-", "/dev/zero"]).stdin(std::process::Stdio::from(reader)).stdout(std::process::Stdio::piped());
        let mut child = cat.spawn().unwrap();
        store.state().wal_bytes = 1 << 20;
        store.state().busy = true;
        Checkpoint.run(&context, &config::Maintenance::default()).await.unwrap();
        let list = context.warnings.list();
        assert!(list[0].message.contains(&format!("process {} (cat)", child.id())), "{}", list[0].message);

        child.kill().unwrap();
        child.wait().unwrap();
        store.state().wal_bytes = 1 << 20;
        Checkpoint.run(&context, &config::Maintenance::default()).await.unwrap();
        assert!(context.warnings.list().is_empty());
    }
}
