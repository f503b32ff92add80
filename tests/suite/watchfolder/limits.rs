//! The kernel's limits on watches, in a namespace of the daemon's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{configuration, last_scan, told_only, warnings};
use crate::support::*;

/// Folders in the inbox, each with a file.
fn folders(place: &Place, number: usize) {
    for folder in 0..number {
        let folder = place.inbox().join(format!("folder-{folder}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("first"), "x").unwrap();
    }
}

fn one_more_in_each(place: &Place, number: usize, name: &str) {
    for folder in 0..number {
        fs::write(place.inbox().join(format!("folder-{folder}")).join(name), "x").unwrap();
    }
}

#[test]
fn where_watches_run_out_at_the_start_the_sysctl_is_named_and_every_file_is_still_found() {
    if !Confined::is_possible() {
        return;
    }
    let place = told_only("poll_interval = \"300ms\"");
    folders(&place, 30);
    let confined = Confined::start(&place, Limits { watches: Some(12), ..Limits::default() }, "");
    place.wait_count("completed", 30);
    wait_until("the sysctl is named", || warnings(&place).contains("fs.inotify.max_user_watches"));
    assert_eq!(place.cli(&["health"]).code, 1);
    let said = || confined.daemon.log().lines().filter(|line| line.contains("max_user_watches")).count();
    let at_first = said();
    one_more_in_each(&place, 30, "second");
    place.wait_count("completed", 60);
    for round in 1..4 {
        one_more_in_each(&place, 30, &format!("more-{round}"));
        place.wait_count("completed", 60 + 30 * round);
    }
    assert_eq!(said(), at_first, "said again at a scan\n{}", confined.daemon.log());
}

#[test]
fn where_watches_run_out_later_new_folders_are_found_by_polling() {
    if !Confined::is_possible() {
        return;
    }
    let place = told_only("poll_interval = \"300ms\"");
    folders(&place, 5);
    let confined = Confined::start(&place, Limits { watches: Some(12), ..Limits::default() }, "");
    place.wait_count("completed", 5);
    assert!(!warnings(&place).contains("max_user_watches"), "{}", confined.daemon.log());
    for folder in 5..30 {
        let folder = place.inbox().join(format!("folder-{folder}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("first"), "x").unwrap();
    }
    place.wait_count("completed", 30);
    wait_until("the sysctl is named", || warnings(&place).contains("fs.inotify.max_user_watches"));
    one_more_in_each(&place, 30, "second");
    place.wait_count("completed", 60);
    // Deep below folders that are not watched.
    fs::create_dir_all(place.inbox().join("folder-29/a/b/c")).unwrap();
    fs::write(place.inbox().join("folder-29/a/b/c/deep"), "x").unwrap();
    place.wait_count("completed", 61);
}

#[test]
fn where_no_instance_is_left_the_sysctl_is_named_and_the_folder_is_polled() {
    if !Confined::is_possible() {
        return;
    }
    let place = told_only("poll_interval = \"300ms\"");
    folders(&place, 3);
    let _confined = Confined::start(&place, Limits { instances: Some(0), ..Limits::default() }, "");
    place.wait_count("completed", 3);
    wait_until("the sysctl is named", || warnings(&place).contains("fs.inotify.max_user_instances"));
    one_more_in_each(&place, 3, "second");
    place.wait_count("completed", 6);
}

#[test]
fn limits_of_a_namespace_are_nobody_elses() {
    if !Confined::is_possible() {
        return;
    }
    let read = || {
        [
            "user/max_inotify_watches",
            "user/max_inotify_instances",
            "fs/inotify/max_user_watches",
            "fs/inotify/max_queued_events",
        ]
        .map(|name| fs::read_to_string(format!("/proc/sys/{name}")).unwrap())
    };
    let before = read();
    let place = Place::with(&configuration(""));
    let confined = Confined::start(&place, Limits { watches: Some(7), instances: Some(3) }, "");
    confined.inside("test $(cat /proc/sys/user/max_inotify_watches) = 7");
    assert_eq!(read(), before);
}

#[test]
fn a_folder_that_can_not_be_read_costs_only_itself_and_is_told_once() {
    let place = Place::with(&configuration("rescan_interval = \"1s\""));
    folders(&place, 3);
    if !nobody_can_run(&place) {
        return;
    }
    let daemon = daemon_as_nobody(&place);
    let locked = place.inbox().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("file"), "x").unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    place.wait_count("completed", 3);
    // Several scans meet it.
    for _ in 0..2 {
        let before = last_scan(&place);
        wait_until("another scan went through", || last_scan(&place) != before);
    }
    let about = |log: &str| log.lines().filter(|line| line.contains("locked")).count();
    assert_eq!(about(&daemon.log()), 1, "{}", daemon.log());
    one_more_in_each(&place, 3, "second");
    wait_until("the others are watched", || place.in_state("completed") >= 6);
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
    wait_until("what is in it is found", || place.newest_of("locked/file").is_some());
}
