//! Secrets reach the pipelines, and nothing that is shown.

use super::super::*;
use super::{Written, keys_of};

const TEXT: &str = r#"
[pipeline.hook]
kind = "http"
url = "https://${USER_INFO}@example.org/${file:${CREDENTIALS_DIRECTORY}/path}"
concurrency = "${WIDTH}"
headers = { Authorization = "Bearer ${TOKEN}", Cookie = "literal-cookie", X-Plain = "plain", X-Mixed = "a ${TOKEN}" }
[pipeline.run]
kind = "exec"
command = ["run", "${TOKEN}", "{path}", "$$5"]
env = { A = "${TOKEN}", API_TOKEN = "literal-token", PLAIN = "plain" }
"#;

fn written() -> Written {
    let written = Written::new(TEXT);
    std::fs::write(written.path().join("path"), "from-file\n").unwrap();
    let folder = written.path().to_str().unwrap().to_owned();
    written
        .variable("USER_INFO", "s3cret-user")
        .variable("TOKEN", "s3cret-{token}")
        .variable("WIDTH", "3")
        .variable("CREDENTIALS_DIRECTORY", &folder)
}

#[test]
fn secrets_are_put_in_and_their_variables_named() {
    let config = written().load().unwrap().config;
    let ProcessorKind::Http(http) = &config.pipelines["hook"].kind else { panic!("not http") };
    assert_eq!(http.url, "https://s3cret-user@example.org/from-file");
    assert_eq!(http.headers["Authorization"], "Bearer s3cret-{{token}}");
    assert_eq!(config.pipelines["hook"].concurrency, 3);
    let ProcessorKind::Exec(exec) = &config.pipelines["run"].kind else { panic!("not exec") };
    assert_eq!(exec.command, ["run", "s3cret-{{token}}", "{path}", "$$5"]);
    let mut names = config.secret_variables;
    names.sort();
    assert_eq!(names, ["CREDENTIALS_DIRECTORY", "TOKEN", "USER_INFO", "WIDTH"]);
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    let loaded = written().load().unwrap();
    let shown: String =
        loaded.settings.iter().map(|setting| format!("{} = {}\n", setting.key, setting.value)).collect();
    for secret in ["s3cret", "literal-cookie", "literal-token", "from-file"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    for line in [
        "pipeline.hook.headers.Authorization = \"***\"",
        "pipeline.hook.headers.X-Mixed = \"***\"",
        "pipeline.hook.headers.X-Plain = \"plain\"",
        "pipeline.run.env.A = \"***\"",
        "pipeline.run.command = [\"run\", \"${TOKEN}\", \"{path}\", \"$$5\"]",
        "pipeline.hook.concurrency = \"${WIDTH}\"",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}

#[test]
fn a_report_does_not_tell_secrets_either() {
    let mut written = written().variable("BAD", "s3cret\nline");
    let text = TEXT.replace("a ${TOKEN}", "a ${BAD}").replace("\"literal-cookie\"", "\"{literal-cookie}\"");
    let text = text.replace("${WIDTH}", "${TOKEN}").replace("headers =", "timeout = \"s\"\nheaders =");
    let text = text.replace("env = {", "enw = {");
    std::fs::write(written.sources.file.clone().unwrap(), text).unwrap();
    written.sources.environment.retain(|(name, _)| name != "USER_INFO");
    let report = written.load().unwrap_err();
    assert!(report.problems.len() >= 6, "{report}");
    let shown = format!("{report}\n{report:?}");
    assert!(shown.contains("USER_INFO is not set"), "{shown}");
    for secret in ["s3cret", "literal-token", "\"{literal-cookie}\""] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

#[test]
fn what_is_written_literally_is_masked_by_name_and_in_urls() {
    let text = r#"
[pipeline.hook]
kind = "http"
url = "https://user:PASSW0RD-${TOKEN}@example.org/in"
headers = { X-Key = "PASSW0RD", X-Back = "https://user:PASSW0RD@example.org/", X-Plain = "plain" }
[pipeline.run]
kind = "exec"
command = ["curl", "https://user:PASSW0RD@example.org/{name}"]
env = { PASS = "PASSW0RD", bypass_cache = "yes" }
"#;
    for secrets in [true, false] {
        let written = Written::new(text).variable("TOKEN", "s3cret");
        let loaded = if secrets { written.load() } else { load_without_secrets(&written.sources) }.unwrap();
        let shown: String =
            loaded.settings.iter().map(|setting| format!("{} = {}\n", setting.key, setting.value)).collect();
        assert!(!shown.contains("PASSW0RD") && !shown.contains("s3cret"), "{shown}");
        for line in [
            "pipeline.hook.url = \"https://user:***@example.org/in\"",
            "pipeline.hook.headers.X-Back = \"https://user:***@example.org/\"",
            "pipeline.hook.headers.X-Plain = \"plain\"",
            "pipeline.run.command = [\"curl\", \"https://user:***@example.org/{name}\"]",
            "pipeline.run.env.bypass_cache = \"yes\"",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        let ProcessorKind::Http(http) = &loaded.config.pipelines["hook"].kind else { panic!("not http") };
        let password = if secrets { "PASSW0RD-s3cret" } else { "PASSW0RD-0" };
        assert_eq!(http.url, format!("https://user:{password}@example.org/in"), "what is masked is put in as well");
    }
}

#[test]
fn a_report_of_what_is_misplaced_tells_no_literal_secret() {
    let text = "[pipeline.hook]\nkind = 'http'\nurl = 'ftp://user:PASSW0RD@example.org'\n\
                db_pass = 'PASSW0RD'\nheaders = 'Authorization: PASSW0RD'\n";
    let written = Written::new(text).variable("INGESTD__PIPELINE__OTHER", "{\"headers\": \"PASSW0RD");
    let report = written.load().unwrap_err();
    assert_eq!(report.problems.len(), 4, "{report}");
    assert!(!format!("{report}\n{report:?}").contains("PASSW0RD"), "{report}");
}

#[test]
fn every_missing_secret_is_reported_at_its_key() {
    let report = Written::new(TEXT).load().unwrap_err();
    let mut keys = keys_of(&report);
    keys.dedup();
    let expected = [
        "pipeline.hook.concurrency",
        "pipeline.hook.headers.Authorization",
        "pipeline.hook.headers.X-Mixed",
        "pipeline.hook.url",
        "pipeline.run.command",
        "pipeline.run.env.A",
    ];
    assert_eq!(keys, expected, "{report}");
}

#[test]
fn commands_that_run_no_pipeline_need_no_secrets() {
    let written = Written::new(TEXT);
    let loaded = load_without_secrets(&written.sources).unwrap();
    assert_eq!(loaded.config.pipelines.len(), 2);
    let line = loaded.settings.iter().find(|setting| setting.key == "pipeline.run.command").unwrap();
    assert!(line.value.contains("${TOKEN}"));
}
