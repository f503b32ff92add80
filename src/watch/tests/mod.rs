//! The watch on real folders, against a store in memory.

mod fake;
mod journey;
mod losses;
mod roots;
mod runs;
mod scans;
mod walks;
