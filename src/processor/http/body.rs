//! The file from disk, as what a call sends.

use std::io;
use std::path::Path;

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::job::{ErrorKind, FileIdentity, JobError};

/// How much of the file is read at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// A regular file, open, as it was when it was opened.
pub struct OpenFile {
    file: File,
    then: FileIdentity,
}

impl OpenFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// It vanished, can't be read, or is no regular file.
    pub async fn open(path: &Path) -> Result<Self, JobError> {
        // A FIFO put under this name since would block the open for ever, but for O_NONBLOCK; files don't care.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).await;
        let file = opened.map_err(|error| unreadable(&error))?;
        let meta = file.metadata().await.map_err(|error| unreadable(&error))?;
        if !meta.is_file() {
            return Err(JobError::permanent(ErrorKind::NotAFile, "is not a regular file"));
        }
        Ok(Self { file, then: FileIdentity::of(&meta) })
    }

    /// Its length when it was opened, in bytes.
    pub const fn length(&self) -> u64 {
        self.then.size
    }

    /// A body that streams those bytes. To be called once, as all its streams share one position.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub async fn stream(&self) -> Result<reqwest::Body, JobError> {
        let file = self.file.try_clone().await.map_err(|error| unreadable(&error))?;
        Ok(reqwest::Body::wrap_stream(ReaderStream::with_capacity(file.take(self.then.size), CHUNK)))
    }

    /// Checks that nobody wrote to it since it was opened.
    ///
    /// # Errors
    /// Somebody did, so what was sent is neither the old content nor the new.
    pub async fn is_unchanged(&self) -> Result<(), JobError> {
        let meta = self.file.metadata().await.map_err(|error| unreadable(&error))?;
        let now = FileIdentity::of(&meta);
        if (now.size, now.mtime_ns) == (self.then.size, self.then.mtime_ns) {
            return Ok(());
        }
        Err(JobError::transient(ErrorKind::Io, "the file changed while it was being sent"))
    }
}

fn unreadable(error: &io::Error) -> JobError {
    match error.kind() {
        io::ErrorKind::NotFound => JobError::transient(ErrorKind::Vanished, "the file is gone"),
        io::ErrorKind::PermissionDenied => JobError::transient(
            ErrorKind::Unreadable,
            "the file may not be read by the daemon's user (give it read permission, then retry)",
        ),
        _ => JobError::transient(ErrorKind::Unreadable, format!("the file can't be read ({error})")),
    }
}
