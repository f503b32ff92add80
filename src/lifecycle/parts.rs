//! The daemon's parts as named tasks of one set. A part that returns, fails or panics before it was told to stop
//! is news for whoever holds the set: nothing goes on half dead.

use std::collections::HashMap;

use anyhow::anyhow;
use tokio::task::{Id, JoinSet};

/// How a part ended.
#[derive(Debug)]
pub struct End {
    /// The part.
    pub name: &'static str,
    /// What it returned; a panic is an error.
    pub result: anyhow::Result<()>,
}

/// The running parts; dropping it stops them all.
#[derive(Debug, Default)]
pub struct Parts {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    /// Starts a part.
    pub fn spawn(&mut self, name: &'static str, part: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name);
    }

    /// Waits for the next part that ends, whatever the reason; `None`: none is left. Nothing is lost when it is
    /// dropped while it waits.
    pub async fn first_end(&mut self) -> Option<End> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(died(error))),
        };
        Some(End { name: self.names.remove(&id).unwrap_or("?"), result })
    }

    /// The parts that still run.
    pub fn running(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.names.values().copied().collect();
        names.sort_unstable();
        names
    }

    /// Stops every part at its next await; [`Self::first_end`] tells when each is gone.
    pub fn abort_all(&mut self) {
        self.tasks.abort_all();
    }
}

fn died(error: tokio::task::JoinError) -> anyhow::Error {
    if !error.is_panic() {
        return anyhow!("stopped in the middle of its work");
    }
    let panic = error.into_panic();
    let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    anyhow!("panicked: {}", words.unwrap_or("without words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_end_is_told_by_name_and_reason() {
        let mut parts = Parts::default();
        parts.spawn("watcher", async { Ok(()) });
        parts.spawn("dispatcher", async { panic!("slot {} is gone", 3) });
        parts.spawn("writer", async { Err(anyhow!("disk on fire")) });
        parts.spawn("maintenance", std::future::pending());
        let mut ends = Vec::new();
        for _ in 0..3 {
            let end = parts.first_end().await.unwrap();
            ends.push((end.name, end.result.map_err(|error| error.to_string())));
        }
        ends.sort();
        assert_eq!(
            ends,
            [
                ("dispatcher", Err("panicked: slot 3 is gone".to_owned())),
                ("watcher", Ok(())),
                ("writer", Err("disk on fire".to_owned())),
            ]
        );
        assert_eq!(parts.running(), ["maintenance"]);
        parts.abort_all();
        assert!(parts.first_end().await.unwrap().result.is_err());
        assert!(parts.first_end().await.is_none());
    }
}
