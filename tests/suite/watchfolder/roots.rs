//! The root: replaced by another folder, mounted over, unmounted, back again.

use std::fs;

use super::{configuration, quiet, taken, told_only, warnings};
use crate::support::*;

const DELETES: &str = "events = [\"add\", \"modify\", \"delete\"]\npoll_interval = \"200ms\"";

fn deletes(place: &Place) -> usize {
    place.jobs().iter().filter(|job| job["op"] == "delete").count()
}

#[test]
fn a_filesystem_that_is_unmounted_and_mounted_again_deletes_nothing_and_is_watched_again() {
    if !Confined::is_possible() || !has_tools(&["nsenter"]) {
        return;
    }
    let place = told_only(DELETES);
    // Kept aside, so that it is the same filesystem when it comes back.
    let (aside, inbox) = (place.at("aside"), place.inbox());
    fs::create_dir(&aside).unwrap();
    let mount = format!("mount --bind {}/data {}", aside.display(), inbox.display());
    let first = format!("mount -t tmpfs tmpfs {0}\nmkdir {0}/data\n{mount}", aside.display());
    let confined = Confined::start(&place, Limits::default(), &first);
    let seen = confined.seen(&inbox);
    for number in 0..30 {
        fs::write(seen.join(format!("file-{number}")), "x").unwrap();
    }
    place.wait_count("completed", 30);

    confined.inside(&format!("umount {}", inbox.display()));
    wait_until("a warning names the watch", || warnings(&place).contains("inbox"));
    // An empty mount point, scanned: the files are out of sight.
    let _ = place.cli(&["watch", "scan", "inbox"]);
    assert_eq!((deletes(&place), place.jobs().len()), (0, 30), "{}", confined.daemon.log());

    confined.inside(&mount);
    wait_until("the warning is gone", || !warnings(&place).contains("inbox"));
    fs::write(seen.join("after"), "x").unwrap();
    place.wait_count("completed", 31);
    quiet(&place);
    assert_eq!((deletes(&place), place.jobs().len()), (0, 31), "{}", confined.daemon.log());
    // It is watched, and deletions are seen again.
    fs::remove_file(seen.join("file-3")).unwrap();
    wait_until("the deletion is a job", || deletes(&place) == 1);
}

#[test]
fn what_arrives_on_a_filesystem_that_was_mounted_over_a_subfolder_is_taken_and_also_when_it_is_gone() {
    if !Confined::is_possible() || !has_tools(&["nsenter"]) {
        return;
    }
    let place = told_only(DELETES);
    let folder = place.inbox().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("below"), "x").unwrap();
    let confined = Confined::start(&place, Limits::default(), "");
    place.wait_count("completed", 1);

    confined.inside(&format!("mount -t tmpfs tmpfs {0} && echo x > {0}/there", folder.display()));
    place.wait_count("completed", 2);
    // The scan that found it is over: from now on only events tell.
    quiet(&place);
    fs::write(confined.seen(&folder).join("late"), "x").unwrap();
    place.wait_count("completed", 3);

    confined.inside(&format!("umount {}", folder.display()));
    quiet(&place);
    fs::write(folder.join("later"), "x").unwrap();
    wait_until("what arrives below is taken", || place.newest_of("later").is_some());
}

#[test]
fn a_root_that_is_unmounted_while_the_daemon_is_down_deletes_nothing() {
    if !Confined::is_possible() || !has_tools(&["nsenter"]) {
        return;
    }
    let place = told_only(DELETES);
    let first = format!("mount -t tmpfs tmpfs {}", place.inbox().display());
    let mut confined = Confined::start(&place, Limits::default(), &first);
    let seen = confined.seen(&place.inbox());
    for number in 0..30 {
        fs::write(seen.join(format!("file-{number}")), "x").unwrap();
    }
    place.wait_count("completed", 30);
    assert_eq!(confined.daemon.stop(), 0);
    // Nobody mounts it this time.
    let confined = Confined::start(&place, Limits::default(), "");
    wait_until("a warning names the watch", || warnings(&place).contains("inbox"));
    let _ = place.cli(&["watch", "scan", "inbox"]);
    assert_eq!((deletes(&place), place.jobs().len()), (0, 30), "{}", confined.daemon.log());
}

#[test]
fn another_folder_in_its_place_is_watched_and_what_it_holds_is_taken() {
    let place = told_only("poll_interval = \"200ms\"");
    let daemon = Daemon::start(&place);
    place.put("same", "same");
    place.put("old", "old");
    place.wait_count("completed", 2);
    let other = place.at("other");
    fs::create_dir_all(other.join("folder")).unwrap();
    fs::write(other.join("new"), "new").unwrap();
    fs::write(other.join("same"), "same").unwrap();
    fs::rename(place.inbox(), place.at("away")).unwrap();
    fs::rename(&other, place.inbox()).unwrap();
    wait_until("what it holds is taken", || place.newest_of("new").is_some());
    fs::write(place.inbox().join("folder/later"), "later").unwrap();
    wait_until("it is watched", || place.newest_of("folder/later").is_some());
    // The old folder sends nothing any more.
    fs::write(place.at("away/elsewhere"), "x").unwrap();
    quiet(&place);
    assert_eq!(taken(&place), ["folder/later", "new", "old", "same"], "{}", daemon.log());
}

#[test]
fn a_root_that_is_made_anew_again_and_again_is_watched_each_time() {
    let place = told_only("poll_interval = \"100ms\"");
    let _daemon = Daemon::start(&place);
    for turn in 0..5 {
        fs::remove_dir_all(place.inbox()).unwrap();
        fs::create_dir(place.inbox()).unwrap();
        let name = format!("file-{turn}");
        place.put(&name, "x");
        wait_until(&format!("{name} is taken"), || place.newest_of(&name).is_some());
    }
}

#[test]
fn a_root_below_a_folder_that_is_renamed_is_missed_and_found_again() {
    let place = Place::with(
        &configuration("poll_interval = \"100ms\"\nrescan_interval = \"1s\"")
            .replace("@PLACE@/inbox", "@PLACE@/above/inbox"),
    );
    let inbox = place.at("above/inbox");
    fs::create_dir_all(&inbox).unwrap();
    let _daemon = Daemon::start(&place);
    fs::write(inbox.join("one"), "x").unwrap();
    place.wait_count("completed", 1);
    fs::rename(place.at("above"), place.at("elsewhere")).unwrap();
    wait_until("a warning names the watch", || warnings(&place).contains("inbox"));
    fs::rename(place.at("elsewhere"), place.at("above")).unwrap();
    fs::write(inbox.join("two"), "x").unwrap();
    place.wait_count("completed", 2);
}

#[test]
fn a_job_that_starts_while_its_root_is_an_empty_folder_is_processed_when_the_root_is_back() {
    let place = told_only("poll_interval = \"100ms\"");
    place.put("file", "x");
    place.ok(&["db", "migrate"]);
    place.ok(&["pause", "p"]);
    let _daemon = Daemon::start(&place);
    place.wait_count("pending", 1);
    fs::rename(place.inbox(), place.at("away")).unwrap();
    fs::create_dir(place.inbox()).unwrap();
    place.ok(&["resume", "p"]);
    wait_until("its turn is over", || place.in_state("pending") + place.in_state("running") == 0);
    fs::remove_dir(place.inbox()).unwrap();
    fs::rename(place.at("away"), place.inbox()).unwrap();
    place.wait_count("completed", 1);
}
