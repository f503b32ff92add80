//! Every key of `[pipeline.NAME]` makes a difference. (Retries and timeouts: see also `verdicts_exec`.)

use std::fs;

use serde_json::Value;

use crate::support::*;

/// Runs one file through a pipeline with these keys, once; answers the place and the job.
fn once(keys: &str, name: &str, content: &str) -> (Place, Value) {
    let place = Place::with(&format!(
        "[pipeline.p]\n{keys}\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n"
    ));
    fs::create_dir_all(place.inbox().join("sub")).unwrap();
    place.put(name, content);
    place.cli(&["run", "--once"]);
    let job = place.jobs().pop().unwrap_or_else(|| panic!("no job with {keys}"));
    (place, job)
}

fn sh(script: &str) -> String {
    format!("kind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n")
}

#[test]
fn every_placeholder_is_filled_in() {
    let names = "path name stem ext dir relative op digest size job attempt idempotency_key pipeline watch";
    let list: String = names.split(' ').map(|name| format!("\"{name}={{{name}}}\"")).collect::<Vec<_>>().join(", ");
    let keys = format!(
        "kind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", 'printf \"%s\\n\" \"$@\" > @PLACE@/out', \"sh\", {list}]"
    );
    let (place, job) = once(&keys, "sub/a b.tar.gz", "abc");
    let out = fs::read_to_string(place.at("out")).unwrap();
    let inbox = place.inbox().display().to_string();
    let key = text(&job, "idempotency_key");
    let expected = [
        format!("path={inbox}/sub/a b.tar.gz"),
        "name=a b.tar.gz".into(),
        "stem=a b.tar".into(),
        "ext=gz".into(),
        format!("dir={inbox}/sub"),
        "relative=sub/a b.tar.gz".into(),
        "op=add".into(),
        format!("digest={}", text(&job, "digest")),
        "size=3".into(),
        format!("job={}", job["id"]),
        "attempt=1".into(),
        format!("idempotency_key={key}"),
        "pipeline=p".into(),
        "watch=inbox".into(),
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn exec_sets_the_promised_variables_and_env_adds_to_them() {
    let keys = sh("env > @PLACE@/out; pwd > @PLACE@/pwd; cat > @PLACE@/stdin") + "env = { EXTRA = \"on {name}\" }";
    let (place, job) = once(&keys, "a.txt", "abc");
    let out = fs::read_to_string(place.at("out")).unwrap();
    let path = place.inbox().join("a.txt").display().to_string();
    let variables = [
        ("INGESTD_PATH", path.as_str()),
        ("INGESTD_RELATIVE", "a.txt"),
        ("INGESTD_OP", "add"),
        ("INGESTD_DIGEST", text(&job, "digest")),
        ("INGESTD_SIZE", "3"),
        ("INGESTD_ATTEMPT", "1"),
        ("INGESTD_IDEMPOTENCY_KEY", text(&job, "idempotency_key")),
        ("INGESTD_PIPELINE", "p"),
        ("INGESTD_WATCH", "inbox"),
        ("EXTRA", "on a.txt"),
    ];
    for (name, value) in variables {
        assert!(out.lines().any(|line| line == format!("{name}={value}")), "{name}={value} is not in\n{out}");
    }
    assert!(out.contains(&format!("INGESTD_JOB={}\n", job["id"])), "{out}");
    assert_eq!(fs::read_to_string(place.at("pwd")).unwrap().trim(), place.at("state/work").to_str().unwrap());
    assert_eq!(fs::read_to_string(place.at("stdin")).unwrap(), "", "standard input is empty");
}

#[test]
fn metadata_reaches_the_processor() {
    let place = Place::with_database(&format!("[pipeline.p]\n{}", sh("echo \"$INGESTD_METADATA\" > @PLACE@/out")));
    place.add(&place.file("a", "a"), &["--metadata", r#"{"b":[1,"c"]}"#]);
    place.ok(&["run", "--once"]);
    let metadata: Value = serde_json::from_str(&fs::read_to_string(place.at("out")).unwrap()).unwrap();
    assert_eq!(metadata, serde_json::json!({"b": [1, "c"]}));
}

#[test]
fn cwd_is_where_the_command_runs() {
    let (place, _) = once(&(sh("pwd > @PLACE@/out") + "cwd = \"@PLACE@/home\""), "a", "a");
    assert_eq!(fs::read_to_string(place.at("out")).unwrap().trim(), place.at("home").to_str().unwrap());
}

#[test]
fn no_shell_touches_the_command() {
    let keys = "kind = \"exec\"\ncommand = [\"/bin/echo\", \"$HOME *\", \"; false\", \"{name}\"]";
    let (place, job) = once(keys, "$(touch pwned)", "a");
    let logs = place.ok(&["logs", &job["id"].to_string()]).stdout;
    assert!(logs.contains("$HOME * ; false $(touch pwned)"), "{logs}");
}

#[test]
fn concurrency_bounds_a_pipeline() {
    for concurrency in [1, 3] {
        let place = Place::new();
        let ledger = Ledger::new(&place, &format!("while [ ! -e {} ]; do sleep 0.05; done", place.at("go").display()));
        let keys = format!("kind = \"exec\"\ncommand = {}\nconcurrency = {concurrency}", ledger.command);
        place.configure(&format!("[pipeline.p]\n{keys}\n"));
        place.ok(&["db", "migrate"]);
        for number in 0..6 {
            place.add(&place.file(&format!("f{number}"), "x"), &[]);
        }
        let _daemon = Daemon::start(&place);
        wait_until("they run", || ledger.entries().len() == concurrency);
        place.wait_count("running", concurrency);
        assert_eq!(ledger.entries().len(), concurrency);
        fs::write(place.at("go"), "").unwrap();
        place.wait_count("completed", 6);
    }
}

#[test]
fn output_bounds_what_is_kept() {
    for (output, least, most) in [("1KiB", 900, 1_024), ("64KiB", 10_000, 65_536), ("0B", 0, 0)] {
        let keys = sh("head -c 12000 /dev/zero | tr '\\0' x; echo; echo the end") + &format!("output = \"{output}\"");
        let (place, job) = once(&keys, "a", "a");
        let kept = place.show(count(&job, "id"))["attempts"][0]["output"].as_str().unwrap_or_default().to_owned();
        assert!((least..=most).contains(&kept.len()), "{output} keeps {} bytes", kept.len());
        assert!(kept.is_empty() || kept.contains("the end"), "the tail is what is kept");
    }
}

#[test]
fn retry_keys_decide_how_often_and_when() {
    for (keys, attempts) in [("max_attempts = 1", 1), ("max_attempts = 4, base = \"10ms\", jitter = \"none\"", 4)] {
        let (_place, job) = once(&(sh("exit 1") + &format!("retry = {{ {keys} }}")), "a", "a");
        assert_eq!((text(&job, "state"), count(&job, "attempt")), ("failed", attempts), "{keys}");
        assert_eq!(count(&job, "max_attempts"), attempts);
    }
}

/// Milliseconds between the end of the newest attempt and the next one's due time.
fn delay(retry: &str, attempts: i64) -> i64 {
    let place = Place::with(&format!("[pipeline.p]\n{}retry = {{ {retry} }}\n", sh("exit 1")));
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("a", "a"), &[]);
    let job = wait_for("so many attempts are spent", || {
        Some(place.show(id)).filter(|job| count(job, "attempt") == attempts && text(job, "state") == "retrying")
    });
    let millis = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let history = place.history();
    let ended = history.iter().map(|row| millis(text(row, "finished_at"))).max().unwrap();
    millis(text(&job, "run_at")) - ended
}

#[test]
fn retry_base_factor_and_max_make_the_delay() {
    let hour = 3_600_000;
    let near = |found: i64, wanted: i64| (found - wanted).abs() < 1_000;
    let first = delay("base = \"1h\", jitter = \"none\"", 1);
    assert!(near(first, hour), "base: {first}");
    let grown = delay("base = \"10ms\", factor = 1000.0, max = \"1d\", jitter = \"none\"", 2);
    assert!(near(grown, 10_000), "factor: {grown}");
    let capped = delay("base = \"2h\", max = \"90m\", jitter = \"none\"", 1);
    assert!(near(capped, hour * 3 / 2), "max: {capped}");
}

#[test]
fn retry_jitter_spreads_the_delay() {
    let place = Place::with(&format!("[pipeline.p]\n{}retry = {{ base = \"1h\", jitter = \"full\" }}\n", sh("exit 1")));
    let _daemon = Daemon::start(&place);
    for number in 0..12 {
        place.add(&place.file(&format!("f{number}"), "x"), &[]);
    }
    place.wait_count("retrying", 12);
    let now = jiff::Timestamp::now().as_second();
    let mut waits: Vec<i64> = place
        .jobs()
        .iter()
        .map(|job| text(job, "run_at").parse::<jiff::Timestamp>().unwrap().as_second() - now)
        .collect();
    waits.sort_unstable();
    assert!(waits[0] < 2_700 && waits[11] > 900 && waits[11] <= 3_600, "{waits:?}");
    assert!(waits[11] - waits[0] > 300, "twelve equal delays: {waits:?}");
}

#[test]
fn permanent_exit_codes_can_be_chosen() {
    let keys = "permanent_exit_codes = [3]\nretry = { max_attempts = 2, base = \"10ms\" }";
    let (_place, job) = once(&(sh("exit 3") + keys), "a", "a");
    assert_eq!((text(&job, "state"), count(&job, "attempt")), ("failed", 1));
    let (_place, job) = once(&(sh("exit 65") + keys), "a", "a");
    assert_eq!((text(&job, "state"), count(&job, "attempt")), ("failed", 2));
}

#[test]
fn http_keys_shape_the_request() {
    let server = Server::always(Answer::status(204));
    let keys = format!(
        "kind = \"http\"\nurl = \"{}?name={{name}}\"\nmethod = \"PUT\"\nbody = \"metadata\"\n\
         headers = {{ X-Relative = \"{{relative}}\" }}",
        server.url("/in/{relative}")
    );
    let (_place, job) = once(&keys, "a b.txt", "abc");
    assert_eq!(text(&job, "state"), "completed", "{job}");
    let request = server.received().remove(0);
    assert_eq!((request.method.as_str(), request.header("x-relative")), ("PUT", "a b.txt"));
    assert_eq!(request.target, "/in/a%20b.txt?name=a%20b.txt", "percent-encoded in the address");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert!(body.to_string().contains("a b.txt"), "{body}");

    let server = Server::always(Answer::status(204));
    let keys = format!("kind = \"http\"\nurl = \"{}\"\nmethod = \"DELETE\"\nbody = \"none\"", server.url("/"));
    once(&keys, "a", "abc");
    let request = server.received().remove(0);
    assert_eq!((request.method.as_str(), request.body.len()), ("DELETE", 0));
}

#[test]
fn a_line_break_never_gets_into_a_header() {
    let server = Server::always(Answer::status(204));
    let keys = format!("kind = \"http\"\nurl = \"{}\"\nheaders = {{ X-Name = \"{{name}}\" }}", server.url("/"));
    let (_place, job) = once(&keys, "a\r\nX-Evil: 1", "abc");
    assert_eq!((text(&job, "state"), text(&job["error"], "kind")), ("failed", "template"), "{job}");
    assert!(server.received().is_empty());
}

#[test]
fn noop_does_nothing_and_keeps_an_inventory() {
    let (place, job) = once("kind = \"noop\"", "a", "abc");
    assert_eq!(text(&job, "digest"), blake3_of(&place.inbox().join("a")));
    assert_eq!((text(&job, "state"), count(&job, "attempt")), ("completed", 1));
}

#[test]
fn exec_timeout_and_http_timeout_are_the_pipelines() {
    let keys = sh("sleep 1000") + "timeout = \"200ms\"\nretry = { max_attempts = 1 }";
    let (_place, job) = once(&keys, "a", "a");
    assert_eq!(text(&job["error"], "kind"), "timeout", "{job}");
    assert!((200..20_000).contains(&count(&job, "duration_ms")), "{job}");
}
