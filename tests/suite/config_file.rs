//! The configuration as a whole: layers, secrets, what is refused, and the keys of `[database]` and `[log]`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::*;

const NOOP: &str = "[pipeline.p]\nkind = \"noop\"\n";

#[test]
fn everything_that_is_wrong_is_told_in_one_report() {
    let place = Place::with(
        "[queue]\nlease = \"soon\"\nconcurency = 3\n\
         [database]\nreaders = \"four\"\nmode = \"9999\"\n\
         [log]\nformat = \"xml\"\n\
         [maintenance]\nmin_free_space = -1\nretention = { compleeted = \"1d\" }\n\
         [pipeline.empty]\nkind = \"exec\"\ncommand = []\n\
         [pipeline.odd]\nkind = \"teleport\"\n\
         [pipeline.holes]\nkind = \"exec\"\ncommand = [\"/bin/true\", \"{pth}\"]\nconcurrency = 0\n\
         [pipeline.web]\nkind = \"http\"\nurl = \"not an address\"\n\
         [watch.a]\npath = \"@PLACE@/inbox\"\npipeline = \"nobody\"\nsetle = \"1s\"\n\
         [watch.b]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\non_success = \"burn\"\n\
         [watch.c]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nevents = [\"birth\"]\n\
         [pipeline.p]\nkind = \"noop\"\n",
    );
    for command in [&["config", "check"][..], &["run"], &["run", "--once"]] {
        let report = place.exits(2, command).stderr;
        for problem in [
            "queue.lease",
            "soon",
            "concurency",
            "concurrency",
            "database.readers",
            "database.mode",
            "log.format",
            "min_free_space",
            "compleeted",
            "pipeline.empty.command",
            "teleport",
            "pth",
            "pipeline.holes.concurrency",
            "pipeline.web.url",
            "nobody",
            "setle",
            "settle",
            "on_success",
            "birth",
            "ingestd.toml",
        ] {
            assert!(report.contains(problem), "`{problem}` is not told by {command:?}:\n{report}");
        }
    }
    assert!(!place.database().exists(), "refused before anything is made");
}

#[test]
fn watches_that_get_in_each_others_way_are_refused() {
    let watch = |name: &str, path: &str| format!("[watch.{name}]\npath = \"{path}\"\npipeline = \"p\"\n");
    for (what, watches) in [
        ("two watches on one tree", watch("a", "@PLACE@/inbox") + &watch("b", "@PLACE@/inbox")),
        ("a watch on the state directory", watch("a", "@PLACE@/state")),
        ("a watch in the state directory", watch("a", "@PLACE@/state/work")),
    ] {
        let place = Place::with(&format!("{NOOP}{watches}"));
        fs::create_dir_all(place.at("state/work")).unwrap();
        let report = place.exits(2, &["config", "check"]);
        assert!(report.stderr.contains("watch.a") || report.stderr.contains("watch.b"), "{what}: {report:?}");
    }
}

#[test]
fn a_file_that_is_no_toml_or_missing_is_refused() {
    let place = Place::new();
    fs::write(place.at("ingestd.toml"), "[queue\nlease = 1").unwrap();
    let report = place.exits(2, &["config", "check"]);
    assert!(report.stderr.contains("ingestd.toml"), "{report:?}");
    fs::remove_file(place.at("ingestd.toml")).unwrap();
    let report = place.exits(2, &["config", "check"]);
    assert!(report.stderr.contains("ingestd.toml"), "{report:?}");
}

#[test]
fn layers_come_in_order_and_show_their_origins() {
    let place = Place::with("[queue]\nlease = \"20s\"\nconcurrency = 3\n[pipeline.p]\nkind = \"noop\"\n");
    let shown = place.ok(&["config", "show", "--json"]).stdout;
    assert!(shown.contains("20s") && shown.contains("ingestd.toml"), "{shown}");
    assert!(shown.contains("priority_aging") && shown.contains("max_crashes"), "defaults are shown too: {shown}");
    let human = place.ok(&["config", "show"]).stdout;
    assert!(human.contains("20s") && human.contains("max_crashes"), "{human}");
    let mut command = place.configured(&["config", "show", "--json"]);
    let shown = finish(command.env("INGESTD__QUEUE__LEASE", "90s"));
    assert!(shown.stdout.contains("90s") || shown.stdout.contains("1m 30s"), "{}", shown.stdout);
    assert!(shown.stdout.contains("INGESTD__QUEUE__LEASE"), "the origin is named: {}", shown.stdout);
    assert!(!shown.stdout.contains("20s"), "{}", shown.stdout);
    let wrong = finish(place.configured(&["config", "check"]).env("INGESTD__QUEUE__LEESE", "90s"));
    assert_eq!(wrong.code, 2, "{wrong:?}");
    let flag = place.ok(&["config", "show", "--json", "--database", "sqlite:///tmp/elsewhere/q.db"]).stdout;
    assert!(flag.contains("/tmp/elsewhere/q.db"), "{flag}");
}

#[test]
fn secrets_come_from_outside_and_are_masked() {
    let server = Server::always(Answer::status(200));
    let place = Place::new();
    place.configure(&format!(
        "[pipeline.p]\nkind = \"http\"\nurl = \"{}\"\n\
         headers = {{ Authorization = \"Bearer ${{TEST_TOKEN}}\", X-File = \"${{file:@PLACE@/secret}}\" }}\n\
         [pipeline.e]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"env > @PLACE@/environment\"]\n",
        server.url("/")
    ));
    fs::write(place.at("secret"), "from-a-file\n").unwrap();
    let unset = place.exits(2, &["config", "check"]);
    assert!(unset.stderr.contains("TEST_TOKEN"), "{unset:?}");
    let shown = finish(place.configured(&["config", "show"]).env("TEST_TOKEN", "hush-hush"));
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(!shown.stdout.contains("hush-hush") && !shown.stdout.contains("from-a-file"), "{}", shown.stdout);

    let mut command = place.configured(&["run"]);
    command.env("TEST_TOKEN", "hush-hush").env("TEST_OTHER", "plain").env("INGESTD__QUEUE__LEASE", "50s");
    let mut daemon = Daemon::spawn(&place, command);
    daemon.ready();
    let token = |arguments: &[&str]| finish(place.configured(arguments).env("TEST_TOKEN", "x"));
    let file = place.file("a", "a");
    for pipeline in ["p", "e"] {
        let added = token(&["add", file.to_str().unwrap(), "--pipeline", pipeline]);
        assert_eq!(added.code, 0, "{added:?}");
    }
    wait_until("both ran", || place.at("environment").exists() && !server.received().is_empty());
    let request = &server.received()[0];
    assert_eq!((request.header("authorization"), request.header("x-file")), ("Bearer hush-hush", "from-a-file"));
    let environment = wait_for("the environment is written", || {
        fs::read_to_string(place.at("environment")).ok().filter(|text| text.contains("INGESTD_JOB="))
    });
    for hidden in ["TEST_TOKEN", "NOTIFY_SOCKET", "WATCHDOG_", "INGESTD__"] {
        assert!(!environment.contains(hidden), "{hidden} reached a processor:\n{environment}");
    }
    assert!(environment.contains("TEST_OTHER=plain"), "{environment}");
    assert!(!daemon.log().contains("hush-hush"));
}

#[test]
fn what_is_written_literally_is_masked_by_name_and_in_urls() {
    let place = Place::with_database(
        "[pipeline.p]\nkind = \"http\"\nurl = \"https://user:hush-hush@127.0.0.1:9/in\"\n\
         headers = { X-Pass = \"hush-hush\" }\n\
         [pipeline.e]\nkind = \"exec\"\ncommand = [\"curl\", \"https://user:hush-hush@127.0.0.1:9/\"]\n\
         env = { bypass_cache = \"yes\" }\n",
    );
    let run = |command: &str| {
        let arguments: Vec<&str> = command.split(' ').collect();
        finish(place.configured(&arguments).env("INGESTD__PIPELINE__E__ENV__PASS", "hush-hush"))
    };
    for (command, expected) in [
        ("config show", "pipeline.p.url = \"https://user:***@127.0.0.1:9/in\""),
        ("config show", "pipeline.e.env.PASS = \"***\""),
        ("config show", "pipeline.e.env.bypass_cache = \"yes\""),
        ("config show --json", "https://user:***@127.0.0.1:9/in"),
        ("pipeline show p", "url = \"https://user:***@127.0.0.1:9/in\""),
        ("pipeline show p", "headers.X-Pass = \"***\""),
        ("pipeline show e", "command = [\"curl\", \"https://user:***@127.0.0.1:9/\"]"),
        ("pipeline show e --json", "https://user:***@127.0.0.1:9/"),
    ] {
        let output = run(command);
        assert!(output.stdout.contains(expected), "{command} shows {expected}: {output:?}");
        assert!(!output.stdout.contains("hush"), "{command}: {output:?}");
    }
    // The call itself has it; what is told of the call has the origin alone.
    let daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &["--pipeline", "p"]);
    wait_until("a call has failed", || !place.history().is_empty());
    let told = format!("{}{}{}", daemon.log(), place.show(job), place.ok(&["history"]).stdout);
    assert!(told.contains("https://127.0.0.1:9:") && !told.contains("hush") && !told.contains(":9/"), "{told}");
    // A slash in a password is a mistake, and the report of it is no place for the password.
    let text = fs::read_to_string(place.at("ingestd.toml")).unwrap();
    fs::write(place.at("ingestd.toml"), text.replace("hush-hush", "hush/hush")).unwrap();
    let refused = run("config check");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("https://user:***@127.0.0.1:9/in"), "{refused:?}");
    assert!(!refused.stderr.contains("hush"), "{refused:?}");
}

#[test]
fn init_writes_a_file_that_is_valid_and_equals_the_defaults() {
    let place = Place::new();
    let target = place.at("new.toml");
    let run = |arguments: &[&str]| finish(place.program().args(arguments));
    let written = run(&["config", "init"]);
    let output = if target.exists() { fs::read_to_string(&target).unwrap() } else { written.stdout.clone() };
    // Where it is written to is not promised: stdout, a named file, or the folder that one is in.
    if output.contains("[queue]") {
        fs::write(&target, &output).unwrap();
        assert_eq!(run(&["config", "check", "--config", target.to_str().unwrap()]).code, 0);
    } else {
        let written = run(&["config", "init", target.to_str().unwrap()]);
        assert_eq!(written.code, 0, "{written:?}");
        let check = run(&["config", "check", "--config", target.to_str().unwrap()]);
        assert_eq!(check.code, 0, "{check:?}");
        assert_ne!(run(&["config", "init", target.to_str().unwrap()]).code, 0, "it never overwrites");
    }
}

#[test]
fn database_mode_lets_a_group_in() {
    let place = Place::with(&format!("[database]\nmode = \"0660\"\n{NOOP}"));
    let _daemon = Daemon::start(&place);
    place.add(&place.file("a", "a"), &[]);
    place.wait_count("completed", 1);
    let mode = |name: &str| fs::metadata(place.at(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state/ingestd.db"), mode("state/ingestd.db-wal"), mode("state")), (0o660, 0o660, 0o770));
}

#[test]
fn database_busy_timeout_bounds_the_wait_for_another_writer() {
    let place = Place::with_database(&format!("[database]\nbusy_timeout = \"300ms\"\n{NOOP}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lock = runtime.block_on(async {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.database());
        let mut connection = options.connect().await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
        connection
    });
    let start = Instant::now();
    let refused = place.exits(1, &["kv", "set", "a", "b"]);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}: {refused:?}", start.elapsed());
    place.configure(&format!("[database]\nbusy_timeout = \"40s\"\n{NOOP}"));
    let mut waiting = place.configured(&["kv", "set", "a", "b"]).spawn().unwrap();
    // Longer than the short timeout: what still waits does so because of the long one.
    std::thread::sleep(Duration::from_millis(1_200));
    assert!(waiting.try_wait().unwrap().is_none(), "it did not wait");
    runtime.block_on(sqlx::Connection::close(lock)).unwrap();
    assert!(waiting.wait().unwrap().success());
    assert_eq!(place.ok(&["kv", "get", "a"]).stdout.trim(), "b");
}

#[test]
fn database_durability_decides_about_syncs() {
    let Ok(true) = std::process::Command::new("strace").arg("-V").output().map(|output| output.status.success()) else {
        eprintln!("skipped: strace is missing");
        return;
    };
    let syncs = |durability: &str| {
        let place = Place::with(&format!("[database]\ndurability = \"{durability}\"\n{NOOP}"));
        let trace = place.at("trace");
        let mut command = place.program();
        let program = command.get_program().to_owned();
        command = std::process::Command::new("strace");
        // As a grandchild (`-D`), so that whoever ends the child ends the daemon.
        command.args(["-D", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"]).arg(&trace).arg(program);
        command.args(["run", "--config"]).arg(place.at("ingestd.toml"));
        let mut daemon = Daemon::spawn(&place, command);
        wait_until("it is ready", || daemon.said("READY=1") > 0 || daemon.exited());
        if daemon.exited() {
            return None;
        }
        let before = fs::read_to_string(&trace).unwrap().lines().count();
        for number in 0..20 {
            let id = place.add(&place.file(&format!("f{number}"), "x"), &[]);
            place.ok(&["wait", &id.to_string()]);
        }
        Some(fs::read_to_string(&trace).unwrap().lines().count() - before)
    };
    let (Some(full), Some(normal)) = (syncs("full"), syncs("normal")) else {
        eprintln!("skipped: strace may not trace here");
        return;
    };
    assert!(full >= 20 && normal < full / 2, "{full} syncs with full, {normal} with normal");
}

#[test]
fn database_readers_and_cache_are_taken() {
    // Their effect is on speed; here they are at least heard, and impossible values are not.
    let place = Place::with(&format!("[database]\nreaders = 1\ncache = \"1MiB\"\n{NOOP}"));
    let shown = place.ok(&["config", "show"]).stdout;
    assert!(shown.contains("1MiB") && shown.contains("readers"), "{shown}");
    let _daemon = Daemon::start(&place);
    place.ok(&["status"]);
    place.configure(&format!("[database]\nreaders = 0\n{NOOP}"));
    place.exits(2, &["config", "check"]);
}

#[test]
fn log_level_and_format_change_what_stderr_says() {
    let log = |keys: &str, environment: &[(&str, &str)]| {
        let place = Place::with(&format!(
            "[log]\n{keys}\n{NOOP}[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n"
        ));
        place.put("a", "a");
        finish(place.configured(&["run", "--once"]).envs(environment.iter().copied())).stderr
    };
    let json = log("format = \"json\"\nlevel = \"debug\"", &[]);
    assert!(json.lines().count() > 0);
    assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{json}");
    let text = log("format = \"text\"\nlevel = \"debug\"", &[]);
    let quiet = log("format = \"text\"\nlevel = \"error\"", &[]);
    assert!(text.lines().count() > quiet.lines().count(), "{text}\n---\n{quiet}");
    let env = log("format = \"text\"\nlevel = \"error\"", &[("RUST_LOG", "debug")]);
    assert!(env.lines().count() > quiet.lines().count(), "RUST_LOG wins: {env}");
}
