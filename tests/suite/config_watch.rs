//! Every key of `[watch.NAME]` makes a difference. (`on_success`, `on_failure`: see `disposal`.)

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::support::*;

/// A place with a watch with these keys.
fn watching(keys: &str) -> Place {
    let settle = if keys.contains("settle") { "" } else { "settle = \"0s\"\n" };
    Place::with(&format!(
        "[pipeline.p]\nkind = \"noop\"\n[pipeline.q]\nkind = \"noop\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\n{settle}{keys}\n"
    ))
}

fn make(place: &Place, names: &[&str]) {
    for name in names {
        let path = place.inbox().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

/// The files that one run takes, sorted.
fn taken(place: &Place) -> Vec<String> {
    place.exits(0, &["run", "--once"]);
    let names: BTreeSet<String> = place.jobs().iter().map(|job| text(job, "relative").to_owned()).collect();
    names.into_iter().collect()
}

#[test]
fn recursive_decides_about_folders() {
    for (recursive, expected) in [("true", vec!["a", "sub/b"]), ("false", vec!["a"])] {
        let place = watching(&format!("pipeline = \"p\"\nrecursive = {recursive}"));
        make(&place, &["a", "sub/b"]);
        assert_eq!(taken(&place), expected);
    }
}

#[test]
fn recursive_decides_about_folders_beside_a_running_daemon() {
    let place = watching("pipeline = \"p\"\nrecursive = false");
    let _daemon = Daemon::start(&place);
    make(&place, &["sub/b", "sub/c"]);
    make(&place, &["a"]);
    place.wait_count("completed", 1);
    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(place.jobs().len(), 1);
}

#[test]
fn max_depth_counts_the_levels_of_folders() {
    let names = ["a", "x/b", "x/y/c", "x/y/z/d"];
    for (levels, expected) in [(0, &names[..]), (1, &names[..1]), (2, &names[..2]), (3, &names[..3])] {
        let place = watching(&format!("pipeline = \"p\"\nmax_depth = {levels}"));
        make(&place, &names);
        assert_eq!(taken(&place), expected, "{levels}");
    }
    let place = watching("pipeline = \"p\"\nmax_depth = 2");
    let _daemon = Daemon::start(&place);
    make(&place, &["x/y/too-deep", "x/in-time"]);
    place.wait_count("completed", 1);
    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(place.jobs().len(), 1);
    let tested = place.ok(&["watch", "test", "inbox"]).stdout;
    assert!(tested.contains("x/y ") && tested.contains("`max_depth` is 2"), "{tested}");
}

#[test]
fn min_size_and_max_size_choose_by_the_size_of_the_file() {
    let sized = |place: &Place| [1_usize, 10, 1_000].map(|size| place.put(&size.to_string(), "x".repeat(size)));
    for (keys, expected) in [
        ("min_size = \"10B\"", vec!["10", "1000"]),
        ("max_size = \"10B\"", vec!["1", "10"]),
        ("min_size = 2\nmax_size = 999", vec!["10"]),
        ("min_size = \"0B\"\nmax_size = \"0B\"", vec!["1", "10", "1000"]),
    ] {
        let place = watching(&format!("pipeline = \"p\"\n{keys}"));
        sized(&place);
        assert_eq!(taken(&place), expected, "{keys}");
    }
}

#[test]
fn sizes_are_judged_when_a_file_is_taken_however_it_grew_or_shrank() {
    let place = watching("pipeline = \"p\"\nmin_size = 3\nmax_size = 5");
    let _daemon = Daemon::start(&place);
    place.put("grows", "12");
    place.put("taken", "1234");
    place.wait_count("completed", 1);
    place.ok(&["watch", "scan", "inbox"]);
    assert!(place.newest_of("grows").is_none(), "too small");
    File::options().append(true).open(place.inbox().join("grows")).unwrap().write_all(b"345").unwrap();
    place.wait_count("completed", 2);
    File::options().append(true).open(place.inbox().join("grows")).unwrap().write_all(b"6").unwrap();
    fs::write(place.inbox().join("taken"), "1").unwrap();
    place.put("later", "1234");
    place.wait_count("completed", 3);
    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(place.jobs().len(), 3, "a version of a size that is left out is not taken");
    fs::write(place.inbox().join("grows"), "fits").unwrap();
    place.wait_count("completed", 4);
    assert_eq!(place.newest_of("grows").unwrap()["size_bytes"], 4);
}

#[test]
fn min_age_is_how_long_ago_the_last_modification_has_to_be() {
    let place = watching("pipeline = \"p\"\nmin_age = \"1h\"");
    place.put("old", "old");
    place.put("young", "young");
    let modify = |name: &str, minutes: u64| {
        let time = std::time::SystemTime::now() - std::time::Duration::from_mins(minutes);
        File::options().append(true).open(place.inbox().join(name)).unwrap().set_modified(time).unwrap();
    };
    modify("old", 61);
    modify("young", 59);
    assert_eq!(taken(&place), ["old"], "and the run does not wait for the other one");
    let _daemon = Daemon::start(&place);
    modify("young", 61);
    place.wait_count("completed", 2);
}

#[test]
fn a_young_file_is_taken_when_its_age_has_come() {
    let place = watching("pipeline = \"p\"\nmin_age = \"2s\"");
    let _daemon = Daemon::start(&place);
    place.put("a", "a");
    place.wait_count("completed", 1);
    let taken: jiff::Timestamp = text(&place.jobs()[0], "created_at").parse().unwrap();
    let written = fs::metadata(place.inbox().join("a")).unwrap().modified().unwrap();
    let waited = taken.as_millisecond() - jiff::Timestamp::try_from(written).unwrap().as_millisecond();
    assert!(waited >= 1_999, "taken after {waited} ms");
}

#[test]
fn include_and_exclude_choose_by_the_relative_path() {
    let names = ["a.pdf", "b.txt", "sub/c.pdf", "sub/draft/d.pdf"];
    for (keys, expected) in [
        ("include = [\"**/*.pdf\"]", vec!["a.pdf", "sub/c.pdf", "sub/draft/d.pdf"]),
        ("include = [\"**/*.pdf\"]\nexclude = [\"sub/draft/**\"]", vec!["a.pdf", "sub/c.pdf"]),
        ("exclude = [\"inbox/**\", \"**/inbox/**\"]", vec!["a.pdf", "b.txt", "sub/c.pdf", "sub/draft/d.pdf"]),
    ] {
        let place = watching(&format!("pipeline = \"p\"\n{keys}"));
        make(&place, &names);
        assert_eq!(taken(&place), expected, "{keys}");
    }
}

#[test]
fn the_built_in_exclusions_hold_until_they_are_replaced() {
    let names = ["a", ".hidden", "b~", "c.part", "d.tmp", "e.swp", "Thumbs.db", "x/@eaDir/f", "g.crdownload"];
    let place = watching("pipeline = \"p\"");
    make(&place, &names);
    assert_eq!(taken(&place), ["a"]);
    let place = watching("pipeline = \"p\"\nexclude = []");
    make(&place, &names);
    assert_eq!(taken(&place).len(), names.len());
}

#[test]
fn ignore_files_are_obeyed_when_asked_for() {
    for (keys, expected) in [
        ("ignore_files = true", vec!["a.txt", "sub/keep"]),
        ("ignore_files = false", vec!["a.txt", "b.log", "sub/drop", "sub/keep"]),
    ] {
        let place = watching(&format!("pipeline = \"p\"\n{keys}"));
        make(&place, &["a.txt", "b.log", "sub/drop", "sub/keep"]);
        fs::write(place.inbox().join(".gitignore"), "*.log\n").unwrap();
        fs::write(place.inbox().join("sub/.ingestdignore"), "drop\n").unwrap();
        assert_eq!(taken(&place), expected, "{keys}");
    }
}

#[test]
fn pipeline_and_priority_are_the_jobs() {
    let place = watching("pipeline = \"q\"\npriority = \"urgent\"");
    make(&place, &["a"]);
    taken(&place);
    let job = place.jobs().remove(0);
    assert_eq!((text(&job, "pipeline"), text(&job, "priority"), text(&job, "watch")), ("q", "urgent", "inbox"));
}

#[test]
fn settle_is_the_quiet_time_before_a_file_counts_as_whole() {
    let waited = |settle: &str| {
        let place = watching(&format!("pipeline = \"p\"\nsettle = \"{settle}\""));
        let _daemon = Daemon::start(&place);
        make(&place, &["a"]);
        place.wait_count("completed", 1);
        let started: jiff::Timestamp = text(&place.jobs()[0], "created_at").parse().unwrap();
        let written = fs::metadata(place.inbox().join("a")).unwrap().modified().unwrap();
        let written = jiff::Timestamp::try_from(written).unwrap();
        started.as_millisecond() - written.as_millisecond()
    };
    let (at_once, later) = (waited("0s"), waited("2s"));
    assert!(later >= 1_990, "settle = 2s took a file after {later} ms");
    assert!(at_once < 1_900, "settle = 0s took a file after {at_once} ms");
}

#[test]
fn with_no_settle_time_a_file_is_taken_at_its_close() {
    let place = watching("pipeline = \"p\"\nsettle = \"0s\"");
    let _daemon = Daemon::start(&place);
    let mut open = File::create(place.inbox().join("open")).unwrap();
    open.write_all(b"half").unwrap();
    make(&place, &["other"]);
    place.wait_count("completed", 1);
    assert!(place.newest_of("open").is_none(), "taken before its close");
    open.write_all(b" and whole").unwrap();
    drop(open);
    place.wait_count("completed", 2);
    assert_eq!(place.newest_of("open").unwrap()["size_bytes"], 14);
}

#[test]
fn order_decides_in_which_order_a_scan_hands_over_what_it_found() {
    for (order, expected) in [("path", ["a", "b", "c"]), ("newest", ["b", "c", "a"]), ("oldest", ["a", "c", "b"])] {
        let place = watching(&format!("pipeline = \"p\"\norder = \"{order}\""));
        for (name, days) in [("a", 9), ("b", 1), ("c", 5)] {
            let time = std::time::SystemTime::now() - std::time::Duration::from_hours(24 * days);
            let path = place.put(name, name);
            File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
        }
        place.exits(0, &["run", "--once"]);
        let mut jobs = place.jobs();
        jobs.sort_by_key(|job| count(job, "id"));
        assert_eq!(jobs.iter().map(|job| text(job, "relative")).collect::<Vec<_>>(), expected, "{order}");
    }
}

#[test]
fn delete_brake_decides_how_many_deletions_are_believed_and_when() {
    // Four of eight files are gone.
    for (brake, held) in [
        ("above = 3, share = 0.4", true),
        ("above = 4, share = 0.4", false),
        ("above = 3, share = 0.5", false),
        ("above = 3, share = 0.4, wait = \"0s\"", false),
        ("above = 3, share = 0.4, wait = \"1s\"", false),
    ] {
        let place =
            watching(&format!("pipeline = \"p\"\nevents = [\"add\", \"delete\"]\ndelete_brake = {{ {brake} }}"));
        let names = ["0", "1", "2", "3", "4", "5", "6", "7"];
        make(&place, &names);
        taken(&place);
        names[..4].iter().for_each(|name| fs::remove_file(place.inbox().join(name)).unwrap());
        let _daemon = Daemon::start(&place);
        if held {
            wait_until("they are held back", || count(&place.status()["watches"]["inbox"], "held_back") == 4);
            assert_eq!(place.jobs().len(), 8, "{brake}");
            place.ok(&["watch", "confirm", "inbox"]);
        }
        place.wait_count("completed", 12);
    }
}

#[test]
fn ready_suffix_waits_for_the_marker() {
    let place = watching("pipeline = \"p\"\nready_suffix = \".done\"");
    let _daemon = Daemon::start(&place);
    make(&place, &["a.txt", "b.txt", "b.txt.done"]);
    place.wait_count("completed", 1);
    assert_eq!(text(&place.jobs()[0], "relative"), "b.txt", "the marker itself is no job");
    make(&place, &["a.txt.done"]);
    place.wait_count("completed", 2);
    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(place.jobs().len(), 2);
}

#[test]
fn events_decide_which_changes_become_jobs() {
    // Of each list: a new file, a changed one, a deleted one.
    for (events, operations) in [
        ("[\"add\", \"modify\"]", vec!["add", "modify"]),
        ("[\"add\"]", vec!["add"]),
        ("[\"add\", \"delete\"]", vec!["add", "delete"]),
        ("[\"add\", \"modify\", \"delete\"]", vec!["add", "delete", "modify"]),
    ] {
        let place = watching(&format!("pipeline = \"p\"\nevents = {events}"));
        let daemon = Daemon::start(&place);
        make(&place, &["file"]);
        place.wait_count("completed", 1);
        fs::write(place.inbox().join("file"), "changed").unwrap();
        if events.contains("modify") {
            place.wait_count("completed", 2);
        }
        place.ok(&["watch", "scan", "inbox"]);
        fs::remove_file(place.inbox().join("file")).unwrap();
        place.ok(&["watch", "scan", "inbox"]);
        place.wait_count("completed", operations.len());
        let mut found: Vec<String> = place.jobs().iter().map(|job| text(job, "op").to_owned()).collect();
        found.sort();
        assert_eq!(found, operations, "{events}");
        drop(daemon);
    }
}

#[test]
fn a_delete_is_no_job_for_what_was_never_started() {
    let place = watching("pipeline = \"p\"\nevents = [\"add\", \"modify\", \"delete\"]");
    let _daemon = Daemon::start(&place);
    place.ok(&["pause"]);
    make(&place, &["file"]);
    place.wait_count("pending", 1);
    fs::remove_file(place.inbox().join("file")).unwrap();
    place.ok(&["watch", "scan", "inbox"]);
    place.ok(&["resume"]);
    place.wait_count("skipped", 1);
    assert_eq!(place.jobs().len(), 1, "{:?}", place.jobs());
}

#[test]
fn poll_mode_finds_changes_at_its_interval() {
    let place = watching("pipeline = \"p\"\nmode = \"poll\"\npoll_interval = \"200ms\"");
    let _daemon = Daemon::start(&place);
    make(&place, &["a", "sub/b"]);
    place.wait_count("completed", 2);
    // An older file in place of the known one, and another content of the same size and time.
    let path = place.inbox().join("a");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "A").unwrap();
    File::options().append(true).open(&path).unwrap().set_modified(before - std::time::Duration::from_secs(9)).unwrap();
    place.wait_count("completed", 3);
    let shown = place.ok(&["watch", "list", "--json"]).stdout;
    assert!(shown.contains("poll"), "{shown}");
}

#[test]
fn poll_interval_is_how_often_a_polled_tree_is_walked() {
    let place = watching("pipeline = \"p\"\nmode = \"poll\"\npoll_interval = \"1h\"");
    let _daemon = Daemon::start(&place);
    wait_until("the first scan is over", || place.status().to_string().contains("last_scan_at\":\""));
    make(&place, &["a"]);
    place.ok(&["add", place.file("other", "x").to_str().unwrap(), "--pipeline", "p"]);
    place.wait_count("completed", 1);
    assert!(place.newest_of("inbox/a").is_none(), "nothing is looked at before its time");
    place.ok(&["watch", "scan", "inbox"]);
    place.wait_count("completed", 2);
}

#[test]
fn native_mode_is_told_at_once() {
    let place = watching("pipeline = \"p\"\nmode = \"native\"\npoll_interval = \"1h\"\nrescan_interval = \"1h\"");
    let _daemon = Daemon::start(&place);
    make(&place, &["a"]);
    place.wait_count("completed", 1);
}

#[test]
fn rescan_interval_compares_everything_again_and_again() {
    let scans = |interval: &str| {
        let place = watching(&format!("pipeline = \"p\"\nmode = \"native\"\nrescan_interval = \"{interval}\""));
        let _daemon = Daemon::start(&place);
        let last = || text(&place.status()["watches"]["inbox"], "last_scan_at").to_owned();
        let first = wait_for("the first scan is over", || Some(last()).filter(|time| !time.is_empty()));
        match interval {
            "1s" => wait_until("there was another scan", || last() != first),
            _ => {
                std::thread::sleep(std::time::Duration::from_secs(2));
                assert_eq!(last(), first, "a scan before its time");
            }
        }
    };
    scans("1s");
    scans("1h");
}

#[test]
fn symbolic_links_are_followed_when_asked_for() {
    let all = vec!["linked", "linked-folder/inner", "plain", "sub/inner"];
    for (keys, expected) in [("follow_symlinks = true", all), ("follow_symlinks = false", vec!["plain", "sub/inner"])] {
        let place = watching(&format!("pipeline = \"p\"\n{keys}"));
        make(&place, &["plain", "sub/inner"]);
        let outside = place.file("outside", "outside");
        link(&place.inbox().join("sub"), &place.inbox().join("linked-folder"));
        link(&place.inbox().join("plain"), &place.inbox().join("linked"));
        link(&place.inbox(), &place.inbox().join("loop"));
        // What lies outside the root is nobody's to take, however it is reached.
        link(&outside, &place.inbox().join("out"));
        assert_eq!(taken(&place), expected, "{keys}");
    }
}

fn link(target: &Path, name: &Path) {
    std::os::unix::fs::symlink(target, name).unwrap();
}

#[test]
fn path_may_be_spelled_with_a_link_and_the_state_directory_is_never_taken() {
    let place = Place::with_database(
        "[pipeline.p]\nkind = \"noop\"\n[watch.all]\npath = \"@PLACE@\"\npipeline = \"p\"\nsettle = \"0s\"\n\
         include = [\"inbox/**\", \"state/**\", \"other/**\"]\nfollow_symlinks = true\n",
    );
    fs::create_dir(place.at("other")).unwrap();
    link(&place.at("state"), &place.at("other/link-to-state"));
    make(&place, &["a"]);
    let check = place.cli(&["config", "check"]);
    if check.code == 2 {
        eprintln!("a watch above the state directory is refused: {}", check.stderr);
        return;
    }
    assert_eq!(taken(&place), ["inbox/a"]);
    place.ok(&["db", "check"]);
}
