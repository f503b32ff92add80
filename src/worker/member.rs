//! One job in an execution: as it was leased, once it was looked at, and at its end.

use std::sync::Arc;
use std::time::Duration;

use super::content::ContentClaim;
use super::running::Handle;
use crate::clock::Timestamp;
use crate::job::{Outcome, Verdict};
use crate::processor::{Report, Task};
use crate::store::{Content, Lease, Settlement, Work};

/// How an execution ended, for the dispatcher to settle.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are verdicts, each made once and moved a few times")]
pub enum Ended {
    /// With a verdict.
    Verdict(Unsettled),
    /// Without the right to write one.
    LeaseLost(Lease),
}

/// An end that is not written yet.
#[derive(Debug)]
pub struct Unsettled {
    /// What is to be written.
    pub end: Settlement,
    /// What it is about.
    pub work: Arc<Work>,
    /// Kept until it is written.
    pub claim: Option<ContentClaim>,
}

/// A job under its lease: what it is about, and by what it is stopped.
#[derive(Debug)]
pub struct Member {
    /// The right to work on it.
    pub lease: Lease,
    /// What it is about.
    pub work: Arc<Work>,
    /// The attempt's end of what the dispatcher holds.
    pub handle: Handle,
}

impl Member {
    /// Back to where it was, at no cost: nothing was done.
    pub(super) fn put_back(self, now: Timestamp) -> Unsettled {
        let end = Settlement {
            lease: self.lease,
            verdict: Verdict::Release,
            code: None,
            output: Vec::new(),
            content: None,
            remember: false,
            finished_at: now,
            duration: Duration::ZERO,
        };
        Unsettled { end, work: self.work, claim: None }
    }
}

/// What an execution knows of a job by its end.
pub(super) struct Findings {
    pub(super) report: Report,
    pub(super) content: Option<Content>,
    pub(super) claim: Option<ContentClaim>,
    /// The verdict that an intent from before a crash carries.
    pub(super) settled: Option<Verdict>,
}

impl Findings {
    pub(super) const fn early(outcome: Outcome, content: Option<Content>) -> Self {
        Self { report: Report::of(outcome), content, claim: None, settled: None }
    }
}

/// A job that was looked at, and has something to process.
pub(super) struct Ready {
    pub(super) task: Task,
    pub(super) content: Option<Content>,
    pub(super) claim: Option<ContentClaim>,
}

impl Ready {
    pub(super) fn with(self, report: Report) -> Findings {
        Findings { report, content: self.content, claim: self.claim, settled: None }
    }
}
