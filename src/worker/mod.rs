//! Workers: they lease jobs, have them processed, and see to what follows.

pub mod disposal;
