//! A store in memory for the duties' tests: rows by age, pages, a log; it fails when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use super::{Context, Steady};
use crate::clock::{Boottime, Clock, ManualClock, Timestamp};
use crate::gate::Gate;
use crate::intake::ContentFolder;
use crate::job::{CanonicalJson, Effect, EffectId, IdempotencyKey, Job, JobId, Op, Priority, State, Step};
use crate::store::*;
use crate::warnings::Warnings;

#[derive(Default)]
pub(super) struct FakeState {
    pub(super) rows: Vec<(Prunable, Timestamp)>,
    pub(super) largest_batch: u32,
    pub(super) clock_steps: ClockSteps,
    pub(super) free_pages: u64,
    pub(super) vacuums: Vec<u32>,
    pub(super) stuck: bool,
    pub(super) optimized: u32,
    pub(super) wal_bytes: u64,
    pub(super) busy: bool,
    pub(super) checkpoints: Vec<CheckpointMode>,
    pub(super) findings: Vec<String>,
    pub(super) backups: u32,
    pub(super) reclaimable: u64,
    pub(super) abandoned: AbandonedEffects,
    pub(super) running: Vec<JobId>,
    /// Files that hold contents of jobs.
    pub(super) needed: Vec<PathBuf>,
    pub(super) kv: BTreeMap<String, String>,
    pub(super) path: PathBuf,
    pub(super) fail_with: Option<StoreError>,
    /// A vacuum never ends.
    pub(super) hangs: bool,
    pub(super) hanging: bool,
}

#[derive(Default)]
pub(super) struct Fake(Mutex<FakeState>);

/// Everything a duty needs, on a fake store and a clock that is moved by hand.
pub(super) fn context() -> (Context, Arc<Fake>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_767_323_045_000)));
    let fake = Arc::new(Fake::default());
    fake.state().path = PathBuf::from("/tmp/ingestd.db");
    let context = Context {
        upkeep: fake.clone(),
        queue: fake.clone(),
        browse: fake.clone(),
        effects: fake.clone(),
        settings: fake.clone(),
        clock: Steady::anchored(clock.clone() as Arc<dyn Clock>),
        warnings: Warnings::new(clock.clone()),
        gate: Gate::default(),
        lease: watch::channel(Duration::from_mins(1)).1,
        spool: PathBuf::from("/nonexistent/spool"),
        contents: ContentFolder::new(PathBuf::from("/nonexistent/content"), 0o600),
        verify: |path| {
            Box::pin(async move { std::fs::read(path).map(drop).map_err(|e| StoreError::Other(e.to_string())) })
        },
    };
    (context, fake, clock)
}

impl Fake {
    pub(super) fn state(&self) -> MutexGuard<'_, FakeState> {
        self.0.lock().unwrap()
    }

    pub(super) fn fill(&self, what: Prunable, ended: Timestamp, count: usize) {
        self.state().rows.extend(std::iter::repeat_n((what, ended), count));
    }

    pub(super) fn rows(&self, what: Prunable) -> usize {
        self.state().rows.iter().filter(|(kind, _)| *kind == what).count()
    }

    fn fallible(&self) -> Result<MutexGuard<'_, FakeState>> {
        let state = self.state();
        match &state.fail_with {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }
}

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
        Ok(self.state().abandoned)
    }

    async fn effects_of(&self, _job: JobId, _limit: usize) -> Result<Vec<Effect>> {
        Ok(Vec::new())
    }

    async fn effect(&self, _id: EffectId) -> Result<Option<Effect>> {
        Ok(None)
    }
}

#[async_trait]
impl Upkeep for Fake {
    async fn prune(&self, what: Prunable, cutoff: Timestamp, limit: u32) -> Result<u64> {
        let mut state = self.fallible()?;
        state.largest_batch = state.largest_batch.max(limit);
        let before = state.rows.len();
        let mut left = limit;
        state.rows.retain(|(kind, ended)| {
            let goes = left > 0 && *kind == what && *ended < cutoff;
            left -= u32::from(goes);
            !goes
        });
        Ok((before - state.rows.len()) as u64)
    }

    async fn prunable(&self, what: Prunable, cutoff: Timestamp) -> Result<u64> {
        Ok(self.fallible()?.rows.iter().filter(|(kind, ended)| *kind == what && *ended < cutoff).count() as u64)
    }

    async fn clock_steps(&self) -> Result<ClockSteps> {
        Ok(self.state().clock_steps.clone())
    }

    async fn added_files(&self, _after: i64, _limit: usize) -> Result<Vec<AddedFile>> {
        Ok(Vec::new())
    }

    async fn note_absent(&self, _sources: Vec<i64>) -> Result<u64> {
        Ok(0)
    }

    async fn needed_contents(&self, contents: Vec<PathBuf>) -> Result<BTreeSet<PathBuf>> {
        let needed = &self.fallible()?.needed;
        Ok(contents.into_iter().filter(|path| needed.contains(path)).collect())
    }

    async fn checkpoint(&self, mode: CheckpointMode) -> Result<Checkpoint> {
        let mut state = self.fallible()?;
        state.checkpoints.push(mode);
        let wal_frames = i64::try_from(state.wal_bytes / 4_120).unwrap();
        state.wal_bytes = 0;
        Ok(Checkpoint { busy: state.busy, wal_frames, moved_frames: if state.busy { 0 } else { wal_frames } })
    }

    async fn vacuum(&self, pages: u32) -> Result<u64> {
        let hangs = self.state().hangs;
        if hangs {
            self.state().hanging = true;
            std::future::pending::<()>().await;
        }
        let mut state = self.fallible()?;
        state.vacuums.push(pages);
        if !state.stuck {
            state.free_pages = state.free_pages.saturating_sub(u64::from(pages));
        }
        Ok(state.free_pages)
    }

    async fn optimize(&self) -> Result<()> {
        self.fallible()?.optimized += 1;
        Ok(())
    }

    async fn check(&self, _full: bool) -> Result<Vec<String>> {
        Ok(self.fallible()?.findings.clone())
    }

    async fn backup_to(&self, target: &Path) -> Result<()> {
        self.fallible()?.backups += 1;
        std::fs::File::create_new(target).map(drop).map_err(|error| StoreError::Other(error.to_string()))
    }

    async fn sizes(&self) -> Result<Sizes> {
        let state = self.fallible()?;
        let free_pages = if state.hangs { 10 } else { state.free_pages };
        Ok(Sizes { size_bytes: 1 << 24, wal_bytes: state.wal_bytes, free_pages, page_bytes: 4_096 })
    }

    fn path(&self) -> PathBuf {
        self.state().path.clone()
    }
}

#[async_trait]
impl Queue for Fake {
    async fn enqueue(&self, _: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        Err(StoreError::Closed)
    }
    async fn vanish(&self, _: Vec<Gone>) -> Result<Vec<Vanished>> {
        Err(StoreError::Closed)
    }
    async fn lease(&self, _: Vec<Want>, _: usize, _: Appetite) -> Result<Leased> {
        Err(StoreError::Closed)
    }
    async fn renew(&self, _: Vec<Claim>) -> Result<Vec<Option<Boottime>>> {
        Err(StoreError::Closed)
    }
    async fn settle(&self, _: Vec<Settlement>) -> Result<Vec<Settled>> {
        Err(StoreError::Closed)
    }
    async fn reclaim(&self) -> Result<u64> {
        Ok(std::mem::take(&mut self.fallible()?.reclaimable))
    }
    fn changed(&self) -> tokio::sync::futures::OwnedNotified {
        Arc::new(Notify::new()).notified_owned()
    }
}

fn running(id: JobId) -> Job {
    let at = Timestamp::default();
    Job {
        id,
        pipeline: "documents".into(),
        watch: None,
        path: PathBuf::from("/a"),
        relative: PathBuf::from("/a"),
        op: Op::Add,
        moved_from: None,
        version: 1,
        priority: Priority::Normal,
        state: State::Running { started_at: at },
        attempt: 0,
        executions: 1,
        crashes: 0,
        run_at: at,
        created_at: at,
        started_at: Some(at),
        finished_at: None,
        size_bytes: None,
        digest: None,
        idempotency_key: IdempotencyKey([0; 32]),
        metadata: None,
        run: None,
        line: None,
        repo: None,
        content: None,
        stage: None,
        external_id: None,
        result: None,
        original: None,
        error: None,
    }
}

#[async_trait]
impl Browse for Fake {
    async fn jobs(&self, _: &JobFilter, _: Option<JobId>, limit: usize) -> Result<Vec<Job>> {
        Ok(self.fallible()?.running.iter().take(limit).map(|id| running(*id)).collect())
    }
    async fn job(&self, id: JobId) -> Result<Option<Job>> {
        Ok(self.fallible()?.running.contains(&id).then(|| running(id)))
    }
    async fn attempts(&self, _: JobId) -> Result<Vec<Attempt>> {
        Err(StoreError::Closed)
    }
    async fn history(&self, _: &JobFilter, _: Option<i64>, _: usize) -> Result<Vec<Attempt>> {
        Err(StoreError::Closed)
    }
    async fn failures(&self, _: usize) -> Result<Vec<FailureGroup>> {
        Err(StoreError::Closed)
    }
    async fn overview(&self) -> Result<Overview> {
        Err(StoreError::Closed)
    }
    async fn last_boot(&self) -> Result<Option<Boot>> {
        Err(StoreError::Closed)
    }
    async fn stats(&self, _: Timestamp) -> Result<Stats> {
        Err(StoreError::Closed)
    }
    async fn query(&self, _: &str, _: usize) -> Result<Table> {
        Err(StoreError::Closed)
    }
    async fn schema_version(&self) -> Result<i64> {
        Err(StoreError::Closed)
    }
}

#[async_trait]
impl Settings for Fake {
    async fn register_pipelines(&self, _: Vec<String>) -> Result<()> {
        Err(StoreError::Closed)
    }
    async fn pause_pipelines(&self, _: Vec<String>, _: bool) -> Result<()> {
        Err(StoreError::Closed)
    }
    async fn paused_pipelines(&self) -> Result<BTreeSet<String>> {
        Err(StoreError::Closed)
    }
    async fn put_watch(&self, _: &str, _: PathBuf, _: Option<String>) -> Result<()> {
        Err(StoreError::Closed)
    }
    async fn remove_watch(&self, _: &str) -> Result<bool> {
        Err(StoreError::Closed)
    }
    async fn pause_watch(&self, _: &str, _: bool) -> Result<bool> {
        Err(StoreError::Closed)
    }
    async fn watches(&self) -> Result<Vec<WatchRow>> {
        Err(StoreError::Closed)
    }
    async fn kv_get(&self, key: &str) -> Result<Option<String>> {
        Ok(self.state().kv.get(key).cloned())
    }
    async fn kv_set(&self, key: &str, value: &str) -> Result<()> {
        self.state().kv.insert(key.to_owned(), value.to_owned());
        Ok(())
    }
    async fn kv_delete(&self, _: &str) -> Result<bool> {
        Err(StoreError::Closed)
    }
    async fn kv_list(&self, _: &str) -> Result<Vec<KvEntry>> {
        Err(StoreError::Closed)
    }
}
