//! ingestd: every file that arrives in a folder is processed, once, whatever crashes.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod job;
pub mod processor;
pub mod store;
