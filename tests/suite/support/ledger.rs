//! What exec jobs say that they did, kept outside the program: one line for each execution, appended in one write.

use std::fs;
use std::path::PathBuf;

use super::Place;

/// A script that records its executions, and the record.
pub struct Ledger {
    /// The lines.
    file: PathBuf,
    /// The command for a pipeline, as TOML.
    pub command: String,
}

/// An execution.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The job.
    pub job: i64,
    /// `INGESTD_ATTEMPT`.
    pub attempt: i64,
    /// The file's SHA-256 as the script saw it.
    pub sha256: String,
    /// `INGESTD_DIGEST`.
    pub digest: String,
    /// The file.
    pub path: String,
}

impl Ledger {
    /// A ledger in this place; after the entry is made, the script goes on with `then`.
    pub fn new(place: &Place, then: &str) -> Self {
        let (file, script) = (place.at("ledger"), place.at("recorder.sh"));
        let record = r#"sum=$(sha256sum < "$1") || exit 1
printf '%s %s %s %s %s\n' "$INGESTD_JOB" "$INGESTD_ATTEMPT" "${sum%% *}" "$INGESTD_DIGEST" "$1" >> LEDGER
"#;
        let script_text = format!("{}{then}\n", record.replace("LEDGER", file.to_str().unwrap()));
        fs::write(&script, script_text).unwrap();
        fs::write(&file, "").unwrap();
        Self { file, command: format!("[\"/bin/sh\", \"{}\", \"{{path}}\"]", script.display()) }
    }

    /// Every execution that began, in order.
    pub fn entries(&self) -> Vec<Entry> {
        let bytes = fs::read(&self.file).unwrap();
        String::from_utf8_lossy(&bytes).lines().map(parse).collect()
    }

    /// The executions on files with this name.
    pub fn of(&self, name: &str) -> Vec<Entry> {
        let ending = format!("/{name}");
        self.entries().into_iter().filter(|entry| entry.path.ends_with(&ending)).collect()
    }
}

fn parse(line: &str) -> Entry {
    let mut fields = line.splitn(5, ' ');
    let mut next = || fields.next().unwrap_or_default().to_owned();
    let (job, attempt) = (next().parse().unwrap(), next().parse().unwrap());
    Entry { job, attempt, sha256: next(), digest: next(), path: next() }
}
