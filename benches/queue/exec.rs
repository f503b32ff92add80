//! Children: as many as there are files.

use std::fs;
use std::io::{Seek as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::report::{self, Aim, Rounds, Took, Watch};
use crate::{Bench, database};

/// `/bin/true` for each of 5 000 files, beside `xargs` that does nothing else.
pub fn beside_xargs(_: &Bench) {
    const JOBS: usize = 5_000;
    const AT_ONCE: usize = 4;
    let config = format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/true\"]\nconcurrency = {AT_ONCE}
[watch.inbox]\npath = \"ROOT/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n"
    );
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), &config);
    let onlooker = database::look(&daemon.path("state/ingestd.db"));
    let count = |states: &str| -> usize {
        let sql = format!("SELECT coalesce(sum(n), 0) FROM counters WHERE state IN ({states})");
        onlooker.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
    };
    let until = |states: &str, n: usize| {
        while count(states) != n {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mut round = 0;
    let rounds = Rounds::take(
        3,
        || {
            assert!(daemon.command(&["pause"]).status().unwrap().success());
            for i in 0..JOBS {
                fs::write(daemon.path("inbox").join(format!("{round}-{i}.txt")), b"content").unwrap();
            }
            until("'pending'", JOBS);
            round += 1;
            let watch = Watch::start();
            assert!(daemon.command(&["resume"]).status().unwrap().success());
            until("'completed'", round * JOBS);
            watch.stop()
        },
        || xargs(JOBS, AT_ONCE),
    );
    let (ours, xargs) = rounds.rates(JOBS as i64);
    let ratio = rounds.ratio();
    let what = format!("exec of /bin/true, 5 000 files, {AT_ONCE} at once");
    let beside = format!("xargs -P {AT_ONCE} -n 1: {xargs}");
    report::row(&what, &ours, &beside, Some(ratio), &Aim::at_least(ratio, 0.7));
    daemon.stop();
}

fn xargs(jobs: usize, at_once: usize) -> Took {
    let mut list = tempfile::tempfile().unwrap();
    for i in 0..jobs {
        writeln!(list, "{i}.txt").unwrap();
    }
    list.rewind().unwrap();
    let watch = Watch::start();
    let status = Command::new("xargs")
        .args(["-P", &at_once.to_string(), "-n", "1", "/bin/true"])
        .stdin(Stdio::from(list))
        .status()
        .unwrap();
    assert!(status.success());
    watch.stop()
}
