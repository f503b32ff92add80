//! `add`: files that a person names become jobs.
//!
//! Each path is looked at once. What can't be a job (a folder, a socket, the database itself) is refused alone;
//! the rest is enqueued in one call. Only where the store knows the file with another identity is its content
//! read, and the call repeated with the digest.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::execute::unknown_pipeline;
use super::hands::{Hands, Refusal};
use super::request::{Add, Added, AddedAs, WirePath};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::job::{Digest, DigestAlgorithm, FileIdentity, SourceKey};
use crate::store::{Enqueued, NewJob};

/// How often a file may change under our reading before it is called busy.
const READ_ATTEMPTS: usize = 3;

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
    let database = hands.stores.upkeep.path();
    let paths: Vec<PathBuf> = add.paths.iter().map(|path| path.0.clone()).collect();
    let looks = blocking(move || paths.iter().map(|path| look(path, &database)).collect::<Vec<_>>()).await?;

    let mut results: Vec<Option<AddedAs>> = Vec::with_capacity(looks.len());
    let mut jobs = Vec::new();
    let mut places = Vec::new();
    for (place, (path, look)) in add.paths.iter().zip(looks).enumerate() {
        match look {
            Ok(identity) => {
                results.push(None);
                places.push(place);
                jobs.push(new_job(&add, path, &pipeline, identity));
            }
            Err(message) => results.push(Some(AddedAs::Refused { message })),
        }
    }
    let enqueued = enqueue(jobs, config.queue.digest, hands).await?;
    for (place, became) in places.into_iter().zip(enqueued) {
        results[place] = Some(became);
    }
    let nothing = || AddedAs::Refused { message: "the store gave no answer for it".to_owned() };
    let pairs = add.paths.into_iter().zip(results);
    Ok(pairs.map(|(path, became)| Added { path, became: became.unwrap_or_else(nothing) }).collect())
}

/// The pipeline that is meant; it may go unnamed when there is one.
fn the_pipeline(name: Option<&str>, config: &Config) -> Result<String, Refusal> {
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

fn new_job(add: &Add, path: &WirePath, pipeline: &str, identity: FileIdentity) -> NewJob {
    let path = path.0.clone();
    NewJob {
        source: match &add.key {
            Some(key) => SourceKey::Keyed { key: key.clone(), path },
            None => SourceKey::Path(path),
        },
        pipeline: pipeline.to_owned(),
        priority: add.priority,
        run_at: add.run_at_ms.map(Timestamp::from_millis),
        identity,
        digest: None,
        metadata: add.metadata.clone(),
        force: add.force,
        note_only: false,
    }
}

/// Enqueues; where the store wants a digest, takes it and asks again.
async fn enqueue(jobs: Vec<NewJob>, algorithm: DigestAlgorithm, hands: &Hands) -> Result<Vec<AddedAs>, Refusal> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let first = hands.stores.queue.enqueue(jobs.clone()).await?;
    let mut results: Vec<Result<Enqueued, String>> = first.into_iter().map(Ok).collect();
    let mut again = Vec::new();
    let mut places = Vec::new();
    for (place, mut job) in jobs.into_iter().enumerate() {
        if !matches!(results.get(place), Some(Ok(Enqueued::NeedsDigest))) {
            continue;
        }
        let path = match &job.source {
            SourceKey::Path(path) | SourceKey::Keyed { path, .. } | SourceKey::Watched { relative: path, .. } => {
                path.clone()
            }
        };
        match blocking(move || digest(&path, algorithm)).await? {
            Ok((identity, digest)) => {
                (job.identity, job.digest) = (identity, Some(digest));
                again.push(job);
                places.push(place);
            }
            Err(error) => results[place] = Err(format!("its content can't be read: {error}")),
        }
    }
    if !again.is_empty() {
        for (place, enqueued) in places.into_iter().zip(hands.stores.queue.enqueue(again).await?) {
            results[place] = Ok(enqueued);
        }
    }
    Ok(results.into_iter().map(became).collect())
}

fn became(result: Result<Enqueued, String>) -> AddedAs {
    match result {
        Ok(Enqueued::New { id, version }) => AddedAs::New { id, version },
        Ok(Enqueued::Known { id, state }) => AddedAs::Known { id, state },
        Ok(Enqueued::Unchanged) => AddedAs::Unchanged,
        Ok(Enqueued::NeedsDigest) => AddedAs::Refused { message: "it changes while it is read; try again".to_owned() },
        Err(message) => AddedAs::Refused { message },
    }
}

/// What the filesystem says about a path, or why it can't be a job.
fn look(path: &Path, database: &Path) -> Result<FileIdentity, String> {
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "it may not be looked at by the user who runs ingestd; grant the folder's search permission".to_owned()
        }
        _ => error.to_string(),
    })?;
    let kind = meta.file_type();
    if kind.is_dir() {
        return Err(
            "it is a folder; make it a watch, or add its files: find DIR -type f -print0 | ingestd add -0 -".to_owned()
        );
    }
    if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
        return Err("it is not a regular file".to_owned());
    }
    if is_database(&meta, database) {
        return Err("it is the queue's own database".to_owned());
    }
    Ok(FileIdentity::of(&meta))
}

/// Whether the file is one of the database's, under whatever name: opening and closing it in the daemon's process
/// would drop SQLite's locks.
fn is_database(meta: &Metadata, database: &Path) -> bool {
    ["", "-wal", "-shm", "-journal"].iter().any(|suffix| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).is_ok_and(|own| own.dev() == meta.dev() && own.ino() == meta.ino())
    })
}

/// The digest of a file's content and the identity that the file had all the while.
fn digest(path: &Path, algorithm: DigestAlgorithm) -> io::Result<(FileIdentity, Digest)> {
    for _ in 0..READ_ATTEMPTS {
        // Without blocking: the name may be a pipe by now.
        let nonblocking = libc::O_NONBLOCK;
        let mut file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        let before = FileIdentity::of(&file.metadata()?);
        let bytes = match algorithm {
            DigestAlgorithm::Blake3 => read_into(&mut file, blake3::Hasher::new(), |hash, chunk| {
                hash.update(chunk);
            })
            .map(|hash| *hash.finalize().as_bytes())?,
            DigestAlgorithm::Sha256 => {
                read_into(&mut file, sha2::Sha256::new(), |hash, chunk| hash.update(chunk))?.finalize().into()
            }
        };
        if FileIdentity::of(&file.metadata()?) == before {
            return Ok((before, Digest { algorithm, bytes }));
        }
    }
    Err(io::Error::other("it changes while it is read"))
}

fn read_into<H>(file: &mut File, mut hash: H, update: impl Fn(&mut H, &[u8])) -> io::Result<H> {
    let mut chunk = vec![0; 128 << 10];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hash),
            Ok(n) => update(&mut hash, &chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Runs a closure that may wait for a disk where it blocks no one.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refusal::failed(format!("reading the files was cut short: {error}")))
}
