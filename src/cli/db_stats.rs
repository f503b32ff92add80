//! `ingestd db stats`: sizes and counts, and what follows from them.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::context::Context;
use super::failure::Done;
use super::screen::{Style, approximate, count, size};
use super::{Format, db_files, time, view};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::job::StateName;
use crate::store::{Counts, Sizes};

/// A log larger than this is not being checkpointed as it should be.
const LARGE_WAL: u64 = 64 << 20;
/// Free pages that are worth giving back: this share of the database, and this many bytes.
const FREE_SHARE: f64 = 0.25;
const FREE_BYTES: u64 = 16 << 20;
/// Final jobs above which a shorter retention is worth a thought.
const MANY_FINAL: u64 = 5_000_000;

#[derive(Serialize)]
struct Report {
    path: String,
    schema_version: i64,
    #[serde(flatten)]
    sizes: Sizes,
    free_bytes: u64,
    jobs: std::collections::BTreeMap<StateName, u64>,
    backups: usize,
    last_backup_at: Option<Timestamp>,
    recommendations: Vec<String>,
}

pub async fn run(format: Format, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let sizes = stores.upkeep.sizes().await?;
    let counts = stores.browse.overview().await?.total;
    let config = context.config()?;
    let backups = db_files::backups(&db_files::backup_folder(config));
    let last_backup_at = backups.first().map(|backup| backup.made_at);
    let report = Report {
        path: view::lossy(&stores.upkeep.path()),
        schema_version: stores.browse.schema_version().await?,
        sizes,
        free_bytes: sizes.free_pages * sizes.page_bytes,
        jobs: view::by_state(&counts),
        backups: backups.len(),
        last_backup_at,
        recommendations: recommendations(&sizes, &counts, last_backup_at, config, context.now()),
    };
    if format.json {
        context.screen.json(&report)?;
        return Ok(0);
    }
    let now = context.screen.now;
    let backup = last_backup_at
        .map_or_else(|| "none".to_owned(), |at| format!("{}, the newest {}", report.backups, time::relative(at, now)));
    let jobs: Vec<String> = report.jobs.iter().map(|(state, n)| format!("{} {state}", count(*n))).collect();
    let facts = [
        ("database", report.path.clone()),
        ("schema", format!("version {}", report.schema_version)),
        ("size", format!("{}, of it free {}", size(sizes.size_bytes), size(report.free_bytes))),
        ("log", size(sizes.wal_bytes)),
        ("jobs", jobs[..4].join(", ")),
        ("", jobs[4..].join(", ")),
        ("backups", backup),
    ];
    for (name, value) in facts {
        let name = context.screen.paint(&format!("{name:<12}"), Style::Dim);
        writeln!(context.screen, "{name} {value}")?;
    }
    writeln!(context.screen)?;
    if report.recommendations.is_empty() {
        writeln!(context.screen, "nothing to recommend")?;
    }
    for recommendation in &report.recommendations {
        writeln!(context.screen, "* {recommendation}")?;
    }
    Ok(0)
}

fn recommendations(
    sizes: &Sizes,
    counts: &Counts,
    last_backup: Option<Timestamp>,
    config: &Config,
    now: Timestamp,
) -> Vec<String> {
    let mut all = Vec::new();
    let free = sizes.free_pages * sizes.page_bytes;
    if free > FREE_BYTES && approximate(free) > approximate(sizes.size_bytes) * FREE_SHARE {
        all.push(format!("{} are free inside the database: `ingestd db vacuum` gives them back", size(free)));
    }
    if sizes.wal_bytes > LARGE_WAL {
        all.push(format!("the log has {}: `ingestd db checkpoint` moves it into the database", size(sizes.wal_bytes)));
    }
    let finished = counts.in_state(StateName::Completed) + counts.in_state(StateName::Skipped);
    if finished > MANY_FINAL {
        all.push(format!("{} ended jobs are kept: shorten maintenance.retention", count(finished)));
    }
    let backup = &config.maintenance.backup;
    let late = |at: Timestamp| !backup.interval.is_zero() && now.since(at) > backup.interval * 2;
    match last_backup {
        None if backup.interval.is_zero() => {
            all.push(
                "backups are off: set maintenance.backup.interval, or copy the state directory yourself".to_owned(),
            );
        }
        None => all.push("there is no backup yet: `ingestd db backup` makes one".to_owned()),
        Some(at) if late(at) => {
            let age = time::short(now.since(at));
            all.push(format!("the newest backup is {age} old: `ingestd db backup` makes one; does the daemon run?"));
        }
        Some(_) => {}
    }
    if config.maintenance.check_interval == Duration::ZERO {
        all.push("checks are off: run `ingestd db check` now and then, or set maintenance.check_interval".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fake::config;

    #[test]
    fn a_healthy_database_needs_nothing_and_a_neglected_one_much() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let counts = Counts::default();
        let healthy = Sizes { size_bytes: 1 << 20, wal_bytes: 0, free_pages: 0, page_bytes: 4096 };
        assert!(recommendations(&healthy, &counts, Some(now), &config(), now).is_empty());
        let neglected = Sizes { size_bytes: 100 << 20, wal_bytes: 65 << 20, free_pages: 10_000, page_bytes: 4096 };
        let all = recommendations(&neglected, &counts, None, &config(), now).join("\n");
        for part in ["db vacuum", "db checkpoint", "db backup"] {
            assert!(all.contains(part), "{part}: {all}");
        }
    }
}
