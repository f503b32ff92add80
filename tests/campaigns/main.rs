//! The campaigns: the promise of `docs/RELIABILITY.md`, attacked.
//!
//! 1. A campaign breaks one thing on purpose: the process, a system call, the power, the disk, the clock. Its quick
//!    form runs with every `cargo test`; `INGESTD_LONG=1 cargo test --test campaigns -- NAME::` is the long one. Walks
//!    of hours are taken in parts, or for some minutes ([`Portion`](portion::Portion)).
//! 2. What happens by chance comes from a [`Seed`](seed::Seed), which is printed and can be given again.
//! 3. One [`Oracle`](oracle::Oracle) judges them all: a ledger of what the program acknowledged and of what its
//!    processors did, kept outside of whatever is broken.
//! 4. When the faults have stopped, the queue drains without a person, and disk, WAL, handles and memory are back at
//!    their [`Base`](base::Base).
//! 5. They are a binary of their own, because a machine that is busy with four hundred other tests measures those.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says by a panic what did not hold, and on stderr what it did and skipped, in its helpers too"
)]

#[allow(dead_code, unused_imports, reason = "what the tests of the suite share; the campaigns use their part of it")]
#[path = "../suite/support/mod.rs"]
mod support;

mod base;
mod calls;
mod contention;
mod controls;
mod corruption;
mod full_disk;
mod fuzz;
mod kill;
mod lease;
mod older;
mod oracle;
mod portion;
mod power;
mod resources;
mod scenario;
mod seed;
mod service;
mod time;
mod tracer;
