//! The integration tests: one binary, named as properties, on real databases and the real program.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says by a panic what did not hold, and on stderr what it skipped, in its helpers too"
)]

mod support;

mod ageing;
mod audit;
mod batches;
mod cli_database;
mod cli_jobs;
mod cli_misc;
mod cli_watch;
mod config_file;
mod config_pipeline;
mod config_queue;
mod config_watch;
mod contents;
mod crash;
mod database_mode;
mod dedupe;
mod disposal;
mod effects;
mod explain;
mod fairness;
mod hardship;
mod intruders;
mod journey;
mod model;
mod order;
mod pressure;
mod renames;
mod runs;
mod shutdown;
mod stages;
mod store;
mod store_lists;
mod sync;
mod throttle;
mod tools;
mod torture;
mod two_pipelines;
mod upkeep;
mod verdicts_exec;
mod verdicts_http;
mod versions;
mod watch_refusals;
mod watchfolder;
