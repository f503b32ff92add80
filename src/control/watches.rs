//! The watches that are made by command.
//!
//! Names are unique over file and database, and the file wins: what it defines is changed there. A change is
//! written first and then told to the running daemon, which reads all of them again.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::execute::answer;
use super::hands::{Hands, Refusal};
use crate::config::Config;

pub(super) async fn add(name: &str, definition: &Value, hands: &Hands) -> Result<Value, Refusal> {
    let config = hands.config();
    if config.watches.contains_key(name) {
        return Err(Refusal::failed(format!(
            "the configuration file already has a watch `{name}`; change it there, or choose another name"
        )));
    }
    let rows = hands.stores.settings.watches().await?;
    if rows.iter().any(|row| row.name == name && row.definition.is_some()) {
        return Err(Refusal::failed(format!(
            "there is a watch `{name}` already; `ingestd watch remove {name}` forgets it and keeps what is known of its files"
        )));
    }
    let others = rows.iter().filter_map(|row| Some((row.name.as_str(), row.definition.as_deref()?)));
    let root = validate(name, definition, others, &config)?;
    hands.stores.settings.put_watch(name, root, Some(definition.to_string())).await?;
    told(hands).await?;
    Ok(json!({ "name": name }))
}

pub(super) async fn remove(name: &str, hands: &Hands) -> Result<Value, Refusal> {
    if hands.config().watches.contains_key(name) {
        return Err(Refusal::failed(format!(
            "the watch `{name}` stands in the configuration file; remove it there and reload"
        )));
    }
    let rows = hands.stores.settings.watches().await?;
    let made = rows.iter().any(|row| row.name == name && row.definition.is_some());
    if !made || !hands.stores.settings.remove_watch(name).await? {
        return Err(unknown(name));
    }
    told(hands).await?;
    Ok(json!({ "name": name }))
}

pub(super) async fn pause(name: &str, paused: bool, hands: &Hands) -> Result<Value, Refusal> {
    let rows = hands.stores.settings.watches().await?;
    let row = rows.iter().find(|row| row.name == name);
    match (hands.config().watches.get(name), row) {
        // A watch of the file that no daemon has run yet is not known to the database.
        (Some(watch), None) => hands.stores.settings.put_watch(name, watch.path.clone(), None).await?,
        (Some(_), Some(_)) => {}
        (None, Some(row)) if row.definition.is_some() => {}
        (None, _) => return Err(unknown(name)),
    }
    if !hands.stores.settings.pause_watch(name, paused).await? {
        return Err(unknown(name));
    }
    told(hands).await?;
    Ok(json!({ "name": name, "paused": paused }))
}

pub(super) async fn scan(name: &str, force: bool, hands: &Hands) -> Result<Value, Refusal> {
    let rows = hands.stores.settings.watches().await?;
    let made = rows.iter().any(|row| row.name == name && row.definition.is_some());
    if !made && !hands.config().watches.contains_key(name) {
        return Err(unknown(name));
    }
    match &hands.live {
        Some(live) => answer(&live.scan(name, force).await?),
        None => Err(Refusal::failed(
            "no daemon runs on this database, and a scan is its work; its start (`ingestd run`) scans every watch",
        )),
    }
}

async fn told(hands: &Hands) -> Result<(), Refusal> {
    match &hands.live {
        Some(live) => live.reload_watches().await,
        None => Ok(()),
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal::not_found(format!("no watch `{name}`; `ingestd watch list` shows those that are there"))
}

/// Reads a definition as the configuration reads a `[watch]` section, and checks it against the other watches.
/// Answers its root.
///
/// CONNECT: `config::watch_from_json(name, definition)`, then `config::check_watches` over the file's watches,
/// `others` and this one. What stands here is the least that keeps the database sane.
fn validate<'a>(
    name: &str,
    definition: &Value,
    _others: impl Iterator<Item = (&'a str, &'a str)>,
    config: &Config,
) -> Result<PathBuf, Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Refusal::usage(format!(
            "`{name}` can't name a watch: letters, digits, `-`, `_` and `.` are allowed, 64 at most"
        )));
    }
    let root = definition.get("path").and_then(Value::as_str).map(PathBuf::from).unwrap_or_default();
    if !root.is_absolute() {
        return Err(Refusal::usage(format!("watch `{name}`: `path` has to be an absolute path")));
    }
    let pipeline = definition.get("pipeline").and_then(Value::as_str).unwrap_or_default();
    if !config.pipelines.contains_key(pipeline) {
        return Err(super::execute::unknown_pipeline(pipeline, config.pipelines.keys()));
    }
    Ok(root)
}
