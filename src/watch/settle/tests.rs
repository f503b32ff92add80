//! Sightings over time, with the time given.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const OLD: Duration = Duration::ZERO;

fn identity(size: u64) -> FileIdentity {
    FileIdentity { size, ..FileIdentity::default() }
}

fn settling(settle: Duration) -> (Settling, Instant, PathBuf) {
    (Settling::new(settle, 10), Instant::now(), PathBuf::from("a"))
}

#[test]
fn a_file_is_whole_when_quiet_for_settle_and_nobody_writes() {
    let (mut files, start, a) = settling(SECOND);
    assert!(files.noticed(a.clone(), Sign::Changed, start));
    assert!(files.due(start, 10).is_empty());
    let later = start + SECOND / 2;
    files.noticed(a.clone(), Sign::Changed, later);
    // Looked at a second after the first event: the second event is only half a second old.
    let now = start + SECOND;
    assert_eq!(files.due(now, 10), std::slice::from_ref(&a));
    assert!(files.looked(&a, identity(1), Writers::None, OLD, now).is_none());
    assert_eq!(files.next_due(), Some(later + SECOND));
    assert!(files.looked(&a, identity(1), Writers::None, OLD, later + SECOND).is_some());
    assert!(files.is_empty() && files.next_due().is_none());
}

#[test]
fn a_file_that_somebody_writes_waits_whatever_its_age_and_a_close_brings_the_look_forward() {
    let (mut files, start, a) = settling(SECOND);
    files.found(a.clone(), identity(1), SECOND * 1000, false, start);
    assert_eq!(files.due(start, 10), std::slice::from_ref(&a));
    assert!(files.looked(&a, identity(1), Writers::Some, OLD, start).is_none());
    let much_later = start + SECOND * 100;
    assert!(files.looked(&a, identity(1), Writers::Some, OLD, much_later).is_none());
    assert_eq!(files.next_due(), Some(much_later + REOPEN.1));
    files.noticed(a.clone(), Sign::Closed, much_later);
    assert_eq!(files.next_due(), Some(much_later + SECOND));
}

#[test]
fn a_change_that_no_event_told_starts_the_quiet_time_anew() {
    let (mut files, start, a) = settling(SECOND);
    files.found(a.clone(), identity(1), Duration::ZERO, false, start);
    assert!(files.looked(&a, identity(2), Writers::Unknown, OLD, start + SECOND).is_none());
    assert!(files.looked(&a, identity(2), Writers::Unknown, OLD, start + SECOND * 2).is_some());
}

#[test]
fn an_old_file_that_nobody_has_open_is_whole_at_once() {
    let (mut files, now, a) = settling(SECOND);
    files.found(a.clone(), identity(1), SECOND * 2, false, now);
    assert_eq!(files.due(now, 10), std::slice::from_ref(&a));
    assert!(files.looked(&a, identity(1), Writers::None, OLD, now).is_some());
}

#[test]
fn without_settle_the_close_event_decides_then_the_probe_then_two_equal_sightings() {
    let (mut files, now, a) = settling(Duration::ZERO);
    files.noticed(a.clone(), Sign::Closed, now);
    assert!(!files.wants_probe(&a));
    assert!(files.looked(&a, identity(1), Writers::Unknown, OLD, now).is_some());

    files.noticed(a.clone(), Sign::Changed, now);
    assert!(files.wants_probe(&a));
    assert!(files.looked(&a, identity(1), Writers::Some, OLD, now).is_none());
    assert!(files.looked(&a, identity(1), Writers::None, OLD, now).is_some());

    files.noticed(a.clone(), Sign::Changed, now);
    assert!(files.looked(&a, identity(1), Writers::Unknown, OLD, now).is_none());
    assert!(files.looked(&a, identity(2), Writers::Unknown, OLD, now + UNPROBED).is_none());
    assert!(files.looked(&a, identity(2), Writers::Unknown, OLD, now + UNPROBED * 2).is_some());
}

#[test]
fn the_set_is_bounded_and_a_parked_file_wakes() {
    let (mut files, now, a) = settling(SECOND);
    for n in 0..10 {
        assert!(files.noticed(PathBuf::from(n.to_string()), Sign::Changed, now));
    }
    assert!(!files.noticed(a.clone(), Sign::Changed, now));
    assert!(files.noticed(PathBuf::from("3"), Sign::Changed, now));
    files.remove(Path::new("0"));
    assert!(files.noticed(a.clone(), Sign::Changed, now));
    files.park(&a, now);
    assert!(!files.due(now + SECOND, 100).contains(&a));
    files.wake(&a, now);
    assert!(files.due(now, 100).contains(&a));
}

#[test]
fn a_file_that_could_not_be_read_is_looked_at_again_after_a_pause() {
    let (mut files, now, a) = settling(SECOND);
    assert!(files.again(&a, true, SECOND * 3, now) && files.again(&a, false, SECOND * 5, now));
    assert_eq!(files.next_due(), Some(now + SECOND * 5));
    let whole = files.looked(&a, identity(1), Writers::None, OLD, now + SECOND * 5).unwrap();
    assert!(whole.force && files.is_empty());
    for n in 0..10 {
        files.noticed(PathBuf::from(n.to_string()), Sign::Changed, now);
    }
    assert!(!files.again(&a, false, SECOND, now) && files.again(Path::new("3"), false, SECOND, now));
}

#[test]
fn a_young_file_waits_for_its_age_and_then_for_whatever_else_is_missing() {
    for settle in [Duration::ZERO, SECOND] {
        let (mut files, start, a) = settling(settle);
        files.noticed(a.clone(), Sign::Closed, start);
        assert!(files.looked(&a, identity(1), Writers::None, SECOND * 5, start).is_none());
        assert_eq!((files.next_due(), files.too_young()), (Some(start + SECOND * 5), 1));
        let later = start + SECOND * 5;
        assert!(files.looked(&a, identity(1), Writers::None, OLD, later).is_some(), "{settle:?}");
        assert_eq!((files.len(), files.too_young()), (0, 0));
    }
    let (mut files, start, a) = settling(SECOND * 9);
    files.noticed(a.clone(), Sign::Changed, start);
    assert!(files.looked(&a, identity(1), Writers::None, SECOND * 5, start).is_none());
    assert_eq!((files.next_due(), files.too_young()), (Some(start + SECOND * 9), 0), "the quiet time is longer");
    assert!(files.looked(&a, identity(1), Writers::Some, SECOND * 50, start).is_none());
    assert_eq!((files.still_open(), files.too_young()), (1, 0), "its writer may change everything");
}

#[test]
fn a_file_that_is_young_for_long_is_looked_at_now_and_then() {
    let (mut files, start, a) = settling(OLD);
    files.found(a.clone(), identity(1), SECOND, false, start);
    assert!(files.looked(&a, identity(1), Writers::None, Duration::MAX, start).is_none());
    assert_eq!(files.next_due(), Some(start + YOUNG));
    files.clear();
    assert_eq!(files.too_young(), 0);
}

#[test]
fn the_age_is_that_of_the_last_modification_by_the_wall_clock() {
    let file = |mtime_ns| FileIdentity { mtime_ns, ctime_ns: i64::MAX, ..FileIdentity::default() };
    let wall = Timestamp::from_millis(10_000);
    let left = |min_age_s, mtime_ns| young_for(SECOND * min_age_s, &file(mtime_ns), wall);
    assert_eq!(left(0, i64::MAX), Duration::ZERO, "without min_age nothing is too young");
    assert_eq!(left(4, 10_000_000_000), SECOND * 4);
    assert_eq!(left(4, 8_500_000_001), Duration::from_nanos(2_500_000_001));
    assert_eq!(left(4, 6_000_000_000), Duration::ZERO);
    assert_eq!(left(4, i64::MIN), Duration::ZERO);
    assert_eq!(left(4, 12_000_000_000), SECOND * 6, "a file from the future");
    assert!(left(4, i64::MAX) > SECOND * 1_000_000_000);
    let century = Duration::from_hours(36_500 * 24);
    assert_eq!(young_for(century, &file(10_000_000_000), wall), century);
}

#[test]
fn what_a_file_waits_for_is_known() {
    let waits = |files: &Settling, a: &Path| files.iter().find(|(name, _)| *name == a).unwrap().1.waits_for;
    let (mut files, now, a) = settling(SECOND);
    files.noticed(a.clone(), Sign::Changed, now);
    assert_eq!(waits(&files, &a), WaitsFor::Quiet);
    for (writers, young, expected) in [
        (Writers::Some, OLD, WaitsFor::Close),
        (Writers::None, SECOND * 2, WaitsFor::Age),
        (Writers::Unknown, OLD, WaitsFor::Quiet),
    ] {
        files.looked(&a, identity(1), writers, young, now);
        assert_eq!(waits(&files, &a), expected);
        let counted = (files.still_open(), files.too_young());
        assert_eq!(counted, (usize::from(expected == WaitsFor::Close), usize::from(expected == WaitsFor::Age)));
    }
    files.looked(&a, identity(1), Writers::Some, OLD, now);
    files.park(&a, now);
    assert_eq!((waits(&files, &a), files.still_open()), (WaitsFor::OlderVersion, 0));
    let (mut files, now, a) = settling(OLD);
    files.noticed(a.clone(), Sign::Changed, now);
    files.looked(&a, identity(1), Writers::Unknown, OLD, now);
    assert_eq!(waits(&files, &a), WaitsFor::SecondLook);
}
