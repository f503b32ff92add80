//! Runs over lists, in memory.

use async_trait::async_trait;

use super::Fake;
use crate::clock::Timestamp;
use crate::run::RunId;
use crate::store::{
    Begun, Changeset, FailedLine, Holder, Lines, LinesTaken, Lists, MissingStep, NewListRun, RepoCounts, Result,
    RunSteered, RunSummary, StoreError, Unfinished,
};

#[async_trait]
impl Lists for Fake {
    async fn begin_list(&self, _new: NewListRun) -> Result<Begun> {
        Err(StoreError::Closed)
    }
    async fn unfinished(&self, _list: String) -> Result<Vec<Unfinished>> {
        Err(StoreError::Closed)
    }
    async fn unfinished_run(&self, _id: RunId) -> Result<Option<Unfinished>> {
        Err(StoreError::Closed)
    }
    async fn take_over(&self, _id: RunId, _from: Holder, _to: Holder) -> Result<bool> {
        Err(StoreError::Closed)
    }
    async fn take_lines(&self, _lines: Lines) -> Result<LinesTaken> {
        Err(StoreError::Closed)
    }
    async fn delete_missing(&self, _id: RunId, _holder: Holder, _limit: usize) -> Result<MissingStep> {
        Err(StoreError::Closed)
    }
    async fn end_input(&self, _id: RunId, _holder: Holder) -> Result<bool> {
        Err(StoreError::Closed)
    }
    async fn pause_run(&self, _id: RunId) -> Result<RunSteered> {
        Err(StoreError::Closed)
    }
    async fn resume_run(&self, _id: RunId) -> Result<RunSteered> {
        Err(StoreError::Closed)
    }
    async fn cancel_run(&self, _id: RunId) -> Result<RunSteered> {
        Err(StoreError::Closed)
    }
    async fn cancel_jobs_of(&self, _id: RunId, _limit: usize) -> Result<u64> {
        Err(StoreError::Closed)
    }
    async fn remove_run(&self, _id: RunId) -> Result<RunSteered> {
        Err(StoreError::Closed)
    }
    async fn failed_lines(&self, _run: Option<RunId>, _limit: usize) -> Result<Vec<FailedLine>> {
        Err(StoreError::Closed)
    }
    async fn changesets(&self, _id: RunId, _limit: usize) -> Result<Vec<Changeset>> {
        Err(StoreError::Closed)
    }
    async fn repos(&self, _id: RunId) -> Result<Vec<RepoCounts>> {
        Err(StoreError::Closed)
    }
    async fn run_summary(&self, _since: Option<Timestamp>) -> Result<RunSummary> {
        Err(StoreError::Closed)
    }
}
