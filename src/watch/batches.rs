//! From a walk on a thread of its own to whoever waits for what it finds: in batches, through a bounded channel, so that
//! the walk waits while the other side is busy, and ends soon after nobody listens any more.

use tokio::sync::mpsc;

/// How many are handed over at once.
pub const BATCH: usize = 1_000;

/// The walk's end of the channel.
#[derive(Debug)]
pub struct Batches<T> {
    batch: Vec<T>,
    listener: mpsc::Sender<Vec<T>>,
}

impl<T> Batches<T> {
    /// Nothing was found yet.
    pub const fn new(listener: mpsc::Sender<Vec<T>>) -> Self {
        Self { batch: Vec::new(), listener }
    }

    /// Hands one over, with those before it, once there are enough. Blocks while the listener is busy.
    pub fn push(&mut self, found: T) {
        self.batch.push(found);
        if self.batch.len() >= BATCH {
            // Where nobody listens any more, `wanted` ends the walk.
            self.finish();
        }
    }

    /// Hands over the rest. `false`: nobody listens any more. Blocks while the listener is busy.
    pub fn finish(&mut self) -> bool {
        let batch = std::mem::take(&mut self.batch);
        batch.is_empty() || self.listener.blocking_send(batch).is_ok()
    }

    /// Whether anybody listens.
    pub fn wanted(&self) -> bool {
        !self.listener.is_closed()
    }
}
