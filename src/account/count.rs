//! What an audit counts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::file::{Lost, Reason};
use crate::job::{SkipReason, StateName};
use crate::watch::{Rule, WaitsFor};

/// Rules that are counted each by itself; the lines of many ignore files could be more.
const MOST_RULES: usize = 1_000;

/// What kind of reason it is: in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Its newest version was processed.
    Completed,
    /// A job waits.
    Waiting,
    /// A job runs.
    Running,
    /// A job failed and is tried again.
    Retrying,
    /// A job failed for good.
    Failed,
    /// A person cancelled its job.
    Cancelled,
    /// Its job turned out to be moot.
    Skipped,
    /// It is known and has no job.
    Known,
    /// A rule leaves it out.
    Excluded,
    /// Its companion is missing.
    NotReady,
    /// It changed, and changes are not asked for.
    Unasked,
    /// Only its status change is newer than what was taken.
    Touched,
    /// It has not been quiet for long enough, or its older version is in hand.
    Settling,
    /// Somebody has it open for writing.
    Open,
    /// It is younger than `min_age`.
    TooYoung,
    /// Its digest is being taken.
    Reading,
    /// A scan comes to it.
    Scanning,
    /// The watch is paused.
    Paused,
    /// Nothing is taken in.
    Shut,
    /// It can't be read.
    Unreadable,
    /// It is gone, and that is not noted yet.
    Gone,
    /// It is gone, and held back from counting as deleted.
    HeldBack,
    /// Nothing explains it.
    Unexplained,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 23] = [
        Self::Completed,
        Self::Waiting,
        Self::Running,
        Self::Retrying,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
        Self::Known,
        Self::Excluded,
        Self::NotReady,
        Self::Unasked,
        Self::Touched,
        Self::Settling,
        Self::Open,
        Self::TooYoung,
        Self::Reading,
        Self::Scanning,
        Self::Paused,
        Self::Shut,
        Self::Unreadable,
        Self::Gone,
        Self::HeldBack,
        Self::Unexplained,
    ];

    /// Its name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Known => "known",
            Self::Excluded => "excluded",
            Self::NotReady => "not_ready",
            Self::Unasked => "unasked",
            Self::Touched => "touched",
            Self::Settling => "settling",
            Self::Open => "open",
            Self::TooYoung => "too_young",
            Self::Reading => "reading",
            Self::Scanning => "scanning",
            Self::Paused => "paused",
            Self::Shut => "intake_closed",
            Self::Unreadable => "unreadable",
            Self::Gone => "gone",
            Self::HeldBack => "held_back",
            Self::Unexplained => "unexplained",
        }
    }

    /// The kind of this reason.
    pub const fn of(reason: &Reason) -> Self {
        match reason {
            Reason::Job(StateName::Completed) => Self::Completed,
            Reason::Job(StateName::Pending) => Self::Waiting,
            Reason::Job(StateName::Running) => Self::Running,
            Reason::Job(StateName::Retrying) => Self::Retrying,
            Reason::Job(StateName::Failed) => Self::Failed,
            Reason::Job(StateName::Cancelled) => Self::Cancelled,
            Reason::Job(StateName::Skipped) | Reason::Skipped(_) => Self::Skipped,
            Reason::Known => Self::Known,
            Reason::Excluded(_) => Self::Excluded,
            Reason::NotReady(_) => Self::NotReady,
            Reason::Unasked => Self::Unasked,
            Reason::Touched => Self::Touched,
            Reason::Unreadable(_) => Self::Unreadable,
            Reason::Paused => Self::Paused,
            Reason::Shut(_) => Self::Shut,
            Reason::Scanning => Self::Scanning,
            Reason::Settling(WaitsFor::Close) => Self::Open,
            Reason::Settling(WaitsFor::Age) => Self::TooYoung,
            Reason::Settling(WaitsFor::Quiet | WaitsFor::SecondLook | WaitsFor::OlderVersion) => Self::Settling,
            Reason::Reading => Self::Reading,
            Reason::Gone => Self::Gone,
            Reason::HeldBack => Self::HeldBack,
            Reason::Unexplained(_) => Self::Unexplained,
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The counts of one watch. Those of the reasons add up to the files, but for the ones that are gone.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Files on disk, and whatever else is no folder.
    pub files: u64,
    /// Folders that were entered.
    pub folders: u64,
    /// How many files have which kind of reason; every kind is there.
    pub by_kind: BTreeMap<Kind, u64>,
    /// The rules that leave files out, by their words, with the number of files.
    pub excluded: BTreeMap<String, (Rule, u64)>,
    /// Files that are left out by rules which are not listed, because there are too many of those.
    pub excluded_otherwise: u64,
    /// Why jobs turned out to be moot.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Unexplained files, the first of them by name.
    pub unexplained: Vec<(PathBuf, Lost)>,
    limit: usize,
}

impl Counts {
    /// Nothing yet; at most `limit` unexplained files are kept by name.
    pub fn new(limit: usize) -> Self {
        Self {
            files: 0,
            folders: 0,
            by_kind: Kind::ALL.into_iter().map(|kind| (kind, 0)).collect(),
            excluded: BTreeMap::new(),
            excluded_otherwise: 0,
            skipped: BTreeMap::new(),
            unexplained: Vec::new(),
            limit,
        }
    }

    /// How many files have this kind of reason.
    pub fn of(&self, kind: Kind) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or_default()
    }

    /// So many files have this reason; `there`: they lie on disk.
    pub(super) fn add(&mut self, reason: &Reason, files: u64, there: bool) {
        *self.by_kind.entry(Kind::of(reason)).or_default() += files;
        if there {
            self.files += files;
        }
        match reason {
            Reason::Excluded(rule) => self.exclude(rule, files),
            Reason::Skipped(reason) => *self.skipped.entry(word(*reason)).or_default() += files,
            _ => (),
        }
    }

    fn exclude(&mut self, rule: &Rule, files: u64) {
        let words = rule.to_string();
        if let Some((_, n)) = self.excluded.get_mut(&words) {
            *n += files;
        } else if self.excluded.len() < MOST_RULES {
            self.excluded.insert(words, (rule.clone(), files));
        } else {
            self.excluded_otherwise += files;
        }
    }

    pub(super) fn unexplained(&mut self, name: PathBuf, lost: Lost) {
        self.add(&Reason::Unexplained(lost), 1, lost != Lost::Delete);
        if self.unexplained.len() < self.limit {
            self.unexplained.push((name, lost));
        }
    }
}

const fn word(reason: SkipReason) -> &'static str {
    reason.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_place_and_a_name_of_its_own() {
        let mut sorted = Kind::ALL;
        sorted.sort();
        assert_eq!(sorted, Kind::ALL);
        let names: std::collections::BTreeSet<&str> = Kind::ALL.map(Kind::as_str).into();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn the_counts_add_up_and_only_the_names_are_bounded() {
        let mut counts = Counts::new(2);
        counts.add(&Reason::Job(StateName::Completed), 1, true);
        counts.add(&Reason::Excluded(Rule::Exclude("*.a".to_owned())), 3, true);
        counts.add(&Reason::Excluded(Rule::Exclude("*.b".to_owned())), 1, true);
        counts.add(&Reason::Skipped(SkipReason::Duplicate { of: crate::job::JobId(1) }), 1, true);
        counts.add(&Reason::Gone, 1, false);
        for n in 0..5 {
            counts.unexplained(n.to_string().into(), Lost::New);
        }
        counts.unexplained("gone".into(), Lost::Delete);
        assert_eq!(counts.files, 11);
        assert_eq!((counts.of(Kind::Unexplained), counts.unexplained.len()), (6, 2));
        assert_eq!((counts.of(Kind::Excluded), counts.excluded["exclude `*.a`"].1), (4, 3));
        assert_eq!(counts.skipped["duplicate"], 1);
        let all: u64 = counts.by_kind.values().sum();
        assert_eq!(all, counts.files + 2, "but for the two that are gone");
    }

    #[test]
    fn rules_beyond_the_bound_are_counted_together() {
        let mut counts = Counts::new(0);
        for n in 0..MOST_RULES + 5 {
            counts.add(&Reason::Excluded(Rule::Exclude(n.to_string())), 1, true);
        }
        assert_eq!((counts.excluded.len(), counts.excluded_otherwise), (MOST_RULES, 5));
    }
}
