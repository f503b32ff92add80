//! The file from disk, as what a call sends.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::job::{ErrorKind, FileIdentity, JobError, Outcome};
use crate::os;

/// How much of the file is read at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// A regular file, open, as it was when it was opened.
pub struct OpenFile {
    file: File,
    then: FileIdentity,
}

impl OpenFile {
    /// Opens the file at `path`, if it is the one that was `seen`.
    ///
    /// # Errors
    /// What that means for the job: it vanished, can't be read, is no regular file, or is another one: a folder on the way
    /// may be a link by now, that somebody else made.
    pub async fn open(path: &Path, seen: Option<&FileIdentity>) -> Result<Self, Outcome> {
        // Looked at before it is opened, and opened as the very thing that was looked at.
        let handle = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).await;
        let handle = handle.map_err(|error| unreadable(&error))?;
        let meta = handle.metadata().await.map_err(|error| unreadable(&error))?;
        if !meta.is_file() {
            return Err(Outcome::Failed(JobError::permanent(ErrorKind::NotAFile, "is not a regular file")));
        }
        let then = FileIdentity::of(&meta);
        if seen.is_some_and(|seen| !then.same_but_for_ctime(seen)) {
            let message = "another file has its name since it was looked at";
            return Err(Outcome::Failed(JobError::transient(ErrorKind::Io, message)));
        }
        let same = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(same).await;
        Ok(Self { file: opened.map_err(|error| unreadable(&error))?, then })
    }

    /// Its length when it was opened, in bytes.
    pub const fn length(&self) -> u64 {
        self.then.size
    }

    /// A body that streams those bytes. To be called once, as all its streams share one position.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub async fn stream(&self) -> Result<reqwest::Body, Outcome> {
        let file = self.file.try_clone().await.map_err(|error| unreadable(&error))?;
        Ok(reqwest::Body::wrap_stream(ReaderStream::with_capacity(file.take(self.then.size), CHUNK)))
    }

    /// Checks that nobody wrote to it since it was opened.
    ///
    /// # Errors
    /// Somebody did, so what was sent is neither the old content nor the new.
    pub async fn is_unchanged(&self) -> Result<(), Outcome> {
        let meta = self.file.metadata().await.map_err(|error| unreadable(&error))?;
        let now = FileIdentity::of(&meta);
        if (now.size, now.mtime_ns) == (self.then.size, self.then.mtime_ns) {
            return Ok(());
        }
        Err(Outcome::Failed(JobError::transient(ErrorKind::Io, "the file changed while it was being sent")))
    }
}

/// What an error of the system means for the job.
pub fn unreadable(error: &io::Error) -> Outcome {
    Outcome::Failed(match error.kind() {
        // That is no fault of the file's.
        _ if os::is_shortage(error) => {
            let message = format!("the file can't be opened for now ({error})");
            return Outcome::Deferred { after: None, error: JobError::transient(ErrorKind::Io, message) };
        }
        io::ErrorKind::NotFound => JobError::transient(ErrorKind::Vanished, "the file is gone"),
        io::ErrorKind::PermissionDenied => JobError::transient(
            ErrorKind::Unreadable,
            "the file may not be read by the daemon's user (give it read permission, then retry)",
        ),
        _ => JobError::transient(ErrorKind::Unreadable, format!("the file can't be read ({error})")),
    })
}
