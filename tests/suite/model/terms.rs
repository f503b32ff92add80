//! The store's words in the model's, and back.

use std::fmt::Debug;
use std::time::Duration;

use ingestd::clock::Timestamp;
use ingestd::job::{
    Digest, DigestAlgorithm, ErrorKind, FileIdentity, JobError, JobId, Outcome, RetryPolicy, SkipReason, SourceKey,
    Verdict,
};
use ingestd::store::{Content, Enqueued, Gone, NewJob, Renamed, Settlement, StoreError, Want};

use super::actions::{Ask, Ending, Look, Loss, SOURCES, Sighting, WATCHED};
use super::check::MAX_ATTEMPTS;
use super::semantics::Answer;

/// What a step tells of itself, or what is not as it should be.
pub type Step = Result<String, String>;

/// The file of the source that has a key.
pub const KEYED_PATH: &str = "/keyed";

/// What a settlement says: job, fence, verdict, content.
pub type About = (i64, i64, Verdict, Option<(Look, u8)>);

pub fn about(ends: &[Settlement]) -> Vec<About> {
    let content = |content: Content| (look_of(&content.identity), content_of(content.digest));
    ends.iter()
        .map(|end| (end.lease.job().0, end.lease.fence().0, end.verdict.clone(), end.content.map(content)))
        .collect()
}

pub fn policy() -> RetryPolicy {
    RetryPolicy {
        max_attempts: u32::try_from(MAX_ATTEMPTS).unwrap(),
        max_elapsed: Duration::from_hours(1),
        ..RetryPolicy::default()
    }
}

pub fn outcome(ending: Ending, newer: Option<i64>) -> Outcome {
    match ending {
        Ending::Done => Outcome::Done,
        Ending::Failed => Outcome::Failed(JobError::transient(ErrorKind::Exit, "exit 1")),
        Ending::FailedForGood => Outcome::Failed(JobError::permanent(ErrorKind::Status, "404")),
        Ending::Deferred(after) => Outcome::Deferred {
            after: after.map(Duration::from_secs),
            error: JobError::transient(ErrorKind::Connection, "refused"),
        },
        Ending::Interrupted => Outcome::Interrupted,
        Ending::Cancelled => Outcome::Cancelled,
        Ending::Vanished => Outcome::Moot(SkipReason::Vanished),
        Ending::Unchanged => Outcome::Moot(SkipReason::Unchanged),
        Ending::Superseded => {
            Outcome::Moot(newer.map_or(SkipReason::Unchanged, |by| SkipReason::Superseded { by: JobId(by) }))
        }
    }
}

pub fn wants(ask: &Ask) -> Vec<Want> {
    ask.wants.iter().map(|(pipeline, permits)| Want::single(*pipeline, *permits)).collect()
}

pub fn new_job(seen: &Sighting, with_digest: bool, now: i64) -> NewJob {
    NewJob {
        source: source_key(seen.source),
        pipeline: seen.pipeline.to_owned(),
        priority: seen.priority,
        run_at: seen.delay_s.map(|delay| Timestamp::from_millis(now + delay * 1_000)),
        identity: identity(seen.look),
        digest: with_digest.then(|| digest(seen.content)),
        metadata: None,
        force: seen.force,
        note_only: seen.note_only,
        renamed: seen.renamed.map(|renamed| Renamed { from: renamed.from.into(), told: renamed.told }),
        listed: None,
    }
}

pub fn source_key(name: &'static str) -> SourceKey {
    match name {
        watched if SOURCES[..WATCHED].contains(&watched) => {
            SourceKey::Watched { watch: "inbox".to_owned(), relative: watched.into() }
        }
        path if path.starts_with('/') => SourceKey::Path(path.into()),
        key => SourceKey::Keyed { key: key.to_owned(), path: KEYED_PATH.into() },
    }
}

pub fn gone(loss: &Loss) -> Gone {
    Gone {
        watch: "inbox".to_owned(),
        relative: loss.source.into(),
        pipeline: loss.pipeline.to_owned(),
        wants_job: loss.wants_job,
        priority: loss.priority,
    }
}

pub fn identity(look: Look) -> FileIdentity {
    FileIdentity { dev: 1, inode: 2, size: 3, mtime_ns: look.mtime, ctime_ns: look.ctime }
}

pub fn look_of(identity: &FileIdentity) -> Look {
    Look { mtime: identity.mtime_ns, ctime: identity.ctime_ns }
}

pub fn digest(content: u8) -> Digest {
    Digest { algorithm: DigestAlgorithm::Blake3, bytes: [content; 32] }
}

pub fn content_of(digest: Digest) -> u8 {
    digest.bytes[0]
}

pub fn enqueued(answer: Enqueued) -> Answer {
    match answer {
        Enqueued::New { id, version } => Answer::New { id: id.0, version },
        Enqueued::Known { id, state } => Answer::Known { id: id.0, state },
        Enqueued::Unchanged => Answer::Unchanged,
        Enqueued::NeedsDigest => Answer::NeedsDigest,
        Enqueued::Full => Answer::Full,
    }
}

pub fn failed(error: StoreError) -> String {
    format!("the store failed: {error}")
}

/// Answers what was found, or how it differs from what was expected.
pub fn same<T: PartialEq + Debug>(what: &str, expected: &T, found: &T) -> Step {
    if expected == found {
        return Ok(format!("{what}: {found:?}"));
    }
    Err(format!("{what}: expected {expected:?}, found {found:?}"))
}
