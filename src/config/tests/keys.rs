//! Every key: its default, that it makes a difference, and its line in the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::*;
use super::{MINIMAL, Written, keys_of, loaded, refused};
use crate::job::{DigestAlgorithm, Jitter, Priority, RetryPolicy};

/// Each key with a value that is not its default, and whether the configuration then says so.
type Case = (&'static str, &'static str, fn(&Config) -> bool);

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn exec(config: &Config) -> &ExecPipeline {
    match &config.pipelines["documents"].kind {
        ProcessorKind::Exec(exec) => exec,
        other => panic!("{other:?}"),
    }
}

fn http(config: &Config) -> &HttpPipeline {
    match &config.pipelines["hook"].kind {
        ProcessorKind::Http(http) => http,
        other => panic!("{other:?}"),
    }
}

fn retry(config: &Config) -> &RetryPolicy {
    &config.pipelines["documents"].retry
}

fn inbox(config: &Config) -> &Watch {
    &config.watches["inbox"]
}

const PROGRAM: [Case; 36] = [
    ("database.url", "'sqlite:/q/x.db'", |c| c.database.path.to_str() == Some("/q/x.db")),
    ("database.durability", "'normal'", |c| c.database.durability == Durability::Normal),
    ("database.mode", "'0660'", |c| c.database.mode == 0o660),
    ("database.busy_timeout", "'1s'", |c| c.database.busy_timeout == seconds(1)),
    ("database.readers", "64", |c| c.database.readers == 64),
    ("database.cache", "'1MiB'", |c| c.database.cache_bytes == 1 << 20),
    ("log.level", "'info,ingestd=debug'", |c| c.log.level == "info,ingestd=debug"),
    ("log.format", "'json'", |c| c.log.format == LogFormat::Json),
    ("queue.lease", "'1s'", |c| c.queue.lease == seconds(1)),
    ("queue.concurrency", "3", |c| c.queue.concurrency == Some(3)),
    ("queue.priority_aging", "'0s'", |c| c.queue.priority_aging.is_zero()),
    ("queue.max_pending", "7", |c| c.queue.max_pending == Some(7)),
    ("queue.max_crashes", "1", |c| c.queue.max_crashes == 1),
    ("queue.digest", "'sha256'", |c| c.queue.digest == DigestAlgorithm::Sha256),
    ("shutdown.grace", "'0s'", |c| c.shutdown.grace.is_zero()),
    ("maintenance.wal_checkpoint_interval", "'1s'", |c| c.maintenance.wal_checkpoint_interval == seconds(1)),
    ("maintenance.vacuum_interval", "'2s'", |c| c.maintenance.vacuum_interval == seconds(2)),
    ("maintenance.prune_interval", "'3s'", |c| c.maintenance.prune_interval == seconds(3)),
    ("maintenance.check_interval", "'0s'", |c| c.maintenance.check_interval.is_zero()),
    ("maintenance.min_free_space", "0", |c| c.maintenance.min_free_space_bytes == 0),
    ("maintenance.retention.completed", "'1s'", |c| c.maintenance.retention.completed == seconds(1)),
    ("maintenance.retention.skipped", "'2s'", |c| c.maintenance.retention.skipped == seconds(2)),
    ("maintenance.retention.cancelled", "'3s'", |c| c.maintenance.retention.cancelled == seconds(3)),
    ("maintenance.retention.failed", "'4s'", |c| c.maintenance.retention.failed == seconds(4)),
    ("maintenance.retention.attempts", "'5s'", |c| c.maintenance.retention.attempts == seconds(5)),
    ("maintenance.retention.runs", "'7s'", |c| c.maintenance.retention.runs == seconds(7)),
    ("maintenance.retention.sources", "'6s'", |c| c.maintenance.retention.sources == seconds(6)),
    ("maintenance.backup.interval", "'0s'", |c| c.maintenance.backup.interval.is_zero()),
    ("maintenance.backup.directory", "'/b'", |c| c.maintenance.backup.directory == Some("/b".into())),
    ("maintenance.backup.keep", "1", |c| c.maintenance.backup.keep == 1),
    ("pipeline.nothing.kind", "'noop'", |c| c.pipelines["nothing"].kind == ProcessorKind::Noop),
    ("pipeline.nothing.concurrency", "999", |c| c.pipelines["nothing"].concurrency == 999),
    ("pipeline.nothing.timeout", "'1ms'", |c| c.pipelines["nothing"].timeout == Duration::from_millis(1)),
    ("pipeline.nothing.output", "'16MiB'", |c| c.pipelines["nothing"].output_bytes == 16 << 20),
    ("pipeline.nothing.batch_size", "10000", |c| c.pipelines["nothing"].batch_size == 10_000),
    ("pipeline.nothing.retry.max_attempts", "1", |c| c.pipelines["nothing"].retry.max_attempts == 1),
];

const PIPELINES: [Case; 25] = [
    ("pipeline.documents.concurrency", "999", |c| c.pipelines["documents"].concurrency == 999),
    ("pipeline.documents.timeout", "'1s'", |c| c.pipelines["documents"].timeout == seconds(1)),
    ("pipeline.documents.output", "0", |c| c.pipelines["documents"].output_bytes == 0),
    ("pipeline.documents.batch_linger", "'1s'", |c| c.pipelines["documents"].batch_linger == seconds(1)),
    ("pipeline.documents.command", "['x', '{name}']", |c| exec(c).command == ["x", "{name}"]),
    ("pipeline.documents.env", "{ A = '{job}' }", |c| exec(c).env.get("A").is_some_and(|value| value == "{job}")),
    ("pipeline.documents.cwd", "'/tmp'", |c| exec(c).cwd == Some("/tmp".into())),
    ("pipeline.documents.permanent_exit_codes", "[1, 255]", |c| exec(c).permanent_exit_codes == [1, 255]),
    ("pipeline.documents.retry.max_attempts", "1", |c| retry(c).max_attempts == 1),
    ("pipeline.documents.retry.base", "'0s'", |c| retry(c).base.is_zero()),
    ("pipeline.documents.retry.factor", "1", |c| retry(c).factor.to_bits() == 1.0_f64.to_bits()),
    ("pipeline.documents.retry.max", "'1s'", |c| retry(c).max == seconds(1)),
    ("pipeline.documents.retry.jitter", "'none'", |c| retry(c).jitter == Jitter::None),
    ("pipeline.documents.retry.max_elapsed", "'1s'", |c| retry(c).max_elapsed == seconds(1)),
    ("pipeline.documents.breaker.failures", "0", |c| c.pipelines["documents"].breaker.failures == 0),
    ("pipeline.documents.breaker.cooldown", "'1h'", |c| c.pipelines["documents"].breaker.cooldown == seconds(3_600)),
    ("pipeline.documents.breaker.max_cooldown", "'10s'", |c| {
        c.pipelines["documents"].breaker.max_cooldown == seconds(10)
    }),
    ("pipeline.documents.rate", "'7/1m'", |c| {
        c.pipelines["documents"].rate == Some(Rate { jobs: 7, period: seconds(60), burst: 7 })
    }),
    ("pipeline.documents.stages", "['sent', 'confirmed']", |c| {
        c.pipelines["documents"].stages == ["sent", "confirmed"]
    }),
    ("pipeline.hook.url", "'http://h/{name}'", |c| http(c).url == "http://h/{name}"),
    ("pipeline.hook.method", "'PUT'", |c| http(c).method == "PUT"),
    ("pipeline.hook.body", "'none'", |c| http(c).body == Body::None),
    ("pipeline.hook.redirects", "20", |c| http(c).redirects == 20),
    ("pipeline.hook.headers", "{ X-A = '1' }", |c| http(c).headers.get("X-A").is_some_and(|value| value == "1")),
    ("pipeline.hook.kind", "'http'", |c| matches!(c.pipelines["hook"].kind, ProcessorKind::Http(_))),
];

const WATCH: [Case; 27] = [
    ("watch.inbox.path", "'/srv/other'", |c| inbox(c).path.to_str() == Some("/srv/other")),
    ("watch.inbox.pipeline", "'hook'", |c| inbox(c).pipeline == "hook"),
    ("watch.inbox.recursive", "false", |c| !inbox(c).recursive),
    ("watch.inbox.include", "['*.pdf']", |c| inbox(c).include == ["*.pdf"]),
    ("watch.inbox.exclude", "[]", |c| inbox(c).exclude.is_empty()),
    ("watch.inbox.ignore_files", "true", |c| inbox(c).ignore_files),
    ("watch.inbox.priority", "'urgent'", |c| inbox(c).priority == Priority::Urgent),
    ("watch.inbox.settle", "'0s'", |c| inbox(c).settle.is_zero()),
    ("watch.inbox.ready_suffix", "'.done'", |c| inbox(c).ready_suffix == ".done"),
    ("watch.inbox.events", "['delete']", |c| {
        inbox(c).events == WatchEvents { add: false, modify: false, delete: true }
    }),
    ("watch.inbox.mode", "'poll'", |c| inbox(c).mode == WatchMode::Poll),
    ("watch.inbox.poll_interval", "'100ms'", |c| inbox(c).poll_interval == Duration::from_millis(100)),
    ("watch.inbox.rescan_interval", "'1s'", |c| inbox(c).rescan_interval == seconds(1)),
    ("watch.inbox.follow_symlinks", "true", |c| inbox(c).follow_symlinks),
    ("watch.inbox.on_success", "'delete'", |c| inbox(c).on_success == Disposal::Delete),
    ("watch.inbox.on_failure", "{ move = '/srv/failed' }", |c| {
        inbox(c).on_failure == Disposal::Move("/srv/failed".into())
    }),
    ("watch.inbox.max_depth", "2", |c| inbox(c).max_depth == Some(2)),
    ("watch.inbox.min_size", "'1KiB'", |c| inbox(c).min_size_bytes == 1 << 10),
    ("watch.inbox.max_size", "'2GB'", |c| inbox(c).max_size_bytes == Some(2_000_000_000)),
    ("watch.inbox.min_age", "'1h'", |c| inbox(c).min_age == seconds(3_600)),
    ("watch.inbox.order", "'newest'", |c| inbox(c).order == WatchOrder::Newest),
    ("watch.inbox.on_rename", "'track'", |c| inbox(c).on_rename == OnRename::Track),
    ("watch.inbox.dedupe", "'content'", |c| inbox(c).dedupe == Dedupe::Content),
    ("watch.inbox.delete_brake.above", "0", |c| inbox(c).delete_brake.above == 0),
    ("watch.inbox.delete_brake.share", "1", |c| inbox(c).delete_brake.share.to_bits() == 1.0_f64.to_bits()),
    ("watch.inbox.delete_brake.wait", "'0s'", |c| inbox(c).delete_brake.wait.is_zero()),
    ("watch.inbox.on_success", "{ move = '/srv/done' }", |c| inbox(c).on_success == Disposal::Move("/srv/done".into())),
];

#[test]
fn every_word_of_a_watch_is_read_and_zero_is_no_limit() {
    let watch = |keys: &str| inbox(&loaded(&format!("{MINIMAL}\n{keys}")).config).clone();
    for (word, order) in [("path", WatchOrder::Path), ("newest", WatchOrder::Newest), ("oldest", WatchOrder::Oldest)] {
        assert_eq!(watch(&format!("order = '{word}'")).order, order);
    }
    for (word, rename) in [("modify", OnRename::Modify), ("separate", OnRename::Separate), ("track", OnRename::Track)] {
        assert_eq!(watch(&format!("on_rename = '{word}'")).on_rename, rename);
    }
    for (word, dedupe) in [("none", Dedupe::None), ("content", Dedupe::Content)] {
        assert_eq!(watch(&format!("dedupe = '{word}'")).dedupe, dedupe);
    }
    let zeros = "max_depth = 0\nmin_size = '0B'\nmax_size = 0\nmin_age = '0s'";
    assert_eq!(watch(zeros), inbox(&loaded(MINIMAL).config).clone());
    let equal = watch("min_size = '1KiB'\nmax_size = 1024");
    assert_eq!((equal.min_size_bytes, equal.max_size_bytes), (1024, Some(1024)));
    assert_eq!(watch("min_size = '1TiB'").max_size_bytes, None, "no limit is never too small");
    let brake = watch("delete_brake = { share = 0.25 }").delete_brake;
    assert_eq!(brake, DeleteBrake { share: 0.25, ..DeleteBrake::default() }, "the other keys keep their defaults");
}

/// `MINIMAL` with one key set, as a file that is merged on top would set it.
fn with(key: &str, value: &str) -> Config {
    let written = Written::new(MINIMAL);
    let path = key.split('.').collect::<Vec<_>>().join("__").to_uppercase();
    let value = value.replace('\'', "\"");
    let value = value.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&value).to_owned();
    let written = written.variable(&format!("INGESTD__{path}"), &value);
    match written.load() {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{key} = {value}: {report}"),
    }
}

#[test]
fn each_key_makes_its_difference() {
    for (key, value, differs) in PROGRAM.into_iter().chain(PIPELINES).chain(WATCH) {
        if !key.ends_with(".kind") {
            assert!(!differs(&loaded(MINIMAL).config), "{key} has that value anyway");
        }
        // In a file: as the last line of its table, in place of the same key.
        let (table, name) = key.rsplit_once('.').unwrap();
        let replaced = format!("{name} = ");
        let mut text = String::new();
        let mut current = String::new();
        for line in MINIMAL.lines() {
            if let Some(header) = line.strip_prefix('[') {
                current = header.trim_end_matches(']').to_owned();
            }
            if current != table || !line.starts_with(&replaced) {
                text.push_str(line);
                text.push('\n');
            }
            if line.starts_with('[') && current == table {
                text.push_str(&format!("{name} = {value}\n"));
            }
        }
        if !MINIMAL.contains(&format!("[{table}]")) {
            text.push_str(&format!("[{table}]\n{name} = {value}\n"));
        }
        assert!(differs(&loaded(&text).config), "{key} in a file:\n{text}");
        assert!(differs(&with(key, value)), "{key} in the environment");
    }
}

#[test]
fn the_test_of_each_key_leaves_none_out() {
    let tested: BTreeSet<&str> = PROGRAM.iter().chain(&PIPELINES).chain(&WATCH).map(|(key, ..)| *key).collect();
    for setting in loaded(MINIMAL).settings {
        let key = setting.key.as_str();
        let known = tested.contains(key)
            // What all kinds share is tested on one of them.
            || key == "pipeline.documents.kind"
            || ["documents", "nothing", "hook"].iter().any(|name| {
                key.strip_prefix(&format!("pipeline.{name}.")).is_some_and(|rest| {
                    ["documents", "nothing"].iter().any(|name| tested.contains(format!("pipeline.{name}.{rest}").as_str()))
                })
            });
        assert!(known, "{key}");
    }
}

#[test]
fn nothing_written_means_the_defaults_of_the_types() {
    let config = loaded(MINIMAL).config;
    let path = config.database.path.clone();
    assert_eq!(config.database, Database { path, ..Database::default() });
    assert_eq!(config.log, Log::default());
    assert_eq!(config.queue, Queue::default());
    assert_eq!(config.shutdown, Shutdown::default());
    assert_eq!(config.maintenance, Maintenance::default());
    let command = vec!["wc".to_owned(), "{path}".to_owned()];
    assert_eq!(config.pipelines["documents"], Pipeline::of(ProcessorKind::Exec(ExecPipeline::of(command))));
    assert_eq!(config.pipelines["nothing"], Pipeline::of(ProcessorKind::Noop));
    assert_eq!(*inbox(&config), Watch::of("/srv/inbox".into(), "documents".to_owned()));
    let expected = HttpPipeline {
        url: "https://example.org/ingest".to_owned(),
        method: "POST".to_owned(),
        body: Body::File,
        redirects: 0,
        headers: BTreeMap::new(),
        answer_stage: None,
    };
    assert_eq!(*http(&config), expected);
}

/// `burst` has no default of its own and none without `rate`, so it stands apart from the others.
#[test]
fn burst_belongs_to_a_rate_and_is_all_of_it_by_default() {
    let rate = |keys: &str| loaded(&format!("[pipeline.p]\nkind = 'noop'\n{keys}")).config.pipelines["p"].rate;
    let expected = |burst| Some(Rate { jobs: 6, period: seconds(60), burst });
    assert_eq!(rate("rate = '6/1m'"), expected(6));
    assert_eq!(rate("rate = '6/1m'\nburst = 1"), expected(1));
    assert_eq!(rate("rate = '6/1m'\nburst = 90"), expected(90));
    assert_eq!(rate("rate = ''"), None);
}

/// The reference with every `# key = value` and `# [table]` in effect.
fn uncommented() -> String {
    let key = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let live = reference().lines().map(|line| match line.strip_prefix("# ") {
        Some(inner) if inner.starts_with("[pipeline.") || inner.starts_with("[watch.") || key(inner) => inner,
        _ => line,
    });
    live.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_as_it_is_changes_nothing() {
    let loaded = loaded(reference());
    assert!(loaded.config.pipelines.is_empty() && loaded.config.watches.is_empty());
    assert!(loaded.settings.iter().all(|setting| setting.origin == Origin::Default), "{:?}", loaded.settings);
    assert!(reference().lines().all(|line| line.chars().count() <= 88 || line.starts_with("# exclude")));
}

#[test]
fn the_reference_says_every_key_with_its_default() {
    let loaded = Written::new(&uncommented()).variable("INGEST_TOKEN", "t").load();
    let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
    let defaults: BTreeMap<String, String> =
        super::loaded(MINIMAL).settings.into_iter().map(|setting| (setting.key, setting.value)).collect();
    // These name something, or depend on the machine.
    let free = |key: &str| {
        let last = key.rsplit('.').next().unwrap_or_default();
        ["url", "kind", "command", "path", "pipeline"].contains(&last)
            || key == "pipeline.documents.concurrency"
            || key.starts_with("pipeline.hook.headers")
    };
    let mut written = BTreeSet::new();
    for setting in &loaded.settings {
        if !free(&setting.key) {
            assert_eq!(defaults.get(&setting.key), Some(&setting.value), "{}", setting.key);
        }
        if setting.origin != Origin::Default || setting.key.ends_with(".env") {
            written.insert(setting.key.as_str());
        }
    }
    // What http shares with exec is said once.
    let said_elsewhere = |key: &str| {
        key.strip_prefix("pipeline.hook.")
            .is_some_and(|rest| written.contains(format!("pipeline.documents.{rest}").as_str()))
    };
    for key in loaded.settings.iter().map(|setting| setting.key.as_str()) {
        assert!(written.contains(key) || said_elsewhere(key), "{key} is missing in the reference");
    }
    assert!(uncommented().contains("\nenv = {}\n"));
}

#[test]
fn a_batch_goes_out_as_an_array_of_its_jobs_unless_the_body_says_what_it_cannot() {
    let hook = |keys: &str| format!("[pipeline.hook]\nkind = 'http'\nurl = 'http://h/{{pipeline}}'\n{keys}");
    assert_eq!(http(&loaded(&hook("batch_size = 2")).config).body, Body::Metadata);
    assert_eq!(http(&loaded(&hook("batch_size = 2\nbody = 'metadata'")).config).body, Body::Metadata);
    for body in ["file", "none"] {
        let report = refused(&hook(&format!("batch_size = 2\nbody = '{body}'")));
        assert_eq!(keys_of(&report), ["pipeline.hook.body"], "{report}");
    }
}
