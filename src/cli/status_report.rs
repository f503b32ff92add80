//! What `status` and `health` go by: gathered once, from the daemon where one runs and from the database.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::context::Context;
use super::db_files;
use super::failure::Failure;
use super::pipeline::{self, PipelineView};
use super::screen::{approximate, count};
use super::view::{Rates, by_state, json_or_text, lossy};
use super::watch;
use super::watch_view::{self, WatchView};
use crate::clock::Timestamp;
use crate::control::{LiveStatus, LiveWarning, RunningJob, Stores};
use crate::job::{Priority, StateName};
use crate::run::{Run, RunInput, RunState};
use crate::store::Counts;

/// What the records of maintenance begin with.
const DUTIES: &str = "ingestd.maintenance.";
/// Where the newest recovery stands.
const RECOVERY: &str = "ingestd.recovery";

/// The queue and the daemon at a glance.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The daemon.
    pub daemon: Daemon,
    /// Jobs by state.
    pub jobs: BTreeMap<StateName, u64>,
    /// Waiting jobs by level.
    pub waiting_by_priority: BTreeMap<Priority, u64>,
    /// By name.
    pub pipelines: BTreeMap<String, PipelineView>,
    /// By name.
    pub watches: BTreeMap<String, WatchView>,
    /// What runs now.
    pub running: Vec<RunningJob>,
    /// How long the oldest due job has waited.
    pub oldest_pending_ms: Option<u64>,
    /// When the next waiting job becomes due, where none is due.
    pub next_due_at: Option<Timestamp>,
    /// Jobs that ended, per second.
    pub rate_per_s: Rates,
    /// See [`Counts::success_rate`].
    pub success_rate: Option<f64>,
    /// When nothing waits any more, at the rate of the last five minutes.
    pub drain_eta_ms: Option<u64>,
    /// The database.
    pub database: Database,
    /// The record of each duty.
    pub maintenance: Map<String, Value>,
    /// What the newest start put right.
    pub last_recovery: Option<Value>,
    /// What a person should look at, the worst first.
    pub warnings: Vec<Warning>,
}

/// Something that a person should look at; in JSON, its words.
#[derive(Debug)]
pub struct Warning {
    /// Work or data is in danger.
    pub critical: bool,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl Serialize for Warning {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.message)
    }
}

/// The daemon, as it runs or as it last ran.
#[derive(Debug, Serialize)]
pub struct Daemon {
    /// Whether it answers.
    pub running: bool,
    /// Whether it stops, and waits for what still runs.
    pub stopping: bool,
    /// Its process; null where none runs.
    pub pid: Option<u32>,
    /// Its start.
    pub started_at: Option<Timestamp>,
    /// Its version.
    pub version: Option<String>,
    /// When the last one stopped in order; null while one runs, and after a crash.
    pub stopped_at: Option<Timestamp>,
}

/// The database's file.
#[derive(Debug, Serialize)]
pub struct Database {
    /// Where.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// The size of its log.
    pub wal_bytes: u64,
    /// The schema.
    pub schema_version: i64,
    /// The newest backup in the folder of backups.
    pub last_backup_at: Option<Timestamp>,
}

/// Runs among which paused ones are looked for, the newest first.
const RUNS_LOOKED_AT: usize = 200;

/// Gathers a report.
pub async fn gather(context: &Context, stores: &Stores) -> Result<Report, Failure> {
    let live = watch::live(context).await?;
    let config = context.config()?;
    let overview = stores.browse.overview().await?;
    let sizes = stores.upkeep.sizes().await?;
    let now = context.now();
    let watches = watch_view::known(config, Some(stores), live.as_ref()).await?;
    let watches: BTreeMap<_, _> = watches.into_iter().map(|(name, known)| (name, known.view)).collect();
    let pipelines = pipeline::views(config, &overview, live.as_ref());
    let mut warnings = warnings(live.as_ref(), &watches, &pipelines);
    warnings.extend(stores.runs.runs(RUNS_LOOKED_AT).await?.iter().filter_map(paused));
    let recovery = stores.settings.kv_get(RECOVERY).await?;
    let backups = db_files::backups(&db_files::backup_folder(config));
    Ok(Report {
        daemon: daemon(live.as_ref(), stores).await?,
        jobs: by_state(&overview.total),
        waiting_by_priority: waiting_by_priority(&overview.total),
        warnings,
        pipelines: pipelines.into_iter().map(|view| (view.name.clone(), view)).collect(),
        watches,
        running: live.map(|live| live.running).unwrap_or_default(),
        oldest_pending_ms: overview.oldest_due.map(|due| millis_u64(now, due)),
        next_due_at: overview.next_due,
        rate_per_s: overview.total.rate_per_s.into(),
        success_rate: overview.total.success_rate,
        drain_eta_ms: drain_eta_ms(&overview.total),
        database: Database {
            path: lossy(&stores.upkeep.path()),
            size_bytes: sizes.size_bytes,
            wal_bytes: sizes.wal_bytes,
            schema_version: stores.browse.schema_version().await?,
            last_backup_at: backups.first().map(|backup| backup.made_at),
        },
        maintenance: maintenance(stores).await?,
        last_recovery: recovery.as_deref().map(json_or_text),
    })
}

fn millis_u64(now: Timestamp, earlier: Timestamp) -> u64 {
    u64::try_from(now.since(earlier).as_millis()).unwrap_or(u64::MAX)
}

async fn daemon(live: Option<&LiveStatus>, stores: &Stores) -> Result<Daemon, Failure> {
    if let Some(live) = live {
        return Ok(Daemon {
            running: true,
            stopping: live.stopping,
            pid: Some(live.pid),
            started_at: Some(Timestamp::from_millis(live.started_at_ms)),
            version: Some(live.version.clone()),
            stopped_at: None,
        });
    }
    let boot = stores.browse.last_boot().await?;
    Ok(Daemon {
        running: false,
        stopping: false,
        pid: None,
        started_at: boot.as_ref().map(|boot| boot.started_at),
        version: boot.as_ref().map(|boot| boot.version.clone()),
        stopped_at: boot.and_then(|boot| boot.stopped_at),
    })
}

fn waiting_by_priority(counts: &Counts) -> BTreeMap<Priority, u64> {
    let mut levels: BTreeMap<Priority, u64> = Priority::ALL.into_iter().map(|level| (level, 0)).collect();
    for ((state, level), n) in &counts.by_state_and_priority {
        if state.is_waiting() {
            *levels.entry(*level).or_default() += n;
        }
    }
    levels
}

/// Waiting jobs over the rate of the last five minutes; `None` where nothing moves.
fn drain_eta_ms(counts: &Counts) -> Option<u64> {
    let waiting = counts.in_state(StateName::Pending) + counts.in_state(StateName::Retrying);
    let rate = counts.rate_per_s[1];
    match waiting {
        0 => Some(0),
        _ if rate > 0.0 => {
            let eta = Duration::try_from_secs_f64(approximate(waiting) / rate).ok()?;
            u64::try_from(eta.as_millis()).ok()
        }
        _ => None,
    }
}

/// The daemon's warnings, and what can be seen without one.
fn warnings(
    live: Option<&LiveStatus>,
    watches: &BTreeMap<String, WatchView>,
    pipelines: &[PipelineView],
) -> Vec<Warning> {
    let told = live.into_iter().flat_map(|live| live.warnings.iter().cloned());
    let mut all: Vec<Warning> = told.map(|LiveWarning { critical, message }| Warning { critical, message }).collect();
    // The daemon may have said the same in other words around it.
    let mut add = |sign: &str, message: String| {
        if !all.iter().any(|known| known.message.contains(sign)) {
            all.push(Warning { critical: false, message });
        }
    };
    for watch in watches.values() {
        if let Some(warning) = &watch.warning {
            add(warning, format!("watch {}: {warning}", watch.name));
        }
    }
    for view in pipelines.iter().filter(|view| view.kind.is_none()) {
        let waiting = view.count(StateName::Pending) + view.count(StateName::Retrying);
        if waiting > 0 {
            let name = &view.name;
            add(name, format!("{waiting} jobs wait for pipeline {name}, which the configuration does not define"));
        }
    }
    all
}

/// A list's run that a person paused: nothing but a person lets it go on.
fn paused(run: &Run) -> Option<Warning> {
    let is_list = !matches!(run.input, RunInput::Watch { .. });
    (is_list && run.state == RunState::Paused).then(|| Warning {
        critical: false,
        message: format!("run {0} is paused, {1} to be done; `ingestd runs resume {0}`", run.id, count(run.jobs.open)),
    })
}

async fn maintenance(stores: &Stores) -> Result<Map<String, Value>, Failure> {
    let entries = stores.settings.kv_list(DUTIES).await?;
    let name = |key: &str| key.strip_prefix(DUTIES).unwrap_or(key).to_owned();
    Ok(entries.into_iter().map(|entry| (name(&entry.key), json_or_text(&entry.value))).collect())
}
