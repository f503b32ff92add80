//! Corruption: the files of a database are damaged while no daemon runs.
//!
//! 1. A [`History`] is put back, and a [`Damage`] is done to it, both by the seed.
//! 2. A daemon is started, and `db check` is asked: the damage is told by a word that names the file and the way out,
//!    or it did no harm. Who refuses the file has not changed a byte of it.
//! 3. `db check --repair`, or `db restore --newest` (one of the backups may be damaged as well), brings a sound
//!    database, and keeps the damaged one.
//! 4. The next daemon makes the rest whole: each file is accounted for and was processed in its last version.

pub mod damage;
mod history;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use fastrand::Rng;

use damage::{ALL, Damage, leaves, spoil};
use history::{End, History, beside};

use crate::oracle::Figures;
use crate::portion::Portion;
use crate::seed::Seed;
use crate::support::{Daemon, Place, long, text, wait_until};

/// What became of the damages.
#[derive(Default)]
struct Tally {
    done: usize,
    refused: usize,
    checked: usize,
    harmless: BTreeMap<Damage, usize>,
    repaired: usize,
    beyond_repair: usize,
    restored: usize,
    figures: Figures,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.refused += other.refused;
        self.checked += other.checked;
        other.harmless.into_iter().for_each(|(damage, n)| *self.harmless.entry(damage).or_default() += n);
        self.repaired += other.repaired;
        self.beyond_repair += other.beyond_repair;
        self.restored += other.restored;
        self.figures += other.figures;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let harmless: Vec<String> = self.harmless.iter().map(|(damage, n)| format!("{damage} {n}")).collect();
        write!(
            f,
            "{} damages: {} refused at the start, {} found by the check, {} without effect ({}); {} repaired ({} beyond \
             repair), {} restored; {}",
            self.done,
            self.refused,
            self.checked,
            self.harmless.values().sum::<usize>(),
            harmless.join(", "),
            self.repaired,
            self.beyond_repair,
            self.restored,
            self.figures
        )
    }
}

/// What was found of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Refused,
    Checked,
    Nothing,
}

/// Names the damage when a test fails.
struct Case(String);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the damage: {}", self.0);
        }
    }
}

#[test]
fn damage_is_told_and_repaired_or_restored_and_the_rescan_makes_it_whole() {
    let seed = Seed::of("corruption");
    let rounds = std::env::var("INGESTD_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds = rounds.unwrap_or(if long() { 20 } else { 1 });
    let mut random = seed.random();
    let workers: Vec<Rng> = (0..2).map(|_| random.fork()).collect();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let at_work: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(worker, mut random)| {
                scope.spawn(move || {
                    let history = History::new();
                    foreign_log(&history.place);
                    let mut tally = Tally::default();
                    for damage in Portion::of("corruption", damages(rounds, worker), &mut random) {
                        tally += whole_way(&history, damage, &mut random);
                    }
                    tally
                })
            })
            .collect();
        for worker in at_work {
            match worker.join() {
                Ok(done) => tally += done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    seed.report(tally);
}

/// What one of the two workers has to do: every second damage, the other ones in the next round.
fn damages(rounds: usize, worker: usize) -> Vec<Damage> {
    let round = |round| ALL.into_iter().enumerate().filter(move |(number, _)| (number + round) % 2 == worker);
    (0..rounds).flat_map(round).map(|(_, damage)| damage).filter(|damage| is_wanted(*damage)).collect()
}

/// The source of a lost job says that its file is known: only the repair can see that nobody will ever process it.
#[test]
fn waiting_jobs_whose_pages_are_lost_are_made_anew() {
    let history = History::new();
    history.put_back(End::Stopped);
    let (database, look) = (history.place.database(), history.place.at("look.db"));
    fs::copy(&database, &look).unwrap();
    let look = rusqlite::Connection::open(look).unwrap();
    let number = |sql: &str| look.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap() as usize;
    let root = number("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'");
    let jobs = number("SELECT count(*) FROM jobs");
    let mut bytes = fs::read(&database).unwrap();
    let leaves = leaves(&bytes, root);
    // The newest jobs, which wait, are in the last ones.
    assert!(leaves.len() > 1, "all {jobs} jobs are in one page");
    spoil(&mut bytes, &leaves[1..]);
    fs::write(&database, bytes).unwrap();
    assert!(repair(&history), "nothing can be read");
    let left = history.cli(&["list", "--json", "--limit", "1000"]).json_lines();
    assert!(left.iter().all(|job| text(job, "state") != "pending"), "not all jobs that wait were lost: {left:?}");
    let figures = make_whole(&history);
    eprintln!("corruption: {} of {jobs} jobs lost with {} pages; {figures}", jobs - left.len(), leaves.len() - 1);
}

/// `INGESTD_DAMAGE` asks for one kind alone.
fn is_wanted(damage: Damage) -> bool {
    std::env::var("INGESTD_DAMAGE").map_or(true, |wanted| wanted == damage.to_string())
}

/// From a damage to a whole state.
fn whole_way(history: &History, damage: Damage, random: &mut Rng) -> Tally {
    let end = damage.end(random);
    history.put_back(end);
    let what = damage.inflict(history, random);
    let mut case = Case(format!("{damage} of a database whose daemon was {end:?}: {what}"));
    let evidence = history.evidence();
    let finding = meet(history);
    let mut tally = Tally { done: 1, ..Tally::default() };
    case = Case(format!("{}; {finding:?}", case.0));
    match finding {
        Finding::Refused => tally.refused = 1,
        Finding::Checked => tally.checked = 1,
        Finding::Nothing => *tally.harmless.entry(damage).or_default() += 1,
    }
    if finding == Finding::Refused {
        assert!(history.evidence() == evidence, "a damaged database was changed by who refused it");
    }
    assert!(!damage.is_total() || finding == Finding::Refused, "a file that is no database was not refused");
    if finding != Finding::Nothing {
        let evidence = history.evidence();
        if random.bool() && repair(history) {
            tally.repaired = 1;
            case.0 += "; repaired";
        } else {
            assert!(history.evidence() == evidence, "a repair that failed has changed the database");
            restore(history, random);
            tally.restored = 1;
            case.0 += "; restored";
        }
        is_kept(history, &evidence);
        let sound = history.cli(&["db", "check"]);
        assert_eq!(sound.code, 0, "{sound:?}");
    }
    tally.figures = make_whole(history);
    drop(case);
    tally
}

/// A start, and the check.
fn meet(history: &History) -> Finding {
    let mut daemon = Daemon::spawn(&history.place, history.place.configured(&["run"]));
    wait_until("the daemon is ready or ends", || daemon.exited() || daemon.said("READY=1") > 0);
    if daemon.said("READY=1") == 0 {
        assert_eq!(daemon.exit_code(), 1);
        told(history, &daemon.log());
        return Finding::Refused;
    }
    let check = history.cli(&["db", "check"]);
    let finding = if check.code == 0 { Finding::Nothing } else { Finding::Checked };
    if daemon.exited() {
        told(history, &daemon.log());
    } else {
        daemon.stop();
    }
    history.oracle.fault("stopped after damage");
    finding
}

/// The last word names the file and the way out.
#[track_caller]
fn told(history: &History, log: &str) {
    assert!(!log.contains("panicked"), "{log}");
    let last = log.lines().last().unwrap_or_default();
    let file = history.place.database();
    assert!(last.contains(file.to_str().unwrap()) && last.contains("`ingestd db"), "the last word: {last}");
}

/// `db check --repair`; false: it says that nothing can be read.
fn repair(history: &History) -> bool {
    let repaired = history.cli(&["db", "check", "--repair"]);
    assert!(repaired.code <= 1, "{repaired:?}");
    repaired.code == 0
}

/// `db restore --newest`, with the newest damaged too, as often as not.
fn restore(history: &History, random: &mut Rng) {
    if random.bool() {
        let newest = history.place.ok(&["db", "backups", "--json"]).json_lines().remove(0);
        let path = text(&newest, "path").to_owned();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8_192].fill(0xa5);
        fs::write(path, bytes).unwrap();
    }
    let restored = history.cli(&["db", "restore", "--newest"]);
    assert_eq!(restored.code, 0, "{restored:?}");
}

/// The damaged file lies beside the new one, as it was.
#[track_caller]
fn is_kept(history: &History, evidence: &[(std::path::PathBuf, Option<Vec<u8>>)]) {
    let entries = fs::read_dir(history.place.at("state")).unwrap().flatten();
    let kept: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(".before-")).collect();
    for (path, content) in evidence {
        if let Some(content) = content {
            assert!(
                kept.iter().any(|kept| fs::read(kept).is_ok_and(|bytes| bytes == *content)),
                "{} is not kept",
                path.display()
            );
        }
    }
}

/// The next daemon, and the judgement.
fn make_whole(history: &History) -> Figures {
    let mut daemon = Daemon::start(&history.place);
    history.wait_whole();
    // What a shortened log forgot is done again.
    history.place.ok(&["db", "prune"]);
    let figures = history.oracle.verdict(&history.place, usize::MAX);
    assert_eq!(daemon.stop(), 0);
    figures
}

/// The log of another database of this program, as a daemon that was killed left it.
fn foreign_log(place: &Place) {
    let other = Place::with("[pipeline.other]\nkind = \"noop\"\n");
    let mut daemon = Daemon::start(&other);
    for number in 0..40 {
        other.add(&other.file(&format!("other-{number}"), "other"), &[]);
    }
    daemon.kill();
    fs::copy(beside(&other.database(), "-wal"), place.at("foreign-wal")).unwrap();
}
