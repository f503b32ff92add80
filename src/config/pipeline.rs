//! `[pipeline.NAME]`. Secrets are put in first, into every string of the table; then the keys are read, those that
//! all kinds share and those of the kind.

use std::collections::BTreeMap;
use std::time::Duration;

use config::{Value, ValueKind};

use super::layers::{Table, join};
use super::report::Problem;
use super::section::{Findings, Section, check_name};
use super::sections::{Body, ExecPipeline, HttpPipeline, Pipeline, ProcessorKind};
use super::values::{CENTURY, DAY, choice, duration, integer, list, number, optional_path, size, text};
use super::{answer_stage, batch, placeholders, secrets, throttle, values};
use crate::job::{Jitter, RetryPolicy};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Exec,
    Http,
    Noop,
}

const KINDS: [(&str, Kind); 3] = [("exec", Kind::Exec), ("http", Kind::Http), ("noop", Kind::Noop)];
const EXEC_KEYS: [&str; 4] = ["command", "env", "cwd", "permanent_exit_codes"];
const HTTP_KEYS: [&str; 7] = ["url", "method", "body", "redirects", "headers", "stage", "external_id"];
/// Strings in these are filled in per job.
const TEMPLATES: [&str; 4] = ["command", "env", "url", "headers"];

const MILLISECOND: Duration = Duration::from_millis(1);
/// So many problems of one value are told, at most.
const MOST_PROBLEMS: usize = 10;
const MOST_STAGES: usize = 64;
const LONGEST_STAGE: usize = 64;
const LARGEST_OUTPUT_BYTES: u64 = 16 << 20;
const LARGEST_BATCH: usize = 10_000;

/// Reads one pipeline; `None` after a problem that leaves nothing to stand in.
pub(super) fn read(name: &str, value: &Value, found: &mut Findings<'_>) -> Option<Pipeline> {
    let key = join("pipeline", name);
    let origin = found.origin(&key, Some(value));
    if let Err(problem) = check_name(name) {
        found.problems.push(Problem { key: key.clone(), ..*problem }.at(origin.clone()));
    }
    let ValueKind::Table(table) = &value.kind else {
        // What was written is not shown: headers may be in it.
        found.problems.push(Problem::new(key, "is not a table").at(origin));
        return None;
    };
    let table = expand_table(table, &key, false, found);
    let mut section = Section::new(key, &table, found);
    let kind = section.require("kind", &choice(&KINDS))?;
    let common = Pipeline::of(ProcessorKind::Noop);
    let batch_size = section.get("batch_size", common.batch_size, &integer(1..=LARGEST_BATCH));
    let pipeline = Pipeline {
        concurrency: section.get("concurrency", common.concurrency, &integer(1..=10_000)),
        timeout: section.get("timeout", common.timeout, &duration(MILLISECOND..=CENTURY)),
        output_bytes: section.get("output", common.output_bytes, &size(0..=LARGEST_OUTPUT_BYTES)),
        batch_size,
        batch_linger: section.get("batch_linger", common.batch_linger, &duration(Duration::ZERO..=DAY)),
        retry: retry(section.section("retry"), common.retry),
        breaker: throttle::breaker(section.section("breaker")),
        rate: throttle::rate(&mut section),
        stages: stages(&mut section),
        kind: ProcessorKind::Noop,
    };
    let specific = match kind {
        Kind::Exec => exec(&mut section, placeholders::fitting(batch_size)).map(ProcessorKind::Exec),
        Kind::Http => http(&mut section, batch_size, &pipeline.stages).map(ProcessorKind::Http),
        Kind::Noop => Some(ProcessorKind::Noop),
    };
    if batch_size > 1
        && let Some(specific) = &specific
    {
        batch::refuse_placeholders(specific, &mut section);
    }
    section.finish_with(|key| {
        let owner = match key {
            _ if kind != Kind::Exec && EXEC_KEYS.contains(&key) => "exec",
            _ if kind != Kind::Http && HTTP_KEYS.contains(&key) => "http",
            _ => return None,
        };
        Some(format!("only a pipeline of kind \"{owner}\" has this key"))
    });
    Some(Pipeline { kind: specific?, ..pipeline })
}

fn retry(mut section: Section<'_, '_, '_>, default: RetryPolicy) -> RetryPolicy {
    const JITTER: [(&str, Jitter); 2] = [("full", Jitter::Full), ("none", Jitter::None)];
    let policy = RetryPolicy {
        max_attempts: section.get("max_attempts", default.max_attempts, &integer(1..=1_000_000)),
        base: section.get("base", default.base, &duration(Duration::ZERO..=365 * DAY)),
        factor: section.get("factor", default.factor, &number(1.0..=1_000.0)),
        max: section.get("max", default.max, &duration(Duration::ZERO..=365 * DAY)),
        jitter: section.get("jitter", default.jitter, &choice(&JITTER)),
        max_elapsed: section.get("max_elapsed", default.max_elapsed, &duration(MILLISECOND..=CENTURY)),
    };
    section.finish();
    policy
}

/// The declared stages, each named once.
fn stages(section: &mut Section<'_, '_, '_>) -> Vec<String> {
    let allowed = "a list of at most 64 names in order, each of 1 to 64 characters a-z, 0-9, _ and -, such as \
                   [\"sent\", \"confirmed\"]";
    let form = list(allowed, text("a name", |_| true));
    let stages = section.get("stages", Vec::new(), &form);
    let wrong = (stages.len() > MOST_STAGES).then(|| format!("names {} stages", stages.len()));
    let first = || stages.iter().enumerate().find_map(|(at, stage)| wrong_stage(stage, at + 1, &stages[..at]));
    let wrong = wrong.or_else(first);
    if let (Some(message), Some(value)) = (wrong, section.value("stages")) {
        section.refuse("stages", value, Some(message), Some(form.allowed.clone()));
    }
    stages
}

/// What is wrong with a stage, the so-manieth, after these.
fn wrong_stage(stage: &str, number: usize, before: &[String]) -> Option<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if stage.is_empty() {
        return Some(format!("has a name that is empty (item {number})"));
    }
    if let Some(character) = stage.chars().find(|c| !fits(*c)) {
        let shown: String = stage.chars().take(LONGEST_STAGE).collect();
        return Some(format!("has `{shown}` (item {number}): {character:?} is none of a-z, 0-9, _ and -"));
    }
    if stage.len() > LONGEST_STAGE {
        return Some(format!(
            "has a name of {} characters (item {number}); {LONGEST_STAGE} are the limit",
            stage.len()
        ));
    }
    let first = before.iter().position(|earlier| earlier == stage)? + 1;
    Some(format!("names `{stage}` twice (items {first} and {number}): a job comes to a stage once"))
}

fn exec(section: &mut Section<'_, '_, '_>, offered: &[&str]) -> Option<ExecPipeline> {
    let default = ExecPipeline::of(Vec::new());
    let item = text("a string", |_| true);
    let command = section.require("command", &list("a list of strings, such as [\"/usr/bin/file\", \"{path}\"]", item));
    let command = command.filter(|command| check_command(section, command, offered));
    let env = section.strings("env", |name, text| check_variable(name, text, offered));
    let cwd =
        section.get("cwd", None, &optional_path("the absolute path of a folder; \"\": work/ in the state directory"));
    let codes = list("a list of exit codes from 1 to 255", integer(1..=255_i32));
    let permanent_exit_codes = section.get("permanent_exit_codes", default.permanent_exit_codes, &codes);
    Some(ExecPipeline { command: command?, env, cwd, permanent_exit_codes })
}

fn check_command(section: &mut Section<'_, '_, '_>, command: &[String], offered: &[&str]) -> bool {
    let wrong = match command.first() {
        None => Some("is empty: a program has to come first".to_owned()),
        Some(program) if program.trim().is_empty() => Some("has an empty program".to_owned()),
        Some(_) => command.iter().find_map(|argument| check_template(argument, offered).err()),
    };
    let Some(message) = wrong else { return true };
    if let Some(value) = section.value("command") {
        section.refuse("command", value, Some(message), None);
    }
    false
}

fn http(section: &mut Section<'_, '_, '_>, batch_size: usize, stages: &[String]) -> Option<HttpPipeline> {
    let offered = placeholders::fitting(batch_size);
    let form = text("an address that begins with http:// or https://", |_| true);
    let url = section.require("url", &form);
    let url = url.filter(|url| match check_url(url, offered) {
        Ok(()) => true,
        Err(_) if !section.knows("url") => true,
        Err(message) => {
            if let Some(value) = section.value("url") {
                section.refuse("url", value, Some(message), Some(form.allowed.clone()));
            }
            false
        }
    });
    let token = |name: &str| reqwest::Method::from_bytes(name.as_bytes()).is_ok();
    let method = text("an HTTP method, such as \"POST\" or \"PUT\"", token);
    let method = section.get("method", "POST".to_owned(), &method);
    let body = body(section, batch_size);
    let redirects = section.get("redirects", 0, &integer(0..=20));
    let headers = section.strings("headers", |name, text| check_header(name, text, offered));
    check_header_twice(section, headers.keys().map(String::as_str));
    let answer_stage = answer_stage::read(section, stages, batch_size);
    Some(HttpPipeline { url: url?, method, body, redirects, headers, answer_stage })
}

/// What is sent of a job, or of a batch's jobs.
fn body(section: &mut Section<'_, '_, '_>, batch_size: usize) -> Body {
    const BODIES: [(&str, Body); 3] = [("file", Body::File), ("metadata", Body::Metadata), ("none", Body::None)];
    if batch_size == 1 {
        return section.get("body", Body::File, &choice(&BODIES));
    }
    let body = section.get("body", Body::Metadata, &choice(&BODIES));
    if body != Body::Metadata
        && let Some(value) = section.value("body")
    {
        let message = "does not fit batch_size > 1: the body of a batch is a JSON array that describes its jobs";
        section.refuse("body", value, Some(message.to_owned()), Some("\"metadata\", or no key at all".to_owned()));
    }
    body
}

fn check_template(template: &str, offered: &[&str]) -> Result<(), String> {
    if template.contains('\0') {
        return Err("holds a NUL character".to_owned());
    }
    placeholders::fill(template, offered).map(|_| ())
}

fn check_url(template: &str, offered: &[&str]) -> Result<(), String> {
    let (one, other) = (placeholders::fill(template, offered)?, placeholders::fill_with("1", template, offered)?);
    // Before any placeholder: a job must not choose the scheme.
    let scheme = template.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("http" | "https")) {
        return Err("is not an HTTP address".to_owned());
    }
    let read = |address: &str| reqwest::Url::parse(address).map_err(|error| format!("is not an address: {error}"));
    let (one, other) = (read(&one)?, read(&other)?);
    let goes_to = |url: &reqwest::Url| (url.origin(), url.username().to_owned(), url.password().map(str::to_owned));
    // Asked of the parsed address, because no simpler look knows where its host ends.
    if goes_to(&one) != goes_to(&other) {
        return Err(
            "has a placeholder in its host: names of files would choose where it goes; put a / before it".into()
        );
    }
    Ok(())
}

fn check_variable(name: &str, template: &str, offered: &[&str]) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("is not a name that an environment variable can have".to_owned());
    }
    check_template(template, offered)
}

fn check_header(name: &str, template: &str, offered: &[&str]) -> Result<(), String> {
    if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err("is not a name that a header can have".to_owned());
    }
    let filled = placeholders::fill(template, offered)?;
    let fits = reqwest::header::HeaderValue::from_str(&filled).is_ok();
    if fits { Ok(()) } else { Err("holds line breaks or other characters that a header can't have".to_owned()) }
}

fn check_header_twice<'a>(section: &mut Section<'_, '_, '_>, names: impl Iterator<Item = &'a str>) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in names {
        if let Some(other) = seen.get(&name.to_ascii_lowercase()) {
            let key = join(&section.key("headers"), name);
            let origin = section.found.origin_around(&key);
            let message = format!("is the same header as {other}: case makes no difference");
            section.found.problems.push(Problem::new(key, message).at(origin));
        }
        seen.entry(name.to_ascii_lowercase()).or_insert(name);
    }
}

/// The table with secrets put in; what a leaf looked like before is kept for whoever shows it.
fn expand_table(table: &Table, path: &str, template: bool, found: &mut Findings<'_>) -> Table {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| *key);
    let expanded = keys.into_iter().map(|(key, value)| {
        let template = template || TEMPLATES.contains(&key.as_str());
        (key.clone(), expand_value(value, &join(path, key), template, found))
    });
    expanded.collect()
}

fn expand_value(value: &Value, path: &str, template: bool, found: &mut Findings<'_>) -> Value {
    let written = values::toml(&value.kind);
    let kind = match &value.kind {
        ValueKind::Table(table) => {
            return with_kind(value, expand_table(table, path, template, found).into());
        }
        ValueKind::String(_) | ValueKind::Array(_) if holds(&value.kind, &|text| text.contains('$')) => {
            let mut problems = Vec::new();
            let kind = expand_strings(&value.kind, template, found, &mut problems);
            // Each of them shows the whole value.
            if problems.len() > MOST_PROBLEMS {
                let more = problems.split_off(MOST_PROBLEMS).len();
                problems.push(format!("has {more} more problems of this kind"));
            }
            let origin = found.origin(path, Some(value));
            if !problems.is_empty() || (!found.secrets.wanted && holds(&value.kind, &secrets::refers)) {
                found.unknowable.insert(path.to_owned());
            }
            let problems = problems.into_iter().map(|message| Problem::new(path, message).found(&written));
            found.problems.extend(problems.map(|problem| problem.at(origin.clone())));
            kind
        }
        _ => return value.clone(),
    };
    if kind != value.kind {
        found.unexpanded.insert(path.to_owned(), written);
    }
    with_kind(value, kind)
}

/// Whether a string, or one of a list's, passes the test. What is written for people may leave out what matters here.
fn holds(kind: &ValueKind, test: &dyn Fn(&str) -> bool) -> bool {
    match kind {
        ValueKind::String(text) => test(text),
        ValueKind::Array(items) => items.iter().any(|item| holds(&item.kind, test)),
        _ => false,
    }
}

fn with_kind(value: &Value, kind: ValueKind) -> Value {
    Value::new(value.origin().map(str::to_owned).as_ref(), kind)
}

fn expand_strings(kind: &ValueKind, template: bool, found: &mut Findings<'_>, problems: &mut Vec<String>) -> ValueKind {
    match kind {
        ValueKind::String(text) => match found.secrets.expand(text, template) {
            Ok(text) => ValueKind::String(text),
            Err(message) => {
                problems.push(message);
                // Something that no later check stumbles over: this string has its problem already.
                ValueKind::String("0".to_owned())
            }
        },
        ValueKind::Array(items) => {
            let expand = |item: &Value| with_kind(item, expand_strings(&item.kind, template, found, problems));
            ValueKind::Array(items.iter().map(expand).collect())
        }
        other => other.clone(),
    }
}
