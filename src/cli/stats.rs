//! `ingestd stats`

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Screen, Style, approximate, plural};
use super::table::{Column, Table};
use super::{Format, time};
use crate::store::{Overview, PipelineStats, StageTimes, Stats as Figures};

/// Blocks of the throughput line, from nothing to the most.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Over how long to look.
#[derive(Args, Debug)]
pub struct Stats {
    /// Days to look back.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Report<'a> {
    days: u32,
    total: &'a PipelineStats,
    pipelines: &'a std::collections::BTreeMap<String, PipelineStats>,
    priorities: Value,
    depth: Value,
    per_hour: Vec<Value>,
    stages: &'a [StageTimes],
    bottleneck: Option<String>,
}

pub async fn run(args: Stats, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let span = Duration::from_secs(u64::from(args.days) * 86_400);
    let figures = stores.browse.stats(context.now().minus(span)).await?;
    let stages = stores.stages.stage_times(context.now().minus(span)).await?;
    let overview = stores.browse.overview().await?;
    let permits = |name: &str| context.config().ok()?.pipelines.get(name).map(|pipeline| pipeline.concurrency);
    let bottleneck = bottleneck(&figures, &overview, span, permits);
    if args.format.json {
        let report = Report {
            days: args.days,
            total: &figures.total,
            pipelines: &figures.pipelines,
            priorities: by_priority(&figures)?,
            depth: depth(&overview),
            per_hour: figures
                .per_hour
                .iter()
                .map(|(hour, n)| serde_json::json!({ "hour": hour, "completed": n }))
                .collect(),
            stages: &stages,
            bottleneck,
        };
        context.screen.json(&report)?;
        return Ok(0);
    }
    people(args.days, &figures, &overview, bottleneck.as_deref(), &mut context.screen)?;
    between_stages(&stages, &mut context.screen)?;
    Ok(0)
}

fn by_priority(figures: &Figures) -> Result<Value, Failure> {
    let mut map = Map::new();
    for (level, stats) in &figures.priorities {
        map.insert(level.to_string(), serde_json::to_value(stats)?);
    }
    Ok(map.into())
}

/// Waiting jobs by level.
fn depth(overview: &Overview) -> Value {
    let mut map = Map::new();
    for level in crate::job::Priority::ALL {
        let waiting = overview.total.by_state_and_priority.iter();
        let waiting: u64 = waiting.filter(|((state, l), _)| state.is_waiting() && *l == level).map(|(_, n)| *n).sum();
        map.insert(level.to_string(), waiting.into());
    }
    map.into()
}

fn people(
    days: u32,
    figures: &Figures,
    overview: &Overview,
    bottleneck: Option<&str>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let total = &figures.total;
    writeln!(
        screen,
        "last {}: {}, {} completed, {} failed, {} retried; success {}",
        plural(days.into(), "day", "days"),
        plural(total.executions, "execution", "executions"),
        total.completed,
        total.failed,
        total.retried,
        percent(total.success_rate)
    )?;
    if total.executions == 0 {
        return Ok(());
    }
    writeln!(screen)?;
    rows("PIPELINE", figures.pipelines.iter().map(|(name, stats)| (name.clone(), stats, None)), screen)?;
    writeln!(screen)?;
    let depth = depth(overview);
    let levels = figures.priorities.iter().rev();
    rows("LEVEL", levels.map(|(level, stats)| (level.to_string(), stats, depth[level.as_str()].as_u64())), screen)?;
    let hours: Vec<u64> = figures.per_hour.values().copied().collect();
    let recent = &hours[hours.len().saturating_sub(48)..];
    if let Some(most) = recent.iter().max().filter(|most| **most > 0) {
        let line: String = recent.iter().map(|n| block(*n, *most)).collect();
        writeln!(screen, "\ncompleted per hour (at most {most}): {line}")?;
    }
    if let Some(bottleneck) = bottleneck {
        let heading = screen.paint("bottleneck:", Style::Bold);
        writeln!(screen, "\n{heading} {bottleneck}")?;
    }
    Ok(())
}

/// How long jobs took from stage to stage; nothing where no pipeline has stages.
fn between_stages(stages: &[StageTimes], screen: &mut Screen) -> Result<(), Failure> {
    if stages.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        Column::Middle("PIPELINE"),
        Column::Left("FROM"),
        Column::Left("TO"),
        Column::Right("JOBS"),
        Column::Right("P50"),
        Column::Right("P95"),
    ]);
    for step in stages {
        table.row([
            step.pipeline.as_str().into(),
            step.from.as_str().into(),
            step.to.as_str().into(),
            step.jobs.to_string().into(),
            time::short_ms(step.p50_ms).into(),
            time::short_ms(step.p95_ms).into(),
        ]);
    }
    writeln!(screen)?;
    Ok(table.write(screen)?)
}

/// The block for this part of the most.
fn block(n: u64, most: u64) -> char {
    let height = usize::try_from((n * 7).div_ceil(most)).unwrap_or(0);
    BLOCKS[height.min(BLOCKS.len() - 1)]
}

fn rows<'a>(
    title: &'static str,
    rows: impl Iterator<Item = (String, &'a PipelineStats, Option<u64>)>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let mut table = Table::new([
        Column::Middle(title),
        Column::Right("DONE"),
        Column::Right("FAILED"),
        Column::Right("SUCCESS"),
        Column::Right("P50"),
        Column::Right("P95"),
        Column::Right("P99"),
        Column::Right("WAIT P50"),
        Column::Right("P95"),
        Column::Right("WAITING"),
    ]);
    for (name, stats, waiting) in rows {
        table.row([
            name.into(),
            stats.completed.to_string().into(),
            stats.failed.to_string().into(),
            percent(stats.success_rate).into(),
            time::short_ms(stats.p50_ms).into(),
            time::short_ms(stats.p95_ms).into(),
            time::short_ms(stats.p99_ms).into(),
            time::short_ms(stats.wait_p50_ms).into(),
            time::short_ms(stats.wait_p95_ms).into(),
            waiting.map(|n| n.to_string()).unwrap_or_default().into(),
        ]);
    }
    Ok(table.write(screen)?)
}

/// The pipeline that holds the queue up: the one with waiting jobs whose permits were busy for the largest share
/// of the time.
fn bottleneck(
    figures: &Figures,
    overview: &Overview,
    span: Duration,
    permits: impl Fn(&str) -> Option<usize>,
) -> Option<String> {
    let waiting = |name: &str| {
        let (counts, _) = overview.pipelines.get(name)?;
        let n: u64 = counts.by_state_and_priority.iter().filter(|((s, _), _)| s.is_waiting()).map(|(_, n)| n).sum();
        (n > 0).then_some(n)
    };
    let busy = figures.pipelines.iter().filter_map(|(name, stats)| {
        let permits = permits(name).unwrap_or(1).max(1);
        let busy = approximate(u64::try_from(stats.busy_ms).unwrap_or(0));
        let share = busy / (span.as_secs_f64() * 1_000.0 * approximate(permits as u64));
        Some((share, name, waiting(name)?, permits))
    });
    let (share, name, waiting, permits) = busy.max_by(|left, right| left.0.total_cmp(&right.0))?;
    let share = (share * 100.0).min(100.0);
    Some(format!("pipeline {name}: {waiting} waiting, {permits} at once, busy {share:.0} % of the time"))
}

/// A share for people.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}
