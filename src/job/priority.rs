//! How soon a job wants to run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::state::UnknownName;

/// A level of the queue; higher levels are leased first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// 1: when nothing else waits.
    Low = 1,
    /// 2: the default.
    #[default]
    Normal = 2,
    /// 3: before normal work; as high as ageing lifts.
    High = 3,
    /// 4: always first.
    Urgent = 4,
}

impl Priority {
    /// Every level, lowest first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Urgent];

    /// The level that the tables hold as `number`.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.number() == number)
    }

    /// The number that the tables hold.
    pub const fn number(self) -> i64 {
        self as i64
    }

    /// The name that people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| UnknownName::new(text, "low, normal, high, urgent"))
    }
}
