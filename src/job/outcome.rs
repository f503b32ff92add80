//! From what happened to what follows: a processor reports an [`Outcome`], the retry policy turns it into a
//! [`Verdict`] once, and that same value is logged, counted and stored.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::{SkipReason, UnknownName};
use crate::clock::Timestamp;

/// What kind of thing went wrong: data for grouping, never a guess from a message's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// A command ended with a code other than 0.
    Exit,
    /// A command was ended by a signal.
    Signal,
    /// The attempt took longer than the pipeline's `timeout`.
    Timeout,
    /// The command is missing or may not be run.
    Spawn,
    /// The other side answered with a status that is not a success.
    Status,
    /// No connection, or it broke.
    Connection,
    /// The secure connection could not be made.
    Tls,
    /// The file can't be read.
    Unreadable,
    /// The file was gone after the job had been started once.
    Vanished,
    /// It is not a regular file.
    NotAFile,
    /// The processor of a batch said of this very job that it failed.
    Answer,
    /// A placeholder's value can't be put where it is asked for.
    Template,
    /// The file could not be moved or deleted after the processor was done.
    Disposition,
    /// The daemon ended while this job was the only one running.
    Crash,
    /// Anything else that the machine refused.
    Io,
}

impl ErrorKind {
    const ALL: [Self; 15] = [
        Self::Exit,
        Self::Signal,
        Self::Timeout,
        Self::Spawn,
        Self::Status,
        Self::Connection,
        Self::Tls,
        Self::Unreadable,
        Self::Vanished,
        Self::NotAFile,
        Self::Answer,
        Self::Template,
        Self::Disposition,
        Self::Crash,
        Self::Io,
    ];

    /// The name that tables and people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Timeout => "timeout",
            Self::Spawn => "spawn",
            Self::Status => "status",
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::Unreadable => "unreadable",
            Self::Vanished => "vanished",
            Self::NotAFile => "not-a-file",
            Self::Answer => "answer",
            Self::Template => "template",
            Self::Disposition => "disposition",
            Self::Crash => "crash",
            Self::Io => "io",
        }
    }
}

/// What the end of an execution says about its destination: the server that was called, the program that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Testimony {
    /// It is there and did its part, whatever it thinks of the job.
    Up,
    /// It is to blame: any other job would have met the same.
    Down,
    /// It was not reached, through no fault of its own.
    Nothing,
}

impl Testimony {
    /// The testimony of an outcome that came with this exit code or HTTP status.
    pub const fn of(outcome: &Outcome, code: Option<i32>) -> Self {
        match outcome {
            Outcome::Done => Self::Up,
            Outcome::Failed(error) | Outcome::Deferred { error, .. } => error.testimony(code),
            Outcome::Moot(_) | Outcome::Interrupted | Outcome::Cancelled => Self::Nothing,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ErrorKind {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownName::new(text, "a kind of error"))
    }
}

/// What went wrong in an attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobError {
    /// For grouping and branching.
    pub kind: ErrorKind,
    /// For people; one line, bounded by whoever makes it.
    pub message: String,
    /// Whether retrying can't help.
    pub permanent: bool,
}

impl JobError {
    /// An error that another attempt may not meet.
    pub fn transient(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), permanent: false }
    }

    /// An error that every attempt would meet.
    pub fn permanent(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), permanent: true }
    }

    /// What it says about the destination, given the HTTP status that came with it: 5xx is a server's own failure
    /// (RFC 9110, 15.6), any other status is an answer. A command that ran says no more than that it is there. What
    /// can't be helped by waiting blames the job.
    pub const fn testimony(&self, code: Option<i32>) -> Testimony {
        match self.kind {
            ErrorKind::Status => match code {
                Some(500..=599) => Testimony::Down,
                _ => Testimony::Up,
            },
            ErrorKind::Exit | ErrorKind::Signal | ErrorKind::Answer => Testimony::Up,
            ErrorKind::Connection | ErrorKind::Tls | ErrorKind::Timeout | ErrorKind::Spawn if !self.permanent => {
                Testimony::Down
            }
            _ => Testimony::Nothing,
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

/// What an execution came to, as the processor or the worker saw it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The work is done.
    Done,
    /// It went wrong; the error says whether for good.
    Failed(JobError),
    /// Not now: nothing is spent, and `after` is the earliest time that the other side named.
    Deferred {
        /// The least wait that the other side asked for.
        after: Option<Duration>,
        /// Why.
        error: JobError,
    },
    /// There is nothing left to do.
    Moot(SkipReason),
    /// The daemon stopped it, through no fault of the job.
    Interrupted,
    /// A person stopped it.
    Cancelled,
}

/// What follows from an outcome; the store writes it as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// `completed`; one attempt spent.
    Complete,
    /// `retrying`; one attempt spent.
    Retry {
        /// Due then.
        run_at: Timestamp,
        /// What went wrong.
        error: JobError,
    },
    /// `failed`; one attempt spent.
    Fail {
        /// What went wrong.
        error: JobError,
    },
    /// `pending`; nothing spent, the deferral counted.
    Defer {
        /// Due then.
        run_at: Timestamp,
        /// Why.
        error: JobError,
    },
    /// `pending`, due at once; nothing spent.
    Release,
    /// `cancelled`; nothing spent.
    Cancel,
    /// `skipped`; nothing spent.
    Skip(SkipReason),
}

impl Verdict {
    /// The word that the history holds for an execution that ended so.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Complete => "completed",
            Self::Retry { .. } => "retry",
            Self::Fail { .. } => "failed",
            Self::Defer { .. } => "deferred",
            Self::Release => "interrupted",
            Self::Cancel => "cancelled",
            Self::Skip(_) => "skipped",
        }
    }

    /// Whether there was no file to work on.
    pub fn missed_its_file(&self) -> bool {
        match self {
            Self::Skip(reason) => *reason == SkipReason::Vanished,
            Self::Fail { error } => error.kind == ErrorKind::Vanished,
            _ => false,
        }
    }

    /// Whether it spends an attempt.
    pub const fn spends(&self) -> bool {
        matches!(self, Self::Complete | Self::Retry { .. } | Self::Fail { .. })
    }

    /// The error in it.
    pub const fn error(&self) -> Option<&JobError> {
        match self {
            Self::Retry { error, .. } | Self::Fail { error } | Self::Defer { error, .. } => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_destinations_own_failures_are_blamed_on_it() {
        use ErrorKind::*;
        let says = |kind, code| Testimony::of(&Outcome::Failed(JobError::transient(kind, "")), code);
        for (kind, code) in
            [(Connection, None), (Tls, None), (Timeout, None), (Spawn, None), (Status, Some(500)), (Status, Some(503))]
        {
            assert_eq!(says(kind, code), Testimony::Down, "{kind} {code:?}");
        }
        for (kind, code) in
            [(Exit, Some(1)), (Exit, Some(500)), (Signal, None), (Status, Some(408)), (Status, Some(429))]
        {
            assert_eq!(says(kind, code), Testimony::Up, "{kind} {code:?}");
        }
        for kind in [Unreadable, Vanished, NotAFile, Template, Disposition, Crash, Io] {
            assert_eq!(says(kind, Some(500)), Testimony::Nothing, "{kind}");
        }
        let too_long = Outcome::Failed(JobError::permanent(Spawn, "the arguments are too long"));
        assert_eq!(Testimony::of(&too_long, None), Testimony::Nothing);
        assert_eq!(Testimony::of(&Outcome::Done, Some(0)), Testimony::Up);
        assert_eq!(Testimony::of(&Outcome::Interrupted, Some(500)), Testimony::Nothing);
    }
}
