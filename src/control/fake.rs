//! A store and a daemon in memory, as far as the tests of the socket and the commands need them.

mod effects;
pub(crate) mod lists;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::files::LiveFile;
use super::hands::{Hands, Live, Refusal, Stores};
use super::request::{Confirmed, Duty, LiveStatus, LiveWarning, Scanned};
use crate::clock::{Boottime, SystemClock, Timestamp};
use crate::config::{Config, Database, Log, Maintenance, Pipeline, ProcessorKind, Queue as QueueSection, Shutdown};
use crate::job::{IdempotencyKey, Job, JobError, JobId, Op, Priority, State, StateName};
use crate::run::RunId;
use crate::store::*;

/// Jobs by number, settings, and what was asked of the daemon.
pub(crate) struct Fake {
    pub(crate) jobs: Mutex<BTreeMap<JobId, StateName>>,
    pub(crate) paused: Mutex<BTreeSet<String>>,
    pub(crate) watches: Mutex<Vec<WatchRow>>,
    pub(crate) kv: Mutex<BTreeMap<String, String>>,
    pub(crate) enqueued: Mutex<Vec<NewJob>>,
    pub(crate) asked: Mutex<Vec<String>>,
    /// The state directory; its database need not be there.
    pub(crate) place: PathBuf,
    pub(crate) listed: Mutex<BTreeMap<RunId, lists::ListRun>>,
    pub(crate) changes: watch::Sender<u64>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            jobs: Mutex::default(),
            paused: Mutex::default(),
            watches: Mutex::default(),
            kv: Mutex::default(),
            enqueued: Mutex::default(),
            asked: Mutex::default(),
            place: PathBuf::from("/nowhere"),
            listed: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }
}

impl Fake {
    pub(crate) fn put(&self, id: JobId, state: StateName) {
        self.jobs.lock().unwrap().insert(id, state);
        self.changes.send_modify(|generation| *generation += 1);
    }

    pub(crate) fn state(&self, id: JobId) -> Option<StateName> {
        self.jobs.lock().unwrap().get(&id).copied()
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn steer(&self, ids: &[JobId], change: impl Fn(StateName) -> Result<StateName, Steered>) -> Vec<Steered> {
        let mut jobs = self.jobs.lock().unwrap();
        ids.iter()
            .map(|id| match jobs.get_mut(id) {
                None => Steered::Unknown,
                Some(state) => match change(*state) {
                    Ok(new) => {
                        *state = new;
                        Steered::Done
                    }
                    Err(no) => no,
                },
            })
            .collect()
    }
}

/// A configuration with one pipeline, `documents`.
pub(crate) fn config() -> Config {
    Config {
        database: Database { path: PathBuf::from("/nowhere/ingestd.db"), ..Database::default() },
        log: Log::default(),
        queue: QueueSection::default(),
        shutdown: Shutdown::default(),
        maintenance: Maintenance::default(),
        pipelines: BTreeMap::from([("documents".to_owned(), Pipeline::of(ProcessorKind::Noop))]),
        watches: BTreeMap::new(),
        secret_variables: Vec::new(),
    }
}

/// Hands on the fake, with or without a daemon.
pub(crate) fn hands(fake: &Arc<Fake>, live: bool) -> Hands {
    let fake = Arc::clone(fake);
    let mut config = config();
    config.database.path = fake.place.join("ingestd.db");
    Hands {
        config: watch::channel(Arc::new(config)).1,
        clock: Arc::new(SystemClock),
        stores: Stores {
            browse: fake.clone(),
            settings: fake.clone(),
            steering: fake.clone(),
            queue: fake.clone(),
            accounts: fake.clone(),
            runs: fake.clone(),
            lists: fake.clone(),
            effects: fake.clone(),
            stages: fake.clone(),
            upkeep: fake.clone(),
        },
        live: live.then_some(fake as Arc<dyn Live>),
    }
}

/// A job in this state, with every fact filled in.
pub(crate) fn job(id: JobId, state: StateName) -> Job {
    let at = Timestamp::from_millis(1_700_000_000_000);
    let end = Timestamp::from_millis(1_700_000_000_012);
    let error = JobError::transient(crate::job::ErrorKind::Exit, "exit code 1");
    let state = match state {
        StateName::Pending => State::Pending { run_at: at, blocked_by: None },
        StateName::Running => State::Running { started_at: at },
        StateName::Retrying => State::Retrying { run_at: end, error: error.clone() },
        StateName::Completed => State::Completed { finished_at: end },
        StateName::Failed => State::Failed { finished_at: end, error: error.clone() },
        StateName::Cancelled => State::Cancelled { finished_at: end },
        StateName::Skipped => {
            State::Skipped { finished_at: end, reason: crate::job::SkipReason::Superseded { by: JobId(id.0 + 1) } }
        }
    };
    let name = state.name();
    Job {
        id,
        pipeline: "documents".to_owned(),
        watch: Some("inbox".to_owned()),
        path: PathBuf::from("/srv/inbox/a.pdf"),
        relative: PathBuf::from("a.pdf"),
        op: Op::Add,
        moved_from: None,
        version: 1,
        priority: Priority::Normal,
        attempt: u32::from(name == StateName::Completed),
        executions: 1,
        crashes: 0,
        run_at: at,
        created_at: at,
        started_at: (name != StateName::Pending).then_some(at),
        finished_at: name.is_final().then_some(end),
        size_bytes: Some(3),
        digest: None,
        idempotency_key: IdempotencyKey([7; 32]),
        metadata: None,
        run: None,
        line: None,
        repo: None,
        content: None,
        stage: None,
        external_id: None,
        result: None,
        original: None,
        error: matches!(name, StateName::Failed | StateName::Retrying).then_some(error),
        state,
    }
}

#[async_trait]
impl Live for Fake {
    async fn cancel_running(&self, jobs: &[JobId]) {
        for id in jobs {
            self.put(*id, StateName::Cancelled);
        }
    }

    async fn interrupt(&self, pipelines: &[String]) {
        self.note(format!("interrupt {}", pipelines.join(" ")));
    }

    async fn reload_watches(&self) -> Result<(), Refusal> {
        self.note("reload".to_owned());
        Ok(())
    }

    async fn scan(&self, watch: &str, force: bool) -> Result<Scanned, Refusal> {
        self.note(format!("scan {watch} {force}"));
        Ok(Scanned { files: 2, enqueued: 1 })
    }

    async fn files(&self, _watch: &str, names: Vec<PathBuf>) -> Result<Vec<LiveFile>, Refusal> {
        Ok(vec![LiveFile::default(); names.len()])
    }

    async fn confirm(&self, watch: &str) -> Result<Confirmed, Refusal> {
        self.note(format!("confirm {watch}"));
        Ok(Confirmed { files: 3 })
    }

    async fn maintenance(&self, duty: Duty) -> Result<Value, Refusal> {
        self.note(format!("{duty:?}"));
        Ok(Value::Null)
    }

    async fn status(&self) -> LiveStatus {
        let warning = LiveWarning { critical: false, message: "a warning".to_owned() };
        LiveStatus { warnings: vec![warning], ..LiveStatus::default() }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[async_trait]
impl Steering for Fake {
    async fn retry(&self, jobs: Vec<JobId>) -> Result<Vec<Steered>> {
        Ok(self.steer(&jobs, |state| match state {
            StateName::Failed | StateName::Cancelled | StateName::Retrying => Ok(StateName::Pending),
            other => Err(Steered::Refused(format!("it is {other}"))),
        }))
    }

    async fn cancel(&self, jobs: Vec<JobId>) -> Result<Vec<Steered>> {
        Ok(self.steer(&jobs, |state| match state {
            StateName::Pending | StateName::Retrying => Ok(StateName::Cancelled),
            StateName::Running => Err(Steered::Running),
            other => Err(Steered::Refused(format!("it is {other}"))),
        }))
    }

    async fn prioritize(&self, jobs: Vec<JobId>, _priority: Priority) -> Result<Vec<Steered>> {
        Ok(self.steer(&jobs, Ok))
    }
}

#[async_trait]
impl Settings for Fake {
    async fn register_pipelines(&self, _names: Vec<String>) -> Result<()> {
        Ok(())
    }

    async fn pause_pipelines(&self, names: Vec<String>, paused: bool) -> Result<()> {
        let mut all = self.paused.lock().unwrap();
        for name in names {
            if paused {
                all.insert(name)
            } else {
                all.remove(&name)
            };
        }
        Ok(())
    }

    async fn paused_pipelines(&self) -> Result<BTreeSet<String>> {
        Ok(self.paused.lock().unwrap().clone())
    }

    async fn put_watch(&self, name: &str, root: PathBuf, definition: Option<String>) -> Result<()> {
        let row = WatchRow { name: name.to_owned(), root, definition, paused: false };
        self.watches.lock().unwrap().push(row);
        Ok(())
    }

    async fn remove_watch(&self, name: &str) -> Result<bool> {
        let mut rows = self.watches.lock().unwrap();
        let before = rows.len();
        rows.retain(|row| row.name != name);
        Ok(rows.len() < before)
    }

    async fn pause_watch(&self, name: &str, paused: bool) -> Result<bool> {
        let mut rows = self.watches.lock().unwrap();
        Ok(rows.iter_mut().find(|row| row.name == name).map(|row| row.paused = paused).is_some())
    }

    async fn watches(&self) -> Result<Vec<WatchRow>> {
        Ok(self.watches.lock().unwrap().clone())
    }

    async fn kv_get(&self, key: &str) -> Result<Option<String>> {
        Ok(self.kv.lock().unwrap().get(key).cloned())
    }

    async fn kv_set(&self, key: &str, value: &str) -> Result<()> {
        self.kv.lock().unwrap().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    async fn kv_delete(&self, key: &str) -> Result<bool> {
        Ok(self.kv.lock().unwrap().remove(key).is_some())
    }

    async fn kv_list(&self, prefix: &str) -> Result<Vec<KvEntry>> {
        let kv = self.kv.lock().unwrap();
        let entry = |(key, value): (&String, &String)| KvEntry {
            key: key.clone(),
            value: value.clone(),
            updated_at: Timestamp::default(),
        };
        Ok(kv.iter().filter(|(key, _)| key.starts_with(prefix)).map(entry).collect())
    }
}

#[async_trait]
impl Queue for Fake {
    /// The first answer for a file named `changed` is that its digest is needed.
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        let mut enqueued = self.enqueued.lock().unwrap();
        Ok(jobs
            .into_iter()
            .map(|job| {
                if job.source.display_path().ends_with("changed") && job.digest.is_none() {
                    return Enqueued::NeedsDigest;
                }
                enqueued.push(job);
                Enqueued::New { id: JobId(i64::try_from(enqueued.len()).unwrap()), version: 1 }
            })
            .collect())
    }

    async fn vanish(&self, _gone: Vec<Gone>) -> Result<Vec<Vanished>> {
        Err(StoreError::Closed)
    }

    async fn lease(&self, _wants: Vec<Want>, _limit: usize, _appetite: Appetite) -> Result<Leased> {
        Err(StoreError::Closed)
    }

    async fn renew(&self, _claims: Vec<Claim>) -> Result<Vec<Option<Boottime>>> {
        Err(StoreError::Closed)
    }

    async fn settle(&self, _settlements: Vec<Settlement>) -> Result<Vec<Settled>> {
        Err(StoreError::Closed)
    }

    async fn reclaim(&self) -> Result<u64> {
        Err(StoreError::Closed)
    }

    fn changed(&self) -> tokio::sync::futures::OwnedNotified {
        Arc::new(Notify::new()).notified_owned()
    }
}

#[async_trait]
impl Browse for Fake {
    async fn jobs(&self, filter: &JobFilter, before: Option<JobId>, limit: usize) -> Result<Vec<Job>> {
        let jobs = self.jobs.lock().unwrap();
        let matches = |(id, state): &(&JobId, &StateName)| {
            before.is_none_or(|before| **id < before) && (filter.states.is_empty() || filter.states.contains(state))
        };
        Ok(jobs.iter().rev().filter(matches).take(limit).map(|(id, state)| job(*id, *state)).collect())
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>> {
        Ok(self.state(id).map(|state| job(id, state)))
    }

    async fn attempts(&self, _id: JobId) -> Result<Vec<Attempt>> {
        Ok(Vec::new())
    }

    async fn history(&self, _filter: &JobFilter, _before: Option<i64>, _limit: usize) -> Result<Vec<Attempt>> {
        Ok(Vec::new())
    }

    async fn failures(&self, _limit: usize) -> Result<Vec<FailureGroup>> {
        Ok(Vec::new())
    }

    async fn overview(&self) -> Result<Overview> {
        let mut overview = Overview::default();
        for state in self.jobs.lock().unwrap().values() {
            *overview.total.by_state_and_priority.entry((*state, Priority::Normal)).or_default() += 1;
        }
        overview.pipelines.insert("documents".to_owned(), (overview.total.clone(), false));
        Ok(overview)
    }

    async fn last_boot(&self) -> Result<Option<Boot>> {
        Ok(None)
    }

    async fn stats(&self, _since: Timestamp) -> Result<Stats> {
        Ok(Stats::default())
    }

    async fn query(&self, _sql: &str, _limit: usize) -> Result<Table> {
        Ok(Table::default())
    }

    async fn schema_version(&self) -> Result<i64> {
        Ok(1)
    }
}

#[async_trait]
impl Accounts for Fake {
    async fn accounts(&self, _: &str, _: &str, _: Option<PathBuf>, _: usize) -> Result<Vec<Account>> {
        Ok(Vec::new())
    }

    async fn accounts_of(&self, _: &str, _: &str, names: Vec<PathBuf>) -> Result<Vec<Option<Account>>> {
        Ok(vec![None; names.len()])
    }

    async fn added(&self, _: &Path) -> Result<Option<JobId>> {
        Ok(None)
    }

    async fn succession(&self, _job: JobId) -> Result<Succession> {
        Ok(Succession::Newest)
    }

    async fn ahead(&self, _job: JobId, _aging: Duration, _now: Timestamp) -> Result<Ahead> {
        Ok(Ahead::default())
    }

    async fn due_suspect(&self, _pipelines: Vec<String>, _now: Timestamp) -> Result<Option<JobId>> {
        Ok(None)
    }
}

#[async_trait]
impl Upkeep for Fake {
    async fn prune(&self, _what: Prunable, _cutoff: Timestamp, _limit: u32) -> Result<u64> {
        Ok(0)
    }

    async fn prunable(&self, _what: Prunable, _cutoff: Timestamp) -> Result<u64> {
        Ok(2)
    }

    async fn clock_steps(&self) -> Result<ClockSteps> {
        Ok(ClockSteps::default())
    }

    async fn added_files(&self, _after: i64, _limit: usize) -> Result<Vec<AddedFile>> {
        Ok(Vec::new())
    }

    async fn note_absent(&self, _sources: Vec<i64>) -> Result<u64> {
        Ok(0)
    }

    async fn needed_contents(&self, _contents: Vec<PathBuf>) -> Result<BTreeSet<PathBuf>> {
        Ok(BTreeSet::new())
    }

    async fn checkpoint(&self, _mode: CheckpointMode) -> Result<Checkpoint> {
        Ok(Checkpoint { busy: false, wal_frames: 3, moved_frames: 3 })
    }

    async fn vacuum(&self, _pages: u32) -> Result<u64> {
        Ok(0)
    }

    async fn optimize(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self, _full: bool) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn backup_to(&self, _target: &Path) -> Result<()> {
        Ok(())
    }

    async fn sizes(&self) -> Result<Sizes> {
        Ok(Sizes::default())
    }

    fn path(&self) -> PathBuf {
        self.place.join("ingestd.db")
    }
}
