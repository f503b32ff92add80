//! Runs over lists: begun once, resumed at their line, and followed until their jobs are over.
//!
//! 1. **One reader at a time.** Whoever reads holds a file locked whose name is its [`Holder`]; the run knows that name.
//!    Another one takes a run over only by replacing the name that it saw, after it found the file unlocked. Every write
//!    of a reader is guarded by its name.
//! 2. **Checkpoint and jobs are one transaction** ([`Lists::take_lines`]), guarded by the line from which it goes on: a
//!    batch that is handed over twice is taken once.
//! 3. **At most one run of a name reads** (a unique index).
//! 4. **The verdict follows the jobs**: each transition of a job moves the counts of its run in the same transaction, and
//!    the last one to end ends the run.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::error::Result;
use super::queue::{Enqueued, NewJob};
use crate::clock::Timestamp;
use crate::job::{JobId, Op};
use crate::run::{InputRead, Run, RunId, RunInput, RunState, RunType};

/// The name of whoever reads a run's input: of the file that it holds locked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Holder(pub String);

/// A run over a list that is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewListRun {
    /// As a person named it.
    pub name: Option<String>,
    /// What makes two runs runs of the same list: its name, or where it comes from.
    pub list: String,
    /// What it reads.
    pub input: RunInput,
    /// Where its jobs go unless a line says otherwise.
    pub pipeline: String,
    /// Only look what would be done.
    pub dry_run: bool,
    /// What an earlier run of the list named and this one does not becomes a delete.
    pub delete_missing: bool,
    /// Who reads.
    pub holder: Holder,
}

/// What became of a [`NewListRun`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is a run now.
    Run {
        /// Its number.
        id: RunId,
        /// What it is for.
        run_type: RunType,
    },
    /// Another run of this name reads.
    Active(RunId),
}

/// A run whose input was not read to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfinished {
    /// The run.
    pub run: Run,
    /// Who reads it, or read it last.
    pub holder: Holder,
    /// Whether what it does not name becomes deletes.
    pub delete_missing: bool,
}

/// A line with which something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineProblem {
    /// The line, from 1.
    pub line: u64,
    /// It can't be understood; else it can't be done.
    pub bad: bool,
    /// What it names, as far as it can be read.
    pub path: Option<PathBuf>,
    /// See `path`.
    pub op: Option<Op>,
    /// See `path`.
    pub repo: Option<String>,
    /// The line itself, cut.
    pub text: Vec<u8>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The record of a changeset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changeset {
    /// The line, from 1.
    pub line: u64,
    /// The repository.
    pub repo: Option<String>,
    /// What the record says, a JSON document.
    pub changeset: String,
}

/// A batch of lines.
#[derive(Clone, Debug)]
pub struct Lines {
    /// The run.
    pub run: RunId,
    /// Who reads it.
    pub holder: Holder,
    /// The line after which they stand: where the run has to be.
    pub after: u64,
    /// How far the input is read with them.
    pub read: InputRead,
    /// Lines that say something: all but empty ones.
    pub count: u64,
    /// What is to become jobs, in the order of the lines.
    pub jobs: Vec<NewJob>,
    /// What is wrong.
    pub problems: Vec<LineProblem>,
    /// What is only kept.
    pub changesets: Vec<Changeset>,
    /// Where the reader is.
    pub current_path: Option<PathBuf>,
    /// Lines per second.
    pub rate_per_s: f64,
    /// More time at work.
    pub more_worked: Duration,
}

/// What became of [`Lines`]. Unless they were taken, nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The jobs' answers in their order. Of a dry run: what they would be.
    All(Vec<Enqueued>),
    /// The digests of these jobs' files are asked for (their places in `jobs`); come again with them.
    NeedDigests(Vec<usize>),
    /// Only so many more jobs may wait now (`queue.max_pending`); come again with fewer, or later.
    Full {
        /// How many.
        room: u64,
    },
    /// The run is at another line: they were taken before, or never asked for.
    Elsewhere {
        /// The line.
        line: u64,
    },
    /// A person paused or cancelled the run, or it is over.
    NotRunning(RunState),
    /// Somebody else reads it now.
    TakenOver,
}

/// A step of making deletes of what a list no longer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingStep {
    /// So many jobs were made; there may be more.
    More(u64),
    /// There is nothing left to do.
    Over,
    /// A person paused or cancelled the run.
    NotRunning(RunState),
    /// Somebody else reads it now.
    TakenOver,
}

/// What became of a person's hand on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunSteered {
    /// Done, or it was so before.
    Done,
    /// Its state doesn't allow that.
    Refused(RunState),
    /// There is no such run.
    Unknown,
}

/// Something that did not end well in a run: a line, or the job of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedLine {
    /// The run.
    pub run: RunId,
    /// Its line.
    pub line: u64,
    /// What it names.
    pub path: Option<PathBuf>,
    /// The operation.
    pub op: Option<Op>,
    /// The repository.
    pub repo: Option<String>,
    /// The job, where there is one.
    pub job: Option<JobId>,
    /// What went wrong.
    pub error: String,
    /// Attempts spent.
    pub tries: u32,
    /// The line itself, cut, where it became no job.
    pub text: Option<Vec<u8>>,
}

/// Where the jobs of one repository stand in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoCounts {
    /// The repository; `None`: lines that name none.
    pub repo: Option<String>,
    /// Its jobs.
    pub jobs: crate::run::RunJobs,
}

/// All runs at a glance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSummary {
    /// How many there are.
    pub total: u64,
    /// Running or paused.
    pub active: u64,
    /// Over, however they ended.
    pub ended: u64,
    /// Over, and every line ended well.
    pub successes: u64,
    /// Over, and something did not end well.
    pub errors: u64,
    /// The newest.
    pub last: Option<Run>,
}

/// Writes and reads runs over lists.
#[async_trait]
pub trait Lists: Send + Sync {
    /// Begins a run: the initial one where the list never had one, else an incremental one.
    async fn begin_list(&self, new: NewListRun) -> Result<Begun>;
    /// Runs of this list whose input was not read to its end, newest first.
    async fn unfinished(&self, list: String) -> Result<Vec<Unfinished>>;
    /// The run, if its input was not read to its end.
    async fn unfinished_run(&self, id: RunId) -> Result<Option<Unfinished>>;
    /// Goes on reading a run that `from` held; a paused one runs again. `false`: somebody else was faster, or it is over.
    async fn take_over(&self, id: RunId, from: Holder, to: Holder) -> Result<bool>;
    /// Takes lines: jobs, problems, changesets and the checkpoint in one transaction.
    async fn take_lines(&self, lines: Lines) -> Result<Taken>;
    /// Makes deletes of what earlier runs of the list named and this one did not, at most `limit`.
    async fn delete_missing(&self, id: RunId, holder: Holder, limit: usize) -> Result<MissingStep>;
    /// The input is read to its end; `false`: the run is not running under this holder any more.
    async fn end_input(&self, id: RunId, holder: Holder) -> Result<bool>;

    /// Stops reading a run and leasing its jobs, until it is resumed.
    async fn pause_run(&self, id: RunId) -> Result<RunSteered>;
    /// Undoes a pause.
    async fn resume_run(&self, id: RunId) -> Result<RunSteered>;
    /// Ends a run for good. Its waiting jobs are cancelled with [`Self::cancel_jobs_of`].
    async fn cancel_run(&self, id: RunId) -> Result<RunSteered>;
    /// Ends a run for good in favour of another one of its list; its jobs stay. To be cancelled, they would be known to
    /// the new run and never done.
    async fn give_up_run(&self, id: RunId) -> Result<RunSteered>;
    /// Cancels jobs of a run that wait, at most `limit`; answers how many.
    async fn cancel_jobs_of(&self, id: RunId, limit: usize) -> Result<u64>;
    /// Forgets a run that is over; its jobs stay.
    async fn remove_run(&self, id: RunId) -> Result<RunSteered>;

    /// What did not end well, of one run or of all, by run (the newest first) and line; at most `limit`.
    async fn failed_lines(&self, run: Option<RunId>, limit: usize) -> Result<Vec<FailedLine>>;
    /// A run's changesets in the order of their lines, at most `limit`.
    async fn changesets(&self, id: RunId, limit: usize) -> Result<Vec<Changeset>>;
    /// Where a run's jobs stand by repository.
    async fn repos(&self, id: RunId) -> Result<Vec<RepoCounts>>;
    /// All runs at a glance. `since`: only those that began then or later.
    async fn run_summary(&self, since: Option<Timestamp>) -> Result<RunSummary>;
}
