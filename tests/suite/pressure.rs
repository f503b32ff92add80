//! Under pressure: a database that somebody else holds or that has no room, a full queue, attempts that hang.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;

use crate::support::*;

/// A pipeline whose jobs wait until their gates are open.
fn gated(head: &str) -> (Place, Ledger) {
    let place = Place::new();
    let ledger = Ledger::new(&place, "while [ ! -e \"$1.go\" ]; do sleep 0.05; done");
    place.configure(&format!("{head}\n[pipeline.p]\nkind = \"exec\"\nconcurrency = 4\ncommand = {}\n", ledger.command));
    (place, ledger)
}

fn open_gate(place: &Place, name: &str) {
    fs::write(place.at("files").join(format!("{name}.go")), "").unwrap();
}

fn lines_with(daemon: &Daemon, words: &str) -> usize {
    daemon.log().lines().filter(|line| line.contains(words)).count()
}

/// Longer than a lease of a second, because the duration is what is tested; and long enough for whoever looks for late
/// leases to look.
fn outlast_leases() {
    sleep(Duration::from_secs(3));
}

#[test]
fn a_lock_held_for_longer_than_a_lease_costs_no_lease_and_is_told_once() {
    // Once given up long before the lease ends, once waited for until long after.
    for busy_timeout in ["200ms", "30s"] {
        let (place, ledger) = gated(&format!("[database]\nbusy_timeout = \"{busy_timeout}\"\n[queue]\nlease = \"1s\""));
        place.ok(&["db", "migrate"]);
        let jobs = ["ends", "goes-on"].map(|name| place.add(&place.file(name, name), &[]));
        let daemon = Daemon::start(&place);
        wait_until("both run", || ledger.entries().len() == 2);
        let other = Connection::open(place.database()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        // Its end can't be written, and the dispatcher waits to write it.
        open_gate(&place, "ends");
        outlast_leases();
        other.execute_batch("ROLLBACK").unwrap();
        outlast_leases();
        open_gate(&place, "goes-on");
        for job in jobs {
            let done = place.wait_state(job, "completed");
            assert_eq!((count(&done, "attempt"), count(&done, "crashes")), (1, 0), "{done}\n{}", daemon.log());
        }
        assert_eq!(ledger.entries().len(), 2, "one was executed twice\n{}", daemon.log());
        if busy_timeout == "200ms" {
            wait_until("it was said that this is over", || lines_with(&daemon, "over: another process holds") == 1);
            assert_eq!(lines_with(&daemon, "holds the database's write lock"), 2, "{}", daemon.log());
            assert_eq!(lines_with(&daemon, "WARN"), 1, "{}", daemon.log());
        }
        assert_eq!(lines_with(&daemon, "lease"), 0, "{}", daemon.log());
    }
}

/// A small filesystem of its own; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and says so, where nothing can be mounted.
    fn at(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        eprintln!("skipped: no filesystem can be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_disk_that_is_full_for_longer_than_a_lease_costs_no_lease() {
    let (place, ledger) =
        gated("[queue]\nlease = \"1s\"\n[maintenance]\nmin_free_space = \"0B\"\nbackup = { interval = \"0s\" }");
    let Some(_disk) = SmallDisk::at(&place.at("state"), "8m") else { return };
    place.ok(&["db", "migrate"]);
    let jobs = ["ends", "goes-on"].map(|name| place.add(&place.file(name, name), &[]));
    let daemon = Daemon::start(&place);
    wait_until("both run", || ledger.entries().len() == 2);
    let ballast = place.at("state/ballast");
    let mut zeros = std::io::repeat(0).take(64 << 20);
    let _ = std::io::copy(&mut zeros, &mut fs::File::create(&ballast).unwrap());
    open_gate(&place, "ends");
    wait_until("the full disk is noticed", || lines_with(&daemon, "no room is left for the database") > 0);
    outlast_leases();
    assert_eq!(lines_with(&daemon, "no room is left for the database"), 1, "{}", daemon.log());
    fs::remove_file(&ballast).unwrap();
    outlast_leases();
    open_gate(&place, "goes-on");
    for job in jobs {
        let done = place.wait_state(job, "completed");
        assert_eq!(count(&done, "crashes"), 0, "{done}\n{}", daemon.log());
    }
    assert_eq!(ledger.entries().len(), 2, "{}", daemon.log());
}

#[test]
fn a_lease_that_ran_out_in_a_freeze_is_given_anew_only_after_its_work_has_ended() {
    let place = Place::new();
    let script = place.at("work.sh");
    // Whoever begins says so if the one before it still lives.
    let text = "if [ -e pid ] && kill -0 $(cat pid) 2>/dev/null; then echo \"$(cat pid)\" >> overlaps; fi\n\
                trap '' TERM\necho $$ > pid; echo started >> starts\nwhile [ ! -e go ]; do sleep 0.02; done\n";
    fs::write(&script, format!("cd {}\n{text}", place.at("").display())).unwrap();
    place.configure(&format!(
        "[queue]\nlease = \"1s\"\n[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"{}\"]\n",
        script.display()
    ));
    place.ok(&["db", "migrate"]);
    let job = place.add(&place.file("frozen", "x"), &[]);
    let daemon = Daemon::start(&place);
    let starts = || fs::read_to_string(place.at("starts")).unwrap_or_default().lines().count();
    for round in 1..=2 {
        wait_until("it runs", || starts() == round);
        daemon.signal(Signal::STOP);
        sleep(Duration::from_millis(1_500));
        daemon.signal(Signal::CONT);
    }
    wait_until("it was started anew", || starts() == 3);
    fs::write(place.at("go"), "").unwrap();
    place.wait_state(job, "completed");
    assert!(!place.at("overlaps").exists(), "two executions at once\n{}", daemon.log());
}

/// A daemon whose queue takes three and works on none.
fn full_queue() -> (Place, Daemon) {
    let place = Place::with_database("[queue]\nmax_pending = 3\n[pipeline.p]\nkind = \"noop\"\n");
    let daemon = Daemon::start(&place);
    place.ok(&["pause"]);
    (place, daemon)
}

fn files(place: &Place, number: usize) -> Vec<String> {
    (0..number).map(|n| place.file(&format!("file-{n}"), "x").to_str().unwrap().to_owned()).collect()
}

fn add<'a>(choice: &[&'a str], files: &'a [String]) -> Vec<&'a str> {
    ["add"].into_iter().chain(choice.iter().copied()).chain(files.iter().map(String::as_str)).collect()
}

fn printed(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_full_queue_refuses_exactly_what_is_beyond_its_bound() {
    let (place, _daemon) = full_queue();
    let files = files(&place, 5);
    let refused = place.exits(1, &add(&["--when-full", "refuse"], &files));
    assert_eq!(refused.ids().len(), 3, "what it took was printed: {refused:?}");
    assert!(refused.stderr.contains("queue.max_pending"), "{refused:?}");
    assert!(refused.stderr.contains("file-3") && refused.stderr.contains("file-4"), "{refused:?}");
    assert_eq!(place.in_state("pending"), 3);
    // What does not raise the number passes: known files, and a newer version of one that waits.
    assert_eq!(place.ok(&add(&["--when-full", "refuse"], &files[..3])).ids().len(), 3);
    fs::write(&files[0], "another content").unwrap();
    assert_eq!(place.ok(&add(&["--when-full", "refuse"], &files[..1])).ids(), [4]);
    assert_eq!(place.in_state("pending"), 3);
}

#[test]
fn add_waits_for_room_says_so_once_and_prints_what_was_taken_meanwhile() {
    let (place, _daemon) = full_queue();
    let files = files(&place, 8);
    let waiting = place.configured(&add(&[], &files)).spawn().unwrap();
    wait_until("it has filled the queue", || place.in_state("pending") == 3);
    sleep(Duration::from_millis(2_500));
    assert_eq!(place.in_state("pending"), 3, "the bound holds");
    place.ok(&["resume"]);
    let (code, ids, said) = printed(waiting);
    assert_eq!((code, ids.lines().count()), (0, 8), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("waiting for room"), "{said}");
    place.wait_count("completed", 8);
}

#[test]
fn what_was_taken_before_an_interrupt_was_printed() {
    let (place, _daemon) = full_queue();
    let files = files(&place, 5);
    let mut waiting = place.configured(&add(&["--quiet"], &files)).spawn().unwrap();
    // What it printed is read while it waits; SIGTERM, because whoever runs the tests in the background may have had
    // SIGINT ignored.
    let mut printed = BufReader::new(waiting.stdout.take().unwrap()).lines();
    let ids: Vec<String> = printed.by_ref().take(3).collect::<Result<_, _>>().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&waiting), Signal::TERM).unwrap();
    assert_eq!(printed.count(), 0, "nothing beyond {ids:?}");
    let ended = waiting.wait_with_output().unwrap();
    assert!(!ended.status.success());
    assert!(ended.stderr.is_empty(), "{ended:?}");
    assert_eq!(place.in_state("pending"), 3);
}

#[test]
fn without_a_daemon_a_full_queue_is_refused_because_nothing_drains_it() {
    let place = Place::with_database("[queue]\nmax_pending = 3\n[pipeline.p]\nkind = \"noop\"\n");
    let files = files(&place, 5);
    let refused = place.exits(1, &add(&[], &files));
    assert_eq!(refused.ids().len(), 3);
    assert!(refused.stderr.contains("no daemon runs"), "{refused:?}");
    assert_eq!(place.in_state("pending"), 3);
    place.ok(&["run", "--once"]);
    assert_eq!(place.ok(&add(&[], &files)).ids().len(), 5);
}

#[test]
fn a_first_scan_stops_at_the_bound_and_loses_nothing() {
    let place = Place::with(
        "[queue]\nmax_pending = 20\n[pipeline.p]\nkind = \"noop\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    for number in 0..300 {
        place.put(&format!("file-{number}"), "x");
    }
    place.ok(&["db", "migrate"]);
    place.ok(&["pause", "p"]);
    let _daemon = Daemon::start(&place);
    wait_until("a warning shows", || place.status()["warnings"].to_string().contains("max_pending"));
    for number in 0..20 {
        place.put(&format!("late-{number}"), "x");
    }
    assert_eq!(place.in_state("pending"), 20, "{}", place.status()["jobs"]);
    assert_eq!(place.cli(&["health"]).code, 1);
    place.ok(&["resume", "p"]);
    place.wait_count("completed", 320);
    wait_until("the warning is gone", || !place.status()["warnings"].to_string().contains("max_pending"));
}

#[test]
fn a_forced_scan_that_a_full_queue_breaks_off_says_so_and_takes_the_rest_later_and_none_twice() {
    // So many that the scan takes longer than the look at the number of jobs.
    const FILES: usize = 24_000;
    let place = Place::with(
        "[queue]\nmax_pending = 100\n[pipeline.p]\nkind = \"noop\"\nconcurrency = 8\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\nevents = [\"modify\"]\n",
    );
    for number in 0..FILES {
        fs::write(place.inbox().join(format!("file-{number}")), "x").unwrap();
    }
    let _daemon = Daemon::start(&place);
    let runs = || place.ok(&["runs", "list", "--json"]).json_lines();
    let over = |number: usize| runs().len() == number && text(&runs()[0], "state") == "completed";
    wait_until("all are noted, without a job", || over(1));
    place.ok(&["pause", "p"]);
    let told = place.exits(1, &["watch", "scan", "inbox", "--force"]);
    for words in ["broken off", "goes on by itself", "the queue is full"] {
        assert!(told.stderr.contains(words), "{told:?}");
    }
    assert!(place.in_state("pending") < i64::try_from(FILES).unwrap(), "the scan was through before");
    place.ok(&["resume", "p"]);
    place.wait_count("completed", FILES);
    wait_until("its run is over", || over(2));
    let database = Connection::open(place.database()).unwrap();
    let newest = database.query_row("SELECT max(version) FROM sources", [], |row| row.get::<_, i64>(0)).unwrap();
    // The first one was noted.
    assert_eq!((newest, place.in_state("completed")), (2, i64::try_from(FILES).unwrap()), "none was taken twice");
}

#[test]
fn a_run_once_takes_everything_although_the_bound_is_small() {
    let place = Place::with(
        "[queue]\nmax_pending = 7\n[pipeline.p]\nkind = \"noop\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    for number in 0..100 {
        place.put(&format!("file-{number}"), "x");
    }
    place.ok(&["run", "--once"]);
    assert_eq!(place.in_state("completed"), 100);
}

#[test]
fn an_attempt_that_ignores_its_end_is_ended_by_the_timeout_with_all_that_it_started() {
    let place = Place::with_database(
        "[pipeline.p]\nkind = \"exec\"\ntimeout = \"300ms\"\nretry = { max_attempts = 1 }\n\
         env = { INGESTD_TEST_MARK = \"@PLACE@\" }\n\
         command = [\"/bin/sh\", \"-c\", \"trap '' TERM; (trap '' TERM; sleep 300) & sleep 300; sleep 300\"]\n",
    );
    let job = place.add(&place.file("stubborn", "x"), &[]);
    let _daemon = Daemon::start(&place);
    let failed = place.wait_state(job, "failed");
    assert_eq!((text(&failed["error"], "kind"), count(&failed, "attempt")), ("timeout", 1), "{failed}");
    assert!(marked_processes(&place.mark()).is_empty());
}
