//! `add`: files that a person names become jobs.
//!
//! The pipeline is settled here, and the database's own files are refused by device and inode before anything
//! opens them: opening and closing one in the daemon's process would drop SQLite's locks. The rest is intake's.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::execute::unknown_pipeline;
use super::hands::{Hands, Refusal};
use super::request::{Add, Added, AddedAs};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::intake::{self, AddRequest};
use crate::job::StateName;
use crate::job::WirePath;
use crate::store::Enqueued;

pub(super) async fn add(add: Add, hands: &Hands) -> Result<Vec<Added>, Refusal> {
    let config = hands.config();
    let pipeline = the_pipeline(add.pipeline.as_deref(), &config)?;
    if let Some(text) = &add.metadata {
        serde_json::from_str::<serde::de::IgnoredAny>(text)
            .map_err(|error| Refusal::usage(format!("the metadata is not JSON: {error}")))?;
    }
    if add.key.is_some() && add.paths.len() != 1 {
        return Err(Refusal::usage("an idempotency key names one file: give one path with it"));
    }
    let paths: Vec<PathBuf> = add.paths.into_iter().map(|path| path.0).collect();
    if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
        return Err(Refusal::usage(format!("`{}` is not an absolute path", path.display())));
    }
    let own = own_files(&hands.stores.upkeep.path());
    let (refused, paths) = paths.into_iter().partition(|path: &PathBuf| is_one_of(path, &own));
    let request = AddRequest {
        paths,
        cwd: PathBuf::from("/"),
        pipeline,
        priority: add.priority,
        run_at: add.run_at_ms.map(Timestamp::from_millis),
        key: add.key,
        metadata: add.metadata,
        force: add.force,
    };
    let refused: Vec<PathBuf> = refused;
    let database = refused.into_iter().map(|path| Added {
        path: WirePath(path),
        became: AddedAs::Refused { message: "it belongs to the queue's own database".to_owned() },
    });
    let added = intake::add(hands.stores.queue.as_ref(), config.queue.digest, request).await?;
    Ok(added.into_iter().map(told).chain(database).collect())
}

/// The pipeline that is meant; it may go unnamed when there is one.
pub(super) fn the_pipeline(name: Option<&str>, config: &Config) -> Result<String, Refusal> {
    let mut names = config.pipelines.keys();
    match (name, names.next(), names.next()) {
        (Some(name), _, _) if config.pipelines.contains_key(name) => Ok(name.to_owned()),
        (Some(name), _, _) => Err(unknown_pipeline(name, config.pipelines.keys())),
        (None, Some(only), None) => Ok(only.clone()),
        (None, None, _) => {
            Err(Refusal::usage("the configuration defines no pipeline; add a [pipeline.NAME] section to it"))
        }
        (None, Some(_), Some(_)) => {
            let all: Vec<&str> = config.pipelines.keys().map(String::as_str).collect();
            Err(Refusal::usage(format!("say which pipeline with --pipeline; there are: {}", all.join(", "))))
        }
    }
}

fn told(added: intake::Added) -> Added {
    let became = match added.result {
        Ok(Enqueued::New { id, version }) => AddedAs::New { id, version },
        Ok(Enqueued::Known { id, state: StateName::Completed }) => AddedAs::Skipped { id: Some(id) },
        Ok(Enqueued::Known { id, state }) => AddedAs::Known { id, state },
        Ok(Enqueued::Unchanged) => AddedAs::Skipped { id: None },
        Ok(Enqueued::Full) => AddedAs::Full,
        Ok(Enqueued::NeedsDigest) => AddedAs::Refused { message: "it changes while it is read; try again".to_owned() },
        Err(error) => AddedAs::Refused { message: error.to_string() },
    };
    Added { path: WirePath(added.path), became }
}

/// The database's files, by device and inode.
pub(super) fn own_files(database: &Path) -> BTreeSet<(u64, u64)> {
    let with = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        identity(Path::new(&name))
    };
    ["", "-wal", "-shm", "-journal"].into_iter().filter_map(with).collect()
}

fn is_one_of(path: &Path, own: &BTreeSet<(u64, u64)>) -> bool {
    identity(path).is_some_and(|identity| own.contains(&identity))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}
