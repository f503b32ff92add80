//! The names of a run's types and states, as tables, JSON and people use them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::job::UnknownName;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunType {
    /// The first of its name that goes through.
    Initial,
    /// A later one, at a start or because a person asked for it.
    Incremental,
    /// Events were lost, or the daemon crashed: it finds what was missed.
    Recovery,
}

impl RunType {
    const ALL: [Self; 3] = [Self::Initial, Self::Incremental, Self::Recovery];

    /// The name that tables and people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Incremental => "incremental",
            Self::Recovery => "recovery",
        }
    }
}

impl fmt::Display for RunType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RunType {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| UnknownName::new(text, "initial, incremental, recovery"))
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// At work, or broken off and going on by itself.
    Running,
    /// Stopped by a person, until a person resumes it.
    Paused,
    /// It went through.
    Completed,
    /// It can't go on.
    Failed,
    /// Given up by a person, or because what it is about does not exist any more.
    Cancelled,
}

impl RunState {
    const ALL: [Self; 5] = [Self::Running, Self::Paused, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name that tables and people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing leads out of it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RunState {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| UnknownName::new(text, "running, paused, completed, failed, cancelled"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in RunType::ALL {
            assert_eq!(name.as_str().parse(), Ok(name));
        }
        for name in RunState::ALL {
            assert_eq!(name.as_str().parse(), Ok(name));
            assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
        }
        assert!("done".parse::<RunState>().is_err());
    }
}
