//! The sections. Each station gets its own and sees no other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::answer_stage::AnswerStage;
use super::throttle::{Breaker, Rate};
use super::watch_section::Watch;
use crate::job::{DigestAlgorithm, RetryPolicy};

/// Everything. Only the composition root and the command line see it whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[database]`
    pub database: Database,
    /// `[log]`
    pub log: Log,
    /// `[queue]`
    pub queue: Queue,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[maintenance]`
    pub maintenance: Maintenance,
    /// `[pipeline.NAME]`
    pub pipelines: BTreeMap<String, Pipeline>,
    /// `[watch.NAME]`
    pub watches: BTreeMap<String, Watch>,
    /// Names of environment variables that the configuration read as `${…}`: kept from processors.
    pub secret_variables: Vec<String>,
}

/// `[database]`
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// The file, from `url = "sqlite:///…"`.
    pub path: PathBuf,
    /// What a commit survives.
    pub durability: Durability,
    /// Permission bits of the database's files.
    pub mode: u32,
    /// How long a write waits for another process's lock.
    pub busy_timeout: Duration,
    /// Connections that only read.
    pub readers: u32,
    /// Page cache of all connections together, in bytes.
    pub cache_bytes: u64,
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Power loss: every commit is synced.
    #[default]
    Full,
    /// A crash of the program, not of the machine.
    Normal,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level or a tracing filter.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// To the journal under systemd, as text otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// Fields of the systemd journal.
    Journald,
}

/// `[queue]`
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// How long a lease lasts unless renewed.
    pub lease: Duration,
    /// Jobs that may run at once over all pipelines; `None`: no further limit.
    pub concurrency: Option<usize>,
    /// A waiting job rises one level for each of these; zero turns it off.
    pub priority_aging: Duration,
    /// Intake pauses at this many waiting jobs; `None`: unbounded.
    pub max_pending: Option<u64>,
    /// Crashes while running alone after which a job is given up.
    pub max_crashes: u32,
    /// How contents are digested.
    pub digest: DigestAlgorithm,
}

/// `[shutdown]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Running attempts may finish this long after SIGTERM.
    pub grace: Duration,
}

/// `[maintenance]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// How often the WAL is moved into the database. Zero turns a duty off, here and below.
    pub wal_checkpoint_interval: Duration,
    /// How often free pages are given back.
    pub vacuum_interval: Duration,
    /// How often old rows are removed.
    pub prune_interval: Duration,
    /// How often the database is checked.
    pub check_interval: Duration,
    /// How long rows are kept.
    pub retention: Retention,
    /// Copies of the database.
    pub backup: Backup,
    /// With less room than this on the database's filesystem, intake pauses.
    pub min_free_space_bytes: u64,
}

/// `maintenance.retention`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Completed jobs.
    pub completed: Duration,
    /// Skipped jobs.
    pub skipped: Duration,
    /// Cancelled jobs.
    pub cancelled: Duration,
    /// Failed jobs.
    pub failed: Duration,
    /// The history.
    pub attempts: Duration,
    /// Runs that are over.
    pub runs: Duration,
    /// Sources that vanished.
    pub sources: Duration,
}

/// `maintenance.backup`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// How often; zero: never.
    pub interval: Duration,
    /// Where; `None`: `backups/` beside the database.
    pub directory: Option<PathBuf>,
    /// How many are kept, at least 1.
    pub keep: usize,
}

/// `[pipeline.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// What does the work.
    pub kind: ProcessorKind,
    /// Executions that may run at once.
    pub concurrency: usize,
    /// An attempt that takes longer is ended and has failed.
    pub timeout: Duration,
    /// How much of the output each attempt keeps.
    pub output_bytes: u64,
    /// Jobs that one execution may take. With more than one, the processor is told of all of them at once.
    pub batch_size: usize,
    /// How long a batch that is not full may wait for jobs that are known to become due.
    pub batch_linger: Duration,
    /// What follows a failure.
    pub retry: RetryPolicy,
    /// When the pipeline waits for its destination.
    pub breaker: Breaker,
    /// How many jobs start in which time; `None`: no limit.
    pub rate: Option<Rate>,
    /// The stages that its jobs move through, in order; empty: none.
    pub stages: Vec<String>,
}

/// A processor and its own settings.
#[derive(Clone, Debug, PartialEq)]
pub enum ProcessorKind {
    /// Runs a command.
    Exec(ExecPipeline),
    /// Makes an HTTP call.
    Http(HttpPipeline),
    /// Does nothing, successfully.
    Noop,
}

/// `kind = "exec"`
#[derive(Clone, Debug, PartialEq)]
pub struct ExecPipeline {
    /// Program and arguments, with placeholders; never empty.
    pub command: Vec<String>,
    /// Variables added to the environment, with placeholders.
    pub env: BTreeMap<String, String>,
    /// Working directory; `None`: `work/` in the state directory.
    pub cwd: Option<PathBuf>,
    /// Exit codes that retrying can't help.
    pub permanent_exit_codes: Vec<i32>,
}

/// `kind = "http"`
#[derive(Clone, Debug, PartialEq)]
pub struct HttpPipeline {
    /// With placeholders.
    pub url: String,
    /// `POST`, `PUT`, …
    pub method: String,
    /// What is sent.
    pub body: Body,
    /// Redirects that are followed.
    pub redirects: usize,
    /// Headers added, with placeholders.
    pub headers: BTreeMap<String, String>,
    /// Where a success takes the job.
    pub answer_stage: Option<AnswerStage>,
}

/// What an HTTP call sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// The file, streamed from disk.
    #[default]
    File,
    /// The job's description, as JSON.
    Metadata,
    /// Nothing.
    None,
}

impl Config {
    /// The folder that holds the database and everything that belongs to it.
    pub fn state_directory(&self) -> PathBuf {
        self.database.path.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
    }

    /// The folder of live output and of the records of process groups: of this database alone, because another one in
    /// the same folder has jobs of the same numbers, and a daemon of its own whose processes are not ours to end.
    pub fn spool(&self) -> PathBuf {
        self.state_directory().join("spool").join(self.database.path.file_name().unwrap_or_default())
    }

    /// The folder of contents that lines of lists brought along, of this database alone.
    pub fn contents(&self) -> PathBuf {
        self.state_directory().join("content").join(self.database.path.file_name().unwrap_or_default())
    }

    /// The folder of those who read a run, of this database alone.
    pub fn readers(&self) -> PathBuf {
        self.state_directory().join("runs").join(self.database.path.file_name().unwrap_or_default())
    }

    /// The declared stages of the pipelines that have some.
    pub fn stage_orders(&self) -> Arc<BTreeMap<String, Vec<String>>> {
        let declared = self.pipelines.iter().filter(|(_, pipeline)| !pipeline.stages.is_empty());
        Arc::new(declared.map(|(name, pipeline)| (name.clone(), pipeline.stages.clone())).collect())
    }
}

impl Default for Database {
    /// The path is the one thing without a default here: it depends on the machine.
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            durability: Durability::Full,
            mode: 0o600,
            busy_timeout: Duration::from_secs(30),
            readers: 4,
            cache_bytes: 64 << 20,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            lease: Duration::from_mins(1),
            concurrency: None,
            priority_aging: Duration::from_mins(10),
            max_pending: None,
            max_crashes: 5,
            digest: DigestAlgorithm::Blake3,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30) }
    }
}

const DAY: Duration = Duration::from_hours(24);

impl Default for Maintenance {
    fn default() -> Self {
        Self {
            wal_checkpoint_interval: Duration::from_mins(5),
            vacuum_interval: DAY,
            prune_interval: Duration::from_hours(1),
            check_interval: DAY * 7,
            retention: Retention {
                completed: DAY * 7,
                skipped: DAY,
                cancelled: DAY * 7,
                failed: DAY * 90,
                attempts: DAY * 30,
                runs: DAY * 7,
                sources: DAY * 30,
            },
            backup: Backup { interval: DAY, directory: None, keep: 7 },
            min_free_space_bytes: 256 << 20,
        }
    }
}

impl Pipeline {
    /// A pipeline of this kind with every other key at its default.
    pub fn of(kind: ProcessorKind) -> Self {
        Self {
            kind,
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            timeout: Duration::from_mins(5),
            output_bytes: 8 << 10,
            batch_size: 1,
            batch_linger: Duration::ZERO,
            retry: RetryPolicy::default(),
            breaker: Breaker::default(),
            rate: None,
            stages: Vec::new(),
        }
    }
}

impl ExecPipeline {
    /// This command with every other key at its default.
    pub fn of(command: Vec<String>) -> Self {
        Self { command, env: BTreeMap::new(), cwd: None, permanent_exit_codes: vec![64, 65, 66, 67, 68, 76, 77, 78] }
    }
}
