//! Where a job stands: an enum whose variants carry exactly the facts that are true there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{JobError, JobId};
use crate::clock::Timestamp;

/// A name that is not one of those allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is none of: {allowed}")]
pub struct UnknownName {
    found: String,
    allowed: &'static str,
}

impl UnknownName {
    pub(crate) fn new(found: &str, allowed: &'static str) -> Self {
        Self { found: found.to_owned(), allowed }
    }
}

/// The name of a state, as tables, filters and JSON use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateName {
    /// Due now or at `run_at`; never tried, or put back without spending an attempt.
    Pending,
    /// Leased to a worker.
    Running,
    /// Failed transiently; due again at `run_at`.
    Retrying,
    /// Done.
    Completed,
    /// Given up.
    Failed,
    /// Stopped by a person.
    Cancelled,
    /// Became moot before it was done.
    Skipped,
}

impl StateName {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Running, Self::Retrying, Self::Completed, Self::Failed, Self::Cancelled, Self::Skipped];

    /// The name that tables and people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// Whether only a person's `retry` leads out of it, if anything.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Skipped)
    }

    /// Whether the job waits for a worker.
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Pending | Self::Retrying)
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for StateName {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownName::new(text, "pending, running, retrying, completed, failed, cancelled, skipped"))
    }
}

/// Why a job became moot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// A newer version of its source took its place.
    Superseded {
        /// The job of that version.
        by: JobId,
    },
    /// Its content turned out to be the one that the version before it completed with.
    Unchanged,
    /// Its content was completed under another name.
    Duplicate {
        /// By this job.
        of: JobId,
    },
    /// The file was gone before the job was first started.
    Vanished,
}

impl SkipReason {
    /// The word that the tables hold; the other job has a column of its own.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Superseded { .. } => "superseded",
            Self::Unchanged => "unchanged",
            Self::Duplicate { .. } => "duplicate",
            Self::Vanished => "vanished",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superseded { by } => write!(f, "superseded by {by}"),
            Self::Duplicate { of } => write!(f, "duplicate of {of}"),
            other => f.write_str(other.as_str()),
        }
    }
}

/// A job's state with its facts.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Waiting, with its budget untouched by the last execution.
    Pending {
        /// When it is due.
        run_at: Timestamp,
        /// The older version's job whose attempt has to end first.
        blocked_by: Option<JobId>,
    },
    /// In a worker's hands.
    Running {
        /// When this execution began.
        started_at: Timestamp,
    },
    /// Waiting after a failed attempt.
    Retrying {
        /// When it is due.
        run_at: Timestamp,
        /// What went wrong.
        error: JobError,
    },
    /// Done.
    Completed {
        /// Since when.
        finished_at: Timestamp,
    },
    /// Given up.
    Failed {
        /// Since when.
        finished_at: Timestamp,
        /// What went wrong.
        error: JobError,
    },
    /// Stopped by a person.
    Cancelled {
        /// Since when.
        finished_at: Timestamp,
    },
    /// Moot.
    Skipped {
        /// Since when.
        finished_at: Timestamp,
        /// Why.
        reason: SkipReason,
    },
}

impl State {
    /// The state without its facts.
    pub const fn name(&self) -> StateName {
        match self {
            Self::Pending { .. } => StateName::Pending,
            Self::Running { .. } => StateName::Running,
            Self::Retrying { .. } => StateName::Retrying,
            Self::Completed { .. } => StateName::Completed,
            Self::Failed { .. } => StateName::Failed,
            Self::Cancelled { .. } => StateName::Cancelled,
            Self::Skipped { .. } => StateName::Skipped,
        }
    }
}
