//! Which layer wins, and what each value's origin is.

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::super::*;
use super::{MINIMAL, Written, keys_of, loaded};

fn setting<'a>(loaded: &'a Loaded, key: &str) -> &'a Setting {
    loaded.settings.iter().find(|setting| setting.key == key).unwrap()
}

#[test]
fn the_environment_overrides_the_file_and_flags_override_both() {
    let mut written = Written::new("[database]\nurl = 'sqlite:/file.db'\nreaders = 7\n[queue]\nlease = '10s'")
        .variable("INGESTD__DATABASE__URL", "sqlite:/variable.db")
        .variable("INGESTD__QUEUE__LEASE", "90s");
    let config = written.load().unwrap();
    assert_eq!(config.config.database.path.to_str(), Some("/variable.db"));
    assert_eq!(config.config.queue.lease, Duration::from_secs(90));
    assert_eq!(setting(&config, "queue.lease").origin, Origin::Variable("INGESTD__QUEUE__LEASE".to_owned()));
    assert_eq!(setting(&config, "queue.lease").value, "\"1m 30s\"");
    assert_eq!(setting(&config, "database.readers").origin, Origin::File(written.path().join("ingestd.toml")));
    assert_eq!(setting(&config, "database.cache").origin, Origin::Default);
    written.sources.database = Some("sqlite:/flag.db".to_owned());
    let config = written.load().unwrap();
    assert_eq!(config.config.database.path.to_str(), Some("/flag.db"));
    assert_eq!(setting(&config, "database.url").origin, Origin::Flag("--database".to_owned()));
    assert_eq!(config.config.database.readers, 7, "the rest of the table stays");
}

#[test]
fn names_in_the_environment_find_capitals_in_the_file_and_keep_their_own_under_env() {
    let text = "[pipeline.Docs]\nkind = 'http'\nurl = 'http://h'\nheaders = { X-Tenant = 'a' }\n\
                [pipeline.run]\nkind = 'exec'\ncommand = ['x']";
    let config = Written::new(text)
        .variable("INGESTD__PIPELINE__DOCS__HEADERS__X-TENANT", "b")
        .variable("INGESTD__PIPELINE__RUN__ENV__Some__Name", "v")
        .load()
        .unwrap()
        .config;
    let ProcessorKind::Http(http) = &config.pipelines["Docs"].kind else { panic!("not http") };
    assert_eq!(http.headers, [("X-Tenant".to_owned(), "b".to_owned())].into());
    let ProcessorKind::Exec(exec) = &config.pipelines["run"].kind else { panic!("not exec") };
    assert_eq!(exec.env, [("Some__Name".to_owned(), "v".to_owned())].into());
}

#[test]
fn tables_in_the_environment_merge_and_strings_that_look_like_tables_stay_strings() {
    let config = Written::new(&format!("{MINIMAL}[maintenance.backup]\ndirectory = '/b'"))
        .variable("INGESTD__MAINTENANCE__BACKUP", "{ keep = 3 }")
        .variable("INGESTD__WATCH__INBOX__ON_SUCCESS", r#"{"move": "/srv/done"}"#)
        .variable("INGESTD__PIPELINE__DOCUMENTS__ENV__JSON", r#"{{"a": 1}}"#)
        .load()
        .unwrap()
        .config;
    assert_eq!(config.maintenance.backup.keep, 3);
    assert_eq!(config.maintenance.backup.directory, Some("/b".into()));
    assert_eq!(config.watches["inbox"].on_success, Disposal::Move("/srv/done".into()));
    let ProcessorKind::Exec(exec) = &config.pipelines["documents"].kind else { panic!("not exec") };
    assert_eq!(exec.env["JSON"], r#"{{"a": 1}}"#);
}

#[test]
fn problems_of_the_environment_name_the_variable() {
    let deep = format!("INGESTD__QUEUE{}", "__A".repeat(50_000));
    let report = Written::new("")
        .variable("INGESTD__QUEUE__LEESE", "1s")
        .variable("INGESTD__QUEUE__CONCURRENCY", "many")
        .variable("INGESTD__NONSENSE", "1")
        .variable(&deep, "1")
        .load()
        .unwrap_err();
    let text = report.to_string();
    for line in ["in INGESTD__QUEUE__LEESE", "did you mean lease?", "in INGESTD__QUEUE__CONCURRENCY", "\"many\""] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(report.problems.len(), 4);
    let mut written = Written::new("");
    written.sources.environment.push(("INGESTD__LOG__LEVEL".into(), std::ffi::OsStr::from_bytes(b"\xff").into()));
    assert!(written.load().unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn variables_of_others_are_left_alone() {
    let written = Written::new("").variable("INGESTD_PATH", "x").variable("INGESTD_", "y");
    assert!(written.load().is_ok());
}

#[test]
fn broken_toml_is_located() {
    let report = Written::new("[queue]\nlease = \n").load().unwrap_err();
    let problem = &report.problems[0];
    assert!(problem.origin.as_ref().unwrap().to_string().ends_with("ingestd.toml"));
    let message = problem.message.as_deref().unwrap();
    assert!(message.starts_with("line 2, column 9: "), "{message}");
    assert!(message.len() > 20 && !message.contains('|'), "{message}");
    assert!(Written::new("a = 1\na = 2").load().is_err(), "a key twice");
    assert!(Written::new("[queue]\nlease = 99999999999999999999999").load().is_err());
}

#[test]
fn a_file_that_was_named_has_to_be_there() {
    let mut written = Written::new("");
    written.sources.file = Some(written.path().join("gone.toml"));
    assert!(written.load().unwrap_err().to_string().contains("gone.toml"));
    // Another suffix is not tried, and any suffix will do.
    let other = written.path().join("other.conf");
    std::fs::write(&other, "[queue]\nmax_crashes = 9").unwrap();
    written.sources.file = Some(other);
    assert_eq!(written.load().unwrap().config.queue.max_crashes, 9);
}

#[test]
fn a_file_that_is_not_utf8_is_refused_by_line() {
    let written = Written::new("");
    std::fs::write(written.path().join("ingestd.toml"), b"\xef\xbb\xbf[queue]\nlease = '\xff'").unwrap();
    assert!(written.load().unwrap_err().to_string().contains("line 2"));
    std::fs::write(written.path().join("ingestd.toml"), b"\xef\xbb\xbf[queue]\nlease = '9s'").unwrap();
    assert!(written.load().is_ok(), "a byte order mark is no mistake");
}

#[test]
fn every_effective_key_is_shown_once() {
    let loaded = loaded(MINIMAL);
    let mut keys: Vec<&str> = loaded.settings.iter().map(|setting| setting.key.as_str()).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
    assert!(keys.contains(&"maintenance.retention.sources") && keys.contains(&"pipeline.hook.method"));
}

#[test]
fn what_is_shown_can_be_read_back() {
    let first = loaded(MINIMAL);
    let text: String = first.settings.iter().map(|setting| format!("{} = {}\n", setting.key, setting.value)).collect();
    assert_eq!(loaded(&text).config, first.config);
}

#[test]
fn quoted_keys_with_dots_are_names_not_paths() {
    let report = Written::new("'queue.lease' = '1s'\n'x[9999999999999]' = 1").load().unwrap_err();
    assert_eq!(keys_of(&report), ["\"queue.lease\"", "\"x[9999999999999]\""]);
}
