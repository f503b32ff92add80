//! Equal contents under several names: where a watch asks for it (`dedupe`), only one of them is given to a processor.
//!
//! 1. An attempt claims its content before it looks whether that was completed under another name, and lets go of it
//!    once its end is written. So of two that are at work at the same moment, the second sees what came of the first.
//! 2. Who finds the content claimed waits for a moment, and is then deferred, so that it holds no permit for long.
//!    One of a batch does not even wait: the other may well be in the same batch.
//! 3. What was completed under another name is a duplicate, whatever became of that other file since.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::attempt::Workshop;
use super::process::told;
use super::running::Handle;
use crate::job::{Digest, ErrorKind, JobError, JobId, Outcome, SkipReason, SourceKey};
use crate::processor::Report;
use crate::store::{Content, Contents, Lease, Work};

/// How long an attempt waits for another one with the same content, and when it asks again.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(2);

/// The contents at work, as many as there are permits, each by its pipeline.
#[derive(Clone, Debug, Default)]
pub struct AtWork(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    claims: Mutex<HashMap<Key, JobId>>,
    released: Notify,
}

type Key = (String, Digest);

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, JobId>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to give a content to a processor, until dropped.
#[derive(Debug)]
pub struct ContentClaim {
    table: Arc<Table>,
    key: Key,
}

impl Drop for ContentClaim {
    fn drop(&mut self) {
        self.table.lock().remove(&self.key);
        self.table.released.notify_waiters();
    }
}

impl AtWork {
    /// Claims a content; else answers whose it is.
    fn claim(&self, key: &Key, job: JobId) -> Result<ContentClaim, JobId> {
        match self.0.lock().entry(key.clone()) {
            Entry::Occupied(entry) => Err(*entry.get()),
            Entry::Vacant(entry) => {
                entry.insert(job);
                Ok(ContentClaim { table: self.0.clone(), key: key.clone() })
            }
        }
    }

    async fn claim_patiently(&self, key: Key, job: JobId, patience: Duration) -> Result<ContentClaim, JobId> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let mut released = std::pin::pin!(self.0.released.notified());
            released.as_mut().enable();
            match self.claim(&key, job) {
                Err(other) if tokio::time::timeout_at(until, released).await.is_err() => return Err(other),
                Err(_) => {}
                claimed => return claimed,
            }
        }
    }

    /// The right to process a content; an outcome where somebody else does, or did.
    pub async fn first(
        &self,
        contents: &dyn Contents,
        lease: &Lease,
        work: &Work,
        digest: Digest,
        patience: Duration,
    ) -> Result<ContentClaim, Outcome> {
        let later = |why| Outcome::Deferred { after: Some(LATER), error: JobError::transient(ErrorKind::Io, why) };
        let claim = self
            .claim_patiently((work.pipeline.clone(), digest), work.job, patience)
            .await
            .map_err(|other| later(format!("job {other} is at work on the same content")))?;
        match contents.completed_elsewhere(lease, digest).await {
            Ok(None) => Ok(claim),
            Ok(Some(original)) => {
                let (path, of) = (work.path.display(), original.path.display());
                tracing::debug!(job.id = %work.job, %path, "its content was completed by job {} as {of}", original.job);
                Err(Outcome::Moot(SkipReason::Duplicate { of: original.job }))
            }
            Err(error) => Err(later(format!("it can't be told whether the content was completed before: {error}"))),
        }
    }
}

impl Workshop {
    /// The right to process the content, where one is needed; an outcome where somebody else does or did.
    pub(super) async fn claim(
        &self,
        lease: &Lease,
        work: &Work,
        content: Option<&Content>,
        handle: &Handle,
        patience: Duration,
    ) -> Result<Option<ContentClaim>, Outcome> {
        // That a file was renamed is told whatever is in it.
        let Some(content) = content.filter(|_| work.moved_from.is_none() && self.dedupes(work)) else {
            return Ok(None);
        };
        tokio::select! {
            biased;
            claim = self.contents_at_work.first(self.contents.as_ref(), lease, work, content.digest, patience) => claim.map(Some),
            () = handle.token().cancelled() => Err(told(Report::of(Outcome::Interrupted), handle).outcome),
        }
    }

    fn dedupes(&self, work: &Work) -> bool {
        matches!(&work.source, SourceKey::Watched { watch, .. } if self.settings.borrow().dedupes.contains(watch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::DigestAlgorithm;

    fn key(pipeline: &str, byte: u8) -> Key {
        (pipeline.to_owned(), Digest { algorithm: DigestAlgorithm::Blake3, bytes: [byte; 32] })
    }

    #[tokio::test]
    async fn one_content_is_claimed_once_in_each_pipeline_until_it_is_let_go() {
        let at_work = AtWork::default();
        let first = at_work.claim(&key("p", 1), JobId(1)).unwrap();
        let _other_content = at_work.claim(&key("p", 2), JobId(2)).unwrap();
        let _other_pipeline = at_work.claim(&key("q", 1), JobId(3)).unwrap();
        assert_eq!(at_work.claim_patiently(key("p", 1), JobId(4), PATIENCE).await.unwrap_err(), JobId(1));
        let (second, ()) =
            tokio::join!(at_work.claim_patiently(key("p", 1), JobId(4), PATIENCE), async move { drop(first) });
        assert_eq!(at_work.claim(&key("p", 1), JobId(5)).unwrap_err(), JobId(4));
        drop(second);
        assert!(at_work.claim(&key("p", 1), JobId(5)).is_ok());
    }
}
