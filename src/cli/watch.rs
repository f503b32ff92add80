//! `ingestd watch`

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::plural;
use super::watch_definition::NewWatch;
use super::watch_view::{Known, WatchView, known, table};
use super::{Format, note, watch_show, watch_test};
use crate::control::{Confirmed, LiveStatus, Request, Scanned};

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
        /// Process again what is known and unchanged; after a pause or a full queue, the rest follows by itself.
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

pub async fn run(args: Watch, context: &mut Context) -> Done {
    match args.verb {
        Verb::Add(definition) => add(&definition, context).await,
        Verb::List { format } => list(format, context).await,
        Verb::Show { name, format } => watch_show::run(&name, format, context).await,
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

/// The watch of this name.
pub async fn one(name: &str, context: &Context) -> Result<Known, Failure> {
    let live = live(context).await?;
    let stores = context.read_if_there().await?;
    let mut all = known(context.config()?, stores.as_ref(), live.as_ref()).await?;
    all.remove(name).ok_or_else(|| Failure::not_found(format!("no watch `{name}`; see `ingestd watch list`")))
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
