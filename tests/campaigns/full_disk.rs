//! Full disk: small filesystems are filled before, during and after the work, under the database, under the target of
//! moves, under the backups, and their inodes are used up.
//!
//! 1. Each disk is a tmpfs of some MiB. Ballast takes its last byte, or leaves some KiB by the seed, while files arrive,
//!    run and are moved. The ledger is outside.
//! 2. While it is full, commands answer: `status` and `health` say what is wrong, `add` takes a file for good or refuses
//!    it, what runs comes to its end.
//! 3. When the ballast is gone, everything is processed by the same daemon; nobody does anything.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastrand::Rng;

use crate::oracle::Word;
use crate::scenario::Scenario;
use crate::seed::Seed;
use crate::support::{Daemon, long, text, wait_until};

/// A small filesystem, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None`, and says so, where nothing can be mounted.
    fn at(path: &Path, limits: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", limits, "tmpfs"]).arg(path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
            return Some(Self(path.to_owned()));
        }
        eprintln!("skipped: full_disk, because no filesystem can be mounted here");
        None
    }

    /// Fills it, but for so many bytes.
    fn fill(&self, but: usize) {
        let mut ballast = File::create(self.0.join("ballast")).unwrap();
        let _ = std::io::copy(&mut std::io::repeat(0xba).take(256 << 20), &mut ballast);
        let _ = ballast.flush();
        let size = ballast.metadata().unwrap().len();
        ballast.set_len(size.saturating_sub(u64::try_from(but).unwrap())).unwrap();
    }

    /// Uses up its inodes.
    fn use_up_inodes(&self) {
        let folder = self.0.join("ballast-of-inodes");
        // The folder itself may be one too many.
        let _ = fs::create_dir(&folder);
        let mut number = 0;
        while File::create(folder.join(number.to_string())).is_ok() {
            number += 1;
        }
    }

    fn make_room(&self) {
        let _ = fs::remove_file(self.0.join("ballast"));
        let _ = fs::remove_dir_all(self.0.join("ballast-of-inodes"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

const MORE: &str = "[maintenance]\nmin_free_space = \"0B\"\nbackup = { interval = \"0s\" }\n";

/// A scenario whose retries outlast an outage.
fn scenario() -> Scenario {
    let scenario = Scenario::new(MORE);
    let file = scenario.place.at("ingestd.toml");
    let patient = fs::read_to_string(&file).unwrap().replace("retry = {", "retry = { max_attempts = 1000,");
    fs::write(file, patient).unwrap();
    scenario
}

/// A few files, some by command; answers how many were refused.
fn come(scenario: &Scenario, name: &str, random: &mut Rng) -> usize {
    let mut refused = 0;
    for number in 0..random.usize(3..9) {
        if random.bool() {
            scenario.arrive(&format!("{name}/file-{number}"));
        } else {
            let path = scenario.place.at(format!("files/{name}-{number}"));
            scenario.oracle.put(&path, format!("{name} {number}"));
            let word = scenario.oracle.add(&scenario.place, &path, &[]);
            assert_ne!(word, Word::Unknown, "a full disk leaves nothing in doubt");
            refused += usize::from(word == Word::Failed);
        }
    }
    refused
}

/// Adds again what was refused: a person would.
fn add_again(scenario: &Scenario) -> usize {
    use crate::oracle::Record;
    let records = scenario.oracle.records();
    let taken = |path: &Path| records.iter().any(|record| matches!(record, Record::Told(Word::Ok(_), p) if p == path));
    let refused: Vec<&PathBuf> = records
        .iter()
        .filter_map(|record| match record {
            Record::Told(Word::Failed, path) if !taken(path) => Some(path),
            _ => None,
        })
        .collect();
    for path in &refused {
        assert!(
            matches!(scenario.oracle.add(&scenario.place, path, &[]), Word::Ok(_)),
            "{} is refused",
            path.display()
        );
    }
    refused.len()
}

#[test]
fn without_room_for_the_database_intake_pauses_and_goes_on_by_itself() {
    let seed = Seed::of("full_disk");
    let mut random = seed.random();
    let scenario = scenario();
    let Some(disk) = Disk::at(&scenario.place.at("state"), "size=6m") else { return };
    let (mut daemon, base) = scenario.at_work();
    // A log without any room of its own: what comes can't be taken.
    scenario.place.ok(&["db", "checkpoint"]);
    disk.fill(0);
    (0..3).for_each(|number| drop(scenario.arrive(&format!("surely-full/file-{number}"))));
    wait_until("the full disk is told", || is_told(&scenario));
    disk.make_room();
    scenario.wait_drained();
    let (rounds, mut refused, mut told) = (if long() { 60 } else { 4 }, 0, 1);
    for round in 0..rounds {
        refused += come(&scenario, &format!("before-{round}"), &mut random);
        let spare = *random.choice([0, 0, 1, 4, 16, 64].iter()).unwrap() << 10;
        disk.fill(spare);
        refused += come(&scenario, &format!("full-{round}"), &mut random);
        // A log that was larger before has room of its own, and then everything goes on.
        wait_until("the full disk is told, or does no harm", || {
            let is_told = is_told(&scenario);
            told += usize::from(is_told);
            is_told || scenario.is_idle()
        });
        assert!(!daemon.exited(), "{}", daemon.log());
        disk.make_room();
        refused += come(&scenario, &format!("after-{round}"), &mut random);
        wait_until("the full disk is over", || scenario.place.cli(&["health"]).code == 0);
        add_again(&scenario);
        scenario.wait_drained();
    }
    base.wait_back(&daemon, &scenario.place);
    let figures = scenario.end(&mut daemon);
    scenario.place.ok(&["db", "check"]);
    seed.report(format!(
        "{} times the database's disk, {told} of them told, {refused} refused and added again; {figures}",
        rounds + 1
    ));
}

/// Whether the daemon says that its disk is full, which its health says too then.
fn is_told(scenario: &Scenario) -> bool {
    let is_told = scenario.place.status()["warnings"].to_string().contains("no room is left for the database");
    assert!(!is_told || scenario.place.cli(&["health"]).code == 2);
    is_told
}

#[test]
fn without_inodes_everything_waits_and_goes_on_by_itself() {
    let seed = Seed::of("full_disk");
    let mut random = seed.random();
    let scenario = scenario();
    let Some(disk) = Disk::at(&scenario.place.at("state"), "size=16m,nr_inodes=400") else { return };
    let (mut daemon, base) = scenario.at_work();
    let rounds = if long() { 30 } else { 2 };
    for round in 0..rounds {
        come(&scenario, &format!("before-{round}"), &mut random);
        disk.use_up_inodes();
        come(&scenario, &format!("full-{round}"), &mut random);
        scenario.place.status();
        assert!(!daemon.exited(), "{}", daemon.log());
        disk.make_room();
        add_again(&scenario);
        scenario.wait_drained();
    }
    base.wait_back(&daemon, &scenario.place);
    let figures = scenario.end(&mut daemon);
    seed.report(format!("{rounds} times the inodes; {figures}"));
}

#[test]
fn a_full_target_of_moves_keeps_each_file_until_it_has_room() {
    let seed = Seed::of("full_disk");
    let mut random = seed.random();
    let scenario = scenario();
    // All that is ever moved there has room.
    let Some(disk) = Disk::at(&scenario.place.at("done"), "size=16m") else { return };
    let (mut daemon, _base) = scenario.at_work();
    let rounds = if long() { 30 } else { 2 };
    for round in 0..rounds {
        disk.fill(random.usize(0..40_000));
        for number in 0..6 {
            // One of them is too large whatever chance leaves.
            let size = if number == 0 { 60_000 } else { random.usize(1..60_000) };
            let content = vec![random.u8(..); size];
            scenario.oracle.put(&scenario.place.inbox().join(format!("large-{round}-{number}")), content);
        }
        wait_until("a move finds no room", || {
            scenario
                .place
                .jobs()
                .iter()
                .any(|job| text(job, "state") == "retrying" && text(&job["error"], "kind") == "disposition")
        });
        disk.make_room();
        scenario.wait_drained();
        assert!(!daemon.exited(), "{}", daemon.log());
    }
    let figures = scenario.end(&mut daemon);
    seed.report(format!("{rounds} times the target of moves; {figures}"));
}

#[test]
fn a_full_backup_folder_costs_the_backup_and_nothing_else() {
    let scenario = scenario();
    let copies = scenario.place.at("copies");
    let Some(disk) = Disk::at(&copies, "size=2m") else { return };
    let file = scenario.place.at("ingestd.toml");
    let configured = fs::read_to_string(&file).unwrap();
    let elsewhere = format!("interval = \"0s\", directory = \"{}\"", copies.display());
    fs::write(file, configured.replace("interval = \"0s\"", &elsewhere)).unwrap();
    let (mut daemon, _base) = scenario.at_work();
    scenario.place.ok(&["db", "backup"]);
    disk.fill(0);
    let refused = scenario.place.exits(1, &["db", "backup"]);
    assert!(refused.stderr.contains("room") && refused.stderr.contains(copies.to_str().unwrap()), "{refused:?}");
    let target = copies.join("mine.db");
    scenario.place.exits(1, &["db", "backup", target.to_str().unwrap()]);
    assert!(!target.exists());
    scenario.arrive("meanwhile");
    scenario.wait_drained();
    assert_eq!(scenario.place.ok(&["db", "backups", "--json"]).json_lines().len(), 1);
    let left: Vec<_> = fs::read_dir(&copies).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "the good backup and the ballast: {left:?}");
    disk.make_room();
    scenario.place.ok(&["db", "backup", target.to_str().unwrap()]);
    scenario.oracle.verdict(&scenario.place, 0);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_start_without_room_says_so_and_succeeds_when_there_is_some() {
    let seed = Seed::of("full_disk");
    for is_new in [true, false] {
        let scenario = scenario();
        let Some(disk) = Disk::at(&scenario.place.at("state"), "size=4m") else { return };
        if !is_new {
            let (mut daemon, _base) = scenario.at_work();
            scenario.arrive("before");
            daemon.kill();
            scenario.oracle.fault("killed");
        }
        disk.fill(0);
        scenario.arrive("meanwhile");
        let mut daemon = Daemon::spawn(&scenario.place, scenario.place.configured(&["run"]));
        wait_until("it says something", || daemon.exited() || daemon.said("READY=1") > 0);
        if daemon.said("READY=1") == 0 {
            assert_eq!(daemon.exit_code(), 1);
            let log = daemon.log();
            let last = log.lines().last().unwrap_or_default();
            assert!(last.contains("space") || last.contains("room"), "{log}");
            assert!(last.contains("ingestd.db"), "{log}");
            assert!(!log.contains("panicked"), "{log}");
            disk.make_room();
            // As its service manager would.
            daemon = Daemon::start(&scenario.place);
        } else {
            disk.make_room();
        }
        scenario.wait_drained();
        let figures = scenario.oracle.verdict(&scenario.place, 2);
        scenario.oracle.moved(&scenario.place.inbox(), &scenario.place.at("done"));
        assert_eq!(daemon.stop(), 0);
        seed.report(format!("a start on a full disk; {figures}"));
    }
}
