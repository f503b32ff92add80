//! What a look at a job's file says, where there is nothing to process.

use std::path::Path;
use std::time::Duration;

use crate::job::{ErrorKind, FileIdentity, JobError, Outcome, SkipReason, SourceKey};
use crate::store::Work;

/// Whether the file is still the one with this identity.
pub(super) fn unchanged(path: &Path, identity: &FileIdentity) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| FileIdentity::of(&meta) == *identity)
}

/// Whether the root of the file's watch is missing.
fn root_is_away(work: &Work) -> bool {
    let SourceKey::Watched { relative, .. } = &work.source else { return false };
    work.path.ancestors().nth(relative.components().count()).is_some_and(|root| !root.is_dir())
}

/// What it means for a job that its file can't be read.
pub(super) fn unreadable(work: &Work, error: &std::io::Error) -> Outcome {
    let message = format!("{}: {error}", work.path.display());
    match error.kind() {
        // A whole folder that is away, unmounted or renamed, says nothing about its files.
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory if root_is_away(work) => Outcome::Deferred {
            after: None,
            error: JobError::transient(ErrorKind::Vanished, format!("{message}; the watch's folder is not there")),
        },
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory if work.execution == 1 => {
            Outcome::Moot(SkipReason::Vanished)
        }
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            Outcome::Failed(JobError::permanent(ErrorKind::Vanished, message))
        }
        // It is being written: it will be whole soon, and no attempt has begun.
        std::io::ErrorKind::ResourceBusy => Outcome::Deferred {
            after: Some(Duration::from_secs(1)),
            error: JobError::transient(ErrorKind::Unreadable, message),
        },
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => {
            Outcome::Failed(JobError::permanent(ErrorKind::NotAFile, message))
        }
        _ => Outcome::Failed(JobError::transient(ErrorKind::Unreadable, message)),
    }
}
