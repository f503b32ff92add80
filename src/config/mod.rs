//! The configuration, as the program means it: one section for each station, with its defaults.
//!
//! `layers` merges what the user wrote (files, environment, flags), each value with its origin; `read` walks the
//! merged tree, turns it into the types here, and reports everything that is wrong at once.

mod sections;

pub use sections::{
    Backup, Body, Config, Database, Disposal, Durability, ExecPipeline, HttpPipeline, Log, LogFormat, Maintenance,
    Pipeline, ProcessorKind, Queue, Retention, Shutdown, Watch, WatchEvents, WatchMode,
};
