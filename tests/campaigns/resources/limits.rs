//! Limits of the process that are reached at the start or at run time: files, processes, file sizes, watches.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use crate::oracle::{Oracle, Word};
use crate::scenario::Scenario;
use crate::seed::Seed;
use crate::support::{
    Confined, Daemon, Limits, Output, Place, count, daemon_as_nobody, long, nobody_can_run, wait_until,
};

/// How long a limit holds. Nothing is waited for meanwhile: what happens under it is the daemon's affair.
const HOLDS: Duration = Duration::from_millis(1_500);

/// Sets the soft limit of a running process; `None`: as far as its hard limit goes. Asked for in the name of the
/// process's own user, because not even root may do that to others everywhere.
fn limit(pid: u32, resource: &str, to: Option<u64>) {
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap();
    let ask = |arguments: &[String]| {
        let mut command = Command::new("prlimit");
        let output = command
            .args(["--pid", &pid.to_string()])
            .args(arguments)
            .uid(owner.uid())
            .gid(owner.gid())
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let to = to.map_or_else(
        || ask(&[format!("--{resource}"), "--output=HARD".into(), "--noheadings".into(), "--raw".into()]),
        |to| to.to_string(),
    );
    ask(&[format!("--{resource}={to}:")]);
}

/// An `add` that may have to wait until the limit is gone.
fn begin_add(scenario: &Scenario, name: &str) -> (PathBuf, Child) {
    let path = scenario.place.at("files").join(name);
    scenario.oracle.put(&path, name);
    let mut command = scenario.place.configured(&["add"]);
    (path.clone(), command.arg(&path).spawn().unwrap())
}

/// What could not be taken is remembered, for a second try.
fn end_add(scenario: &Scenario, (path, child): (PathBuf, Child), refused: &mut Vec<PathBuf>) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let output =
        Output { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) };
    if !matches!(scenario.oracle.told(&path, &output), Word::Ok(_)) {
        refused.push(path);
    }
}

fn add_again(scenario: &Scenario, refused: Vec<PathBuf>) {
    for path in refused {
        assert!(matches!(scenario.oracle.add(&scenario.place, &path, &[]), Word::Ok(_)), "{}", path.display());
    }
}

#[test]
fn a_daemon_out_of_file_handles_loses_nothing_and_recovers_by_itself() {
    let seed = Seed::of("resources::handles");
    let scenario = Scenario::new("poll_interval = \"300ms\"\n");
    let (mut daemon, base) = scenario.at_work();
    let mut random = seed.random();
    let rounds = if long() { 60 } else { 6 };
    let mut unanswered = 0;
    for round in 0..rounds {
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
        // Below what is open nothing can be opened at all; above, this or that can.
        limit(daemon.pid(), "nofile", Some(u64::try_from(open).unwrap() + random.u64(..14) - 4));
        let adds: Vec<_> = (0..2).map(|number| begin_add(&scenario, &format!("added-{number}-{round}"))).collect();
        for number in 0..8 {
            scenario.arrive(&format!("folder-{round}/file-{number}"));
        }
        sleep(HOLDS);
        assert!(!daemon.exited(), "the daemon gave up\n{}", daemon.log());
        limit(daemon.pid(), "nofile", None);
        let mut refused = Vec::new();
        for add in adds {
            end_add(&scenario, add, &mut refused);
        }
        unanswered += refused.len();
        add_again(&scenario, refused);
        scenario.wait_drained();
    }
    base.wait_back(&daemon, &scenario.place);
    let figures = scenario.oracle.verdict(&scenario.place, 0);
    scenario.oracle.moved(&scenario.place.inbox(), &scenario.place.at("done"));
    assert_eq!(daemon.stop(), 0);
    let spent = scenario.place.jobs().into_iter().find(|job| count(job, "attempt") != 1);
    assert!(
        spent.is_none(),
        "a shortage spent an attempt: {:?}",
        spent.map(|job| scenario.place.show(count(&job, "id")))
    );
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    seed.report(format!("{rounds} shortages, {unanswered} commands refused, {figures}"));
}

/// An allocation that fails ends the process, as a kill does, or is an error like any other.
#[test]
fn a_daemon_out_of_memory_goes_on_or_ends_and_loses_nothing() {
    let seed = Seed::of("resources::memory");
    let scenario = Scenario::new("");
    let (mut daemon, _) = scenario.at_work();
    let mut random = seed.random();
    let rounds = if long() { 60 } else { 6 };
    let mut ended = 0;
    for round in 0..rounds {
        // Of what is mapped some is free; little more can be had. In every second round somebody asks for a lot.
        let mapped = bytes_mapped(daemon.pid());
        limit(daemon.pid(), "as", Some(mapped + random.u64(..8 << 20)));
        if round % 2 == 1 {
            let mut socket = UnixStream::connect(scenario.place.at("state/ingestd.sock")).unwrap();
            // Whether it is taken is not the question.
            let _ = socket.write_all(&vec![b' '; 48 << 20]);
        }
        let add = begin_add(&scenario, &format!("added-{round}"));
        for number in 0..40 {
            scenario.arrive(&format!("folder-{round}/file-{number}"));
        }
        sleep(HOLDS);
        if daemon.exited() {
            ended += 1;
            scenario.oracle.fault("out of memory");
            daemon = Daemon::start(&scenario.place);
        } else {
            limit(daemon.pid(), "as", None);
        }
        let mut refused = Vec::new();
        end_add(&scenario, add, &mut refused);
        add_again(&scenario, refused);
        scenario.wait_drained();
    }
    // Each file of a round may have been at work when it ended.
    let figures = scenario.oracle.verdict(&scenario.place, 41 * rounds);
    scenario.oracle.moved(&scenario.place.inbox(), &scenario.place.at("done"));
    assert_eq!(daemon.stop(), 0);
    seed.report(format!("{rounds} shortages, the daemon ended by {ended}, {figures}"));
}

/// The address space of a process.
fn bytes_mapped(pid: u32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4_096
}

#[test]
fn a_start_with_too_few_file_handles_works_or_says_so() {
    let seed = Seed::of("resources::few_handles");
    let scenario = Scenario::new("");
    let (mut refused, mut started) = (0, 0);
    for handles in [6, 10, 14, 18, 22, 26, 30, 40, 64] {
        scenario.arrive(&format!("file-{handles}"));
        let plain = scenario.place.configured(&["run"]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {handles}; exec \"$0\" \"$@\"")]);
        command.arg(plain.get_program()).args(plain.get_args()).env_clear().current_dir(scenario.place.at(""));
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut daemon = Daemon::spawn(&scenario.place, command);
        wait_until("it is ready or gone", || daemon.exited() || daemon.said("READY=1") > 0);
        if daemon.exited() {
            let log = daemon.log();
            let last = log.lines().last().unwrap_or_default();
            assert_ne!(daemon.exit_code(), 0, "{log}");
            assert!(last.contains("ingestd") && !log.contains("panicked"), "with {handles} handles: {log}");
            assert!(
                log.contains("os error 24") || log.contains("unable to open") || log.contains("LimitNOFILE"),
                "with {handles} handles: {log}"
            );
            refused += 1;
        } else {
            started += 1;
            daemon.kill();
            scenario.oracle.fault("kill");
        }
    }
    let _daemon = Daemon::start(&scenario.place);
    scenario.wait_drained();
    let figures = scenario.oracle.verdict(&scenario.place, 2 * started);
    scenario.oracle.moved(&scenario.place.inbox(), &scenario.place.at("done"));
    seed.report(format!("{refused} starts refused, {started} made, {figures}"));
}

#[test]
fn a_daemon_that_can_start_no_process_and_no_thread_defers_and_recovers() {
    let seed = Seed::of("resources::processes");
    let place = Place::new();
    if !nobody_can_run(&place) {
        return;
    }
    let oracle = Oracle::new(&place.at(""), "");
    place.configure(&format!(
        "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 2\n\
         retry = {{ base = \"20ms\", max = \"200ms\", max_attempts = 2 }}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n",
        oracle.command
    ));
    let mut daemon = daemon_as_nobody(&place);
    oracle.put(&place.inbox().join("first"), "first");
    place.wait_count("completed", 1);
    for (round, idle_s) in [0, if long() { 75 } else { 12 }].into_iter().enumerate() {
        // Threads and connections that have nothing to do may end, so that the next call would need new ones.
        sleep(Duration::from_secs(idle_s));
        // Somebody else's processes count as well, and there are more of this one's threads than one.
        limit(daemon.pid(), "nproc", Some(1));
        for number in 0..6 {
            oracle.put(&place.inbox().join(format!("file-{number}-{round}")), format!("{number}"));
        }
        sleep(HOLDS);
        let alive = fs::read_dir(format!("/proc/{}/task", daemon.pid())).is_ok_and(|tasks| tasks.count() > 0);
        assert!(alive, "the daemon gave up\n{}", daemon.log());
        limit(daemon.pid(), "nproc", None);
        place.wait_count("completed", 1 + 6 * (round + 1));
    }
    let figures = oracle.verdict(&place, 0);
    let jobs = place.jobs();
    assert!(jobs.iter().all(|job| count(job, "attempt") == 1), "a shortage spent an attempt");
    assert_eq!(daemon.stop(), 0);
    seed.report(format!("2 shortages, {figures}"));
}

#[test]
fn a_limit_on_file_sizes_is_a_write_error_and_no_death_by_signal() {
    let seed = Seed::of("resources::file_sizes");
    let scenario = Scenario::new("");
    let mut daemon = Daemon::start(&scenario.place);
    scenario.arrive("first");
    scenario.wait_drained();
    let most = fs::read_dir(scenario.place.at("state")).unwrap();
    let most = most.map(|entry| entry.unwrap().metadata().unwrap().len()).max().unwrap();
    limit(daemon.pid(), "fsize", Some(most));
    let (mut number, mut refused) = (0, Vec::new());
    let begun = std::time::Instant::now();
    while !daemon.exited() && begun.elapsed() < Duration::from_secs(20) {
        for _ in 0..10 {
            number += 1;
            scenario.arrive(&format!("file-{number}"));
        }
        let add = begin_add(&scenario, &format!("added-{number}"));
        end_add(&scenario, add, &mut refused);
    }
    // It can't know what became of the write, so it leaves, with a word and not by the signal.
    assert_eq!(daemon.exit_code(), 1, "{}", daemon.log());
    let log = daemon.log();
    assert!(log.lines().last().unwrap_or_default().contains("ingestd"), "{log}");
    scenario.oracle.fault("exit");
    let _daemon = Daemon::start(&scenario.place);
    add_again(&scenario, refused);
    scenario.wait_drained();
    // Two ran.
    let figures = scenario.oracle.verdict(&scenario.place, 2);
    scenario.oracle.moved(&scenario.place.inbox(), &scenario.place.at("done"));
    seed.report(figures);
}

#[test]
fn a_daemon_without_enough_watches_polls_and_loses_nothing() {
    if !Confined::is_possible() {
        return;
    }
    let seed = Seed::of("resources::watches");
    let mut random = seed.random();
    let mut total = crate::oracle::Figures::default();
    for limits in [
        Limits { watches: Some(random.u32(1..12)), ..Limits::default() },
        Limits { instances: Some(0), ..Limits::default() },
    ] {
        let scenario = Scenario::new("poll_interval = \"200ms\"\n");
        let confined = Confined::start(&scenario.place, limits, "");
        for round in 0..3 {
            for folder in 0..15 {
                scenario.arrive(&format!("folder-{folder}/file-{round}"));
            }
            scenario.wait_drained();
        }
        total += scenario.oracle.verdict(&scenario.place, 0);
        scenario.oracle.moved(&scenario.place.inbox(), &scenario.place.at("done"));
        drop(confined);
    }
    seed.report(total);
}
