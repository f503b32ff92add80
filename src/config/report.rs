//! What is wrong with a configuration, all of it at once: where it was written, what was found, what is allowed.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: it is the built-in default.
    Default,
    /// In this file.
    File(PathBuf),
    /// In this environment variable.
    Variable(String),
    /// On the command line, after this flag.
    Flag(String),
    /// In a definition that the database keeps.
    Definition,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.pad("default"),
            Self::File(path) => f.pad(&path.to_string_lossy()),
            Self::Variable(name) => f.pad(name),
            Self::Flag(flag) => f.pad(flag),
            Self::Definition => f.pad("database"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, variable or flag; `None` where nothing was written.
    pub origin: Option<Origin>,
    /// The key, dotted: `pipeline.documents.timeout`; empty where a whole file is meant.
    pub key: String,
    /// What was found there, as TOML, with secrets masked.
    pub found: Option<String>,
    /// What is wrong with it, where `allowed` does not say so already.
    pub message: Option<String>,
    /// What may stand there.
    pub allowed: Option<String>,
    /// The nearest name that exists.
    pub nearest: Option<String>,
}

impl Problem {
    /// A problem with the value of this key, said in words.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        let message = Some(message.into());
        Self { origin: None, key: key.into(), found: None, message, allowed: None, nearest: None }
    }

    /// The same problem, with what was found.
    #[must_use]
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    /// The same problem, with what is allowed.
    #[must_use]
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// The same problem, with where it was written.
    #[must_use]
    pub fn at(mut self, origin: Option<Origin>) -> Self {
        self.origin = origin;
        self
    }

    /// The same problem, with the nearest of the names that exist, where one is near enough to be a typo of it.
    #[must_use]
    pub fn nearest<'a>(mut self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.nearest = nearest(name, known).map(str::to_owned);
        self
    }
}

/// The most similar of the known names; `None` if not even half of it agrees.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(&name, &known.to_lowercase()), known))
        .filter(|(similarity, _)| *similarity >= 0.5)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, known)| known)
}

/// Everything that is wrong; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Report {
    /// In the order of the sections.
    pub problems: Vec<Problem>,
}

/// Lines are broken here, so that they fit a terminal of the classic width.
const WIDTH: usize = 80;
/// More of a value than this is not shown.
const FOUND: usize = 60;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(f, "the configuration has a problem:")?,
            count => write!(f, "the configuration has {count} problems:")?,
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\n\n{problem}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        match (&self.found, self.key.is_empty()) {
            (Some(found), false) => lines.push(format!("{} = {}", self.key, shortened(found))),
            (None, false) => lines.push(self.key.clone()),
            (_, true) => {}
        }
        if let Some(origin) = &self.origin {
            lines.push(if lines.is_empty() { origin.to_string() } else { format!("in {origin}") });
        }
        if let Some(message) = &self.message {
            lines.extend(wrapped(message));
        }
        if let Some(nearest) = &self.nearest {
            lines.push(format!("did you mean {nearest}?"));
        }
        if let Some(allowed) = &self.allowed {
            lines.extend(wrapped(&format!("allowed: {allowed}")));
        }
        for (index, line) in lines.iter().enumerate() {
            let (lead, indent) = if index == 0 { ("", "  ") } else { ("\n", "      ") };
            write!(f, "{lead}{indent}{line}")?;
        }
        Ok(())
    }
}

fn shortened(found: &str) -> String {
    let line = found.replace('\n', " ");
    match line.char_indices().nth(FOUND) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH - 6 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_key_and_nonsense_finds_none() {
        let known = ["lease", "concurrency", "priority_aging"];
        assert_eq!(nearest("leese", known), Some("lease"));
        assert_eq!(nearest("priority-ageing", known), Some("priority_aging"));
        assert_eq!(nearest("xyzzy", known), None);
    }

    #[test]
    fn a_report_fits_eighty_columns() {
        let problem = Problem::new("queue.leese", "no such key".repeat(3) + &" word".repeat(60))
            .found("\"".to_owned() + &"x".repeat(500))
            .allowed("lease, concurrency")
            .at(Some(Origin::File("/etc/ingestd/ingestd.toml".into())));
        let text = Report { problems: vec![problem.clone(), problem] }.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.starts_with("the configuration has 2 problems:\n\n  queue.leese = \"xxx"), "{text}");
        assert!(text.contains("\n      in /etc/ingestd/ingestd.toml\n"), "{text}");
    }
}
