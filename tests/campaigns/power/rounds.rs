//! A machine whose power goes again and again, and what is asked of it in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::oracle::{Figures, Oracle, Record, Word, contents};
use crate::support::{Daemon, Place, count, sha256_of, text, wait_until};

use super::outlet::Outlet;

/// Executions that may be at work or not settled when the power goes.
const CONCURRENCY: usize = 2;
/// The power goes within so many changes and syncs: some thirty files.
const LONGEST_LIFE: u64 = 1500;
/// About so many of them make a database.
const MAKING: u64 = 100;

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
    /// Files whose writers synced their names and not their contents. After a cut they may be torn, and are processed
    /// as they are; but what was processed and moved is whole.
    careless: BTreeSet<PathBuf>,
    /// Jobs that were shown as completed.
    shown: BTreeSet<i64>,
    /// Backups whose command succeeded.
    backups: BTreeSet<PathBuf>,
    /// Every content that there ever was, by its digest: whatever else a processor is given is torn.
    contents: BTreeSet<String>,
    /// Contents of lists, and whether the command that took their list has succeeded.
    lists: Vec<(BTreeSet<String>, bool)>,
    operations: u64,
}

impl Machine {
    /// A machine that was never on. Its disks have the folder that is watched, and nothing else.
    pub fn new(mut random: fastrand::Rng, options: Options) -> Self {
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
        let mut outlet = Outlet::new(2, random.fork());
        outlet.on(&mounts(&place), None);
        for folder in ["disk/inbox", "disk/files", "disk/backups"] {
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
            careless: BTreeSet::new(),
            shown: BTreeSet::new(),
            backups: BTreeSet::new(),
            contents: BTreeSet::new(),
            lists: Vec::new(),
            operations: 0,
        }
    }

    /// Power on, a daemon, work; then the power goes at a drawn moment. `Err` says what the cut before it has cost.
    pub fn live(&mut self, mut work: impl FnMut(&mut Self)) -> Result<(), String> {
        let last = self.draw_moment();
        self.outlet.on(&mounts(&self.place), Some(last));
        self.find_unsure();
        self.find_gone()?;
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
        self.look_after_start()?;
        while self.outlet.is_on() {
            work(self);
        }
        daemon.kill();
        self.outlet.cut();
        (self.cuts, self.operations) = (self.cuts + 1, self.operations + self.outlet.operations());
        self.oracle.fault(&format!("the power went at operation {last}"));
        Ok(())
    }

    /// Every second time evenly over a life, else evenly over its orders of magnitude: the start has its share. The first
    /// life is about the making of the database.
    fn draw_moment(&mut self) -> u64 {
        if self.cuts == 0 {
            return self.random.u64(1..=MAKING);
        }
        if self.random.bool() {
            return self.random.u64(1..=LONGEST_LIFE);
        }
        let magnitude = self.random.u32(1..=LONGEST_LIFE.ilog2());
        self.random.u64(1..=1 << magnitude)
    }

    /// Power on for good: the queue drains, and the oracle judges.
    ///
    /// # Panics
    ///
    /// If the promise was broken; says where.
    pub fn recover(&mut self) -> String {
        self.outlet.on(&mounts(&self.place), None);
        self.find_unsure();
        self.find_gone().unwrap();
        let mut daemon = Daemon::start(&self.place);
        self.look_after_start().unwrap();
        for path in std::mem::take(&mut self.asked) {
            assert!(matches!(self.oracle.add(&self.place, &path, &[]), Word::Ok(_)), "{}", path.display());
        }
        if self.lists.last().is_some_and(|(_, taken)| !taken) {
            assert!(self.sync_list(), "with the power on, a list is taken");
        }
        self.wait_drained();
        self.check_careless();
        let figures: Figures = self.oracle.verdict(&self.place, CONCURRENCY * self.cuts);
        self.check_contents();
        self.check_base();
        assert_eq!(daemon.stop(), 0);
        self.place.ok(&["db", "check"]);
        self.check_backups();
        format!("{} cuts among {} changes and syncs, {figures}", self.cuts, self.operations)
    }

    /// Every file that was put into the inbox is in this folder, once and whole.
    pub fn has_moved_all_to(&self, target: &str) {
        self.oracle.moved(&self.place.at("disk/inbox"), &self.place.at(target));
    }

    /// Hands over a list whose lines bring their contents along, the same again until it is taken; then the next.
    pub fn work_on_lists(&mut self) {
        if self.lists.last().is_none_or(|(_, taken)| *taken) {
            self.new_list();
        }
        self.sync_list();
    }

    fn new_list(&mut self) {
        let (mut lines, mut digests) = (Vec::new(), BTreeSet::new());
        for line in 0..self.random.usize(1..60) {
            let content = format!("list {} line {line}\n", self.lists.len()).repeat(self.random.usize(1..500));
            digests.insert(sha256_of(content.as_bytes()));
            let path = format!("list-{}/line-{line}", self.lists.len());
            lines.push(serde_json::json!({ "path": path, "content": content }).to_string());
        }
        fs::write(self.place.at("list"), lines.join("\n")).unwrap();
        self.contents.extend(digests.iter().cloned());
        self.lists.push((digests, false));
    }

    /// Whether the newest list was taken to its end.
    fn sync_list(&mut self) -> bool {
        let output = self.place.cli(&["sync", self.place.at("list").to_str().unwrap(), "--batch", "20"]);
        let taken = output.code == 0;
        if let Some((_, acknowledged)) = self.lists.last_mut() {
            *acknowledged |= taken;
        }
        taken
    }

    /// Nothing is left of what was put into the inbox.
    pub fn has_emptied_the_inbox(&self) {
        assert_eq!(contents(&self.place.at("disk/inbox")), BTreeMap::new());
    }

    /// One deed of people who use the machine; any of them may be the last one.
    pub fn work(&mut self) {
        match self.random.u8(..16) {
            0..6 => {
                let (path, content) = self.next_file("disk/inbox");
                if self.random.u8(..3) == 0 {
                    // Whether or not it came to its end.
                    drop(write(&path, &content, false));
                    self.careless.insert(path);
                } else if self.put(&path, &content).is_err() {
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
            12..14 => self.shown.extend(self.completed()),
            14 => drop(self.place.cli(&["db", "checkpoint"])),
            _ => {
                let file = self.place.at(format!("disk/backups/{}.db", self.backups.len()));
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
        self.contents.insert(sha256_of(content.as_bytes()));
        (folder.join(name), content)
    }

    /// Puts a file down for good, or fails.
    fn put(&self, path: &Path, content: &str) -> io::Result<()> {
        write(path, content, true)?;
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
    fn find_gone(&self) -> Result<(), String> {
        let records = self.oracle.records();
        let done: BTreeSet<&Path> = records
            .iter()
            .filter_map(|record| if let Record::End(execution) = record { Some(&*execution.path) } else { None })
            .collect();
        for record in &records {
            if let Record::Put(_, path) = record
                && !path.exists()
                && !done.contains(&**path)
            {
                return Err(format!("{} is gone and was never processed", path.display()));
            }
        }
        Ok(())
    }

    /// What was acknowledged is there, and what was shown as completed still is.
    fn look_after_start(&self) -> Result<(), String> {
        let output = self.place.cli(&["list", "--json", "--limit", "1000000"]);
        if !self.outlet.is_on() {
            return Ok(());
        }
        assert_eq!(output.code, 0, "{output:?}");
        let jobs: BTreeMap<i64, serde_json::Value> =
            output.json_lines().into_iter().map(|job| (count(&job, "id"), job)).collect();
        for record in self.oracle.records() {
            if let Record::Told(Word::Ok(id), path) = record {
                let there = jobs.get(&id).is_some_and(|job| Path::new(text(job, "path")) == path);
                if !there {
                    return Err(format!("job {id} of {} was acknowledged and is lost", path.display()));
                }
            }
        }
        for id in &self.shown {
            let state = jobs.get(id).map_or("gone", |job| text(job, "state"));
            if state != "completed" {
                return Err(format!("job {id} was shown as completed, and now it is {state}"));
            }
        }
        Ok(())
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

    /// Every cut ended all processes; what could pile up is on the disk.
    fn check_base(&self) {
        self.place.ok(&["db", "checkpoint"]);
        let wal = count(&self.place.status()["database"], "wal_bytes");
        assert!(wal <= crate::base::WAL_MOST, "the WAL has {wal} bytes after a checkpoint");
        let spool = contents(&self.place.at("disk/state/spool"));
        assert!(spool.is_empty(), "live outputs of nobody are left: {spool:?}");
    }

    /// What was processed of files that nobody synced is what was moved: from then on they are as good as any other.
    fn check_careless(&self) {
        let records = self.oracle.records();
        let inbox = self.place.at("disk/inbox");
        for path in &self.careless {
            let moved =
                ["disk/done", "other/done"].map(|done| self.place.at(done).join(path.strip_prefix(&inbox).unwrap()));
            let Some(moved) = moved.iter().find(|moved| moved.exists()) else { continue };
            let content = fs::read(moved).unwrap();
            let sha256 = sha256_of(&content);
            let last = records.iter().rev().find_map(|record| match record {
                Record::End(execution) if execution.path == *path => Some(&execution.sha256),
                _ => None,
            });
            assert_eq!(Some(&sha256), last, "{} is not what was processed", moved.display());
            self.oracle.has_put(path, content);
        }
    }

    /// No processor was given anything torn that was synced, and every content of a list that was taken was processed.
    fn check_contents(&self) {
        let mut done = BTreeSet::new();
        for record in self.oracle.records() {
            if let Record::Begin(execution) | Record::End(execution) = record {
                let known = self.contents.contains(&execution.sha256) || self.careless.contains(&execution.path);
                assert!(known, "nobody wrote what was processed: {execution:?}");
                done.insert(execution.sha256);
            }
        }
        for (number, (digests, _)) in self.lists.iter().enumerate() {
            let missing = digests.difference(&done).count();
            assert_eq!(missing, 0, "of list {number}, which was taken, {missing} contents were never processed");
        }
    }

    /// Each backup that was acknowledged is there, and each that has its name is sound.
    fn check_backups(&self) {
        let there = fs::read_dir(self.place.at("disk/backups")).unwrap().map(|entry| entry.unwrap().path());
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

impl Drop for Machine {
    /// A failing test shows what was promised and done.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let jobs = self.outlet.is_on().then(|| self.place.cli(&["list", "--json", "--limit", "1000000"]).stdout);
            eprintln!("--- the ledger\n{:#?}\n--- the jobs\n{}", self.oracle.records(), jobs.unwrap_or_default());
        }
    }
}

/// Puts a file down under its name when it is whole; most programs sync nothing of it.
fn write(path: &Path, content: &str, synced: bool) -> io::Result<()> {
    let folder = path.parent().unwrap();
    // Only what is new is synced into its parent: nobody shall sync by the way what the program has to.
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(folder)?;
    for made in missing {
        File::open(made.parent().unwrap())?.sync_all()?;
    }
    let hidden = folder.join(HALF);
    let mut file = File::create(&hidden)?;
    file.write_all(content.as_bytes())?;
    if synced {
        file.sync_all()?;
    }
    fs::rename(&hidden, path)?;
    File::open(folder)?.sync_all()
}
