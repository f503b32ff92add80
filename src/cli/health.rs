//! `ingestd health`: the worst thing first, in one line.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Style, clean, plural};
use super::status_report::{Report, gather};
use super::{Format, time};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::job::StateName;

/// A due job may wait this long.
const LATE: Duration = Duration::from_mins(15);
/// With fewer successes than this over a quarter of an hour, something is wrong.
const SUCCESS: f64 = 0.5;

/// How to tell it.
#[derive(Args, Debug)]
pub struct Health {
    #[command(flatten)]
    format: Format,
}

/// How bad it is; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Fine = 0,
    Warning = 1,
    Critical = 2,
}

impl Grade {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

pub async fn run(args: Health, context: &mut Context) -> Done {
    let (grade, reason) = match look(context).await {
        Ok(verdict) => verdict,
        // A database that can't be read at all is what a monitor has to hear first; wrong usage stays 2 as well.
        // It is told in one line, whatever was said.
        Err(failure) => (Grade::Critical, failure.message.split_whitespace().collect::<Vec<_>>().join(" ")),
    };
    if args.format.json {
        context.screen.json(&serde_json::json!({ "status": grade.as_str(), "reason": reason }))?;
    } else {
        let style = [Style::Green, Style::Yellow, Style::Red][grade as usize];
        let word = context.screen.paint(grade.as_str(), style);
        writeln!(context.screen, "{word}: {}", clean(&reason))?;
    }
    Ok(grade as u8)
}

async fn look(context: &Context) -> Result<(Grade, String), Failure> {
    let stores = context.read().await?;
    let report = gather(context, &stores).await?;
    Ok(judge(&report, context.config()?, context.now()))
}

fn judge(report: &Report, config: &Config, now: Timestamp) -> (Grade, String) {
    let findings =
        [damage(report), space(report, config), absence(report), trouble(report), backup(report, config, now)];
    // The first of the worst ones: the order above is that of urgency.
    let worst = findings.into_iter().flatten().rev().max_by_key(|(grade, _)| *grade);
    worst.unwrap_or_else(|| (Grade::Fine, summary(report)))
}

fn summary(report: &Report) -> String {
    let jobs = |state| report.jobs.get(&state).copied().unwrap_or_default();
    let waiting = jobs(StateName::Pending) + jobs(StateName::Retrying);
    let up = if report.daemon.running { "the daemon runs" } else { "nothing waits, and no daemon runs" };
    format!("{up}; {waiting} waiting, {} running, {} failed", jobs(StateName::Running), jobs(StateName::Failed))
}

fn damage(report: &Report) -> Option<(Grade, String)> {
    if let Some(warning) = report.warnings.iter().find(|warning| warning.critical) {
        return Some((Grade::Critical, warning.message.clone()));
    }
    let figures = report.maintenance.get("check")?.get("figures")?;
    if figures.get("findings").and_then(Value::as_u64).unwrap_or(0) == 0 {
        return None;
    }
    let first = figures.get("first").and_then(|first| first.get(0)).and_then(Value::as_str).unwrap_or("damage");
    Some((Grade::Critical, format!("the last check found the database damaged: {first}; run `ingestd db check`")))
}

fn space(report: &Report, config: &Config) -> Option<(Grade, String)> {
    let stat = rustix::fs::statvfs(report.database.path.as_str()).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    (free < config.maintenance.min_free_space_bytes).then(|| {
        let free = super::screen::size(free);
        (Grade::Critical, format!("only {free} are free beside the database, so intake pauses; make room"))
    })
}

fn absence(report: &Report) -> Option<(Grade, String)> {
    if report.daemon.running {
        return None;
    }
    let open: u64 = [StateName::Pending, StateName::Retrying, StateName::Running]
        .iter()
        .filter_map(|state| report.jobs.get(state))
        .sum();
    if open > 0 {
        let open = plural(open, "job waits", "jobs wait");
        return Some((Grade::Critical, format!("{open} and no daemon runs; start it")));
    }
    Some((Grade::Warning, "no daemon runs; start it with `ingestd run` or `systemctl start ingestd`".to_owned()))
}

fn trouble(report: &Report) -> Option<(Grade, String)> {
    if let Some(warning) = report.warnings.first() {
        let more = report.warnings.len() - 1;
        let more = if more > 0 { format!(" (and {more} more; see `ingestd status`)") } else { String::new() };
        return Some((Grade::Warning, format!("{}{more}", warning.message)));
    }
    if let Some(ms) = report.oldest_pending_ms.filter(|ms| Duration::from_millis(*ms) > LATE) {
        let age = time::short(Duration::from_millis(ms));
        return Some((Grade::Warning, format!("a due job has waited for {age}; see `ingestd status`")));
    }
    let rate = report.success_rate.filter(|rate| *rate < SUCCESS)?;
    let failed = (1.0 - rate) * 100.0;
    Some((Grade::Warning, format!("{failed:.0} % failed in the last 15 minutes; see `ingestd failures`")))
}

/// No backup for two intervals. Before the first one, the age of the daemon's start counts.
fn backup(report: &Report, config: &Config, now: Timestamp) -> Option<(Grade, String)> {
    let interval = config.maintenance.backup.interval;
    if interval.is_zero() {
        return None;
    }
    let last = report.database.last_backup_at.or(report.daemon.started_at)?;
    let age = now.since(last);
    (age > interval * 2).then(|| {
        let age = time::short(age);
        (Grade::Warning, format!("no backup for {age}; make one with `ingestd db backup`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status_report::{Daemon, Database, Warning};
    use crate::cli::view::Rates;
    use crate::control::fake::config;
    use std::collections::BTreeMap;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn report() -> Report {
        let daemon = Daemon {
            running: true,
            stopping: false,
            pid: Some(1),
            started_at: Some(NOW),
            version: None,
            stopped_at: None,
        };
        let path = "/".to_owned();
        let database = Database { path, size_bytes: 0, wal_bytes: 0, schema_version: 1, last_backup_at: Some(NOW) };
        Report {
            daemon,
            jobs: BTreeMap::new(),
            waiting_by_priority: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            watches: BTreeMap::new(),
            running: Vec::new(),
            oldest_pending_ms: None,
            next_due_at: None,
            rate_per_s: Rates::from([0.0; 3]),
            success_rate: None,
            drain_eta_ms: None,
            database,
            maintenance: serde_json::Map::new(),
            last_recovery: None,
            warnings: Vec::new(),
        }
    }

    fn warning(critical: bool) -> Warning {
        Warning { critical, message: "something".to_owned() }
    }

    fn grade(change: impl FnOnce(&mut Report)) -> Grade {
        let mut report = report();
        change(&mut report);
        let mut config = config();
        config.maintenance.min_free_space_bytes = 0;
        judge(&report, &config, NOW).0
    }

    #[test]
    fn grades_follow_from_the_report() {
        assert_eq!(grade(|_| {}), Grade::Fine);
        assert_eq!(grade(|report| report.daemon.running = false), Grade::Warning);
        assert_eq!(grade(|report| report.warnings.push(warning(false))), Grade::Warning);
        assert_eq!(grade(|report| report.warnings.push(warning(true))), Grade::Critical);
        assert_eq!(grade(|report| report.oldest_pending_ms = Some(16 * 60_000)), Grade::Warning);
        assert_eq!(grade(|report| report.success_rate = Some(0.4)), Grade::Warning);
        let old = NOW.minus(Duration::from_hours(72));
        assert_eq!(grade(|report| report.database.last_backup_at = Some(old)), Grade::Warning);
        let stranded = |report: &mut Report| {
            report.daemon.running = false;
            report.jobs.insert(StateName::Pending, 1);
        };
        assert_eq!(grade(stranded), Grade::Critical);
        let damaged = serde_json::json!({ "figures": { "findings": 1, "first": ["row 5 missing"] } });
        assert_eq!(grade(|report| drop(report.maintenance.insert("check".to_owned(), damaged))), Grade::Critical);
    }

    #[test]
    fn the_worst_finding_is_the_one_that_is_told() {
        let mut report = report();
        report.warnings.push(warning(false));
        report.daemon.running = false;
        report.jobs.insert(StateName::Pending, 2);
        let (grade, reason) = judge(&report, &config(), NOW);
        assert_eq!(grade, Grade::Critical);
        assert!(reason.contains("2 jobs wait") || reason.contains("free"), "{reason}");
    }
}
