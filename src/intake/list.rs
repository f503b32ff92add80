//! Lines of a list: each becomes a job, or a problem that is kept with its run.
//!
//! 1. **Every line is looked at by itself** ([`look`]), off the runtime's threads. A line that can't be done doesn't
//!    keep the others back.
//! 2. **Contents that lines bring along are on disk before a job can name them**, and those that no job names in the end
//!    are removed again.
//! 3. **One call takes them all**, with the problems and the checkpoint. Where the store can't tell whether a file is
//!    another one, its digest is taken and the same lines are handed over again; each round leaves fewer of these.

mod look;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::add::explain;
use super::content::ContentFolder;
use super::digest_file;
use crate::job::DigestAlgorithm;
use crate::run::line::ListedWork;
use crate::run::{InputRead, RunId};
use crate::store::{Changeset, Content, Enqueued, Holder, LineProblem, Lines, LinesTaken, Lists, NewJob, StoreError};

/// A line that is about a file.
#[derive(Clone, Debug, PartialEq)]
pub struct ListLine {
    /// The line, from 1.
    pub line: u64,
    /// The line itself, cut.
    pub text: String,
    /// What it says. The paths are absolute.
    pub work: Box<ListedWork>,
}

/// Lines to take.
#[derive(Clone, Debug)]
pub struct ListBatch {
    /// The run.
    pub run: RunId,
    /// Who reads it.
    pub holder: Holder,
    /// The line after which they stand.
    pub after: u64,
    /// How far the input is read with them.
    pub read: InputRead,
    /// Lines that say something.
    pub count: u64,
    /// What was understood, in the order of the lines.
    pub lines: Vec<ListLine>,
    /// What was not.
    pub problems: Vec<LineProblem>,
    /// What is only kept.
    pub changesets: Vec<Changeset>,
    /// Lines per second.
    pub rate_per_s: f64,
    /// More time at work.
    pub more_worked: Duration,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListTaken {
    /// What the store said; its answers are those of the lines that could be done.
    pub taken: LinesTaken,
    /// Lines that were understood and can't be done.
    pub failed: Vec<LineProblem>,
}

/// Why a batch could not even be handed over; nothing of it was taken, or nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The store's error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A content could not be kept.
    #[error("a content can't be kept in {folder}: {source}; make room there, or see who may write to it", folder = folder.display())]
    Content {
        /// Where.
        folder: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
    /// A thread died.
    #[error("the lines could not be looked at: {0}")]
    Died(String),
}

/// What lines are taken with: that of one run.
#[derive(Clone)]
pub struct ListIntake {
    /// Where they go.
    pub lists: Arc<dyn Lists>,
    /// How contents are digested.
    pub algorithm: DigestAlgorithm,
    /// Where contents that lines bring along are kept.
    pub contents: ContentFolder,
    /// Files that nobody may open, by device and inode: the database's own.
    pub own: BTreeSet<(u64, u64)>,
    /// Who shall do the work.
    pub pipeline: String,
    /// Whether the run only looks what would be done: nothing is kept then.
    pub dry_run: bool,
}

/// A line on its way: the job that it asks for, and what is needed should it fail after all.
#[derive(Debug)]
struct Underway {
    job: NewJob,
    line: u64,
    text: String,
    /// The file that was made for its content.
    made: Option<PathBuf>,
}

impl ListIntake {
    /// Takes the lines, or answers why not. Contents of lines that were not taken are removed.
    ///
    /// # Errors
    /// See [`NotTaken`]. Whether the lines were taken after all, the run's checkpoint tells.
    pub async fn take(self, mut batch: ListBatch) -> Result<ListTaken, NotTaken> {
        let lines = std::mem::take(&mut batch.lines);
        let current_path = lines.iter().rev().find_map(|line| line.work.path.clone()).map(|path| path.0);
        let (intake, run) = (self.clone(), batch.run);
        let (mut underway, mut failed) = off_thread(move || intake.look_at(run, lines)).await??;
        let taken = loop {
            let asked = Lines {
                run: batch.run,
                holder: batch.holder.clone(),
                after: batch.after,
                read: batch.read,
                count: batch.count,
                jobs: underway.iter().map(|line| line.job.clone()).collect(),
                problems: in_order(&batch.problems, &failed),
                changesets: batch.changesets.clone(),
                current_path: current_path.clone(),
                rate_per_s: batch.rate_per_s,
                more_worked: batch.more_worked,
            };
            match self.lists.take_lines(asked).await {
                Ok(LinesTaken::NeedDigests(places)) => {
                    let algorithm = self.algorithm;
                    let digested = off_thread(move || digested(underway, failed, &places, algorithm)).await?;
                    let given_up;
                    (underway, failed, given_up) = digested;
                    self.remove(given_up).await;
                }
                Ok(taken) => break taken,
                Err(error) => {
                    // After any other error it may have been taken all the same: the sweep knows.
                    if error.is_passing() {
                        self.remove(underway.into_iter().filter_map(|line| line.made).collect()).await;
                    }
                    return Err(error.into());
                }
            }
        };
        self.remove(unneeded(&taken, underway)).await;
        Ok(ListTaken { taken, failed })
    }

    /// Looks at every line. Contents that were made are on disk afterwards; after an error none is left.
    fn look_at(&self, run: RunId, lines: Vec<ListLine>) -> Result<(Vec<Underway>, Vec<LineProblem>), NotTaken> {
        let (mut underway, mut failed) = (Vec::with_capacity(lines.len()), Vec::new());
        let looked = lines.into_iter().try_for_each(|line| {
            match self.look(run, line)? {
                Ok(line) => underway.push(line),
                Err(problem) => failed.push(problem),
            }
            Ok(())
        });
        let made: Vec<PathBuf> = underway.iter().filter_map(|line: &Underway| line.made.clone()).collect();
        match looked.and_then(|()| self.contents.sync(&made)) {
            Ok(()) => Ok((underway, failed)),
            Err(source) => {
                self.contents.remove_all(&made);
                Err(NotTaken::Content { folder: self.contents.path().to_owned(), source })
            }
        }
    }

    async fn remove(&self, contents: Vec<PathBuf>) {
        if !contents.is_empty() {
            let folder = self.contents.clone();
            // What stays behind because a thread died is swept up later.
            let _ = off_thread(move || folder.remove_all(&contents)).await;
        }
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotTaken> {
    tokio::task::spawn_blocking(work).await.map_err(|died| NotTaken::Died(died.to_string()))
}

/// Both kinds of problems by their lines.
fn in_order(bad: &[LineProblem], failed: &[LineProblem]) -> Vec<LineProblem> {
    let mut all: Vec<LineProblem> = bad.iter().chain(failed).cloned().collect();
    all.sort_by_key(|problem| problem.line);
    all
}

/// Takes the digests of the files at these places. Lines whose files can't be digested have failed; the contents that
/// were made for them are told apart.
fn digested(
    underway: Vec<Underway>,
    mut failed: Vec<LineProblem>,
    places: &[usize],
    algorithm: DigestAlgorithm,
) -> (Vec<Underway>, Vec<LineProblem>, Vec<PathBuf>) {
    let asked: BTreeSet<usize> = places.iter().copied().collect();
    let (mut left, mut given_up) = (Vec::with_capacity(underway.len()), Vec::new());
    for (place, mut line) in underway.into_iter().enumerate() {
        if !asked.contains(&place) {
            left.push(line);
            continue;
        }
        match line.digest(algorithm) {
            Ok(Content { identity, digest }) => {
                line.job.identity = identity;
                line.job.digest = Some(digest);
                left.push(line);
            }
            Err(message) => {
                given_up.extend(line.made.take());
                failed.push(line.failed(message));
            }
        }
    }
    (left, failed, given_up)
}

impl Underway {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Content, String> {
        if self.job.digest.is_some() {
            // A digest was given and another one is asked for: nothing that reading again would change.
            return Err("the queue refused the digest of its content; please report this".to_owned());
        }
        let listed = self.job.listed.as_ref();
        let content = listed.and_then(|listed| listed.content.as_deref());
        let path = content.unwrap_or_else(|| self.job.source.display_path());
        digest_file(path, algorithm).map_err(|error| explain(&error).to_string())
    }

    fn failed(self, message: String) -> LineProblem {
        let listed = self.job.listed;
        LineProblem {
            line: self.line,
            bad: false,
            path: Some(self.job.source.display_path().to_owned()),
            op: listed.as_ref().and_then(|listed| listed.op),
            repo: listed.and_then(|listed| listed.repo),
            text: self.text.into_bytes(),
            message,
        }
    }
}

/// The contents that were made and that no job names.
fn unneeded(taken: &LinesTaken, underway: Vec<Underway>) -> Vec<PathBuf> {
    let made = |line: Underway| line.made;
    match taken {
        LinesTaken::All(answers) => {
            let answered = underway.into_iter().zip(answers);
            answered
                .filter(|(_, answer)| !matches!(answer, Enqueued::New { .. }))
                .filter_map(|(line, _)| line.made)
                .collect()
        }
        _ => underway.into_iter().filter_map(made).collect(),
    }
}
