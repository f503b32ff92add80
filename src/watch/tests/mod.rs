//! The watch on real folders, against a store in memory.

mod fake;
mod journey;
mod roots;
mod walks;
