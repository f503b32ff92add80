//! The brake on mass deletion. Pure: counts and time come in by parameter.
//!
//! A mount that is gone, a disk that was swapped or a slip of the hand look like thousands of deletions. When more than
//! `above` files and more than `share` of the known ones are gone at once, or all that was known from a root that holds
//! nothing at all any more, then nothing is noted as deleted: until `wait` has passed, a person confirms it, or most of
//! the files are there again.
//!
//! *At once* is: in one full scan, where files that are new are set off against those that are gone, because a folder
//! that was renamed is no mass deletion; or, where events tell of them, within [`WINDOW`].

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::DeleteBrake;

/// How long files that events tell of are counted together.
const WINDOW: Duration = Duration::from_mins(1);

/// Decides whether files that are gone count as deleted.
#[derive(Debug)]
pub(super) struct Brake {
    rule: DeleteBrake,
    held: Option<Held>,
    confirmed: bool,
    /// How many files events told of lately.
    recent: VecDeque<(Instant, u64)>,
}

/// Deletions that are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// How many files.
    pub files: u64,
    /// How many there were at the most.
    peak: u64,
    /// Until when.
    pub until: Instant,
}

/// What a full scan saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Losses {
    /// Known files that are gone.
    pub gone: u64,
    /// Files that are new.
    pub new: u64,
    /// Known files, present or gone.
    pub known: u64,
    /// Whether the root holds nothing at all.
    pub emptied: bool,
}

impl Brake {
    pub const fn new(rule: DeleteBrake) -> Self {
        Self { rule, held: None, confirmed: false, recent: VecDeque::new() }
    }

    /// Whether the files that a full scan found gone count as deleted.
    pub fn after_scan(&mut self, losses: Losses, now: Instant) -> bool {
        // A busy watch always has a few that are gone; what counts is that most of the held ones are back.
        let over = self.held.is_some_and(|held| held.until <= now || losses.gone < held.peak / 2);
        let net = losses.gone.saturating_sub(losses.new);
        let mass = self.held.is_some() || losses.emptied || self.is_mass(net, losses.known);
        if losses.gone == 0 || self.rule.wait.is_zero() || self.confirmed || over || !mass {
            self.held = None;
            self.confirmed = false;
            return true;
        }
        self.hold(losses.gone, now);
        false
    }

    /// Whether files that events told of count as deleted, given how many are known.
    pub fn after_events(&mut self, gone: u64, known: u64, now: Instant) -> bool {
        while self.recent.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.recent.pop_front();
        }
        // Those of one moment are counted as one, so that the list stays short.
        match self.recent.back_mut() {
            Some((at, sum)) if now.duration_since(*at) < WINDOW / 60 => *sum += gone,
            _ => self.recent.push_back((now, gone)),
        }
        let sum = self.recent.iter().map(|(_, gone)| gone).sum();
        if self.rule.wait.is_zero() || (self.held.is_none() && !self.is_mass(sum, known)) {
            return true;
        }
        self.hold(gone, now);
        false
    }

    fn is_mass(&self, gone: u64, known: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a share of files needs no more than 52 bits")]
        let share = gone as f64 > self.rule.share * known as f64;
        gone > self.rule.above && share
    }

    fn hold(&mut self, files: u64, now: Instant) {
        let until = self.held.map_or(now + self.rule.wait, |held| held.until);
        let peak = self.held.map_or(files, |held| held.peak.max(files));
        self.held = Some(Held { files, peak, until });
    }

    /// A person says that the files are gone indeed. It is the next full scan that lets them go.
    pub const fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// What is held back.
    pub const fn held(&self) -> Option<Held> {
        self.held
    }

    /// Forgets what was held back: it was of another root.
    pub fn release(&mut self) {
        self.held = None;
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn brake() -> (Brake, Instant) {
        (Brake::new(DeleteBrake { above: 10, share: 0.5, wait: HOUR }), Instant::now())
    }

    const fn losses(gone: u64, known: u64) -> Losses {
        Losses { gone, new: 0, known, emptied: false }
    }

    #[test]
    fn many_and_most_are_held_until_time_passes_or_a_person_confirms() {
        let (mut brake, now) = brake();
        assert!(brake.after_scan(losses(10, 10), now));
        assert!(brake.after_scan(losses(11, 22), now));
        assert!(!brake.after_scan(losses(12, 22), now));
        assert!(!brake.after_scan(losses(12, 22), now + HOUR / 2));
        assert_eq!(brake.held(), Some(Held { files: 12, peak: 12, until: now + HOUR }));
        assert!(brake.after_scan(losses(12, 22), now + HOUR));
        assert!(!brake.after_scan(losses(12, 22), now));
        brake.confirm();
        assert!(brake.after_scan(losses(12, 22), now));
        assert!(!brake.after_scan(losses(12, 22), now));
    }

    #[test]
    fn most_files_there_again_release_it_and_fewer_do_not() {
        let (mut brake, now) = brake();
        assert!(!brake.after_scan(losses(12, 22), now));
        assert!(!brake.after_scan(losses(6, 22), now));
        assert!(brake.after_scan(losses(5, 22), now));
        assert_eq!(brake.held(), None);
    }

    #[test]
    fn an_emptied_root_is_held_whatever_the_number() {
        let (mut brake, now) = brake();
        assert!(!brake.after_scan(Losses { gone: 1, new: 0, known: 1, emptied: true }, now));
    }

    #[test]
    fn files_that_a_scan_finds_new_are_set_off_against_those_that_are_gone() {
        let (mut brake, now) = brake();
        assert!(brake.after_scan(Losses { gone: 20, new: 20, known: 20, emptied: false }, now));
        assert!(!brake.after_scan(Losses { gone: 20, new: 9, known: 20, emptied: false }, now));
    }

    #[test]
    fn events_are_counted_together_for_a_while() {
        let (mut brake, now) = brake();
        assert!(brake.after_events(10, 16, now));
        assert!(brake.after_events(10, 16, now + WINDOW * 2));
        assert!(!brake.after_events(1, 16, now + WINDOW * 2));
        assert!(!brake.after_events(1, 16, now + WINDOW * 4));
    }

    #[test]
    fn without_a_wait_there_is_no_brake() {
        let mut brake = Brake::new(DeleteBrake { above: 0, share: 0.0, wait: Duration::ZERO });
        assert!(brake.after_scan(Losses { gone: 1, new: 0, known: 1, emptied: true }, Instant::now()));
        assert!(brake.after_events(1, 1, Instant::now()));
    }
}
