//! kill -9: whatever is going on, nothing is lost, nothing is spent, and nothing goes on without its daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::*;

const CONCURRENCY: usize = 4;

/// Writes files while the daemon lives and dies: new ones, and new contents of old ones.
struct Load {
    random: fastrand::Rng,
    place_inbox: PathBuf,
    files: BTreeSet<String>,
    written: usize,
}

impl Load {
    fn burst(&mut self) {
        for _ in 0..self.random.usize(2..8) {
            let number = self.random.usize(0..60);
            let name = format!("folder-{}/file-{number}", number % 5);
            let path = self.place_inbox.join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            self.written += 1;
            let content = format!("{} {}", self.written, self.random.u64(..));
            if self.random.bool() {
                write_new(&path, content);
            } else {
                fs::write(&path, content).unwrap();
            }
            self.files.insert(name);
        }
    }
}

/// The seed of this run; `INGESTD_SEED` repeats one.
fn seed() -> u64 {
    let given = std::env::var("INGESTD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("INGESTD_SEED={seed}");
    seed
}

#[test]
fn kills_at_random_moments_lose_nothing_and_spend_nothing() {
    let kills = if long() { 30 } else { 6 };
    let place = Place::new();
    let ledger = Ledger::new(&place, "sleep 0.0$(( $INGESTD_JOB % 7 + 2 ))");
    place.configure(&format!(
        "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = {CONCURRENCY}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n",
        ledger.command
    ));
    let mut random = fastrand::Rng::with_seed(seed());
    let mut load = Load { random: random.fork(), place_inbox: place.inbox(), files: BTreeSet::new(), written: 0 };
    for kill in 0..kills {
        load.burst();
        let mut daemon = Daemon::spawn(&place, place.configured(&["run"]));
        // Now and then before it is even ready.
        if kill % 3 != 2 {
            daemon.ready();
        }
        let end = Instant::now() + Duration::from_millis(random.u64(20..900));
        while Instant::now() < end {
            load.burst();
            sleep(Duration::from_millis(30));
        }
        daemon.kill();
    }
    let mut daemon = Daemon::start(&place);
    wait_until("nothing waits or runs any more", || {
        let jobs = &place.status()["jobs"];
        let open: i64 = ["pending", "running", "retrying"].iter().map(|state| jobs[*state].as_i64().unwrap_or(0)).sum();
        open == 0 && contents_done(&place, &load)
    });
    verify(&place, &ledger, &load, kills);
    assert_eq!(daemon.stop(), 0);
    place.ok(&["db", "check"]);
}

/// Whether the newest job of each file is about its content of now.
fn contents_done(place: &Place, load: &Load) -> bool {
    let mut newest: BTreeMap<String, (i64, String)> = BTreeMap::new();
    for job in place.jobs().iter().filter(|job| text(job, "state") == "completed") {
        let entry = newest.entry(text(job, "relative").to_owned()).or_default();
        *entry = entry.clone().max((count(job, "version"), text(job, "digest").to_owned()));
    }
    load.files
        .iter()
        .all(|name| newest.get(name).is_some_and(|(_, digest)| *digest == blake3_of(&load.place_inbox.join(name))))
}

fn verify(place: &Place, ledger: &Ledger, load: &Load, kills: usize) {
    let jobs = place.jobs();
    let completed: BTreeMap<i64, &serde_json::Value> =
        jobs.iter().filter(|job| text(job, "state") == "completed").map(|job| (count(job, "id"), job)).collect();
    for job in &jobs {
        let fine = matches!(text(job, "state"), "completed" | "skipped");
        assert!(fine, "a job is stuck or failed: {job}");
    }
    for (id, job) in &completed {
        assert_eq!(job["attempt"], 1, "an attempt was spent by a kill: job {id}, {job}");
    }
    let entries = ledger.entries();
    let distinct: BTreeSet<i64> = entries.iter().map(|entry| entry.job).collect();
    let again = entries.len() - distinct.len();
    assert!(again <= CONCURRENCY * kills, "{again} executions too many for {kills} kills");
    assert!(entries.iter().all(|entry| entry.attempt == 1), "INGESTD_ATTEMPT grew by a kill");
    for id in completed.keys() {
        assert!(distinct.contains(id), "job {id} is completed and was never executed");
    }
    eprintln!("{kills} kills, {} files, {} jobs, {again} executed again", load.files.len(), jobs.len());
}

#[test]
fn no_process_outlives_its_daemon_for_long() {
    let place = Place::new();
    let mark = place.mark();
    place.configure(
        "[pipeline.p]\nkind = \"exec\"\nconcurrency = 2\nenv = { INGESTD_TEST_MARK = \"@PLACE@\" }\n\
         command = [\"/bin/sh\", \"-c\", \"sleep 1000 & sleep 1000 & echo > @PLACE@/started-$INGESTD_JOB; wait\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    place.put("a", "a");
    place.put("b", "b");
    let mut daemon = Daemon::start(&place);
    wait_until("both run", || place.at("started-1").exists() && place.at("started-2").exists());
    let before: BTreeSet<_> = marked_processes(&mark).into_iter().collect();
    assert!(before.len() >= 6, "two shells with two children each: {before:?}");
    let shells: Vec<u32> = before.iter().map(|(pid, _)| *pid).filter(|pid| is_shell(*pid)).collect();
    daemon.kill();
    wait_until("the processors themselves ended with their daemon", || {
        marked_processes(&mark).iter().all(|(pid, _)| !shells.contains(pid))
    });
    let mut next = Daemon::start(&place);
    wait_until("their children ended with the next start", || {
        marked_processes(&mark).iter().all(|process| !before.contains(process))
    });
    wait_until("both run again", || marked_processes(&mark).len() >= 6);
    for job in place.jobs() {
        assert_eq!((count(&job, "attempt"), count(&job, "crashes")), (0, 1), "{job}");
    }
    assert!(!place.status()["last_recovery"].is_null(), "recovery is kept for `status`");
    next.kill();
    drop(Daemon::start(&place));
}

fn is_shell(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"/bin/sh\0"))
}

/// Starts the daemon again each time that it dies, as systemd does, until `done`; answers the one that lives and how
/// many starts it took.
#[track_caller]
fn supervise(place: &Place, mut done: impl FnMut() -> bool) -> (Daemon, usize) {
    for starts in 1..20 {
        let mut daemon = Daemon::spawn(place, place.configured(&["run"]));
        let died = wait_for("the daemon dies or has nothing left", || {
            if daemon.exited() { Some(true) } else { done().then_some(false) }
        });
        if !died {
            return (daemon, starts);
        }
    }
    panic!("after 20 starts the poison still takes the daemon down");
}

/// Whether exactly so many jobs failed and completed; not while the daemon is too young to say.
fn ended(place: &Place, failed: usize, completed: usize) -> bool {
    let status = place.cli(&["status", "--json"]);
    let jobs = if status.code == 0 { status.json()["jobs"].clone() } else { return false };
    jobs["failed"] == failed && jobs["completed"] == completed
}

/// A daemon whose jobs kill it where the file says so, others take a moment.
fn poisonous(max_crashes: usize) -> Place {
    Place::with(&format!(
        "[queue]\nmax_crashes = {max_crashes}\n\
         [pipeline.p]\nkind = \"exec\"\nconcurrency = 3\n\
         command = [\"/bin/sh\", \"-c\", \"grep -q poison {{path}} && kill -9 $PPID; sleep 0.1\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n"
    ))
}

fn assert_poisoned(place: &Place, name: &str) {
    let poison = place.newest_of(name).unwrap();
    assert_eq!((text(&poison, "state"), text(&poison["error"], "kind")), ("failed", "crash"), "{poison}");
    assert_eq!(poison["attempt"], 0, "crashes spend nothing: {poison}");
}

fn assert_unharmed(place: &Place, name: &str) {
    let job = place.newest_of(name).unwrap();
    assert_eq!((text(&job, "state"), count(&job, "attempt"), count(&job, "crashes")), ("completed", 1, 0), "{job}");
}

#[test]
fn a_job_that_takes_the_daemon_down_fails_as_a_crash_and_its_neighbours_complete() {
    let place = poisonous(2);
    place.put("poison", "poison");
    for i in 0..8 {
        place.put(&format!("innocent-{i}"), "i");
    }
    let (mut daemon, starts) = supervise(&place, || ended(&place, 1, 8));
    assert_poisoned(&place, "poison");
    for i in 0..8 {
        assert_unharmed(&place, &format!("innocent-{i}"));
    }
    // Two crashes make a suspect, two more alone end it; who ran beside it twice is a suspect too, and acquitted.
    assert_eq!(starts, 5);
    assert_eq!(daemon.stop(), 0);
    place.ok(&["db", "check"]);
}

#[test]
fn two_poison_jobs_at_once_are_both_found_and_nobody_else_is_blamed() {
    let place = poisonous(2);
    for name in ["poison-1", "poison-2"] {
        place.put(name, "poison");
    }
    for i in 0..6 {
        place.put(&format!("innocent-{i}"), "i");
    }
    let (mut daemon, starts) = supervise(&place, || ended(&place, 2, 6));
    for name in ["poison-1", "poison-2"] {
        assert_poisoned(&place, name);
    }
    for i in 0..6 {
        assert_unharmed(&place, &format!("innocent-{i}"));
    }
    assert!(starts <= 9, "four crashes at the most for each: {starts} starts");
    assert_eq!(daemon.stop(), 0);
    place.ok(&["db", "check"]);
}

#[test]
fn a_suspect_whose_file_is_mended_is_superseded_and_kills_no_more() {
    let place = poisonous(5);
    place.put("file", "poison");
    for _ in 0..3 {
        let mut daemon = Daemon::spawn(&place, place.configured(&["run"]));
        wait_until("it takes the daemon down", || daemon.exited());
    }
    place.put("file", "mended");
    let (_daemon, starts) = supervise(&place, || ended(&place, 0, 1));
    assert_eq!(starts, 1, "what is no longer there was executed");
    assert_unharmed(&place, "file");
    let states: Vec<(i64, String)> =
        place.jobs().iter().map(|job| (count(job, "version"), text(job, "state").to_owned())).collect();
    assert_eq!(states, [(2, "completed".to_owned()), (1, "skipped".to_owned())]);
}

#[test]
fn a_poison_job_that_is_superseded_while_it_runs_is_not_tried_again() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\n\
         command = [\"/bin/sh\", \"-c\", \"grep -q poison {path} || exit 0; echo > @PLACE@/runs; \
         while [ ! -e @PLACE@/go ]; do sleep 0.02; done; kill -9 $PPID; sleep 9\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    place.put("file", "poison");
    let mut daemon = Daemon::start(&place);
    wait_until("the poison runs", || place.at("runs").exists());
    place.put("file", "mended");
    wait_until("the newer version waits", || place.in_state("pending") == 1);
    fs::write(place.at("go"), "").unwrap();
    wait_until("the poison takes the daemon down", || daemon.exited());
    let _daemon = Daemon::start(&place);
    wait_until("the newer version is done", || place.in_state("completed") == 1);
    let old = place.jobs().into_iter().find(|job| job["version"] == 1).unwrap();
    assert_eq!((text(&old, "state"), text(&old, "reason")), ("skipped", "superseded"), "{old}");
    let outcomes: Vec<String> = place.history().iter().map(|row| text(row, "outcome").to_owned()).collect();
    assert_eq!(outcomes, ["crashed", "completed"]);
}

#[test]
fn a_single_kill_delays_nobody() {
    let place = Place::new();
    let ledger = Ledger::new(&place, &format!("[ -e {} ] || sleep 1000", place.at("go").display()));
    place.configure(&format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = {}\nconcurrency = 12\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
        ledger.command
    ));
    for i in 0..12 {
        place.put(&i.to_string(), i.to_string());
    }
    let mut daemon = Daemon::start(&place);
    wait_until("all run", || ledger.entries().len() == 12);
    daemon.kill();
    let _daemon = Daemon::start(&place);
    wait_until("all run again, side by side", || ledger.entries().len() == 24 && place.in_state("running") == 12);
    let recovery = &place.status()["last_recovery"];
    assert_eq!((&recovery["released"], &recovery["suspects"]), (&12.into(), &0.into()), "{recovery}");
    for job in place.jobs() {
        assert_eq!((count(&job, "attempt"), count(&job, "crashes")), (0, 1), "{job}");
    }
}

/// A place with one suspect, the job of `suspect`, which runs until `go` is there. It is executed with the daemon dying
/// twice; the other jobs take a moment each.
fn with_a_suspect() -> (Place, Ledger, i64) {
    let place = Place::new();
    let wait = format!(
        "case $1 in */slow) until [ -e {} ]; do sleep 0.02; done;; */suspect) [ -e {} ] || sleep 1000;; *) sleep 0.0$(( $INGESTD_JOB % 5 + 2 ));; esac",
        place.at("slow-go").display(),
        place.at("go").display()
    );
    let ledger = Ledger::new(&place, &wait);
    place.configure(&format!("[pipeline.p]\nkind = \"exec\"\ncommand = {}\nconcurrency = 4\n", ledger.command));
    place.ok(&["db", "migrate"]);
    let job = place.add(&place.file("suspect", "s"), &[]);
    for runs in 1..=2 {
        let mut daemon = Daemon::start(&place);
        wait_until("it runs", || ledger.entries().len() == runs);
        daemon.kill();
    }
    (place, ledger, job)
}

#[test]
fn a_suspect_has_its_turn_while_work_never_ends() {
    let (place, ledger, job) = with_a_suspect();
    let files: Vec<String> =
        (0..150).map(|i| place.file(&format!("load-{i}"), "l").to_str().unwrap().to_owned()).collect();
    place.feed(&["add", "-", "--priority", "high"], files.join("\n").as_bytes());
    fs::write(place.at("go"), "").unwrap();
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 151);
    let turn = ledger.entries().iter().skip(2).position(|entry| entry.job == job).unwrap();
    assert!(turn <= 8, "a suspect waits for what runs and for nobody else, but {turn} went before it");
}

#[test]
fn who_waited_for_a_suspect_goes_on_when_it_is_cancelled() {
    let (place, ledger, suspect) = with_a_suspect();
    let slow = place.add(&place.file("slow", "s"), &[]);
    let _daemon = Daemon::start(&place);
    wait_until("a job runs, and the suspect waits for its end", || ledger.entries().len() == 3);
    let other = place.add(&place.file("other", "o"), &[]);
    place.ok(&["cancel", &suspect.to_string()]);
    fs::write(place.at("slow-go"), "").unwrap();
    place.wait_state(slow, "completed");
    place.wait_state(other, "completed");
    assert_eq!(ledger.entries().iter().filter(|entry| entry.job == suspect).count(), 2);
}

#[test]
fn a_kill_between_two_versions_keeps_their_order() {
    let place = Place::new();
    let ledger = Ledger::new(&place, &format!("[ -e {} ] || sleep 1000", place.at("go").display()));
    place.configure(&format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = {}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
        ledger.command
    ));
    let mut daemon = Daemon::start(&place);
    place.put("file", "one");
    wait_until("the first version runs", || ledger.entries().len() == 1);
    place.put("file", "two");
    wait_until("the second version waits", || place.in_state("pending") == 1);
    daemon.kill();
    fs::write(place.at("go"), "").unwrap();
    let _daemon = Daemon::start(&place);
    wait_until("the second version is done", || {
        place.newest_of("file").is_some_and(|job| text(&job, "state") == "completed" && job["version"] == 2)
    });
    // The older version is never tried again once a newer one is there.
    assert_eq!(ledger.entries().last().unwrap().sha256, sha256_of(b"two"));
    assert_eq!(place.in_state("running") + place.in_state("pending"), 0);
}
