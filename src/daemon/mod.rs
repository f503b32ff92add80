//! The composition root: open, wire, spawn, wait, stop. Reads as a list.
//!
//! The order of a start: lock → database (migrated) → writer → leases of dead daemons taken back → their children
//! ended → workers, watches, maintenance, control socket → READY. Only what was put right before a part starts can
//! be relied on by it.
//!
//! The order of a stop: watches and commands stop → the dispatcher stops leasing → attempts get the grace time →
//! leftovers are stopped and released with nothing spent → the WAL is moved into the database → the writer ends.
//! A second signal skips the grace.
//!
//! A part that ends before it was told to takes the daemon down: nothing goes on half dead.

mod backpressure;
mod herald;
mod live;
mod once;
mod reload;
mod runs;
mod shown;
mod watches;
mod wiring;
mod writable;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Sources};
use crate::control::{Hands, Listener, Lock, LockError, Stores};
use crate::gate::Gate;
use crate::lifecycle::{End, Lifecycle, Notifier, Parts, Pulses, Signals, feed_watchdog};
use crate::maintenance::{self, Steady};
use crate::processor;
use crate::store::sqlite::{OpenMode, QueueRules, SqliteStore};
use crate::store::{Browse, CheckpointMode, Settings as _, StoreError, Upkeep as _};
use crate::telemetry::Telemetry;
use crate::warnings::Warnings;
use crate::worker::attempt::Workshop;
use crate::worker::content::AtWork as ContentsAtWork;
use crate::worker::dispatcher::{Dispatcher, Stops};
use crate::worker::{Aside, WorkerSettings};

/// The exit status of a graceful stop.
pub const EXIT_DONE: u8 = 0;
/// Something failed in a run that was to end by itself.
pub const EXIT_FAILED: u8 = 1;
/// Another daemon runs on this database.
pub const EXIT_HELD: u8 = 4;

/// Parts that are given this long to end after they were told to, once nothing of theirs may be lost any more.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// How long the watches may take to note where they stand.
const NOTE_PATIENCE: Duration = Duration::from_secs(5);

/// Attempts that are interrupted have this long to end.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(25);

/// Shows progress to a person until it is told to stop.
pub type Progress =
    Box<dyn FnOnce(Arc<dyn Browse>, watch::Receiver<u64>, CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// How the daemon is run.
pub struct RunOptions {
    /// End when everything found is done.
    pub once: bool,
    /// Where the configuration came from, to read it again; `None`: it can't be (the quick form).
    pub sources: Option<Sources>,
    /// Draws a live line; `None` where nobody looks at a terminal.
    pub progress: Option<Progress>,
    /// The logging that a reload changes.
    pub telemetry: Telemetry,
}

/// What every part is made of.
struct House {
    clock: Arc<dyn Clock>,
    store: Arc<SqliteStore>,
    lifecycle: Lifecycle,
    pulses: Pulses,
    notifier: Notifier,
    warnings: Warnings,
    gate: Gate,
    config: watch::Sender<Arc<Config>>,
}

/// Runs the daemon to its end, and answers the exit status.
///
/// # Errors
/// It can't start, or a part of it died; the error says which and why.
pub async fn run(config: Config, options: RunOptions) -> anyhow::Result<u8> {
    let database = config.database.path.clone();
    live_through(config, options).await.map_err(|error| advised(naming(&database, error)))
}

/// The last line of a daemon that can't work with its database says what to do.
fn advised(error: anyhow::Error) -> anyhow::Error {
    let advice = match error.downcast_ref::<StoreError>() {
        Some(StoreError::Full) => "make room on its disk, and start again",
        Some(StoreError::Disk(_)) => {
            "look at the kernel's log; once the disk works, a start finds out by itself what was kept"
        }
        Some(StoreError::Permission(_)) => {
            "see to its rights and those of its folder, and to how many files may be open"
        }
        _ => return error,
    };
    anyhow!("{error:#}; {advice}")
}

async fn live_through(config: Config, options: RunOptions) -> anyhow::Result<u8> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let signals = Signals::catch().context("signals can't be handled")?;
    let notifier = Notifier::from_env();
    let lock = match take_lock(&config) {
        Ok(lock) => lock,
        Err(LockError::Held { pid }) => {
            let database = config.database.path.display();
            match pid {
                Some(pid) => tracing::error!("another daemon (process {pid}) runs on {database}"),
                None => {
                    tracing::error!("a command, or another daemon, holds {database}; start again when it has ended");
                }
            }
            return Ok(EXIT_HELD);
        }
        Err(error) => return Err(error.into()),
    };
    let rules = QueueRules::from(&config.queue);
    let opening = SqliteStore::open(&config.database, rules, OpenMode::Daemon, clock.clone());
    let opened = notifier.extending(opening).await;
    let (store, writer) = opened?;
    let writer = writer.ok_or_else(|| anyhow!("the database was not opened for writing"))?;
    store.set_max_pending(config.queue.max_pending);
    let mut parts = Parts::default();
    parts.spawn("writer", async { Ok(writer.run().await?) });

    let house = House {
        warnings: Warnings::new(clock.clone()),
        clock,
        store,
        lifecycle: Lifecycle::default(),
        pulses: Pulses::default(),
        notifier,
        gate: Gate::default(),
        config: watch::Sender::new(Arc::new(config)),
    };
    parts.spawn("signals", ends_with(house.lifecycle.stopping_now(), signals.obey(house.lifecycle.clone())));
    let worked = house.work(&mut parts, options).await;
    let closed = house.close(&mut parts).await;
    drop(lock);
    let status = worked?;
    closed?;
    Ok(status)
}

/// An error with the database's file, where it is the database's and does not name it.
fn naming(database: &Path, error: anyhow::Error) -> anyhow::Error {
    let file = database.display().to_string();
    let is_of_store = error.chain().any(<dyn std::error::Error>::is::<StoreError>);
    if is_of_store && !format!("{error:#}").contains(&file) { error.context(file) } else { error }
}

fn take_lock(config: &Config) -> Result<Lock, LockError> {
    wiring::make_state_directory(config);
    Lock::daemon(&config.database.path, config.database.mode)
}

/// Runs `work` until `end`.
async fn ends_with(end: CancellationToken, work: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::select! {
        () = end.cancelled() => {}
        () = work => {}
    }
    Ok(())
}

impl House {
    /// From recovery to the end of the last attempt.
    async fn work(&self, parts: &mut Parts, options: RunOptions) -> anyhow::Result<u8> {
        let crashed = self.recover().await?;
        let config = self.config.borrow().clone();
        let stops = Stops { draining: CancellationToken::new(), interrupt: CancellationToken::new() };
        // A run that is to end does not wait for a destination that is away longer than its jobs' retries say.
        let unbroken = options.once.then(|| wiring::without_breakers(&config));
        let config_of_workers = unbroken.as_ref().unwrap_or(&config);
        let workers = wiring::worker_settings(config_of_workers, &self.clock, &self.warnings)?;
        let settings = watch::Sender::new(Arc::new(workers));

        let (watches, watching) = watches::Watches::new(self, settings.clone(), crashed);
        watches.instruct_workers().await?;
        // Before the first attempt, whose processor may speak to it: it is answered as soon as everything stands.
        let listener = Listener::bind(&config.database.path, config.database.mode)
            .with_context(|| format!("the control socket beside {} can't be made", config.database.path.display()))?;
        let pulse = self.pulses.register("dispatcher");
        let (dispatcher, dispatching) =
            Dispatcher::new(self.workshop(&settings), stops.clone(), pulse, self.warnings.clone())
                .context("the workers need a timer")?;
        parts.spawn("dispatcher", async { Ok(dispatcher.run().await?) });

        parts.spawn("watches", watches.run());

        let (upkeep, requests) = maintenance::channel();
        let (upkeep_settings, lease) =
            (watch::Sender::new(config.maintenance.clone()), watch::Sender::new(config.queue.lease));
        let context = self.upkeep_context(&config, lease.subscribe());
        let (pulse, stop) = (self.pulses.register("maintenance"), self.lifecycle.draining());
        parts.spawn("maintenance", maintenance::run(context, requests, upkeep_settings.subscribe(), pulse, stop));

        parts.spawn("backpressure", backpressure::run(self.backpressure()));
        parts.spawn("writable", writable::run(self.writable()));
        parts.spawn("watchdog", ends_with(self.lifecycle.stopping_now(), self.watchdog()));

        let live = live::LiveDaemon::new(self, dispatching, settings.subscribe(), watching.clone(), upkeep);
        let hands = Arc::new(self.hands(Arc::new(live)));
        // Also while what runs is let end: it can be looked at, and cancelled.
        let stop = self.lifecycle.stopping_now();
        parts.spawn("control", async move { Ok(listener.serve(hands, stop).await?) });

        let channels = reload::Channels { settings, upkeep: upkeep_settings, lease, watching: watching.clone() };
        let reload = reload::Reload::new(self, options.sources, options.telemetry, channels);
        parts.spawn("reload", ends_with(self.lifecycle.draining(), reload.run()));
        if let Some(progress) = options.progress {
            let shown = progress(self.store.clone(), self.store.activity(), self.lifecycle.draining());
            parts.spawn("progress", async {
                shown.await;
                Ok(())
            });
        }
        tracing::info!(version = env!("CARGO_PKG_VERSION"), database = %config.database.path.display(), "ready");
        self.notifier.ready("watching");

        let ended = self.wait(parts, options.once, &watching).await;
        self.notifier.stopping("finishing what runs");
        self.lifecycle.drain();
        stops.draining.cancel();
        // Where a part died there is nothing to wait for: what runs is stopped, and released if that can be written.
        let grace = if ended.is_ok() { config.shutdown.grace } else { Duration::ZERO };
        let drained = self.drain(parts, &stops, grace).await;
        // What the watches note last finds the store open.
        let noted = tokio::time::timeout(NOTE_PATIENCE, end_of("watches", parts)).await;
        let status = ended?;
        drained?;
        noted.unwrap_or(Ok(()))?;
        Ok(status)
    }

    /// What attempts are made of.
    fn workshop(&self, settings: &watch::Sender<Arc<WorkerSettings>>) -> Workshop {
        Workshop {
            queue: self.store.clone(),
            dispositions: self.store.clone(),
            effects: self.store.clone(),
            stages: self.store.clone(),
            contents: self.store.clone(),
            contents_at_work: ContentsAtWork::default(),
            clock: self.clock.clone(),
            settings: settings.subscribe(),
            aside: Aside::default(),
        }
    }

    /// Puts right what daemons before this one left; answers whether the last one did not stop in order.
    async fn recover(&self) -> anyhow::Result<bool> {
        let config = self.config.borrow().clone();
        wiring::make_state_folders(&config)?;
        let begun = self.store.begin_boot(std::process::id(), env!("CARGO_PKG_VERSION"));
        let recovery = self.notifier.extending(begun).await?;
        if recovery.dead_boots > 0 {
            tracing::warn!(
                released = recovery.released,
                suspects = recovery.suspects,
                failed = recovery.failed,
                superseded = recovery.superseded,
                dispositions = recovery.dispositions,
                effects = recovery.effects,
                "the last daemon did not stop in order; its jobs were taken back"
            );
        }
        let spool = config.spool();
        let ending = tokio::task::spawn_blocking(move || processor::children::end_strays(&spool));
        let strays = self.notifier.extending(ending).await?;
        if strays > 0 {
            tracing::warn!(groups = strays, "ended processes that the last daemon had left");
        }
        self.store.register_pipelines(config.pipelines.keys().cloned().collect()).await?;
        Ok(recovery.dead_boots > 0)
    }

    /// Until a signal, the end of a part, or, with `once`, the end of all work.
    async fn wait(&self, parts: &mut Parts, once: bool, watching: &watches::Handle) -> anyhow::Result<u8> {
        let done =
            async { if once { once::everything_done(self, watching).await } else { std::future::pending().await } };
        let draining = self.lifecycle.draining();
        tokio::pin!(done);
        loop {
            tokio::select! {
                // First of all: once told to, parts end, and their ends are no news.
                biased;
                () = draining.cancelled() => return Ok(EXIT_DONE),
                status = &mut done => return status,
                end = parts.first_end() => match end {
                    // Whoever watches the screen may leave before the end.
                    Some(End { name: "progress", .. }) => {}
                    end => return Err(died(end)),
                },
            }
        }
    }

    /// Waits for the dispatcher, at most as long as attempts may take; the other parts end meanwhile.
    async fn drain(&self, parts: &mut Parts, stops: &Stops, grace: Duration) -> anyhow::Result<()> {
        let now = self.lifecycle.stopping_now();
        let waiting = self.notifier.extending(async {
            tokio::select! {
                ended = end_of("dispatcher", parts) => return ended,
                () = tokio::time::sleep(grace) => {}
                () = now.cancelled() => {}
            }
            stops.interrupt.cancel();
            // Processors get some seconds to end, and are ended then; whoever takes longer hangs.
            tokio::time::timeout(INTERRUPT_PATIENCE, end_of("dispatcher", parts)).await.unwrap_or_else(|_| {
                tracing::error!("attempts did not end; their leases are taken back by the next start");
                Ok(())
            })
        });
        waiting.await
    }

    /// Leaves the database in order: the WAL is in it, and the boot is closed.
    async fn close(&self, parts: &mut Parts) -> anyhow::Result<()> {
        self.lifecycle.stop_now();
        let boot = self.store.end_boot().await;
        let checkpoint = self.store.checkpoint(CheckpointMode::Truncate).await;
        self.store.close().await;
        let ends = async { while parts.first_end().await.is_some() {} };
        if tokio::time::timeout(LAST_PATIENCE, ends).await.is_err() {
            tracing::warn!(parts = parts.running().join(", "), "did not end in time; leaving without them");
            parts.abort_all();
        }
        for error in [boot.err(), checkpoint.err()].into_iter().flatten() {
            // Without room the stop is no less in order; the next start finds nothing amiss but a missing line, or a log
            // that is longer than it need be.
            if !(error.is_passing() || matches!(error, StoreError::Upkeep(_))) {
                return Err(error.into());
            }
            tracing::warn!(%error, "the end could not be noted");
        }
        Ok(())
    }

    fn hands(&self, live: Arc<dyn crate::control::Live>) -> Hands {
        let store = self.store.clone();
        Hands {
            config: self.config.subscribe(),
            clock: self.clock.clone(),
            stores: Stores {
                browse: store.clone(),
                settings: store.clone(),
                steering: store.clone(),
                queue: store.clone(),
                accounts: store.clone(),
                runs: store.clone(),
                lists: store.clone(),
                effects: store.clone(),
                stages: store.clone(),
                upkeep: store,
            },
            live: Some(live),
        }
    }

    fn upkeep_context(&self, config: &Config, lease: watch::Receiver<Duration>) -> maintenance::Context {
        maintenance::Context {
            upkeep: self.store.clone(),
            queue: self.store.clone(),
            effects: self.store.clone(),
            browse: self.store.clone(),
            settings: self.store.clone(),
            clock: Steady::anchored(self.clock.clone()),
            warnings: self.warnings.clone(),
            gate: self.gate.clone(),
            lease,
            spool: config.spool(),
            contents: wiring::contents(config),
            verify: wiring::verify_copy,
        }
    }

    fn backpressure(&self) -> backpressure::Backpressure {
        backpressure::Backpressure {
            store: self.store.clone(),
            activity: self.store.activity(),
            refused: self.store.refused(),
            config: self.config.subscribe(),
            gate: self.gate.clone(),
            warnings: self.warnings.clone(),
            notifier: self.notifier.clone(),
            stop: self.lifecycle.draining(),
        }
    }

    fn writable(&self) -> writable::Writable {
        writable::Writable {
            store: self.store.clone(),
            obstacle: self.store.obstacle(),
            gate: self.gate.clone(),
            warnings: self.warnings.clone(),
            stop: self.lifecycle.draining(),
        }
    }

    fn watchdog(&self) -> impl Future<Output = ()> + use<> {
        let writer = wiring::writer_pulse(self.store.clone(), self.pulses.register("writer"));
        let feeding = feed_watchdog(self.notifier.clone(), self.pulses.clone());
        async {
            tokio::join!(writer, feeding);
        }
    }
}

fn died(end: Option<End>) -> anyhow::Error {
    match end {
        Some(End { name, result: Err(error) }) => error.context(format!("the {name} died")),
        Some(End { name, .. }) => anyhow!("the {name} ended before it was told to"),
        None => anyhow!("every part ended"),
    }
}

/// Waits for the end of this part, unless it ended before.
async fn end_of(part: &str, parts: &mut Parts) -> anyhow::Result<()> {
    if !parts.running().contains(&part) {
        return Ok(());
    }
    while let Some(end) = parts.first_end().await {
        match end {
            End { name, result } if name == part => return result,
            End { name, result: Err(error) } => return Err(error.context(format!("the {name} died"))),
            _ => {}
        }
    }
    Ok(())
}
