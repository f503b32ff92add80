//! Versions on the real program: each final state of a file is processed once, in order, under the name that it has.
//!
//! The processor tells what it was given, a line for each execution, in a file outside the program.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::*;

/// What the names begin with of files that are no part of a test's story.
const MARKER: &str = "marker-";

/// A watch of the inbox with these keys, and a processor that tells of each execution and goes on with `then`.
fn telling(keys: &str, then: &str) -> Place {
    let place = Place::new();
    let (told, script) = (place.at("told"), place.at("tell.sh"));
    let tell = r#"content=-
[ "$INGESTD_OP" = delete ] || content=$(head -c 20 "$INGESTD_PATH") || exit 1
printf '%s %s %s from=%s\n' "$INGESTD_OP" "$INGESTD_RELATIVE" "$content" "${INGESTD_MOVED_FROM##*/inbox/}" >> TOLD
"#;
    fs::write(&told, "").unwrap();
    fs::write(&script, format!("{}{then}\n", tell.replace("TOLD", told.to_str().unwrap()))).unwrap();
    place.configure(&format!(
        "[pipeline.tell]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"{}\", \"{{moved_from}}\"]\nconcurrency = 4\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"tell\"\nsettle = \"0s\"\nrescan_interval = \"1h\"\n\
         events = [\"add\", \"modify\", \"delete\"]\ndelete_brake = {{ wait = \"0s\" }}\n{keys}\n",
        script.display()
    ));
    place
}

/// What was told, in order.
fn told(place: &Place) -> Vec<String> {
    let told = fs::read_to_string(place.at("told")).unwrap();
    told.lines().filter(|line| !line.contains(MARKER)).map(str::to_owned).collect()
}

/// Waits until exactly this was told, in whatever order, and nothing is left to tell.
#[track_caller]
fn wait_told(place: &Place, expected: &[&str]) {
    let mut expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    expected.sort();
    let sorted = || {
        let mut told = told(place);
        told.sort();
        told
    };
    wait_until(&format!("exactly this is told: {expected:?}"), || sorted().len() >= expected.len());
    quiet(place);
    assert_eq!(sorted(), expected);
}

/// Waits until everything that happened so far is told: a file that comes and goes now is told later, also as gone.
#[track_caller]
fn quiet(place: &Place) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    place.ok(&["watch", "scan", "inbox"]);
    let marker = format!("{MARKER}{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let path = place.put(&marker, &marker);
    let is = |op: &str| {
        place.newest_of(&marker).is_some_and(|job| text(&job, "op") == op && text(&job, "state") == "completed")
    };
    wait_until("a file that came is told", || is("add"));
    fs::remove_file(path).unwrap();
    wait_until("a file that went is told", || is("delete"));
    wait_until("nothing is at work", || {
        ["pending", "running", "retrying"].into_iter().all(|state| place.in_state(state) == 0)
    });
}

/// Jobs, but for those of [`quiet`].
fn jobs(place: &Place) -> Vec<Value> {
    let mut jobs = place.jobs();
    jobs.retain(|job| !text(job, "relative").starts_with(MARKER));
    jobs
}

fn rename(place: &Place, from: &str, to: &str) {
    let inbox = place.inbox();
    fs::rename(inbox.join(from), inbox.join(to)).unwrap();
}

#[test]
fn each_state_of_a_file_is_processed_once_in_order_whatever_happens_to_it() {
    for mode in ["native", "poll"] {
        let place = telling(&format!("mode = \"{mode}\"\npoll_interval = \"100ms\""), "");
        let _daemon = Daemon::start(&place);
        let steps: [(&dyn Fn(), &str); 8] = [
            (&|| drop(place.put("a", "A")), "add a A from="),
            (&|| drop(place.put("a", "B")), "modify a B from="),
            (&|| drop(place.put("a", "A")), "modify a A from="),
            (&|| rename(&place, "a", "b"), "modify b A from=a"),
            (&|| rename(&place, "b", "a"), "modify a A from=b"),
            (&|| fs::remove_file(place.inbox().join("a")).unwrap(), "delete a - from="),
            (&|| drop(place.put("a", "A")), "add a A from="),
            (&|| drop(place.put("b", "C")), "add b C from="),
        ];
        for (at, (step, line)) in steps.iter().enumerate() {
            step();
            wait_until(line, || told(&place).len() > at);
            assert_eq!(told(&place)[at], *line, "{mode}");
        }
        quiet(&place);
        assert_eq!(told(&place).len(), steps.len(), "{mode}: {:?}", told(&place));
        place.ok(&["db", "check"]);
    }
}

#[test]
fn jobs_tell_from_where_a_file_moved_and_those_of_the_past_keep_its_name() {
    let place = telling("", "");
    let _daemon = Daemon::start(&place);
    place.put("before", "content");
    wait_told(&place, &["add before content from="]);
    rename(&place, "before", "after");
    wait_told(&place, &["add before content from=", "modify after content from=before"]);
    let (old, new) = (place.newest_of("before").unwrap(), place.newest_of("after").unwrap());
    assert_eq!((text(&old, "op"), &old["moved_from"]), ("add", &Value::Null));
    assert_eq!((text(&new, "op"), count(&new, "version")), ("modify", 2));
    assert_eq!(text(&new, "moved_from"), place.inbox().join("before").to_str().unwrap());
    let shown = place.ok(&["show", &new["id"].to_string()]).stdout;
    assert!(shown.contains("moved from") && shown.contains("inbox/before"), "{shown}");
    let history = place.history();
    assert_eq!(history.iter().filter(|row| text(row, "path").ends_with("/before")).count(), 1, "{history:?}");
}

#[test]
fn a_tracked_file_is_not_processed_again_until_its_content_changes() {
    let place = telling("on_rename = \"track\"", "");
    let _daemon = Daemon::start(&place);
    place.put("a", "one");
    wait_told(&place, &["add a one from="]);
    rename(&place, "a", "b");
    quiet(&place);
    fs::create_dir(place.inbox().join("x")).unwrap();
    rename(&place, "b", "x/c");
    quiet(&place);
    assert_eq!(told(&place).len(), 1, "{:?}", told(&place));
    place.put("x/c", "two");
    wait_told(&place, &["add a one from=", "modify x/c two from="]);
    assert_eq!(count(&place.newest_of("c").unwrap(), "version"), 2);
}

#[test]
fn separate_renames_are_a_delete_and_an_add() {
    let place = telling("on_rename = \"separate\"", "");
    let _daemon = Daemon::start(&place);
    place.put("a", "one");
    wait_told(&place, &["add a one from="]);
    rename(&place, "a", "b");
    wait_told(&place, &["add a one from=", "delete a - from=", "add b one from="]);
}

#[test]
fn a_folder_that_is_renamed_moves_each_of_its_files_and_deletes_none() {
    const FILES: usize = 1_500;
    for policy in ["modify", "track"] {
        let place = telling(&format!("on_rename = \"{policy}\""), "");
        // Quick to process: what matters is what there is to process.
        let configuration = fs::read_to_string(place.at("ingestd.toml")).unwrap();
        let configuration = configuration.replace("delete_brake = { wait = \"0s\" }", "");
        let noop = configuration.lines().filter(|line| !line.starts_with("command")).collect::<Vec<_>>().join("\n");
        fs::write(place.at("ingestd.toml"), noop.replace("\"exec\"", "\"noop\"")).unwrap();
        for number in 0..FILES {
            let path = place.inbox().join(format!("from/{}/{number}", number % 7));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("content {number}")).unwrap();
        }
        let _daemon = Daemon::start(&place);
        place.wait_count("completed", FILES);
        rename(&place, "from", "to");
        if policy == "modify" {
            place.wait_count("completed", 2 * FILES);
        }
        quiet(&place);
        let jobs = jobs(&place);
        let moved = jobs.iter().filter(|job| text(job, "op") == "modify");
        let moved = moved.filter(|job| {
            text(job, "moved_from").replace("/from/", "/to/") == text(job, "path") && count(job, "version") == 2
        });
        let expected = if policy == "modify" { FILES } else { 0 };
        assert_eq!((moved.count(), jobs.len()), (expected, FILES + expected), "{policy}");
        assert_eq!(
            place.status()["watches"]["inbox"]["held_back"].as_i64().unwrap_or(0),
            0,
            "{policy}: nothing is gone"
        );
        place.ok(&["db", "check"]);
    }
}

#[test]
fn what_was_renamed_while_nobody_watched_is_told_at_the_next_start() {
    let place = telling("", "");
    let mut daemon = Daemon::start(&place);
    fs::create_dir(place.inbox().join("d")).unwrap();
    for (name, content) in [("a", "A"), ("x", "X"), ("y", "Y"), ("p", "P"), ("q", "Q"), ("out", "O"), ("d/1", "1")] {
        place.put(name, content);
    }
    let mut expected: Vec<&str> = vec![
        "add a A from=",
        "add x X from=",
        "add y Y from=",
        "add p P from=",
        "add q Q from=",
        "add out O from=",
        "add d/1 1 from=",
    ];
    wait_told(&place, &expected);
    daemon.kill();
    rename(&place, "a", "b");
    rename(&place, "b", "c");
    rename(&place, "x", "swap");
    rename(&place, "y", "x");
    rename(&place, "swap", "y");
    rename(&place, "p", "q");
    rename(&place, "d", "e");
    fs::rename(place.inbox().join("out"), place.at("away")).unwrap();
    // Another file under a name that a file left.
    place.put("a", "new");
    let _daemon = Daemon::start(&place);
    expected.extend([
        // a is there, so that c is a file of its own.
        "modify a new from=",
        "add c A from=",
        "modify x Y from=",
        "modify y X from=",
        "modify q P from=",
        "delete p - from=",
        "modify e/1 1 from=d/1",
        "delete out - from=",
    ]);
    wait_told(&place, &expected);
    place.ok(&["db", "check"]);
}

#[test]
fn a_chain_of_renames_is_one() {
    let place = telling("", "");
    let mut daemon = Daemon::start(&place);
    place.put("a", "A");
    wait_told(&place, &["add a A from="]);
    daemon.kill();
    rename(&place, "a", "b");
    rename(&place, "b", "c");
    let _daemon = Daemon::start(&place);
    wait_told(&place, &["add a A from=", "modify c A from=a"]);
    for (from, to) in [("c", "d"), ("d", "e"), ("e", "f")] {
        rename(&place, from, to);
    }
    wait_until("the last name is told", || told(&place).last().is_some_and(|line| line.contains(" f ")));
    quiet(&place);
    assert!(!told(&place).iter().any(|line| line.starts_with("delete")), "{:?}", told(&place));
    let last = told(&place).pop().unwrap();
    assert!(last.starts_with("modify f A from="), "{last}");
}

#[test]
fn what_only_looks_like_a_rename_is_none() {
    let place = telling("", "");
    let _daemon = Daemon::start(&place);
    place.put("a", "A");
    place.put("link", "L");
    wait_told(&place, &["add a A from=", "add link L from="]);
    // Changed under its new name before anybody looked: open, so that it has to wait.
    let mut open = File::options().append(true).open(place.inbox().join("a")).unwrap();
    rename(&place, "a", "b");
    open.write_all(b"B").unwrap();
    drop(open);
    // Both names are there.
    fs::hard_link(place.inbox().join("link"), place.inbox().join("other")).unwrap();
    let expected = ["add a A from=", "add link L from=", "add b AB from=", "delete a - from=", "add other L from="];
    wait_told(&place, &expected);
}

#[test]
fn a_file_that_was_outside_for_a_moment_was_renamed_and_one_that_stays_is_deleted() {
    let place = telling("", "");
    let _daemon = Daemon::start(&place);
    place.put("a", "A");
    place.put("b", "B");
    wait_told(&place, &["add a A from=", "add b B from="]);
    for name in ["a", "b"] {
        fs::rename(place.inbox().join(name), place.at(name)).unwrap();
    }
    fs::rename(place.at("a"), place.inbox().join("back")).unwrap();
    wait_told(&place, &["add a A from=", "add b B from=", "modify back A from=a", "delete b - from="]);
    fs::rename(place.at("b"), place.inbox().join("b")).unwrap();
    let all = ["add a A from=", "add b B from=", "modify back A from=a", "delete b - from=", "add b B from="];
    wait_told(&place, &all);
}

#[test]
fn a_waiting_job_goes_along_with_its_file() {
    for policy in ["modify", "track"] {
        let place = telling(&format!("on_rename = \"{policy}\""), "");
        let _daemon = Daemon::start(&place);
        place.ok(&["pause"]);
        place.put("a", "A");
        place.wait_count("pending", 1);
        let id = place.newest_of("a").unwrap()["id"].clone();
        rename(&place, "a", "b");
        wait_until("the job has the new name", || place.newest_of("b").is_some_and(|job| job["id"] == id));
        place.ok(&["resume"]);
        wait_told(&place, &["add b A from="]);
        assert_eq!(jobs(&place).len(), 1);
    }
}

#[test]
fn a_file_renamed_while_it_is_worked_on_is_told_afterwards_or_known_to_be_done() {
    for policy in ["modify", "track"] {
        let wait = "while [ ! -e \"${0%/*}/go\" ]; do sleep 0.02; done";
        let place = telling(&format!("on_rename = \"{policy}\"\non_success = \"delete\""), wait);
        let _daemon = Daemon::start(&place);
        place.put("a", "A");
        wait_until("it runs", || told(&place).len() == 1);
        rename(&place, "a", "b");
        wait_until("the rename is known", || place.newest_of("b").is_some());
        fs::write(place.at("go"), "").unwrap();
        let mut expected = vec!["add a A from="];
        if policy == "modify" {
            expected.push("modify b A from=a");
        }
        wait_until("it is told", || told(&place) == expected);
        // Under either policy `on_success` is about the file, where it is.
        wait_until("the file went its way", || !Path::new(&place.inbox().join("b")).exists());
        wait_until("nothing is at work", || place.in_state("running") == 0);
        let newest = place.newest_of("b").unwrap();
        let end = (text(&newest, "state").to_owned(), text(&newest, "reason").to_owned());
        let done = if policy == "modify" { ("completed", "") } else { ("skipped", "unchanged") };
        assert_eq!((end.0.as_str(), end.1.as_str()), done);
        assert_eq!(told(&place), expected);
        place.ok(&["db", "check"]);
    }
}

#[test]
fn a_tracked_file_that_was_away_when_its_turn_came_is_processed_under_its_new_name() {
    // The processor fails as long as the file is not where it was told to be.
    let place = telling("on_rename = \"track\"", "exit 1");
    let configuration = fs::read_to_string(place.at("ingestd.toml")).unwrap();
    let retry = "[pipeline.tell]\nretry = { max_attempts = 1000, base = \"50ms\", factor = 1.0, jitter = \"none\" }";
    fs::write(place.at("ingestd.toml"), configuration.replace("[pipeline.tell]", retry)).unwrap();
    let _daemon = Daemon::start(&place);
    place.put("a", "A");
    wait_until("it was tried", || told(&place).len() > 1);
    rename(&place, "a", "b");
    wait_until("it is tried under the new name", || told(&place).last().is_some_and(|line| line == "add b A from="));
    quiet_but_retrying(&place);
}

/// The old name's job is over, and only the new one's goes on.
#[track_caller]
fn quiet_but_retrying(place: &Place) {
    wait_until("one job goes on", || {
        let jobs = place.jobs();
        let live = |job: &&Value| !["skipped", "failed"].contains(&text(job, "state"));
        let live: Vec<_> = jobs.iter().filter(live).collect();
        live.len() == 1 && text(live[0], "relative") == "b"
    });
}
