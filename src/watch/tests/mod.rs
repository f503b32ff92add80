//! The watch on real folders, against a store in memory.

pub(super) mod fake;
mod journey;
mod losses;
mod roots;
mod runs;
mod scans;
mod walks;
