//! Processors that misbehave: they print without end, fork, ignore SIGTERM, leave children behind inside and outside of
//! their group, close their streams, read what nobody writes, eat memory until somebody ends them.
//!
//! Each does its harm on its first attempt and is recorded on its second, so that the oracle can judge all of them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::base::Base;
use crate::oracle::Oracle;
use crate::seed::Seed;
use crate::support::{Daemon, Place, count, long, marked_processes, text, wait_until};

/// What a file's first attempt does, by the beginning of its name. All but the last two end by `timeout` at the latest.
const MANNERS: [(&str, &str); 11] = [
    // Both streams at once; `FLOOD` bytes each.
    ("floods", "head -c FLOOD /dev/zero >&2 & head -c FLOOD /dev/zero; wait; exit 1"),
    ("floods-on", "exec cat /dev/zero"),
    ("forks", "i=0; while [ $i -lt 50 ]; do sleep 1000 & i=$((i + 1)); done; exit 1"),
    ("deaf", "trap '' TERM INT HUP; while :; do sleep 1; done"),
    ("deaf-children", "for i in 1 2 3; do (trap '' TERM; while :; do sleep 1; done) & done; wait"),
    ("closes", "exec 0<&- 1>&- 2>&-; sleep 1000"),
    ("closes-early", "exec 1>&- 2>&-; exit 1"),
    ("reads", "cat > /dev/null; exit 1"),
    ("stops", "kill -STOP $$; exit 1"),
    // More address space than the limit above it allows.
    ("eats", "ulimit -v 200000; x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"),
    ("kills-itself", "kill -KILL $$"),
];

fn place(oracle: &Oracle, place: &Place) {
    let mut script =
        String::from("[ -e \"HERE/met-$INGESTD_JOB\" ] || { : > \"HERE/met-$INGESTD_JOB\"; case \"${1##*/}\" in\n");
    for (name, manner) in MANNERS {
        writeln!(script, "{name}.*) {manner} ;;").unwrap();
    }
    script.push_str("esac; }\nexec /bin/sh \"HERE/oracle.sh\" \"$1\"\n");
    let flood: u64 = if long() { 4 << 30 } else { 256 << 20 };
    let script = script.replace("HERE", place.at("").to_str().unwrap().trim_end_matches('/'));
    fs::write(place.at("rude.sh"), script.replace("FLOOD", &flood.to_string())).unwrap();
    assert!(oracle.command.contains("oracle.sh"));
    place.configure(
        "[pipeline.record]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"@PLACE@/rude.sh\", \"{path}\"]\nconcurrency = 6\n\
         timeout = \"TIMEOUT\"\nenv = { INGESTD_TEST_MARK = \"@PLACE@\" }\n\
         retry = { base = \"10ms\", max = \"100ms\", max_attempts = 3 }\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n"
            .replace("TIMEOUT", if long() { "30s" } else { "4s" })
            .as_str(),
    );
}

/// The most memory that a process has had, in bytes.
pub(super) fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The bytes below a folder.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() { size_of(&path) } else { entry.metadata().map_or(0, |meta| meta.len()) }
    };
    entries.flatten().map(size).sum()
}

#[test]
fn rude_processors_harm_only_their_own_attempt() {
    let seed = Seed::of("resources::rude");
    let here = Place::new();
    let oracle = Oracle::new(&here.at(""), "");
    place(&oracle, &here);
    let daemon = Daemon::start(&here);
    oracle.put(&here.inbox().join("polite"), "polite");
    here.wait_count("completed", 1);
    let base = Base::of(&daemon, &here);
    let mut files: Vec<String> = MANNERS.iter().map(|(name, _)| format!("{name}.bad")).collect();
    files.extend((0..20).map(|number| format!("polite-{number}")));
    seed.random().shuffle(&mut files);
    for name in &files {
        oracle.put(&here.inbox().join(name), name);
    }
    let (mut spooled, mut done) = (0, 1);
    while done < i64::try_from(1 + files.len()).unwrap() {
        wait_until("somebody is done", || {
            spooled = spooled.max(size_of(&here.at("state/spool")));
            here.in_state("completed") > done
        });
        done = here.in_state("completed");
    }
    wait_until("nobody is left", || marked_processes(&here.mark()).is_empty());
    let peak = peak(daemon.pid());
    assert!(peak < 160 << 20, "the daemon had {peak} bytes");
    assert!(spooled < 64 << 20, "the spool had {spooled} bytes");
    base.wait_back(&daemon, &here);
    // The first attempts were never recorded.
    let figures = oracle.verdict(&here, 0);
    let jobs = here.jobs();
    let tried_twice = jobs.iter().filter(|job| count(job, "attempt") == 2).count();
    assert_eq!(tried_twice, MANNERS.len(), "{:?}", attempts(&jobs));
    assert!(jobs.iter().all(|job| count(job, "crashes") == 0));
    seed.report(format!("{} manners, peak {} MiB, spool {} KiB, {figures}", MANNERS.len(), peak >> 20, spooled >> 10));
}

fn attempts(jobs: &[serde_json::Value]) -> Vec<(String, i64)> {
    jobs.iter().map(|job| (text(job, "path").to_owned(), count(job, "attempt"))).collect()
}

/// Whoever leaves the group by `setsid` is no longer the daemon's to end: what is promised is that nobody waits for
/// him, and that he holds neither handles nor memory of the daemon.
#[test]
fn whoever_leaves_the_group_is_not_waited_for() {
    let here = Place::new();
    let oracle = Oracle::new(
        &here.at(""),
        "left=LEDGER.left-$INGESTD_JOB\nsetsid /bin/sh -c ': > \"$0\"; exec sleep 1000' \"$left\" &\n\
         until [ -e \"$left\" ]; do sleep 0.02; done",
    );
    here.configure(&format!(
        "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 4\nenv = {{ INGESTD_TEST_MARK = \"@PLACE@\" }}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n",
        oracle.command
    ));
    let mut daemon = Daemon::start(&here);
    oracle.put(&here.inbox().join("first"), "first");
    here.wait_count("completed", 1);
    let base = Base::of(&daemon, &here);
    for number in 0..20 {
        oracle.put(&here.inbox().join(format!("file-{number}")), format!("{number}"));
    }
    here.wait_count("completed", 21);
    let leavers = marked_processes(&here.mark());
    base.wait_back(&daemon, &here);
    let figures = oracle.verdict(&here, 0);
    assert_eq!(daemon.stop(), 0);
    for (pid, _) in &leavers {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(),
            rustix::process::Signal::KILL,
        );
    }
    assert_eq!(leavers.len(), 21, "they outlive their jobs");
    assert_eq!(figures.repeated, 0);
}
