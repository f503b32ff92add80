//! Accounts given: why a job does not run, why a file is not a job, and whether anything is lost.
//!
//! 1. [`job`] goes from the facts about a job to everything that holds it, in the order in which it binds, or to the
//!    rule by which it ended.
//! 2. [`mod@file`] goes from what lies on disk, beside what is known of it, to one reason.
//! 3. [`audit`] walks a watch, joins it with what is known in one pass, and counts every file into one such reason.
//! 4. [`rule`] says at which key of the configuration a rule of a watch stands.
//!
//! But for the audit's walk they are pure: what is known (the database, the daemon's word, the disk) is gathered by whoever asks, and the words
//! are found by whoever shows them.

pub mod audit;
pub mod count;
mod disk;
pub mod file;
pub mod job;
pub mod rule;
