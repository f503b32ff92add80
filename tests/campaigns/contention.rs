//! Contention: everybody wants the database at once.
//!
//! 1. *A crowd*: processes that run every writing command, again and again, beside a daemon that works and is killed
//!    and started meanwhile. Each command ends by itself, says in words what came of it, and what it acknowledged holds.
//! 2. *A lock*: another process (the test) holds SQLite's write lock for seconds; commands and daemon wait, nobody is
//!    told of SQLite's errors, and nothing is lost.
//! 3. *A parked reader*: another process leaves a read transaction open; the log grows and the reader is named, and
//!    when it leaves the log is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use crate::base::Base;
use crate::oracle::Word;
use crate::scenario::Scenario;
use crate::seed::Seed;
use crate::support::{Daemon, Output, Place, long, text, wait_until};

/// SQLite's words, which no person should have to know.
const OF_SQLITE: [&str; 4] = ["database is locked", "SQLITE_", "(code: ", "database table is locked"];

/// What the crowd did and was told.
#[derive(Default)]
struct Told {
    /// How often each command ended with which code.
    ends: Mutex<BTreeMap<(String, i32), usize>>,
    /// Jobs whose cancellation was acknowledged.
    cancelled: Mutex<BTreeSet<i64>>,
    stop: AtomicBool,
    lines: AtomicUsize,
}

impl Told {
    /// Notes how a command ended, and holds its words to what people may be told.
    fn note(&self, name: &str, output: &Output) {
        for words in OF_SQLITE {
            assert!(!output.stderr.contains(words), "`{name}` speaks of SQLite: {output:?}");
        }
        // 0 done; 1 it says why not; 3 whatever it was about is gone; 4 a daemon was just starting, or holds the lock.
        assert!(matches!(output.code, 0 | 1 | 3 | 4), "`{name}`: {output:?}");
        assert!(output.code == 0 || !output.stderr.trim().is_empty(), "`{name}` fails without a word: {output:?}");
        if output.code == 1 {
            // The daemon came or went, or the job has gone on by now (*it is running*, *it is completed*), or
            // a watch was not removed because of that.
            let known = ["went away", "is stopping", "does not take", "another", "it is ", "already"];
            assert!(known.iter().any(|words| output.stderr.contains(words)), "`{name}` failed: {output:?}");
        }
        *self.ends.lock().unwrap().entry((name.to_owned(), output.code)).or_default() += 1;
    }

    fn run(&self, place: &Place, arguments: &[&str]) -> Output {
        let output = place.cli(arguments);
        self.note(&arguments[..arguments.len().min(2)].join(" "), &output);
        output
    }
}

/// Sends the crowd home when it is dropped: also when the test fails, or its threads would never be joined.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One member of the crowd: everything that writes, in an order of its own.
fn member(number: usize, mut random: fastrand::Rng, scenario: &Scenario, told: &Told) {
    let place = &scenario.place;
    let (key, watch) = (format!("contention.{number}"), format!("extra-{number}"));
    let folder = place.at(&watch);
    fs::create_dir_all(&folder).unwrap();
    for round in 0.. {
        if told.stop.load(Ordering::Relaxed) {
            break;
        }
        match random.u32(0..12) {
            0..3 => {
                let path = place.at(format!("files/{number}/{round}"));
                scenario.oracle.put(&path, format!("{number}-{round}"));
                let output = place.cli(&["add", path.to_str().unwrap(), "--pipeline", "record"]);
                told.note("add", &output);
                scenario.oracle.told(&path, &output);
            }
            3 => cancel_one(number, round, scenario, told),
            4 => {
                let value = round.to_string();
                if told.run(place, &["kv", "set", &key, &value]).code == 0 {
                    // Nobody else writes this key.
                    let found = told.run(place, &["kv", "get", &key]);
                    assert!(found.code != 0 || found.stdout.trim() == value, "{found:?}, {value} was set");
                }
            }
            5 => {
                told.run(place, &["priority", "urgent", &random.u32(1..40).to_string()]);
            }
            6 => {
                told.run(place, &["pause", "record"]);
                told.run(place, &["resume", "record"]);
            }
            7 => {
                told.run(place, &["watch", "add", &watch, folder.to_str().unwrap(), "--pipeline", "record"]);
                told.run(place, &["watch", "remove", &watch]);
            }
            8 => {
                let copy = place.at(format!("copy-{number}-{round}.db"));
                told.run(place, &["db", "backup", copy.to_str().unwrap()]);
            }
            9 => {
                told.run(place, &["db", if random.bool() { "vacuum" } else { "checkpoint" }]);
            }
            10 => sync_some(number, round, scenario, told),
            _ => {
                told.run(place, &["retry", "--failed"]);
                told.run(place, &["runs", "list"]);
            }
        }
    }
}

/// Adds a file for later and cancels its job at once.
fn cancel_one(number: usize, round: usize, scenario: &Scenario, told: &Told) {
    let path = scenario.place.at(format!("later/{number}/{round}"));
    scenario.oracle.put(&path, format!("later {number}-{round}"));
    let output = scenario.place.cli(&["add", path.to_str().unwrap(), "--pipeline", "record", "--in", "1h"]);
    told.note("add", &output);
    if let Word::Ok(id) = scenario.oracle.told(&path, &output)
        && told.run(&scenario.place, &["cancel", &id.to_string()]).code == 0
    {
        told.cancelled.lock().unwrap().insert(id);
    }
}

fn sync_some(number: usize, round: usize, scenario: &Scenario, told: &Told) {
    let list = scenario.place.at(format!("list-{number}-{round}"));
    let paths: Vec<_> = (0..5).map(|line| scenario.place.at(format!("files/{number}/{round}-{line}"))).collect();
    for path in &paths {
        scenario.oracle.put(path, path.to_str().unwrap());
    }
    let lines: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    fs::write(&list, lines.join("\n") + "\n").unwrap();
    if told.run(&scenario.place, &["sync", list.to_str().unwrap(), "--pipeline", "record"]).code == 0 {
        told.lines.fetch_add(lines.len(), Ordering::Relaxed);
    } else {
        // Whoever was told that it is unfinished does it again, when the crowd has gone home.
        fs::rename(&list, list.with_extension("again")).unwrap();
    }
}

/// Starts the daemon as a service manager does: again, when it ended before it was ready.
fn start(place: &Place) -> (Daemon, usize) {
    for refused in 0..20 {
        let mut daemon = Daemon::spawn(place, place.configured(&["run"]));
        wait_until("the daemon is ready, or has ended", || daemon.said("READY=1") > 0 || daemon.exited());
        if daemon.said("READY=1") > 0 {
            return (daemon, refused);
        }
        assert_eq!(daemon.exit_code(), 4, "{}", daemon.log());
    }
    panic!("the daemon starves: it never came to run beside the commands");
}

#[test]
fn a_crowd_of_commands_beside_a_daemon_that_is_killed_loses_nothing_that_it_was_told() {
    let seed = Seed::of("contention");
    let mut random = seed.random();
    let scenario = Scenario::new("");
    let place = &scenario.place;
    let (mut daemon, _) = start(place);
    scenario.arrive("first");
    scenario.wait_drained();
    let base = Base::of(&daemon, place);
    let (members, kills) = if long() { (12, 40) } else { (6, 3) };
    let told = Told::default();
    let mut refused = 0;
    thread::scope(|scope| {
        let over = Over(&told.stop);
        let crowd: Vec<_> = (0..members)
            .map(|number| {
                let (random, scenario, told) = (random.fork(), &scenario, &told);
                scope.spawn(move || member(number, random, scenario, told))
            })
            .collect();
        for kill in 0..kills {
            for file in 0..5 {
                scenario.arrive(&format!("{kill}/{file}"));
            }
            thread::sleep(Duration::from_millis(random.u64(500..2_500)));
            if random.bool() {
                daemon.kill();
                scenario.oracle.fault("kill");
            } else {
                assert_eq!(daemon.stop(), 0, "{}", daemon.log());
            }
            // For a moment the commands write by themselves.
            thread::sleep(Duration::from_millis(random.u64(0..800)));
            let (next, again) = start(place);
            daemon = next;
            refused += again;
        }
        drop(over);
        for member in crowd {
            member.join().expect("a member of the crowd was told what it may not be told");
        }
    });
    settle(&scenario, &told);
    base.wait_back(&daemon, place);
    let figures = scenario.oracle.verdict(place, 2 * kills);
    assert_eq!(daemon.stop(), 0);
    let ends = told.ends.lock().unwrap();
    let ended = |wanted: i32| ends.iter().filter(|((_, code), _)| *code == wanted).map(|(_, n)| n).sum::<usize>();
    let (all, done) = (ends.values().sum::<usize>(), ended(0));
    assert!(done * 2 > all, "most commands get through: {ends:?}");
    seed.report(format_args!(
        "{all} commands of {members} at once, {done} done, {} refused while the daemon came or went; {kills} ends of the \
         daemon, {refused} starts again; {figures}",
        all - done
    ));
}

/// What the crowd left half done is done by a person, once; then everything drains.
fn settle(scenario: &Scenario, told: &Told) {
    let place = &scenario.place;
    place.ok(&["resume"]);
    for entry in fs::read_dir(place.at("")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "again") {
            place.ok(&["sync", entry.path().to_str().unwrap(), "--pipeline", "record"]);
        }
    }
    // What no acknowledgement came of is added again: `add` names the job that is there.
    let known: BTreeSet<String> = place.jobs().iter().map(|job| text(job, "path").to_owned()).collect();
    for record in scenario.oracle.records() {
        if let crate::oracle::Record::Put(_, path) = record
            && !path.starts_with(place.inbox())
            && !known.contains(path.to_str().unwrap())
        {
            scenario.oracle.add(place, &path, &["--pipeline", "record"]);
        }
    }
    let jobs = place.jobs();
    let state = |id: i64| jobs.iter().find(|job| job["id"] == id).map(|job| text(job, "state"));
    for id in told.cancelled.lock().unwrap().iter() {
        assert_eq!(state(*id), Some("cancelled"), "job {id} was cancelled, and a final state is final");
    }
    reopen(place, &jobs);
    scenario.wait_drained();
}

/// Cancelled jobs go on, and what waits for later is due now.
fn reopen(place: &Place, jobs: &[Value]) {
    for job in jobs {
        let id = job["id"].to_string();
        match text(job, "state") {
            "cancelled" => drop(place.ok(&["retry", &id])),
            "pending" if text(job, "path").contains("/later/") => {
                place.cli(&["cancel", &id]);
                place.ok(&["retry", &id]);
            }
            _ => {}
        }
    }
}

#[test]
fn a_daemon_comes_to_run_beside_commands_that_never_pause() {
    let scenario = Scenario::new("");
    let place = &scenario.place;
    place.ok(&["db", "migrate"]);
    let told = Told::default();
    thread::scope(|scope| {
        let over = Over(&told.stop);
        for number in 0..10 {
            let told = &told;
            scope.spawn(move || {
                let key = format!("key-{number}");
                for value in 0.. {
                    if told.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    told.run(place, &["kv", "set", &key, &value.to_string()]);
                }
            });
        }
        thread::sleep(Duration::from_millis(500));
        let rounds = if long() { 20 } else { 2 };
        let mut refused = 0;
        for _ in 0..rounds {
            let (mut daemon, again) = start(place);
            refused += again;
            assert_eq!(daemon.stop(), 0);
        }
        drop(over);
        assert!(refused <= rounds, "{refused} starts in vain for {rounds} that succeeded");
        eprintln!("contention: {rounds} starts beside ten commands without a pause, {refused} in vain");
    });
}

/// The write lock, held by this process, which is none of ours.
fn hold(place: &Place) -> Connection {
    let other = Connection::open(place.database()).unwrap();
    other.busy_timeout(Duration::from_secs(30)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// Every kind of write at once, each by a process of its own, while `meanwhile` goes on.
fn all_at_once(scenario: &Scenario, name: &str, meanwhile: impl FnOnce()) -> Vec<(String, Output)> {
    let place = &scenario.place;
    let file = place.at("files").join(name);
    scenario.oracle.put(&file, name);
    let (file, list) = (file.to_str().unwrap().to_owned(), place.at(format!("list-{name}")));
    let line = place.at("files").join(format!("line-{name}"));
    scenario.oracle.put(&line, format!("line {name}"));
    fs::write(&list, format!("{}\n", line.display())).unwrap();
    let list = list.to_str().unwrap().to_owned();
    let commands = [
        vec!["add", &file, "--pipeline", "record"],
        vec!["kv", "set", "contention", name],
        vec!["pause", "record"],
        vec!["sync", &list, "--pipeline", "record"],
        vec!["priority", "urgent", "1"],
    ];
    thread::scope(|scope| {
        let running: Vec<_> =
            commands.iter().map(|arguments| scope.spawn(move || (arguments.join(" "), place.cli(arguments)))).collect();
        meanwhile();
        running.into_iter().map(|command| command.join().unwrap()).collect()
    })
}

#[test]
fn a_lock_held_for_seconds_is_waited_for_with_and_without_a_daemon() {
    let scenario = Scenario::new("");
    let place = &scenario.place;
    let rounds = if long() { 10 } else { 1 };
    for round in 0..rounds {
        for with_daemon in [true, false] {
            let mut daemon = with_daemon.then(|| Daemon::start(place));
            if !with_daemon && round == 0 {
                place.ok(&["resume"]);
            }
            let other = hold(place);
            let name = format!("{round}-{with_daemon}");
            let ends = all_at_once(&scenario, &name, move || {
                thread::sleep(Duration::from_secs(3));
                drop(other);
            });
            for (command, output) in ends {
                assert!(output.code == 0 || command.starts_with("priority"), "{command}: {output:?}");
                assert!(OF_SQLITE.iter().all(|words| !output.stderr.contains(words)), "{command}: {output:?}");
            }
            place.ok(&["resume"]);
            if let Some(daemon) = &mut daemon {
                scenario.wait_drained();
                assert_eq!(daemon.stop(), 0);
            }
        }
    }
    let mut daemon = Daemon::start(place);
    scenario.wait_drained();
    eprintln!("contention: a lock held {} times for 3 s; {}", 2 * rounds, scenario.oracle.verdict(place, 0));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_lock_that_outlasts_the_patience_is_told_in_words_and_nothing_is_acknowledged() {
    let scenario = Scenario::new("[database]\nbusy_timeout = \"300ms\"\n");
    let place = &scenario.place;
    for with_daemon in [true, false] {
        let mut daemon = with_daemon.then(|| Daemon::start(place));
        let other = hold(place);
        let name = format!("patience-{with_daemon}");
        let ends = all_at_once(&scenario, &name, || {});
        drop(other);
        for (command, output) in ends {
            assert_eq!(output.code, 1, "{command}: {output:?}");
            assert!(OF_SQLITE.iter().all(|words| !output.stderr.contains(words)), "{command}: {output:?}");
            assert!(
                output.stderr.contains("lock") || output.stderr.contains("another process"),
                "{command}: {output:?}"
            );
        }
        if let Some(daemon) = &mut daemon {
            assert_eq!(daemon.stop(), 0);
        }
    }
}

#[test]
fn a_parked_reader_is_named_and_the_log_is_cut_when_it_leaves() {
    let scenario = Scenario::new("[maintenance]\nwal_checkpoint_interval = \"1s\"\n");
    let place = &scenario.place;
    let (mut daemon, base) = scenario.at_work();
    let reader = Connection::open(place.database()).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let jobs = |reader: &Connection| reader.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0));
    let before = jobs(&reader).unwrap();
    let files = if long() { 2_000 } else { 150 };
    for number in 0..files {
        scenario.arrive(&format!("{number}"));
    }
    scenario.wait_drained();
    assert_eq!(jobs(&reader).unwrap(), before, "the reader sees what it saw");
    let named = format!("process {}", std::process::id());
    wait_until("whoever is in the way is named", || place.status()["warnings"].to_string().contains(&named));
    drop(reader);
    wait_until("the warning is over", || !place.status()["warnings"].to_string().contains(&named));
    base.wait_back(&daemon, place);
    eprintln!("contention: a reader parked over {files} files; {}", scenario.oracle.verdict(place, 0));
    scenario.oracle.moved(&place.inbox(), &place.at("done"));
    assert_eq!(daemon.stop(), 0);
}
