//! What a look at a job's file says, where there is nothing to process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::Workshop;
use super::told::Told;
use crate::clock::Timestamp;
use crate::intake::{Way, open_regular};
use crate::job::{ErrorKind, FileIdentity, JobError, Op, Outcome, SkipReason, SourceKey};
use crate::os::{self, Writers};
use crate::store::{Content, Enqueued, NewJob, Work};

/// Whether the file is still the one with this identity.
pub(super) fn unchanged(path: &Path, identity: &FileIdentity) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| FileIdentity::of(&meta) == *identity)
}

/// How long it is looked for files that came back.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The version that a watched file is, if it is there again as its watch saw it: where the execution looked for it, and
/// in the same way. What any other look finds, the next execution would miss again, and so on without end.
fn back_again(work: &Work, way: &Way) -> Option<NewJob> {
    let file = open_regular(way.to_file().ok()?.path()).ok()?;
    let found = FileIdentity::of(&file.metadata().ok()?);
    let watched = matches!(work.source, SourceKey::Watched { .. });
    (watched && work.op != Op::Delete && found.same_but_for_ctime(&work.identity)).then(|| NewJob {
        source: work.source.clone(),
        pipeline: work.pipeline.clone(),
        priority: work.priority,
        run_at: None,
        identity: found,
        digest: None,
        metadata: work.metadata.clone(),
        force: false,
        note_only: false,
        renamed: None,
        listed: None,
    })
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
    let message = format!("{}: {error}", work.file().display());
    match error.kind() {
        // Nobody moves it away by the way, as people do with files of their own: its line is owed.
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory if work.content.is_some() => {
            let message = format!("{message}; it held the content of its line: hand the line over again");
            Outcome::Failed(JobError::permanent(ErrorKind::Vanished, message))
        }
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
        // That is no fault of the file's.
        _ if os::is_shortage(error) => {
            Outcome::Deferred { after: None, error: JobError::transient(ErrorKind::Io, message) }
        }
        _ => Outcome::Failed(JobError::transient(ErrorKind::Unreadable, message)),
    }
}

/// It will be whole soon, and no attempt has begun.
pub(super) fn being_written(message: String, after: Duration) -> Outcome {
    Outcome::Deferred { after: Some(after), error: JobError::transient(ErrorKind::Unreadable, message) }
}

impl Workshop {
    /// Files that an execution missed may be there again before its end was written: their folder was away for a moment.
    /// A scan that came by in between saw nothing new, so they are asked for here; whoever comes later sees that the
    /// source was missed.
    pub(super) async fn take_what_came_back(&self, ends: &[Told]) {
        let missed = ends.iter().filter(|end| end.verdict.missed_its_file());
        let missed: Vec<(Arc<Work>, Way)> = missed.map(|end| (end.work.clone(), self.way(&end.work))).collect();
        if missed.is_empty() {
            return;
        }
        let look = tokio::task::spawn_blocking(move || {
            missed.iter().filter_map(|(work, way)| back_again(work, way)).collect()
        });
        let back: Vec<NewJob> = match tokio::time::timeout(LOOK_AGAIN, look).await {
            Ok(Ok(back)) => back,
            // A filesystem that hangs, or the end of the program: the next scan finds them.
            _ => return,
        };
        if !back.is_empty()
            && let Err(error) = self.queue.enqueue(back).await
        {
            tracing::warn!(%error, "files that came back could not be enqueued; the next scan finds them");
        }
    }

    /// Whether there is nothing left to do, given the content.
    pub(super) async fn moot(&self, work: &Work, content: Option<&Content>) -> Option<Outcome> {
        let content = content?;
        let newer = match work.digest {
            // The content of a line, which may be in a file that others write, is what is there in the end.
            _ if work.content.is_some() => false,
            Some(before) => before != content.digest,
            // Nobody recorded what an earlier execution worked on: only an untouched file is surely the same.
            None => work.execution > 1 && !work.identity.same_but_for_ctime(&content.identity),
        };
        if newer {
            return self.hand_over(work, content).await;
        }
        // A rename is told although the content is the same.
        let unchanged = work.completed_digest == Some(content.digest) && work.moved_from.is_none();
        unchanged.then_some(Outcome::Moot(SkipReason::Unchanged))
    }

    /// The file has newer content than an earlier execution saw: that becomes the next version. `None`: it is this very
    /// version by now, as an execution of another pipeline met it, and this job goes on with it.
    async fn hand_over(&self, work: &Work, content: &Content) -> Option<Outcome> {
        let newer = NewJob {
            source: work.source.clone(),
            pipeline: work.pipeline.clone(),
            priority: work.priority,
            run_at: None,
            identity: content.identity,
            digest: Some(content.digest),
            metadata: work.metadata.clone(),
            force: false,
            note_only: false,
            renamed: None,
            listed: None,
        };
        match self.queue.enqueue(vec![newer]).await.map(|answers| answers.first().copied()) {
            Ok(Some(Enqueued::Known { id, .. })) if id == work.job => None,
            Ok(Some(Enqueued::New { id, .. } | Enqueued::Known { id, .. })) => {
                Some(Outcome::Moot(SkipReason::Superseded { by: id }))
            }
            Ok(_) => Some(Outcome::Interrupted),
            Err(error) => {
                tracing::warn!(job.id = %work.job, %error, "a newer version of the file could not be enqueued");
                Some(Outcome::Interrupted)
            }
        }
    }
}
