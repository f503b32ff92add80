//! From the configuration to what the stations are given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;

use crate::clock::Clock;
use crate::config::Config;
use crate::control::mode::told;
use crate::durable::{change_mode, folder_mode, make_folder, parent};
use crate::intake::ContentFolder;
use crate::lifecycle::Pulse;
use crate::processor::{self, ChildEnvironment};
use crate::store::Batching;
use crate::store::sqlite::{SqliteStore, verify};
use crate::warnings::Warnings;
use crate::worker::{PipelineSettings, Throttle, WorkerSettings};

/// Makes the state directory for those who may read the database; whether it worked shows when it is used.
pub fn make_state_directory(config: &Config) {
    let folder = config.state_directory();
    if let Err(error) = make_folder(&folder, config.database.mode) {
        tracing::debug!(path = %folder.display(), %error, "the folder could not be made");
    }
}

/// Makes the folders in the state directory that processors need, and brings those that were there to the mode of today.
pub fn make_state_folders(config: &Config) -> anyhow::Result<()> {
    // Whoever may read the database may also follow the live output.
    let (state, mode) = (config.state_directory(), config.database.mode);
    for (folder, files) in [(state.join("spool"), mode), (config.spool(), mode), (state.join("work"), 0o600)] {
        make_folder(&folder, files).with_context(|| format!("{} can't be made", folder.display()))?;
    }
    for own in [config.spool(), config.contents(), config.readers()] {
        // Other databases may share the one above, which therefore is only ever opened.
        let above = parent(&own);
        told(above, change_mode(above, |has| has | folder_mode(mode)));
        told(&own, change_mode(&own, |_| folder_mode(mode)));
    }
    Ok(())
}

/// The folder of contents that lines of lists bring along. It is made with the first of them.
pub fn contents(config: &Config) -> ContentFolder {
    ContentFolder::new(config.contents(), config.database.mode)
}

/// The same, with breakers that never open.
pub fn without_breakers(config: &Config) -> Config {
    let mut config = config.clone();
    for pipeline in config.pipelines.values_mut() {
        pipeline.breaker.failures = 0;
    }
    config
}

/// The pool's settings, but for what the keeper of the watches adds. Fails where a processor can't be built, with the words of the configuration.
pub fn worker_settings(config: &Config, clock: &Arc<dyn Clock>, warnings: &Warnings) -> anyhow::Result<WorkerSettings> {
    let children = ChildEnvironment {
        state_directory: config.state_directory(),
        database: config.database.path.clone(),
        removed: config.secret_variables.clone(),
    };
    let mut pipelines = BTreeMap::new();
    for (name, pipeline) in &config.pipelines {
        let processor =
            processor::build(name, pipeline, &children).with_context(|| format!("pipeline `{name}` can't be built"))?;
        let settings = PipelineSettings {
            processor,
            concurrency: pipeline.concurrency,
            batch: Batching { size: pipeline.batch_size, linger: pipeline.batch_linger },
            timeout: pipeline.timeout,
            retry: pipeline.retry.clone(),
            throttle: Throttle::new(name, pipeline.breaker, pipeline.rate, clock.clone(), warnings.clone()),
        };
        pipelines.insert(name.clone(), settings);
    }
    Ok(WorkerSettings {
        concurrency: config.queue.concurrency,
        lease: config.queue.lease,
        digest: config.queue.digest,
        spool: config.spool(),
        contents: contents(config),
        pipelines,
        stages: config.stage_orders(),
        disposals: BTreeMap::new(),
        dedupes: BTreeSet::new(),
        remembers: BTreeSet::new(),
        follows: BTreeSet::new(),
        settles: BTreeMap::new(),
    })
}

/// Lets the throttles of pipelines go on where they are under new limits; one whose work is done elsewhere or otherwise
/// from now on has a closed breaker.
pub fn keep_throttles(old: &Config, current: &WorkerSettings, new: &Config, settings: &mut WorkerSettings) {
    let kind = |config: &Config, name: &str| config.pipelines.get(name).map(|pipeline| pipeline.kind.clone());
    for (name, pipeline) in &current.pipelines {
        match settings.pipelines.get_mut(name) {
            Some(next) => {
                let same_destination = kind(old, name) == kind(new, name);
                next.throttle = pipeline.throttle.going_on_as(&next.throttle, same_destination);
            }
            None => pipeline.throttle.retire(),
        }
    }
}

/// Checks a copy of the database.
pub fn verify_copy(path: PathBuf) -> Pin<Box<dyn Future<Output = crate::store::Result<()>> + Send>> {
    Box::pin(async move { verify(&path).await })
}

/// Shows the watchdog that writes are committed.
pub async fn writer_pulse(store: Arc<SqliteStore>, mut pulse: Pulse) {
    loop {
        pulse.asked().await;
        // A writer that says why it can't write just now is alive.
        if store.ping().await.map_or_else(|error| error.is_passing(), |()| true) {
            pulse.beat();
        }
    }
}
