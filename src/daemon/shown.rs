//! A watch's status as it goes over the socket: moments of the timers become times of the wall clock.

use tokio::time::Instant;

use super::watches::WatchShown;
use crate::clock::Timestamp;
use crate::control::{LiveWatch, ScanSummary, ScanUnderWay, WaitingFile, WatchActivity, WatchCondition};
use crate::watch::{LastScan, Mode, Root, ScanProgress, SettlingFile, WatchStatus};

/// A watch as the daemon runs it, at this time.
pub fn watch(watch: WatchShown, now: Timestamp) -> LiveWatch {
    let status = watch.status;
    let condition = match (watch.paused, &status.root, &status.mode) {
        (true, _, _) => WatchCondition::Paused,
        (_, Root::Missing(_), _) => WatchCondition::Missing,
        (_, _, _) if status.last_scan.is_none() => WatchCondition::Scanning,
        (_, _, Mode::Poll(_)) => WatchCondition::Poll,
        _ => WatchCondition::Native,
    };
    LiveWatch {
        name: watch.name,
        condition,
        settling: u64::try_from(status.settling).unwrap_or(u64::MAX),
        last_scan_at_ms: status.last_scan.map(|scan| scan.at.as_millis()),
        warning: (!status.warnings.is_empty()).then(|| status.warnings.join("; ")),
        delay_ms: status.coverage.polled_delay_ms.or(status.coverage.native_delay_ms).unwrap_or_default(),
        held_back: status.held_back > 0 || status.root == Root::Replaced,
        activity: activity(status, now),
    }
}

fn activity(status: WatchStatus, now: Timestamp) -> WatchActivity {
    let instant = Instant::now();
    WatchActivity {
        seen: status.seen,
        taken: status.taken,
        vanished: status.vanished,
        errors: status.errors,
        recent_errors: status.recent_errors,
        last_event_at_ms: status.last_event_at.map(Timestamp::as_millis),
        events_lost: status.events_lost,
        last_scan: status.last_scan.map(summary),
        excluded_by: status.excluded_by,
        scanning: status.scanning.map(|scan| under_way(scan, now)),
        waiting: status.settling_files.into_iter().map(|file| waiting(file, instant, now)).collect(),
        not_ready: status.not_ready_files,
        coverage: status.coverage,
        held_back: status.held_back,
    }
}

const fn summary(scan: LastScan) -> ScanSummary {
    ScanSummary {
        duration_ms: scan.duration_ms,
        files: scan.files,
        changed: scan.changed,
        excluded: scan.excluded,
        not_ready: scan.not_ready,
        too_young: scan.too_young,
        vanished: scan.vanished,
        errors: scan.errors,
    }
}

fn under_way(scan: ScanProgress, now: Timestamp) -> ScanUnderWay {
    ScanUnderWay {
        kind: scan.kind,
        started_at_ms: scan.started_at.as_millis(),
        files: scan.files,
        found: scan.found,
        rate_per_s: scan.rate_per_s(now.since(scan.started_at)),
        current: scan.current,
    }
}

fn waiting(file: SettlingFile, instant: Instant, now: Timestamp) -> WaitingFile {
    let wall = |at: Instant| if at >= instant { now.plus(at - instant) } else { now.minus(instant - at) };
    WaitingFile {
        relative: file.relative,
        waits_for: file.waits_for,
        quiet_since_ms: wall(file.quiet_since).as_millis(),
        next_look_at_ms: wall(file.next_look).as_millis(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::watch::WaitsFor;

    #[tokio::test]
    async fn what_waits_is_told_by_the_wall_clock() {
        let (instant, now) = (Instant::now(), Timestamp::from_millis(1_000_000));
        let file = SettlingFile {
            relative: "a".to_owned(),
            waits_for: WaitsFor::Age,
            quiet_since: instant.checked_sub(Duration::from_secs(5)).unwrap(),
            next_look: instant + Duration::from_secs(7),
        };
        let told = waiting(file, instant, now);
        assert_eq!((told.quiet_since_ms, told.next_look_at_ms), (995_000, 1_007_000));
    }

    #[test]
    fn a_paused_watch_is_paused_whatever_else_it_is() {
        let shown =
            |paused, status| watch(WatchShown { name: "w".to_owned(), paused, status }, Timestamp::from_millis(0));
        let missing = WatchStatus { root: Root::Missing("no".to_owned()), ..WatchStatus::default() };
        assert_eq!(shown(true, missing.clone()).condition, WatchCondition::Paused);
        assert_eq!(shown(false, missing).condition, WatchCondition::Missing);
        assert_eq!(shown(false, WatchStatus::default()).condition, WatchCondition::Scanning);
    }
}
