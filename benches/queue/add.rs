//! A command in another process, and the processor that it sets off.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::daemon::Daemon;
use crate::report::{self, Aim, median};
use crate::{Bench, database};

/// `ingestd add` in another process: how long the command takes, and when its processor runs, counted from the
/// command's start. The processor is `date`, whose own start is part of the figure.
pub fn command_to_start(_: &Bench) {
    let config = "
[pipeline.asked]
kind = \"exec\"
command = [\"/bin/date\", \"+%s%N\"]
[pipeline.load]
kind = \"exec\"
command = [\"/bin/true\"]
[watch.inbox]
path = \"ROOT/inbox\"
pipeline = \"load\"
settle = \"0s\"
";
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), config);
    adds(&daemon, "idle");
    for i in 0..20_000 {
        fs::write(daemon.path("inbox").join(format!("{i}.txt")), b"content").unwrap();
    }
    adds(&daemon, "under load");
    assert!(daemon.open_jobs() > 0, "there was load all the time");
    daemon.stop();
}

fn adds(daemon: &Daemon, how: &str) {
    let (mut commands, mut asked) = (Vec::new(), Vec::new());
    for i in 0..50 {
        let path = daemon.path(&format!("{}-{i}.txt", how.replace(' ', "-")));
        fs::write(&path, b"x").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        asked.push((path.to_str().unwrap().to_owned(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap()));
        let begun = Instant::now();
        let done = daemon.command(&["add", "--pipeline", "asked"]).arg(&path).output().unwrap();
        commands.push(begun.elapsed());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let starts: Vec<Duration> =
        asked.iter().map(|(path, at)| printed(daemon, path).checked_sub(*at).unwrap()).collect();
    let (start, command) = (median(starts.clone()), median(commands.clone()));
    let longest = |of: Vec<Duration>| format!("longest: {}; n = 50", report::ms(of.into_iter().max().unwrap()));
    let aim = Aim::under(start.as_secs_f64() * 1_000.0, 10.0, "ms");
    let what = format!("`ingestd add` → its processor runs, daemon {how}");
    report::row(&what, &report::ms(start), &longest(starts), None, &aim);
    let aim = Aim::under(command.as_secs_f64() * 1_000.0, 50.0, "ms");
    let what = format!("`ingestd add` itself, daemon {how}");
    report::row(&what, &report::ms(command), &longest(commands), None, &aim);
}

/// The time that the processor of an added file printed; waits for it.
fn printed(daemon: &Daemon, path: &str) -> Duration {
    let onlooker = database::look(&daemon.path("state/ingestd.db"));
    let mut query = onlooker
        .prepare(
            "SELECT CAST(o.output AS TEXT) FROM sources AS s JOIN jobs AS j ON j.source = s.id
             JOIN outputs AS o ON o.job = j.id WHERE s.scope = 0 AND s.identity = CAST(?1 AS BLOB)",
        )
        .unwrap();
    loop {
        if let Ok(output) = query.query_row([path], |row| row.get::<_, String>(0)) {
            return Duration::from_nanos(output.trim().parse().unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
