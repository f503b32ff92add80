//! The layers of a configuration, merged: files, then the environment, then flags. The last one that speaks wins,
//! and each value keeps the place where it was written.
//!
//! 1. Each file is read and parsed by itself, so that a broken one is named with line and column.
//! 2. Variables `INGESTD__SECTION__KEY` become a tree. They are matched to what the files say without regard to
//!    case, so that one can override a pipeline or a header that is written with capitals.
//! 3. The `config` crate merges the trees: tables key by key, everything else as a whole.
//!
//! Defaults are not a layer: they live in the types.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use config::{FileFormat, Format, Map, Source, Value, ValueKind};

use super::report::{Origin, Problem};

/// A table of the merged tree.
pub(super) type Table = Map<String, Value>;

/// Where to look for the configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Only this file, instead of the system's (`--config`).
    pub file: Option<PathBuf>,
    /// Another database (`--database`).
    pub database: Option<String>,
    /// The environment, for `INGESTD__…`, `${NAME}`, and the folders of the service manager and of XDG.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether the system's files in `/etc/ingestd` are read, and its database in `/var/lib/ingestd` considered.
    pub system: bool,
}

impl Sources {
    /// The system's files and this process's environment.
    pub fn of_process(file: Option<PathBuf>, database: Option<String>) -> Self {
        Self { file, database, environment: std::env::vars_os().collect(), system: true }
    }

    /// A variable of the environment; empty counts as absent.
    pub(super) fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    }
}

/// What the layers came to.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// The merged tree.
    pub tree: Table,
    /// Where each table was last mentioned: the `config` crate keeps origins for leaves only.
    pub tables: BTreeMap<String, Origin>,
    /// Files that could not be read, variables that mean nothing.
    pub problems: Vec<Problem>,
}

const SYSTEM: &str = "/etc/ingestd";
const PREFIX: &str = "INGESTD__";
const DATABASE_FLAG: &str = "--database";
/// A larger file is not a configuration.
const LARGEST_FILE_BYTES: u64 = 4 << 20;
/// No key lies deeper than `pipeline.NAME.env.VARIABLE`; a name with more parts ends in an unknown key.
const DEEPEST: usize = 4;
/// The sections. Anything else is refused before the merge, which would read a key with dots as a path.
pub(super) const SECTIONS: [&str; 7] = ["database", "log", "queue", "shutdown", "maintenance", "pipeline", "watch"];

/// Reads and merges every layer.
pub(super) fn merge(sources: &Sources) -> Merged {
    merge_below(Path::new(SYSTEM), sources)
}

fn merge_below(system: &Path, sources: &Sources) -> Merged {
    let mut merged = Merged::default();
    let files = match &sources.file {
        Some(file) => vec![file.clone()],
        None if sources.system => system_files(system, &mut merged.problems),
        None => Vec::new(),
    };
    let mut layers = Vec::new();
    for file in files {
        match read_file(&file) {
            Ok(table) => merged.add(table, &mut layers),
            Err(problem) => merged.problems.push(*problem),
        }
    }
    let written = combined(&layers, &mut merged.problems);
    let table = environment(&sources.environment, &written, &mut merged.problems);
    merged.add(table, &mut layers);
    if let Some(url) = &sources.database {
        let url = Value::new(Some(&DATABASE_FLAG.to_owned()), url.as_str());
        let section = Table::from_iter([("url".to_owned(), url)]);
        merged.add(Table::from_iter([("database".to_owned(), Value::new(None, section))]), &mut layers);
    }
    merged.tree = combined(&layers, &mut merged.problems);
    merged
}

impl Merged {
    /// Takes a layer in, without the sections that do not exist.
    fn add(&mut self, table: Table, layers: &mut Vec<Layer>) {
        let (known, unknown): (Table, Table) =
            table.into_iter().partition(|(section, _)| SECTIONS.contains(&section.as_str()));
        let mut unknown: Vec<_> = unknown.into_iter().collect();
        unknown.sort_by(|left, right| left.0.cmp(&right.0));
        for (key, value) in unknown {
            let problem = Problem::new(join("", &key), "no such section").allowed(SECTIONS.join(", "));
            self.problems.push(problem.nearest(&key, SECTIONS).at(first_origin(&value)));
        }
        note_tables(&known, "", &mut self.tables);
        layers.push(Layer(known));
    }
}

/// The origin of a value as it was parsed.
pub(super) fn origin(value: &Value) -> Option<Origin> {
    value.origin().map(|text| match text {
        flag if flag.starts_with("--") => Origin::Flag(flag.to_owned()),
        variable if variable.starts_with(PREFIX) => Origin::Variable(variable.to_owned()),
        file => Origin::File(PathBuf::from(file)),
    })
}

/// A key below a path, dotted, quoted where TOML would want it so.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn first_origin(value: &Value) -> Option<Origin> {
    origin(value).or_else(|| match &value.kind {
        ValueKind::Table(table) => table.values().find_map(first_origin),
        _ => None,
    })
}

fn note_tables(table: &Table, path: &str, tables: &mut BTreeMap<String, Origin>) {
    for (key, value) in table {
        if let ValueKind::Table(inner) = &value.kind {
            let path = join(path, key);
            if let Some(origin) = first_origin(value) {
                tables.insert(path.clone(), origin);
            }
            note_tables(inner, &path, tables);
        }
    }
}

/// One layer, already parsed.
#[derive(Clone, Debug)]
struct Layer(Table);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Table, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn combined(layers: &[Layer], problems: &mut Vec<Problem>) -> Table {
    let builder = layers.iter().fold(config::Config::builder(), |builder, layer| builder.add_source(layer.clone()));
    match builder.build().and_then(|config| config.cache.into_table()) {
        Ok(table) => table,
        Err(error) => {
            problems.push(Problem::new("", error.to_string()));
            Table::new()
        }
    }
}

/// `ingestd.toml` where it exists, then `conf.d/*.toml` by name.
fn system_files(root: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let main = root.join("ingestd.toml");
    let mut files = Vec::new();
    match std::fs::symlink_metadata(&main) {
        Ok(_) => files.push(main),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => problems.push(unreadable(&main, &error)),
    }
    let folder = root.join("conf.d");
    let mut parts = Vec::new();
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => parts.push(entry.path()),
                    Err(error) => problems.push(unreadable(&folder, &error)),
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        // Who may not look into the folder above has been told so already.
        Err(_) if !problems.is_empty() => {}
        Err(error) => problems.push(unreadable(&folder, &error)),
    }
    parts.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    parts.sort();
    files.extend(parts);
    files
}

fn read_file(path: &Path) -> Result<Table, Box<Problem>> {
    // Absolute, so that it is never taken for a variable or a flag, and means the same to whoever reads it.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = read_text(&path)?;
    let at = |message: String| Box::new(Problem::new("", message).at(Some(Origin::File(path.clone()))));
    parse(&path.to_string_lossy(), &text).map_err(at)
}

/// The text of a file, without the mark that some editors put at its beginning.
pub(super) fn read_text(path: &Path) -> Result<String, Box<Problem>> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| Box::new(unreadable(path, &error)))?;
    let at = |message: String| Box::new(Problem::new("", message).at(Some(Origin::File(path.to_owned()))));
    if bytes.len() as u64 > LARGEST_FILE_BYTES {
        return Err(at(format!("is larger than {} MiB", LARGEST_FILE_BYTES >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        at(format!("line {line}: is not UTF-8"))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "; run this as a user who may, for instance with sudo -u ingestd",
        _ => "",
    };
    Problem::new("", format!("can't be read: {error}{hint}")).at(Some(Origin::File(path.to_owned())))
}

fn parse(origin: &str, text: &str) -> Result<Table, String> {
    FileFormat::Toml.parse(Some(&origin.to_owned()), text).map_err(|error| located(&error.to_string()))
}

/// From the parser's drawing of the place, the place and the message: `line 3, column 9: …`.
fn located(drawing: &str) -> String {
    let mut lines = drawing.lines();
    let first = lines.next().unwrap_or_default();
    let Some(place) = first.strip_prefix("TOML parse error at ") else { return drawing.to_owned() };
    let message: Vec<&str> = lines.filter(|line| !line.contains(" |")).map(str::trim).collect();
    format!("{place}: {}", message.join(" "))
}

fn environment(variables: &[(OsString, OsString)], written: &Table, problems: &mut Vec<Problem>) -> Table {
    let mut ours: Vec<_> =
        variables.iter().filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes())).collect();
    ours.sort();
    let mut tree = Table::new();
    for (name, value) in ours {
        let (Some(name), Some(text)) = (name.to_str(), value.to_str()) else {
            let origin = Some(Origin::Variable(name.to_string_lossy().into_owned()));
            problems.push(Problem::new("", "is not UTF-8").at(origin));
            continue;
        };
        let path = key_path(&name[PREFIX.len()..], written);
        let value = variable_value(name, text, &path);
        insert(&mut tree, &path, value);
    }
    tree
}

/// The keys that a variable's name stands for, spelled as the files spell them.
fn key_path(name: &str, written: &Table) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut level = Some(written);
    let mut rest = Some(name);
    while let Some(text) = rest {
        let deepest = path.len() == DEEPEST;
        let verbatim = deepest || matches!(path.as_slice(), [section, _, key] if section == "pipeline" && key == "env");
        let (segment, after) = match text.split_once("__") {
            Some((segment, after)) if !verbatim => (segment, Some(after)),
            _ => (text, None),
        };
        let same = |key: &&String| !verbatim && key.eq_ignore_ascii_case(segment);
        let key = match level.and_then(|table| table.keys().find(same)) {
            Some(key) => key.clone(),
            None if verbatim => segment.to_owned(),
            None => segment.to_lowercase(),
        };
        level = level.and_then(|table| table.get(&key)).and_then(|value| match &value.kind {
            ValueKind::Table(table) => Some(table),
            _ => None,
        });
        path.push(key);
        rest = after;
    }
    path
}

/// A string, except where a table is due and the text is one: then it merges as tables do.
fn variable_value(name: &str, text: &str, path: &[String]) -> Value {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let table_is_due = match path.as_slice() {
        [_] | ["pipeline" | "watch", _] | ["maintenance", "retention" | "backup"] => true,
        ["pipeline", _, key] => ["env", "headers", "retry"].contains(key),
        ["watch", _, key] => ["on_success", "on_failure"].contains(key),
        _ => false,
    };
    match table_is_due.then(|| structured(name, text)) {
        Some(Some(value)) if matches!(value.kind, ValueKind::Table(_)) => value,
        _ => Value::new(Some(&name.to_owned()), text),
    }
}

/// A text that is a JSON or TOML value, read as such.
pub(super) fn structured(origin: &str, text: &str) -> Option<Value> {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(text) {
        return Some(from_json(Some(&origin.to_owned()), &json));
    }
    let mut table = parse(origin, &format!("value = {text}")).ok().filter(|table| table.len() == 1)?;
    table.remove("value")
}

/// A JSON value as the `config` crate holds it.
pub(super) fn from_json(origin: Option<&String>, json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind: ValueKind = match json {
        Json::Null => ValueKind::Nil,
        Json::Bool(value) => ValueKind::Boolean(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => ValueKind::I64(integer),
            (None, Some(float)) => ValueKind::Float(float),
            (None, None) => ValueKind::Nil,
        },
        Json::String(text) => ValueKind::String(text.clone()),
        Json::Array(list) => ValueKind::Array(list.iter().map(|item| from_json(origin, item)).collect()),
        Json::Object(map) => {
            ValueKind::Table(map.iter().map(|(key, value)| (key.clone(), from_json(origin, value))).collect())
        }
    };
    Value::new(origin, kind)
}

fn insert(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let inner = table.entry(key.clone()).or_insert_with(|| Value::new(None, Table::new()));
            if !matches!(inner.kind, ValueKind::Table(_)) {
                *inner = Value::new(None, Table::new());
            }
            if let ValueKind::Table(inner) = &mut inner.kind {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &Table, section: &str, key: &str) -> String {
        let ValueKind::Table(table) = &table[section].kind else { panic!("{section} is no table") };
        table[key].to_string()
    }

    #[test]
    fn the_files_of_the_system_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources { system: true, ..Sources::default() };
        let none = merge_below(&folder.path().join("gone"), &sources);
        assert!(none.tree.is_empty() && none.problems.is_empty(), "nothing there is nothing wrong");
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ingestd.toml", "[log]\nlevel = 'a'\nformat = 'a'\n[queue]\ndigest = 'a'");
        write("conf.d/20.toml", "[log]\nlevel = 'c'");
        write("conf.d/10.toml", "[log]\nlevel = 'b'\nformat = 'b'");
        write("conf.d/30.toml.bak", "[log]\nlevel = 'd'");
        let merged = merge_below(folder.path(), &sources);
        assert_eq!(merged.problems, []);
        let found = [("log", "level"), ("log", "format"), ("queue", "digest")];
        assert_eq!(found.map(|(section, key)| text(&merged.tree, section, key)), ["c", "b", "a"]);
        assert_eq!(merged.tables["queue"], Origin::File(folder.path().join("ingestd.toml")));
        write("conf.d/40.toml", "[");
        write("conf.d/50.toml", "]");
        assert_eq!(merge_below(folder.path(), &sources).problems.len(), 2, "each broken file is named");
    }

    #[test]
    fn without_the_system_only_the_environment_is_left() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ingestd.toml"), "[log]\nlevel = 'a'").unwrap();
        let environment = vec![("INGESTD__LOG__FORMAT".into(), "b".into())];
        let merged = merge_below(folder.path(), &Sources { environment, ..Sources::default() });
        assert_eq!(text(&merged.tree, "log", "format"), "b");
        let ValueKind::Table(log) = &merged.tree["log"].kind else { panic!("no table") };
        assert_eq!(log.len(), 1);
    }
}
