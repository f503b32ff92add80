//! The live line of `run` on a terminal: redrawn after changes, four times a second at most, never by a tick.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::screen::{count, terminal_width};
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
        loop {
            changes.mark_unchanged();
            draw(browse.as_ref(), false).await;
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(REDRAW) => {}
            }
        }
        draw(browse.as_ref(), true).await;
    })
}

/// A line that can't be read or drawn is left out: the log tells of what is wrong.
async fn draw(browse: &dyn Browse, last: bool) {
    let Ok(overview) = browse.overview().await else { return };
    let mut out = io::stderr();
    let width = terminal_width(&out).unwrap_or(80);
    let text = cut(&line(&overview), width.saturating_sub(1));
    let end = if last { "\n" } else { "" };
    let _ = write!(out, "\r\x1b[2K{text}{end}").and_then(|()| out.flush());
}

fn line(overview: &Overview) -> String {
    let of = |state| overview.total.in_state(state);
    let waiting = of(StateName::Pending) + of(StateName::Retrying);
    format!(
        "{} completed, {} failed, {} running, {} waiting, {:.1}/s",
        count(of(StateName::Completed)),
        count(of(StateName::Failed)),
        count(of(StateName::Running)),
        count(waiting),
        overview.total.rate_per_s[0],
    )
}
