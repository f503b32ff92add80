//! `ingestd kv`

use std::io::Write;

use clap::{Args, Subcommand};

use super::Format;
use super::context::Context;
use super::failure::{Done, Failure};
use super::table::{Column, Table};
use super::time;
use crate::control::Request;

/// See [`Verb`].
#[derive(Args, Debug)]
pub struct Kv {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a value.
    Get {
        /// Its name.
        key: String,
        #[command(flatten)]
        format: Format,
    },
    /// Set a value.
    Set {
        /// Its name.
        key: String,
        /// The value.
        value: String,
    },
    /// List the entries.
    List {
        /// Only keys that begin with this.
        #[arg(value_name = "PREFIX", default_value = "")]
        prefix: String,
        #[command(flatten)]
        format: Format,
    },
    /// Remove a value.
    Delete {
        /// Its name.
        key: String,
    },
}

pub async fn run(args: Kv, context: &mut Context) -> Done {
    match args.verb {
        Verb::Get { key, format } => {
            let value = context.read().await?.settings.kv_get(&key).await?;
            let value = value.ok_or_else(|| {
                Failure::not_found(format!("no key `{key}`; `ingestd kv list` shows those that are there"))
            })?;
            if format.json {
                context.screen.json(&serde_json::json!({ "key": key, "value": value }))?;
            } else {
                context.screen.foreign(value.as_bytes())?;
                writeln!(context.screen)?;
            }
        }
        Verb::Set { key, value } => context.ask(Request::KvSet { key, value }).await?,
        Verb::Delete { key } => context.ask(Request::KvDelete { key }).await?,
        Verb::List { prefix, format } => list(&prefix, format, context).await?,
    }
    Ok(0)
}

async fn list(prefix: &str, format: Format, context: &mut Context) -> Result<(), Failure> {
    let entries = context.read().await?.settings.kv_list(prefix).await?;
    if format.json {
        return entries.iter().try_for_each(|entry| context.screen.json(entry));
    }
    let mut table = Table::new([Column::Left("KEY"), Column::Left("SET"), Column::End("VALUE")]);
    for entry in &entries {
        let set = time::relative(entry.updated_at, context.screen.now);
        table.row([entry.key.as_str().into(), set.into(), entry.value.as_str().into()]);
    }
    if !table.is_empty() {
        table.write(&mut context.screen)?;
    }
    Ok(())
}
