//! `ingestd watch`

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Style, clean, plural};
use super::table::{Cell, Column, Table};
use super::view::{self, json_or_text, lossy};
use super::watch_definition::NewWatch;
use super::watch_test;
use super::{Format, note, time};
use crate::clock::Timestamp;
use crate::config;
use crate::control::{Confirmed, LiveStatus, LiveWatch, Request, Scanned, Stores, WatchCondition};

/// See [`Verb`].
#[derive(Args, Debug)]
pub struct Watch {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a watch in the database; a running daemon takes it up at once.
    Add(Box<NewWatch>),
    /// List the watches of the configuration file and of the database.
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Everything about one watch.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Forget a watch of the database; what is known of its files stays.
    Remove {
        /// Its name.
        name: String,
    },
    /// Stop taking files.
    Pause {
        /// Its name.
        name: String,
    },
    /// Take files again.
    Resume {
        /// Its name.
        name: String,
    },
    /// Compare the folder with what is known of it now.
    Scan {
        /// Its name.
        name: String,
        /// Process again what is known and unchanged.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Say that the files which are gone, and which `delete_brake` holds back, were deleted indeed.
    Confirm {
        /// Its name.
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// List what would be taken, what waits, and what is left out by which rule, without taking anything.
    Test {
        /// Its name.
        name: String,
        /// At most this many entries; 0: all.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: u64,
        #[command(flatten)]
        format: Format,
    },
}

#[cfg(test)]
impl Watch {
    pub fn definition(&self) -> Option<&NewWatch> {
        match &self.verb {
            Verb::Add(definition) => Some(definition),
            _ => None,
        }
    }
}

/// A watch, as `status` and `watch` tell it.
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
    }
}

pub async fn run(args: Watch, context: &mut Context) -> Done {
    match args.verb {
        Verb::Add(definition) => add(&definition, context).await,
        Verb::List { format } => list(format, context).await,
        Verb::Show { name, format } => show(&name, format, context).await,
        Verb::Remove { name } => steer("removed", &name, Request::WatchRemove { name: name.clone() }, context).await,
        Verb::Pause { name } => steer("paused", &name, Request::WatchPause { name: name.clone() }, context).await,
        Verb::Resume { name } => steer("resumed", &name, Request::WatchResume { name: name.clone() }, context).await,
        Verb::Scan { name, force, format } => scan(name, force, format, context).await,
        Verb::Confirm { name, format } => confirm(name, format, context).await,
        Verb::Test { name, limit, format } => watch_test::run(&name, limit, format, context).await,
    }
}

async fn add(definition: &NewWatch, context: &mut Context) -> Done {
    let pipelines: Vec<&String> = context.config()?.pipelines.keys().collect();
    let pipeline = match (&definition.pipeline, pipelines.as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [only]) => (*only).clone(),
        (None, _) => return Err(Failure::usage("say which pipeline its files go through with --pipeline")),
    };
    let name = definition.name.clone();
    let request = Request::WatchAdd { name: name.clone(), definition: definition.object(pipeline)? };
    let code = steer("added", &name, request, context).await?;
    if !definition.path.is_dir() {
        note(&format!("{} is not there yet; it is picked up when it appears", definition.path.display()));
    }
    Ok(code)
}

async fn steer(verb: &str, name: &str, request: Request, context: &mut Context) -> Done {
    let _: Value = context.ask(request).await?;
    if !context.global.quiet {
        writeln!(context.screen, "{verb} watch {name}")?;
    }
    Ok(0)
}

/// What the daemon alone knows; `None` where none runs.
pub async fn live(context: &Context) -> Result<Option<LiveStatus>, Failure> {
    match context.daemon().await? {
        Some(mut client) => Ok(Some(serde_json::from_value(client.call(&Request::Status).await?)?)),
        None => Ok(None),
    }
}

async fn list(format: Format, context: &mut Context) -> Done {
    let live = live(context).await?;
    let stores = context.read_if_there().await?;
    let all = known(context.config()?, stores.as_ref(), live.as_ref()).await?;
    let views: Vec<&WatchView> = all.values().map(|known| &known.view).collect();
    if format.json {
        views.iter().try_for_each(|view| context.screen.json(view))?;
    } else if views.is_empty() {
        writeln!(context.screen, "no watches; `ingestd watch add NAME PATH` makes one")?;
    } else {
        table(views).write(&mut context.screen)?;
    }
    Ok(0)
}

/// Watches as a table.
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

/// The watch of this name.
pub async fn one(name: &str, context: &Context) -> Result<Known, Failure> {
    let live = live(context).await?;
    let stores = context.read_if_there().await?;
    let mut all = known(context.config()?, stores.as_ref(), live.as_ref()).await?;
    all.remove(name).ok_or_else(|| Failure::not_found(format!("no watch `{name}`; see `ingestd watch list`")))
}

async fn show(name: &str, format: Format, context: &mut Context) -> Done {
    let known = one(name, context).await?;
    let keys = known.watch.as_ref().map(view::watch).unwrap_or_default();
    if format.json {
        let mut value = serde_json::to_value(&known.view)?;
        value["definition"] = keys;
        context.screen.json(&value)?;
        return Ok(0);
    }
    table([&known.view]).write(&mut context.screen)?;
    if let Some(at) = known.view.last_scan_at {
        writeln!(context.screen, "last scan {}", time::relative(at, context.screen.now))?;
    }
    if let Some(warning) = &known.view.warning {
        writeln!(context.screen, "{}", context.screen.paint(&clean(warning), Style::Yellow))?;
    }
    writeln!(context.screen)?;
    for (key, value) in keys.as_object().into_iter().flatten() {
        writeln!(context.screen, "{key} = {value}")?;
    }
    Ok(0)
}

async fn scan(name: String, force: bool, format: Format, context: &mut Context) -> Done {
    let scanned: Scanned = context.ask(Request::WatchScan { name: name.clone(), force }).await?;
    if format.json {
        context.screen.json(&scanned)?;
    } else if !context.global.quiet {
        let files = plural(scanned.files, "file", "files");
        writeln!(context.screen, "scanned {name}: {files}, {}", plural(scanned.enqueued, "new job", "new jobs"))?;
    }
    Ok(0)
}

async fn confirm(name: String, format: Format, context: &mut Context) -> Done {
    let confirmed: Confirmed = context.ask(Request::WatchConfirm { name: name.clone() }).await?;
    if format.json {
        context.screen.json(&confirmed)?;
    } else if confirmed.files == 0 {
        writeln!(context.screen, "nothing of {name} is held back")?;
    } else if !context.global.quiet {
        writeln!(context.screen, "{} of {name} count as deleted", plural(confirmed.files, "file", "files"))?;
    }
    Ok(0)
}
