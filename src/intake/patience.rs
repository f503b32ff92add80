//! Waiting for a store that can't write right now.
//!
//! A busy database or a full disk passes: the call is made again with growing pauses, and its batch is kept. What
//! is fatal goes up, and the daemon leaves. Anything else is tried again too, and told once, because the only other
//! choice would be to forget a file.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::StoreError;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Calls until it succeeds; `None` when `stop` came first. Each call runs to its end, and is never cut short.
pub async fn patiently<T, F, C>(stop: &CancellationToken, doing: &str, mut call: C) -> Result<Option<T>, StoreError>
where
    C: FnMut() -> F,
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => error,
        };
        // That the database can't be written at all is told once, by whoever watches that.
        if pause == FIRST_PAUSE && !error.is_passing() {
            tracing::warn!(%error, "{doing}: the store can't now; trying again with growing pauses");
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}
