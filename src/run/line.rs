//! A line of a list: from its bytes to what it asks for.
//!
//! 1. **A plain path** is the bytes of the line, whatever they are; relative ones count from the list's root.
//! 2. **A line that begins with `{`** is a JSON object: about a file, or, with `new_changeset`, the record of a changeset.
//!    Every field is checked for its type. Fields that nobody knows are kept in `metadata`.
//! 3. What can't be understood is answered with words that name the field, what was found and what is allowed.
//!
//! Values that are only handed on (`metadata`, the changeset) stay as they are written, digit by digit.

mod members;
mod object;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::job::{Op, Priority, WirePath};

/// The longest path that the system takes, in bytes.
const PATH_LIMIT: usize = 4_096;
/// How many characters of a line are kept to show it.
const SHOWN: usize = 200;
/// How many characters of a name or value are shown where it is wrong.
const SHOWN_OF_PART: usize = 40;

/// A line that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Understood {
    /// What it asks for.
    pub asks: Asks,
    /// Fields that nobody knows, which were put into `metadata`.
    pub unknown: Vec<String>,
}

/// Reads a line, which is not empty and has no line break at its end. Relative paths count from `root`, which is
/// absolute. The error is for people: what is wrong, and what is allowed.
pub fn parse(line: &[u8], root: &Path) -> Result<Understood, String> {
    if line.first() == Some(&b'{') {
        return object::parse(line, root);
    }
    let path = absolute(line, root).map_err(|wrong| format!("the path {wrong}"))?;
    let work = ListedWork { path: Some(path), ..ListedWork::default() };
    Ok(Understood { asks: Asks::Work(Box::new(work)), unknown: Vec::new() })
}

/// The beginning of a line, to show it.
pub fn shown(line: &[u8]) -> String {
    // A character has four bytes at most: no more of a long line is looked at.
    let text = String::from_utf8_lossy(&line[..line.len().min(SHOWN * 4)]);
    if text.chars().count() <= SHOWN && line.len() <= SHOWN * 4 {
        return text.into_owned();
    }
    text.chars().take(SHOWN - 1).chain(std::iter::once('…')).collect()
}

/// The beginning of a name or value.
fn cut(text: &str) -> String {
    if text.chars().count() <= SHOWN_OF_PART {
        return text.to_owned();
    }
    text.chars().take(SHOWN_OF_PART - 1).chain(std::iter::once('…')).collect()
}

fn absolute(path: &[u8], root: &Path) -> Result<WirePath, String> {
    if path.is_empty() {
        return Err("is empty".to_owned());
    }
    if path.contains(&0) {
        return Err("has a NUL byte; paths from `find -print0`? use newlines, or `ingestd add -0`".to_owned());
    }
    if path.len() >= PATH_LIMIT {
        return Err(format!("has {} bytes; the system takes {} at most", path.len(), PATH_LIMIT - 1));
    }
    Ok(WirePath(root.join(OsStr::from_bytes(path))))
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The line, from 1.
    pub line: u64,
    /// The line itself, cut, for the case that it can't be done.
    pub text: String,
    /// What.
    pub asks: Asks,
}

/// See [`Entry`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asks {
    /// That a file is worked on.
    Work(Box<ListedWork>),
    /// That a changeset's record is kept.
    Changeset {
        /// Its repository.
        repo: Option<String>,
        /// What it says, a JSON document.
        changeset: String,
    },
}

/// What a line says of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListedWork {
    /// The number that the line gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The file that it is about, absolute. `None`: only a key names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<WirePath>,
    /// What happened; `None`: what the queue makes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// The repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The level; `None`: the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// An identity of the caller's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where the content is, unless it is in the file at `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<ListedContent>,
    /// A JSON document for the processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// Only take note of it: it becomes no job, and its changes are seen from then on.
    pub skip: bool,
}

/// Where a content is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListedContent {
    /// In the line: in base64.
    Inline(String),
    /// In another file, absolute.
    File(WirePath),
}

/// A line that can't be understood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// The line, from 1.
    pub line: u64,
    /// The line itself, cut.
    pub text: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}
