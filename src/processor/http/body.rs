//! What a call sends: the file from disk, or the job's description.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::job::{ErrorKind, FileIdentity, JobError};
use crate::processor::Task;

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

/// The job's description, a JSON document. A path that is not UTF-8 is there with replacement characters, and exact
/// in `path_base64`.
pub fn description(task: &Task) -> String {
    let metadata = task.metadata.as_deref().map(|text| {
        // Whoever enqueued it made sure that it is JSON; if it is not after all, it goes as it is.
        serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
    });
    let mut document = json!({
        "job": task.job,
        "attempt": task.attempt,
        "pipeline": task.pipeline,
        "watch": task.watch,
        "path": task.path.to_string_lossy(),
        "relative": task.relative.to_string_lossy(),
        "op": task.op,
        "moved_from": task.moved_from.as_ref().map(|path| path.to_string_lossy()),
        "digest": task.digest.map(|digest| digest.to_string()),
        "size_bytes": task.size,
        "idempotency_key": task.idempotency_key.to_string(),
        "metadata": metadata,
    });
    if task.path.to_str().is_none() {
        let exact = base64::engine::general_purpose::STANDARD.encode(task.path.as_os_str().as_bytes());
        document["path_base64"] = exact.into();
    }
    document.to_string()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::processor::tests::task;

    #[test]
    fn the_description_holds_what_the_interface_promises() {
        let mut task = task("/in/a.pdf");
        task.metadata = Some(r#"{"a":[1]}"#.to_owned());
        let document: Value = serde_json::from_str(&description(&task)).unwrap();
        assert_eq!(
            document,
            json!({"job": 1, "attempt": 1, "pipeline": "docs", "watch": "inbox", "path": "/in/a.pdf",
                   "relative": "in/a.pdf", "op": "add", "moved_from": null, "digest": null, "size_bytes": 0,
                   "idempotency_key": "07".repeat(32), "metadata": {"a": [1]}})
        );
    }

    #[test]
    fn a_path_that_is_not_utf8_is_exact_in_base64() {
        let mut task = task("/");
        task.path = OsString::from_vec(b"/\xff".to_vec()).into();
        let document: Value = serde_json::from_str(&description(&task)).unwrap();
        assert_eq!((&document["path"], &document["path_base64"]), (&json!("/\u{fffd}"), &json!("L/8=")));
    }
}
