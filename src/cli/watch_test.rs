//! `ingestd watch test`

use std::io::Write;

use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Done, Failure};
use super::preview::{Fate, Preview, Previewed, Wait};
use super::screen::{Screen, Style, clean, plural};
use super::view::{self, lossy};
use super::watch::one;
use super::{Format, time};
use crate::config;

/// How many entries have which fate.
#[derive(Default)]
struct Tally {
    taken: u64,
    known: u64,
    waiting: u64,
    left_out: u64,
}

impl Tally {
    const fn add(&mut self, fate: &Fate) {
        let counter = match fate {
            Fate::New | Fate::Changed => &mut self.taken,
            Fate::Known => &mut self.known,
            Fate::Waits(_) => &mut self.waiting,
            Fate::LeftOut(_) => &mut self.left_out,
        };
        *counter += 1;
    }

    const fn total(&self) -> u64 {
        self.taken + self.known + self.waiting + self.left_out
    }
}

/// Tells what would be taken; at most `limit` entries, or all for zero.
pub async fn run(name: &str, limit: u64, format: Format, context: &mut Context) -> Done {
    let known = one(name, context).await?;
    let warning = known.view.warning;
    let watch = known.watch.ok_or_else(|| Failure::failed(warning.unwrap_or_default()))?;
    let preview = Preview {
        name,
        watch: &watch,
        state_directory: context.config()?.state_directory(),
        accounts: context.read_if_there().await?.map(|stores| stores.accounts),
        now: context.now(),
    };
    let (mut tally, mut cut) = (Tally::default(), false);
    let screen = &mut context.screen;
    let mut each = |entry: Previewed| {
        cut = limit > 0 && tally.total() >= limit;
        if !cut {
            tally.add(&entry.fate);
            if format.json { screen.json(&as_json(&watch, &entry))? } else { line(screen, &entry)? }
        }
        Ok(!cut)
    };
    preview.run(&mut each).await?;
    if !format.json {
        let Tally { taken, known, waiting, left_out } = tally;
        let taken = plural(taken, "file", "files");
        writeln!(context.screen, "{taken} would be taken, {known} known, {waiting} waiting, {left_out} left out")?;
        if cut {
            writeln!(context.screen, "these are the first {limit}; --limit 0 goes through all")?;
        }
    }
    Ok(0)
}

fn as_json(watch: &config::Watch, entry: &Previewed) -> Value {
    let (fate, excluded_by, waits_for) = match &entry.fate {
        Fate::New => ("new", None, None),
        Fate::Changed => ("changed", None, None),
        Fate::Known => ("known", None, None),
        Fate::Waits(wait) => ("waiting", None, Some(words(*wait))),
        Fate::LeftOut(rule) => ("excluded", Some(rule), None),
    };
    json!({
        "relative": lossy(&entry.relative),
        "taken": matches!(entry.fate, Fate::New | Fate::Changed),
        "fate": fate,
        "excluded_by": excluded_by,
        "waits_for": waits_for,
        "path_base64": view::path_base64(&watch.path.join(&entry.relative)),
    })
}

fn line(screen: &mut Screen, entry: &Previewed) -> Result<(), Failure> {
    let path = clean(&lossy(&entry.relative));
    let (text, style) = match &entry.fate {
        Fate::New => (format!("take   {path}"), Style::Plain),
        Fate::Changed => (format!("take   {path}  (it looks changed; its content decides)"), Style::Plain),
        Fate::Known => (format!("known  {path}"), Style::Dim),
        Fate::Waits(wait) => (format!("wait   {path}  ({})", words(*wait)), Style::Yellow),
        Fate::LeftOut(rule) => (format!("skip   {path}  ({rule})"), Style::Dim),
    };
    let text = screen.paint(&text, style);
    writeln!(screen, "{text}")?;
    Ok(())
}

fn words(wait: Wait) -> String {
    match wait {
        Wait::Companion => "its ready file is missing (`ready_suffix`)".to_owned(),
        Wait::Age(left) => {
            format!("too young (`min_age`) for another {}", time::short(left))
        }
        Wait::Writer => "somebody has it open for writing".to_owned(),
    }
}
