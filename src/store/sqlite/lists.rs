//! Runs over lists, on SQLite. Every write about one is guarded by its state, those of a reader also by its name and by
//! the line at which it stands.

mod begin;
mod hold;
mod missing;
mod read;
mod remove;
mod steer;
mod take;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

use super::SqliteStore;
use super::enqueue::Intake;
use crate::clock::Timestamp;
use crate::run::RunId;
use crate::store::{
    Begun, Changeset, FailedLine, Holder, Lines, LinesTaken, Lists, MissingStep, NewListRun, RepoCounts, Result,
    RunSteered, RunSummary, Unfinished,
};

pub(super) use hold::{repair, set_aside};
#[cfg(test)]
pub(super) use {
    begin::STATEMENTS as BEGIN_STATEMENTS,
    hold::STATEMENTS as HOLD_STATEMENTS,
    missing::{COUNT_MISSING, MISSING},
    read::CHANGESETS,
    remove::STATEMENTS as REMOVE_STATEMENTS,
    steer::STATEMENTS as STEER_STATEMENTS,
};

#[async_trait]
impl Lists for SqliteStore {
    async fn begin_list(&self, new: NewListRun) -> Result<Begun> {
        let (clock, new) = (self.clock.clone(), Arc::new(new));
        self.write(move |tx| {
            let (new, now) = (new.clone(), clock.now());
            Box::pin(async move { begin::begin(tx, &new, now).await })
        })
        .await
    }

    async fn unfinished(&self, list: String) -> Result<Vec<Unfinished>> {
        begin::unfinished(self.readers(), &list).await
    }

    async fn unfinished_run(&self, id: RunId) -> Result<Option<Unfinished>> {
        begin::unfinished_run(self.readers(), id).await
    }

    async fn take_over(&self, id: RunId, from: Holder, to: Holder) -> Result<bool> {
        let (clock, names) = (self.clock.clone(), Arc::new((from, to)));
        let taken = self
            .write(move |tx| {
                let (names, now) = (names.clone(), clock.now());
                Box::pin(async move { begin::take_over(tx, id, &names.0, &names.1, now).await })
            })
            .await?;
        if taken {
            self.release(id).await?;
        }
        Ok(taken)
    }

    async fn take_lines(&self, lines: Lines) -> Result<LinesTaken> {
        let (clock, limit, lines) = (self.clock.clone(), self.max_pending(), Arc::new(lines));
        self.write_counted(move |tx, tally| {
            let (clock, lines) = (clock.clone(), lines.clone());
            Box::pin(async move {
                let now = clock.now();
                take::take(tx, &lines, &Intake::new(clock), limit, now, tally).await
            })
        })
        .await
    }

    async fn delete_missing(&self, id: RunId, holder: Holder, limit: usize) -> Result<MissingStep> {
        let (clock, holder) = (self.clock.clone(), Arc::new(holder));
        self.write_counted(move |tx, tally| {
            let (clock, holder) = (clock.clone(), holder.clone());
            Box::pin(async move {
                let now = clock.now();
                missing::step(tx, id, &holder, limit, &Intake::new(clock), now, tally).await
            })
        })
        .await
    }

    async fn end_input(&self, id: RunId, holder: Holder) -> Result<bool> {
        let (clock, holder) = (self.clock.clone(), Arc::new(holder));
        self.write_counted(move |tx, tally| {
            let (holder, now) = (holder.clone(), clock.now());
            Box::pin(async move { begin::end_input(tx, id, &holder, now, tally).await })
        })
        .await
    }

    async fn pause_run(&self, id: RunId) -> Result<RunSteered> {
        self.steer_run(id, steer::Hand::Pause).await
    }

    async fn resume_run(&self, id: RunId) -> Result<RunSteered> {
        let steered = self.steer_run(id, steer::Hand::Resume).await?;
        if steered == RunSteered::Done {
            self.release(id).await?;
        }
        Ok(steered)
    }

    async fn cancel_run(&self, id: RunId) -> Result<RunSteered> {
        self.steer_run(id, steer::Hand::Cancel).await
    }

    async fn give_up_run(&self, id: RunId) -> Result<RunSteered> {
        let steered = self.steer_run(id, steer::Hand::GiveUp).await?;
        self.release(id).await?;
        Ok(steered)
    }

    async fn cancel_jobs_of(&self, id: RunId, limit: usize) -> Result<u64> {
        self.cancel_waiting(id, limit).await
    }

    async fn remove_run(&self, id: RunId) -> Result<RunSteered> {
        self.forget_run(id).await
    }

    async fn failed_lines(&self, run: Option<RunId>, limit: usize) -> Result<Vec<FailedLine>> {
        read::failed_lines(self.readers(), run, limit).await
    }

    async fn changesets(&self, id: RunId, limit: usize) -> Result<Vec<Changeset>> {
        read::changesets(self.readers(), id, limit).await
    }

    async fn repos(&self, id: RunId) -> Result<Vec<RepoCounts>> {
        read::repos(self.readers(), id).await
    }

    async fn run_summary(&self, since: Option<Timestamp>) -> Result<RunSummary> {
        read::summary(self.readers(), since).await
    }
}
