//! The lease: the one capability to act on a job.
//!
//! Only the store makes one, it can't be copied, and settling takes it by value: an attempt ends once. Every
//! write about it is guarded in SQL by job, state and fence, so a lease that was taken back settles nothing.
//!
//! Whoever works under a lease says so with [`AtWork`] for as long as it does, which may be longer than it should: a
//! process that does not die, a rename on a disk that hangs. Such a lease is not taken back before the work has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::Boottime;
use crate::job::{Fence, JobId};

/// A time-limited, fenced right to work on a job.
#[derive(Debug)]
pub struct Lease {
    job: JobId,
    fence: Fence,
    deadline: Boottime,
    place: Place,
    desk: Desk,
}

/// Where a leased job stands in the tables: facts that can't change while it runs, so that its end need not ask.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Place {
    pub(in crate::store) source: i64,
    pub(in crate::store) pipeline: i64,
    pub(in crate::store) priority: i64,
    pub(in crate::store) run: Option<i64>,
}

impl Lease {
    pub(in crate::store) fn new(job: JobId, fence: Fence, deadline: Boottime, place: Place) -> Self {
        Self { job, fence, deadline, place, desk: Desk::default() }
    }

    pub(in crate::store) const fn place(&self) -> Place {
        self.place
    }

    /// The job that it is for.
    pub const fn job(&self) -> JobId {
        self.job
    }

    /// The number by which the store knows it.
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// When it ended if it were never renewed.
    pub const fn deadline(&self) -> Boottime {
        self.deadline
    }

    /// Its name in calls that do not end it.
    pub const fn claim(&self) -> Claim {
        Claim { job: self.job, fence: self.fence }
    }

    /// Says that somebody works under it, until what is answered is dropped with all its clones.
    pub fn at_work(&self) -> AtWork {
        AtWork::at(&self.desk)
    }

    pub(in crate::store) fn desk(&self) -> Desk {
        self.desk.clone()
    }
}

/// Where the work under one lease is done: how many are at it.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Desk(Arc<AtomicUsize>);

impl Desk {
    /// Whether anybody still works there.
    pub(in crate::store) fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

/// Somebody works under a lease. Goes along with everything that can't be stopped by dropping it, such as a call to
/// the filesystem on a thread of its own.
#[derive(Debug)]
pub struct AtWork(Desk);

impl AtWork {
    fn at(desk: &Desk) -> Self {
        desk.0.fetch_add(1, Ordering::Relaxed);
        Self(desk.clone())
    }
}

#[cfg(test)]
impl AtWork {
    /// Work under no lease.
    pub(crate) fn alone() -> Self {
        Self::at(&Desk::default())
    }

    /// Whether somebody else is at it as well.
    pub(crate) fn has_company(&self) -> bool {
        self.0.0.load(Ordering::Acquire) > 1
    }
}

impl Clone for AtWork {
    fn clone(&self) -> Self {
        Self::at(&self.0)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        // Whoever then sees the desk empty also sees what was done at it.
        self.0.0.fetch_sub(1, Ordering::Release);
    }
}

/// Names a lease without being one: enough to renew it or to note something under it, not to settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The job.
    pub job: JobId,
    /// The lease's fence.
    pub fence: Fence,
}
