//! A machine whose power goes again and again, and what is asked of it in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::oracle::{Figures, Oracle, Record, Word, contents};
use crate::seed::Seed;
use crate::support::{Daemon, Place, count, sha256_of, text, wait_until};

use super::outlet::Outlet;

/// Executions that may be at work or not settled when the power goes.
const CONCURRENCY: usize = 2;
/// The power goes within so many changes and syncs: some thirty files.
const LONGEST_LIFE: u64 = 1500;

/// What a file is called while it is put down.
const HALF: &str = ".put.part";

/// What a machine is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `on_success` of its watch.
    pub success: &'static str,
    /// `durability` of its database.
    pub durability: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self { success: "\"keep\"", durability: "full" }
    }
}

/// A machine with two disks, `disk` (state, inbox and most else) and `other`.
pub struct Machine {
    place: Place,
    oracle: Oracle,
    outlet: Outlet,
    random: fastrand::Rng,
    cuts: usize,
    files: usize,
    /// Files whose `add` was not acknowledged yet: a person adds them again.
    asked: BTreeSet<PathBuf>,
    /// Files that may have arrived: the power went while they were put down.
    unsure: BTreeMap<PathBuf, String>,
    /// Jobs that were shown as completed.
    shown: BTreeSet<i64>,
    /// Backups whose command succeeded.
    backups: BTreeSet<PathBuf>,
}

impl Machine {
    /// A machine that was never on. Its disks have the folder that is watched, and nothing else.
    pub fn new(seed: &Seed, options: Options) -> Self {
        let place = Place::new();
        let oracle = Oracle::new(&place.at(""), "");
        let Options { success, durability } = options;
        place.configure(&format!(
            "[database]\ndurability = \"{durability}\"\n[pipeline.record]\nkind = \"exec\"\ncommand = {}\n\
             concurrency = {CONCURRENCY}\nretry = {{ base = \"20ms\", max = \"200ms\" }}\n\
             [watch.inbox]\npath = \"@PLACE@/disk/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
             mode = \"native\"\non_success = {success}\n",
            oracle.command
        ));
        let file = place.at("ingestd.toml");
        let configuration = fs::read_to_string(&file).unwrap();
        fs::write(&file, configuration.replace(&place.url(), &format!("sqlite://{}", database(&place).display())))
            .unwrap();
        let mut random = seed.random();
        let mut outlet = Outlet::new(2, random.fork());
        outlet.on(&mounts(&place), None);
        for folder in ["disk/inbox", "disk/files"] {
            fs::create_dir(place.at(folder)).unwrap();
        }
        outlet.shut_down();
        Self {
            place,
            oracle,
            outlet,
            random,
            cuts: 0,
            files: 0,
            asked: BTreeSet::new(),
            unsure: BTreeMap::new(),
            shown: BTreeSet::new(),
            backups: BTreeSet::new(),
        }
    }

    /// Power on, a daemon, work; then the power goes at a drawn moment.
    pub fn live_until_the_power_goes(&mut self) {
        // Evenly over the orders of magnitude: the start has its share.
        let exponent = self.random.f64() * (LONGEST_LIFE as f64).ln();
        let last = exponent.exp().ceil() as u64;
        self.outlet.on(&mounts(&self.place), Some(last));
        self.find_unsure();
        self.find_gone();
        let mut daemon = Daemon::spawn(&self.place, self.place.configured(&["run"]));
        wait_until("the daemon is ready, or the power has gone", || {
            let is_on = self.outlet.is_on();
            assert!(
                !is_on || !daemon.exited() || !self.outlet.is_on(),
                "the daemon ended by itself:\n{}",
                daemon.log()
            );
            !is_on || daemon.said("READY=1") > 0
        });
        self.look_after_start();
        while self.outlet.is_on() {
            self.work();
        }
        daemon.kill();
        self.outlet.cut();
        self.cuts += 1;
        self.oracle.fault(&format!("the power went at operation {last}"));
    }

    /// Power on for good: the queue drains, and the oracle judges.
    pub fn recover(&mut self) -> Figures {
        self.outlet.on(&mounts(&self.place), None);
        self.find_unsure();
        self.find_gone();
        let mut daemon = Daemon::start(&self.place);
        self.look_after_start();
        for path in std::mem::take(&mut self.asked) {
            assert!(matches!(self.oracle.add(&self.place, &path, &[]), Word::Ok(_)), "{}", path.display());
        }
        self.wait_drained();
        let figures = self.oracle.verdict(&self.place, CONCURRENCY * self.cuts);
        assert_eq!(daemon.stop(), 0);
        self.place.ok(&["db", "check"]);
        self.check_backups();
        figures
    }

    /// Every file that was put into the inbox is in this folder, once and whole.
    pub fn has_moved_all_to(&self, target: &str) {
        self.oracle.moved(&self.place.at("disk/inbox"), &self.place.at(target));
    }

    /// One deed of people who use the machine; any of them may be the last one.
    fn work(&mut self) {
        match self.random.u8(..16) {
            0..6 => {
                let (path, content) = self.next_file("disk/inbox");
                if self.put(&path, &content).is_err() {
                    self.unsure.insert(path, content);
                }
            }
            6..12 => {
                let (path, content) = self.next_file("disk/files");
                if self.put(&path, &content).is_ok() {
                    self.asked.insert(path);
                    let asked: Vec<PathBuf> = self.asked.iter().cloned().collect();
                    for path in asked {
                        if let Word::Ok(_) = self.oracle.add(&self.place, &path, &[]) {
                            self.asked.remove(&path);
                        }
                    }
                }
            }
            12..15 => self.shown.extend(self.completed()),
            _ => {
                let file = self.place.at(format!("disk/backup-{}.db", self.backups.len()));
                if self.place.cli(&["db", "backup", file.to_str().unwrap()]).code == 0 {
                    self.backups.insert(file);
                }
            }
        }
    }

    /// A name that no file had, and content that no other one has, over several pages.
    fn next_file(&mut self, folder: &str) -> (PathBuf, String) {
        self.files += 1;
        let name = format!("file-{}", self.files);
        let folder = self.place.at(folder).join(["", "a", "a/b"][self.random.usize(..3)]);
        let content = format!("{name}\n").repeat(self.random.usize(1..2000));
        (folder.join(name), content)
    }

    /// Puts a file down for good, or fails.
    fn put(&self, path: &Path, content: &str) -> io::Result<()> {
        let folder = path.parent().unwrap();
        let top = self.place.at("disk");
        fs::create_dir_all(folder)?;
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(&top)) {
            File::open(above)?.sync_all()?;
        }
        let hidden = folder.join(HALF);
        let mut file = File::create(&hidden)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&hidden, path)?;
        File::open(folder)?.sync_all()?;
        self.oracle.has_put(path, content);
        Ok(())
    }

    /// What had arrived when the power went, though nobody could know, is as good as any other file. It may have been
    /// moved by then.
    fn find_unsure(&mut self) {
        let mut there = BTreeSet::new();
        let folders = ["disk/inbox", "disk/done", "other/done"].map(|folder| self.place.at(folder));
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            for (name, sha256) in contents(folder) {
                if name.ends_with(HALF) {
                    fs::remove_file(folder.join(name)).unwrap();
                } else {
                    there.insert(sha256);
                }
            }
        }
        for (path, content) in std::mem::take(&mut self.unsure) {
            if there.contains(&sha256_of(content.as_bytes())) {
                self.oracle.has_put(&path, content);
            }
        }
    }

    /// What is gone from where it was put was processed.
    fn find_gone(&self) {
        let records = self.oracle.records();
        let done: BTreeSet<&Path> = records
            .iter()
            .filter_map(|record| if let Record::End(execution) = record { Some(&*execution.path) } else { None })
            .collect();
        for record in &records {
            if let Record::Put(_, path) = record {
                assert!(path.exists() || done.contains(&**path), "{} is gone and was never processed", path.display());
            }
        }
    }

    /// What was acknowledged is there, and what was shown as completed still is.
    fn look_after_start(&self) {
        let output = self.place.cli(&["list", "--json", "--limit", "1000000"]);
        if !self.outlet.is_on() {
            return;
        }
        assert_eq!(output.code, 0, "{output:?}");
        let jobs: BTreeMap<i64, serde_json::Value> =
            output.json_lines().into_iter().map(|job| (count(&job, "id"), job)).collect();
        for record in self.oracle.records() {
            if let Record::Told(Word::Ok(id), path) = record {
                let there = jobs.get(&id).is_some_and(|job| Path::new(text(job, "path")) == path);
                assert!(there, "job {id} of {} was acknowledged and is lost", path.display());
            }
        }
        for id in &self.shown {
            let state = jobs.get(id).map_or("", |job| text(job, "state"));
            assert_eq!(state, "completed", "job {id} was shown as completed");
        }
    }

    fn completed(&self) -> Vec<i64> {
        let output = self.place.cli(&["list", "--state", "completed", "--json", "--limit", "1000000"]);
        if output.code == 0 { output.json_lines().iter().map(|job| count(job, "id")).collect() } else { Vec::new() }
    }

    fn wait_drained(&self) {
        wait_until("the queue has drained", || {
            let jobs = self.place.jobs();
            let known: BTreeSet<&Path> = jobs.iter().map(|job| Path::new(text(job, "path"))).collect();
            let inbox = self.place.at("disk/inbox");
            contents(&inbox).keys().all(|name| known.contains(&*inbox.join(name)))
                && jobs.iter().all(|job| !["pending", "running", "retrying"].contains(&text(job, "state")))
        });
    }

    /// Each backup that was acknowledged is there, and each that has its name is sound.
    fn check_backups(&self) {
        let there = fs::read_dir(self.place.at("disk")).unwrap().map(|entry| entry.unwrap().path());
        let there: BTreeSet<PathBuf> = there.filter(|path| path.extension().is_some_and(|kind| kind == "db")).collect();
        assert!(there.is_superset(&self.backups), "{:?} were made, {there:?} are there", self.backups);
        for backup in there {
            self.place.ok(&["db", "check", "--database", &format!("sqlite://{}", backup.display())]);
        }
    }
}

fn mounts(place: &Place) -> [PathBuf; 2] {
    [place.at("disk"), place.at("other")]
}

fn database(place: &Place) -> PathBuf {
    place.at("disk/state/ingestd.db")
}
