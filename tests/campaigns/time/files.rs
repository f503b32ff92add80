//! Files whose times lie far in the past or the future: found by scans and by events, under a clock that is right and
//! under one that is 400 days late.

use std::fs::{self, File};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{DAY, Steppable, Timed};
use crate::seed::Seed;

/// Modification times in seconds since 1970: before it, at it, where 32 bits end with and without a sign, and 2100.
const DATES: [i64; 7] = [-DAY, 0, 1, (1 << 31) - 1, 1 << 31, 1 << 32, 4_102_444_800];
/// Beside now.
const SHIFTS: [i64; 4] = [-400 * DAY, -DAY, DAY, 400 * DAY];

#[test]
fn files_of_any_date_are_processed_once() {
    let seed = Seed::of("time::files");
    let timed = Timed::new("");
    let Some(clock) = Steppable::new(&timed.place) else { return };
    put_all(&timed, "found");
    let daemon = clock.start(&timed.place);
    put_all(&timed, "told");
    timed.wait_drained();
    drop(daemon);
    timed.oracle.fault("kill");
    clock.show(-400 * DAY);
    put_all(&timed, "found-late");
    let _daemon = clock.start(&timed.place);
    put_all(&timed, "told-late");
    timed.wait_drained();
    // Another date alone is no new version.
    for path in crate::oracle::contents(&timed.place.inbox()).keys() {
        let file = File::options().write(true).open(timed.place.inbox().join(path)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_hours(24)).unwrap();
    }
    timed.place.ok(&["watch", "scan", "inbox"]);
    timed.wait_drained();
    let figures = timed.oracle.verdict(&timed.place, 0);
    assert_eq!(figures.executions, 4 * (DATES.len() + SHIFTS.len()));
    seed.report(figures);
}

fn put_all(timed: &Timed, name: &str) {
    for date in DATES {
        put(timed, &format!("{name}-{date}"), date);
    }
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    for shift in SHIFTS {
        put(timed, &format!("{name}-now{shift:+}"), now + shift);
    }
}

/// A file with this date under its name at once.
fn put(timed: &Timed, name: &str, date: i64) {
    let (hidden, path) = (timed.place.inbox().join(".dated.part"), timed.place.inbox().join(name));
    fs::write(&hidden, name).unwrap();
    let since = Duration::from_secs(date.unsigned_abs());
    let when = if date < 0 { UNIX_EPOCH - since } else { UNIX_EPOCH + since };
    File::options().write(true).open(&hidden).unwrap().set_modified(when).unwrap();
    fs::rename(hidden, &path).unwrap();

    timed.oracle.has_put(&path, name);
}
