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

#[test]
fn a_job_that_takes_the_daemon_down_fails_as_a_crash_in_the_end() {
    let place = Place::with(
        "[queue]\nmax_crashes = 2\n\
         [pipeline.p]\nkind = \"exec\"\nconcurrency = 2\n\
         command = [\"/bin/sh\", \"-c\", \"case $INGESTD_RELATIVE in poison) kill -9 $PPID; sleep 1;; esac\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    place.put("poison", "p");
    place.put("innocent", "i");
    let mut starts = 0;
    let mut last = loop {
        starts += 1;
        assert!(starts < 10, "after {starts} starts the poison job still crashes the daemon");
        let mut daemon = Daemon::spawn(&place, place.configured(&["run"]));
        let killed = wait_for("the daemon dies or has nothing left", || {
            if daemon.exited() {
                return Some(true);
            }
            let jobs = &place.cli(&["status", "--json"]);
            let jobs = if jobs.code == 0 { jobs.json()["jobs"].clone() } else { return None };
            (jobs["failed"] == 1 && jobs["completed"] == 1).then_some(false)
        });
        if !killed {
            break daemon;
        }
    };
    let poison = place.newest_of("poison").unwrap();
    assert_eq!((text(&poison, "state"), text(&poison["error"], "kind")), ("failed", "crash"), "{poison}");
    assert_eq!(place.newest_of("innocent").unwrap()["attempt"], 1);
    assert!(starts > 3, "two crashes make a suspect, two more alone end it: {starts} starts");
    assert_eq!(last.stop(), 0);
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
