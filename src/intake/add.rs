//! Paths that a person names: `ingestd add`.
//!
//! Each path is checked by itself, and one that can't be added does not keep the others back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{digest_file, open_regular};
use crate::clock::Timestamp;
use crate::job::{DigestAlgorithm, FileIdentity, Priority, SourceKey};
use crate::store::{Enqueued, NewJob, Queue, StoreError};

/// How many paths go into one call.
const BATCH: usize = 1_000;

/// What to add, and how.
#[derive(Clone, Debug)]
pub struct AddRequest {
    /// The files, as they were named.
    pub paths: Vec<PathBuf>,
    /// The absolute folder that relative paths are meant from.
    pub cwd: PathBuf,
    /// The pipeline that shall process them.
    pub pipeline: String,
    /// How soon.
    pub priority: Priority,
    /// Not before.
    pub run_at: Option<Timestamp>,
    /// An identity of the caller's own; makes sense with one path.
    pub key: Option<String>,
    /// A JSON document for the processor.
    pub metadata: Option<String>,
    /// Process again what is known.
    pub force: bool,
}

/// What became of one path.
#[derive(Clone, Debug)]
pub struct Added {
    /// The file, absolute.
    pub path: PathBuf,
    /// The job, or why there is none.
    pub result: Result<Enqueued, AddError>,
}

/// Why a path could not be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Nothing there.
    #[error("no such file")]
    Missing,
    /// A folder, a link to nothing we can read, a FIFO, a device.
    #[error("it is not a regular file; for a folder use `ingestd watch add`, or name its files")]
    NotAFile,
    /// It may not be read by us.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// It changed each time it was read.
    #[error("it changed while it was read; add it again when it is complete")]
    Changing,
}

/// Adds files to the queue; the answers are in the order of the paths. Digests are taken where they are needed.
pub async fn add(queue: &dyn Queue, algorithm: DigestAlgorithm, request: AddRequest) -> Result<Vec<Added>, StoreError> {
    let mut added = Vec::with_capacity(request.paths.len());
    for paths in request.paths.chunks(BATCH) {
        let checked = check_all(&request, paths).await;
        let (mut places, mut jobs) = (Vec::new(), Vec::new());
        for (path, result) in checked {
            let result = result.map(|job| {
                places.push(added.len());
                jobs.push(job);
                Enqueued::NeedsDigest
            });
            added.push(Added { path, result });
        }
        let answers = queue.offer(jobs.clone()).await?;
        for ((place, job), answer) in places.into_iter().zip(jobs).zip(answers) {
            let Some(slot) = added.get_mut(place) else { continue };
            slot.result = match answer {
                Enqueued::NeedsDigest => with_digest(queue, algorithm, &slot.path, job).await?,
                answer => Ok(answer),
            };
        }
    }
    Ok(added)
}

async fn check_all(request: &AddRequest, paths: &[PathBuf]) -> Vec<(PathBuf, Result<NewJob, AddError>)> {
    let (request, paths) = (request.clone(), paths.to_vec());
    let check = move || {
        let absolute = paths.into_iter().map(|path| absolute(&request.cwd, &path));
        absolute.map(|path| (path.clone(), check(&request, path))).collect()
    };
    tokio::task::spawn_blocking(check).await.unwrap_or_default()
}

fn check(request: &AddRequest, path: PathBuf) -> Result<NewJob, AddError> {
    let file = open_regular(&path).map_err(|error| explain(&error))?;
    let meta = file.metadata().map_err(|error| explain(&error))?;
    let source = match &request.key {
        Some(key) => SourceKey::Keyed { key: key.clone(), path },
        None => SourceKey::Path(path),
    };
    Ok(NewJob {
        source,
        pipeline: request.pipeline.clone(),
        priority: request.priority,
        run_at: request.run_at,
        identity: FileIdentity::of(&meta),
        digest: None,
        metadata: request.metadata.clone(),
        force: request.force,
        note_only: false,
        renamed: None,
        listed: None,
    })
}

async fn with_digest(
    queue: &dyn Queue,
    algorithm: DigestAlgorithm,
    path: &Path,
    job: NewJob,
) -> Result<Result<Enqueued, AddError>, StoreError> {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || digest_file(&file, algorithm));
    let content = match read.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(content) => content,
        Err(error) => return Ok(Err(explain(&error))),
    };
    let job = NewJob { identity: content.identity, digest: Some(content.digest), ..job };
    let answer = queue.offer(vec![job]).await?.into_iter().next();
    Ok(answer.filter(|answer| *answer != Enqueued::NeedsDigest).ok_or(AddError::Changing))
}

/// What an error of the machine means for a file that somebody named.
pub(super) fn explain(error: &io::Error) -> AddError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => AddError::Missing,
        io::ErrorKind::InvalidInput => AddError::NotAFile,
        io::ErrorKind::ResourceBusy => AddError::Changing,
        _ => AddError::Unreadable(error.to_string()),
    }
}

/// The path made absolute by its words alone. Only where its last part is a link is the disk asked: it is the file
/// behind it that is meant.
pub(super) fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    let absolute = by_words(cwd, path);
    match fs::symlink_metadata(&absolute) {
        Ok(meta) if meta.is_symlink() => fs::canonicalize(&absolute).unwrap_or(absolute),
        _ => absolute,
    }
}

/// The path made absolute by its words alone, whatever is there.
pub(super) fn by_words(cwd: &Path, path: &Path) -> PathBuf {
    let mut absolute = PathBuf::new();
    for component in cwd.join(path).components() {
        match component {
            std::path::Component::CurDir => (),
            std::path::Component::ParentDir => {
                absolute.pop();
            }
            other => absolute.push(other),
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn request(cwd: &Path, paths: &[&str]) -> AddRequest {
        AddRequest {
            paths: paths.iter().map(PathBuf::from).collect(),
            cwd: cwd.to_owned(),
            pipeline: "p".to_owned(),
            priority: Priority::Normal,
            run_at: None,
            key: None,
            metadata: None,
            force: false,
        }
    }

    #[test]
    fn paths_become_absolute_by_their_words_and_a_link_by_what_it_means() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::write(root.join("file"), "x").unwrap();
        symlink("file", root.join("link")).unwrap();
        assert_eq!(absolute(&root, Path::new("./x/../file")), root.join("file"));
        assert_eq!(absolute(&root, Path::new("link")), root.join("file"));
        assert_eq!(absolute(&root, Path::new("/a/./b")), Path::new("/a/b"));
    }

    #[tokio::test]
    async fn each_path_is_judged_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::write(root.join("file"), "x").unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        let request = request(&root, &["file", "missing", "folder"]);
        let checked = check_all(&request, &request.paths).await;
        let verdicts: Vec<_> = checked.into_iter().map(|(_, job)| job.map(|job| job.source)).collect();
        assert_eq!(verdicts[0], Ok(SourceKey::Path(root.join("file"))));
        assert_eq!(verdicts[1], Err(AddError::Missing));
        assert_eq!(verdicts[2], Err(AddError::NotAFile));
    }
}
