//! The configuration, as the program means it: one section for each station, with its defaults.
//!
//! 1. `layers` merges what the user wrote (files, environment, flags), each value with its origin.
//! 2. `read`, `pipeline` and `watch` walk the merged tree through `section`, turn it into the types of `sections` and
//!    `watch_section` by the forms in `values`, and put in `secrets`.
//! 3. `check` looks at how watches, pipelines and folders stand to each other, and `globs` at what filters let pass.
//! 4. `place` finds the line of a value again, for `explain`.
//! 5. Everything that is wrong ends in one `report`; a configuration with a problem is never used in part.

mod answer_stage;
mod batch;
mod check;
mod database;
mod globs;
mod layers;
mod masks;
mod pipeline;
mod place;
mod placeholders;
mod quick;
mod read;
mod report;
mod secrets;
mod section;
mod sections;
mod throttle;
mod values;
mod watch;
mod watch_section;

#[cfg(test)]
mod tests;

pub use answer_stage::AnswerStage;
pub use check::{check_access, check_watches};
pub use globs::{NoGlob, check_bounds as check_glob_bounds, compile as compile_glob, read as read_glob};
pub use layers::Sources;
pub use place::Place;
pub use placeholders::PLACEHOLDERS;
pub use quick::quick;
pub use read::{Loaded, load, load_without_secrets};
pub use report::{Origin, Problem, Report};
pub use section::Setting;
pub use sections::{
    Backup, Body, Config, Database, Durability, ExecPipeline, HttpPipeline, Log, LogFormat, Maintenance, Pipeline,
    ProcessorKind, Queue, Retention, Shutdown,
};
pub use throttle::{Breaker, Rate};
pub use values::{parse_size, show_size};
pub use watch::watch_from_json;
pub use watch_section::{Dedupe, DeleteBrake, Disposal, OnRename, Watch, WatchEvents, WatchMode, WatchOrder};

/// The file that a database's URL names, absolute.
///
/// # Errors
/// It names none; the words follow the URL.
pub fn database_file(url: &str) -> Result<std::path::PathBuf, String> {
    database::parse_url(url)
}

/// The annotated configuration file, with every key and its default, for `config init`.
pub const fn reference() -> &'static str {
    include_str!("../../config/ingestd.toml")
}
