//! What happens to a file after its processor: the intent that is committed before the first rename.

use std::path::PathBuf;

use async_trait::async_trait;

use super::error::Result;
use super::lease::Claim;
use crate::job::{CanonicalJson, EffectKind, FileIdentity, IdempotencyKey, JobError, Step};

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

impl Disposition {
    /// The step that it is, in the ledger of the job with this key: kind `move` or `delete`, about the paths, with
    /// replacement characters where these are not UTF-8.
    pub(in crate::store) fn step(&self, job: &IdempotencyKey) -> Step {
        let from = self.path.to_string_lossy();
        let (kind, context) = match &self.target {
            Some(target) => ("move", serde_json::json!({ "from": from, "to": target.to_string_lossy() })),
            None => ("delete", serde_json::json!({ "from": from })),
        };
        Step::of(EffectKind::own(kind), CanonicalJson::own(&context), job)
    }
}

/// What became of an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It is committed.
    Committed,
    /// A newer version of the source is known, whose own job decides about the file.
    Newer,
    /// The lease was lost; nothing was written.
    LeaseLost,
}

/// Keeps the intents.
#[async_trait]
pub trait Dispositions: Send + Sync {
    /// Commits the intent and marks the source as taken away by ourselves, unless the file is a newer version's by now.
    /// The step stands in the ledger of the job, whose key this is, and is done when the job is settled.
    async fn intend(&self, claim: Claim, disposition: Disposition, key: IdempotencyKey) -> Result<Intent>;
    /// Forgets the intent; `false`: the lease was lost. With `back`, the file is under its name again, as it is now,
    /// and is ours to watch like any other. Without, what is under the name is another file, which arrived anew.
    async fn withdraw(&self, claim: Claim, back: Option<FileIdentity>) -> Result<bool>;
}
