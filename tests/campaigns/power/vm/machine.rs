//! A virtual machine whose power goes again and again, and what is asked of it in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::oracle::{Oracle, Record, Word};
use crate::support::{Place, count, sha256_of, text};

use super::disk::{Cost, Disk};
use super::guest::Guest;
use super::running::{Report, Running};

/// Executions that may be at work or not settled when the power goes.
const CONCURRENCY: usize = 2;
/// The power goes within so many writes and flushes.
const LONGEST_LIFE: u64 = 800;
/// Or when it has worked for so long.
const LONGEST_WORK: Duration = Duration::from_mins(1);
/// A queue drains, or a boot comes to its end, within this.
const DEADLINE: Duration = Duration::from_mins(10);

/// What a machine is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Its file system, as `mount` calls it.
    pub kind: &'static str,
    /// What makes that.
    pub mkfs: &'static [&'static str],
    /// What its disk does with a flush, see [`Disk`].
    pub cache: &'static str,
    /// `durability` of its database.
    pub durability: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        // Nothing is left to be done by the kernel in the background of the first mount.
        let mkfs = &["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        Self { kind: "ext4", mkfs, cache: "writeback", durability: "full" }
    }
}

/// A machine.
pub struct Machine {
    place: Place,
    oracle: Oracle,
    disk: Disk,
    kernel: PathBuf,
    archive: PathBuf,
    kind: &'static str,
    random: fastrand::Rng,
    lives: usize,
    /// Jobs that were shown as completed.
    shown: BTreeSet<i64>,
    requests: u64,
    cost: Cost,
}

impl Machine {
    /// A machine that was never on. Its disk has an empty file system.
    pub fn new(guest: &Guest, mut random: fastrand::Rng, options: Options) -> Self {
        let place = Place::new();
        let oracle = Oracle::seen_as(&place.at(""), Path::new("/outside"), "");
        let Options { kind, mkfs, cache, durability } = options;
        let configuration = format!(
            "[database]\nurl = \"sqlite:///disk/state/ingestd.db\"\ndurability = \"{durability}\"\n\
             [pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = {CONCURRENCY}\n\
             retry = {{ base = \"20ms\", max = \"200ms\" }}\n\
             [watch.inbox]\npath = \"/disk/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\nmode = \"native\"\n\
             on_success = {{ move = \"/disk/done\" }}\n",
            oracle.command
        );
        let processor = fs::read(place.at("oracle.sh")).unwrap();
        let files: [(&str, &[u8]); 3] = [
            ("init", include_bytes!("init.sh")),
            ("ingestd.toml", configuration.as_bytes()),
            ("outside/oracle.sh", &processor),
        ];
        let archive = guest.pack(&place.at(""), &files);
        let disk = Disk::new(&place.at(""), mkfs, cache, random.fork());
        let kernel = guest.kernel.clone();
        let (shown, cost) = (BTreeSet::new(), Cost::default());
        Self { place, oracle, disk, kernel, archive, kind, random, lives: 0, shown, requests: 0, cost }
    }

    /// Power on, a daemon, work; then the power goes at a drawn moment. `Err` says what the cut before it has cost.
    pub fn live(&mut self) -> Result<(), String> {
        let last = self.draw_moment();
        let before = self.oracle.records();
        self.lives += 1;
        let mut running = self.boot("work");
        let begun = Instant::now();
        let mut ready = None;
        // Rather while something is not flushed: in between, the disk has nothing to lose.
        while (self.disk.requests() < last || !self.disk.is_dirty())
            && ready.is_none_or(|ready: Instant| ready.elapsed() < LONGEST_WORK)
        {
            running.has_ended()?;
            if ready.is_none() && running.is_ready() {
                ready = Some(Instant::now());
            }
            assert!(begun.elapsed() < DEADLINE, "the machine is not ready within {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.disk.stop();
        running.kill();
        self.requests += self.disk.requests();
        // Nothing, half, nearly everything of what was not flushed.
        let luck = [0.0, 0.5, 0.9][self.random.usize(..3)];
        self.cost += self.disk.cut(luck);
        eprintln!("power: {}: cut {} at write or flush {last}", self.kind, self.lives);
        let kept = self.look(&before, &running.report());
        self.oracle.take(&running.records());
        self.oracle.fault(&format!("the power went at write or flush {last}"));
        kept
    }

    /// Every second time evenly over a life, else evenly over its orders of magnitude: mount and start have their share.
    fn draw_moment(&mut self) -> u64 {
        if self.random.bool() {
            return self.random.u64(1..=LONGEST_LIFE);
        }
        let magnitude = self.random.u32(5..=LONGEST_LIFE.ilog2());
        self.random.u64(1..=1 << magnitude)
    }

    /// Power on for good: the queue drains, and the oracle judges.
    ///
    /// # Panics
    ///
    /// If the promise was broken; says where.
    pub fn judge(&mut self) -> String {
        let before = self.oracle.records();
        let mut running = self.boot("judge");
        let begun = Instant::now();
        while !running.has_ended().unwrap() {
            assert!(begun.elapsed() < DEADLINE, "the queue has not drained within {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.disk.stop();
        self.disk.cut(0.0);
        let report = running.report();
        self.look(&before, &report).unwrap();
        self.oracle.take(&running.records());
        let jobs = report.jobs.last().unwrap();
        let figures = self.oracle.verdict_on(jobs, CONCURRENCY * self.lives);
        let files = report.files.last().unwrap();
        let below = |folder: &str| {
            let relative =
                |(path, sum): (&PathBuf, &String)| Some((path.strip_prefix(folder).ok()?.into(), sum.clone()));
            files.iter().filter_map(relative).collect()
        };
        self.oracle.moved_as(Path::new("/disk/inbox"), &below("/disk/inbox"), &below("/disk/done"));
        assert_eq!(below("/disk/state/spool"), BTreeMap::new(), "live outputs of nobody are left");
        let wal = count(&report.status["database"], "wal_bytes");
        assert!(wal <= crate::base::WAL_MOST, "the WAL has {wal} bytes after a checkpoint");
        let Cost { unflushed, dropped } = self.cost;
        assert!(dropped > 0, "the disk has lost nothing that was not flushed");
        format!(
            "{}, {} cuts among {} writes and flushes, {unflushed} sectors not flushed, {dropped} of them dropped, {figures}",
            self.kind, self.lives, self.requests
        )
    }

    /// Starts a machine on the disk as it is.
    fn boot(&mut self, task: &str) -> Running {
        let socket = self.disk.on();
        let (life, seed, kind) = (self.lives, self.random.u16(1..), self.kind);
        let variables = format!("life={life} seed={seed} task={task} kind={kind}");
        Running::boot(&self.place.at(""), &self.kernel, &self.archive, &socket, &variables)
    }

    /// What was acknowledged is there, what was shown as completed still is, and what is gone was processed.
    fn look(&mut self, before: &[Record], report: &Report) -> Result<(), String> {
        if let Some(files) = report.files.first() {
            self.look_at_files(before, files)?;
        }
        if let Some(jobs) = report.jobs.first() {
            let jobs: BTreeMap<i64, &serde_json::Value> = jobs.iter().map(|job| (count(job, "id"), job)).collect();
            for record in before {
                if let Record::Told(Word::Ok(id), path) = record
                    && jobs.get(id).is_none_or(|job| Path::new(text(job, "path")) != path)
                {
                    return Err(format!("job {id} of {} was acknowledged and is lost", path.display()));
                }
            }
            for id in &self.shown {
                let state = jobs.get(id).map_or("gone", |job| text(job, "state"));
                if state != "completed" {
                    return Err(format!("job {id} was shown as completed, and now it is {state}"));
                }
            }
        }
        self.shown.extend(&report.completed);
        Ok(())
    }

    /// Files as the kernel has them after a boot, before there is a daemon.
    fn look_at_files(&self, before: &[Record], files: &BTreeMap<PathBuf, String>) -> Result<(), String> {
        let mut put = BTreeSet::new();
        let mut done = BTreeSet::new();
        for record in before {
            match record {
                Record::Put(_, path) => drop(put.insert(&**path)),
                Record::End(execution) => drop(done.insert(&*execution.path)),
                _ => {}
            }
        }
        if let Some(lost) = put.iter().find(|path| !files.contains_key(**path) && !done.contains(**path)) {
            return Err(format!("{} is gone and was never processed", lost.display()));
        }
        for (path, sum) in files {
            let Some(content) = content_of(path) else { continue };
            if *sum != sha256_of(content.as_bytes()) {
                return Err(format!("{} is torn", path.display()));
            }
            // What had arrived when the power went, though nobody could know, is as good as any other file.
            let came_as =
                path.strip_prefix("/disk/done").map_or(path.clone(), |name| Path::new("/disk/inbox").join(name));
            if !put.contains(&*came_as) {
                self.oracle.has_put(&came_as, content);
            }
        }
        Ok(())
    }
}

impl Drop for Machine {
    /// A failing test shows what was promised and done.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the ledger\n{:#?}", self.oracle.records());
        }
    }
}

/// What a file holds that is called `LIFE-NUMBER-LINES`; nothing, if that is a private name.
fn content_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let lines = name.rsplit_once('-').filter(|_| !name.starts_with('.'))?.1.parse().ok()?;
    Some(format!("{name}\n").repeat(lines))
}
