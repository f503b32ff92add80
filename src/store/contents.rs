//! What pipelines completed, by content: for watches that take no content twice.
//!
//! A content is kept with the first source that completed it, where [`Settlement::remember`](super::Settlement::remember)
//! asked for it, for as long as that source is known: longer than the job.

use std::path::PathBuf;

use async_trait::async_trait;

use super::error::Result;
use super::lease::Lease;
use crate::job::{Digest, JobId};

/// A job that completed a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Its number; its row may be pruned by now.
    pub job: JobId,
    /// Its file, under the name that it has now.
    pub path: PathBuf,
}

/// Finds contents.
#[async_trait]
pub trait Contents: Send + Sync {
    /// The job of another source with which this content was completed by the pipeline of the leased job.
    async fn completed_elsewhere(&self, lease: &Lease, digest: Digest) -> Result<Option<Completed>>;
}
