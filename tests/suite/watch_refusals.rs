//! Watches that can't be, or that nobody means: refused with the reason, wherever they are written.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;

use crate::support::*;

/// The number of a user who owns nothing.
const NOBODY: u32 = 65_534;

fn with_watch(keys: &str) -> Place {
    Place::with(&format!("[pipeline.p]\nkind = \"noop\"\n[watch.w]\npipeline = \"p\"\n{keys}\n"))
}

/// What is said about these keys in a file and about these arguments of `watch add` beside a daemon; both end with 2.
fn refusals(keys: &str, arguments: &[&str]) -> [String; 2] {
    let written = with_watch(keys);
    let refused = written.exits(2, &["config", "check"]);
    assert_eq!(written.exits(2, &["run", "--once"]).stderr.contains("watch.w."), refused.stderr.contains("watch.w."));
    let place = Place::with_database("[pipeline.p]\nkind = \"noop\"\n[pipeline.q]\nkind = \"noop\"\n");
    fs::create_dir_all(place.at("inbox/sub")).unwrap();
    let _daemon = Daemon::start(&place);
    let here = |argument: &&str| argument.replace("@PLACE@", place.at("").to_str().unwrap().trim_end_matches('/'));
    let arguments: Vec<String> = ["watch", "add", "w", "--pipeline", "p"].iter().chain(arguments).map(here).collect();
    let added = place.exits(2, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(place.ok(&["watch", "list", "--json"]).json_lines().is_empty(), "and nothing is made");
    [refused.stderr, added.stderr]
}

/// Words of a report, which breaks lines.
fn says(report: &str, words: &str) -> bool {
    report.split_whitespace().collect::<Vec<_>>().join(" ").contains(words)
}

#[test]
fn a_watch_on_a_file_names_the_folder_to_watch_instead() {
    let keys = "path = \"@PLACE@/ingestd.toml\"";
    for refusal in refusals(keys, &["@PLACE@/ingestd.toml"]) {
        assert!(says(&refusal, "is not a folder"), "{refusal}");
        assert!(says(&refusal, "watch the folder it is in, and include \"ingestd.toml\""), "{refusal}");
    }
}

#[test]
fn a_watch_on_everything_is_refused() {
    for refusal in refusals("path = \"/\"", &["/"]) {
        assert!(says(&refusal, "is the root of the filesystem"), "{refusal}");
        assert!(says(&refusal, "watch the folders in which files arrive"), "{refusal}");
    }
    let quick = Place::with("").program().args(["run", "--watch", "/", "--once"]).output().unwrap();
    assert_eq!(quick.status.code(), Some(2));
}

#[test]
fn a_glob_that_does_not_parse_is_shown_with_the_place_of_the_mistake() {
    let keys = "path = \"@PLACE@/inbox\"\ninclude = [\"**/*.pdf\", \"**/{a,b\"]";
    for refusal in refusals(keys, &["@PLACE@/inbox", "--include", "**/*.pdf", "--include", "**/{a,b"]) {
        assert!(says(&refusal, "watch.w.include[1] = \"**/{a,b\""), "{refusal}");
        assert!(says(&refusal, "at character 4"), "{refusal}");
    }
}

#[test]
fn a_companion_that_the_filters_exclude_is_refused() {
    let keys = "path = \"@PLACE@/inbox\"\nready_suffix = \".part\"";
    for refusal in refusals(keys, &["@PLACE@/inbox", "--ready-suffix", ".part"]) {
        assert!(says(&refusal, "watch.w.ready_suffix = \".part\""), "{refusal}");
        assert!(says(&refusal, "exclude says with \"**/*.part\""), "{refusal}");
    }
    // Without that pattern it works.
    let place = with_watch("path = \"@PLACE@/inbox\"\nready_suffix = \".part\"\nexclude = []\nsettle = \"0s\"");
    place.put("a", "a");
    place.put("a.part", "");
    place.put("b", "b");
    place.ok(&["run", "--once"]);
    assert_eq!(place.jobs().iter().map(|job| text(job, "relative")).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn an_include_that_lets_companions_or_nothing_pass_is_refused() {
    let keys = "path = \"@PLACE@/inbox\"\nready_suffix = \".done\"\ninclude = [\"**/*.done\"]";
    for refusal in refusals(keys, &["@PLACE@/inbox", "--ready-suffix", ".done", "--include", "**/*.done"]) {
        assert!(says(&refusal, "no file could ever be taken"), "{refusal}");
    }
    let keys = "path = \"@PLACE@/inbox\"\ninclude = [\"**/*.tmp\"]";
    for refusal in refusals(keys, &["@PLACE@/inbox", "--include", "**/*.tmp"]) {
        assert!(says(&refusal, "exclude, which wins, covers all that include lets pass"), "{refusal}");
    }
}

#[test]
fn two_watches_may_see_the_same_files_for_two_pipelines_and_not_for_one() {
    let place = Place::with_database("[pipeline.p]\nkind = \"noop\"\n[pipeline.q]\nkind = \"noop\"\n");
    let (inbox, sub) = (place.inbox(), place.inbox().join("sub"));
    fs::create_dir(&sub).unwrap();
    symlink(&sub, place.at("link")).unwrap();
    symlink(&inbox, place.at("way")).unwrap();
    let add = |name: &str, path: &std::path::Path, more: &[&str]| {
        let arguments = ["watch", "add", name, path.to_str().unwrap(), "--settle", "0s"];
        place.cli(&[&arguments[..], more].concat())
    };
    assert_eq!(add("all", &inbox, &["--pipeline", "p"]).code, 0);
    for path in [&inbox, &sub, &place.at("link"), &place.at("way/sub"), &place.at("way")] {
        let refused = add("twin", path, &["--pipeline", "p"]);
        assert_eq!(refused.code, 2, "{path:?}: {refused:?}");
        assert!(says(&refused.stderr, "watch all sees the same files for pipeline p"), "{refused:?}");
    }
    assert_eq!(add("other", &place.at("way/sub"), &["--pipeline", "q"]).code, 0);
    place.ok(&["watch", "remove", "all"]);
    assert_eq!(add("outer", &inbox, &["--pipeline", "p", "--exclude", "sub/**"]).code, 0);
    assert_eq!(add("inner", &place.at("link"), &["--pipeline", "p"]).code, 0, "filters keep them apart");
    place.put("a", "a");
    place.put("sub/b", "b");
    place.ok(&["run", "--once"]);
    let mut jobs: Vec<String> =
        place.jobs().iter().map(|job| format!("{} {}", text(job, "watch"), text(job, "relative"))).collect();
    jobs.sort();
    assert_eq!(jobs, ["inner b", "other b", "outer a"]);
}

#[test]
fn a_folder_that_may_not_be_listed_is_refused_beforehand_and_waited_for_by_the_daemon() {
    let place = with_watch("path = \"@PLACE@/locked\"\nsettle = \"0s\"");
    let locked = place.at("locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("a"), "a").unwrap();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    fs::set_permissions(place.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    if !place.program().arg("--version").uid(NOBODY).gid(NOBODY).output().is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: the program is where other users may not run it");
        return;
    }
    for entry in ["", "ingestd.toml", "inbox", "state", "home"] {
        if place.at(entry).exists() {
            std::os::unix::fs::chown(place.at(entry), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let as_nobody = |arguments: &[&str]| finish(place.configured(arguments).uid(NOBODY).gid(NOBODY));
    let checked = as_nobody(&["config", "check"]);
    assert_eq!(checked.code, 2, "{checked:?}");
    assert!(says(&checked.stderr, "can't be listed by this user, with the id 65534"), "{checked:?}");
    assert!(checked.stderr.contains("ingestd.toml"), "and where that stands: {checked:?}");

    let mut command = place.configured(&["run"]);
    command.uid(NOBODY).gid(NOBODY);
    let mut daemon = Daemon::spawn(&place, command);
    fs::set_permissions(daemon.address(), fs::Permissions::from_mode(0o777)).unwrap();
    daemon.ready();
    wait_until("a warning names it", || place.status()["warnings"].to_string().contains("locked"));
    let added = place.exits(2, &["watch", "add", "again", locked.to_str().unwrap(), "--exclude", "x"]);
    assert!(says(&added.stderr, "can't be listed"), "the daemon's rights count, not ours: {added:?}");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
    place.wait_count("completed", 1);
}
