//! `ingestd status`

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Screen, Style, clean, count, size};
use super::stats::percent;
use super::status_report::{Report, gather};
use super::table::cut;
use super::watch_show::how_far;
use super::{Format, pipeline, runs, status_runs, time, watch_view};
use crate::clock::Timestamp;
use crate::job::StateName;
use crate::run::RunId;
use crate::watch::ScanKind;

/// The screen is drawn this far apart at least.
const REDRAW: Duration = Duration::from_millis(500);
/// Ages grow even when nothing changes, so it is drawn this far apart at most.
const REFRESH: Duration = Duration::from_secs(10);
/// Running jobs that are named.
const NAMED: usize = 8;

/// How to show the status.
#[derive(Args, Debug)]
pub struct Status {
    /// Keep it on the screen and redraw it after changes, until interrupted.
    #[arg(long, conflicts_with_all = ["summary", "failed", "run"])]
    watch: bool,
    /// All runs at a glance instead.
    #[arg(long, conflicts_with_all = ["failed", "run"])]
    summary: bool,
    /// What did not end well in runs: lines, and the jobs of lines.
    #[arg(long)]
    failed: bool,
    /// One run; with --failed, only what did not end well in this one.
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
    /// With --failed: at most this many.
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "failed")]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Status, context: &mut Context) -> Done {
    match (args.summary, args.failed, args.run) {
        (true, ..) => return status_runs::summary(args.format, context).await,
        (_, true, run) => return status_runs::failed(run, args.limit, args.format, context).await,
        (_, _, Some(run)) => return runs::show(run, args.format, context).await,
        (false, false, None) => {}
    }
    let stores = context.read().await?;
    if !args.watch {
        let report = gather(context, &stores).await?;
        show(&report, args.format, context)?;
        return Ok(0);
    }
    loop {
        // The subscription is older than the report, so that no change falls between them.
        let mut daemon = context.daemon().await?;
        if let Some(client) = &mut daemon {
            client.subscribe().await?;
        }
        loop {
            let report = gather(context, &stores).await?;
            context.screen.now = context.now();
            if context.screen.colour {
                write!(context.screen, "\x1b[H\x1b[2J")?;
            }
            show(&report, args.format, context)?;
            context.screen.flush()?;
            sleep(REDRAW).await;
            let Some(client) = &mut daemon else {
                sleep(REFRESH).await;
                break;
            };
            // A daemon that went away may have a successor.
            if let Ok(Err(_)) = timeout(REFRESH, client.changed()).await {
                break;
            }
        }
    }
}

fn show(report: &Report, format: Format, context: &mut Context) -> Result<(), Failure> {
    if format.json { context.screen.json(report) } else { people(report, &mut context.screen) }
}

fn people(report: &Report, screen: &mut Screen) -> Result<(), Failure> {
    daemon(report, screen)?;
    let jobs: Vec<String> = report
        .jobs
        .iter()
        .filter(|(state, n)| **n > 0 || matches!(state, StateName::Pending | StateName::Running))
        .map(|(state, n)| format!("{} {state}", count(*n)))
        .collect();
    line("jobs", &jobs.join(", "), screen)?;
    line("waiting", &waiting(report, screen.now), screen)?;
    let rates = report.rate_per_s;
    let rates = format!("{:.1}/s, {:.1}/s, {:.1}/s over 1, 5, 15 minutes", rates.one, rates.five, rates.fifteen);
    line("rate", &format!("{rates}; success {}", percent(report.success_rate)), screen)?;
    let database = &report.database;
    let backup = database
        .last_backup_at
        .map_or_else(|| "no backup".to_owned(), |at| format!("backup {}", time::relative(at, screen.now)));
    let sizes = format!("{}, log {}, {backup}", size(database.size_bytes), size(database.wal_bytes));
    line("database", &sizes, screen)?;
    if let Some(recovery) = &report.last_recovery {
        line("recovery", &figures(recovery, screen.now), screen)?;
    }
    if !report.maintenance.is_empty() {
        line("maintenance", &duties(report, screen.now), screen)?;
    }
    for warning in &report.warnings {
        let text = cut(&clean(&warning.message), screen.width.saturating_sub(13).max(40));
        let text = screen.paint(&text, if warning.critical { Style::Red } else { Style::Yellow });
        line("warning", &text, screen)?;
    }
    tables(report, screen)
}

fn daemon(report: &Report, screen: &mut Screen) -> Result<(), Failure> {
    let daemon = &report.daemon;
    let version = daemon.version.as_deref().unwrap_or("?");
    let since = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time::relative(time, screen.now));
    let text = match (daemon.running, daemon.started_at) {
        (true, _) => {
            let pid = daemon.pid.map(|pid| pid.to_string()).unwrap_or_default();
            let up = if daemon.stopping {
                screen.paint("stopping, once what runs has ended", Style::Yellow)
            } else {
                screen.paint("running", Style::Green)
            };
            format!("{up}, process {pid}, version {version}, started {}", since(daemon.started_at))
        }
        (false, None) => "not running, and never ran; start it with `ingestd run`".to_owned(),
        (false, Some(_)) => {
            let end = match daemon.stopped_at {
                Some(time) => format!("stopped {}", time::relative(time, screen.now)),
                None => format!("started {} and did not stop in order", since(daemon.started_at)),
            };
            format!("{}; version {version} {end}", screen.paint("not running", Style::Red))
        }
    };
    line("daemon", &text, screen)
}

fn waiting(report: &Report, now: Timestamp) -> String {
    let levels = report.waiting_by_priority.iter().rev().filter(|(_, n)| **n > 0);
    let levels: Vec<String> = levels.map(|(level, n)| format!("{} {level}", count(*n))).collect();
    if levels.is_empty() {
        return "nothing".to_owned();
    }
    let age = |ms| time::short(Duration::from_millis(ms));
    let mut parts = vec![levels.join(", ")];
    match (report.oldest_pending_ms, report.next_due_at) {
        (Some(ms), _) => parts.push(format!("oldest due for {}", age(ms))),
        (None, Some(due)) => parts.push(format!("next due {}", time::relative(due, now))),
        (None, None) => {}
    }
    parts.extend(report.drain_eta_ms.map(|ms| format!("drained in about {}", age(ms))));
    parts.join("; ")
}

/// What a recovery counts, in words.
const RECOVERED: [(&str, &str); 7] = [
    ("dead_boots", "daemons that had died"),
    ("released", "jobs taken back"),
    ("suspects", "suspects"),
    ("failed", "given up"),
    ("superseded", "superseded"),
    ("dispositions", "files on their way"),
    ("effects", "steps of which nobody knows"),
];

/// The figures of a recovery that are not zero.
fn figures(recovery: &Value, now: Timestamp) -> String {
    let at = recovery.get("at_ms").and_then(Value::as_i64).map(Timestamp::from_millis);
    let at = at.map_or_else(String::new, |at| format!("{}: ", time::relative(at, now)));
    let found: Vec<String> = RECOVERED
        .iter()
        .filter_map(|(key, words)| Some((words, recovery.get(key)?.as_u64().filter(|n| *n > 0)?)))
        .map(|(words, n)| format!("{words} {n}"))
        .collect();
    if found.is_empty() { format!("{at}nothing to put right") } else { format!("{at}{}", found.join(", ")) }
}

/// When each duty was last done.
fn duties(report: &Report, now: Timestamp) -> String {
    let age = |record: &Value| {
        let at = record.get("last_at").and_then(Value::as_str)?;
        let at = time::instant(at).ok()?;
        let failed = if record.get("error").is_some_and(|error| !error.is_null()) { " (failed)" } else { "" };
        Some(format!("{}{failed}", time::relative(at, now)))
    };
    let all = report.maintenance.iter().filter_map(|(duty, record)| Some(format!("{duty} {}", age(record)?)));
    let text: Vec<String> = all.collect();
    if text.is_empty() { "nothing yet".to_owned() } else { text.join(", ") }
}

fn tables(report: &Report, screen: &mut Screen) -> Result<(), Failure> {
    let pipelines = pipeline::table(report.pipelines.values());
    if !pipelines.is_empty() {
        writeln!(screen)?;
        pipelines.write(screen)?;
    }
    for watches in
        [watch_view::table(report.watches.values()), watch_view::counters(report.watches.values(), screen.now)]
    {
        if !watches.is_empty() {
            writeln!(screen)?;
            watches.write(screen)?;
        }
    }
    scans(report, screen)?;
    if !report.running.is_empty() {
        writeln!(screen)?;
    }
    for job in report.running.iter().take(NAMED) {
        let since = time::short(screen.now.since(Timestamp::from_millis(job.started_at_ms)));
        let text = format!("running {} for {since}: {}", job.id, clean(&super::view::lossy(&job.path.0)));
        writeln!(screen, "{}", super::table::middle(&text, screen.width))?;
    }
    if report.running.len() > NAMED {
        writeln!(screen, "and {} more", report.running.len() - NAMED)?;
    }
    Ok(())
}

/// The scans of whole folders that are under way.
fn scans(report: &Report, screen: &mut Screen) -> Result<(), Failure> {
    let under_way = report.watches.values().filter_map(|watch| {
        let scan = watch.activity.as_ref()?.scanning.as_ref().filter(|scan| scan.kind != ScanKind::Folders)?;
        Some(format!("scanning {}: {}", clean(&watch.name), how_far(scan)))
    });
    for (number, scan) in under_way.enumerate() {
        if number == 0 {
            writeln!(screen)?;
        }
        writeln!(screen, "{}", super::table::middle(&scan, screen.width))?;
    }
    Ok(())
}

/// A named line; what does not fit goes on below, under itself.
pub fn line(name: &str, text: &str, screen: &mut Screen) -> Result<(), Failure> {
    let room = screen.width.saturating_sub(13).max(40);
    let mut name = format!("{name:<12}");
    let mut rest = String::new();
    for word in text.split(' ') {
        if !rest.is_empty() && shown(&rest) + 1 + shown(word) > room {
            writeln!(screen, "{} {rest}", screen.paint(&name, Style::Dim))?;
            name = " ".repeat(12);
            rest.clear();
        }
        if !rest.is_empty() {
            rest.push(' ');
        }
        rest.push_str(word);
    }
    Ok(writeln!(screen, "{} {rest}", screen.paint(&name, Style::Dim))?)
}

/// How many columns a text takes, without its colours.
fn shown(text: &str) -> usize {
    let mut length = 0;
    let mut colour = false;
    for c in text.chars() {
        match c {
            '\x1b' => colour = true,
            'm' if colour => colour = false,
            _ if colour => {}
            _ => length += 1,
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::status_report::{Daemon, Database, Warning};
    use crate::cli::table::tests::Paper;
    use crate::cli::view::Rates;
    use crate::job::Priority;

    fn report() -> Report {
        Report {
            daemon: Daemon {
                running: true,
                stopping: false,
                pid: Some(7),
                started_at: Some(Timestamp::from_millis(1_700_000_000_000)),
                version: Some("0.1.0".to_owned()),
                stopped_at: None,
            },
            jobs: StateName::ALL.into_iter().map(|state| (state, 123_456)).collect(),
            waiting_by_priority: BTreeMap::from([(Priority::Low, 1), (Priority::Urgent, 1_000_000)]),
            pipelines: BTreeMap::new(),
            watches: BTreeMap::new(),
            running: Vec::new(),
            oldest_pending_ms: Some(61_000),
            next_due_at: None,
            rate_per_s: Rates::from([1.0, 2.0, 3.0]),
            success_rate: Some(0.991),
            drain_eta_ms: Some(5_000),
            database: Database {
                path: "/x".to_owned(),
                size_bytes: 1 << 20,
                wal_bytes: 0,
                schema_version: 1,
                last_backup_at: None,
            },
            maintenance: serde_json::Map::from_iter([(
                "prune".to_owned(),
                serde_json::json!({ "last_at": "2023-11-14T22:13:20.000Z", "error": "no" }),
            )]),
            last_recovery: Some(serde_json::json!({ "at_ms": 1_700_000_000_000_i64, "released": 3, "failed": 0 })),
            warnings: vec![Warning { critical: true, message: "x ".repeat(200) }],
        }
    }

    #[test]
    fn it_fits_eighty_columns_and_tells_everything() {
        let paper = Paper::default();
        people(&report(), &mut paper.screen()).unwrap();
        let text = paper.text();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for part in
            ["running, process 7", "1m ago: jobs taken back 3", "prune 1m ago (failed)", "1 000 000 urgent", "99.1 %"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn json_has_the_promised_fields() {
        let value = serde_json::to_value(report()).unwrap();
        for key in [
            "/daemon/running",
            "/daemon/pid",
            "/daemon/started_at",
            "/daemon/version",
            "/jobs/pending",
            "/pipelines",
            "/watches",
            "/oldest_pending_ms",
            "/rate_per_s/1m",
            "/rate_per_s/5m",
            "/rate_per_s/15m",
            "/success_rate",
            "/database/size_bytes",
            "/database/wal_bytes",
            "/database/schema_version",
            "/database/last_backup_at",
            "/maintenance/prune",
            "/last_recovery",
            "/warnings",
        ] {
            assert!(value.pointer(key).is_some(), "{key}");
        }
    }
}
