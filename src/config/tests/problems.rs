//! What is refused, and how it is told.

use super::{MINIMAL, Written, keys_of, loaded, refused};

#[test]
fn a_report_names_every_problem_at_once() {
    let report = refused(
        r#"
[queue]
leese = "60s"
concurrency = "4"
lease = "0s"
[databse]
url = "x"
[pipeline.documents]
kind = "exec"
command = []
url = "http://h"
timeout = 5
[pipeline.broken]
kind = "exce"
[watch.inbox]
path = "inbox"
pipeline = "document"
on_failure = "delete"
"#,
    );
    let keys = [
        "databse",
        "queue.lease",
        "queue.concurrency",
        "queue.leese",
        "pipeline.broken.kind",
        "pipeline.documents.timeout",
        "pipeline.documents.command",
        "pipeline.documents.url",
        "watch.inbox.on_failure",
        "watch.inbox.path",
        "watch.inbox.pipeline",
    ];
    assert_eq!(keys_of(&report), keys);
    assert!(report.problems.iter().all(|problem| problem.origin.is_some()), "{report}");
    let text = report.to_string();
    for line in ["did you mean lease?", "did you mean database?", "did you mean documents?", "kind \"http\""] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.lines().filter(|line| !line.contains(" in /")).all(|line| line.chars().count() <= 80), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["problems"][3]["nearest"], "lease");
    assert_eq!(json["problems"][1]["found"], "\"0s\"");
}

#[test]
fn impossible_values_are_refused() {
    let cases = [
        ("queue", "lease = '999ms'"),
        ("queue", "concurrency = -1"),
        ("queue", "max_crashes = 0"),
        ("queue", "digest = 'md5'"),
        ("queue", "priority_aging = '1ms'"),
        ("log", "level = 'loud'"),
        ("log", "level = ''"),
        ("log", "format = 'xml'"),
        ("database", "readers = 0"),
        ("database", "readers = 65"),
        ("database", "mode = '0777'"),
        ("database", "mode = 600"),
        ("database", "cache = '1'"),
        ("database", "url = 'postgres://h/d'"),
        ("database", "url = 5"),
        ("maintenance.backup", "keep = 0"),
        ("maintenance.backup", "directory = 'relative'"),
        ("maintenance", "prune_interval = '1ms'"),
        ("maintenance", "retention = '7d'"),
        ("pipeline.documents", "concurrency = 0"),
        ("pipeline.documents", "timeout = '0s'"),
        ("pipeline.documents", "output = '17MiB'"),
        ("pipeline.documents", "cwd = 'relative'"),
        ("pipeline.documents", "permanent_exit_codes = [0]"),
        ("pipeline.documents", "permanent_exit_codes = [256]"),
        ("pipeline.documents", "retry = { factor = 0.9 }"),
        ("pipeline.documents", "retry = { factor = inf }"),
        ("pipeline.documents", "retry = { max_attempts = 0 }"),
        ("pipeline.documents", "retry = { attempts = 3 }"),
        ("pipeline.documents", "breaker = 5"),
        ("pipeline.documents", "breaker = { failures = -1 }"),
        ("pipeline.documents", "breaker = { failures = 10001 }"),
        ("pipeline.documents", "breaker = { failure = 5 }"),
        ("pipeline.documents", "breaker = { cooldown = '0s' }"),
        ("pipeline.documents", "breaker = { cooldown = 10 }"),
        ("pipeline.documents", "breaker = { cooldown = '2d' }"),
        ("pipeline.documents", "breaker = { cooldown = '1m', max_cooldown = '59s' }"),
        ("pipeline.documents", "breaker = { max_cooldown = '9s' }"),
        ("pipeline.documents", "rate = 100"),
        ("pipeline.documents", "rate = 'x'"),
        ("pipeline.documents", "rate = '0/1m'"),
        ("pipeline.documents", "rate = '100/0s'"),
        ("pipeline.documents", "rate = '100/m'"),
        ("pipeline.documents", "rate = '1000001/1s'"),
        ("pipeline.documents", "rate = '1/1000d'"),
        ("pipeline.documents", "burst = 5"),
        ("pipeline.nothing", "burst = 0"),
        ("pipeline.documents", "env = { A = 1 }"),
        ("pipeline.documents", "env = { 'A=B' = '1' }"),
        ("pipeline.documents", "env = { A = '{pth}' }"),
        ("pipeline.documents", "headers = {}"),
        ("pipeline.hook", "method = 'PO ST'"),
        ("pipeline.hook", "redirects = 21"),
        ("pipeline.hook", "body = 'xml'"),
        ("pipeline.hook", "headers = { 'X Y' = 'a' }"),
        ("pipeline.hook", "headers = { X = \"a\\nb\" }"),
        ("pipeline.hook", "headers = { X = '1', x = '2' }"),
        ("pipeline.hook", "command = ['x']"),
        ("pipeline.nothing", "cwd = '/'"),
        ("watch.inbox", "settle = '61m'"),
        ("watch.inbox", "poll_interval = '99ms'"),
        ("watch.inbox", "rescan_interval = '999ms'"),
        ("watch.inbox", "ready_suffix = '/done'"),
        ("watch.inbox", "events = []"),
        ("watch.inbox", "events = ['create']"),
        ("watch.inbox", "priority = 3"),
        ("watch.inbox", "recursive = 'yes'"),
        ("watch.inbox", "on_success = 'move'"),
        ("watch.inbox", "on_success = { move = '' }"),
        ("watch.inbox", "on_success = { move = '/a', copy = true }"),
        ("watch.inbox", "on_failure = 'delete'"),
        ("watch.inbox", "max_depth = -1"),
        ("watch.inbox", "max_depth = 2049"),
        ("watch.inbox", "max_depth = '2'"),
        ("watch.inbox", "min_size = -1"),
        ("watch.inbox", "min_size = '1.5MiB'"),
        ("watch.inbox", "max_size = 'big'"),
        ("watch.inbox", "max_size = '1KiB'\nmin_size = '1025'"),
        ("watch.inbox", "min_age = 60"),
        ("watch.inbox", "min_age = '-1s'"),
        ("watch.inbox", "order = 'size'"),
        ("watch.inbox", "on_rename = 'keep'"),
        ("watch.inbox", "dedupe = true"),
        ("watch.inbox", "dedupe = 'digest'"),
        ("watch.inbox", "delete_brake = 'off'"),
        ("watch.inbox", "delete_brake = { above = -1 }"),
        ("watch.inbox", "delete_brake = { above = 1000000001 }"),
        ("watch.inbox", "delete_brake = { share = 1.1 }"),
        ("watch.inbox", "delete_brake = { share = -0.1 }"),
        ("watch.inbox", "delete_brake = { share = nan }"),
        ("watch.inbox", "delete_brake = { wait = '999ms' }"),
        ("watch.inbox", "delete_brake = { wait = 60 }"),
        ("watch.inbox", "delete_brake = { after = '1h' }"),
    ];
    for (table, line) in cases {
        let header = format!("[{table}]\n");
        let text = match MINIMAL.contains(&header) {
            true => MINIMAL.replace(&header, &format!("{header}{line}\n")),
            false => format!("{MINIMAL}{header}{line}\n"),
        };
        let report = refused(&text);
        assert_eq!(report.problems.len(), 1, "{line}: {report}");
        let key = line.split(" = ").next().unwrap();
        assert!(report.problems[0].key.starts_with(&format!("{table}.{key}")), "{line}: {report}");
    }
}

#[test]
fn stages_have_names_and_each_is_declared_once() {
    for (stages, word) in [
        ("['a', 'Sent']", "`Sent` (item 2): 'S' is none of"),
        ("['a b']", "`a b` (item 1): ' ' is none of"),
        ("['']", "empty (item 1)"),
        ("['a', 'b', 'a']", "`a` twice (items 1 and 3)"),
        ("'a'", "list"),
    ] {
        let report = refused(&format!("[pipeline.p]\nkind = 'noop'\nstages = {stages}"));
        assert_eq!(keys_of(&report), ["pipeline.p.stages"]);
        assert!(report.to_string().contains(word), "{word}: {report}");
    }
}

#[test]
fn a_call_takes_its_job_to_a_declared_stage_only() {
    for (keys, wrong) in [
        ("stage = 'sent'", &["stage"][..]),
        ("stages = ['sent']\nstage = 'confirmed'", &["stage"]),
        ("stages = ['sent']\nstage = 'sent'\nexternal_id = 'id'", &["external_id"]),
        ("stages = ['sent']\nexternal_id = '/id'", &["external_id"]),
        ("stages = ['sent']\nstage = 'sent'\nbatch_size = 2", &["stage"]),
    ] {
        let report = refused(&format!("[pipeline.p]\nkind = 'http'\nurl = 'http://h'\n{keys}"));
        let wrong: Vec<String> = wrong.iter().map(|key| format!("pipeline.p.{key}")).collect();
        assert_eq!(keys_of(&report), wrong, "{keys}");
    }
}

#[test]
fn a_burst_is_a_number_of_jobs_beside_a_rate() {
    for (rate, burst, wrong) in [
        ("6/1m", "0", &["burst"][..]),
        ("6/1m", "1000001", &["burst"]),
        ("6/1m", "'6'", &["burst"]),
        ("0/1m", "5", &["rate"]),
        ("0/1m", "0", &["rate", "burst"]),
        ("", "5", &["burst"]),
    ] {
        let report = refused(&format!("[pipeline.p]\nkind = 'noop'\nrate = '{rate}'\nburst = {burst}"));
        let keys: Vec<String> = wrong.iter().map(|key| format!("pipeline.p.{key}")).collect();
        assert_eq!(keys_of(&report), keys, "{rate}, {burst}: {report}");
    }
}

#[test]
fn commands_and_urls_are_looked_at_closely() {
    for command in ["[]", "['']", "'wc {path}'", "['wc', '{pth}']", "['wc', '{']", "['wc', 1]", "['a\\u0000']"] {
        let command = if command.contains("\\u") { "[\"a\\u0000\"]" } else { command };
        let report = refused(&format!("[pipeline.p]\nkind = 'exec'\ncommand = {command}"));
        assert_eq!(keys_of(&report), ["pipeline.p.command"], "{command}");
    }
    for url in [
        "",
        "example.org",
        "ftp://h/",
        "{path}://h/",
        "http://",
        "http://h/{pth}",
        "http://h:port/",
        "http://h.{ext}:80/",
        "file:///x",
    ] {
        let report = refused(&format!("[pipeline.p]\nkind = 'http'\nurl = '{url}'"));
        assert_eq!(keys_of(&report), ["pipeline.p.url"], "{url}");
    }
}

#[test]
fn no_name_of_a_file_chooses_where_a_call_goes() {
    for url in [
        "https://{stem}/in",
        "https://example.org{path}",
        "http://h{name}",
        "http://h:8{job}/",
        "http://{name}@h/",
        "http://u:{digest}@h/",
        "https:///{stem}/in",
        "https://\\{stem}/in",
        "http://h\t{name}/",
    ] {
        let report = refused(&format!("[pipeline.p]\nkind = 'http'\nurl = \"{}\"", url.replace('\\', "\\\\")));
        assert_eq!(keys_of(&report), ["pipeline.p.url"], "{url}");
        assert!(report.to_string().contains("a placeholder in its host"), "{url}: {report}");
    }
    for url in ["http://h/{name}", "http://h?{name}", "http://h#{name}", "http://u:p@h:81/{relative}?{job}"] {
        loaded(&format!("[pipeline.p]\nkind = 'http'\nurl = '{url}'"));
    }
}

#[test]
fn what_has_no_default_has_to_be_there() {
    let report = refused("[pipeline.a]\n[pipeline.b]\nkind = 'exec'\n[pipeline.c]\nkind = 'http'\n[watch.d]");
    let keys = ["pipeline.a.kind", "pipeline.b.command", "pipeline.c.url", "watch.d.path", "watch.d.pipeline"];
    assert_eq!(keys_of(&report), keys);
    assert!(report.problems.iter().all(|problem| problem.origin.is_some()), "{report}");
}

#[test]
fn names_are_short_and_plain() {
    let long = "x".repeat(65);
    for name in ["'a b'", "'a/b'", "''", "'é'", &long] {
        let report = refused(&format!("[pipeline.{name}]\nkind = 'noop'"));
        assert_eq!(report.problems.len(), 1, "{name}: {report}");
    }
    let fine = format!("[pipeline.'a.B-c_1']\nkind = 'noop'\n[pipeline.{}]\nkind = 'noop'", "x".repeat(64));
    assert!(Written::new(&fine).load().is_ok());
}

#[test]
fn scalars_where_tables_belong_are_refused() {
    let report = refused("queue = 5\npipeline = { a = 'exec' }\nwatch = []");
    assert_eq!(keys_of(&report), ["queue", "pipeline.a", "watch"]);
}

#[test]
fn the_database_needs_a_place() {
    let mut written = Written::new("");
    written.sources.environment.clear();
    let report = written.load().unwrap_err();
    assert_eq!(keys_of(&report), ["database.url"]);
}

#[test]
fn a_database_in_a_file_stands_beside_the_rest() {
    let url = "[database]\nurl = 'sqlite:///srv/q/ingestd.db'";
    assert_eq!(loaded(url).config.state_directory(), std::path::Path::new("/srv/q"));
}

#[test]
fn what_does_not_fit_a_batch_is_not_offered_for_one() {
    for (keys, key) in
        [("kind = 'exec'\ncommand = ['x', '{zzzzzz}']", "command"), ("kind = 'http'\nurl = 'http://h/{zzzzzz}'", "url")]
    {
        for (size, offered) in [(1, true), (2, false)] {
            let report = refused(&format!("[pipeline.p]\nbatch_size = {size}\n{keys}"));
            assert_eq!(keys_of(&report), [format!("pipeline.p.{key}")]);
            let text = report.to_string();
            assert!(text.contains("{zzzzzz}") && text.contains("{path}") == offered, "{text}");
            assert!(offered || text.contains("{pipeline}"), "{text}");
        }
    }
}

#[test]
fn placeholders_of_a_single_job_do_not_fit_a_batch_and_each_is_named_with_its_place() {
    let report = refused(
        "[pipeline.a]\nkind = 'exec'\nbatch_size = 2\ncommand = ['x', '{pipeline}', '{path}', '{{name}}']\n\
         env = { A = 'of {watch}', B = '{pipeline}' }\n\
         [pipeline.b]\nkind = 'http'\nbatch_size = 2\nurl = 'http://h/{job}'\nheaders = { X-A = 's3cret {digest}' }\n\
         [pipeline.c]\nkind = 'exec'\nbatch_size = 1\ncommand = ['x', '{path}']\n",
    );
    assert_eq!(
        keys_of(&report),
        ["pipeline.a.command[2]", "pipeline.a.env.A", "pipeline.b.url", "pipeline.b.headers.X-A"],
        "{report}"
    );
    let text = report.to_string();
    for name in ["{path}", "{watch}", "{job}", "{digest}"] {
        assert!(text.contains(&format!("{name} stands for one job")), "{text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
}
