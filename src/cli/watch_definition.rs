//! The flags of `watch add`, and the definition that they make: an object with the keys of a `[watch]` section.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::view::lossy;
use crate::job::Priority;

/// What is done with the files that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Existing {
    /// They become jobs.
    #[default]
    Process,
    /// They are noted as known.
    Skip,
}

/// A watch to make. A flag that is left out keeps its key at the default.
#[derive(Args, Debug)]
pub struct NewWatch {
    /// Its name, unique over the configuration file and the database.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The folder.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The pipeline that its files go through; may be left out when there is one.
    #[arg(long, value_name = "P")]
    pub pipeline: Option<String>,
    /// What is done with files that are there already: process or skip them.
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub existing: Existing,
    /// Whether folders in it count.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    recursive: Option<bool>,
    /// Only files that match this glob, relative to the folder; may be repeated.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// No files that match this glob; may be repeated; replaces the built-in list.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Obey .gitignore and .ingestdignore.
    #[arg(long)]
    ignore_files: bool,
    /// The level of its jobs: low, normal, high or urgent.
    #[arg(long, value_name = "LEVEL")]
    priority: Option<Priority>,
    /// Quiet time after the last write before a file counts as whole; 0s: at its close.
    #[arg(long, value_name = "DURATION")]
    settle: Option<String>,
    /// Take NAME once NAME with this suffix exists, for instance .done.
    #[arg(long, value_name = "SUFFIX")]
    ready_suffix: Option<String>,
    /// Which changes become jobs: add, modify, delete; separated by commas.
    #[arg(long, value_name = "EVENTS", value_delimiter = ',')]
    events: Vec<String>,
    /// How changes are noticed: auto, native or poll.
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// How often a polled folder is walked.
    #[arg(long, value_name = "DURATION")]
    poll_interval: Option<String>,
    /// How often the folder is compared as a whole, in case events were lost.
    #[arg(long, value_name = "DURATION")]
    rescan_interval: Option<String>,
    /// Follow symbolic links.
    #[arg(long)]
    follow_symlinks: bool,
    /// What happens to a file after success: keep, delete, or move:FOLDER.
    #[arg(long, value_name = "ACTION")]
    on_success: Option<String>,
    /// What happens to a file after failure for good: keep, or move:FOLDER.
    #[arg(long, value_name = "ACTION")]
    on_failure: Option<String>,
}

impl NewWatch {
    /// The definition with the pipeline that is meant. What is wrong with the values is said by whoever reads it.
    pub fn object(&self, pipeline: String) -> Result<Value, Failure> {
        let path = std::path::absolute(&self.path)
            .map_err(|error| Failure::usage(format!("`{}` is not a path: {error}", lossy(&self.path))))?;
        let path = path.to_str().ok_or_else(|| {
            Failure::usage(format!("the folder's name is not UTF-8 ({}); watch one that is", lossy(&path)))
        })?;
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            map.extend(value.map(|value| (key.to_owned(), value)));
        };
        put("path", Some(path.into()));
        put("pipeline", Some(pipeline.into()));
        put("existing", (self.existing == Existing::Skip).then(|| "skip".into()));
        put("recursive", self.recursive.map(Value::from));
        put("include", list(&self.include));
        put("exclude", list(&self.exclude));
        put("ignore_files", self.ignore_files.then_some(Value::Bool(true)));
        put("priority", self.priority.map(|level| level.as_str().into()));
        put("settle", self.settle.clone().map(Value::from));
        put("ready_suffix", self.ready_suffix.clone().map(Value::from));
        put("events", list(&self.events));
        put("mode", self.mode.clone().map(Value::from));
        put("poll_interval", self.poll_interval.clone().map(Value::from));
        put("rescan_interval", self.rescan_interval.clone().map(Value::from));
        put("follow_symlinks", self.follow_symlinks.then_some(Value::Bool(true)));
        put("on_success", self.on_success.as_deref().map(disposal).transpose()?);
        put("on_failure", self.on_failure.as_deref().map(disposal).transpose()?);
        Ok(Value::Object(map))
    }
}

fn list(values: &[String]) -> Option<Value> {
    (!values.is_empty()).then(|| values.into())
}

fn disposal(text: &str) -> Result<Value, Failure> {
    match text.strip_prefix("move:") {
        Some(folder) => {
            let folder = std::path::absolute(folder)
                .map_err(|error| Failure::usage(format!("`{text}`: no folder to move to: {error}")))?;
            Ok(json!({ "move": lossy(&folder) }))
        }
        None => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Args as Line, Command};
    use clap::Parser;

    fn object(flags: &str) -> Result<Value, Failure> {
        let line = format!("ingestd watch add inbox /srv/in {flags}");
        let Command::Watch(watch) = Line::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("another command")
        };
        watch.definition().unwrap().object("documents".to_owned())
    }

    #[test]
    fn only_what_was_given_stands_in_the_definition() {
        assert_eq!(object("").unwrap(), json!({ "path": "/srv/in", "pipeline": "documents" }));
        let full = object(
            "--recursive false --include *.pdf --include *.txt --exclude a --ignore-files --priority high \
             --settle 0s --ready-suffix .done --events add,delete --mode poll --poll-interval 1s \
             --rescan-interval 1h --follow-symlinks --on-success move:/srv/done --on-failure keep",
        );
        let expected = json!({
            "path": "/srv/in", "pipeline": "documents", "recursive": false, "include": ["*.pdf", "*.txt"],
            "exclude": ["a"], "ignore_files": true, "priority": "high", "settle": "0s", "ready_suffix": ".done",
            "events": ["add", "delete"], "mode": "poll", "poll_interval": "1s", "rescan_interval": "1h",
            "follow_symlinks": true, "on_success": { "move": "/srv/done" }, "on_failure": "keep",
        });
        assert_eq!(full.unwrap(), expected);
    }

    #[test]
    fn skipping_what_is_there_stands_in_the_definition_and_is_read_back() {
        let definition = object("--existing skip").unwrap();
        assert_eq!(definition["existing"], "skip");
        assert!(crate::control::Definition::read("inbox", &definition).unwrap().skip_existing);
        let definition = object("--existing process").unwrap();
        assert!(!crate::control::Definition::read("inbox", &definition).unwrap().skip_existing);
    }
}
