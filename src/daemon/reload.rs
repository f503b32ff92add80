//! SIGHUP: the configuration is read anew, and taken over as a whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{House, watches, wiring};
use crate::clock::Clock;
use crate::config::{self, Config, Sources};
use crate::lifecycle::{Lifecycle, Notifier};
use crate::store::Settings as _;
use crate::store::sqlite::{QueueRules, SqliteStore};
use crate::telemetry::Telemetry;
use crate::warnings::{Severity, Warnings};
use crate::worker::WorkerSettings;

/// Where the parts hear of new settings.
pub struct Channels {
    pub settings: watch::Sender<Arc<WorkerSettings>>,
    pub upkeep: watch::Sender<config::Maintenance>,
    pub lease: watch::Sender<Duration>,
    pub watching: watches::Handle,
}

/// Reads the configuration anew when asked to.
pub struct Reload {
    lifecycle: Lifecycle,
    notifier: Notifier,
    warnings: Warnings,
    clock: Arc<dyn Clock>,
    store: Arc<SqliteStore>,
    config: watch::Sender<Arc<Config>>,
    sources: Option<Sources>,
    telemetry: Telemetry,
    channels: Channels,
}

impl Reload {
    pub fn new(house: &House, sources: Option<Sources>, telemetry: Telemetry, channels: Channels) -> Self {
        Self {
            lifecycle: house.lifecycle.clone(),
            notifier: house.notifier.clone(),
            warnings: house.warnings.clone(),
            clock: house.clock.clone(),
            store: house.store.clone(),
            config: house.config.clone(),
            sources,
            telemetry,
            channels,
        }
    }

    /// Works for ever; to be dropped at the end.
    pub async fn run(self) {
        loop {
            self.lifecycle.reload_asked().await;
            self.notifier.reloading();
            match self.reload().await {
                Ok(()) => {
                    tracing::info!("reloaded the configuration");
                    self.warnings.clear("config.reload");
                }
                Err(error) => {
                    let words = format!("the new configuration was refused, and the old one stays: {error:#}");
                    self.warnings.set("config.reload", Severity::Warning, words);
                }
            }
            self.notifier.ready("watching");
        }
    }

    async fn reload(&self) -> anyhow::Result<()> {
        let Some(sources) = &self.sources else {
            anyhow::bail!("this daemon was started without a configuration file");
        };
        let mut new = config::load(sources)?.config;
        let old = self.config.borrow().clone();
        if new.database != old.database {
            tracing::warn!("[database] changes with the next start, not with a reload");
            new.database = old.database.clone();
        }
        // Everything that can be refused comes before anything that is taken over.
        let settings = wiring::worker_settings(&new, &self.clock, &self.warnings)?;
        self.telemetry.reload(&new.log)?;
        self.store.register_pipelines(new.pipelines.keys().cloned().collect()).await?;
        self.store.set_rules(QueueRules::from(&new.queue));
        self.store.set_max_pending(new.queue.max_pending);
        self.channels.upkeep.send_replace(new.maintenance.clone());
        self.channels.lease.send_replace(new.queue.lease);
        self.warn_of_orphans(&old, &new);
        let new = Arc::new(new);
        self.config.send_replace(new.clone());
        self.channels.settings.send_modify(|current| {
            // What the keeper of the watches told the workers stays until it tells them anew.
            let mut settings = settings;
            settings.disposals.clone_from(&current.disposals);
            settings.dedupes.clone_from(&current.dedupes);
            settings.remembers.clone_from(&current.remembers);
            settings.follows.clone_from(&current.follows);
            wiring::keep_throttles(&old, current, &new, &mut settings);
            *current = Arc::new(settings);
        });
        self.channels.watching.reload().await;
        self.store.nudge();
        Ok(())
    }

    /// A pipeline that disappears leaves its jobs waiting.
    fn warn_of_orphans(&self, old: &Config, new: &Config) {
        for name in old.pipelines.keys().filter(|name| !new.pipelines.contains_key(*name)) {
            let words = format!("pipeline `{name}` is gone from the configuration; its jobs wait until it is back");
            self.warnings.set(&format!("pipeline.{name}.gone"), Severity::Warning, words);
        }
        for name in new.pipelines.keys() {
            self.warnings.clear(&format!("pipeline.{name}.gone"));
        }
    }
}
