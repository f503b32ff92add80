//! From the merged tree to [`Config`]: every section in turn, every problem in one report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use config::ValueKind;

use super::check::{check_access, check_watches};
use super::database::{default_path, parse_url};
use super::layers::{Sources, merge};
use super::pipeline;
use super::report::{Origin, Problem, Report};
use super::secrets::Secrets;
use super::section::{Findings, Section, Setting};
use super::sections::{
    Backup, Config, Database, Durability, Log, LogFormat, Maintenance, Pipeline, ProcessorKind, Queue, Retention,
    Shutdown,
};
use super::values::{
    self, CENTURY, DAY, SECOND, choice, duration, integer, limit, mode, optional_path, period, quote, size, text,
};
use super::watch;
use super::watch_section::Watch;
use crate::job::DigestAlgorithm;

/// A configuration, and where each part of it comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the program goes by.
    pub config: Config,
    /// Every effective key, defaults included, in the order of the sections.
    pub settings: Vec<Setting>,
}

impl Loaded {
    /// Whether this process may list the folders that are watched, as far as they exist. A daemon that may not waits
    /// for one as if it were missing, and says so.
    ///
    /// # Errors
    /// Those that it may not list.
    pub fn check_access(&self) -> Result<(), Report> {
        let place = |problem: Problem| {
            let setting = self.settings.iter().find(|setting| setting.key == problem.key);
            problem.at(setting.map(|setting| setting.origin.clone()))
        };
        let problems: Vec<Problem> = check_access(&self.config.watches).into_iter().map(place).collect();
        if problems.is_empty() { Ok(()) } else { Err(Report { problems }) }
    }
}

/// Reads the configuration that a daemon runs by.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(sources: &Sources) -> Result<Loaded, Report> {
    load_with(sources, true)
}

/// Reads the configuration for a command that runs no pipeline: as [`load`], but secrets are not looked up, since
/// they may be there for the daemon alone. Each reads as `0`.
///
/// # Errors
/// Everything else that is wrong with it.
pub fn load_without_secrets(sources: &Sources) -> Result<Loaded, Report> {
    load_with(sources, false)
}

fn load_with(sources: &Sources, secrets: bool) -> Result<Loaded, Report> {
    let merged = merge(sources);
    let fallback = sources.file.clone().map(Origin::File);
    let mut found = Findings::new(Secrets::new(sources, secrets), merged.tables, fallback);
    found.problems = merged.problems;
    let mut root = Section::new(String::new(), &merged.tree, &mut found);
    let mut config = Config {
        database: database(root.section("database"), sources),
        log: log(root.section("log")),
        queue: queue(root.section("queue")),
        shutdown: shutdown(root.section("shutdown")),
        maintenance: maintenance(root.section("maintenance")),
        pipelines: pipelines(root.section("pipeline")),
        watches: watches(root.section("watch")),
        secret_variables: Vec::new(),
    };
    config.secret_variables = std::mem::take(&mut found.secrets.variables);
    let relations = check_watches(&config.watches, &config.pipelines, &config.state_directory());
    let relations: Vec<Problem> = relations.into_iter().map(|problem| located(problem, &found)).collect();
    found.problems.extend(relations);
    if found.problems.is_empty() {
        return Ok(Loaded { config, settings: found.settings });
    }
    Err(Report { problems: found.problems })
}

/// A relation knows its key only; the settings know where that was written.
fn located(problem: Problem, found: &Findings<'_>) -> Problem {
    // An item of a list stands where the list does.
    let key = problem.key.split('[').next().unwrap_or_default();
    let setting = found.settings.iter().find(|setting| setting.key == key);
    let written = setting.map(|setting| setting.origin.clone()).filter(|origin| *origin != Origin::Default);
    let origin = written.or_else(|| found.origin_around(key));
    problem.at(origin)
}

fn database(mut section: Section<'_, '_, '_>, sources: &Sources) -> Database {
    const DURABILITIES: [(&str, Durability); 2] = [("full", Durability::Full), ("normal", Durability::Normal)];
    let default = Database::default();
    let database = Database {
        path: database_path(&mut section, sources),
        durability: section.get("durability", default.durability, &choice(&DURABILITIES)),
        mode: section.get("mode", default.mode, &mode()),
        busy_timeout: section.get(
            "busy_timeout",
            default.busy_timeout,
            &duration(Duration::from_millis(100)..=Duration::from_hours(1)),
        ),
        readers: section.get("readers", default.readers, &integer(1..=64)),
        cache_bytes: section.get("cache", default.cache_bytes, &size(64 << 10..=1 << 40)),
    };
    section.finish();
    database
}

const URL_FORMS: &str = "\"sqlite:///absolute/path\", \"sqlite://relative/path\" or \"sqlite:path\"";

fn database_path(section: &mut Section<'_, '_, '_>, sources: &Sources) -> PathBuf {
    // A path that no watch lies in, so that what is checked next has something to go by.
    let stand_in = || PathBuf::from("/nonexistent/ingestd.db");
    let Some(value) = section.value("url") else {
        let key = section.key("url");
        return match default_path(sources) {
            Some(path) => {
                let shown = quote(&format!("sqlite://{}", path.display()));
                section.found.settings.push(Setting { key, value: shown, origin: Origin::Default });
                path
            }
            None => {
                let message = "has no default here: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set";
                section.found.problems.push(Problem::new(key, message).allowed(URL_FORMS));
                stand_in()
            }
        };
    };
    let parsed = match &value.kind {
        ValueKind::String(url) => parse_url(url),
        _ => Err("is not a string".to_owned()),
    };
    match parsed {
        Ok(path) => {
            section.note(section.key("url"), values::toml(&value.kind), value);
            path
        }
        Err(message) => {
            section.refuse("url", value, Some(message), Some(URL_FORMS.to_owned()));
            stand_in()
        }
    }
}

fn log(mut section: Section<'_, '_, '_>) -> Log {
    const FORMATS: [(&str, LogFormat); 4] = [
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
        ("journald", LogFormat::Journald),
    ];
    let default = Log::default();
    let filter = text(
        "\"error\", \"warn\", \"info\", \"debug\", \"trace\", \"off\" or a filter such as \"info,ingestd=debug\"",
        |level| {
            !level.trim().is_empty()
                && level.parse::<tracing_subscriber::filter::EnvFilter>().is_ok()
                && known_levels(level)
        },
    );
    let log = Log {
        level: section.get("level", default.level, &filter),
        format: section.get("format", default.format, &choice(&FORMATS)),
    };
    section.finish();
    log
}

/// A bare word that is no level would be taken for a module's name, and silence everything else.
fn known_levels(filter: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let bare = |part: &&str| !part.contains(['=', '[', ':']);
    filter.split(',').map(str::trim).filter(bare).all(|part| LEVELS.contains(&part.to_ascii_lowercase().as_str()))
}

fn queue(mut section: Section<'_, '_, '_>) -> Queue {
    const DIGESTS: [(&str, DigestAlgorithm); 2] =
        [("blake3", DigestAlgorithm::Blake3), ("sha256", DigestAlgorithm::Sha256)];
    let default = Queue::default();
    let queue = Queue {
        lease: section.get("lease", default.lease, &duration(SECOND..=DAY)),
        concurrency: section.get("concurrency", default.concurrency, &limit(10_000)),
        priority_aging: section.get("priority_aging", default.priority_aging, &period()),
        max_pending: section.get("max_pending", default.max_pending, &limit(i64::MAX as u64)),
        max_crashes: section.get("max_crashes", default.max_crashes, &integer(1..=1_000)),
        digest: section.get("digest", default.digest, &choice(&DIGESTS)),
    };
    section.finish();
    queue
}

fn shutdown(mut section: Section<'_, '_, '_>) -> Shutdown {
    let grace = section.get("grace", Shutdown::default().grace, &duration(Duration::ZERO..=DAY));
    section.finish();
    Shutdown { grace }
}

fn maintenance(mut section: Section<'_, '_, '_>) -> Maintenance {
    let default = Maintenance::default();
    let interval = period();
    let maintenance = Maintenance {
        wal_checkpoint_interval: section.get("wal_checkpoint_interval", default.wal_checkpoint_interval, &interval),
        vacuum_interval: section.get("vacuum_interval", default.vacuum_interval, &interval),
        prune_interval: section.get("prune_interval", default.prune_interval, &interval),
        check_interval: section.get("check_interval", default.check_interval, &interval),
        retention: retention(section.section("retention"), default.retention),
        backup: backup(section.section("backup"), default.backup),
        min_free_space_bytes: section.get("min_free_space", default.min_free_space_bytes, &size(0..=1 << 50)),
    };
    section.finish();
    maintenance
}

fn retention(mut section: Section<'_, '_, '_>, default: Retention) -> Retention {
    let age = duration(Duration::ZERO..=CENTURY);
    let retention = Retention {
        completed: section.get("completed", default.completed, &age),
        skipped: section.get("skipped", default.skipped, &age),
        cancelled: section.get("cancelled", default.cancelled, &age),
        failed: section.get("failed", default.failed, &age),
        attempts: section.get("attempts", default.attempts, &age),
        runs: section.get("runs", default.runs, &age),
        sources: section.get("sources", default.sources, &age),
    };
    section.finish();
    retention
}

fn backup(mut section: Section<'_, '_, '_>, default: Backup) -> Backup {
    let folder = "the absolute path of a folder; \"\": backups/ beside the database";
    let backup = Backup {
        interval: section.get("interval", default.interval, &period()),
        directory: section.get("directory", default.directory, &optional_path(folder)),
        keep: section.get("keep", default.keep, &integer(1..=10_000)),
    };
    section.finish();
    backup
}

fn pipelines(section: Section<'_, '_, '_>) -> BTreeMap<String, Pipeline> {
    let entries = section.entries();
    let found = section.found;
    let read = |(name, value): (&str, &config::Value)| {
        // A broken one is still there for the watches that name it.
        let pipeline = pipeline::read(name, value, found).unwrap_or_else(|| Pipeline::of(ProcessorKind::Noop));
        (name.to_owned(), pipeline)
    };
    entries.into_iter().map(read).collect()
}

fn watches(section: Section<'_, '_, '_>) -> BTreeMap<String, Watch> {
    let entries = section.entries();
    let found = section.found;
    let read = |(name, value): (&str, &config::Value)| Some((name.to_owned(), watch::read(name, value, found)?));
    entries.into_iter().filter_map(read).collect()
}
