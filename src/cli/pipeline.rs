//! `ingestd pipeline`

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Format;
use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Style, clean};
use super::stats::percent;
use super::table::{Cell, Column, Table};
use super::throttle::{self, BreakerView, RateView};
use super::view::{Rates, by_state};
use super::watch;
use crate::config::{Config, ProcessorKind};
use crate::control::{BreakerCondition, LiveStatus};
use crate::job::StateName;
use crate::store::{Counts, Overview};

/// See [`Verb`].
#[derive(Args, Debug)]
pub struct Pipeline {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the pipelines with their depth, rates and errors.
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Everything about one pipeline.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        format: Format,
    },
}

/// A pipeline, as `status` and `pipeline` tell it.
#[derive(Debug, Serialize)]
pub struct PipelineView {
    /// Its name.
    pub name: String,
    /// What does the work; null where the configuration no longer defines it.
    pub kind: Option<&'static str>,
    /// Jobs at once.
    pub concurrency: Option<usize>,
    /// Whether a person paused it.
    pub paused: bool,
    /// Jobs by state.
    pub jobs: BTreeMap<StateName, u64>,
    /// Jobs that ended, per second.
    pub rate_per_s: Rates,
    /// See [`Counts::success_rate`].
    pub success_rate: Option<f64>,
    /// Its circuit breaker; null where it is turned off, and where no daemon runs.
    pub breaker: Option<BreakerView>,
    /// Its rate limit; null where there is none.
    pub rate: Option<RateView>,
}

impl PipelineView {
    /// How many of its jobs are in a state.
    pub fn count(&self, state: StateName) -> u64 {
        self.jobs.get(&state).copied().unwrap_or_default()
    }
}

/// Every pipeline that the configuration defines or the database knows.
pub fn views(config: &Config, overview: &Overview, live: Option<&LiveStatus>) -> Vec<PipelineView> {
    let names: BTreeSet<&String> = config.pipelines.keys().chain(overview.pipelines.keys()).collect();
    let nothing = (Counts::default(), false);
    let view = |name: &String| {
        let (counts, paused) = overview.pipelines.get(name).unwrap_or(&nothing);
        let defined = config.pipelines.get(name);
        let (breaker, rate) = throttle::views(live.and_then(|live| live.throttles.get(name)), defined);
        PipelineView {
            name: name.clone(),
            kind: defined.map(|pipeline| kind(&pipeline.kind)),
            concurrency: defined.map(|pipeline| pipeline.concurrency),
            paused: *paused,
            jobs: by_state(counts),
            rate_per_s: counts.rate_per_s.into(),
            success_rate: counts.success_rate,
            breaker,
            rate,
        }
    };
    names.into_iter().map(view).collect()
}

const fn kind(kind: &ProcessorKind) -> &'static str {
    match kind {
        ProcessorKind::Exec(_) => "exec",
        ProcessorKind::Http(_) => "http",
        ProcessorKind::Noop => "noop",
    }
}

/// Pipelines as a table.
pub fn table<'a>(views: impl IntoIterator<Item = &'a PipelineView>) -> Table {
    let mut table = Table::new([
        Column::Middle("PIPELINE"),
        Column::Left("STATUS"),
        Column::Right("WAITING"),
        Column::Right("RUNNING"),
        Column::Right("RETRYING"),
        Column::Right("FAILED"),
        Column::Right("5M RATE"),
        Column::Right("SUCCESS"),
    ]);
    for view in views {
        let breaker = view.breaker.as_ref().map(|breaker| breaker.state);
        let status = match (view.paused, view.kind, breaker) {
            (true, _, _) => Cell::styled("paused", Style::Yellow),
            (false, _, Some(BreakerCondition::Open)) => Cell::styled("open", Style::Red),
            (false, _, Some(BreakerCondition::Probing)) => Cell::styled("probing", Style::Yellow),
            (false, Some(kind), _) => kind.into(),
            (false, None, _) => Cell::styled("undefined", Style::Red),
        };
        let failed = view.count(StateName::Failed);
        table.row([
            view.name.as_str().into(),
            status,
            view.count(StateName::Pending).to_string().into(),
            view.count(StateName::Running).to_string().into(),
            view.count(StateName::Retrying).to_string().into(),
            Cell::styled(failed.to_string(), if failed > 0 { Style::Red } else { Style::Plain }),
            format!("{:.1}/s", view.rate_per_s.five).into(),
            percent(view.success_rate).into(),
        ]);
    }
    table
}

pub async fn run(args: Pipeline, context: &mut Context) -> Done {
    let overview = context.read().await?.browse.overview().await?;
    let live = watch::live(context).await?;
    let views = views(context.config()?, &overview, live.as_ref());
    match args.verb {
        Verb::List { format } if format.json => views.iter().try_for_each(|view| context.screen.json(view))?,
        Verb::List { .. } if views.is_empty() => {
            writeln!(context.screen, "no pipelines; add a [pipeline.NAME] section to the configuration")?;
        }
        Verb::List { .. } => table(&views).write(&mut context.screen)?,
        Verb::Show { name, format } => {
            let view = views
                .into_iter()
                .find(|view| view.name == name)
                .ok_or_else(|| Failure::not_found(format!("no pipeline `{name}`; see `ingestd pipeline list`")))?;
            show(&view, format, context)?;
        }
    }
    Ok(0)
}

fn show(view: &PipelineView, format: Format, context: &mut Context) -> Result<(), Failure> {
    let prefix = format!("pipeline.{}.", view.name);
    let settings = context.loaded()?.settings.clone();
    let settings: Vec<_> = settings.iter().filter(|setting| setting.key.starts_with(&prefix)).collect();
    if format.json {
        let settings: BTreeMap<&str, &str> = settings
            .iter()
            .map(|setting| (setting.key.strip_prefix(&prefix).unwrap_or(&setting.key), setting.value.as_str()))
            .collect();
        let mut value = serde_json::to_value(view)?;
        value["settings"] = serde_json::to_value(settings)?;
        return context.screen.json(&value);
    }
    table([view]).write(&mut context.screen)?;
    let now = context.now();
    let breaker = view.breaker.as_ref().map(|breaker| ("breaker", breaker.text(now)));
    let held: Vec<_> = breaker.into_iter().chain(view.rate.as_ref().map(|rate| ("rate", rate.text(now)))).collect();
    if !held.is_empty() {
        writeln!(context.screen)?;
    }
    for (name, text) in held {
        writeln!(context.screen, "{name:<8} {}", clean(&text))?;
    }
    if !settings.is_empty() {
        writeln!(context.screen)?;
    }
    for setting in settings {
        write!(context.screen, "{} = ", setting.key.strip_prefix(&prefix).unwrap_or(&setting.key))?;
        context.screen.foreign(setting.value.as_bytes())?;
        writeln!(context.screen)?;
    }
    Ok(())
}
