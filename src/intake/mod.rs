//! From an arrival to a job: a file that is whole is handed to the queue.
//!
//! 1. **A new source costs no reading.** Its version is enqueued with what `stat` said.
//! 2. **A known source whose identity changed is read once.** The queue answers *needs digest*; the digest is taken
//!    on a thread of its own, of small files many in one go, and the version is handed over again with it. Whether that is a new
//!    version or only a `touch` is decided by the queue, in the transaction that writes.
//! 3. **One version of a source is in hand at a time.** A newer one waits until the older one was handed over:
//!    two digests that overtake each other would look like a file that went back to its old content.
//!
//! [`Intake`] serves a watch; [`add()`] does the same for paths that a person named, [`ListIntake`] for the lines of a
//! list.

mod add;
mod content;
mod digest;
mod list;
mod patience;
mod way;

pub use add::{AddError, AddRequest, Added, add};
pub use content::{CONTENT_LIMIT, ContentFolder};
pub use digest::{digest_bytes, digest_file, digest_file_while, open_regular, open_same};
pub use list::{ListBatch, ListIntake, ListLine, ListTaken, NotTaken};
pub use patience::patiently;
pub use way::{Reached, Way};

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::job::{DigestAlgorithm, JobId, SourceKey};
use crate::store::{Content, Enqueued, NewJob, Queue, StoreError};

/// How many threads one intake reads with at a time; all of them share the permits that they are given.
const READERS: usize = 2;
/// How many files one of them reads in one go, and about how many bytes: what it read is handed over together, because
/// a commit for each would take longer than to read a small file.
const FILES: usize = 256;
const BYTES: u64 = 8 << 20;
/// How many versions go into one call.
const BATCH: usize = 1_000;

/// A version of a source, on its way to the queue.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What is handed over.
    pub job: NewJob,
    /// The file to read, should its digest be needed.
    pub path: PathBuf,
    /// Whether symbolic links may lie on the way to it.
    pub follow: bool,
}

impl Arrival {
    fn way(&self) -> Way {
        match &self.job.source {
            SourceKey::Watched { relative, .. } => Way::watched(&self.path, relative, self.follow),
            _ => Way::named(&self.path),
        }
    }
}

/// What became of arrivals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Jobs that were made.
    pub new: u64,
    /// The newest of them.
    pub newest: Option<JobId>,
    /// Versions that were jobs before, or unchanged.
    pub known: u64,
    /// Files whose digest is taken now.
    pub reading: u64,
    /// Versions that found the queue full: a later scan has to bring them again.
    pub refused: u64,
}

/// A digest that was asked for.
#[derive(Debug)]
pub struct Digested {
    /// What was read.
    pub arrival: Arrival,
    /// What came of it.
    pub result: io::Result<Content>,
}

/// Hands a watch's files to the queue.
pub struct Intake {
    queue: Arc<dyn Queue>,
    algorithm: DigestAlgorithm,
    /// Shared by all intakes of the daemon, so that a storm in many folders does not read them all at once.
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    waiting: VecDeque<Arrival>,
    reading: JoinSet<Vec<Digested>>,
    /// Files that are read, each with its name until now where it may have been renamed.
    in_hand: HashMap<PathBuf, Option<PathBuf>>,
}

impl Intake {
    /// An intake with nothing in hand. It stops reading when `stop` is cancelled.
    pub fn new(
        queue: Arc<dyn Queue>,
        algorithm: DigestAlgorithm,
        permits: Arc<Semaphore>,
        stop: CancellationToken,
    ) -> Self {
        let (waiting, reading, in_hand) = (VecDeque::new(), JoinSet::new(), HashMap::new());
        Self { queue, algorithm, permits, stop, waiting, reading, in_hand }
    }

    /// Hands versions over. Returns when the queue has them, or knows that it needs their digests.
    pub async fn take(&mut self, mut arrivals: Vec<Arrival>) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        while !arrivals.is_empty() {
            let rest = arrivals.split_off(arrivals.len().min(BATCH));
            let batch = std::mem::replace(&mut arrivals, rest);
            let jobs: Vec<NewJob> = batch.iter().map(|arrival| arrival.job.clone()).collect();
            // A forced scan is a person's word, and no later scan would repeat it.
            let forced = jobs.iter().any(|job| job.force);
            let call = || if forced { self.queue.enqueue(jobs.clone()) } else { self.queue.offer(jobs.clone()) };
            let Some(answers) = patiently(&self.stop, "handing files to the queue", call).await? else { break };
            for (arrival, answer) in batch.into_iter().zip(answers) {
                self.note(&mut tally, arrival, answer);
            }
            if tally.refused > 0 {
                // The rest would find it full as well.
                tally.refused += arrivals.len() as u64;
                break;
            }
        }
        self.read_more();
        Ok(tally)
    }

    fn note(&mut self, tally: &mut Tally, arrival: Arrival, answer: Enqueued) {
        match answer {
            Enqueued::New { id, version } => {
                tracing::debug!(job.id = %id, job.version = version, path = %arrival.path.display(), "enqueued");
                tally.new += 1;
                tally.newest = tally.newest.max(Some(id));
            }
            Enqueued::Known { .. } | Enqueued::Unchanged => tally.known += 1,
            Enqueued::Full => tally.refused += 1,
            Enqueued::NeedsDigest if arrival.job.digest.is_none() => {
                tally.reading += 1;
                let from = arrival.job.renamed.as_ref().map(|renamed| renamed.from.clone());
                self.in_hand.insert(arrival.path.clone(), from);
                self.waiting.push_back(arrival);
            }
            // A digest was given and another one is asked for: nothing that reading again would change.
            Enqueued::NeedsDigest => {
                tracing::error!(path = %arrival.path.display(), "the queue refused the digest that it asked for");
            }
        }
    }

    fn read_more(&mut self) {
        while self.reading.len() < READERS && !self.waiting.is_empty() {
            let (mut arrivals, mut bytes) = (Vec::new(), 0);
            // A large file is read by itself: nobody waits for it.
            while let Some(next) = self.waiting.front()
                && arrivals.len() < FILES
                && (arrivals.is_empty() || bytes + next.job.identity.size <= BYTES)
                && let Some(arrival) = self.waiting.pop_front()
            {
                bytes += arrival.job.identity.size;
                arrivals.push(arrival);
            }
            let (algorithm, stop, permits) = (self.algorithm, self.stop.clone(), self.permits.clone());
            self.reading.spawn(digest_aside(arrivals, algorithm, permits, stop));
        }
    }

    /// The next digests that were taken, with their versions completed by them; waits for ever while there are none.
    /// Loses none when dropped. Hand the versions over with [`Self::take`], or settle files anew that changed meanwhile.
    pub async fn digested(&mut self) -> Vec<Digested> {
        loop {
            match self.reading.join_next().await {
                Some(Ok(mut done)) => {
                    for Digested { arrival, result } in &mut done {
                        self.in_hand.remove(&arrival.path);
                        if let Ok(content) = result {
                            arrival.job.digest = Some(content.digest);
                        }
                    }
                    self.read_more();
                    return done;
                }
                Some(Err(error)) => tracing::error!(%error, "a digest's thread died"),
                None => std::future::pending().await,
            }
        }
    }

    /// Whether a version of this file is being read.
    pub fn holds(&self, path: &Path) -> bool {
        self.in_hand.contains_key(path)
    }

    /// The names, relative to the root, that files which are being read may have had until now.
    pub fn renamed(&self) -> HashSet<&Path> {
        self.in_hand.values().flatten().map(PathBuf::as_path).collect()
    }

    /// How many versions wait for their digests.
    pub fn len(&self) -> usize {
        self.in_hand.len()
    }

    /// Whether nothing is in hand.
    pub fn is_empty(&self) -> bool {
        self.in_hand.is_empty()
    }

    /// Forgets the versions that nobody reads yet: a scan will find them again.
    pub fn clear(&mut self) {
        for arrival in self.waiting.drain(..) {
            self.in_hand.remove(&arrival.path);
        }
    }
}

/// Takes digests on a thread where blocking is allowed, one after the other.
async fn digest_aside(
    arrivals: Vec<Arrival>,
    algorithm: DigestAlgorithm,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
) -> Vec<Digested> {
    let files: Vec<Way> = arrivals.iter().map(Arrival::way).collect();
    let _permit = permits.acquire().await;
    let read = move |way: Way| {
        let reached = way.to_file()?;
        digest_file_while(reached.path(), algorithm, || !stop.is_cancelled())
    };
    let read_all = move || files.into_iter().map(read).collect::<Vec<_>>();
    match tokio::task::spawn_blocking(read_all).await {
        Ok(results) => {
            arrivals.into_iter().zip(results).map(|(arrival, result)| Digested { arrival, result }).collect()
        }
        Err(error) => {
            let died = || Err(io::Error::other(error.to_string()));
            arrivals.into_iter().map(|arrival| Digested { arrival, result: died() }).collect()
        }
    }
}
