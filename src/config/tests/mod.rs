//! The configuration as a whole, from files on disk.

mod keys;
mod layers;
mod problems;
mod secrets;
mod watches;

use std::path::Path;

use super::{Loaded, Report, Sources, load};

/// A pipeline of each kind and a watch, with nothing but what has no default.
const MINIMAL: &str = r#"
[pipeline.documents]
kind = "exec"
command = ["wc", "{path}"]
[pipeline.hook]
kind = "http"
url = "https://example.org/ingest"
[pipeline.nothing]
kind = "noop"
[watch.inbox]
path = "/srv/inbox"
pipeline = "documents"
"#;

/// A folder with one configuration file in it.
struct Written {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Written {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ingestd.toml");
        std::fs::write(&file, text).unwrap();
        let state = (std::ffi::OsString::from("STATE_DIRECTORY"), folder.path().join("state").into_os_string());
        let sources = Sources { file: Some(file), environment: vec![state], ..Sources::default() };
        Self { folder, sources }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.into(), value.into()));
        self
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn load(&self) -> Result<Loaded, Report> {
        load(&self.sources)
    }
}

fn loaded(text: &str) -> Loaded {
    match Written::new(text).load() {
        Ok(loaded) => loaded,
        Err(report) => panic!("{report}"),
    }
}

fn refused(text: &str) -> Report {
    match Written::new(text).load() {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(report) => report,
    }
}

/// The keys of a report, in order.
fn keys_of(report: &Report) -> Vec<&str> {
    report.problems.iter().map(|problem| problem.key.as_str()).collect()
}
