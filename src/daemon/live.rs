//! What commands reach of the running daemon.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::House;
use super::shown;
use super::watches;
use crate::clock::{Clock, Timestamp};
use crate::control::{
    BreakerCondition, Confirmed, Duty, Live, LiveBreaker, LiveFile, LiveRate, LiveStatus, LiveThrottle, LiveWarning,
    Refusal, RunningJob, Scanned, WirePath,
};
use crate::gate::Gate;
use crate::job::JobId;
use crate::maintenance::{MaintenanceCommand, MaintenanceHandle};
use crate::store::Obstacle;
use crate::warnings::{Severity, Warning, Warnings};
use crate::watch::Standing;
use crate::worker::{BreakerShown, BreakerState, Command, Handles, RateShown, WorkerSettings};

/// The running daemon's hands.
pub struct LiveDaemon {
    dispatcher: Handles,
    workers: watch::Receiver<Arc<WorkerSettings>>,
    watches: watches::Handle,
    maintenance: MaintenanceHandle,
    warnings: Warnings,
    activity: watch::Receiver<u64>,
    gate: Gate,
    obstacle: watch::Receiver<Option<Obstacle>>,
    clock: Arc<dyn Clock>,
    started_at: Timestamp,
    draining: CancellationToken,
}

impl LiveDaemon {
    pub fn new(
        house: &House,
        dispatcher: Handles,
        workers: watch::Receiver<Arc<WorkerSettings>>,
        watches: watches::Handle,
        maintenance: MaintenanceHandle,
    ) -> Self {
        Self {
            dispatcher,
            workers,
            watches,
            maintenance,
            warnings: house.warnings.clone(),
            activity: house.store.activity(),
            gate: house.gate.clone(),
            obstacle: house.store.obstacle(),
            clock: house.clock.clone(),
            started_at: house.clock.now(),
            draining: house.lifecycle.draining(),
        }
    }

    async fn tell(&self, command: impl FnOnce(oneshot::Sender<usize>) -> Command) {
        let (reply, answer) = oneshot::channel();
        // A dispatcher that is gone runs nothing.
        if self.dispatcher.commands.send(command(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    fn throttles(&self) -> BTreeMap<String, LiveThrottle> {
        let workers = self.workers.borrow().clone();
        let throttle = |throttle: &crate::worker::Throttle| LiveThrottle {
            breaker: throttle.breaker().map(breaker),
            rate: throttle.rate().map(rate),
        };
        workers.pipelines.iter().map(|(name, pipeline)| (name.clone(), throttle(&pipeline.throttle))).collect()
    }

    async fn running(&self) -> Vec<RunningJob> {
        let (reply, answer) = oneshot::channel();
        if self.dispatcher.commands.send(Command::List { reply }).await.is_err() {
            return Vec::new();
        }
        let running = answer.await.unwrap_or_default();
        let shown = running.into_iter().map(|job| RunningJob {
            id: job.id,
            pipeline: job.pipeline,
            suspect: job.suspect,
            path: WirePath(job.path.into()),
            started_at_ms: job.started_at.as_millis(),
        });
        shown.collect()
    }
}

#[async_trait]
impl Live for LiveDaemon {
    async fn cancel_running(&self, jobs: &[JobId]) {
        self.tell(|reply| Command::Cancel { jobs: jobs.to_vec(), reply }).await;
    }

    async fn interrupt(&self, pipelines: &[String]) {
        self.tell(|reply| Command::Interrupt { pipelines: pipelines.to_vec(), reply }).await;
    }

    async fn reload_watches(&self) -> Result<(), Refusal> {
        self.watches.reload().await;
        Ok(())
    }

    async fn scan(&self, watch: &str, force: bool) -> Result<Scanned, Refusal> {
        match self.watches.scan(watch, force).await {
            Some(Ok(scan)) => Ok(Scanned { files: scan.files, enqueued: scan.changed }),
            Some(Err(why)) => Err(Refusal::failed(format!("watch `{watch}` was not scanned: {why}"))),
            None => Err(not_running(watch)),
        }
    }

    async fn confirm(&self, watch: &str) -> Result<Confirmed, Refusal> {
        match self.watches.confirm(watch).await {
            Some(files) => Ok(Confirmed { files }),
            None => Err(not_running(watch)),
        }
    }

    async fn files(&self, watch: &str, names: Vec<PathBuf>) -> Result<Vec<LiveFile>, Refusal> {
        match self.watches.standings(watch, names).await {
            Some(standings) => Ok(standings.into_iter().map(file).collect()),
            None => Err(not_running(watch)),
        }
    }

    async fn maintenance(&self, duty: Duty) -> Result<Value, Refusal> {
        let command = match duty {
            Duty::Checkpoint => MaintenanceCommand::Checkpoint,
            Duty::Vacuum => MaintenanceCommand::Vacuum,
            Duty::Prune { dry_run } => MaintenanceCommand::Prune { dry_run },
            Duty::Backup { target } => MaintenanceCommand::Backup { target: target.map(|path| path.0) },
            Duty::Check => MaintenanceCommand::Check,
        };
        self.maintenance.ask(command).await.map_err(|failure| Refusal::failed(failure.to_string()))
    }

    async fn status(&self) -> LiveStatus {
        let now = self.clock.now();
        LiveStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ms: self.started_at.as_millis(),
            stopping: self.draining.is_cancelled(),
            watches: self.watches.status().await.into_iter().map(|watch| shown::watch(watch, now)).collect(),
            warnings: self.warnings.list().into_iter().map(warning).collect(),
            running: self.running().await,
            throttles: self.throttles(),
            shut: self.gate.reasons(),
            locked: *self.obstacle.borrow() == Some(Obstacle::Lock),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.activity.clone()
    }
}

fn file(standing: Standing) -> LiveFile {
    let (waits_for, quiet_since, next_look) = match standing.settling {
        Some((waits_for, since, due)) => (Some(waits_for), Some(since), Some(due)),
        None => (None, None, None),
    };
    LiveFile {
        waits_for,
        quiet_since_ms: quiet_since.map(Timestamp::as_millis),
        next_look_at_ms: next_look.map(Timestamp::as_millis),
        reading: standing.reading,
        scan_due: standing.scan_due,
        leaving: standing.leaving,
        error: standing.error,
        native: standing.native,
        next_scan_at_ms: standing.next_scan_at.map(Timestamp::as_millis),
    }
}

fn not_running(watch: &str) -> Refusal {
    Refusal::not_found(format!("no watch `{watch}` runs; `ingestd watch list` shows those that do"))
}

fn breaker(breaker: BreakerShown) -> LiveBreaker {
    LiveBreaker {
        state: match breaker.state {
            BreakerState::Closed => BreakerCondition::Closed,
            BreakerState::Open => BreakerCondition::Open,
            BreakerState::Probing => BreakerCondition::Probing,
        },
        since_ms: breaker.since.map(Timestamp::as_millis),
        failures: breaker.failures,
        last_error: breaker.last_error,
        next_probe_at_ms: breaker.next_probe_at.map(Timestamp::as_millis),
        opened: breaker.opened,
    }
}

fn rate(shown: RateShown) -> LiveRate {
    LiveRate {
        limit: shown.rate.to_string(),
        burst: shown.rate.burst,
        tokens: u64::try_from(shown.tokens).unwrap_or(u64::MAX),
        next_at_ms: shown.next_at.map(Timestamp::as_millis),
    }
}

fn warning(warning: Warning) -> LiveWarning {
    LiveWarning { critical: warning.severity == Severity::Critical, message: warning.message }
}
