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

/// A file that was there when last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentFile {
    /// Relative to the watch's root.
    pub relative: PathBuf,
    /// As it was when it was last taken.
    pub identity: FileIdentity,
}

/// Reads what is known.
#[async_trait]
pub trait Sources: Send + Sync {
    /// What is known of each of these files, in their order; `None`: never taken.
    async fn known(&self, watch: &str, relatives: Vec<PathBuf>) -> Result<Vec<Option<KnownFile>>>;
    /// For each of these files, some of the names under which a file with its device, inode, size and modification time is
    /// known: as present, or as vanished with its digest. Whether anything is there now has to be looked for.
    async fn known_as(&self, watch: &str, files: Vec<FileIdentity>) -> Result<Vec<Vec<PathBuf>>>;
    /// The files below a folder of the watch (the empty path is its root) that were there when last looked at: in the
    /// order of their bytes, those after `after`.
    async fn present(&self, watch: &str, folder: PathBuf, after: PathBuf, limit: usize) -> Result<Vec<PresentFile>>;
}
