//! ingestd: every file that arrives in a folder is processed, once, whatever crashes.

pub mod clock;
pub mod config;
pub mod gate;
pub mod job;
pub mod lifecycle;
pub mod maintenance;
pub mod processor;
pub mod store;
pub mod telemetry;
pub mod warnings;
