//! What exec jobs say that they did, kept outside the program: one line for each execution, appended in one write.

use std::fs;
use std::path::PathBuf;

use super::Place;

/// A script that records its executions, and the record.
pub struct Ledger {
    /// The lines.
    file: PathBuf,
    /// What was read, where it is kept: by its SHA-256.
    copies: PathBuf,
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
    /// The file's size as the script saw it, in bytes, of the very bytes that it summed.
    pub size: u64,
    /// `INGESTD_DIGEST`.
    pub digest: String,
    /// The file.
    pub path: String,
}

impl Ledger {
    /// A ledger in this place; after the entry is made, the script goes on with `then`.
    pub fn new(place: &Place, then: &str) -> Self {
        Self::recording(place, "rm \"$copy\"", then)
    }

    /// The same, and what was read can be looked at ([`Self::copy`]).
    pub fn keeping(place: &Place) -> Self {
        Self::recording(place, "mv \"$copy\" \"COPIES/${sum%% *}\"", "")
    }

    fn recording(place: &Place, with_copy: &str, then: &str) -> Self {
        let (file, script, copies) = (place.at("ledger"), place.at("recorder.sh"), place.at("copies"));
        // Read once, into a copy that nobody else writes: sum and size are of the same bytes.
        let record = r#"copy=COPIES/$$
cat < "$1" > "$copy" || exit 1
sum=$(sha256sum < "$copy") size=$(stat -c %s "$copy")
WITH_COPY
printf '%s %s %s %s %s %s\n' "$INGESTD_JOB" "$INGESTD_ATTEMPT" "${sum%% *}" "$size" "$INGESTD_DIGEST" "$1" >> LEDGER
"#;
        let record = record.replace("WITH_COPY", with_copy).replace("COPIES", copies.to_str().unwrap());
        let script_text = format!("{}{then}\n", record.replace("LEDGER", file.to_str().unwrap()));
        fs::write(&script, script_text).unwrap();
        fs::write(&file, "").unwrap();
        fs::create_dir_all(&copies).unwrap();
        Self { file, copies, command: format!("[\"/bin/sh\", \"{}\", \"{{path}}\"]", script.display()) }
    }

    /// Every execution that began, in order.
    pub fn entries(&self) -> Vec<Entry> {
        let bytes = fs::read(&self.file).unwrap();
        String::from_utf8_lossy(&bytes).lines().map(parse).collect()
    }

    /// The bytes with this SHA-256, as a [`Self::keeping`] ledger read them.
    pub fn copy(&self, sha256: &str) -> Vec<u8> {
        fs::read(self.copies.join(sha256)).unwrap()
    }

    /// The executions on files with this name.
    pub fn of(&self, name: &str) -> Vec<Entry> {
        let ending = format!("/{name}");
        self.entries().into_iter().filter(|entry| entry.path.ends_with(&ending)).collect()
    }
}

fn parse(line: &str) -> Entry {
    let mut fields = line.splitn(6, ' ');
    let mut next = || fields.next().unwrap_or_default().to_owned();
    let (job, attempt) = (next().parse().unwrap(), next().parse().unwrap());
    Entry { job, attempt, sha256: next(), size: next().parse().unwrap(), digest: next(), path: next() }
}
