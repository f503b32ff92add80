//! A store in memory with just the two traits that a watch needs, and a watch at work on a real folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{Boottime, SystemClock, Timestamp};
use crate::config;
use crate::job::{Digest, DigestAlgorithm, FileIdentity, JobId, SourceKey, StateName};
use crate::store::{
    Appetite, Claim, Enqueued, Gone, KnownFile, Leased, NewJob, PresentFile, Queue, Result, Settled, Settlement,
    Sources, StoreError, Vanished, Want,
};
use crate::watch::{
    LastScan, ScanRun, WatchCommand, WatchHandle, WatchSettings, WatchStations, WatchStatus, WatchTask,
};

#[derive(Clone, Debug)]
pub struct Row {
    pub identity: FileIdentity,
    pub digest: Option<Digest>,
    pub version: i64,
    pub present: bool,
}

#[derive(Debug, Default)]
pub struct Memory {
    pub rows: Mutex<BTreeMap<PathBuf, Row>>,
    pub jobs: Mutex<Vec<(PathBuf, i64)>>,
    pub deletes: Mutex<BTreeSet<PathBuf>>,
    pub writes: AtomicU64,
    pub busy: AtomicU64,
}

impl Memory {
    fn enqueue_one(&self, job: NewJob) -> Enqueued {
        let SourceKey::Watched { relative, .. } = job.source else { panic!("a watch's files only") };
        let mut rows = self.rows.lock().unwrap();
        let version = match rows.get_mut(&relative) {
            None => 1,
            Some(row) if row.identity == job.identity && row.present && !job.force => {
                return Enqueued::Known { id: JobId(0), state: StateName::Pending };
            }
            Some(_) if job.digest.is_none() && !job.force => return Enqueued::NeedsDigest,
            Some(row) if row.digest.is_some() && row.digest == job.digest && row.present && !job.force => {
                row.identity = job.identity;
                return Enqueued::Unchanged;
            }
            Some(row) => row.version + 1,
        };
        let row = Row { identity: job.identity, digest: job.digest, version, present: true };
        rows.insert(relative.clone(), row);
        if job.note_only {
            return Enqueued::Unchanged;
        }
        let mut jobs = self.jobs.lock().unwrap();
        jobs.push((relative, version));
        Enqueued::New { id: JobId(i64::try_from(jobs.len()).unwrap()), version }
    }

    /// The newest version of each file that is a job.
    pub fn versions(&self) -> BTreeMap<String, i64> {
        let jobs = self.jobs.lock().unwrap();
        jobs.iter().map(|(path, version)| (path.display().to_string(), *version)).collect()
    }

    pub fn size(&self, relative: &str) -> u64 {
        self.rows.lock().unwrap().get(Path::new(relative)).map_or(0, |row| row.identity.size)
    }

    pub fn present(&self) -> Vec<String> {
        let rows = self.rows.lock().unwrap();
        rows.iter().filter(|(_, row)| row.present).map(|(path, _)| path.display().to_string()).collect()
    }
}

#[async_trait]
impl Queue for Memory {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        if self.busy.load(Ordering::SeqCst) > 0 {
            self.busy.fetch_sub(1, Ordering::SeqCst);
            return Err(StoreError::Busy);
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        Ok(jobs.into_iter().map(|job| self.enqueue_one(job)).collect())
    }

    async fn vanish(&self, gone: Vec<Gone>) -> Result<Vec<Vanished>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let mut rows = self.rows.lock().unwrap();
        let vanish = |gone: Gone| match rows.get_mut(&gone.relative) {
            Some(row) if row.present => {
                row.present = false;
                if gone.wants_job {
                    self.deletes.lock().unwrap().insert(gone.relative);
                    return Vanished::New { id: JobId(0) };
                }
                Vanished::Noted
            }
            _ => Vanished::Nothing,
        };
        Ok(gone.into_iter().map(vanish).collect())
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
        Err(StoreError::Closed)
    }
    fn changed(&self) -> tokio::sync::futures::OwnedNotified {
        Arc::new(Notify::new()).notified_owned()
    }
}

#[async_trait]
impl Sources for Memory {
    async fn known(&self, _watch: &str, relatives: Vec<PathBuf>) -> Result<Vec<Option<KnownFile>>> {
        let rows = self.rows.lock().unwrap();
        let known = |row: &Row| KnownFile { identity: row.identity, present: row.present };
        Ok(relatives.iter().map(|relative| rows.get(relative).map(known)).collect())
    }

    async fn known_as(&self, _watch: &str, files: Vec<FileIdentity>) -> Result<Vec<Vec<PathBuf>>> {
        let rows = self.rows.lock().unwrap();
        let names = |file: &FileIdentity| {
            let same = rows.iter().filter(|(_, row)| row.present && row.identity.same_but_for_ctime(file));
            same.map(|(path, _)| path.clone()).collect()
        };
        Ok(files.iter().map(names).collect())
    }

    async fn present(&self, _watch: &str, folder: PathBuf, after: PathBuf, limit: usize) -> Result<Vec<PresentFile>> {
        let rows = self.rows.lock().unwrap();
        let mut present: Vec<PresentFile> = rows
            .iter()
            .filter(|(path, row)| row.present && path.starts_with(&folder) && path.as_os_str() > after.as_os_str())
            .map(|(path, row)| PresentFile { relative: path.clone(), identity: row.identity })
            .collect();
        present.sort_by(|a, b| a.relative.as_os_str().cmp(b.relative.as_os_str()));
        present.truncate(limit);
        Ok(present)
    }
}

/// A watch at work on `root`, in a folder of its own that also holds `state`.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub store: Arc<Memory>,
    pub config: config::Watch,
    pub handle: Option<WatchHandle>,
    pub gate: watch::Sender<bool>,
    /// Files that were there before this are skipped.
    pub adopt_before: Option<Timestamp>,
    pub runs: mpsc::Sender<ScanRun>,
    pub begun: mpsc::Receiver<ScanRun>,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<()>>>,
}

impl Bench {
    pub fn new(change: impl FnOnce(&mut config::Watch)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        let mut config = config::Watch::of(folder.path().join("root"), "p".to_owned());
        config.settle = Duration::ZERO;
        config.poll_interval = Duration::from_millis(50);
        change(&mut config);
        let (gate, stop) = (watch::channel(true).0, CancellationToken::new());
        let (runs, begun) = mpsc::channel(100);
        let adopt_before = None;
        Self { folder, store: Arc::default(), config, handle: None, gate, adopt_before, runs, begun, stop, task: None }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join("root").join(relative)
    }

    pub fn write(&self, relative: &str, content: &str) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn settings(&self) -> WatchSettings {
        WatchSettings {
            name: "inbox".to_owned(),
            watch: self.config.clone(),
            state_directory: self.folder.path().join("state"),
            digest: DigestAlgorithm::Blake3,
            adopt_before: self.adopt_before,
        }
    }

    pub fn start(&mut self) {
        self.stop = CancellationToken::new();
        let (task, handle) = self.task();
        self.handle = Some(handle);
        self.task = Some(tokio::spawn(task.run()));
    }

    /// The watch's task, not at work yet.
    pub fn task(&self) -> (WatchTask, WatchHandle) {
        let stations = WatchStations {
            queue: self.store.clone(),
            sources: self.store.clone(),
            clock: Arc::new(SystemClock),
            digests: Arc::new(Semaphore::new(2)),
            intake_open: self.gate.subscribe(),
            mounts: watch::channel(crate::watch::mounts::Mounts::read()).1,
            runs: self.runs.clone(),
            pulse: crate::lifecycle::Pulses::default().register("watch"),
        };
        WatchTask::new(self.settings(), stations, self.stop.clone()).unwrap()
    }

    pub async fn started(change: impl FnOnce(&mut config::Watch)) -> Self {
        let mut bench = Self::new(change);
        bench.start();
        bench.idle().await;
        bench
    }

    pub async fn stop(&mut self) {
        self.stop.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
    }

    pub fn status(&self) -> WatchStatus {
        self.handle.as_ref().unwrap().status.borrow().clone()
    }

    pub async fn idle(&self) {
        self.until("idle", |bench| bench.status().idle).await;
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !condition(self) {
            assert!(
                std::time::Instant::now() < deadline,
                "not {what}: {:?} {:?}",
                self.store.versions(),
                self.status()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until this is the newest version of each file, and no other file is a job.
    pub async fn until_versions(&self, expected: &[(&str, i64)]) {
        let expected: BTreeMap<String, i64> = expected.iter().map(|(path, n)| ((*path).to_owned(), *n)).collect();
        self.until(&format!("{expected:?}"), |bench| bench.store.versions() == expected).await;
    }

    pub async fn scan(&self, force: bool) -> std::result::Result<LastScan, String> {
        let (reply, answer) = oneshot::channel();
        let commands = &self.handle.as_ref().unwrap().commands;
        commands.send(WatchCommand::Scan { force, reply }).await.unwrap();
        answer.await.unwrap()
    }
}
