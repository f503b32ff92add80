//! From sightings over time to a whole file. Pure: time, identity and the probe's answer come in by parameter.
//!
//! A file is *whole* when nobody has it open for writing and it has been quiet for `settle`. Its last change is the
//! newest of: the last event about it, the moment its identity was first seen to differ, and, for a file that a
//! scan found, what its own times say. With `settle = "0s"` it is whole at its close event; without one, when the
//! probe says that nobody writes; where no probe is possible, at two equal sightings [`UNPROBED`] apart. With
//! `min_age` it also waits until its modification is that long ago, by the clock that dates files ([`young_for`]).
//!
//! A file that somebody has open is looked at again at growing intervals, in case its close event was lost.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::job::FileIdentity;
use crate::os::Writers;

/// How far two equal sightings lie apart, where there is neither a quiet time, nor a close event, nor a probe.
pub const UNPROBED: Duration = Duration::from_secs(1);
/// The shortest and the longest time between two looks at a file that somebody has open.
const REOPEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// When a file is looked at that waits for something else than time.
const PARKED: Duration = Duration::from_mins(10);
/// When a file that is too young is looked at again at the latest: the clock that dates it may be set.
const YOUNG: Duration = Duration::from_mins(10);

/// What an event says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Something changed.
    Changed,
    /// Somebody who could write closed it.
    Closed,
}

/// What a file waits for that is not taken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// To have been quiet for `settle`.
    Quiet,
    /// Its writer to close it.
    Close,
    /// A second look that finds it as it was.
    SecondLook,
    /// Its modification to be `min_age` ago.
    Age,
    /// Its older version, which is in hand.
    OlderVersion,
}

/// What is known of a file that is not whole yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// As it was at the last look.
    pub identity: Option<FileIdentity>,
    /// When it was first noticed.
    pub since: Instant,
    /// When it last changed, as far as we know.
    pub quiet_since: Instant,
    /// Whether its newest event was a close.
    pub closed: bool,
    /// What it waits for, as of the last look.
    pub waits_for: WaitsFor,
    /// Whether it shall be processed although nothing changed.
    pub force: bool,
    due: Instant,
}

impl Sighting {
    /// When it is looked at next.
    pub const fn due(&self) -> Instant {
        self.due
    }
}

/// What to do about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take it.
    Whole,
    /// Look again then; until then it waits for this.
    Wait(Instant, WaitsFor),
}

/// How long it is until a file was modified `min_age` ago, at this time of the wall clock. A file from the future
/// waits for longer than `min_age`.
pub fn young_for(min_age: Duration, identity: &FileIdentity, wall: Timestamp) -> Duration {
    if min_age.is_zero() {
        return Duration::ZERO;
    }
    let age_ns = i128::from(wall.as_millis()) * 1_000_000 - i128::from(identity.mtime_ns);
    let left_ns = i128::try_from(min_age.as_nanos()).unwrap_or(i128::MAX).saturating_sub(age_ns);
    Duration::from_nanos(u64::try_from(left_ns.max(0)).unwrap_or(u64::MAX))
}

/// Decides about a file that was just looked at, and that is too young for as long as `young`.
pub fn decide(settle: Duration, file: &Sighting, writers: Writers, young: Duration, now: Instant) -> Decision {
    let by_close = settle.is_zero() && file.closed;
    let (quiet, waits_for) = match writers {
        _ if by_close => (Duration::ZERO, WaitsFor::Quiet),
        Writers::Some => {
            let pause = (now.duration_since(file.since) / 4).clamp(REOPEN.0, REOPEN.1);
            return Decision::Wait(now + pause.max(settle.min(REOPEN.1)), WaitsFor::Close);
        }
        Writers::Unknown if settle.is_zero() => (UNPROBED, WaitsFor::SecondLook),
        Writers::None | Writers::Unknown => (settle, WaitsFor::Quiet),
    };
    let whole_at = file.quiet_since + quiet;
    if !young.is_zero() && now + young.min(YOUNG) > whole_at {
        return Decision::Wait(now + young.min(YOUNG), WaitsFor::Age);
    }
    if whole_at <= now { Decision::Whole } else { Decision::Wait(whole_at, waits_for) }
}

/// How long a file has been as it is, by its own times; nothing for one from the future.
pub fn unchanged_for(identity: &FileIdentity, wall: Timestamp) -> Duration {
    let changed_ms = identity.mtime_ns.max(identity.ctime_ns) / 1_000_000;
    Duration::from_millis(u64::try_from(wall.as_millis().saturating_sub(changed_ms)).unwrap_or(0))
}

/// Whether a file that was found without any event is whole, given how long it has been as it is.
pub fn whole_by_age(settle: Duration, age: Duration, writers: Writers) -> bool {
    match writers {
        Writers::Some => false,
        Writers::None => age >= settle,
        Writers::Unknown if settle.is_zero() => age >= UNPROBED,
        Writers::Unknown => age >= settle,
    }
}

/// The files of a watch that are not whole yet, each with the time of its next look. Bounded.
#[derive(Debug)]
pub struct Settling {
    settle: Duration,
    limit: usize,
    files: HashMap<PathBuf, Sighting>,
    order: BTreeSet<(Instant, PathBuf)>,
    open: usize,
    young: usize,
}

impl Settling {
    /// An empty set that takes at most `limit` files.
    pub fn new(settle: Duration, limit: usize) -> Self {
        Self { settle, limit, files: HashMap::new(), order: BTreeSet::new(), open: 0, young: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many of them somebody had open for writing at the last look.
    pub const fn still_open(&self) -> usize {
        self.open
    }

    /// What is known of this file, if it is among them.
    pub fn get(&self, relative: &Path) -> Option<&Sighting> {
        self.files.get(relative)
    }

    /// Whether this file is among them.
    pub fn contains(&self, relative: &Path) -> bool {
        self.files.contains_key(relative)
    }

    /// How many of them only waited for their age at the last look.
    pub const fn too_young(&self) -> usize {
        self.young
    }

    /// Whether `more` find room.
    pub fn has_room(&self, more: usize) -> bool {
        self.files.len() + more <= self.limit
    }

    /// The files, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Sighting)> {
        self.files.iter().map(|(relative, file)| (relative.as_path(), file))
    }

    /// Those that shall be processed although nothing changed.
    pub fn forced(&self) -> impl Iterator<Item = &Path> {
        self.iter().filter(|(_, file)| file.force).map(|(relative, _)| relative)
    }

    /// When the next look is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.files.clear();
        self.order.clear();
        self.open = 0;
        self.young = 0;
    }

    /// An event came. `false`: there is no room, so a scan has to find the file later.
    pub fn noticed(&mut self, relative: PathBuf, sign: Sign, now: Instant) -> bool {
        let Some(file) = self.files.get_mut(&relative) else {
            let due = now + self.settle;
            let file = Sighting {
                identity: None,
                since: now,
                quiet_since: now,
                closed: sign == Sign::Closed,
                waits_for: WaitsFor::Quiet,
                force: false,
                due,
            };
            return self.insert(relative, file);
        };
        file.quiet_since = now;
        file.closed = sign == Sign::Closed;
        if file.closed && now + self.settle < file.due {
            self.reschedule(&relative, now + self.settle);
        }
        true
    }

    /// A scan found a file that is new or changed; its own times say that it has been like that for `age`.
    /// `false`: there is no room.
    pub fn found(
        &mut self,
        relative: PathBuf,
        identity: FileIdentity,
        age: Duration,
        force: bool,
        now: Instant,
    ) -> bool {
        if let Some(file) = self.files.get_mut(&relative) {
            file.force |= force;
            if file.identity.is_some_and(|known| known != identity) {
                file.quiet_since = now;
            }
            file.identity = Some(identity);
            return true;
        }
        let quiet_since = now.checked_sub(age).unwrap_or(now);
        let due = (quiet_since + self.settle).max(now);
        let (closed, waits_for) = (false, WaitsFor::Quiet);
        let file = Sighting { identity: Some(identity), since: now, quiet_since, closed, waits_for, force, due };
        self.insert(relative, file)
    }

    /// At most `limit` files whose look is due. Each stays until it was [`Self::looked`] at or [`Self::remove`]d.
    pub fn due(&self, now: Instant, limit: usize) -> Vec<PathBuf> {
        let due = self.order.iter().take_while(|(due, _)| *due <= now);
        due.take(limit).map(|(_, relative)| relative.clone()).collect()
    }

    /// Whether a look at this file should ask who writes it: not where its close event decides.
    pub fn wants_probe(&self, relative: &Path) -> bool {
        !(self.settle.is_zero() && self.files.get(relative).is_some_and(|file| file.closed))
    }

    /// Notes a look at a file that is too young for as long as `young`, and answers whether it is whole; it then
    /// leaves the set, with what is known of it.
    pub fn looked(
        &mut self,
        relative: &Path,
        identity: FileIdentity,
        writers: Writers,
        young: Duration,
        now: Instant,
    ) -> Option<Sighting> {
        let settle = self.settle;
        let file = self.files.get_mut(relative)?;
        if file.identity.is_some_and(|known| known != identity) {
            file.quiet_since = now;
        }
        file.identity = Some(identity);
        match decide(settle, file, writers, young, now) {
            Decision::Whole => self.remove(relative),
            Decision::Wait(until, waits_for) => {
                self.note_wait(relative, waits_for);
                self.reschedule(relative, until);
                None
            }
        }
    }

    fn note_wait(&mut self, relative: &Path, waits_for: WaitsFor) {
        if let Some(file) = self.files.get_mut(relative) {
            let before = std::mem::replace(&mut file.waits_for, waits_for);
            self.count(before, false);
            self.count(waits_for, true);
        }
    }

    const fn count(&mut self, waits_for: WaitsFor, more: bool) {
        let counter = match waits_for {
            WaitsFor::Close => &mut self.open,
            WaitsFor::Age => &mut self.young,
            WaitsFor::Quiet | WaitsFor::SecondLook | WaitsFor::OlderVersion => return,
        };
        *counter = if more { *counter + 1 } else { *counter - 1 };
    }

    /// Puts a file off until [`Self::wake`], because its older version is still in hand.
    pub fn park(&mut self, relative: &Path, now: Instant) {
        self.note_wait(relative, WaitsFor::OlderVersion);
        self.reschedule(relative, now + PARKED);
    }

    /// A file can't be looked at, or read, for now: it is looked at again after this pause. `false`: there is no room.
    pub fn again(&mut self, relative: &Path, force: bool, pause: Duration, now: Instant) -> bool {
        if !self.contains(relative) && !self.noticed(relative.to_owned(), Sign::Changed, now) {
            return false;
        }
        if let Some(file) = self.files.get_mut(relative) {
            file.force |= force;
        }
        self.reschedule(relative, now + pause);
        true
    }

    /// Looks at a file now, if it is in the set.
    pub fn wake(&mut self, relative: &Path, now: Instant) {
        self.reschedule(relative, now);
    }

    /// Forgets a file.
    pub fn remove(&mut self, relative: &Path) -> Option<Sighting> {
        let (relative, file) = self.files.remove_entry(relative)?;
        self.order.remove(&(file.due, relative));
        self.count(file.waits_for, false);
        Some(file)
    }

    fn insert(&mut self, relative: PathBuf, file: Sighting) -> bool {
        if !self.has_room(1) {
            return false;
        }
        self.order.insert((file.due, relative.clone()));
        self.files.insert(relative, file);
        true
    }

    fn reschedule(&mut self, relative: &Path, due: Instant) {
        if let Some(file) = self.files.get_mut(relative) {
            let mut key = (file.due, relative.to_owned());
            self.order.remove(&key);
            file.due = due;
            key.0 = due;
            self.order.insert(key);
        }
    }
}

#[cfg(test)]
mod tests;
