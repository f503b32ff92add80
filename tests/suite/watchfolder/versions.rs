//! What is a new version, and what only looks like one.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{quiet, taken, told_only};
use crate::support::*;

#[test]
fn metadata_that_changes_is_no_version() {
    for mode in ["native", "poll"] {
        let place = told_only(&format!("mode = \"{mode}\"\npoll_interval = \"200ms\""));
        let path = place.put("file", "content");
        let _daemon = Daemon::start(&place);
        place.wait_count("completed", 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        quiet(&place);
        let set = |times| File::options().append(true).open(&path).unwrap().set_times(times).unwrap();
        set(fs::FileTimes::new().set_modified(SystemTime::now()));
        quiet(&place);
        set(fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH));
        quiet(&place);
        // A name more for the same content changes its ctime.
        fs::hard_link(&path, place.at("another-name")).unwrap();
        fs::remove_file(place.at("another-name")).unwrap();
        quiet(&place);
        assert_eq!(taken(&place), ["file"], "{mode}");
    }
}

#[test]
fn other_content_of_the_same_size_and_time_is_a_version() {
    for mode in ["native", "poll"] {
        let place = told_only(&format!("mode = \"{mode}\"\npoll_interval = \"200ms\""));
        let path = place.put("file", "content one");
        let _daemon = Daemon::start(&place);
        place.wait_count("completed", 1);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let same_time = |path: &Path| {
            File::options().append(true).open(path).unwrap().set_modified(modified).unwrap();
        };
        // In place.
        fs::write(&path, "content two").unwrap();
        same_time(&path);
        place.wait_count("completed", 2);
        // By another file.
        let other = place.at("other");
        fs::write(&other, "content 333").unwrap();
        same_time(&other);
        fs::rename(&other, &path).unwrap();
        place.wait_count("completed", 3);
        let newest = place.newest_of("file").unwrap();
        assert_eq!((count(&newest, "version"), text(&newest, "digest")), (3, blake3_of(&path).as_str()), "{mode}");
    }
}

#[test]
fn each_name_of_a_hard_link_is_a_source_and_all_see_the_new_content() {
    let place = told_only("");
    let one = place.put("one", "first");
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    let two = place.inbox().join("two");
    fs::hard_link(&one, &two).unwrap();
    place.wait_count("completed", 2);
    assert_eq!(taken(&place), ["one", "two"]);
    // The kernel tells of the name that was written through; a scan finds the other.
    fs::write(&one, "second").unwrap();
    place.wait_count("completed", 3);
    quiet(&place);
    assert_eq!(taken(&place), ["one", "one", "two", "two"]);
    for name in ["one", "two"] {
        assert_eq!(text(&place.newest_of(name).unwrap(), "digest"), blake3_of(&one), "{name}");
    }
}

#[test]
fn a_new_file_with_the_inode_of_an_old_one_is_a_new_file() {
    let place = told_only("");
    let old = place.put("old", "old content");
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    let (inode, modified) = (fs::metadata(&old).unwrap().ino(), fs::metadata(&old).unwrap().modified().unwrap());
    fs::remove_file(&old).unwrap();
    // Files are made until one has the inode that is free again; with the old size and time.
    let reused = (0..2_000).find_map(|number| {
        let path = place.at(format!("new-{number}"));
        fs::write(&path, "new content").unwrap();
        (fs::metadata(&path).unwrap().ino() == inode).then_some(path)
    });
    let Some(reused) = reused else {
        eprintln!("skipped: this filesystem does not use an inode again");
        return;
    };
    File::options().append(true).open(&reused).unwrap().set_modified(modified).unwrap();
    fs::rename(&reused, &old).unwrap();
    wait_until("the new content is processed", || {
        let newest = place.newest_of("old").unwrap();
        text(&newest, "state") == "completed" && text(&newest, "digest") == blake3_of(&old)
    });
    quiet(&place);
    assert_eq!(place.jobs().len(), 2, "{:?}", place.jobs());
}

#[test]
fn a_file_of_another_century_is_taken_like_any_other() {
    let place = Place::with(&super::configuration("").replace("\"0s\"", "\"400ms\""));
    let _daemon = Daemon::start(&place);
    for (name, modified) in [
        ("future", SystemTime::now() + Duration::from_hours(24 * 365 * 50)),
        ("epoch", SystemTime::UNIX_EPOCH),
        ("before", SystemTime::UNIX_EPOCH - Duration::from_hours(24 * 365)),
    ] {
        let path = place.at(name);
        fs::write(&path, name).unwrap();
        File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        fs::rename(&path, place.inbox().join(name)).unwrap();
    }
    place.wait_count("completed", 3);
    quiet(&place);
    assert_eq!(taken(&place), ["before", "epoch", "future"]);
}
