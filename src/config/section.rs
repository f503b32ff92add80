//! Walking the merged tree: a [`Section`] hands out one table's values and notes everything on the way.
//!
//! Each key that is asked for becomes a known key and a [`Setting`]; a value that its form refuses becomes a
//! problem, and the default stands in, so that the walk goes on to the next one. What was never asked for is
//! unknown, and reported when the section is done.

use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};
use serde::Serialize;

use super::layers::{Table, join, origin};
use super::masks::names_a_secret;
use super::report::{Origin, Problem};
use super::secrets::{Secrets, refers};
use super::values::{Form, Raw, quote, toml};

/// One effective key, for `config show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Dotted: `queue.lease`.
    pub key: String,
    /// As TOML; `"***"` for secrets.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
}

/// What stands in for a secret.
pub(super) const MASK: &str = "\"***\"";

/// What a walk finds.
pub(super) struct Findings<'a> {
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// Everything that is in effect.
    pub settings: Vec<Setting>,
    /// Replaces `${…}`.
    pub secrets: Secrets<'a>,
    /// Where tables were mentioned.
    pub tables: BTreeMap<String, Origin>,
    /// What leaves of pipelines looked like before their secrets were put in, as TOML.
    pub unexpanded: BTreeMap<String, String>,
    /// Leaves of pipelines that hold a secret which is missing or not wanted: nothing more can be said of them.
    pub unknowable: BTreeSet<String>,
    /// For values that carry no origin of their own.
    pub fallback: Option<Origin>,
}

impl<'a> Findings<'a> {
    /// Nothing found yet.
    pub fn new(secrets: Secrets<'a>, tables: BTreeMap<String, Origin>, fallback: Option<Origin>) -> Self {
        Self {
            problems: Vec::new(),
            settings: Vec::new(),
            secrets,
            tables,
            unexpanded: BTreeMap::new(),
            unknowable: BTreeSet::new(),
            fallback,
        }
    }

    /// Where this value of this key was written.
    pub fn origin(&self, key: &str, value: Option<&Value>) -> Option<Origin> {
        value.and_then(origin).or_else(|| self.tables.get(key).cloned()).or_else(|| self.fallback.clone())
    }

    /// Where the table around this key was written, as near as is known.
    pub fn origin_around(&self, key: &str) -> Option<Origin> {
        let mut path = key;
        loop {
            if let Some(origin) = self.tables.get(path) {
                return Some(origin.clone());
            }
            match path.rsplit_once('.') {
                Some((around, _)) => path = around,
                None => return self.fallback.clone(),
            }
        }
    }

    /// The value as it was written, before secrets were put in.
    pub fn written(&self, key: &str, value: &Value) -> String {
        self.unexpanded.get(key).cloned().unwrap_or_else(|| toml(&value.kind))
    }

    fn raw<'v>(&self, key: &str, value: &'v Value) -> Raw<'v> {
        let from_text = matches!(origin(value), Some(Origin::Variable(_) | Origin::Flag(_)));
        Raw { kind: &value.kind, loose: from_text || self.unexpanded.contains_key(key) }
    }
}

/// One table of the tree, and the findings of the walk.
pub(super) struct Section<'t, 'f, 's> {
    path: String,
    table: Option<&'t Table>,
    known: Vec<&'static str>,
    /// What the walk has found so far.
    pub found: &'f mut Findings<'s>,
}

impl<'t, 's> Section<'t, '_, 's> {
    /// The tree's root, or any table that stands by itself.
    pub fn new<'f>(path: String, table: &'t Table, found: &'f mut Findings<'s>) -> Section<'t, 'f, 's> {
        Section { path, table: Some(table), known: Vec::new(), found }
    }

    /// The full name of a key.
    pub fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The value of a key, which is known from now on. A JSON null is none.
    pub fn value(&mut self, key: &'static str) -> Option<&'t Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.and_then(|table| table.get(key)).filter(|value| !matches!(value.kind, ValueKind::Nil))
    }

    /// The value of a key, or its default.
    pub fn get<T>(&mut self, key: &'static str, default: T, form: &Form<T>) -> T {
        match self.value(key) {
            None => {
                let setting = Setting { key: self.key(key), value: (form.show)(&default), origin: Origin::Default };
                self.found.settings.push(setting);
                default
            }
            Some(value) => self.read(key, value, form).unwrap_or(default),
        }
    }

    /// The value of a key that has no default; `None` after a problem.
    pub fn require<T>(&mut self, key: &'static str, form: &Form<T>) -> Option<T> {
        let Some(value) = self.value(key) else {
            let origin = self.found.origin_around(&self.path);
            let missing = Problem::new(self.key(key), "is missing").allowed(&form.allowed).at(origin);
            self.found.problems.push(missing);
            return None;
        };
        self.read(key, value, form)
    }

    fn read<T>(&mut self, key: &'static str, value: &Value, form: &Form<T>) -> Option<T> {
        let path = self.key(key);
        let parsed = (form.parse)(&self.found.raw(&path, value));
        let Some(parsed) = parsed else {
            self.refuse(key, value, None, Some(form.allowed.clone()));
            return None;
        };
        let shown = self.found.unexpanded.get(&path).cloned().unwrap_or_else(|| (form.show)(&parsed));
        self.note(path, shown, value);
        Some(parsed)
    }

    /// Whether the value of a key can be judged.
    pub fn knows(&self, key: &str) -> bool {
        !self.found.unknowable.contains(&self.key(key))
    }

    /// Notes a problem with the value of a key.
    pub fn refuse(&mut self, key: &str, value: &Value, message: Option<String>, allowed: Option<String>) {
        if !self.knows(key) {
            return;
        }
        let path = self.key(key);
        let found = Some(self.found.written(&path, value));
        let origin = self.found.origin(&path, Some(value));
        self.found.problems.push(Problem { origin, key: path, found, message, allowed, nearest: None });
    }

    /// Notes a setting.
    pub fn note(&mut self, path: String, shown: String, value: &Value) {
        let origin = self.found.origin(&path, Some(value)).unwrap_or(Origin::Default);
        self.found.settings.push(Setting { key: path, value: shown, origin });
    }

    /// The table under a key.
    pub fn section(&mut self, key: &'static str) -> Section<'t, '_, 's> {
        let table = match self.value(key).map(|value| (value, &value.kind)) {
            Some((_, ValueKind::Table(table))) => Some(table),
            Some((value, _)) => {
                self.refuse(key, value, None, Some("a table".to_owned()));
                None
            }
            None => None,
        };
        Section { path: self.key(key), table, known: Vec::new(), found: self.found }
    }

    /// Everything in a table whose keys are names, by name.
    pub fn entries(&self) -> BTreeMap<&'t str, &'t Value> {
        self.table.into_iter().flatten().map(|(key, value)| (key.as_str(), value)).collect()
    }

    /// A table of strings. Those that hold a secret, or whose name tells of one, are masked wherever they are shown.
    /// `check` says what is wrong with one.
    pub fn strings(
        &mut self,
        key: &'static str,
        check: impl Fn(&str, &str) -> Result<(), String>,
    ) -> BTreeMap<String, String> {
        let misplaced = self.value(key).filter(|value| !matches!(value.kind, ValueKind::Table(_)));
        if let Some(value) = misplaced.filter(|_| self.knows(key)) {
            // What was written is not shown: it was meant to be many values, and one may be a secret.
            let path = self.key(key);
            let origin = self.found.origin(&path, Some(value));
            self.found.problems.push(Problem::new(path, "is not a table of strings").at(origin));
        }
        if misplaced.is_some() {
            return BTreeMap::new();
        }
        let mut inner = self.section(key);
        let entries = inner.entries();
        if entries.is_empty() {
            let empty = Setting { key: inner.path.clone(), value: "{}".to_owned(), origin: Origin::Default };
            inner.found.settings.push(empty);
        }
        let mut strings = BTreeMap::new();
        for (name, value) in entries {
            let path = inner.key(name);
            let written = inner.found.written(&path, value);
            let shown = if refers(&written) || names_a_secret(name) { MASK.to_owned() } else { written };
            let outcome = match &value.kind {
                ValueKind::String(text) => check(name, text).map(|()| text.clone()),
                _ => Err("is not a string; put it in quotes".to_owned()),
            };
            match outcome {
                Ok(text) => {
                    strings.insert(name.to_owned(), text);
                    inner.note(path, shown, value);
                }
                Err(_) if !inner.knows(name) => {}
                Err(message) => {
                    let origin = inner.found.origin(&path, Some(value));
                    inner.found.problems.push(Problem::new(path, message).found(shown).at(origin));
                }
            }
        }
        strings
    }

    /// Reports what was never asked for.
    pub fn finish(self) {
        self.finish_with(|_| None);
    }

    /// Reports what was never asked for; `elsewhere` says where a key belongs that is known, but not here.
    pub fn finish_with(self, elsewhere: impl Fn(&str) -> Option<String>) {
        for (key, value) in self.entries() {
            if self.known.contains(&key) {
                continue;
            }
            let path = self.key(key);
            let origin = self.found.origin(&path, Some(value));
            // A misspelt table of headers may hold secrets.
            let found = match &value.kind {
                ValueKind::Table(_) => None,
                _ if names_a_secret(key) => Some(MASK.to_owned()),
                _ => Some(self.found.written(&path, value)),
            };
            let problem = match elsewhere(key) {
                Some(message) => Problem::new(path, message),
                None => {
                    let problem = Problem::new(path, "no such key").nearest(key, self.known.iter().copied());
                    problem.allowed(self.known.join(", "))
                }
            };
            self.found.problems.push(Problem { origin, found, ..problem });
        }
    }
}

/// A name of a pipeline or watch: letters, digits, `-`, `_` and `.`, at most 64.
pub(super) fn check_name(name: &str) -> Result<(), Box<Problem>> {
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if fits {
        return Ok(());
    }
    let problem = Problem::new("", "is not a name").allowed("letters, digits, \"-\", \"_\" and \".\", at most 64");
    Err(Box::new(problem.found(quote(name))))
}
