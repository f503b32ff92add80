//! From sightings over time to a whole file. Pure: time, identity and the probe's answer come in by parameter.
//!
//! A file is *whole* when nobody has it open for writing and it has been quiet for `settle`. Its last change is the
//! newest of: the last event about it, the moment its identity was first seen to differ, and, for a file that a
//! scan found, what its own times say. With `settle = "0s"` it is whole at its close event; without one, when the
//! probe says that nobody writes; where no probe is possible, at two equal sightings [`UNPROBED`] apart.
//!
//! A file that somebody has open is looked at again at growing intervals, in case its close event was lost.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::job::FileIdentity;
use crate::os::Writers;

/// How far two equal sightings lie apart, where there is neither a quiet time, nor a close event, nor a probe.
pub const UNPROBED: Duration = Duration::from_secs(1);
/// The shortest and the longest time between two looks at a file that somebody has open.
const REOPEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// When a file is looked at that waits for something else than time.
const PARKED: Duration = Duration::from_mins(10);

/// What an event says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Something changed.
    Changed,
    /// Somebody who could write closed it.
    Closed,
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
    /// Whether somebody had it open for writing at the last look.
    pub open: bool,
    /// Whether it shall be processed although nothing changed.
    pub force: bool,
    due: Instant,
}

/// What to do about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take it.
    Whole,
    /// Look again then.
    Wait(Instant),
}

/// Decides about a file that was just looked at.
pub fn decide(settle: Duration, file: &Sighting, writers: Writers, now: Instant) -> Decision {
    if settle.is_zero() && file.closed {
        return Decision::Whole;
    }
    let quiet = match writers {
        Writers::Some => {
            let pause = (now.duration_since(file.since) / 4).clamp(REOPEN.0, REOPEN.1);
            return Decision::Wait(now + pause.max(settle.min(REOPEN.1)));
        }
        Writers::None => settle,
        Writers::Unknown if settle.is_zero() => UNPROBED,
        Writers::Unknown => settle,
    };
    let whole_at = file.quiet_since + quiet;
    if whole_at <= now { Decision::Whole } else { Decision::Wait(whole_at) }
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
}

impl Settling {
    /// An empty set that takes at most `limit` files.
    pub fn new(settle: Duration, limit: usize) -> Self {
        Self { settle, limit, files: HashMap::new(), order: BTreeSet::new(), open: 0 }
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

    /// Whether this file is among them.
    pub fn contains(&self, relative: &Path) -> bool {
        self.files.contains_key(relative)
    }

    /// Whether `more` find room.
    pub fn has_room(&self, more: usize) -> bool {
        self.files.len() + more <= self.limit
    }

    /// The files, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Sighting)> {
        self.files.iter().map(|(relative, file)| (relative.as_path(), file))
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
                open: false,
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
        let file =
            Sighting { identity: Some(identity), since: now, quiet_since, closed: false, open: false, force, due };
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

    /// Notes a look, and answers whether the file is whole; it then leaves the set, with what is known of it.
    pub fn looked(
        &mut self,
        relative: &Path,
        identity: FileIdentity,
        writers: Writers,
        now: Instant,
    ) -> Option<Sighting> {
        let settle = self.settle;
        let file = self.files.get_mut(relative)?;
        if file.identity.is_some_and(|known| known != identity) {
            file.quiet_since = now;
        }
        file.identity = Some(identity);
        let open = writers == Writers::Some;
        self.open = self.open + usize::from(open) - usize::from(file.open);
        file.open = open;
        match decide(settle, file, writers, now) {
            Decision::Whole => self.remove(relative),
            Decision::Wait(until) => {
                self.reschedule(relative, until);
                None
            }
        }
    }

    /// Puts a file off until [`Self::wake`], because its older version is still in hand.
    pub fn park(&mut self, relative: &Path, now: Instant) {
        self.reschedule(relative, now + PARKED);
    }

    /// Looks at a file now, if it is in the set.
    pub fn wake(&mut self, relative: &Path, now: Instant) {
        self.reschedule(relative, now);
    }

    /// Forgets a file.
    pub fn remove(&mut self, relative: &Path) -> Option<Sighting> {
        let (relative, file) = self.files.remove_entry(relative)?;
        self.order.remove(&(file.due, relative));
        self.open -= usize::from(file.open);
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
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn identity(size: u64) -> FileIdentity {
        FileIdentity { size, ..FileIdentity::default() }
    }

    fn settling(settle: Duration) -> (Settling, Instant, PathBuf) {
        (Settling::new(settle, 10), Instant::now(), PathBuf::from("a"))
    }

    #[test]
    fn a_file_is_whole_when_quiet_for_settle_and_nobody_writes() {
        let (mut files, start, a) = settling(SECOND);
        assert!(files.noticed(a.clone(), Sign::Changed, start));
        assert!(files.due(start, 10).is_empty());
        let later = start + SECOND / 2;
        files.noticed(a.clone(), Sign::Changed, later);
        // Looked at a second after the first event: the second event is only half a second old.
        let now = start + SECOND;
        assert_eq!(files.due(now, 10), std::slice::from_ref(&a));
        assert!(files.looked(&a, identity(1), Writers::None, now).is_none());
        assert_eq!(files.next_due(), Some(later + SECOND));
        assert!(files.looked(&a, identity(1), Writers::None, later + SECOND).is_some());
        assert!(files.is_empty() && files.next_due().is_none());
    }

    #[test]
    fn a_file_that_somebody_writes_waits_whatever_its_age_and_a_close_brings_the_look_forward() {
        let (mut files, start, a) = settling(SECOND);
        files.found(a.clone(), identity(1), SECOND * 1000, false, start);
        assert_eq!(files.due(start, 10), std::slice::from_ref(&a));
        assert!(files.looked(&a, identity(1), Writers::Some, start).is_none());
        let much_later = start + SECOND * 100;
        assert!(files.looked(&a, identity(1), Writers::Some, much_later).is_none());
        assert_eq!(files.next_due(), Some(much_later + REOPEN.1));
        files.noticed(a.clone(), Sign::Closed, much_later);
        assert_eq!(files.next_due(), Some(much_later + SECOND));
    }

    #[test]
    fn a_change_that_no_event_told_starts_the_quiet_time_anew() {
        let (mut files, start, a) = settling(SECOND);
        files.found(a.clone(), identity(1), Duration::ZERO, false, start);
        assert!(files.looked(&a, identity(2), Writers::Unknown, start + SECOND).is_none());
        assert!(files.looked(&a, identity(2), Writers::Unknown, start + SECOND * 2).is_some());
    }

    #[test]
    fn an_old_file_that_nobody_has_open_is_whole_at_once() {
        let (mut files, now, a) = settling(SECOND);
        files.found(a.clone(), identity(1), SECOND * 2, false, now);
        assert_eq!(files.due(now, 10), std::slice::from_ref(&a));
        assert!(files.looked(&a, identity(1), Writers::None, now).is_some());
    }

    #[test]
    fn without_settle_the_close_event_decides_then_the_probe_then_two_equal_sightings() {
        let (mut files, now, a) = settling(Duration::ZERO);
        files.noticed(a.clone(), Sign::Closed, now);
        assert!(!files.wants_probe(&a));
        assert!(files.looked(&a, identity(1), Writers::Unknown, now).is_some());

        files.noticed(a.clone(), Sign::Changed, now);
        assert!(files.wants_probe(&a));
        assert!(files.looked(&a, identity(1), Writers::Some, now).is_none());
        assert!(files.looked(&a, identity(1), Writers::None, now).is_some());

        files.noticed(a.clone(), Sign::Changed, now);
        assert!(files.looked(&a, identity(1), Writers::Unknown, now).is_none());
        assert!(files.looked(&a, identity(2), Writers::Unknown, now + UNPROBED).is_none());
        assert!(files.looked(&a, identity(2), Writers::Unknown, now + UNPROBED * 2).is_some());
    }

    #[test]
    fn the_set_is_bounded_and_a_parked_file_wakes() {
        let (mut files, now, a) = settling(SECOND);
        for n in 0..10 {
            assert!(files.noticed(PathBuf::from(n.to_string()), Sign::Changed, now));
        }
        assert!(!files.noticed(a.clone(), Sign::Changed, now));
        assert!(files.noticed(PathBuf::from("3"), Sign::Changed, now));
        files.remove(Path::new("0"));
        assert!(files.noticed(a.clone(), Sign::Changed, now));
        files.park(&a, now);
        assert!(!files.due(now + SECOND, 100).contains(&a));
        files.wake(&a, now);
        assert!(files.due(now, 100).contains(&a));
    }
}
