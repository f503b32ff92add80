//! Whole files only, whoever writes them: the real tools, each with its own way to bring a file about.
//!
//! 1. A tool writes into a watched folder; the processor records the SHA-256 and the size of what it is given, in a
//!    ledger outside the watch.
//! 2. The property is the same for all: each final content is recorded once, nothing half-written is, and no name that
//!    a tool uses on its way.
//! 3. *Open for writing* is what the daemon can tell of its own files (by a read lease); of a stranger's it sees only
//!    that they are quiet. Where it is cheap, a test runs both ways ([`Inbox::both`]).
//! 4. A tool that closes a file and comes back after `settle` has made a version in between, by right. Such tests say
//!    which contents may be seen, and that the last one is the final one.
//!
//! A tool that is not installed is skipped aloud; `.ci/run` installs all of them.

mod copies;
mod downloads;
mod editors;
mod inbox;
mod transfers;
mod writers;

pub use inbox::{Inbox, noise};
