//! Events that are lost, that come too late, or that we cause ourselves.

use std::fs;

use rustix::process::Signal;

use super::{last_scan, quiet, taken, told_only, watch};
use crate::support::*;

/// Makes more events than the kernel keeps for one watcher, about files that are excluded.
fn flood(place: &Place) {
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let (one, two) = (place.inbox().join(".one"), place.inbox().join(".two"));
    // Created, closed and removed, by turns: events that differ from the one before are not merged.
    for _ in 0..most / 4 {
        fs::write(&one, "").unwrap();
        fs::write(&two, "").unwrap();
        fs::remove_file(&one).unwrap();
        fs::remove_file(&two).unwrap();
    }
}

#[test]
fn an_overflow_of_the_kernels_queue_leads_to_a_scan_at_once_and_not_to_one_for_each_loss() {
    let place = told_only("");
    fs::create_dir(place.inbox().join("folder")).unwrap();
    let daemon = Daemon::start(&place);
    let before = last_scan(&place);
    let mut walks = Opens::of(&place.inbox().join("folder"));
    daemon.signal(Signal::STOP);
    flood(&place);
    for name in ["after", "folder/below"] {
        fs::write(place.inbox().join(name), name).unwrap();
    }
    daemon.signal(Signal::CONT);
    place.wait_count("completed", 2);
    wait_until("the scan is over", || last_scan(&place) != before);
    // What came after the flood is told again, and no scan is needed for it.
    place.put("later", "later");
    place.wait_count("completed", 3);
    // Each walk opens the folder once. What is lost while a scan is under way already needs another one, on a machine
    // that is too busy to take the whole flood in before it; thousands of lost events need no more.
    let walks = walks.count();
    assert!((1..=2).contains(&walks), "{walks} walks\n{}", daemon.log());
    assert_eq!(taken(&place), ["after", "folder/below", "later"]);
}

#[test]
fn our_own_reads_are_no_events() {
    let place = told_only("");
    fs::create_dir(place.inbox().join("folder")).unwrap();
    let _daemon = Daemon::start(&place);
    let name = place.inbox().join("folder/file");
    fs::write(&name, "one").unwrap();
    place.wait_count("completed", 1);
    fs::write(&name, "two").unwrap();
    place.wait_count("completed", 2);
    let told = || place.ok(&["status", "--json"]).json()["watches"]["inbox"]["last_event_at"].clone();
    // The last event of a write may come after the job.
    quiet(&place);
    let before = told();
    // A scan that reads every content again.
    place.ok(&["watch", "scan", "inbox", "--force"]);
    quiet(&place);
    assert_eq!(told(), before);
}

#[test]
fn folders_that_are_filled_as_they_are_made_lose_no_file() {
    let place = told_only("");
    let _daemon = Daemon::start(&place);
    let mut names = Vec::new();
    for turn in 0..60 {
        let mut folder = format!("{turn}");
        for depth in 0..4 {
            fs::create_dir(place.inbox().join(&folder)).unwrap();
            let name = format!("{folder}/file");
            fs::write(place.inbox().join(&name), "x").unwrap();
            names.push(name);
            folder = format!("{folder}/{depth}");
        }
    }
    place.wait_count("completed", names.len());
    names.sort();
    assert_eq!(taken(&place), names);
}

#[test]
fn a_folder_that_is_moved_in_whole_is_taken_and_then_watched_at_every_depth() {
    let place = told_only("");
    let _daemon = Daemon::start(&place);
    last_scan(&place);
    for number in 0..40 {
        let folder = place.at(format!("outside/{}/{number}", number % 7));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "x").unwrap();
    }
    fs::rename(place.at("outside"), place.inbox().join("inside")).unwrap();
    place.wait_count("completed", 40);
    for number in 0..40 {
        fs::write(place.inbox().join(format!("inside/{}/{number}/later", number % 7)), "x").unwrap();
    }
    place.wait_count("completed", 80);
    // And a folder that left sends nothing any more.
    fs::rename(place.inbox().join("inside/3"), place.at("left")).unwrap();
    fs::write(place.at("left/3/elsewhere"), "x").unwrap();
    quiet(&place);
    assert_eq!(place.jobs().len(), 80, "{:?}", taken(&place));
}

#[test]
fn a_scan_of_unchanged_files_opens_none_of_them() {
    let place = told_only("");
    let files: Vec<_> = (0..20).map(|number| place.put(&format!("file-{number}"), "content")).collect();
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 20);
    quiet(&place);
    let mut opens: Vec<Opens> = files.iter().map(|file| Opens::of(file)).collect();
    for _ in 0..3 {
        quiet(&place);
    }
    assert_eq!(opens.iter_mut().map(Opens::count).sum::<usize>(), 0);
    assert_eq!(watch(&place)["settling"], 0);
}
