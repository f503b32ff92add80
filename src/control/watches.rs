//! The watches that are made by command.
//!
//! Names are unique over file and database, and the file wins: what it defines is changed there. A change is
//! written first and then told to the running daemon, which reads all of them again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::execute::answer;
use super::hands::{Hands, Refusal};
use crate::config::{self, Config, Report};
use crate::job::WirePath;

pub(super) async fn add(name: &str, mut definition: Value, hands: &Hands) -> Result<Value, Refusal> {
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
    let adopt = take_existing(name, &mut definition)?;
    let root = validate(name, &definition, others, &config)?;
    // First the note, then the watch: a daemon that starts in between must not process what is to be skipped.
    if adopt {
        let now = hands.clock.now().as_millis().to_string();
        hands.stores.settings.kv_set(&adopt_key(name), &now).await?;
    } else {
        hands.stores.settings.kv_delete(&adopt_key(name)).await?;
    }
    hands.stores.settings.put_watch(name, root, Some(definition.to_string())).await?;
    told(hands).await?;
    if let Some(live) = hands.live.as_ref().filter(|_| adopt) {
        // What arrives after this command is new, so the first scan has to be over when it answers. A folder that
        // is not there yet is scanned when it appears.
        let _ = live.scan(name, false).await;
    }
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

pub(super) async fn confirm(name: &str, hands: &Hands) -> Result<Value, Refusal> {
    exists(name, hands).await?;
    match &hands.live {
        Some(live) => answer(&live.confirm(name).await?),
        None => Err(Refusal::failed("no daemon runs on this database, so nothing is held back; its start looks anew")),
    }
}

pub(super) async fn files(name: &str, names: Vec<WirePath>, hands: &Hands) -> Result<Value, Refusal> {
    exists(name, hands).await?;
    match &hands.live {
        Some(live) => answer(&live.files(name, names.into_iter().map(|name| name.0).collect()).await?),
        None => Err(Refusal::failed("no daemon runs on this database, so nothing is known of files but what it holds")),
    }
}

async fn exists(name: &str, hands: &Hands) -> Result<(), Refusal> {
    let rows = hands.stores.settings.watches().await?;
    let made = rows.iter().any(|row| row.name == name && row.definition.is_some());
    if made || hands.config().watches.contains_key(name) { Ok(()) } else { Err(unknown(name)) }
}

pub(super) async fn scan(name: &str, force: bool, hands: &Hands) -> Result<Value, Refusal> {
    exists(name, hands).await?;
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

/// The entry that says that a watch was added with `--existing skip` and has not been scanned yet. It is beside the
/// definition, because it is over with the first scan. Its value is when it was said, in milliseconds since the epoch:
/// what is there before that is skipped.
pub fn adopt_key(watch: &str) -> String {
    format!("ingestd.watch.{watch}.adopt")
}

/// Takes `existing` out of a definition: whether the files that the first scan finds are noted and not processed.
fn take_existing(name: &str, definition: &mut Value) -> Result<bool, Refusal> {
    let existing = definition.as_object_mut().and_then(|keys| keys.remove("existing"));
    match existing.as_ref().map(|existing| existing.as_str().unwrap_or_default()) {
        Some("skip") => Ok(true),
        Some("process") | None => Ok(false),
        Some(_) => Err(Refusal::usage(format!("watch `{name}`: `existing` is neither process nor skip"))),
    }
}

/// Checks a definition by itself and against the other watches; answers its root.
fn validate<'a>(
    name: &str,
    definition: &Value,
    others: impl Iterator<Item = (&'a str, &'a str)>,
    config: &Config,
) -> Result<PathBuf, Refusal> {
    let wrong = |report: Report| Refusal::usage(report.to_string());
    let watch = config::watch_from_json(name, definition).map_err(wrong)?;
    let root = watch.path.clone();
    let mut all = config.watches.clone();
    for (other, text) in others {
        // A row that can't be read is its own trouble, and `status` tells of it.
        let read = serde_json::from_str(text).ok().and_then(|value| config::watch_from_json(other, &value).ok());
        all.extend(read.map(|watch| (other.to_owned(), watch)));
    }
    let state = config.state_directory();
    let before = config::check_watches(&all, &config.pipelines, &state);
    let denied = config::check_access(&BTreeMap::from([(name.to_owned(), watch.clone())]));
    all.insert(name.to_owned(), watch);
    let mut problems = config::check_watches(&all, &config.pipelines, &state);
    // Only what this watch brings is its fault.
    problems.retain(|problem| !before.contains(problem));
    problems.extend(denied);
    if problems.is_empty() { Ok(root) } else { Err(wrong(Report { problems })) }
}
