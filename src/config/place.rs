//! Where a value stands: the file and the line.
//!
//! Loading keeps from which file a value comes, and no more. The line is looked for when somebody asks: the file is
//! read once more, by the same parser, which tells at which byte each value begins. So it says what the file says now;
//! a value that is gone from it since has a file and no line.

use std::fmt;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use toml::de::{DeTable, DeValue};

use super::layers::{join, read_text};
use super::read::Loaded;
use super::report::Origin;
use super::section::Setting;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The layer.
    pub origin: Origin,
    /// The line in its file, from 1, where it is one and the value still stands there.
    pub line: Option<usize>,
}

impl Place {
    /// A place without lines.
    pub const fn of(origin: Origin) -> Self {
        Self { origin, line: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.line) {
            (Origin::Default, _) => f.write_str("built-in default"),
            (Origin::File(path), Some(line)) => write!(f, "{}:{line}", path.display()),
            (Origin::File(path), None) => write!(f, "{}", path.display()),
            (Origin::Variable(name), _) => write!(f, "environment variable {name}"),
            (Origin::Flag(flag), _) => write!(f, "flag {flag}"),
            (Origin::Definition, _) => f.write_str("made with `ingestd watch add`"),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, name) = match &self.origin {
            Origin::Default => ("default", None),
            Origin::File(path) => ("file", Some(path.to_string_lossy().into_owned())),
            Origin::Variable(name) => ("variable", Some(name.clone())),
            Origin::Flag(flag) => ("flag", Some(flag.clone())),
            Origin::Definition => ("database", None),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("origin", kind)?;
        if let Some(name) = name {
            map.serialize_entry(if kind == "file" { "file" } else { "name" }, &name)?;
        }
        if let Some(line) = self.line {
            map.serialize_entry("line", &line)?;
        }
        map.end()
    }
}

impl Loaded {
    /// Where the value of the key under these tables was written (`["watch", "inbox", "exclude"]`), or an item of it,
    /// counted from 0.
    pub fn place(&self, path: &[&str], item: Option<usize>) -> Place {
        let key = path.iter().fold(String::new(), |above, key| join(&above, key));
        // Of a table, each key is a setting of its own: the table stands where any of them was written.
        let below = format!("{key}.");
        let is_it = |setting: &&Setting| setting.key == key || setting.key.starts_with(&below);
        let found = || self.settings.iter().filter(is_it);
        let setting = found().find(|setting| setting.origin != Origin::Default).or_else(|| found().next());
        let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
        let line = match &origin {
            Origin::File(file) => line_in(file, path, item),
            _ => None,
        };
        Place { origin, line }
    }
}

fn line_in(file: &Path, path: &[&str], item: Option<usize>) -> Option<usize> {
    let text = read_text(file).ok()?;
    let start = start_of(&text, path, item)?;
    Some(text.as_bytes().get(..start)?.iter().filter(|byte| **byte == b'\n').count() + 1)
}

/// The byte at which a value begins. An item that the list does not have stands where the list does.
fn start_of(text: &str, path: &[&str], item: Option<usize>) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let (last, tables) = path.split_last()?;
    let mut table = document.get_ref();
    for key in tables {
        table = get(table, key)?.1.as_table()?;
    }
    let (at, value) = get(table, last)?;
    let item = item.and_then(|item| value.as_array()?.get(item));
    Some(item.map_or(at, |item| item.span().start))
}

/// The value of a key, and where the key begins.
fn get<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<(usize, &'t DeValue<'i>)> {
    let found = table.iter().find(|(name, _)| name.get_ref() == key);
    found.map(|(name, value)| (name.span().start, value.get_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    const TEXT: &str = "\u{feff}# Umlaute: äöü\n\
        [pipeline.p]\nkind = \"exec\"\ncommand = [\"true\"]\nretry = { base = \"1s\",\n  max_attempts = 3 }\n\
        [watch.\"a.b\"]\npath = \"/srv/in\"\npipeline = \"p\"\nexclude = [\n  \"**/.*\", # dots\n  \"**/*.tmp\",\n]\n";

    fn line(path: &[&str], item: Option<usize>) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.toml");
        std::fs::write(&file, TEXT).unwrap();
        let environment = vec![("HOME".into(), folder.path().into()), ("INGESTD__QUEUE__LEASE".into(), "9s".into())];
        let loaded = load(&Sources { file: Some(file), environment, ..Sources::default() }).unwrap();
        loaded.place(path, item)
    }

    #[test]
    fn a_value_and_each_item_of_a_list_has_its_line() {
        assert_eq!(line(&["watch", "a.b", "exclude"], None).line, Some(10));
        assert_eq!(line(&["watch", "a.b", "exclude"], Some(0)).line, Some(11));
        assert_eq!(line(&["watch", "a.b", "exclude"], Some(1)).line, Some(12));
        assert_eq!(line(&["pipeline", "p", "retry", "max_attempts"], None).line, Some(6));
    }

    #[test]
    fn what_no_file_says_is_told_by_its_layer() {
        assert_eq!(line(&["watch", "a.b", "include"], None).to_string(), "built-in default");
        let variable = line(&["queue", "lease"], None);
        assert_eq!(variable.to_string(), "environment variable INGESTD__QUEUE__LEASE");
        assert_eq!(
            serde_json::to_string(&variable).unwrap(),
            r#"{"origin":"variable","name":"INGESTD__QUEUE__LEASE"}"#
        );
    }

    #[test]
    fn a_place_reads_as_compilers_write_it() {
        let place = line(&["watch", "a.b", "exclude"], Some(1));
        assert!(place.to_string().ends_with("/x.toml:12"), "{place}");
        assert_eq!(serde_json::to_value(&place).unwrap()["line"], 12);
    }
}
