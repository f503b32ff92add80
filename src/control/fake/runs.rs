//! Runs: those over lists.

use async_trait::async_trait;

use super::Fake;
use crate::run::{Run, RunId, RunState};
use crate::store::{BegunRun, Result, RunProgress, Runs, ScanToRun, StoreError};

#[async_trait]
impl Runs for Fake {
    async fn begin_scan(&self, _scan: ScanToRun) -> Result<BegunRun> {
        Err(StoreError::Closed)
    }

    async fn note_progress(&self, _id: RunId, _progress: RunProgress) -> Result<bool> {
        Ok(false)
    }

    async fn end_run(&self, _id: RunId, _end: RunState, _progress: RunProgress) -> Result<bool> {
        Ok(false)
    }

    async fn cancel_scans_but(&self, _watches: Vec<String>) -> Result<u64> {
        Ok(0)
    }

    async fn runs(&self, _limit: usize) -> Result<Vec<Run>> {
        Ok(Vec::new())
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>> {
        Ok(self.listed.lock().unwrap().get(&id).map(|run| run.told(id)))
    }
}
