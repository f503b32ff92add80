//! How the commands reach the rest of the program: reading the configuration, opening the database, and starting
//! the daemon, with every error as a command's failure.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::failure::Failure;
use crate::clock::Clock;
use crate::config::{self, Config, Database, Loaded, Report, Sources};
use crate::control::Stores;
use crate::store::StoreError;
use crate::store::sqlite::{OpenMode, QueueRules, SqliteStore};

/// A configuration that can't be is wrong usage.
impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self::usage(report.to_string())
    }
}

/// Where the configuration of a command line comes from.
pub fn sources(file: Option<&Path>, database: Option<&str>) -> Sources {
    Sources::of_process(file.map(Path::to_path_buf), database.map(str::to_owned))
}

/// Reads the configuration for a command that runs no pipeline: it needs no secrets, and may not be able to read
/// them.
pub fn load(sources: &Sources) -> Result<Loaded, Failure> {
    Ok(config::load_without_secrets(sources)?)
}

/// Keeps a store that was opened usable: the task of its writer, where it writes.
pub type Writer = JoinSet<Result<(), StoreError>>;

/// The memory that a command spends on pages: a long list must not make it as large as the daemon.
const CACHE_BYTES: u64 = 16 << 20;

/// Opens the database.
pub async fn open(
    config: &Config,
    mode: OpenMode,
    clock: Arc<dyn Clock>,
) -> Result<(Stores, Arc<SqliteStore>, Writer), StoreError> {
    let rules = QueueRules::from(&config.queue);
    let cache_bytes = config.database.cache_bytes.min(CACHE_BYTES);
    let database = Database { cache_bytes, readers: 1, ..config.database.clone() };
    let (store, task) = SqliteStore::open(&database, rules, mode, clock).await?;
    store.set_max_pending(config.queue.max_pending);
    let mut writer = JoinSet::new();
    if let Some(task) = task {
        writer.spawn(task.run());
    }
    let stores = Stores {
        browse: store.clone(),
        settings: store.clone(),
        steering: store.clone(),
        queue: store.clone(),
        accounts: store.clone(),
        runs: store.clone(),
        lists: store.clone(),
        effects: store.clone(),
        stages: store.clone(),
        upkeep: store.clone(),
    };
    Ok((stores, store, writer))
}
