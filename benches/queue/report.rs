//! Rounds of pairs, and the table that they are printed into.

use std::time::Duration;

/// The times that two ways of doing the same took, round by round.
pub struct Rounds {
    ours: Vec<Duration>,
    other: Vec<Duration>,
}

impl Rounds {
    /// Takes `n` rounds. Who goes first changes with each, so that neither always finds the disk busy with the
    /// other's leftovers.
    pub fn take(n: usize, mut ours: impl FnMut() -> Duration, mut other: impl FnMut() -> Duration) -> Self {
        let mut rounds = Self { ours: Vec::new(), other: Vec::new() };
        for round in 0..n {
            if round % 2 == 1 {
                rounds.other.push(other());
            }
            rounds.ours.push(ours());
            if round % 2 == 0 {
                rounds.other.push(other());
            }
            let (ours, other) = (rounds.ours[round], rounds.other[round]);
            eprintln!("  round {}: {ours:.2?} beside {other:.2?}", round + 1);
        }
        rounds
    }

    /// How many times as fast ours is: the median over the rounds.
    pub fn ratio(&self) -> f64 {
        let of = self.ours.iter().zip(&self.other).map(|(ours, other)| other.as_secs_f64() / ours.as_secs_f64());
        middle(of.collect())
    }

    /// Our rate, and the other's, of `n` things a round: medians.
    pub fn rates(&self, n: usize) -> (String, String) {
        let rate = |times: &[Duration]| per_second(n as f64 / median(times.to_vec()).as_secs_f64());
        (rate(&self.ours), rate(&self.other))
    }
}

/// The median.
pub fn median(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}

fn middle(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}

fn per_second(rate: f64) -> String {
    let mut digits = format!("{rate:.0}");
    let mut at = digits.len();
    while at > 3 {
        at -= 3;
        digits.insert(at, ' ');
    }
    format!("{digits}/s")
}

/// What a figure should reach, and whether it did.
pub struct Aim(String);

impl Aim {
    /// Measured for its own sake.
    pub fn none() -> Self {
        Self(String::new())
    }

    /// A ratio that is not less than this.
    pub fn at_least(ratio: f64, aim: f64) -> Self {
        Self(format!("≥ {aim}: {}", reached(ratio >= aim)))
    }
}

const fn reached(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// Prints the table's head.
pub fn head() {
    println!("| what | ours | beside it | ratio | aim |\n|---|---|---|---|---|");
}

/// Prints a row.
pub fn row(what: &str, ours: &str, beside: &str, ratio: Option<f64>, aim: &Aim) {
    let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    println!("| {what} | {ours} | {beside} | {ratio} | {} |", aim.0);
}
