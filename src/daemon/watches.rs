//! The keeper of the watches: which there are (of the file and of the database), which run, and their gates.
//!
//! Names are unique over both; where both have one, the file wins and the row sleeps, with a warning. A row never
//! keeps the daemon from starting.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::House;
use super::herald::Herald;
use super::runs::Recorder;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config};
use crate::control::adopt_key;
use crate::gate::Gate;
use crate::intake::patiently;
use crate::lifecycle::{Pulse, Pulses};
use crate::store::sqlite::SqliteStore;
use crate::store::{Runs as _, Settings as _, StoreError, WatchRow};
use crate::warnings::{Severity, Warnings};
use crate::watch::mounts::{self, Mounts};
use crate::watch::{
    LastScan, Standing, WatchCommand, WatchHandle, WatchSettings, WatchStations, WatchStatus, WatchTask,
};
use crate::worker::WorkerSettings;

/// Runs of a watch that may wait to be written down.
const WAITING_RUNS: usize = 4;
/// Digests that may be taken at a time, over all watches.
const DIGESTS: usize = 2;

/// A watch at a glance.
#[derive(Clone, Debug)]
pub struct WatchShown {
    /// Its name.
    pub name: String,
    /// Whether a person paused it.
    pub paused: bool,
    /// What its task tells.
    pub status: WatchStatus,
}

enum Request {
    Reload { reply: oneshot::Sender<()> },
    Scan { name: String, force: bool, reply: oneshot::Sender<Option<oneshot::Receiver<Result<LastScan, String>>>> },
    Tell { name: String, names: Vec<PathBuf>, reply: oneshot::Sender<Option<oneshot::Receiver<Vec<Standing>>>> },
    Confirm { name: String, reply: oneshot::Sender<Option<oneshot::Receiver<u64>>> },
    Status { reply: oneshot::Sender<Vec<WatchShown>> },
}

/// The other end of the keeper.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    moved: Arc<Notify>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

impl Handle {
    /// Starts, changes and stops watches by what file and database say now.
    pub async fn reload(&self) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Reload { reply }).await.is_ok() {
            // The keeper is stopping, if it does not answer.
            let _ = answer.await;
        }
    }

    /// Scans a watch; `None`: it does not run.
    pub async fn scan(&self, name: &str, force: bool) -> Option<Result<LastScan, String>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Scan { name: name.to_owned(), force, reply }).await.ok()?;
        answer.await.ok()??.await.ok()
    }

    /// Lets the files go that the brake of a watch holds back, and answers how many; `None`: it does not run.
    pub async fn confirm(&self, name: &str) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Confirm { name: name.to_owned(), reply }).await.ok()?;
        answer.await.ok()??.await.ok()
    }

    /// What a watch knows of these names under its root; `None`: it does not run.
    pub async fn standings(&self, name: &str, names: Vec<PathBuf>) -> Option<Vec<Standing>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Tell { name: name.to_owned(), names, reply }).await.ok()?;
        answer.await.ok()??.await.ok()
    }

    /// Every watch that runs.
    pub async fn status(&self) -> Vec<WatchShown> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Status { reply }).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Resolves when a watch tells something new.
    pub async fn changed(&self) {
        self.moved.notified().await;
    }
}

struct Entry {
    settings: WatchSettings,
    handle: WatchHandle,
    gate: watch::Sender<bool>,
    paused: bool,
    stop: CancellationToken,
}

/// The keeper.
pub struct Watches {
    requests: mpsc::Receiver<Request>,
    store: Arc<SqliteStore>,
    clock: Arc<dyn Clock>,
    config: watch::Receiver<Arc<Config>>,
    gate: Gate,
    warnings: Warnings,
    pulse: Pulse,
    pulses: Pulses,
    stop: CancellationToken,
    digests: Arc<Semaphore>,
    tasks: JoinSet<Result<(), StoreError>>,
    entries: BTreeMap<String, Entry>,
    moved: Arc<Notify>,
    workers: watch::Sender<Arc<WorkerSettings>>,
    mounts: watch::Sender<mounts::Table>,
    /// The last daemon did not stop in order, and no watch was started since.
    crashed: bool,
}

impl Watches {
    pub fn new(house: &House, workers: watch::Sender<Arc<WorkerSettings>>, crashed: bool) -> (Self, Handle) {
        let (sender, requests) = mpsc::channel(16);
        let moved = Arc::new(Notify::new());
        let keeper = Self {
            requests,
            store: house.store.clone(),
            clock: house.clock.clone(),
            config: house.config.subscribe(),
            gate: house.gate.clone(),
            warnings: house.warnings.clone(),
            pulse: house.pulses.register("watches"),
            pulses: house.pulses.clone(),
            stop: house.lifecycle.draining(),
            digests: Arc::new(Semaphore::new(DIGESTS)),
            tasks: JoinSet::new(),
            entries: BTreeMap::new(),
            moved: moved.clone(),
            workers,
            mounts: watch::channel(Mounts::read()).0,
            crashed,
        };
        (keeper, Handle { requests: sender, moved })
    }

    /// Tells the workers what happens to processed files. Has to come before they begin.
    pub async fn instruct_workers(&self) -> Result<(), StoreError> {
        let (config, rows) = (self.config.borrow().clone(), self.store.watches().await?);
        self.instruct(&self.wanted(&config, &rows));
        Ok(())
    }

    fn instruct(&self, wanted: &BTreeMap<String, config::Watch>) {
        self.workers.send_modify(|settings| {
            let settings = Arc::make_mut(settings);
            let disposal = |watch: &config::Watch| (watch.on_success.clone(), watch.on_failure.clone());
            settings.disposals = wanted.iter().map(|(name, watch)| (name.clone(), disposal(watch))).collect();
            let following = wanted.iter().filter(|(_, watch)| watch.follow_symlinks);
            settings.settles = wanted.iter().map(|(name, watch)| (name.clone(), watch.settle)).collect();
            settings.follows = following.map(|(name, _)| name.clone()).collect();
            let deduping = || wanted.iter().filter(|(_, watch)| watch.dedupe == config::Dedupe::Content);
            settings.dedupes = deduping().map(|(name, _)| name.clone()).collect();
            settings.remembers = deduping().map(|(_, watch)| watch.pipeline.clone()).collect();
        });
    }

    /// Keeps the watches until told to stop.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut gate = self.gate.changes();
        self.tasks.spawn(tell_mounts(self.mounts.clone(), self.stop.clone()));
        self.reconcile().await?;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(request) = self.requests.recv() => self.answer(request).await?,
                Ok(()) = gate.changed() => self.move_gates(),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(error.into()),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => return Err(error.into()),
                },
                () = self.pulse.asked() => self.pulse.beat(),
            }
        }
        while self.tasks.join_next().await.is_some() {}
        Ok(())
    }

    async fn answer(&mut self, request: Request) -> anyhow::Result<()> {
        // Whoever asked may have gone away.
        match request {
            Request::Reload { reply } => {
                self.reconcile().await?;
                let _ = reply.send(());
            }
            Request::Scan { name, force, reply } => {
                let (sender, answer) = oneshot::channel();
                let sent = self.tell(&name, WatchCommand::Scan { force, reply: sender }).await;
                let _ = reply.send(sent.then_some(answer));
            }
            Request::Confirm { name, reply } => {
                let (sender, answer) = oneshot::channel();
                let sent = self.tell(&name, WatchCommand::Confirm { reply: sender }).await;
                let _ = reply.send(sent.then_some(answer));
            }
            Request::Tell { name, names, reply } => {
                let (sender, answer) = oneshot::channel();
                let sent = self.tell(&name, WatchCommand::Tell { names, reply: sender }).await;
                let _ = reply.send(sent.then_some(answer));
            }
            Request::Status { reply } => {
                let shown = self.entries.iter().map(|(name, entry)| WatchShown {
                    name: name.clone(),
                    paused: entry.paused,
                    status: entry.handle.status.borrow().clone(),
                });
                let _ = reply.send(shown.collect());
            }
        }
        Ok(())
    }

    /// Whether a watch of this name runs and was told.
    async fn tell(&self, name: &str, command: WatchCommand) -> bool {
        match self.entries.get(name) {
            Some(entry) => entry.handle.commands.send(command).await.is_ok(),
            None => false,
        }
    }

    /// Makes what runs be what file and database say.
    async fn reconcile(&mut self) -> Result<(), StoreError> {
        let config = self.config.borrow().clone();
        let read = || self.store.watches();
        let Some(rows) = self.pulse.attend(patiently(&self.stop, "reading the watches", read)).await? else {
            return Ok(());
        };
        let wanted = self.wanted(&config, &rows);
        self.instruct(&wanted);
        let existing = || config.watches.keys().chain(defined(&rows)).cloned().collect();
        let cancel = || self.store.cancel_scans_but(existing());
        if self.pulse.attend(patiently(&self.stop, "looking for runs without a watch", cancel)).await?.is_none() {
            return Ok(());
        }
        let paused: BTreeMap<&str, bool> = rows.iter().map(|row| (row.name.as_str(), row.paused)).collect();
        let gone: Vec<String> = self
            .entries
            .iter()
            .filter(|(name, entry)| {
                wanted.get(*name) != Some(&entry.settings.watch) || entry.settings.digest != config.queue.digest
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(entry) = self.entries.remove(&name) {
                entry.stop.cancel();
            }
        }
        for (name, watch) in wanted {
            let paused = paused.get(name.as_str()).copied().unwrap_or(false);
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.paused = paused;
            } else {
                let note = || self.store.put_watch(&name, watch.path.clone(), None);
                if self.pulse.attend(patiently(&self.stop, "noting a watch", note)).await?.is_none() {
                    return Ok(());
                }
                let said = self.store.kv_get(&adopt_key(&name)).await?;
                let adopt = said.and_then(|text| text.parse().ok()).map(Timestamp::from_millis);
                self.start(name, watch, paused, adopt, &config);
            }
        }
        self.crashed = false;
        self.move_gates();
        self.moved.notify_waiters();
        Ok(())
    }

    /// The watches of the file, and those of the database that fit beside them.
    fn wanted(&self, config: &Config, rows: &[WatchRow]) -> BTreeMap<String, config::Watch> {
        let mut wanted = config.watches.clone();
        for row in rows {
            let Some(definition) = &row.definition else { continue };
            let key = format!("watch.{}.definition", row.name);
            if config.watches.contains_key(&row.name) {
                let words =
                    format!("watch `{}` is in the configuration file too, which wins; remove one of them", row.name);
                self.warnings.set(&key, Severity::Warning, words);
                continue;
            }
            match accept(config, &wanted, row, definition) {
                Ok(watch) => {
                    self.warnings.clear(&key);
                    wanted.insert(row.name.clone(), watch);
                }
                Err(why) => {
                    let words = format!("watch `{}` of the database can't run: {why}", row.name);
                    self.warnings.set(&key, Severity::Warning, words);
                }
            }
        }
        wanted
    }

    fn start(
        &mut self,
        name: String,
        watch: config::Watch,
        paused: bool,
        adopt_before: Option<Timestamp>,
        config: &Config,
    ) {
        let settings = WatchSettings {
            name: name.clone(),
            watch,
            state_directory: config.state_directory(),
            digest: config.queue.digest,
            adopt_before,
        };
        let (gate, intake_open) = watch::channel(!paused && self.gate.reasons().is_empty());
        let (runs, begun) = mpsc::channel(WAITING_RUNS);
        let stations = WatchStations {
            queue: self.store.clone(),
            sources: self.store.clone(),
            clock: self.clock.clone(),
            digests: self.digests.clone(),
            intake_open,
            mounts: self.mounts.subscribe(),
            runs,
            pulse: self.pulses.register("watch"),
        };
        let stop = self.stop.child_token();
        let recorder = Recorder {
            store: self.store.clone(),
            clock: self.clock.clone(),
            stop: stop.clone(),
            watch: name.clone(),
            root: settings.watch.path.clone(),
            pipeline: settings.watch.pipeline.clone(),
            crashed: self.crashed,
            runs: begun,
        };
        match WatchTask::new(settings.clone(), stations, stop.clone()) {
            Ok((task, handle)) => {
                self.tasks.spawn(task.run());
                self.tasks.spawn(recorder.record());
                let herald = Herald {
                    status: handle.status.clone(),
                    moved: self.moved.clone(),
                    stop: stop.clone(),
                    warnings: self.warnings.clone(),
                    name: name.clone(),
                    adopting: adopt_before.map(|_| self.store.clone()),
                };
                self.tasks.spawn(herald.tell());
                self.entries.insert(name, Entry { settings, handle, gate, paused, stop });
            }
            // The configuration's check has refused such globs before.
            Err(error) => tracing::error!(watch = name, %error, "the watch can't run"),
        }
    }

    fn move_gates(&self) {
        let open = self.gate.reasons().is_empty();
        for entry in self.entries.values() {
            entry.gate.send_if_modified(|gate| {
                let new = open && !entry.paused;
                std::mem::replace(gate, new) != new
            });
        }
    }
}

/// Tells what is mounted whenever that changes. Where the system does not say, changes are found by the next scan.
async fn tell_mounts(told: watch::Sender<mounts::Table>, stop: CancellationToken) -> Result<(), StoreError> {
    let mounts = match Mounts::listen() {
        Ok(mounts) => mounts,
        Err(error) => {
            tracing::warn!(%error, "changes of mounts are not told by this system; the next scan finds them");
            return Ok(());
        }
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = mounts.changed() => if changed.is_err() { return Ok(()) },
        }
        told.send_replace(Mounts::read());
    }
}

/// The names of the watches that were made by command, whether they can run or not.
fn defined(rows: &[WatchRow]) -> impl Iterator<Item = &String> {
    rows.iter().filter(|row| row.definition.is_some()).map(|row| &row.name)
}

/// A watch of the database, where it fits beside the others.
fn accept(
    config: &Config,
    others: &BTreeMap<String, config::Watch>,
    row: &WatchRow,
    definition: &str,
) -> Result<config::Watch, String> {
    let value = serde_json::from_str(definition).map_err(|error| error.to_string())?;
    let watch = config::watch_from_json(&row.name, &value).map_err(|report| report.to_string())?;
    let mut all = others.clone();
    all.insert(row.name.clone(), watch.clone());
    match config::check_watches(&all, &config.pipelines, &config.state_directory()).first() {
        None => Ok(watch),
        Some(problem) => Err(problem.to_string()),
    }
}
