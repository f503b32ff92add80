//! How a command fails: what is said, and the exit code.

use std::io;

use crate::control::{Code, LockError, Refusal};
use crate::store::StoreError;

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What is said on stderr, after `ingestd: `; empty: nothing.
    pub message: String,
}

/// What a command returns: its exit code, or why it could not be done.
pub type Done = Result<u8, Failure>;

impl Failure {
    /// It failed (1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: Code::Failed.exit(), message: message.into() }
    }

    /// It was asked for in a way that can't be (2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: Code::Usage.exit(), message: message.into() }
    }

    /// There is no such thing (3).
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: Code::NotFound.exit(), message: message.into() }
    }

    /// Another process holds the database (4).
    pub fn held(message: impl Into<String>) -> Self {
        Self { code: Code::Held.exit(), message: message.into() }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code.exit(), message: refusal.message }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { pid: Some(pid) } => Self::held(format!(
                "process {pid} holds the database (a daemon?); stop it first: systemctl stop ingestd, or kill {pid}"
            )),
            LockError::Held { pid: None } => Self::held("other commands write to the database; try again in a moment"),
            error @ LockError::Io { .. } => Self::failed(error.to_string()),
        }
    }
}

/// Output that can't be written. A reader that has seen enough (`ingestd list | head`) is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: 0, message: String::new() };
        }
        Self::failed(format!("the output can't be written: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(kind) => io::Error::from(kind).into(),
            None => {
                Self::failed(format!("the answer is not understood ({error}); are daemon and command of one version?"))
            }
        }
    }
}
