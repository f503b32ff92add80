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
    /// Whether folders in it count: true or false.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    recursive: Option<bool>,
    /// Folders in it don't count.
    #[arg(long, conflicts_with = "recursive")]
    no_recursive: bool,
    /// How many levels of folders count, the folder itself being the first; 0: all.
    #[arg(long, value_name = "N")]
    max_depth: Option<u32>,
    /// Only files that match this glob, relative to the folder; may be repeated.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// No files that match this glob; may be repeated; replaces the built-in list, '' by an empty one.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Obey .gitignore and .ingestdignore.
    #[arg(long)]
    ignore_files: bool,
    /// No files that are smaller, for instance 1KiB.
    #[arg(long, value_name = "SIZE")]
    min_size: Option<String>,
    /// No files that are larger, for instance 2GiB.
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    /// The level of its jobs: low, normal, high or urgent.
    #[arg(long, value_name = "LEVEL")]
    priority: Option<Priority>,
    /// In which order a scan hands over what it found: path, newest or oldest.
    #[arg(long, value_name = "ORDER")]
    order: Option<String>,
    /// Quiet time after the last write before a file counts as whole; 0s: at its close.
    #[arg(long, value_name = "DURATION")]
    settle: Option<String>,
    /// A file is taken once its last modification is this long ago.
    #[arg(long, value_name = "DURATION")]
    min_age: Option<String>,
    /// Take NAME once NAME with this suffix exists, for instance .done.
    #[arg(long, value_name = "SUFFIX")]
    ready_suffix: Option<String>,
    /// Which changes become jobs: add, modify, delete; separated by commas.
    #[arg(long, value_name = "EVENTS", value_delimiter = ',')]
    events: Vec<String>,
    /// What a renamed file becomes: modify (one job), separate (a deletion and a new file) or track (it is followed).
    #[arg(long, value_name = "HOW")]
    on_rename: Option<String>,
    /// Leave out files whose content is known: none or content.
    #[arg(long, value_name = "WHICH")]
    dedupe: Option<String>,
    /// When many deletions at once are not believed: off, or for instance above=100,share=0.5,wait=1h.
    #[arg(long, value_name = "BRAKE")]
    delete_brake: Option<String>,
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
        put("recursive", self.recursive.or(self.no_recursive.then_some(false)).map(Value::from));
        put("max_depth", self.max_depth.map(Value::from));
        put("include", list(&self.include));
        let no_exclude = matches!(self.exclude.as_slice(), [only] if only.is_empty());
        put("exclude", if no_exclude { Some(json!([])) } else { list(&self.exclude) });
        put("ignore_files", self.ignore_files.then_some(Value::Bool(true)));
        put("min_size", self.min_size.clone().map(Value::from));
        put("max_size", self.max_size.clone().map(Value::from));
        put("order", self.order.clone().map(Value::from));
        put("priority", self.priority.map(|level| level.as_str().into()));
        put("settle", self.settle.clone().map(Value::from));
        put("min_age", self.min_age.clone().map(Value::from));
        put("ready_suffix", self.ready_suffix.clone().map(Value::from));
        put("events", list(&self.events));
        put("on_rename", self.on_rename.clone().map(Value::from));
        put("dedupe", self.dedupe.clone().map(Value::from));
        put("delete_brake", self.delete_brake.as_deref().map(brake).transpose()?);
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

/// `off`, or keys and values with commas between them.
fn brake(text: &str) -> Result<Value, Failure> {
    if text == "off" {
        return Ok(json!({ "wait": "0s" }));
    }
    let mut keys = Map::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| {
            Failure::usage(format!("--delete-brake `{text}` is neither off nor like above=100,share=0.5,wait=1h"))
        })?;
        let number = value.trim().parse::<serde_json::Number>().map(Value::Number);
        keys.insert(key.trim().to_owned(), number.unwrap_or_else(|_| value.trim().into()));
    }
    Ok(Value::Object(keys))
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
    use crate::cli::{Args as Line, Command, view};
    use crate::config::watch_from_json;
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
            "--recursive false --max-depth 3 --include *.pdf --include *.txt --exclude a --ignore-files \
             --min-size 1KiB --max-size 5000 --order newest --priority high --settle 0s --min-age 1m \
             --ready-suffix .done --events add,delete --on-rename track --dedupe content \
             --delete-brake above=5,share=0.25,wait=1h --mode poll --poll-interval 1s --rescan-interval 1h \
             --follow-symlinks --on-success move:/srv/done --on-failure keep",
        );
        let expected = json!({
            "path": "/srv/in", "pipeline": "documents", "recursive": false, "max_depth": 3,
            "include": ["*.pdf", "*.txt"], "exclude": ["a"], "ignore_files": true, "min_size": "1KiB", "max_size": "5000",
            "order": "newest", "priority": "high", "settle": "0s", "min_age": "1m", "ready_suffix": ".done",
            "events": ["add", "delete"], "on_rename": "track", "dedupe": "content",
            "delete_brake": { "above": 5, "share": 0.25, "wait": "1h" }, "mode": "poll", "poll_interval": "1s",
            "rescan_interval": "1h", "follow_symlinks": true, "on_success": { "move": "/srv/done" },
            "on_failure": "keep",
        });
        let full = full.unwrap();
        assert_eq!(full, expected);
        let watch = watch_from_json("inbox", &full).unwrap();
        let shown = view::watch(&watch);
        let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
        assert!(keys.iter().all(|key| full.get(key).is_some()), "each key has its flag: {keys:?}");
    }

    #[test]
    fn what_is_on_or_off_has_short_forms() {
        assert_eq!(object("--recursive").unwrap()["recursive"], true);
        assert_eq!(object("--no-recursive").unwrap()["recursive"], false);
        assert_eq!(object("--delete-brake off").unwrap()["delete_brake"], json!({ "wait": "0s" }));
        assert_eq!(object("--exclude=").unwrap()["exclude"], json!([]));
    }

    #[test]
    fn a_brake_that_is_none_is_refused_in_words_and_its_values_by_the_reader() {
        for wrong in ["on", "above", "above=5,share"] {
            let refused = object(&format!("--delete-brake {wrong}")).unwrap_err();
            assert!(refused.message.contains("above=100,share=0.5,wait=1h"), "{}", refused.message);
        }
        for wrong in ["above=many", "share=2", "wait=5", "after=1h"] {
            let definition = object(&format!("--delete-brake {wrong}")).unwrap();
            let report = watch_from_json("inbox", &definition).unwrap_err();
            assert!(report.problems[0].key.starts_with("watch.inbox.delete_brake."), "{report}");
        }
    }

    #[test]
    fn skipping_what_is_there_is_asked_for_and_processing_it_is_the_default() {
        assert_eq!(object("--existing skip").unwrap()["existing"], "skip");
        assert!(object("--existing process").unwrap().get("existing").is_none());
    }
}
