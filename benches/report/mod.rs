//! Rounds of pairs, and the table that they are printed into.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What a piece of work took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// By the clock on the wall.
    pub wall: Duration,
    /// Of processors, by all threads of this process: what other processes do to the machine is not in it.
    pub cpu: Duration,
}

impl AddAssign for Took {
    fn add_assign(&mut self, more: Self) {
        self.wall += more.wall;
        self.cpu += more.cpu;
    }
}

/// Measures from its making.
pub struct Watch {
    begun: Instant,
    cpu: Duration,
}

impl Watch {
    /// Begins.
    pub fn start() -> Self {
        Self { begun: Instant::now(), cpu: cpu() }
    }

    /// What it took since.
    pub fn stop(&self) -> Took {
        Took { wall: self.begun.elapsed(), cpu: cpu().saturating_sub(self.cpu) }
    }
}

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

/// What two ways of doing the same took, round by round.
pub struct Rounds {
    ours: Vec<Took>,
    other: Vec<Took>,
}

impl Rounds {
    /// Takes `n` rounds. Who goes first changes with each, so that neither always finds the disk busy with the
    /// other's leftovers.
    pub fn take(n: usize, mut ours: impl FnMut() -> Took, mut other: impl FnMut() -> Took) -> Self {
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
            let wall = format!("{:.2?} beside {:.2?}", ours.wall, other.wall);
            eprintln!("  round {}: {wall}, processors {:.2?} beside {:.2?}", round + 1, ours.cpu, other.cpu);
        }
        let cpu = rounds.median_of(|took| took.cpu.as_secs_f64());
        eprintln!("  ratio {:.2}, by processor time {cpu:.2}", rounds.ratio());
        rounds
    }

    /// How many times as fast ours is: the median over the rounds.
    pub fn ratio(&self) -> f64 {
        self.median_of(|took| took.wall.as_secs_f64())
    }

    /// What a round took, ours and the other's: medians.
    pub fn medians(&self) -> (Duration, Duration) {
        let of = |times: &[Took]| median(times.iter().map(|took| took.wall).collect());
        (of(&self.ours), of(&self.other))
    }

    fn median_of(&self, seconds: impl Fn(&Took) -> f64) -> f64 {
        let mut of: Vec<f64> =
            self.ours.iter().zip(&self.other).map(|(ours, other)| seconds(other) / seconds(ours)).collect();
        of.sort_unstable_by(f64::total_cmp);
        of[of.len() / 2]
    }

    /// Our rate, and the other's, of `n` things a round: medians.
    pub fn rates(&self, n: i64) -> (String, String) {
        let rate = |times: &[Took]| {
            let wall = median(times.iter().map(|took| took.wall).collect());
            format!("{}/s", grouped(n as f64 / wall.as_secs_f64()))
        };
        (rate(&self.ours), rate(&self.other))
    }

    /// What one of `n` things in a round took, ours and the other's: medians.
    pub fn each(&self, n: u32) -> (String, String) {
        let each = |times: &[Took]| ms(median(times.iter().map(|took| took.wall / n).collect()));
        (each(&self.ours), each(&self.other))
    }
}

/// Milliseconds, as they are printed.
pub fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1_000.0)
}

/// Megabytes, as they are printed.
pub fn mb(of: f64) -> String {
    format!("{of:.1} MB")
}

/// The median.
pub fn median(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}

/// What 99 of 100 are not above.
pub fn percentile_99(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() * 99 / 100]
}

/// A whole number, as it is printed: in groups of three digits.
pub fn grouped(number: f64) -> String {
    let mut digits = format!("{number:.0}");
    let mut at = digits.len();
    while at > 3 {
        at -= 3;
        digits.insert(at, ' ');
    }
    digits
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

    /// A ratio that is not more than this.
    pub fn at_most(ratio: f64, aim: f64) -> Self {
        Self(format!("≤ {aim}: {}", reached(ratio <= aim)))
    }

    /// A figure that is not more than this.
    pub fn up_to(figure: f64, aim: f64, unit: &str) -> Self {
        Self(format!("≤ {aim} {unit}: {}", reached(figure <= aim)))
    }

    /// Something that has to be so.
    pub fn that(what: &str, is_so: bool) -> Self {
        Self(format!("{what}: {}", reached(is_so)))
    }

    /// A figure that is less than this.
    pub fn under(figure: f64, aim: f64, unit: &str) -> Self {
        Self(format!("< {aim} {unit}: {}", reached(figure < aim)))
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
