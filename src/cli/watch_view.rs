//! A watch, as `status`, `watch list` and `watch show` tell it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::failure::Failure;
use super::screen::{Style, count};
use super::table::{Cell, Column, Table};
use super::time;
use super::view::{json_or_text, lossy};
use crate::clock::Timestamp;
use crate::config;
use crate::control::{LiveStatus, LiveWatch, ScanSummary, ScanUnderWay, Stores, WatchActivity, WatchCondition};
use crate::watch::{CoverageStatus, WaitsFor};

/// A watch.
#[derive(Debug, Serialize)]
pub struct WatchView {
    /// Its name.
    pub name: String,
    /// The folder.
    pub path: String,
    /// Where its files go.
    pub pipeline: String,
    /// `file` or `database`.
    pub origin: &'static str,
    /// Whether a person paused it.
    pub paused: bool,
    /// What it does, where a daemon runs.
    pub condition: Option<WatchCondition>,
    /// Files that are not whole yet, where a daemon runs.
    pub settling: Option<u64>,
    /// When its newest comparison ended.
    pub last_scan_at: Option<Timestamp>,
    /// What is wrong with it.
    pub warning: Option<String>,
    /// What it has done; not there where no daemon runs it.
    #[serde(flatten)]
    pub activity: Option<ActivityView>,
}

/// What a watch has done since the daemon started, and what it is about.
#[derive(Debug, Serialize)]
pub struct ActivityView {
    /// Files that were whole, and new or changed.
    pub seen: u64,
    /// Jobs that were made of them.
    pub taken: u64,
    /// Entries that a rule left alone in the newest scan.
    pub excluded: u64,
    /// The same by rule, the most frequent first.
    pub excluded_by: Vec<RuleCount>,
    /// Files that were noted as gone.
    pub vanished: u64,
    /// Files and folders that could not be read.
    pub errors: u64,
    /// The newest of them.
    pub recent_errors: Vec<FileError>,
    /// Times that events were lost and a scan took their place.
    pub events_lost: u64,
    /// The newest event.
    pub last_event_at: Option<Timestamp>,
    /// The newest scan of the whole folder.
    pub last_scan: Option<ScanSummary>,
    /// The scan under way.
    pub scanning: Option<ScanUnderWay>,
    /// Some of the files that wait.
    pub waiting_files: Vec<WaitingView>,
    /// Which folders are watched how.
    pub coverage: CoverageStatus,
    /// Files that are gone and that `delete_brake` keeps from counting as deleted.
    pub held_back: u64,
}

/// How many entries a rule left alone.
#[derive(Debug, Serialize)]
pub struct RuleCount {
    /// The rule, in words.
    pub rule: String,
    /// How many.
    pub count: u64,
}

/// What can't be read, and why.
#[derive(Debug, Serialize)]
pub struct FileError {
    /// Relative to the root.
    pub relative: String,
    /// The reason.
    pub error: String,
}

/// A file that is not taken yet.
#[derive(Debug, Serialize)]
pub struct WaitingView {
    /// Relative to the root.
    pub relative: String,
    /// What it waits for.
    pub waits_for: Waits,
    /// Since when it has been as it is.
    pub quiet_since: Option<Timestamp>,
    /// When the daemon looks at it next.
    pub next_look_at: Option<Timestamp>,
}

/// What a file waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Waits {
    /// For what settles a file.
    Settling(WaitsFor),
    /// For its companion.
    Companion(Companion),
}

/// What `ready_suffix` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Companion {
    /// The file that says that it is ready.
    ReadyFile,
}

impl WaitingView {
    /// What it waits for, in words.
    pub fn words(&self, now: Timestamp) -> String {
        let quiet = self.quiet_since.map_or_else(String::new, |since| time::short(now.since(since)));
        match self.waits_for {
            Waits::Companion(_) => "its ready file is missing".to_owned(),
            Waits::Settling(WaitsFor::Close) => "still open for writing".to_owned(),
            Waits::Settling(WaitsFor::Quiet) => format!("quiet for {quiet}"),
            Waits::Settling(WaitsFor::SecondLook) => "a second look, whether it is as it was".to_owned(),
            Waits::Settling(WaitsFor::Age) => {
                let next = self.next_look_at.map_or_else(String::new, |at| time::relative(at, now));
                format!("too young, looked at {next}")
            }
            Waits::Settling(WaitsFor::OlderVersion) => "its older version is in hand".to_owned(),
        }
    }
}

/// A watch that is defined, and how to tell of it.
pub struct Known {
    /// For people and JSON.
    pub view: WatchView,
    /// Its definition; `None` where the database's can't be read.
    pub watch: Option<config::Watch>,
}

/// Every watch that is defined, by name: those of the file, and those of the database whose name the file does
/// not take. Before there is a database, those of the file.
pub async fn known(
    config: &config::Config,
    stores: Option<&Stores>,
    live: Option<&LiveStatus>,
) -> Result<BTreeMap<String, Known>, Failure> {
    let rows = match stores {
        Some(stores) => stores.settings.watches().await?,
        None => Vec::new(),
    };
    let paused = |name: &str| rows.iter().any(|row| row.name == name && row.paused);
    let told = |name: &str| live.and_then(|live| live.watches.iter().find(|watch| watch.name == name));
    let mut all = BTreeMap::new();
    for (name, watch) in &config.watches {
        let view = describe(name, Ok(watch), "file", paused(name), told(name));
        all.insert(name.clone(), Known { view, watch: Some(watch.clone()) });
    }
    for row in &rows {
        let Some(definition) = row.definition.as_deref() else { continue };
        let read = config::watch_from_json(&row.name, &json_or_text(definition)).map_err(Failure::from);
        if let Some(known) = all.get_mut(&row.name) {
            known.view.warning =
                Some("the file took this name, so the database's watch of that name sleeps".to_owned());
            continue;
        }
        let mut view = describe(&row.name, read.as_ref(), "database", row.paused, told(&row.name));
        if read.is_err() {
            view.path = lossy(&row.root);
        }
        all.insert(row.name.clone(), Known { view, watch: read.ok() });
    }
    Ok(all)
}

fn describe(
    name: &str,
    watch: Result<&config::Watch, &Failure>,
    origin: &'static str,
    paused: bool,
    live: Option<&LiveWatch>,
) -> WatchView {
    WatchView {
        name: name.to_owned(),
        path: watch.map(|watch| lossy(&watch.path)).unwrap_or_default(),
        pipeline: watch.map(|watch| watch.pipeline.clone()).unwrap_or_default(),
        origin,
        paused,
        condition: live.map(|live| live.condition),
        settling: live.map(|live| live.settling),
        last_scan_at: live.and_then(|live| live.last_scan_at_ms).map(Timestamp::from_millis),
        warning: match watch {
            Err(failure) => Some(failure.message.clone()),
            Ok(_) => live.and_then(|live| live.warning.clone()),
        },
        activity: live.map(|live| activity(&live.activity)),
    }
}

fn activity(live: &WatchActivity) -> ActivityView {
    let rule = |(rule, count): &(String, u64)| RuleCount { rule: rule.clone(), count: *count };
    let error = |(relative, error): &(String, String)| FileError { relative: relative.clone(), error: error.clone() };
    let settling = live.waiting.iter().map(|file| WaitingView {
        relative: file.relative.clone(),
        waits_for: Waits::Settling(file.waits_for),
        quiet_since: Some(Timestamp::from_millis(file.quiet_since_ms)),
        next_look_at: Some(Timestamp::from_millis(file.next_look_at_ms)),
    });
    let not_ready = live.not_ready.iter().map(|relative| WaitingView {
        relative: relative.clone(),
        waits_for: Waits::Companion(Companion::ReadyFile),
        quiet_since: None,
        next_look_at: None,
    });
    ActivityView {
        seen: live.seen,
        taken: live.taken,
        excluded: live.last_scan.map_or(0, |scan| scan.excluded),
        excluded_by: live.excluded_by.iter().map(rule).collect(),
        vanished: live.vanished,
        errors: live.errors,
        recent_errors: live.recent_errors.iter().map(error).collect(),
        events_lost: live.events_lost,
        last_event_at: live.last_event_at_ms.map(Timestamp::from_millis),
        last_scan: live.last_scan,
        scanning: live.scanning.clone(),
        waiting_files: settling.chain(not_ready).collect(),
        coverage: live.coverage.clone(),
        held_back: live.held_back,
    }
}

/// Watches as a table: where they are and where their files go.
pub fn table<'a>(views: impl IntoIterator<Item = &'a WatchView>) -> Table {
    let mut table = Table::new([
        Column::Left("WATCH"),
        Column::Left("STATUS"),
        Column::Left("PIPELINE"),
        Column::Left("FROM"),
        Column::Right("SETTLING"),
        Column::Middle("PATH"),
    ]);
    for view in views {
        table.row([
            view.name.as_str().into(),
            status(view),
            view.pipeline.as_str().into(),
            view.origin.into(),
            view.settling.map(|n| n.to_string()).unwrap_or_default().into(),
            view.path.as_str().into(),
        ]);
    }
    table
}

/// Watches as a table: what they have done since the daemon started. Empty where none runs.
pub fn counters<'a>(views: impl IntoIterator<Item = &'a WatchView>, now: Timestamp) -> Table {
    let mut table = Table::new([
        Column::End("WATCH"),
        Column::Right("SEEN"),
        Column::Right("TAKEN"),
        Column::Right("EXCLUDED"),
        Column::Right("ERRORS"),
        Column::Right("LOST"),
        Column::Right("EVENT"),
        Column::Right("SCAN"),
    ]);
    for view in views {
        let Some(activity) = &view.activity else { continue };
        let ago = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| time::relative(at, now));
        let bad = |n: u64, style| Cell::styled(count(n), if n > 0 { style } else { Style::Plain });
        table.row([
            view.name.as_str().into(),
            count(activity.seen).into(),
            count(activity.taken).into(),
            count(activity.excluded).into(),
            bad(activity.errors, Style::Red),
            bad(activity.events_lost, Style::Yellow),
            ago(activity.last_event_at).into(),
            ago(view.last_scan_at).into(),
        ]);
    }
    table
}

fn status(view: &WatchView) -> Cell {
    match (view.paused, view.condition, &view.warning) {
        (true, _, _) | (false, Some(WatchCondition::Paused), _) => Cell::styled("paused", Style::Yellow),
        (false, Some(WatchCondition::Missing), _) => Cell::styled("missing", Style::Red),
        (false, _, Some(_)) => Cell::styled("warning", Style::Yellow),
        (false, Some(WatchCondition::Native), _) => "native".into(),
        (false, Some(WatchCondition::Poll), _) => "poll".into(),
        (false, Some(WatchCondition::Scanning), _) => "scanning".into(),
        (false, None, None) => Cell::styled("not running", Style::Dim),
    }
}
