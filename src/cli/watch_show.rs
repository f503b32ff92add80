//! `ingestd watch show`

use std::io::Write;

use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Screen, Style, clean, count, plural};
use super::status::line;
use super::watch::one;
use super::watch_view::{ActivityView, WatchView, table};
use super::{Format, time, view};
use crate::clock::Timestamp;
use crate::control::{ScanSummary, ScanUnderWay};

pub async fn run(name: &str, format: Format, context: &mut Context) -> Done {
    let known = one(name, context).await?;
    let keys = known.watch.as_ref().map(view::watch).unwrap_or_default();
    if format.json {
        let mut value = serde_json::to_value(&known.view)?;
        value["definition"] = keys;
        context.screen.json(&value)?;
        return Ok(0);
    }
    people(&known.view, &mut context.screen)?;
    writeln!(context.screen)?;
    for (key, value) in keys.as_object().into_iter().flatten() {
        writeln!(context.screen, "{key} = {}", clean(&value.to_string()))?;
    }
    Ok(0)
}

fn people(view: &WatchView, screen: &mut Screen) -> Result<(), Failure> {
    table([view]).write(screen)?;
    writeln!(screen)?;
    if let Some(warning) = &view.warning {
        line("warning", &clean(warning), screen)?;
    }
    let Some(activity) = &view.activity else {
        return line("counted", "nothing: no daemon runs it", screen);
    };
    done(activity, screen)?;
    if let (Some(at), Some(scan)) = (view.last_scan_at, &activity.last_scan) {
        line("last scan", &scanned(at, scan, screen.now), screen)?;
    }
    for (at, excluded) in activity.excluded_by.iter().enumerate() {
        let text = format!("{}: {}", count(excluded.count), clean(&excluded.rule));
        line(if at == 0 { "left out" } else { "" }, &text, screen)?;
    }
    coverage(activity, screen)?;
    waiting(view, activity, screen)?;
    for (at, error) in activity.recent_errors.iter().enumerate() {
        let text = format!("{}: {}", clean(&error.relative), clean(&error.error));
        line(if at == 0 { "unreadable" } else { "" }, &screen.paint(&text, Style::Yellow), screen)?;
    }
    Ok(())
}

fn done(activity: &ActivityView, screen: &mut Screen) -> Result<(), Failure> {
    let mut parts = vec![
        format!("{} seen", count(activity.seen)),
        format!("{} taken", count(activity.taken)),
        format!("{} gone", count(activity.vanished)),
        plural(activity.errors, "error", "errors"),
    ];
    if activity.held_back > 0 {
        parts.push(format!("{} held back by delete_brake", count(activity.held_back)));
    }
    line("counted", &format!("{} since the daemon started", parts.join(", ")), screen)?;
    let last = activity.last_event_at;
    let last = last.map_or_else(|| "none yet".to_owned(), |at| format!("last {}", time::relative(at, screen.now)));
    line("events", &format!("{last}; lost {}", plural(activity.events_lost, "time", "times")), screen)?;
    if let Some(scan) = &activity.scanning {
        let since = time::short(screen.now.since(Timestamp::from_millis(scan.started_at_ms)));
        let (far, found) = (how_far(scan), count(scan.found));
        line("scanning", &format!("for {since}: {far}; {found} new or changed"), screen)?;
    }
    Ok(())
}

/// How far a scan under way has come.
pub fn how_far(scan: &ScanUnderWay) -> String {
    let files = plural(scan.files, "file", "files");
    format!("{files}, {:.0} per second, at ./{}", scan.rate_per_s, clean(&scan.current))
}

fn scanned(at: Timestamp, scan: &ScanSummary, now: Timestamp) -> String {
    let mut parts = vec![plural(scan.files, "file", "files"), format!("{} new or changed", count(scan.changed))];
    let others = [
        (scan.excluded, "left out"),
        (scan.not_ready, "of them without their ready file"),
        (scan.too_young, "too young"),
        (scan.vanished, "gone"),
        (scan.errors, "unreadable"),
    ];
    parts.extend(others.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(*n))));
    format!("{} in {}: {}", time::relative(at, now), time::short_ms(scan.duration_ms), parts.join(", "))
}

/// Which folders are watched how, and after how long a new file is noticed at the latest.
fn coverage(activity: &ActivityView, screen: &mut Screen) -> Result<(), Failure> {
    let coverage = &activity.coverage;
    let mut watched = Vec::new();
    if coverage.native_delay_ms.is_some() {
        watched.push(format!("{} by events", plural(coverage.native_folders, "folder", "folders")));
    }
    if coverage.polled_folders > 0 {
        let named: Vec<String> = coverage.polled.iter().map(|folder| format!("./{}", clean(folder))).collect();
        let more = if coverage.polled_folders > named.len() as u64 { ", …" } else { "" };
        let folders = plural(coverage.polled_folders, "folder", "folders");
        let why = coverage.polled_because.as_deref().map(|why| format!(" ({})", clean(why))).unwrap_or_default();
        watched.push(format!("{folders} polled with all below{why}: {}{more}", named.join(", ")));
    }
    if watched.is_empty() {
        return line("watched", &screen.paint("not at all", Style::Red), screen);
    }
    let unread = coverage.unread.len() as u64;
    if unread > 0 {
        watched.push(format!("{} not at all, see below", plural(unread, "entry", "entries")));
    }
    line("watched", &watched.join("; "), screen)?;
    let after = |ms: Option<i64>, what: &str| ms.map(|ms| format!("after {} {what}", time::short_ms(ms)));
    let delays: Vec<String> = [
        after(coverage.native_delay_ms, "by its event"),
        after(coverage.polled_delay_ms, "at most where it is polled"),
        after(coverage.worst_delay_ms, "at the worst").filter(|_| coverage.native_delay_ms.is_some()),
    ]
    .into_iter()
    .flatten()
    .collect();
    line("a new file", &format!("is taken, once nothing else holds it, {}", delays.join(", ")), screen)
}

fn waiting(view: &WatchView, activity: &ActivityView, screen: &mut Screen) -> Result<(), Failure> {
    for (at, file) in activity.waiting_files.iter().enumerate() {
        let text = format!("{}: {}", clean(&file.relative), file.words(screen.now));
        line(if at == 0 { "waiting" } else { "" }, &text, screen)?;
    }
    let not_ready = activity.last_scan.map_or(0, |scan| scan.not_ready);
    let more = (view.settling.unwrap_or_default() + not_ready).saturating_sub(activity.waiting_files.len() as u64);
    if more > 0 && !activity.waiting_files.is_empty() {
        line("", &format!("and about {} more", count(more)), screen)?;
    }
    Ok(())
}
