//! `ingestd audit`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Style, clean, count, plural};
use super::view::{lossy, path_base64};
use super::watch;
use super::watch_view::{self, Known};
use super::{Format, explain_path};
use crate::account::audit::{Audit as Audited, Daemon, wait};
use crate::account::count::{Counts, Kind};
use crate::account::file::{Circumstances, Lost, Taking};
use crate::config;
use crate::control::{Client, LiveFile, LiveStatus, Request, Stores, WirePath};
use crate::watch::tree::Tree;

/// What to audit.
#[derive(Args, Debug)]
pub struct Audit {
    /// This watch only.
    watch: Option<String>,
    /// Name at most this many unexplained files of each watch; 0: all. All are counted.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

/// What an audit came to.
#[derive(Serialize)]
struct Report {
    /// Whether everything is accounted for.
    clean: bool,
    /// Files that nothing explains, over all watches.
    unexplained: u64,
    /// Whether a daemon runs.
    daemon: bool,
    /// Each watch, by name.
    watches: BTreeMap<String, WatchReport>,
}

/// One watch.
#[derive(Serialize)]
struct WatchReport {
    path: String,
    files: u64,
    folders: u64,
    /// How many files have which kind of reason.
    counts: BTreeMap<Kind, u64>,
    /// By the rule that leaves them out.
    excluded: BTreeMap<String, u64>,
    skipped: BTreeMap<&'static str, u64>,
    unexplained: Vec<UnexplainedFile>,
    /// Why there is no account of it.
    error: Option<String>,
}

/// A file that nothing explains.
#[derive(Serialize)]
struct UnexplainedFile {
    path: String,
    relative: String,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

/// A running daemon, over its socket.
pub struct Asked(pub Client);

#[async_trait]
impl Daemon for Asked {
    async fn files(&mut self, watch: &str, names: &[PathBuf]) -> Option<Vec<LiveFile>> {
        let files = names.iter().map(|name| WirePath(name.clone())).collect();
        let answer = self.0.call(&Request::WatchFiles { name: watch.to_owned(), files }).await.ok()?;
        serde_json::from_value(answer).ok()
    }
}

pub async fn run(args: Audit, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let live = watch::live(context).await?;
    let mut all = watch_view::known(context.config()?, Some(&stores), live.as_ref()).await?;
    if let Some(name) = &args.watch {
        let unknown = || Failure::not_found(format!("no watch `{name}`; see `ingestd watch list`"));
        let known = all.remove(name).ok_or_else(unknown)?;
        all = BTreeMap::from([(name.clone(), known)]);
    }
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut report = Report { clean: true, unexplained: 0, daemon: live.is_some(), watches: BTreeMap::new() };
    let mut written = Vec::new();
    for (name, known) in &all {
        let watch = one(name, known, limit, live.as_ref(), &stores, context).await?;
        report.unexplained += watch.report.counts.get(&Kind::Unexplained).copied().unwrap_or_default();
        report.clean &= watch.report.error.is_none();
        written.push(watch.text);
        report.watches.insert(name.clone(), watch.report);
    }
    report.clean &= report.unexplained == 0;
    let code = u8::from(!report.clean);
    if args.format.json {
        context.screen.json(&report)?;
    } else {
        people(&report, &written, context)?;
    }
    Ok(code)
}

/// A watch, for programs and for people.
struct Told {
    report: WatchReport,
    text: Text,
}

/// What people read of a watch.
#[derive(Default)]
struct Text {
    /// Rules that leave files out, each with where it stands and how many.
    rules: Vec<(String, u64)>,
    /// Why its new files are not taken.
    taking: Option<Taking>,
}

async fn one(
    name: &str,
    known: &Known,
    limit: usize,
    live: Option<&LiveStatus>,
    stores: &Stores,
    context: &Context,
) -> Result<Told, Failure> {
    let fail = |error: String| Told { report: WatchReport::failed(&known.view.path, error), text: Text::default() };
    let Some(watch) = &known.watch else {
        return Ok(fail(known.view.warning.clone().unwrap_or_default()));
    };
    let tree = match Tree::new(watch, context.config()?.state_directory()) {
        Ok(tree) => Arc::new(tree),
        Err(error) => return Ok(fail(error.to_string())),
    };
    let circumstances = Circumstances::of(name, watch, known.view.paused, live, context.now());
    let taking = circumstances.taking.clone();
    let mut daemon = match taking {
        Taking::Yes | Taking::FirstScan => context.daemon().await?.map(Asked),
        _ => None,
    };
    let audit = Audited {
        watch: name.to_owned(),
        pipeline: watch.pipeline.clone(),
        tree,
        wait: wait(&circumstances),
        circumstances,
        accounts: stores.accounts.clone(),
        daemon: daemon.as_mut().map(|daemon| daemon as &mut dyn Daemon),
        clock: context.clock(),
        limit,
    };
    match audit.run().await {
        Ok(counts) => {
            let rules = rules(&counts, name, known, watch, context)?;
            Ok(Told { report: WatchReport::of(&counts, watch), text: Text { rules, taking: Some(taking) } })
        }
        Err(error) => Ok(fail(error.to_string())),
    }
}

/// The rules that leave files out, each with where it stands, the one that leaves out most first.
fn rules(
    counts: &Counts,
    name: &str,
    known: &Known,
    watch: &config::Watch,
    context: &Context,
) -> Result<Vec<(String, u64)>, Failure> {
    let loaded = context.loaded()?;
    let mut rules: Vec<(String, u64)> = counts
        .excluded
        .iter()
        .map(|(words, (rule, n))| {
            let place = explain_path::place_of(rule, name, watch, known, loaded);
            (place.map_or_else(|| words.clone(), |place| format!("{words} ({place})")), *n)
        })
        .collect();
    rules.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    if counts.excluded_otherwise > 0 {
        rules.push(("other rules".to_owned(), counts.excluded_otherwise));
    }
    Ok(rules)
}

impl WatchReport {
    fn of(counts: &Counts, watch: &config::Watch) -> Self {
        let unexplained = counts.unexplained.iter().map(|(name, lost)| {
            let path = watch.path.join(name);
            UnexplainedFile {
                path: lossy(&path),
                relative: lossy(name),
                what: word(*lost),
                path_base64: path_base64(&path),
            }
        });
        Self {
            path: lossy(&watch.path),
            files: counts.files,
            folders: counts.folders,
            counts: counts.by_kind.clone(),
            excluded: counts.excluded.iter().map(|(words, (_, n))| (words.clone(), *n)).collect(),
            skipped: counts.skipped.clone(),
            unexplained: unexplained.collect(),
            error: None,
        }
    }

    fn failed(path: &str, error: String) -> Self {
        let counts = Counts::new(0);
        let nowhere = config::Watch::of(Path::new(path).to_owned(), String::new());
        Self { error: Some(error), ..Self::of(&counts, &nowhere) }
    }
}

const fn word(lost: Lost) -> &'static str {
    match lost {
        Lost::New => "new",
        Lost::Changed => "changed",
        Lost::Delete => "deleted",
        Lost::Back => "back",
    }
}

fn people(report: &Report, texts: &[Text], context: &mut Context) -> Result<(), Failure> {
    if report.watches.is_empty() {
        writeln!(context.screen, "no watches; `ingestd watch add NAME PATH` makes one")?;
        return Ok(());
    }
    for ((name, watch), text) in report.watches.iter().zip(texts) {
        if let Some(error) = &watch.error {
            let error = context.screen.paint(&clean(&format!("{name}: {}: {error}", watch.path)), Style::Red);
            writeln!(context.screen, "{error}\n")?;
            continue;
        }
        let (files, folders) = (plural(watch.files, "file", "files"), plural(watch.folders, "folder", "folders"));
        writeln!(context.screen, "{}", clean(&format!("{name}: {files} in {folders} of {}", watch.path)))?;
        reasons(watch, text, context)?;
        unexplained(watch, context)?;
        writeln!(context.screen)?;
    }
    if report.clean {
        let text = context.screen.paint("every file is accounted for", Style::Green);
        writeln!(context.screen, "{text}")?;
    } else if report.unexplained > 0 {
        let text = format!("{} not accounted for", plural(report.unexplained, "file is", "files are"));
        let text = context.screen.paint(&text, Style::Red);
        writeln!(context.screen, "{text}")?;
        hint(report, texts, context)?;
    }
    Ok(())
}

/// What is likely the matter.
fn hint(report: &Report, texts: &[Text], context: &mut Context) -> Result<(), Failure> {
    if !report.daemon {
        writeln!(
            context.screen,
            "no daemon runs on this database; what came since the last one is taken by its next start (`ingestd run`)"
        )?;
    } else if texts.iter().any(|text| text.taking == Some(Taking::NotWatched)) {
        writeln!(
            context.screen,
            "the daemon does not run every one of these watches; `ingestd status` says why, or it has to be reloaded"
        )?;
    } else {
        writeln!(
            context.screen,
            "`ingestd explain PATH` looks at one of them; `ingestd watch scan NAME` looks for all"
        )?;
    }
    Ok(())
}

fn reasons(watch: &WatchReport, text: &Text, context: &mut Context) -> Result<(), Failure> {
    let width = watch.counts.values().map(|n| count(*n).len()).max().unwrap_or_default();
    for (kind, n) in watch.counts.iter().filter(|(_, n)| **n > 0) {
        let style = if *kind == Kind::Unexplained { Style::Red } else { Style::Plain };
        let line = context.screen.paint(&format!("  {:>width$}  {}", count(*n), words(*kind)), style);
        writeln!(context.screen, "{line}")?;
        let details: Vec<(String, u64)> = match kind {
            Kind::Excluded => text.rules.clone(),
            Kind::Skipped => watch.skipped.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect(),
            _ => Vec::new(),
        };
        for (detail, n) in details {
            let line = format!("  {:>width$}    {:>width$}  {}", "", count(n), clean(&detail));
            writeln!(context.screen, "{}", context.screen.paint(&line, Style::Dim))?;
        }
    }
    Ok(())
}

fn unexplained(watch: &WatchReport, context: &mut Context) -> Result<(), Failure> {
    let all = watch.counts.get(&Kind::Unexplained).copied().unwrap_or_default();
    for file in &watch.unexplained {
        let what = match file.what {
            "new" => "new, and not a job",
            "changed" => "changed since it was taken, and not a job",
            "deleted" => "gone, and its delete is not a job",
            _ => "there again as it was when its job was skipped",
        };
        writeln!(context.screen, "    {}: {what}", clean(&file.path))?;
    }
    let more = all.saturating_sub(watch.unexplained.len() as u64);
    if more > 0 {
        writeln!(context.screen, "    and {} more (--limit 0 names all)", count(more))?;
    }
    Ok(())
}

/// A kind of reason, for people.
const fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Completed => "completed",
        Kind::Waiting => "wait as jobs",
        Kind::Running => "run just now",
        Kind::Retrying => "failed an attempt and are tried again",
        Kind::Failed => "failed",
        Kind::Cancelled => "cancelled",
        Kind::Skipped => "skipped",
        Kind::Known => "known, without a job (there before the watch, or pruned since)",
        Kind::Excluded => "left out by a rule",
        Kind::NotReady => "wait for the file that says that they are ready",
        Kind::Touched => "as taken but for links, owner or mode; the next scan compares the content",
        Kind::Unasked => "changed, which `events` does not ask for",
        Kind::Settling => "not whole yet: settling",
        Kind::Open => "not whole yet: open for writing",
        Kind::TooYoung => "younger than `min_age`",
        Kind::Reading => "being read, for their digests",
        Kind::Scanning => "wait for a scan that is under way",
        Kind::Paused => "wait: the watch is paused",
        Kind::Shut => "wait: nothing is taken in",
        Kind::Unreadable => "can't be read",
        Kind::Gone => "known, gone, and not noted yet",
        Kind::HeldBack => "known, gone, and held back by the brake",
        Kind::Unexplained => "unexplained",
    }
}
