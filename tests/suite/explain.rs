//! `explain`: why a job does not run or ended as it did, and why a file is not a job, each with the line that decided.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::Value;

use crate::support::*;

/// The kinds of the reasons for a job, the binding one first.
fn kinds(place: &Place, id: i64) -> Vec<String> {
    reasons(place, id).iter().map(|reason| text(reason, "kind").to_owned()).collect()
}

fn reasons(place: &Place, id: i64) -> Vec<Value> {
    place.ok(&["explain", &id.to_string(), "--json"]).json()["reasons"].as_array().unwrap().clone()
}

/// What `explain` says of a path: the reason of the one watch that covers it.
fn reason(place: &Place, path: &Path) -> Value {
    let said = finish(place.configured(&["explain", "--json"]).arg(path));
    assert_eq!(said.code, 0, "{said:?}");
    let said = said.json();
    assert_eq!(said["watches"].as_array().unwrap().len(), 1, "{said}");
    said["watches"][0]["reason"].clone()
}

fn kind(place: &Place, path: &Path) -> String {
    text(&reason(place, path), "kind").to_owned()
}

/// The line of the configuration on which these words stand.
fn line_of(place: &Place, words: &str) -> usize {
    let configuration = fs::read_to_string(place.at("ingestd.toml")).unwrap();
    configuration.lines().position(|line| line.contains(words)).unwrap() + 1
}

/// Asserts that a reason names this line of the configuration.
#[track_caller]
fn assert_at(place: &Place, reason: &Value, words: &str) {
    let file = place.at("ingestd.toml");
    assert_eq!(reason["place"]["file"], file.to_str().unwrap(), "{reason}");
    assert_eq!(reason["place"]["line"], line_of(place, words), "{reason}");
}

fn sleeper(more: &str) -> Place {
    Place::with(&format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sleep\", \"1000\"]\n{more}\n[pipeline.q]\nkind = \"noop\"\n"
    ))
}

#[test]
fn a_job_that_waits_for_a_permit_names_who_has_it_and_what_comes_first() {
    let place = sleeper("concurrency = 1");
    let _daemon = Daemon::start(&place);
    let ids: Vec<i64> = ["a", "b", "c"].map(|name| place.add(&place.file(name, name), &["--pipeline", "p"])).into();
    place.wait_state(ids[0], "running");
    assert_eq!(kinds(&place, ids[1]), ["concurrency"]);
    let told = reasons(&place, ids[2]);
    assert_eq!(kinds(&place, ids[2]), ["concurrency", "behind"]);
    assert_eq!(told[0]["jobs"], serde_json::json!([ids[0]]));
    assert_at(&place, &told[0], "concurrency = 1");
    assert!(text(&told[1], "text").starts_with("1 job of its pipeline comes first"), "{}", told[1]);

    let running = &reasons(&place, ids[0])[0];
    assert_eq!(text(running, "kind"), "running");
    let process = text(running, "text").split("process ").nth(1).unwrap_or_default();
    assert!(Path::new("/proc").join(process).is_dir(), "its process: {running}");

    // What binds first comes first: a pause holds whatever permits are free.
    place.ok(&["pause", "p"]);
    assert_eq!(kinds(&place, ids[2]), ["paused", "concurrency", "behind"]);
    place.ok(&["cancel", &ids[1].to_string()]);
    assert_eq!(kinds(&place, ids[1]), ["cancelled"]);
    let words = place.ok(&["explain", &ids[2].to_string()]).stdout;
    assert!(words.contains("1. a person paused pipeline p; `ingestd resume p` goes on"), "{words}");
    place.exits(3, &["explain", "999"]);
}

#[test]
fn the_limit_over_all_pipelines_is_told_as_what_it_is() {
    let place = Place::with(
        "[queue]\nconcurrency = 1\n[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sleep\", \"1000\"]\n\
         [pipeline.q]\nkind = \"noop\"\n",
    );
    let _daemon = Daemon::start(&place);
    let running = place.add(&place.file("a", "a"), &["--pipeline", "p"]);
    place.wait_state(running, "running");
    let waits = place.add(&place.file("b", "b"), &["--pipeline", "q"]);
    let told = &reasons(&place, waits)[0];
    assert_eq!((text(told, "kind"), &told["jobs"]), ("queue-concurrency", &serde_json::json!([running])));
    assert_at(&place, told, "concurrency = 1");
}

#[test]
fn without_a_daemon_that_is_the_first_reason_and_the_others_follow() {
    let place = sleeper("");
    let mut daemon = Daemon::start(&place);
    let running = place.add(&place.file("run", "run"), &["--pipeline", "p"]);
    place.wait_state(running, "running");
    let later = place.add(&place.file("a", "a"), &["--pipeline", "p", "--in", "1h"]);
    let told = &reasons(&place, later)[0];
    assert_eq!(text(told, "kind"), "scheduled");
    assert_eq!(text(told, "until"), text(&place.show(later), "run_at"));
    daemon.kill();
    assert_eq!(kinds(&place, running), ["no-daemon"], "it ran when the daemon died");
    assert_eq!(kinds(&place, later), ["no-daemon", "scheduled"]);
    place.ok(&["pause", "p"]);
    assert_eq!(kinds(&place, later), ["no-daemon", "paused", "scheduled"]);
    place.configure("[pipeline.q]\nkind = \"noop\"\n");
    assert_eq!(kinds(&place, later), ["no-daemon", "undefined", "paused", "scheduled"]);
}

#[test]
fn what_a_job_waits_for_by_time_is_told_with_its_error() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", \"exit $(cat \\\"$1\\\")\", \"sh\", \"{path}\"]\n\
         retry = { max_attempts = 2, base = \"1h\", jitter = \"none\" }\npermanent_exit_codes = [\n  64,\n  65,\n]\n",
    );
    let _daemon = Daemon::start(&place);
    let add = |code: &str| place.add(&place.file(code, code), &[]);
    let (retries, deferred, bad) = (add("3"), add("75"), add("65"));
    place.wait_state(retries, "retrying");
    let told = &reasons(&place, retries)[0];
    assert_eq!(text(told, "kind"), "retry");
    assert!(text(told, "text").starts_with("attempt 1 of 2 failed (exit: exit 3"), "{told}");
    wait_until("it was put off", || kinds(&place, deferred) == ["deferred"]);

    place.wait_state(bad, "failed");
    let told = reasons(&place, bad);
    assert_eq!(kinds(&place, bad), ["error", "permanent-exit-code"]);
    assert_at(&place, &told[1], "  65,");
    place.ok(&["retry", &retries.to_string()]);
    place.wait_state(retries, "failed");
    assert_eq!(kinds(&place, retries), ["error", "max-attempts"]);
    assert_at(&place, &reasons(&place, retries)[1], "max_attempts = 2");
}

#[test]
fn an_open_breaker_and_a_used_up_rate_are_told_with_what_comes_next() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/\"\nconcurrency = 1\n\
         breaker = { failures = 1, cooldown = \"1h\", max_cooldown = \"1h\" }\nretry = { base = \"1h\" }\n\
         [pipeline.q]\nkind = \"noop\"\nrate = \"1/1h\"\nburst = 1\n",
    );
    let _daemon = Daemon::start(&place);
    let first = place.add(&place.file("a", "a"), &["--pipeline", "p"]);
    place.wait_state(first, "retrying");
    let held = place.add(&place.file("b", "b"), &["--pipeline", "p"]);
    let told = &reasons(&place, held)[0];
    assert_eq!(text(told, "kind"), "breaker");
    assert!(!text(told, "until").is_empty(), "when the next probe is: {told}");
    assert_at(&place, told, "breaker = ");

    let done = place.add(&place.file("c", "c"), &["--pipeline", "q"]);
    place.wait_state(done, "completed");
    assert_eq!(kinds(&place, done), ["completed"]);
    let held = place.add(&place.file("d", "d"), &["--pipeline", "q"]);
    wait_until("its rate is used up", || kinds(&place, held) == ["rate"]);
    assert_at(&place, &reasons(&place, held)[0], "rate = ");
}

#[test]
fn a_job_of_an_older_version_blocks_and_is_superseded_by_name() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sleep\", \"1000\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let _daemon = Daemon::start(&place);
    let file = place.put("a", "one");
    wait_until("it runs", || place.in_state("running") == 1);
    let first = count(&place.jobs()[0], "id");
    place.put("a", "two");
    wait_until("the second version is a job", || place.jobs().len() == 2);
    let second = count(&place.jobs()[0], "id");
    let told = &reasons(&place, second)[0];
    assert_eq!((text(told, "kind"), &told["jobs"]), ("blocked", &serde_json::json!([first])));
    assert_eq!(reason(&place, &file)["jobs"], serde_json::json!([second]));
    place.put("a", "three");
    place.wait_state(second, "skipped");
    assert_eq!(kinds(&place, second), ["superseded"]);
}

#[test]
fn a_job_that_failed_is_advised_to_be_retried_only_where_that_is_not_refused() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/grep\", \"-q\", \"good\", \"{path}\"]\n\
         retry = { max_attempts = 1 }\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let _daemon = Daemon::start(&place);
    let advice = |id| text(reasons(&place, id).last().unwrap(), "advice").to_owned();
    place.put("a", "bad");
    place.wait_count("failed", 1);
    let failed = count(&place.jobs()[0], "id");
    assert!(advice(failed).contains(&format!("`ingestd retry {failed}`")), "{}", advice(failed));
    place.put("a", "good");
    place.wait_count("completed", 1);
    let newer = count(&place.jobs()[0], "id");
    let refused = place.cli(&["retry", &failed.to_string()]);
    assert!(refused.code != 0 && refused.stderr.contains(&newer.to_string()), "{refused:?}");
    assert!(
        !advice(failed).contains("retry") && advice(failed).contains(&format!("job {newer}")),
        "{}",
        advice(failed)
    );
}

#[test]
fn a_job_that_crashed_twice_runs_alone_and_says_so() {
    let place = sleeper("concurrency = 1");
    let mut daemon = Daemon::start(&place);
    let id = place.add(&place.file("a", "a"), &["--pipeline", "p"]);
    for _ in 0..2 {
        place.wait_state(id, "running");
        daemon.kill();
        place.ok(&["pause", "p"]);
        daemon = Daemon::start(&place);
        place.wait_state(id, "pending");
        if count(&place.show(id), "crashes") < 2 {
            place.ok(&["resume", "p"]);
        }
    }
    assert_eq!(kinds(&place, id), ["paused", "suspect"]);
    place.ok(&["resume", "p"]);
    place.wait_state(id, "running");
    assert!(text(&reasons(&place, id)[0], "text").contains("alone"), "{:?}", reasons(&place, id));
    let other = place.add(&place.file("b", "b"), &["--pipeline", "q"]);
    assert_eq!(kinds(&place, other)[0], "suspect-due");
}

fn watched(keys: &str) -> Place {
    Place::with(&format!(
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\n{keys}\n"
    ))
}

#[test]
fn a_file_that_a_rule_leaves_out_names_the_line_that_did_it() {
    let place = watched(
        "include = [\"**/*.pdf\", \"**/*.done\"]\nexclude = [\n  \"**/.*\",\n  \"old/**\",\n  \"**/*.tmp.pdf\",\n]\n\
         ignore_files = true\nmax_size = \"3B\"\nready_suffix = \".done\"",
    );
    for folder in ["old/deep", "sub"] {
        fs::create_dir_all(place.inbox().join(folder)).unwrap();
    }
    fs::write(place.inbox().join("sub/.ingestdignore"), "# drafts\n*draft*\n").unwrap();
    let put = |name: &str| {
        let path = place.inbox().join(name);
        fs::write(&path, "x").unwrap();
        path
    };
    let at = |name: &str, words: &str| {
        let told = reason(&place, &put(name));
        assert_eq!(text(&told, "kind"), "excluded", "{told}");
        assert_at(&place, &told, words);
        told
    };
    at(".hidden.pdf", "\"**/.*\"");
    at("x.tmp.pdf", "**/*.tmp.pdf");
    at("notes.txt", "include = ");
    let told = at("old/deep/a.pdf", "old/**");
    assert!(text(&told, "text").starts_with("its folder old is left out"), "{told}");
    let told = reason(&place, &put("sub/my draft.pdf"));
    assert_eq!((text(&told, "kind"), &told["place"]["line"]), ("excluded", &Value::from(2)), "{told}");
    assert_eq!(told["place"]["file"], place.inbox().join("sub/.ingestdignore").to_str().unwrap());
    let told = reason(&place, &put("wanted.pdf"));
    assert_eq!(text(&told, "kind"), "not-ready");
    assert!(text(&told, "text").contains("wanted.pdf.done"), "{told}");
    assert_at(&place, &told, "ready_suffix");
    fs::write(place.inbox().join("big.pdf"), "four").unwrap();
    put("big.pdf.done");
    assert_at(&place, &reason(&place, &place.inbox().join("big.pdf")), "max_size");
    let words = finish(place.configured(&["explain"]).arg(place.inbox().join("x.tmp.pdf"))).stdout;
    let file = place.at("ingestd.toml");
    assert!(words.contains(&format!("({}:{})", file.display(), line_of(&place, "**/*.tmp.pdf"))), "{words}");
}

#[test]
fn a_rule_that_nobody_wrote_is_a_built_in_default_and_one_made_by_command_says_so() {
    let place = Place::with_database("[pipeline.p]\nkind = \"noop\"\n");
    let inbox = place.inbox();
    place.ok(&["watch", "add", "drop", inbox.to_str().unwrap(), "--include", "**/*.pdf"]);
    for (name, origin) in [(".hidden", "default"), ("a.txt", "database")] {
        fs::write(inbox.join(name), "x").unwrap();
        let told = reason(&place, &inbox.join(name));
        assert_eq!((text(&told, "kind"), text(&told["place"], "origin")), ("excluded", origin), "{told}");
    }
    let words = finish(place.configured(&["explain"]).arg(inbox.join("a.txt"))).stdout;
    assert!(words.contains("made with `ingestd watch add`"), "{words}");
}

#[test]
fn a_file_tells_what_it_waits_for_and_until_when() {
    let place = watched("settle = \"1h\"");
    let _daemon = Daemon::start(&place);
    let quiet = place.put("quiet", "x");
    wait_until("it settles", || kind(&place, &quiet) == "settling");
    assert_at(&place, &reason(&place, &quiet), "settle = ");
    assert!(!text(&reason(&place, &quiet), "until").is_empty());

    let mut writer = File::create(place.inbox().join("open")).unwrap();
    writer.write_all(b"x").unwrap();
    let open = place.inbox().join("open");
    // The daemon asks who writes it when its time has come; the command asks by itself.
    let told = kind(&place, &open);
    assert!(["open", "settling"].contains(&told.as_str()), "{told}");
    place.ok(&["watch", "pause", "inbox"]);
    wait_until("the watch is paused", || kind(&place, &quiet) == "watch-paused");
    assert_eq!(kind(&place, &place.inbox()), "watch-paused");
}

#[test]
fn a_file_that_is_too_young_and_one_that_is_polled_name_the_time_at_which_that_ends() {
    let place = watched("settle = \"0s\"\nmin_age = \"1h\"");
    let mut daemon = Daemon::start(&place);
    let file = place.put("a", "x");
    wait_until("it is too young", || kind(&place, &file) == "too-young");
    assert_at(&place, &reason(&place, &file), "min_age");
    assert_eq!(kind(&place, &place.inbox()), "folder-native");
    assert_eq!(daemon.stop(), 0);

    let place = watched("settle = \"1s\"\nmode = \"poll\"\npoll_interval = \"1h\"");
    let _daemon = Daemon::start(&place);
    place.put("before", "x");
    place.ok(&["watch", "scan", "inbox"]);
    wait_until("nothing is scanned", || kind(&place, &place.inbox()) == "folder-polled");
    let file = place.put("after", "x");
    let told = reason(&place, &file);
    assert_eq!(text(&told, "kind"), "polled", "{told}");
    assert!(!text(&told, "until").is_empty());
    assert_at(&place, &told, "poll_interval");
}

#[test]
fn a_file_that_is_a_job_names_it_and_one_that_changed_since_is_told_apart() {
    let place = watched("settle = \"0s\"");
    let mut daemon = Daemon::start(&place);
    let file = place.put("a", "one");
    place.wait_count("completed", 1);
    let told = reason(&place, &file);
    let id = count(&place.jobs()[0], "id");
    assert_eq!((text(&told, "kind"), &told["jobs"]), ("job", &serde_json::json!([id])));
    assert!(text(&told, "text").contains("completed"), "{told}");
    // Relative names are meant from here.
    let said = finish(place.configured(&["explain", "inbox/../inbox/a", "--json"]).current_dir(place.at(""))).json();
    assert_eq!(said["watches"][0]["reason"]["kind"], "job", "{said}");
    assert_eq!(daemon.stop(), 0);
    place.put("a", "changed");
    let told = reason(&place, &file);
    assert_eq!(text(&told, "kind"), "no-daemon");
    assert!(text(&told, "text").starts_with(&format!("it was job {id} (version 1, completed")), "{told}");
    assert_eq!(kind(&place, &place.put("new", "x")), "no-daemon");
    assert_eq!(kind(&place, &place.inbox().join("nothing")), "nothing");
    fs::remove_file(&file).unwrap();
    assert_eq!(kind(&place, &file), "gone");
    fs::rename(place.inbox(), place.at("away")).unwrap();
    assert_eq!(kind(&place, &file), "root-missing");
}

#[test]
fn a_file_that_was_moved_away_is_named_with_its_job() {
    let place = watched("settle = \"0s\"\non_success = { move = \"@PLACE@/done\" }");
    let _daemon = Daemon::start(&place);
    let file = place.put("a", "x");
    place.wait_count("completed", 1);
    let (told, id) = (reason(&place, &file), count(&place.jobs()[0], "id"));
    assert_eq!((text(&told, "kind"), &told["jobs"]), ("nothing", &serde_json::json!([id])));
    assert!(text(&told, "text").contains(&format!("it was job {id}, completed")), "{told}");
}

#[test]
fn a_path_that_no_watch_covers_names_the_nearest_and_one_that_was_added_its_job() {
    let place = watched("settle = \"0s\"");
    let _daemon = Daemon::start(&place);
    let file = place.file("outside", "x");
    let id = place.add(&file, &["--pipeline", "p"]);
    place.wait_state(id, "completed");
    let said = place.ok(&["explain", file.to_str().unwrap(), "--json"]).json();
    assert!(said["watches"].as_array().unwrap().is_empty(), "{said}");
    let kinds: Vec<&str> = said["others"].as_array().unwrap().iter().map(|other| text(other, "kind")).collect();
    assert_eq!(kinds, ["not-covered", "added"]);
    assert!(text(&said["others"][0], "text").contains("inbox"), "{said}");
    assert_eq!(said["others"][1]["jobs"], serde_json::json!([id]));
}

#[test]
fn intake_that_is_closed_is_why_a_file_waits() {
    let place = Place::with(
        "[queue]\nmax_pending = 1\n[pipeline.p]\nkind = \"noop\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let _daemon = Daemon::start(&place);
    place.ok(&["pause", "p"]);
    place.put("a", "a");
    wait_until("one waits", || place.in_state("pending") == 1);
    let file = place.put("b", "b");
    wait_until("the intake is closed", || kind(&place, &file) == "intake-closed");
    assert_at(&place, &reason(&place, &file), "max_pending");
    place.ok(&["resume", "p"]);
    wait_until("it is a job", || kind(&place, &file) == "job");
}

#[test]
fn names_of_any_bytes_are_explained() {
    let place = watched("settle = \"0s\"");
    let _daemon = Daemon::start(&place);
    let file = place.inbox().join(OsStr::from_bytes(b"caf\xe9\n.txt"));
    fs::write(&file, "x").unwrap();
    place.wait_count("completed", 1);
    let said = finish(place.configured(&["explain", "--json"]).arg(&file)).json();
    assert_eq!(said["watches"][0]["reason"]["kind"], "job", "{said}");
    assert!(!text(&said, "path_base64").is_empty());
    let words = finish(place.configured(&["explain"]).arg(&file)).stdout;
    assert_eq!(words.lines().count(), 2, "a line feed in a name breaks no line: {words}");
    // A file whose name is a number is asked for by its path.
    fs::write(place.inbox().join("1"), "x").unwrap();
    let said = finish(place.configured(&["explain", "./1", "--json"]).current_dir(place.inbox())).json();
    assert_eq!(said["watches"][0]["relative"], "1");
}
