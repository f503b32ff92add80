//! The commands about watches and pipelines, and pausing.

use std::fs;

use serde_json::Value;

use crate::support::*;

fn noop() -> Place {
    Place::with_database("[pipeline.p]\nkind = \"noop\"\n")
}

fn inbox(place: &Place) -> String {
    place.inbox().to_str().unwrap().to_owned()
}

fn watches(place: &Place) -> Vec<Value> {
    place.ok(&["watch", "list", "--json"]).json_lines()
}

#[test]
fn a_watch_added_beside_the_daemon_works_at_once_and_survives_a_restart() {
    let place = noop();
    place.put("already-there", "1");
    let mut daemon = Daemon::start(&place);
    place.ok(&["watch", "add", "drop", &inbox(&place), "--settle", "0s"]);
    place.wait_count("completed", 1);
    place.put("a", "a");
    place.wait_count("completed", 2);
    assert_eq!(daemon.stop(), 0);
    place.put("b", "b");
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 3);
    assert_eq!(text(&place.newest_of("b").unwrap(), "watch"), "drop");
    let shown = place.ok(&["watch", "show", "drop", "--json"]).json();
    assert!(shown.to_string().contains(&inbox(&place)), "{shown}");
    place.exits(3, &["watch", "show", "nobody"]);

    place.ok(&["watch", "remove", "drop"]);
    assert!(watches(&place).is_empty());
    place.put("after", "after");
    place.exits(3, &["watch", "remove", "drop"]);
    // What is known of its files stays: the same watch again finds only the new file.
    place.ok(&["watch", "add", "drop", &inbox(&place), "--settle", "0s"]);
    place.wait_count("completed", 4);
    assert!(place.newest_of("after").is_some());
}

#[test]
fn a_watch_added_without_a_daemon_is_there_at_the_next_start() {
    let place = noop();
    place.ok(&["watch", "add", "drop", &inbox(&place), "--settle", "0s", "--priority", "high"]);
    assert_eq!(watches(&place).len(), 1);
    place.put("a", "a");
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    assert_eq!(text(&place.jobs()[0], "priority"), "high");
}

#[test]
fn existing_files_can_be_left_out() {
    let place = noop();
    place.put("old", "old");
    let _daemon = Daemon::start(&place);
    place.ok(&["watch", "add", "drop", &inbox(&place), "--settle", "0s", "--existing", "skip"]);
    place.put("new", "new");
    wait_until("the new file is done", || place.newest_of("new").is_some_and(|job| text(&job, "state") == "completed"));
    assert!(place.newest_of("old").is_none());
    place.put("old", "changed");
    wait_until("a changed old file is new content", || place.newest_of("old").is_some());
}

#[test]
fn names_of_watches_are_unique_and_the_definition_is_checked() {
    let place = Place::with_database(
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\n",
    );
    let other = place.at("other");
    fs::create_dir(&other).unwrap();
    let other = other.to_str().unwrap().to_owned();
    let refused = place.cli(&["watch", "add", "inbox", &other]);
    assert!(matches!(refused.code, 1 | 2), "the file has that name: {refused:?}");
    place.ok(&["watch", "add", "drop", &other]);
    assert_ne!(place.cli(&["watch", "add", "drop", &other]).code, 0);
    assert_ne!(
        place.cli(&["watch", "add", "twin", &inbox(&place)]).code,
        0,
        "two watches on one tree with one pipeline"
    );
    let unknown = place.cli(&["watch", "add", "x", &other, "--pipeline", "nobody"]);
    assert!(matches!(unknown.code, 2 | 3), "{unknown:?}");
    place.exits(2, &["watch", "add", "x", &other, "--settle", "soon"]);
    let state = place.at("state");
    assert_ne!(place.cli(&["watch", "add", "x", state.to_str().unwrap()]).code, 0, "a watch on the state directory");
    let names: Vec<String> = watches(&place).iter().map(|watch| text(watch, "name").to_owned()).collect();
    assert_eq!(names, ["drop", "inbox"]);
}

#[test]
fn a_name_that_the_file_takes_later_wins_and_the_row_sleeps() {
    let place = noop();
    let other = place.at("other");
    fs::create_dir(&other).unwrap();
    place.ok(&["watch", "add", "drop", &inbox(&place), "--settle", "0s"]);
    place.configure(
        "[pipeline.p]\nkind = \"noop\"\n[watch.drop]\npath = \"@PLACE@/other\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let _daemon = Daemon::start(&place);
    place.put("asleep", "asleep");
    fs::write(other.join("awake"), "awake").unwrap();
    place.wait_count("completed", 1);
    assert!(place.newest_of("awake").is_some());
    assert!(place.status()["warnings"].to_string().contains("drop"), "{}", place.status()["warnings"]);
}

#[test]
fn a_row_whose_pipeline_is_gone_never_keeps_the_daemon_from_starting() {
    let place = Place::with_database("[pipeline.p]\nkind = \"noop\"\n[pipeline.q]\nkind = \"noop\"\n");
    place.ok(&["watch", "add", "drop", &inbox(&place), "--pipeline", "q"]);
    place.configure("[pipeline.p]\nkind = \"noop\"\n");
    let _daemon = Daemon::start(&place);
    wait_until("a warning names the watch", || place.status()["warnings"].to_string().contains("drop"));
}

#[test]
fn a_paused_watch_takes_nothing_until_it_is_resumed() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n\
         [watch.other]\npath = \"@PLACE@/other\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    fs::create_dir(place.at("other")).unwrap();
    let mut daemon = Daemon::start(&place);
    place.ok(&["watch", "pause", "inbox"]);
    place.put("paused", "paused");
    fs::write(place.at("other/a"), "a").unwrap();
    place.wait_count("completed", 1);
    assert_eq!(daemon.stop(), 0);
    let _daemon = Daemon::start(&place);
    fs::write(place.at("other/b"), "b").unwrap();
    place.wait_count("completed", 2);
    assert!(place.newest_of("paused").is_none(), "a pause survives a restart");
    place.ok(&["watch", "resume", "inbox"]);
    place.wait_count("completed", 3);
    place.exits(3, &["watch", "pause", "nobody"]);
}

#[test]
fn a_scan_with_force_processes_again_what_is_known() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let _daemon = Daemon::start(&place);
    place.put("a", "a");
    place.put("b", "b");
    place.wait_count("completed", 2);
    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(place.jobs().len(), 2);
    place.ok(&["watch", "scan", "inbox", "--force"]);
    place.wait_count("completed", 4);
    place.exits(3, &["watch", "scan", "nobody"]);
}

#[test]
fn a_test_tells_what_would_be_taken_and_takes_nothing() {
    let place = Place::with_database(
        "[pipeline.p]\nkind = \"noop\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nexclude = [\"**/*.log\"]\n",
    );
    place.put("wanted.txt", "1");
    place.put("noise.log", "2");
    let output = place.ok(&["watch", "test", "inbox"]);
    assert!(output.stdout.contains("wanted.txt"), "{output:?}");
    assert!(output.stdout.contains("*.log"), "which rule excludes it: {output:?}");
    assert!(!place.ok(&["watch", "test", "inbox", "--json"]).json_lines().is_empty());
    assert!(place.jobs().is_empty());
    place.exits(3, &["watch", "test", "nobody"]);
}

#[test]
fn a_test_tells_what_is_known_what_waits_and_what_is_left_out() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n\
         max_size = \"5B\"\nmax_depth = 1\nready_suffix = \".ok\"\nmin_age = \"1s\"\n",
    );
    let ready = |name: &str, content: &str| {
        let path = place.put(name, content);
        place.put(&format!("{name}.ok"), "");
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_mins(1)).unwrap();
    };
    ready("known", "1");
    ready("changed", "1");
    place.ok(&["run", "--once"]);
    ready("changed", "2");
    ready("new", "1");
    ready("large", "123456");
    place.put("alone", "1");
    fs::create_dir(place.inbox().join("sub")).unwrap();
    let future = fs::File::create(place.inbox().join("young")).unwrap();
    future.set_modified(std::time::SystemTime::now() + std::time::Duration::from_hours(1)).unwrap();
    drop(future);
    place.put("young.ok", "");
    let told = place.ok(&["watch", "test", "inbox", "--json"]).json_lines();
    let fate = |name: &str| text(told.iter().find(|line| text(line, "relative") == name).unwrap(), "fate").to_owned();
    for (name, expected) in [
        ("known", "known"),
        ("changed", "changed"),
        ("new", "new"),
        ("large", "excluded"),
        ("alone", "waiting"),
        ("young", "waiting"),
        ("sub", "excluded"),
        ("new.ok", "excluded"),
    ] {
        assert_eq!(fate(name), expected, "{name}: {told:?}");
    }
    assert_eq!(told.iter().filter(|line| line["taken"] == true).count(), 2);
    let lines = place.ok(&["watch", "test", "inbox"]).stdout;
    for part in [
        "take   new",
        "known  known",
        "too young (`min_age`) for another",
        "its ready file is missing",
        "`max_size` (5B)",
    ] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    assert!(lines.contains("2 files would be taken, 1 known, 2 waiting, "), "{lines}");
    let first = place.ok(&["watch", "test", "inbox", "--limit", "3"]).stdout;
    assert_eq!(first.lines().count(), 5, "three entries, their sum, and that there are more: {first}");
    assert_eq!(place.jobs().len(), 2, "and nothing was taken");
}

#[test]
fn every_key_is_a_flag_of_watch_add_and_shown_as_it_was_given() {
    let place = noop();
    fs::create_dir(place.at("done")).unwrap();
    let done = format!("move:{}", place.at("done").display());
    let inbox = inbox(&place);
    let flags = "--no-recursive --max-depth 2 --include *.txt --exclude *.bak --ignore-files --min-size 2B --max-size 1MiB \
                 --order oldest --priority high --settle 0s --min-age 1ms --ready-suffix .ok --events add,modify,delete \
                 --on-rename separate --dedupe content --delete-brake above=7,share=0.25,wait=2h --mode poll \
                 --poll-interval 200ms --rescan-interval 2h --follow-symlinks --on-failure keep --existing process";
    let mut arguments = vec!["watch", "add", "full", &inbox, "--on-success", &done];
    arguments.extend(flags.split_whitespace());
    place.ok(&arguments);
    let shown = place.ok(&["watch", "show", "full", "--json"]).json()["definition"].clone();
    let expected = serde_json::json!({
        "path": inbox, "pipeline": "p", "recursive": false, "max_depth": 2, "include": ["*.txt"], "exclude": ["*.bak"],
        "ignore_files": true, "min_size": "2B", "max_size": "1MiB", "order": "oldest", "priority": "high",
        "settle": "0s", "min_age": "1ms", "ready_suffix": ".ok", "events": ["add", "modify", "delete"],
        "on_rename": "separate", "dedupe": "content", "delete_brake": {"above": 7, "share": 0.25, "wait": "2h"},
        "mode": "poll", "poll_interval": "200ms", "rescan_interval": "2h", "follow_symlinks": true,
        "on_success": {"move": place.at("done")}, "on_failure": "keep",
    });
    assert_eq!(shown, expected);
    place.put("a.txt", "content");
    place.put("a.txt.ok", "");
    place.put("b.txt", "content");
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    assert!(place.at("done/a.txt").exists());
}

#[test]
fn what_each_watch_has_seen_taken_and_left_out_is_told() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n\
         exclude = [\"**/*.log\", \"**/.*\"]\nmax_depth = 1\n",
    );
    for name in ["a.log", "b.log", "a"] {
        place.put(name, name);
    }
    fs::create_dir(place.inbox().join("deep")).unwrap();
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    place.put("b", "b");
    place.wait_count("completed", 2);
    place.ok(&["watch", "scan", "inbox"]);
    let told = wait_for("the counters are told", || {
        let told = place.status()["watches"]["inbox"].clone();
        (count(&told, "taken") == 2 && !told["last_event_at"].is_null()).then_some(told)
    });
    assert_eq!((count(&told, "seen"), count(&told, "excluded"), count(&told, "errors")), (2, 3, 0), "{told}");
    let rules = serde_json::json!([
        {"rule": "exclude `**/*.log`", "count": 2},
        {"rule": "in a folder below the last level (`max_depth` is 1)", "count": 1},
    ]);
    assert_eq!(told["excluded_by"], rules);
    assert_eq!((count(&told, "events_lost"), count(&told["last_scan"], "files")), (0, 2), "{told}");
    assert!(!told["last_scan_at"].is_null());
    assert_eq!(place.ok(&["watch", "show", "inbox", "--json"]).json()["taken"], 2);
    let (shown, status) = (place.ok(&["watch", "show", "inbox"]).stdout, place.ok(&["status"]).stdout);
    for part in ["2 seen, 2 taken", "2: exclude `**/*.log`", "1 folder by events", "lost 0 times"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(status.contains("EXCLUDED"), "{status}");

    place.ok(&["watch", "pause", "inbox"]);
    assert_eq!(text(&place.status()["watches"]["inbox"], "condition"), "paused");
}

#[test]
fn a_file_that_waits_shows_what_it_waits_for() {
    let watch = |name: &str, keys: &str| {
        format!("[watch.{name}]\npath = \"@PLACE@/{name}\"\npipeline = \"p\"\nsettle = \"0s\"\n{keys}\n")
    };
    let quiet = watch("quiet", "").replace("\"0s\"", "\"1h\"");
    let (ready, aged) = (watch("ready", "ready_suffix = \".ok\""), watch("aged", "min_age = \"1h\""));
    let place = Place::with(&format!("[pipeline.p]\nkind = \"noop\"\n{quiet}{ready}{aged}"));
    for folder in ["quiet", "ready", "aged"] {
        fs::create_dir(place.at(folder)).unwrap();
    }
    let _daemon = Daemon::start(&place);
    wait_until("the first scans are over", || {
        ["quiet", "ready", "aged"].iter().all(|watch| !place.status()["watches"][*watch]["last_scan_at"].is_null())
    });
    for file in ["quiet/new", "ready/alone", "aged/young"] {
        fs::write(place.at(file), "1").unwrap();
    }
    let _open = fs::File::create(place.at("aged/open")).unwrap();
    let waits = |watch: &str, file: &str| {
        let told = place.ok(&["watch", "show", watch, "--json"]).json()["waiting_files"].clone();
        let found = told.as_array().unwrap().iter().find(|waiting| text(waiting, "relative") == file).cloned();
        found.map_or_else(String::new, |waiting| text(&waiting, "waits_for").to_owned())
    };
    for (watch, file, expected, words) in [
        ("quiet", "new", "quiet", "new: quiet for "),
        ("ready", "alone", "ready_file", "alone: its ready file is missing"),
        ("aged", "young", "age", "young: too young"),
        ("aged", "open", "close", "open: still open for writing"),
    ] {
        wait_until(&format!("{file} waits for {expected}"), || waits(watch, file) == expected);
        let shown = place.ok(&["watch", "show", watch]).stdout;
        assert!(shown.contains(words), "{shown}");
    }
    fs::write(place.at("ready/alone.ok"), "").unwrap();
    place.wait_count("completed", 1);
    wait_until("it waits no more", || waits("ready", "alone").is_empty());
}

#[test]
fn a_root_that_is_missing_is_a_warning_and_is_picked_up_when_it_appears() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"noop\"\n[watch.late]\npath = \"@PLACE@/late\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let _daemon = Daemon::start(&place);
    wait_until("a warning names it", || place.status()["warnings"].to_string().contains("late"));
    fs::create_dir(place.at("late")).unwrap();
    fs::write(place.at("late/a"), "a").unwrap();
    place.wait_count("completed", 1);
    wait_until("the warning is gone", || !place.status()["warnings"].to_string().contains("late"));
}

#[test]
fn pipelines_are_listed_and_shown() {
    let place = Place::with_database("[pipeline.a]\nkind = \"noop\"\n[pipeline.b]\nkind = \"noop\"\n");
    place.add(&place.file("x", "x"), &["--pipeline", "a"]);
    let listed = place.ok(&["pipeline", "list", "--json"]).json_lines();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let shown = place.ok(&["pipeline", "show", "a", "--json"]).json();
    assert!(shown.to_string().contains("noop"), "{shown}");
    place.exits(3, &["pipeline", "show", "nobody"]);
}

#[test]
fn a_pause_of_pipelines_survives_a_restart() {
    let place = Place::with_database("[pipeline.a]\nkind = \"noop\"\n[pipeline.b]\nkind = \"noop\"\n");
    place.exits(3, &["pause", "nobody"]);
    let mut daemon = Daemon::start(&place);
    place.ok(&["pause", "a"]);
    let held = place.add(&place.file("x", "x"), &["--pipeline", "a"]);
    let free = place.add(&place.file("y", "y"), &["--pipeline", "b"]);
    place.wait_state(free, "completed");
    assert_eq!(daemon.stop(), 0);
    let _daemon = Daemon::start(&place);
    let free = place.add(&place.file("z", "z"), &["--pipeline", "b"]);
    place.wait_state(free, "completed");
    assert_eq!(text(&place.show(held), "state"), "pending");
    place.ok(&["resume", "a"]);
    place.wait_state(held, "completed");

    place.ok(&["pause"]);
    let all = ["a", "b"].map(|pipeline| place.add(&place.file(pipeline, "q"), &["--pipeline", pipeline]));
    assert!(all.iter().all(|id| text(&place.show(*id), "state") == "pending"));
    place.ok(&["resume"]);
    for id in all {
        place.wait_state(id, "completed");
    }
}

#[test]
fn a_pause_with_now_interrupts_what_runs_and_spends_nothing() {
    let place = Place::with("[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sleep\", \"1000\"]\n");
    let _daemon = Daemon::start(&place);
    let id = place.add(&place.file("a", "a"), &[]);
    place.wait_state(id, "running");
    place.ok(&["pause", "--now"]);
    let job = place.wait_state(id, "pending");
    assert_eq!((count(&job, "attempt"), count(&job, "crashes")), (0, 0), "{job}");
    place.ok(&["resume"]);
    place.wait_state(id, "running");
}
