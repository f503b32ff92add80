//! The configuration: a file and variables of the environment become a [`Config`](ingestd::config::Config) or a report.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use ingestd::config::{Loaded, Report, Setting, Sources, load};
use ingestd::processor::{ChildEnvironment, build};
use ingestd::watch::Filter;

/// What stands in for a secret where settings are shown.
const MASK: &str = "\"***\"";

/// A file is understood or refused; what is understood can be run, and means the same when it is shown and read again.
pub fn configuration(text: &[u8], variables: &[(Vec<u8>, Vec<u8>)]) {
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources {
        file: Some(folder.path().join("ingestd.toml")),
        environment: variables.iter().map(|(name, value)| (os(name), os(value))).collect(),
        ..Sources::default()
    };
    let read = |text: &[u8], sources: &Sources| {
        std::fs::write(sources.file.as_ref().unwrap(), text).unwrap();
        load(sources)
    };
    match read(text, &sources) {
        Err(report) => says_what_is_wrong(&report),
        Ok(loaded) => {
            can_be_run(&loaded);
            let Some(shown) = shown(&loaded.settings) else { return };
            // What was read of the environment is written in the file by now.
            let kept = |name: &OsString| !name.to_string_lossy().starts_with("INGESTD__");
            let environment = sources.environment.iter().filter(|(name, _)| kept(name)).cloned().collect();
            let sources = Sources { environment, ..sources.clone() };
            let again = read(shown.as_bytes(), &sources).unwrap_or_else(|report| panic!("{shown}\n{report}"));
            assert_eq!(again.config, loaded.config, "what is shown means something else:\n{shown}");
        }
    }
}

fn says_what_is_wrong(report: &Report) {
    assert!(!report.problems.is_empty());
    for problem in &report.problems {
        let words = problem.message.as_ref().or(problem.allowed.as_ref());
        assert!(words.is_some_and(|words| !words.trim().is_empty()), "nothing is said: {problem:?}");
        assert!(!problem.key.is_empty() || problem.origin.is_some(), "no place: {problem:?}");
        assert!(problem.to_string().len() < 64 << 10, "nobody reads that: {} bytes", problem.to_string().len());
    }
}

fn can_be_run(loaded: &Loaded) {
    for (name, watch) in &loaded.config.watches {
        Filter::new(watch).unwrap_or_else(|error| panic!("watch {name} was accepted: {error}"));
    }
    for (name, pipeline) in &loaded.config.pipelines {
        if let Err(error) = build(name, pipeline, &ChildEnvironment::default()) {
            panic!("pipeline {name} was accepted: {error}");
        }
    }
}

/// The settings as a file; `None` where something is masked.
fn shown(settings: &[Setting]) -> Option<String> {
    let mut text = String::new();
    for Setting { key, value, .. } in settings {
        if value == MASK {
            return None;
        }
        text.extend([key.as_str(), " = ", value, "\n"]);
    }
    Some(text)
}

fn os(bytes: &[u8]) -> OsString {
    // No variable of any process holds these.
    OsString::from_vec(bytes.iter().copied().filter(|byte| *byte != 0).collect())
}
