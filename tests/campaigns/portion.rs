//! How much of a walk over many points one run takes, so that each run has an end and figures of its own.
//!
//! - `INGESTD_PART=K/N`: the K-th of N parts, which are N runs. Together they are everything, and none has a point of
//!   another: of the points in their order it is every N-th, so that each part has its share of every kind.
//! - `INGESTD_MINUTES=M`: no new point after so many minutes; which points come first is by chance, from the seed.
//! - Neither: everything.
//!
//! When it is over it says how far it came.

use std::fmt;
use std::time::{Duration, Instant};

/// The points of a run that are still to be visited.
pub struct Portion<T> {
    walk: &'static str,
    points: std::vec::IntoIter<T>,
    part: String,
    all: usize,
    visited: usize,
    end: Option<Instant>,
}

impl<T> Portion<T> {
    /// What is asked for, of all the points of this walk.
    ///
    /// # Panics
    ///
    /// If what is asked for makes no sense.
    #[track_caller]
    pub fn of(walk: &'static str, points: Vec<T>, random: &mut fastrand::Rng) -> Self {
        let part = std::env::var("INGESTD_PART").unwrap_or_else(|_| "1/1".to_owned());
        let minutes = std::env::var("INGESTD_MINUTES").ok().map(|minutes| minutes.parse().expect("INGESTD_MINUTES=M"));
        Self::cut(walk, points, part, minutes, random)
    }

    #[track_caller]
    fn cut(walk: &'static str, points: Vec<T>, part: String, minutes: Option<u64>, random: &mut fastrand::Rng) -> Self {
        let numbers = part.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        let (number, parts): (usize, usize) = numbers.expect("INGESTD_PART=K/N");
        assert!((1..=parts).contains(&number), "INGESTD_PART={part}: the parts are 1 to {parts}");
        let all = points.len();
        let mut points: Vec<T> = points.into_iter().skip(number - 1).step_by(parts).collect();
        if minutes.is_some() {
            random.shuffle(&mut points);
        }
        let end = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
        Self { walk, points: points.into_iter(), part, all, visited: 0, end }
    }
}

impl<T> Iterator for Portion<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.end.is_some_and(|end| Instant::now() >= end) {
            return None;
        }
        let next = self.points.next();
        self.visited += usize::from(next.is_some());
        next
    }
}

/// How far it came.
impl<T> fmt::Display for Portion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { walk, part, all, visited, .. } = self;
        write!(f, "{walk}: {visited} of {all} points visited")?;
        if part == "1/1" { Ok(()) } else { write!(f, ", part {part}") }
    }
}

impl<T> Drop for Portion<T> {
    fn drop(&mut self) {
        eprintln!("{self}");
    }
}

mod control {
    use super::*;

    fn portion(part: &str, minutes: Option<u64>) -> Portion<usize> {
        Portion::cut("walk", (0..10).collect(), part.to_owned(), minutes, &mut fastrand::Rng::with_seed(7))
    }

    #[test]
    fn parts_are_everything_together_and_share_nothing() {
        let mut all: Vec<usize> = ["1/3", "2/3", "3/3"].into_iter().flat_map(|part| portion(part, None)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert!(portion("1/1", None).eq(0..10));
    }

    #[test]
    fn a_walk_without_time_ends_and_says_how_far_it_came() {
        let mut none = portion("2/5", Some(0));
        assert_eq!(none.next(), None);
        assert_eq!(none.to_string(), "walk: 0 of 10 points visited, part 2/5");
        let mut hour = portion("1/1", Some(60));
        assert_eq!(hour.by_ref().count(), 10);
        assert_eq!(hour.to_string(), "walk: 10 of 10 points visited");
    }
}
