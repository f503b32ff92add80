//! What `sync` says meanwhile: a bar on a terminal, a line now and then elsewhere, events for programs.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::context::Context;
use super::super::failure::Failure;
use super::super::screen::{approximate, clean, count, plural, terminal_width};
use super::super::table::cut;
use super::super::{note, time};
use crate::control::Trouble;
use crate::run::RunId;

/// The time between two drawings of the bar, between two lines elsewhere, and between two events.
const REDRAW: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(5);
const EVENT: Duration = Duration::from_secs(1);
/// Lines with which something is wrong that are named.
const NAMED: u64 = 20;
/// Characters of the bar.
const BAR: usize = 20;

/// How far it has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Far {
    /// The line reached.
    pub lines: u64,
    /// How much is done of how much, where that is known: bytes of a file, jobs of a run.
    pub done: u64,
    /// See `done`.
    pub total: Option<u64>,
    /// New jobs of this command.
    pub enqueued: u64,
    /// Lines that needed none.
    pub skipped: u64,
    /// Of these, lines whose job, made before, is not over yet.
    pub waiting: u64,
    /// Of these, lines whose job, made before, failed or was cancelled.
    pub failed_before: u64,
    /// Lines that can't be understood.
    pub bad: u64,
    /// Lines that can't be done, and jobs that failed.
    pub failed: u64,
    /// What `rate` counts, per second.
    pub rate: f64,
    /// How long it still takes.
    pub eta: Option<Duration>,
}

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Events for programs, on stdout.
    Events,
    /// A bar that is redrawn.
    Bar,
    /// A line now and then.
    Lines,
}

/// Says it.
pub struct Teller {
    run: RunId,
    quiet: bool,
    way: Way,
    named: u64,
    most_named: u64,
    last: Instant,
    drawn: bool,
}

impl Teller {
    /// For a run; with `json`, events go to stdout.
    pub fn new(run: RunId, json: bool, context: &Context) -> Self {
        let global = &context.global;
        Self {
            run,
            quiet: global.quiet,
            way: match (json, std::io::stderr().is_terminal()) {
                (true, _) => Way::Events,
                (false, true) => Way::Bar,
                (false, false) => Way::Lines,
            },
            named: 0,
            most_named: if global.verbose > 0 { u64::MAX } else { NAMED },
            last: Instant::now(),
            drawn: false,
        }
    }

    /// An event for programs.
    pub fn event(&self, event: &str, run: Value, more: Value, context: &mut Context) -> Result<(), Failure> {
        if self.way != Way::Events {
            return Ok(());
        }
        let mut object = json!({ "event": event, "run": run });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        context.screen.json(&object)?;
        Ok(context.screen.flush()?)
    }

    /// Something that a person should know, and is no error.
    pub fn say(&mut self, text: &str) {
        if !self.quiet {
            self.clear();
            note(text);
        }
    }

    /// A line with which something is wrong. After so many of them, they are only counted.
    pub fn trouble(&mut self, event: &str, trouble: &Trouble, context: &mut Context) -> Result<(), Failure> {
        let more = json!({ "line": trouble.line, "text": trouble.text, "error": trouble.message });
        self.event(event, json!(self.run), more, context)?;
        self.named += 1;
        if self.named <= self.most_named {
            self.clear();
            let text = cut(&clean(&trouble.text), 60);
            note(&format!("line {}: {} ({text})", trouble.line, clean(&trouble.message)));
        }
        Ok(())
    }

    /// How far it has come, if it is time to say so.
    pub fn progress(&mut self, far: &Far, context: &mut Context) -> Result<(), Failure> {
        let pause = match self.way {
            Way::Events => EVENT,
            Way::Bar => REDRAW,
            Way::Lines => LINE,
        };
        if self.last.elapsed() < pause {
            return Ok(());
        }
        self.last = Instant::now();
        match self.way {
            Way::Events => return self.event("progress", json!(self.run), figures(far), context),
            _ if self.quiet => {}
            Way::Bar => {
                let mut out = std::io::stderr();
                let width = terminal_width(&out).unwrap_or(80);
                let text = cut(&format!("{}{}", bar(far), words(far)), width.saturating_sub(1));
                self.drawn = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush()).is_ok();
            }
            Way::Lines => note(&words(far)),
        }
        Ok(())
    }

    /// The end of what is said on stderr.
    pub fn close(&mut self) {
        self.clear();
        if self.named > self.most_named {
            let more = plural(self.named - self.most_named, "more line is", "more lines are");
            note(&format!("{more} wrong; `ingestd status --failed --run {}` names them all", self.run));
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

fn share(far: &Far) -> Option<f64> {
    let total = far.total.filter(|total| *total > 0)?;
    Some((approximate(far.done) / approximate(total)).clamp(0.0, 1.0))
}

/// How much is done, where the whole is known.
fn bar(far: &Far) -> String {
    let Some(share) = share(far) else { return String::new() };
    let full = (0..BAR).filter(|place| approximate(*place as u64) + 0.5 <= share * approximate(BAR as u64)).count();
    format!("[{}{}] ", "#".repeat(full), "-".repeat(BAR - full))
}

fn words(far: &Far) -> String {
    let mut parts = Vec::new();
    parts.extend(share(far).map(|share| format!("{:.0} %", (share * 100.0).floor())));
    parts.push(plural(far.lines, "line", "lines"));
    parts.push(plural(far.enqueued, "new job", "new jobs"));
    if far.bad + far.failed > 0 {
        parts.push(format!("{} wrong", count(far.bad + far.failed)));
    }
    parts.push(format!("{:.0}/s", far.rate));
    parts.extend(far.eta.map(|eta| format!("about {} left", time::short(eta))));
    parts.join(", ")
}

fn figures(far: &Far) -> Value {
    json!({
        "position": far.lines,
        "done": far.done,
        "total": far.total,
        "enqueued": far.enqueued,
        "skipped": far.skipped,
        "bad_lines": far.bad,
        "failed": far.failed,
        "rate_per_s": far.rate,
        "eta_ms": far.eta.map(|eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_told_where_the_whole_is_known() {
        let far = Far { lines: 12_000, done: 50, total: Some(200), rate: 5_000.4, bad: 2, ..Far::default() };
        let far = Far { enqueued: 1, eta: Some(Duration::from_secs(12)), ..far };
        assert_eq!(bar(&far), "[#####---------------] ");
        assert_eq!(words(&far), "25 %, 12 000 lines, 1 new job, 2 wrong, 5000/s, about 12s left");
        let unknown = Far { lines: 1, ..Far::default() };
        assert_eq!((bar(&unknown).as_str(), words(&unknown).as_str()), ("", "1 line, 0 new jobs, 0/s"));
    }
}
