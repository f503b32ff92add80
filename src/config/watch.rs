//! `[watch.NAME]`, and the same keys as a JSON object, as the database keeps them for `ingestd watch add`.
//!
//! Here each key is looked at by itself; how watches stand to each other is the matter of `check`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};

use super::layers::{Sources, Table, from_json, join};
use super::report::{Origin, Problem, Report};
use super::secrets::Secrets;
use super::section::{Findings, Section, Setting, check_name};
use super::values::{
    self, CENTURY, SECOND, boolean, choice, duration, integer, limit, list, number, path, period, quote, show_size,
    size, size_limit, text,
};
use super::watch_section::{Dedupe, DeleteBrake, Disposal, OnRename, Watch, WatchEvents, WatchMode, WatchOrder};
use crate::job::Priority;

const PRIORITIES: [(&str, Priority); 4] =
    [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High), ("urgent", Priority::Urgent)];
const MODES: [(&str, WatchMode); 3] =
    [("auto", WatchMode::Auto), ("native", WatchMode::Native), ("poll", WatchMode::Poll)];
const ORDERS: [(&str, WatchOrder); 3] =
    [("path", WatchOrder::Path), ("newest", WatchOrder::Newest), ("oldest", WatchOrder::Oldest)];
const RENAMES: [(&str, OnRename); 3] =
    [("modify", OnRename::Modify), ("separate", OnRename::Separate), ("track", OnRename::Track)];
const DEDUPES: [(&str, Dedupe); 2] = [("none", Dedupe::None), ("content", Dedupe::Content)];
/// A path has no more components than this: 4096 bytes, every second one a slash.
const DEEPEST: u32 = 2_048;
const MOST_GONE: u64 = 1_000_000_000;
const LONGEST_SETTLE: Duration = Duration::from_hours(1);
const SHORTEST_POLL: Duration = Duration::from_millis(100);

/// A watch from its definition in the database: a JSON object with the keys of `[watch.NAME]`.
///
/// # Errors
/// Everything that is wrong with it by itself; see [`super::check_watches`] for the rest.
pub fn watch_from_json(name: &str, definition: &serde_json::Value) -> Result<Watch, Report> {
    let sources = Sources::default();
    let fallback = Some(Origin::Definition);
    let mut found = Findings::new(Secrets::new(&sources, false), BTreeMap::new(), fallback);
    let watch = read(name, &from_json(None, definition), &mut found);
    match watch {
        Some(watch) if found.problems.is_empty() => Ok(watch),
        _ => Err(Report { problems: found.problems }),
    }
}

/// Reads one watch; `None` after a problem that leaves nothing to stand in.
pub(super) fn read(name: &str, value: &Value, found: &mut Findings<'_>) -> Option<Watch> {
    let key = join("watch", name);
    let origin = found.origin(&key, Some(value));
    if let Err(problem) = check_name(name) {
        found.problems.push(Problem { key: key.clone(), ..*problem }.at(origin.clone()));
    }
    let ValueKind::Table(table) = &value.kind else {
        let problem = Problem::new(key, "is not a table").found(values::toml(&value.kind)).at(origin);
        found.problems.push(problem);
        return None;
    };
    let mut section = Section::new(key, table, found);
    let watch = keys(&mut section);
    section.finish();
    watch
}

fn keys(section: &mut Section<'_, '_, '_>) -> Option<Watch> {
    let root = section.require("path", &path("the absolute path of a folder", |_| true));
    let pipeline = section.require("pipeline", &text("the name of a pipeline", |name| !name.is_empty()));
    let default = Watch::of(PathBuf::new(), String::new());
    let globs = || list("a list of globs, such as [\"**/*.pdf\"]", text("a glob", |_| true));
    let suffix = text("a suffix without \"/\", such as \".done\"; \"\": none", |suffix| {
        suffix.len() <= 64 && !suffix.contains(|c: char| c == '/' || c.is_control())
    });
    let (min_size_bytes, max_size_bytes) = sizes(section, &default);
    let watch = Watch {
        recursive: section.get("recursive", default.recursive, &boolean()),
        include: section.get("include", default.include, &globs()),
        exclude: section.get("exclude", default.exclude, &globs()),
        ignore_files: section.get("ignore_files", default.ignore_files, &boolean()),
        priority: section.get("priority", default.priority, &choice(&PRIORITIES)),
        settle: section.get("settle", default.settle, &duration(Duration::ZERO..=LONGEST_SETTLE)),
        ready_suffix: section.get("ready_suffix", default.ready_suffix, &suffix),
        events: events(section, default.events),
        mode: section.get("mode", default.mode, &choice(&MODES)),
        poll_interval: section.get("poll_interval", default.poll_interval, &duration(SHORTEST_POLL..=CENTURY)),
        rescan_interval: section.get("rescan_interval", default.rescan_interval, &duration(SECOND..=CENTURY)),
        follow_symlinks: section.get("follow_symlinks", default.follow_symlinks, &boolean()),
        on_success: disposal(section, "on_success", true),
        on_failure: disposal(section, "on_failure", false),
        max_depth: section.get("max_depth", default.max_depth, &limit(DEEPEST)),
        min_size_bytes,
        max_size_bytes,
        min_age: section.get("min_age", default.min_age, &duration(Duration::ZERO..=CENTURY)),
        order: section.get("order", default.order, &choice(&ORDERS)),
        on_rename: section.get("on_rename", default.on_rename, &choice(&RENAMES)),
        dedupe: section.get("dedupe", default.dedupe, &choice(&DEDUPES)),
        delete_brake: delete_brake(section.section("delete_brake"), default.delete_brake),
        path: PathBuf::new(),
        pipeline: String::new(),
    };
    Some(Watch { path: root?, pipeline: pipeline?, ..watch })
}

/// The least and the most bytes of a file.
fn sizes(section: &mut Section<'_, '_, '_>, default: &Watch) -> (u64, Option<u64>) {
    let least = section.get("min_size", default.min_size_bytes, &size(0..=u64::MAX));
    let most = section.get("max_size", default.max_size_bytes, &size_limit());
    if let Some(value) = section.value("max_size").filter(|_| most.is_some_and(|most| most < least)) {
        let allowed = format!("at least min_size, which is {}; \"0B\": no limit", quote(&show_size(least)));
        section.refuse("max_size", value, Some("is less than min_size".to_owned()), Some(allowed));
    }
    (least, most)
}

fn delete_brake(mut section: Section<'_, '_, '_>, default: DeleteBrake) -> DeleteBrake {
    let brake = DeleteBrake {
        above: section.get("above", default.above, &integer(0..=MOST_GONE)),
        share: section.get("share", default.share, &number(0.0..=1.0)),
        wait: section.get("wait", default.wait, &period()),
    };
    section.finish();
    brake
}

fn events(section: &mut Section<'_, '_, '_>, default: WatchEvents) -> WatchEvents {
    let word = text("an event", |word| matches!(word, "add" | "modify" | "delete"));
    let form = list("a list of one or more of \"add\", \"modify\", \"delete\"", word);
    let named = [(default.add, "add"), (default.modify, "modify"), (default.delete, "delete")];
    let default_words = named.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned()).collect();
    let words: Vec<String> = section.get("events", default_words, &form);
    if words.is_empty()
        && let Some(value) = section.value("events")
    {
        section.refuse("events", value, None, Some(form.allowed));
    }
    let has = |word: &str| words.iter().any(|other| other == word);
    WatchEvents { add: has("add"), modify: has("modify"), delete: has("delete") }
}

/// `"keep"`, `"delete"` or `{ move = "/folder" }`.
fn disposal(section: &mut Section<'_, '_, '_>, key: &'static str, may_delete: bool) -> Disposal {
    let path = section.key(key);
    let Some(value) = section.value(key) else {
        section.found.settings.push(Setting { key: path, value: quote("keep"), origin: Origin::Default });
        return Disposal::Keep;
    };
    // A table has no origin of its own; the folder in it has.
    let (disposal, leaf) = match &value.kind {
        ValueKind::String(word) if word == "keep" => (Ok(Disposal::Keep), value),
        ValueKind::String(word) if word == "delete" && may_delete => (Ok(Disposal::Delete), value),
        ValueKind::String(word) if word == "delete" => {
            (Err(Some("a file that failed is never deleted".to_owned())), value)
        }
        ValueKind::Table(table) => (move_target(table).map_err(Some), table.get("move").unwrap_or(value)),
        _ => (Err(None), value),
    };
    match disposal {
        Ok(disposal) => {
            section.note(path, show_disposal(&disposal), leaf);
            disposal
        }
        Err(message) => {
            let words = if may_delete { "\"keep\", \"delete\"" } else { "\"keep\"" };
            section.refuse(key, value, message, Some(format!("{words} or {{ move = \"/folder\" }}")));
            Disposal::Keep
        }
    }
}

fn move_target(table: &Table) -> Result<Disposal, String> {
    if let Some(other) = table.keys().find(|key| *key != "move") {
        return Err(format!("there is no key {other:?} here"));
    }
    match table.get("move").map(|value| &value.kind) {
        Some(ValueKind::String(target)) if !target.is_empty() && !target.contains('\0') => {
            Ok(Disposal::Move(PathBuf::from(target)))
        }
        _ => Err("needs a folder to move to".to_owned()),
    }
}

fn show_disposal(disposal: &Disposal) -> String {
    match disposal {
        Disposal::Keep => quote("keep"),
        Disposal::Delete => quote("delete"),
        Disposal::Move(target) => format!("{{ move = {} }}", quote(&target.to_string_lossy())),
    }
}
