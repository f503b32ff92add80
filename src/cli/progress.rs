//! The live line of `run` on a terminal: redrawn after changes, four times a second at most, never by a tick.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::screen::{approximate, count, terminal_width};
use super::table::cut;
use crate::job::StateName;
use crate::store::{Browse, Overview};

/// The time between two drawings at least.
const REDRAW: Duration = Duration::from_millis(250);

/// Draws the line on stderr until `stop`, then leaves it standing as the last word.
pub fn show(
    browse: Arc<dyn Browse>,
    mut changes: watch::Receiver<u64>,
    stop: CancellationToken,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut line = Line { browse, began: None };
        loop {
            changes.mark_unchanged();
            line.draw(false).await;
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(REDRAW) => {}
            }
        }
        line.draw(true).await;
    })
}

struct Line {
    browse: Arc<dyn Browse>,
    /// When it was first drawn, and how many jobs had ended by then: the rate is that of this run.
    began: Option<(Instant, u64)>,
}

impl Line {
    /// A line that can't be read or drawn is left out: the log tells of what is wrong.
    async fn draw(&mut self, last: bool) {
        let Ok(overview) = self.browse.overview().await else { return };
        let ended = ended(&overview);
        let (since, before) = *self.began.get_or_insert((Instant::now(), ended));
        let seconds = since.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 { approximate(ended.saturating_sub(before)) / seconds } else { 0.0 };
        let mut out = io::stderr();
        let width = terminal_width(&out).unwrap_or(80);
        let text = cut(&words(&overview, rate), width.saturating_sub(1));
        let end = if last { "\n" } else { "" };
        let _ = write!(out, "\r\x1b[2K{text}{end}").and_then(|()| out.flush());
    }
}

fn ended(overview: &Overview) -> u64 {
    StateName::ALL.into_iter().filter(|state| state.is_final()).map(|state| overview.total.in_state(state)).sum()
}

fn words(overview: &Overview, rate: f64) -> String {
    let of = |state| overview.total.in_state(state);
    let waiting = of(StateName::Pending) + of(StateName::Retrying);
    format!(
        "{} completed, {} failed, {} running, {} waiting, {rate:.1}/s",
        count(of(StateName::Completed)),
        count(of(StateName::Failed)),
        count(of(StateName::Running)),
        count(waiting),
    )
}
