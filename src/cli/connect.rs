//! CONNECT: what other parts of the program provide. Each function here is a thin stand-in with the signature that
//! the commands call; connecting means replacing its body, or the calls, by the part that is named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use crate::clock::Clock;
use crate::config::{Config, Database, Log, Maintenance, Pipeline, ProcessorKind, Queue, Shutdown, Watch};
use crate::control::Stores;
use crate::store::{Browse, StoreError};

/// An effective key of the configuration. CONNECT: `config::Setting`.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// Dotted: `queue.lease`.
    pub key: String,
    /// Its value as TOML, secrets masked.
    pub value: String,
    /// Where it was written.
    pub origin: String,
}

/// A configuration that was read. CONNECT: `config::Loaded`.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the program goes by.
    pub config: Config,
    /// What it was made of.
    pub settings: Vec<Setting>,
}

/// Reads the configuration; its report is wrong usage (2). CONNECT: with `secrets`
/// `config::load(&config::Sources::of_process(file, database))`, else `config::load_without_secrets`: a command
/// that runs no pipeline needs none, and may not be able to read them.
pub fn load(_file: Option<PathBuf>, database: Option<String>, _secrets: bool) -> Result<Loaded, Failure> {
    let url = database.unwrap_or_else(|| "sqlite:///var/lib/ingestd/ingestd.db".to_owned());
    let path = url.strip_prefix("sqlite://").unwrap_or(&url);
    let config = Config {
        database: Database { path: PathBuf::from(path), ..Database::default() },
        log: Log::default(),
        queue: Queue::default(),
        shutdown: Shutdown::default(),
        maintenance: Maintenance::default(),
        pipelines: std::collections::BTreeMap::from([("noop".to_owned(), Pipeline::of(ProcessorKind::Noop))]),
        watches: std::collections::BTreeMap::new(),
        secret_variables: Vec::new(),
    };
    Ok(Loaded { config, settings: Vec::new() })
}

/// The configuration of `run --watch DIR [--exec CMD]`. CONNECT: `config::quick`.
pub fn quick(_folder: &Path, _exec: Option<&str>, database: Option<&str>) -> Result<Config, Failure> {
    load(None, database.map(str::to_owned), true).map(|loaded| loaded.config)
}

/// The commented configuration with every key. CONNECT: `config::reference()`.
pub const fn reference() -> &'static str {
    "# ingestd\n"
}

/// The watch of a definition that the database keeps. CONNECT: `config::watch_from_json`.
pub fn watch_from_json(name: &str, definition: &Value) -> Result<Watch, Failure> {
    let text = |key: &str| definition.get(key).and_then(Value::as_str);
    match (text("path"), text("pipeline")) {
        (Some(path), Some(pipeline)) => Ok(Watch::of(PathBuf::from(path), pipeline.to_owned())),
        _ => Err(Failure::usage(format!("watch `{name}`: `path` and `pipeline` are missing"))),
    }
}

/// How a command opens the database. CONNECT: `store::sqlite::OpenMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// To read.
    ReadOnly,
    /// To read and write beside other commands, without a daemon.
    ReadWrite,
}

/// Opens the database. CONNECT: `SqliteStore::open(database, mode, clock)`, its one value as each of the traits.
pub async fn open(_database: &Database, _mode: OpenMode, _clock: Arc<dyn Clock>) -> Result<Stores, StoreError> {
    Err(not_connected("the store"))
}

/// Brings the schema up to date, or makes a new database; answers the versions before and after. Called under the
/// exclusive lock. CONNECT: `SqliteStore::open(…, OpenMode::Daemon, …)` after a backup.
pub async fn migrate(_database: &Database, _clock: Arc<dyn Clock>) -> Result<(i64, i64), StoreError> {
    Err(not_connected("migrate"))
}

/// Checks a backup without changing it; answers what is wrong. CONNECT: the verification of backups.
pub async fn verify(_backup: &Path) -> Result<Vec<String>, StoreError> {
    Err(not_connected("verify"))
}

/// Makes a restored copy ready to be the database: a new incarnation. Called on the copy, before it takes the
/// database's place. CONNECT: `store::sqlite::restore_fixups`.
pub async fn restore_fixups(_copy: &Path) -> Result<(), StoreError> {
    Err(not_connected("restore_fixups"))
}

/// Copies what can still be read of a damaged database into a new file; answers what was lost, in words.
/// CONNECT: `store::sqlite::salvage`.
pub async fn salvage(_damaged: &Path, _into: &Path) -> Result<Vec<String>, StoreError> {
    Err(not_connected("salvage"))
}

/// A file under a watch, as `watch test` tells it.
#[derive(Clone, Debug)]
pub struct Previewed {
    /// Relative to the root.
    pub relative: PathBuf,
    /// `None`: it would be taken; else the rule that excludes it.
    pub excluded_by: Option<String>,
}

/// Walks the folder of a watch without taking anything; stops when `each` says `false`. CONNECT: `watch::scan`
/// with `watch::filter`.
pub fn preview(
    _watch: &Watch,
    _state: &Path,
    _each: &mut dyn FnMut(Previewed) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    Err(Failure::failed("`watch test` is not connected"))
}

/// Shows the progress of a daemon until it is told to stop.
pub type Progress =
    Box<dyn FnOnce(Arc<dyn Browse>, watch::Receiver<u64>, CancellationToken) -> BoxFuture<'static, ()> + Send>;

#[expect(dead_code, reason = "the stand-in for the daemon does not read them")]
/// How the daemon is run. CONNECT: `daemon::RunOptions`.
pub struct RunOptions {
    /// End when everything found is done.
    pub once: bool,
    /// Whether SIGHUP has a configuration to read again; the quick form has none.
    pub reload: bool,
    /// For a reload: where the configuration came from.
    pub file: Option<PathBuf>,
    /// The database of the command line.
    pub database: Option<String>,
    /// Draws the live line; `None` where nobody looks at a terminal.
    pub progress: Option<Progress>,
}

/// Runs the daemon to its end; answers the exit code. CONNECT: `daemon::run`.
pub async fn run(_config: Config, _options: RunOptions) -> Result<u8, Failure> {
    Err(Failure::failed("the daemon is not connected"))
}

/// Sets up logging. `level` is `log.level`, changed by `-v` and `-q`; `quiet_terminal` leaves the terminal to the
/// live line but for warnings. CONNECT: `telemetry`.
pub fn telemetry(_log: &Log, _verbosity: i8, _quiet_terminal: bool) -> Result<(), Failure> {
    Ok(())
}

fn not_connected(what: &str) -> StoreError {
    StoreError::Other(format!("{what} is not connected"))
}
