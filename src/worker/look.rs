//! What a look at a job's file says, where there is nothing to process.

use std::path::Path;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::intake::open_regular;
use crate::job::{ErrorKind, FileIdentity, JobError, Outcome, SkipReason, SourceKey};
use crate::os::{self, Writers};
use crate::store::Work;

/// Whether the file is still the one with this identity.
pub(super) fn unchanged(path: &Path, identity: &FileIdentity) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| FileIdentity::of(&meta) == *identity)
}

/// How long a watched file that changed since its watch took it has to be left alone: somebody writes it, or it has
/// not been quiet for `settle`. `None`: it is whole.
pub(super) fn unsettled(path: &Path, identity: &FileIdentity, settle: Duration, now: Timestamp) -> Option<Duration> {
    const AGAIN: Duration = Duration::from_secs(1);
    let file = open_regular(path).ok()?;
    let found = FileIdentity::of(&file.metadata().ok()?);
    if found.same_but_for_ctime(identity) {
        return None;
    }
    if os::writers(&file) == Writers::Some {
        return Some(AGAIN.max(settle));
    }
    let age_ms = now.as_millis().saturating_sub(found.mtime_ns / 1_000_000);
    // A time in the future says nothing.
    let age = Duration::from_millis(u64::try_from(age_ms).ok()?);
    settle.checked_sub(age).filter(|left| !left.is_zero())
}

/// Whether the root of the file's watch is missing.
fn root_is_away(work: &Work) -> bool {
    let SourceKey::Watched { relative, .. } = &work.source else { return false };
    work.path.ancestors().nth(relative.components().count()).is_some_and(|root| !root.is_dir())
}

/// Whether every execution before this one was a deferral.
const fn only_deferred(work: &Work) -> bool {
    work.spent.attempts == 0 && work.execution == work.spent.deferrals + 1
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
        // Whatever was deferred until now did no work on it.
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory if only_deferred(work) => {
            Outcome::Moot(SkipReason::Vanished)
        }
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            Outcome::Failed(JobError::permanent(ErrorKind::Vanished, message))
        }
        std::io::ErrorKind::ResourceBusy => being_written(message, Duration::from_secs(1)),
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => {
            Outcome::Failed(JobError::permanent(ErrorKind::NotAFile, message))
        }
        _ => Outcome::Failed(JobError::transient(ErrorKind::Unreadable, message)),
    }
}

/// It will be whole soon, and no attempt has begun.
pub(super) fn being_written(message: String, after: Duration) -> Outcome {
    Outcome::Deferred { after: Some(after), error: JobError::transient(ErrorKind::Unreadable, message) }
}
