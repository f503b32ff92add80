use std::path::PathBuf;

use super::*;
use crate::control::LiveWatch;
use crate::job::JobId;
use crate::store::Taken;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

/// A file that changed so many milliseconds ago.
fn identity(age_ms: i64) -> FileIdentity {
    let at = (NOW.as_millis() - age_ms) * 1_000_000;
    FileIdentity { dev: 1, inode: 2, size: 3, mtime_ns: at, ctime_ns: at }
}

fn file(age_ms: i64) -> OnDisk {
    OnDisk::File(identity(age_ms), Writers::Unknown)
}

/// A file that was taken when it was a minute old.
fn known(state: Option<StateName>, reason: Option<SkipReason>) -> Account {
    Account {
        relative: PathBuf::from("a"),
        identity: identity(60_000),
        presence: Presence::Present,
        version: 1,
        taken: Some(Taken { version: 1, job: JobId(1), state, reason }),
    }
}

fn standing() -> Circumstances {
    Circumstances {
        now: NOW,
        taking: Taking::Yes,
        events: WatchEvents { add: true, modify: true, delete: false },
        patience: SECOND,
        min_age: Duration::ZERO,
        held_back: false,
    }
}

fn why(disk: &OnDisk, account: Option<&Account>, circumstances: &Circumstances) -> Reason {
    reason(disk, account, None, circumstances).unwrap()
}

#[test]
fn a_file_that_is_as_it_was_is_told_by_its_newest_job() {
    use StateName::{Cancelled, Completed, Failed, Pending, Retrying, Running, Skipped};
    for state in [Pending, Running, Retrying, Completed, Failed, Cancelled] {
        assert_eq!(why(&file(60_000), Some(&known(Some(state), None)), &standing()), Reason::Job(state));
    }
    for moot in [SkipReason::Unchanged, SkipReason::Superseded { by: JobId(2) }] {
        assert_eq!(why(&file(60_000), Some(&known(Some(Skipped), Some(moot))), &standing()), Reason::Skipped(moot));
    }
    let back = known(Some(Skipped), Some(SkipReason::Vanished));
    assert_eq!(why(&file(60_000), Some(&back), &standing()), Reason::Unexplained(Lost::Back));
}

#[test]
fn a_known_file_without_a_job_of_its_pipeline_is_known() {
    let pruned = known(None, None);
    let adopted = Account { taken: None, ..pruned.clone() };
    let by_another = Account { version: 2, ..known(Some(StateName::Completed), None) };
    for account in [pruned, adopted, by_another] {
        assert_eq!(why(&file(60_000), Some(&account), &standing()), Reason::Known, "{account:?}");
    }
}

#[test]
fn what_the_rules_leave_out_is_left_out_whatever_is_known_of_it() {
    let completed = known(Some(StateName::Completed), None);
    for account in [None, Some(&completed)] {
        let rule = Rule::Exclude("*.tmp".to_owned());
        assert_eq!(why(&OnDisk::Excluded(rule.clone()), account, &standing()), Reason::Excluded(rule));
        let suffix = ".done".to_owned();
        let waits = OnDisk::Excluded(Rule::NotReady(suffix.clone()));
        assert_eq!(why(&waits, account, &standing()), Reason::NotReady(suffix));
        let closed = "permission denied".to_owned();
        assert_eq!(why(&OnDisk::Unreadable(closed.clone()), account, &standing()), Reason::Unreadable(closed));
    }
}

#[test]
fn what_is_new_or_changed_and_nothing_keeps_is_unexplained() {
    let completed = known(Some(StateName::Completed), None);
    let vanished = Account { presence: Presence::Vanished, ..completed.clone() };
    let consumed = Account { presence: Presence::Consumed, ..completed.clone() };
    let table = [
        (None, 1_000, Lost::New),
        (Some(&vanished), 60_000, Lost::New),
        (Some(&consumed), 60_000, Lost::New),
        (Some(&completed), 1_000, Lost::Changed),
        // A file that took another's place and its times: its number tells.
        (Some(&completed), 60_001, Lost::Changed),
    ];
    for (account, age, lost) in table {
        assert_eq!(why(&file(age), account, &standing()), Reason::Unexplained(lost), "{account:?} {age}");
    }
}

#[test]
fn whether_files_are_taken_is_told_by_the_daemon_and_by_the_persons_pause() {
    let watch = Watch::of(PathBuf::from("/srv"), "p".to_owned());
    let told = |condition| LiveWatch {
        name: "w".to_owned(),
        condition,
        settling: 0,
        last_scan_at_ms: None,
        warning: None,
        delay_ms: 7_000,
        held_back: true,
        activity: crate::control::WatchActivity::default(),
    };
    let live = |condition, shut: &[Shut]| LiveStatus {
        watches: vec![told(condition)],
        shut: shut.to_vec(),
        ..LiveStatus::default()
    };
    let of = |paused, live: Option<&LiveStatus>| Circumstances::of("w", &watch, paused, live, NOW);
    let native = live(WatchCondition::Native, &[]);
    assert_eq!(of(true, Some(&native)).taking, Taking::Paused);
    assert_eq!(of(true, None).taking, Taking::Paused);
    assert_eq!(of(false, None).taking, Taking::NoDaemon);
    assert_eq!(of(false, Some(&LiveStatus::default())).taking, Taking::NotWatched);
    assert_eq!(of(false, Some(&native)).taking, Taking::Yes);
    assert_eq!(of(false, Some(&live(WatchCondition::Scanning, &[]))).taking, Taking::FirstScan);
    let shut = [Shut::TooManyWaiting];
    assert_eq!(of(false, Some(&live(WatchCondition::Native, &shut))).taking, Taking::Shut(shut.to_vec()));
    assert_eq!((of(false, Some(&native)).patience, of(false, None).patience), (SECOND * 7, SECOND));
    assert!(of(false, Some(&native)).held_back && !of(false, None).held_back);
    let missing = of(false, Some(&live(WatchCondition::Missing, &[])));
    assert_eq!(missing.patience, SECOND * 7 + watch.poll_interval);
}

#[test]
fn what_keeps_a_new_file_is_named() {
    let shut = vec![Shut::LowSpace];
    let table: [(Taking, i64, Reason); 9] = [
        (Taking::Yes, 999, Reason::Settling(WaitsFor::Quiet)),
        (Taking::Yes, 1_000, Reason::Unexplained(Lost::New)),
        (Taking::Paused, 999, Reason::Paused),
        (Taking::Shut(shut.clone()), 60_000, Reason::Shut(shut)),
        (Taking::FirstScan, 999, Reason::Settling(WaitsFor::Quiet)),
        (Taking::FirstScan, 60_000, Reason::Scanning),
        // Nobody waits for it to settle: it is new since the last daemon, and the next start takes it.
        (Taking::NoDaemon, 0, Reason::Unexplained(Lost::New)),
        (Taking::NotWatched, 0, Reason::Unexplained(Lost::New)),
        (Taking::Yes, -5_000, Reason::Settling(WaitsFor::Quiet)),
    ];
    for (taking, age, expected) in table {
        let circumstances = Circumstances { taking: taking.clone(), ..standing() };
        assert_eq!(why(&file(age), None, &circumstances), expected, "{taking:?} {age}");
    }
    let young = Circumstances { min_age: SECOND * 10, ..standing() };
    assert_eq!(why(&file(9_999), None, &young), Reason::Settling(WaitsFor::Age));
    let open = OnDisk::File(identity(60_000), Writers::Some);
    assert_eq!(why(&open, None, &standing()), Reason::Settling(WaitsFor::Close));
    let adds = Circumstances { events: WatchEvents { add: true, modify: false, delete: false }, ..standing() };
    let completed = known(Some(StateName::Completed), None);
    assert_eq!(why(&file(0), Some(&completed), &adds), Reason::Unasked);
}

#[test]
fn a_time_of_modification_in_the_future_hides_nothing() {
    let mut dated = identity(60_000);
    dated.mtime_ns = (NOW.as_millis() + 1_000_000_000) * 1_000_000;
    let seen = OnDisk::File(dated, Writers::None);
    assert_eq!(why(&seen, None, &standing()), Reason::Unexplained(Lost::New));
}

#[test]
fn the_daemons_word_explains_what_its_times_do_not() {
    let error = "permission denied".to_owned();
    let table = [
        (LiveFile { waits_for: Some(WaitsFor::Close), ..LiveFile::default() }, Reason::Settling(WaitsFor::Close)),
        (LiveFile { reading: true, ..LiveFile::default() }, Reason::Reading),
        (LiveFile { error: Some(error.clone()), ..LiveFile::default() }, Reason::Unreadable(error)),
        (LiveFile { scan_due: true, ..LiveFile::default() }, Reason::Scanning),
        (LiveFile { native: true, next_scan_at_ms: Some(1), ..LiveFile::default() }, Reason::Unexplained(Lost::New)),
    ];
    for (live, expected) in table {
        assert_eq!(reason(&file(60_000), None, Some(&live), &standing()), Some(expected), "{live:?}");
    }
}

#[test]
fn a_file_that_is_gone_is_noted_soon_and_lost_only_where_its_delete_is_asked_for() {
    let completed = known(Some(StateName::Completed), None);
    let deletes = Circumstances { events: WatchEvents { add: true, modify: true, delete: true }, ..standing() };
    let gone = |circumstances: &Circumstances, live: Option<&LiveFile>| {
        reason(&OnDisk::Gone, Some(&completed), live, circumstances)
    };
    assert_eq!(gone(&standing(), None), Some(Reason::Gone));
    assert_eq!(gone(&deletes, None), Some(Reason::Unexplained(Lost::Delete)));
    let leaving = LiveFile { leaving: true, ..LiveFile::default() };
    assert_eq!(gone(&deletes, Some(&leaving)), Some(Reason::Gone));
    assert_eq!(gone(&Circumstances { taking: Taking::NoDaemon, ..deletes.clone() }, None), Some(Reason::Gone));
    assert_eq!(gone(&Circumstances { held_back: true, ..deletes }, None), Some(Reason::HeldBack));
    let vanished = Account { presence: Presence::Vanished, ..completed };
    assert_eq!(reason(&OnDisk::Gone, Some(&vanished), None, &standing()), None);
    assert_eq!(reason(&OnDisk::Gone, None, None, &standing()), None);
}

#[test]
fn a_file_with_one_more_link_is_not_unexplained() {
    let taken = known(Some(StateName::Completed), None);
    let links = |at: &OnDisk| match at {
        OnDisk::File(identity, writers) => {
            OnDisk::File(FileIdentity { ctime_ns: identity.ctime_ns + 1, ..*identity }, *writers)
        }
        _ => OnDisk::Gone,
    };
    assert_eq!(why(&links(&file(60_000)), Some(&taken), &standing()), Reason::Touched);
    let grown = OnDisk::File(FileIdentity { size: 4, ..identity(60_000) }, Writers::None);
    assert_eq!(why(&grown, Some(&taken), &standing()), Reason::Unexplained(Lost::Changed));
}
