//! What holds a pipeline back: its circuit breaker and its rate limit.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::*;

/// Retries that never keep a test waiting.
const RETRY: &str = "retry = { base = \"50ms\", max = \"50ms\", jitter = \"none\" }";
/// What the clocks of two processes may differ by, and milliseconds that were rounded down.
const ROUNDING: Duration = Duration::from_millis(5);

/// A server that fails until it is told to work, and always fails for `/in/poison`.
fn server() -> (Server, Arc<AtomicBool>) {
    let up = Arc::new(AtomicBool::new(false));
    let works = Arc::clone(&up);
    let answer = move |request: &Received, _| {
        let fine = works.load(Ordering::SeqCst) && request.target != "/in/poison";
        Answer::status(if fine { 200 } else { 500 })
    };
    (Server::new(answer), up)
}

/// A configuration with one pipeline that calls the server, and one that needs nobody.
fn configuration(url: &str, keys: &str) -> String {
    format!(
        "[pipeline.hook]\nkind = \"http\"\nurl = \"{url}\"\nconcurrency = 2\n{keys}\n\
         [pipeline.other]\nkind = \"noop\"\n"
    )
}

fn hook(server: &Server, keys: &str) -> Place {
    Place::with_database(&configuration(&server.url("/in/{name}"), keys))
}

/// Enqueues so many new files in one command.
fn fill(place: &Place, pipeline: &str, prefix: &str, number: usize) {
    let files: Vec<_> = (0..number).map(|index| place.file(&format!("{prefix}{index}"), "x")).collect();
    let mut arguments = vec!["add", "--pipeline", pipeline];
    arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
    place.ok(&arguments);
}

fn pipeline(place: &Place, name: &str) -> Value {
    place.status()["pipelines"][name].clone()
}

fn breaker(place: &Place) -> String {
    text(&pipeline(place, "hook")["breaker"], "state").to_owned()
}

fn is_open(place: &Place) -> bool {
    ["open", "probing"].contains(&breaker(place).as_str())
}

fn spent(place: &Place) -> usize {
    place.history().iter().filter(|row| row["spent"] == true).count()
}

fn reload(daemon: &Daemon, place: &Place, configuration: &str) {
    let before = daemon.said("READY=1");
    place.configure(configuration);
    daemon.signal(Signal::HUP);
    wait_until("it reloaded", || daemon.said("READY=1") > before);
}

#[test]
fn an_outage_costs_no_attempts_and_ends_by_itself() {
    let (server, up) = server();
    let keys = "breaker = { failures = 3, cooldown = \"300ms\", max_cooldown = \"500ms\" }";
    let place = hook(&server, &format!("{keys}\n{RETRY}"));
    fill(&place, "hook", "f", 20);
    let daemon = Daemon::start(&place);
    wait_until("the breaker opens", || is_open(&place));
    let opening = server.received().len();
    wait_until("it was probed", || server.received().len() >= opening + 4);
    assert_eq!(spent(&place), 3, "only the failures that opened it");
    assert!(place.status()["warnings"].to_string().contains("breaker open, status: http"));
    assert_eq!(place.exits(1, &["health"]).stdout.lines().count(), 1);
    fill(&place, "other", "o", 3);
    wait_until("other pipelines go on", || pipeline(&place, "other")["jobs"]["completed"] == 3);
    assert!(is_open(&place));

    up.store(true, Ordering::SeqCst);
    place.wait_count("completed", 23);
    let shown = pipeline(&place, "hook")["breaker"].clone();
    assert_eq!(
        (text(&shown, "state"), count(&shown, "opened"), count(&shown, "failures")),
        ("closed", 1, 0),
        "{shown}"
    );
    assert_eq!(place.status()["warnings"].to_string(), "[]");
    let attempts: i64 = place.jobs().iter().map(|job| count(job, "attempt")).sum();
    assert_eq!(attempts, 23 + 3);
    let told = daemon.log().lines().filter(|line| line.contains("breaker open")).count();
    assert_eq!(told, 2, "its opening and its end are told once each");
}

#[test]
fn probes_come_one_at_a_time_at_growing_intervals_each_with_another_job() {
    let (server, _) = server();
    let keys = "breaker = { failures = 2, cooldown = \"200ms\", max_cooldown = \"600ms\" }";
    let configuration = configuration(&server.url("/in/{name}"), &format!("{keys}\n{RETRY}"));
    let place = Place::with_database(&configuration.replace("concurrency = 2", "concurrency = 1"));
    fill(&place, "hook", "f", 10);
    let _daemon = Daemon::start(&place);
    wait_until("it was probed", || server.received().len() >= 6);
    let received = server.received();
    // Two opened it.
    for (index, least_ms) in [(2, 200), (3, 400), (4, 600), (5, 600)] {
        let gap = received[index].at - received[index - 1].at;
        assert!(gap + ROUNDING >= Duration::from_millis(least_ms), "probe {index} came after {gap:?}");
    }
    let probed: BTreeSet<&str> = received[2..6].iter().map(|request| request.target.as_str()).collect();
    assert_eq!(probed.len(), 4, "{probed:?}");
}

#[test]
fn one_poison_document_neither_opens_the_breaker_nor_keeps_it_open() {
    let (server, up) = server();
    let keys = "breaker = { failures = 2, cooldown = \"100ms\", max_cooldown = \"100ms\" }";
    let place = hook(&server, &format!("{keys}\n{}", RETRY.replace("{ ", "{ max_attempts = 8, ")));
    let _daemon = Daemon::start(&place);
    let poison = place.add(&place.file("poison", "x"), &["--pipeline", "hook", "--priority", "urgent"]);
    let job = place.wait_state(poison, "failed");
    assert_eq!(count(&job, "attempt"), 8);
    let shown = pipeline(&place, "hook")["breaker"].clone();
    assert_eq!((text(&shown, "state"), count(&shown, "opened")), ("closed", 0), "{shown}");

    fill(&place, "hook", "f", 6);
    wait_until("the breaker opens", || is_open(&place));
    place.ok(&["retry", &poison.to_string()]);
    up.store(true, Ordering::SeqCst);
    place.wait_count("completed", 6);
}

#[test]
fn a_missing_program_opens_the_breaker_and_its_return_closes_it() {
    let place = Place::with_database(&format!(
        "[pipeline.hook]\nkind = \"exec\"\ncommand = [\"@PLACE@/tool\"]\n\
         breaker = {{ failures = 3, cooldown = \"100ms\", max_cooldown = \"200ms\" }}\n{RETRY}\n"
    ));
    fill(&place, "hook", "f", 8);
    let _daemon = Daemon::start(&place);
    wait_until("the breaker opens", || is_open(&place));
    assert!(place.status()["warnings"].to_string().contains("/tool does not exist"));
    let program = place.at("tool");
    write_new(&place.at("tool.new"), "#!/bin/sh\nexit 0\n");
    fs::set_permissions(place.at("tool.new"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(place.at("tool.new"), program).unwrap();
    place.wait_count("completed", 8);
    assert!(place.jobs().iter().all(|job| count(job, "attempt") == 1));
    assert_eq!(place.status()["warnings"].to_string(), "[]");
}

#[test]
fn exit_codes_never_open_a_breaker() {
    let place = Place::with_database(&format!(
        "[pipeline.hook]\nkind = \"exec\"\ncommand = [\"/bin/false\"]\nbreaker = {{ failures = 1 }}\n{}\n",
        RETRY.replace("{ ", "{ max_attempts = 2, ")
    ));
    fill(&place, "hook", "f", 5);
    let _daemon = Daemon::start(&place);
    place.wait_count("failed", 5);
    assert_eq!(spent(&place), 10);
    assert_eq!(count(&pipeline(&place, "hook")["breaker"], "opened"), 0);
}

#[test]
fn a_breaker_that_is_turned_off_never_opens() {
    let (server, _) = server();
    let place =
        hook(&server, &format!("breaker = {{ failures = 0 }}\n{}", RETRY.replace("{ ", "{ max_attempts = 2, ")));
    fill(&place, "hook", "f", 8);
    let _daemon = Daemon::start(&place);
    place.wait_count("failed", 8);
    assert_eq!(server.received().len(), 16);
    assert_eq!(pipeline(&place, "hook")["breaker"], Value::Null);
}

#[test]
fn a_run_that_ends_by_itself_does_not_wait_for_a_destination_that_stays_away() {
    let server = Server::always(Answer::status(500));
    let place =
        hook(&server, &format!("breaker = {{ failures = 2 }}\n{}", RETRY.replace("{ ", "{ max_attempts = 2, ")));
    fill(&place, "hook", "f", 6);
    let output = place.exits(1, &["run", "--once"]);
    assert!(!output.stderr.contains("breaker open"), "{output:?}");
    assert_eq!((place.in_state("failed"), server.received().len()), (6, 12));
}

#[test]
fn every_place_that_shows_a_pipeline_shows_what_holds_it_back() {
    let (server, _) = server();
    let keys = "breaker = { failures = 2, cooldown = \"1h\", max_cooldown = \"1h\" }\nrate = \"600/1h\"\nburst = 50";
    let place = hook(&server, &format!("{keys}\n{}", RETRY.replace("50ms", "10ms")));
    fill(&place, "hook", "f", 4);
    let quiet = pipeline(&place, "hook");
    assert_eq!((&quiet["breaker"], &quiet["rate"]["tokens"]), (&Value::Null, &Value::Null), "nobody knows");
    assert_eq!(text(&quiet["rate"], "limit"), "600/1h");
    let mut daemon = Daemon::start(&place);
    wait_until("the breaker opens", || breaker(&place) == "open");
    let listed = place.ok(&["pipeline", "list", "--json"]).json_lines();
    let listed = listed.iter().find(|view| text(view, "name") == "hook").unwrap();
    for view in [listed, &place.ok(&["pipeline", "show", "hook", "--json"]).json(), &pipeline(&place, "hook")] {
        let breaker = &view["breaker"];
        assert_eq!((text(breaker, "state"), count(breaker, "opened")), ("open", 1), "{view}");
        assert!(count(breaker, "failures") >= 2 && text(breaker, "last_error").contains("500"), "{view}");
        let time = |field| text(breaker, field).parse::<jiff::Timestamp>().unwrap().as_second();
        assert!((3_590..=3_601).contains(&(time("next_probe_at") - time("since"))), "{view}");
        assert_eq!(count(&view["rate"], "burst"), 50);
        assert!((46..=49).contains(&count(&view["rate"], "tokens")), "{view}");
    }
    let shown = place.ok(&["pipeline", "show", "hook"]).stdout;
    assert!(shown.contains("next probe in 59m") && shown.contains("600/1h, burst 50; 4"), "{shown}");
    assert!(place.ok(&["pipeline", "list"]).stdout.contains("open"));
    let waiting = wait_for("a job is due", || {
        place.jobs().into_iter().find(|job| count(job, "attempt") == 0).map(|job| count(&job, "id").to_string())
    });
    wait_until("it says what it waits for", || place.ok(&["show", &waiting]).stdout.contains("its pipeline's breaker"));
    assert_eq!(daemon.stop(), 0);
    assert_eq!(pipeline(&place, "hook")["breaker"], Value::Null);
}

#[test]
fn a_rate_is_kept_and_lets_a_burst_through() {
    let server = Server::always(Answer::status(200));
    let place = hook(&server, "rate = \"5/1s\"\nburst = 2");
    fill(&place, "hook", "f", 12);
    let begun = Instant::now();
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 12);
    let mut received: Vec<Instant> = server.received().iter().map(|request| request.at).collect();
    received.sort_unstable();
    // The bucket was full no earlier than the daemon's start, so the start of each has an earliest time.
    for (before, at) in received.iter().enumerate() {
        let least = Duration::from_millis(200) * u32::try_from((before + 1).saturating_sub(2)).unwrap();
        assert!(*at - begun + ROUNDING >= least, "number {before} after {:?}", *at - begun);
    }
}

#[test]
fn a_rate_is_used_while_earlier_jobs_still_run() {
    let place = Place::new();
    let ledger = Ledger::new(&place, "sleep 1000");
    place.configure(&format!(
        "[pipeline.slow]\nkind = \"exec\"\ncommand = {}\nconcurrency = 4\nrate = \"10/1s\"\nburst = 1\n\
         [shutdown]\ngrace = \"0s\"\n",
        ledger.command
    ));
    fill(&place, "slow", "f", 4);
    let _daemon = Daemon::start(&place);
    wait_until("all four run, though none has ended", || ledger.entries().len() == 4);
}

#[test]
fn a_rate_that_is_used_up_holds_back_its_own_pipeline_alone_until_a_reload_lifts_it() {
    let server = Server::always(Answer::status(200));
    let place = hook(&server, "rate = \"3/1h\"");
    fill(&place, "hook", "f", 7);
    let daemon = Daemon::start(&place);
    place.wait_count("completed", 3);
    fill(&place, "other", "o", 4);
    place.wait_count("completed", 7);
    assert_eq!(server.received().len(), 3, "all of the rate at once, and no more");
    let rate = pipeline(&place, "hook")["rate"].clone();
    assert_eq!((text(&rate, "limit"), count(&rate, "burst"), count(&rate, "tokens")), ("3/1h", 3, 0), "{rate}");
    assert!(text(&rate, "next_at").parse::<jiff::Timestamp>().unwrap() > jiff::Timestamp::now());
    let waiting = place.jobs().into_iter().find(|job| text(job, "state") == "pending").unwrap();
    let shown = place.ok(&["show", &count(&waiting, "id").to_string()]).stdout;
    assert!(shown.contains("its pipeline's rate: 3/1h"), "{shown}");

    // The same rate again brings no new tokens; one without a limit lets everything through.
    reload(&daemon, &place, &configuration(&server.url("/in/{name}"), "rate = \"3/1h\"\nburst = 100"));
    fill(&place, "other", "p", 1);
    place.wait_count("completed", 8);
    assert_eq!(server.received().len(), 3);
    reload(&daemon, &place, &configuration(&server.url("/in/{name}"), ""));
    place.wait_count("completed", 12);
    assert_eq!(pipeline(&place, "hook")["rate"], Value::Null);
}

#[test]
fn a_reload_keeps_an_open_breaker_unless_its_destination_is_another() {
    let (server, _) = server();
    let other = Server::always(Answer::status(200));
    let keys = format!("breaker = {{ failures = 2, cooldown = \"1h\", max_cooldown = \"1h\" }}\n{RETRY}");
    let place = hook(&server, &keys);
    fill(&place, "hook", "f", 5);
    let daemon = Daemon::start(&place);
    wait_until("the breaker opens", || breaker(&place) == "open");
    let since = pipeline(&place, "hook")["breaker"]["since"].clone();
    reload(&daemon, &place, &configuration(&server.url("/in/{name}"), &format!("{keys}\ntimeout = \"1m\"")));
    assert_eq!((breaker(&place).as_str(), &pipeline(&place, "hook")["breaker"]["since"]), ("open", &since));

    let before = server.received().len();
    let soon = keys.replace("1h", "100ms");
    reload(&daemon, &place, &configuration(&server.url("/in/{name}"), &soon));
    wait_until("shorter pauses apply to it", || server.received().len() > before);
    assert!(is_open(&place));

    reload(&daemon, &place, &configuration(&other.url("/in/{name}"), &keys));
    place.wait_count("completed", 5);
    assert_eq!(breaker(&place), "closed");
    assert_eq!(place.status()["warnings"].to_string(), "[]");
}

#[test]
fn impossible_breakers_and_rates_are_refused_with_what_is_allowed() {
    let place = Place::with(
        "[pipeline.a]\nkind = \"noop\"\nrate = \"0/1m\"\nburst = 0\n\
         [pipeline.b]\nkind = \"noop\"\nburst = 5\n\
         [pipeline.c]\nkind = \"noop\"\nrate = \"100/0s\"\n\
         [pipeline.d]\nkind = \"noop\"\nbreaker = { failures = -1, cooldown = \"0s\", cooldwn = \"1s\" }\n\
         [pipeline.e]\nkind = \"noop\"\nbreaker = { cooldown = \"1m\", max_cooldown = \"1s\" }\n",
    );
    let report = place.exits(2, &["config", "check"]).stderr;
    for part in [
        "pipeline.a.rate",
        "\"0/1m\"",
        "such as \"100/1m\"",
        "pipeline.a.burst",
        "pipeline.b.burst",
        "without rate",
        "pipeline.c.rate",
        "pipeline.d.breaker.failures",
        "pipeline.d.breaker.cooldown",
        "did you mean cooldown?",
        "pipeline.e.breaker.max_cooldown",
        "less than cooldown",
    ] {
        assert!(report.contains(part), "`{part}` is not told:\n{report}");
    }
}
