//! ingestd: every file that arrives in a folder is processed, once, whatever crashes.

pub mod clock;
pub mod config;
pub mod job;
pub mod os;
pub mod processor;
pub mod store;
pub mod worker;
