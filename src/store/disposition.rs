//! What happens to a file after its processor: the intent that is committed before the first rename.

use std::path::PathBuf;

use async_trait::async_trait;

use super::error::Result;
use super::lease::Claim;
use crate::job::{FileIdentity, JobError};

/// A processed file on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Disposition {
    /// Where the file was.
    pub path: PathBuf,
    /// The name beside it that it has on the way.
    pub private: PathBuf,
    /// Where it goes; `None`: away.
    pub target: Option<PathBuf>,
    /// What was processed: another file under that name is not ours to move.
    pub identity: FileIdentity,
    /// `None` after success; after failure, the error that the job ends with.
    pub error: Option<JobError>,
}

/// Keeps the intents.
#[async_trait]
pub trait Dispositions: Send + Sync {
    /// Commits the intent and marks the source as taken away by ourselves; `false`: the lease was lost.
    async fn intend(&self, claim: Claim, disposition: Disposition) -> Result<bool>;
    /// Forgets the intent; `false`: the lease was lost. With `back`, the file is under its name again, as it is now,
    /// and is ours to watch like any other. Without, what is under the name is another file, which arrived anew.
    async fn withdraw(&self, claim: Claim, back: Option<FileIdentity>) -> Result<bool>;
}
