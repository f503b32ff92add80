//! What is known about the files of a watch, for the scan to compare with.

use std::path::PathBuf;

use async_trait::async_trait;

use super::error::Result;
use crate::job::FileIdentity;

/// What is known of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// As it was when it was last taken.
    pub identity: FileIdentity,
    /// Whether it was there when last looked at, as opposed to vanished or moved away by ourselves.
    pub present: bool,
}

/// Reads what is known.
#[async_trait]
pub trait Sources: Send + Sync {
    /// What is known of each of these files, in their order; `None`: never taken.
    async fn known(&self, watch: &str, relatives: Vec<PathBuf>) -> Result<Vec<Option<KnownFile>>>;
    /// The files of the watch that were there when last looked at, in the order of their bytes, after `after`.
    async fn present(&self, watch: &str, after: Option<PathBuf>, limit: usize) -> Result<Vec<PathBuf>>;
}
