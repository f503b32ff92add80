//! Calls to the filesystem, on threads where blocking is allowed.
//!
//! A filesystem may hang: a network disk whose server is away, a dying drive. No thread that waits in the kernel can be
//! stopped from here, so what can be bounded is what waits for it:
//!
//! 1. A call has [`THREADS`] to share with all others, so that threads that hang never take all that the runtime has.
//! 2. A call beats with each piece that it has done. One that is only read for is given up when it has not beaten for
//!    as long as the pipeline's timeout: however large the file, what moves is not hung. One that changes something is
//!    waited for, because a second one beside it could undo it, and is told about.
//! 3. Whoever stops waiting leaves a word: the call ends at its next beat. Until then it is at work under its lease,
//!    which is therefore not given to anybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{sleep, timeout};

use crate::store::AtWork;

/// Threads that may be in the filesystem for attempts at once: half of what the runtime has.
const THREADS: usize = 256;
/// A call that changes something and has not beaten for this long is told about.
const SUSPICIOUS: Duration = Duration::from_mins(1);

/// The way to the threads; a handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct Aside {
    threads: Arc<Semaphore>,
}

impl Default for Aside {
    fn default() -> Self {
        Self { threads: Arc::new(Semaphore::new(THREADS)) }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nothing moved for so long.
    #[error("the filesystem has given no answer for {}", humantime::format_duration(*.0))]
    Hung(Duration),
    /// Calls that hang have every thread.
    #[error("other filesystems hang, and no thread is free to look at this one")]
    Crowded,
    /// The call panicked.
    #[error("the call died ({0})")]
    Died(#[from] JoinError),
}

/// What a call beats with, and is told to end by.
#[derive(Debug, Default)]
pub struct Beat {
    beats: AtomicU64,
    enough: AtomicBool,
}

impl Beat {
    /// Says that something was done; `false`: nobody waits for the rest.
    pub fn go_on(&self) -> bool {
        self.beats.fetch_add(1, Ordering::Relaxed);
        !self.enough.load(Ordering::Relaxed)
    }

    fn count(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}

/// The waiting end of a call; dropped, it says that nobody waits.
struct Waiting<T> {
    call: JoinHandle<T>,
    beat: Arc<Beat>,
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.beat.enough.store(true, Ordering::Relaxed);
    }
}

impl Aside {
    /// Runs a call that only reads, and gives it up when it hangs for `patience`.
    pub async fn read<T, F>(&self, at_work: AtWork, patience: Duration, call: F) -> Result<T, Unanswered>
    where
        T: Send + 'static,
        F: FnOnce(&Beat) -> T + Send + 'static,
    {
        let Ok(Ok(permit)) = timeout(patience, self.threads.clone().acquire_owned()).await else {
            return Err(Unanswered::Crowded);
        };
        let mut waiting = begin(Some(permit), at_work, call);
        loop {
            let before = waiting.beat.count();
            tokio::select! {
                answer = &mut waiting.call => return Ok(answer?),
                () = sleep(patience) => if waiting.beat.count() == before { return Err(Unanswered::Hung(patience)) },
            }
        }
    }

    /// Runs a call that changes something, to its end; says so when it seems to hang.
    pub async fn change<T, F>(&self, at_work: AtWork, what: &std::path::Path, call: F) -> Result<T, Unanswered>
    where
        T: Send + 'static,
        F: FnOnce(&Beat) -> T + Send + 'static,
    {
        // An error would mean that the semaphore was closed, which nobody does.
        let permit = self.threads.clone().acquire_owned().await.ok();
        let mut waiting = begin(permit, at_work, call);
        let mut told = false;
        loop {
            let before = waiting.beat.count();
            tokio::select! {
                answer = &mut waiting.call => return Ok(answer?),
                () = sleep(SUSPICIOUS), if !told => {
                    told = waiting.beat.count() == before;
                    if told {
                        tracing::warn!(path = %what.display(), "its filesystem has given no answer for a minute; waiting on");
                    }
                }
            }
        }
    }
}

fn begin<T, F>(permit: Option<OwnedSemaphorePermit>, at_work: AtWork, call: F) -> Waiting<T>
where
    T: Send + 'static,
    F: FnOnce(&Beat) -> T + Send + 'static,
{
    let beat = Arc::new(Beat::default());
    let beats = Arc::clone(&beat);
    let call = tokio::task::spawn_blocking(move || {
        let answer = call(&beats);
        drop((permit, at_work));
        answer
    });
    Waiting { call, beat }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_reader_that_hangs_is_given_up_and_keeps_its_lease_at_work() {
        let (work, aside) = (AtWork::alone(), Aside::default());
        let (go, wait) = mpsc::channel::<()>();
        let hung = aside.read(work.clone(), SHORT, move |_| wait.recv()).await;
        assert!(matches!(hung, Err(Unanswered::Hung(SHORT))));
        assert!(work.has_company(), "its thread is still in the kernel");
        go.send(()).unwrap();
        while work.has_company() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_reader_that_moves_is_waited_for_however_long_it_takes() {
        let (work, aside) = (AtWork::alone(), Aside::default());
        let read = aside.read(work.clone(), SHORT, |beat| {
            let begun = std::time::Instant::now();
            while begun.elapsed() < SHORT * 10 {
                assert!(beat.go_on());
                std::thread::sleep(SHORT / 10);
            }
            7
        });
        assert_eq!(read.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_ends_at_its_next_beat() {
        let (work, aside) = (AtWork::alone(), Aside::default());
        let call = aside.change(work.clone(), "/a".as_ref(), |beat| while beat.go_on() {});
        assert!(timeout(SHORT, call).await.is_err());
        while work.has_company() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn threads_that_hang_leave_the_others_some() {
        let (work, mut aside) = (AtWork::alone(), Aside::default());
        aside.threads = Arc::new(Semaphore::new(1));
        let (go, wait) = mpsc::channel::<()>();
        drop(aside.read(work.clone(), SHORT, move |_| wait.recv()).await);
        assert!(matches!(aside.read(work.clone(), SHORT, |_| ()).await, Err(Unanswered::Crowded)));
        drop(go);
        while aside.read(work.clone(), SHORT, |_| ()).await.is_err() {}
    }
}
