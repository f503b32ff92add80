//! The lease: the one capability to act on a job.
//!
//! Only the store makes one, it can't be copied, and settling takes it by value: an attempt ends once. Every
//! write about it is guarded in SQL by job, state and fence, so a lease that was taken back settles nothing.

use crate::clock::Boottime;
use crate::job::{Fence, JobId};

/// A time-limited, fenced right to work on a job.
#[derive(Debug)]
pub struct Lease {
    job: JobId,
    fence: Fence,
    deadline: Boottime,
}

impl Lease {
    pub(in crate::store) const fn new(job: JobId, fence: Fence, deadline: Boottime) -> Self {
        Self { job, fence, deadline }
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
}

/// Names a lease without being one: enough to renew it or to note something under it, not to settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The job.
    pub job: JobId,
    /// The lease's fence.
    pub fence: Fence,
}
