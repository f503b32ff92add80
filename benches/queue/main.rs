//! The queue, beside raw SQLite that writes the same rows in the same run.
//!
//! 1. A figure counts only beside another one of the same minute: machines differ, and a shared one differs from
//!    itself. So each subject runs in rounds, ours and the other in turn, every second round the other way about, and
//!    the ratio is the median of the rounds' ratios. This is why there is no harness for single functions here.
//!    Beside each round stands the processor time of both, which tells more than the clock where others use the machine.
//! 2. *Raw SQLite* is rusqlite on the same build of SQLite: prepared statements, one transaction for each batch, the
//!    pragmas of `store/sqlite/open.rs`, a database that the program itself made, and the same rows in the same tables,
//!    history and counters among them. It decides nothing and fences nothing.
//! 3. What the program wrote, and what raw SQLite wrote, has to pass the program's own check of its promises.
//!
//! `cargo bench --bench queue` prints the table of `benches/README.md`; names after `--` choose subjects, and `--long`
//! adds the sizes that take minutes to make. `TMPDIR` chooses the disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "a benchmark that can't go on has nothing to say, and its result is what it prints"
)]

mod add;
#[path = "../daemon/mod.rs"]
mod daemon;
mod database;
mod depth;
mod drain;
mod effects;
mod enqueue;
mod exec;
mod keys;
mod memory;
mod paths;
mod pool;
mod raw;
#[path = "../report/mod.rs"]
mod report;
mod seed;
mod size;
mod start;
mod sync;

use tokio::runtime::Runtime;

/// What every subject is given.
pub struct Bench {
    /// The daemon's kind of runtime.
    pub runtime: Runtime,
    /// Whether the sizes that take minutes are asked for.
    pub long: bool,
}

/// The subjects, by the names that choose them.
const SUBJECTS: &[(&str, fn(&Bench))] = &[
    ("enqueue", enqueue::thousand_a_call),
    ("single", enqueue::one_a_call),
    ("drain", drain::nothing_to_read),
    ("files", drain::files_to_read),
    ("depth", depth::lease),
    ("add", add::command_to_start),
    ("exec", exec::beside_xargs),
    ("start", start::after_a_crash),
    ("size", size::bytes_per_job),
    ("memory", memory::resident),
    ("sync", sync::plain_paths),
    ("resume", sync::resumed),
    ("effects", effects::begun_and_committed),
    ("keys", keys::made),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs benches too, with this flag; there is nothing to test here.
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let chosen: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let names: Vec<&str> = SUBJECTS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = chosen.iter().find(|name| !names.contains(&name.as_str())) {
        panic!("there is no subject `{unknown}`; there are {}", names.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let bench = Bench { runtime, long: arguments.iter().any(|argument| argument == "--long") };
    report::head();
    for (name, subject) in SUBJECTS {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            subject(&bench);
        }
    }
}
