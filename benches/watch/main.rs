//! Watch folders, beside the tools that people use in their place: `find`, `inotifywait`, incron, `b3sum`.
//!
//! 1. A figure counts only beside another one of the same minute, as in the benchmark of the queue: ours and the other
//!    in turn, and the ratio is the median of the rounds' ratios. The rounds go to stderr, with the processor time of
//!    both, which tells more than the clock where others use the machine.
//! 2. What is measured is the whole program: the real daemon on a real database, durability full, and the real
//!    commands. Only the digest is called as a function, because that is what the other side of it is.
//! 3. A tool that is not installed is named, and its place in the table stays empty.
//!
//! `cargo bench --bench watch` prints the table of `benches/README.md`. Names after `--` choose subjects; `--long` takes
//! a million files instead of 100 000, and `--files=N` any number. `TMPDIR` chooses the disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a benchmark that can't go on has nothing to say, and its result is what it prints"
)]

mod burst;
#[path = "../daemon/mod.rs"]
mod daemon;
mod digest;
mod latency;
mod onlooker;
mod peer;
#[path = "../report/mod.rs"]
mod report;
mod scan;
mod tree;

use std::cell::OnceCell;
use std::path::Path;

use tree::Tree;

/// What every subject is given.
pub struct Bench {
    /// How many files a scan meets.
    files: u64,
    tree: OnceCell<Tree>,
}

impl Bench {
    /// How many files a scan meets.
    pub const fn files(&self) -> u64 {
        self.files
    }

    /// The tree of all these files, made when it is first asked for.
    pub fn tree(&self) -> &Tree {
        self.tree.get_or_init(|| Tree::make(self.files))
    }
}

/// The subjects, by the names that choose them.
const SUBJECTS: &[(&str, fn(&Bench))] = &[
    ("first", scan::first),
    ("rescan", scan::again),
    ("latency", latency::close_to_start),
    ("burst", burst::four_writers),
    ("digest", digest::beside_b3sum),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs benches too, with this flag; there is nothing to test here.
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    if let [flag, folder, files] = arguments.as_slice()
        && flag == burst::WRITER
    {
        return burst::write(Path::new(folder), files.parse().unwrap());
    }
    let chosen: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let names: Vec<&str> = SUBJECTS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = chosen.iter().find(|name| !names.contains(&name.as_str())) {
        panic!("there is no subject `{unknown}`; there are {}", names.join(", "));
    }
    let bench = Bench { files: files(&arguments), tree: OnceCell::new() };
    report::head();
    for (name, subject) in SUBJECTS {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            subject(&bench);
        }
    }
}

fn files(arguments: &[String]) -> u64 {
    let asked = arguments.iter().find_map(|argument| argument.strip_prefix("--files="));
    match asked {
        Some(number) => number.parse().expect("--files= wants a number"),
        None if arguments.iter().any(|argument| argument == "--long") => 1_000_000,
        None => 100_000,
    }
}
