//! The audit of one watch: every file on disk is counted into one reason, and what nothing explains is named.
//!
//! 1. The walk shows everything under the root in the order of the paths' bytes, what the rules leave out included; what
//!    is known comes from the database in the same order, page by page. So one pass joins them, and memory holds a page
//!    of each.
//! 2. Names that are known and were not met are looked for by themselves: they may lie in a folder that is left out or
//!    can't be read, or be gone.
//! 3. Beside a running daemon the two sides are never of one moment. So what looks unexplained is only a candidate: it is
//!    looked at again, on disk, in the database and in the daemon's memory, until it is explained or the time is over
//!    in which the watch has to have taken it. That time is bounded for the audit as a whole, and so is the number of
//!    candidates: when there are too many, they are looked at before the walk goes on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::count::Counts;
use super::disk::{self, Collector, Met};
use super::file::{Circumstances, Lost, OnDisk, Reason, Taking, reason};
use crate::clock::Clock;
use crate::control::LiveFile;
use crate::store::{Account, Accounts, Presence, StoreError};
use crate::watch::tree::Tree;

/// How many accounts are read, and names looked for, at once.
const PAGE: usize = 2_000;
/// How many candidates wait for another look.
const CANDIDATES: usize = 10_000;
/// How much longer than it has to a watch may take: its timers are not exact, and neither is the machine idle.
const GRACE: Duration = Duration::from_secs(2);
/// The pauses between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The running daemon, as far as it is asked about files.
#[async_trait]
pub trait Daemon: Send {
    /// What it knows of these names under the root of a watch, in their order; `None`: it does not answer.
    async fn files(&mut self, watch: &str, names: &[PathBuf]) -> Option<Vec<LiveFile>>;
}

/// What an audit goes by.
pub struct Audit<'a> {
    /// The watch's name.
    pub watch: String,
    /// Its pipeline.
    pub pipeline: String,
    /// Its tree.
    pub tree: Arc<Tree>,
    /// How things stand with it; the time moves on meanwhile.
    pub circumstances: Circumstances,
    /// What is known.
    pub accounts: Arc<dyn Accounts>,
    /// The daemon, where one runs.
    pub daemon: Option<&'a mut (dyn Daemon + 'a)>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How long what nothing explains is waited for, in all; see [`wait`].
    pub wait: Duration,
    /// How many unexplained files are kept by name.
    pub limit: usize,
}

/// Why there is no account of a watch.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Its root is missing or can't be read.
    #[error("the folder is missing or can't be read: {0}")]
    NoRoot(io::Error),
    /// The database can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Audit<'_> {
    /// Walks the watch and joins it with what is known.
    pub async fn run(self) -> Result<Counts, AuditError> {
        let (batches, mut met) = mpsc::channel(2);
        let tree = self.tree.clone();
        let walk = tokio::task::spawn_blocking(move || Collector::walk(&tree, batches));
        let mut join = Join {
            rows: Rows::default(),
            passed: Vec::new(),
            candidates: BTreeMap::new(),
            counts: Counts::new(self.limit),
            patience: self.wait,
            audit: self,
        };
        join.rows.turn(&join.audit).await?;
        while let Some(batch) = met.recv().await {
            join.audit.circumstances.now = join.audit.clock.now();
            for met in batch {
                join.meet(met).await?;
            }
        }
        let walked = walk.await.map_err(|error| AuditError::NoRoot(io::Error::other(error)))?;
        join.counts.folders = walked.map_err(AuditError::NoRoot)?;
        join.finish().await
    }
}

/// How long what nothing explains has to be waited for, before it can be called unexplained.
pub fn wait(circumstances: &Circumstances) -> Duration {
    match circumstances.taking {
        Taking::Yes | Taking::FirstScan => circumstances.patience + GRACE,
        // Nothing moves that could explain it.
        Taking::NoDaemon | Taking::NotWatched | Taking::Paused | Taking::Shut(_) => Duration::ZERO,
    }
}

/// What is known, in order, page by page.
#[derive(Default)]
struct Rows {
    page: std::vec::IntoIter<Account>,
    next: Option<Account>,
    after: Option<PathBuf>,
    ended: bool,
}

impl Rows {
    /// Makes the next account the one that is looked at.
    async fn turn(&mut self, audit: &Audit<'_>) -> Result<(), StoreError> {
        self.next = self.page.next();
        if self.next.is_none() && !self.ended {
            let page = audit.accounts.accounts(&audit.watch, &audit.pipeline, self.after.take(), PAGE).await?;
            self.ended = page.len() < PAGE;
            self.after = page.last().map(|account| account.relative.clone());
            self.page = page.into_iter();
            self.next = self.page.next();
        }
        Ok(())
    }

    /// The next account, if its name comes before this one, or at all.
    async fn before(&mut self, name: Option<&Path>, audit: &Audit<'_>) -> Result<Option<Account>, StoreError> {
        let comes = |account: &mut Account| name.is_none_or(|name| account.relative.as_os_str() < name.as_os_str());
        let taken = self.next.take_if(comes);
        if taken.is_some() {
            self.turn(audit).await?;
        }
        Ok(taken)
    }

    /// The account of this name, where it is the next one.
    async fn of(&mut self, name: &Path, audit: &Audit<'_>) -> Result<Option<Account>, StoreError> {
        let taken = self.next.take_if(|account| account.relative.as_os_str() == name.as_os_str());
        if taken.is_some() {
            self.turn(audit).await?;
        }
        Ok(taken)
    }
}

/// The join under way.
struct Join<'a> {
    audit: Audit<'a>,
    rows: Rows,
    /// Names that are known as present and were not met.
    passed: Vec<PathBuf>,
    /// What nothing explained at the last look.
    candidates: BTreeMap<PathBuf, Lost>,
    counts: Counts,
    /// How long candidates may still be waited for.
    patience: Duration,
}

impl Join<'_> {
    async fn meet(&mut self, met: Met) -> Result<(), AuditError> {
        while let Some(account) = self.rows.before(Some(&met.relative), &self.audit).await? {
            self.pass(account).await?;
        }
        let account = self.rows.of(&met.relative, &self.audit).await?;
        match reason(&met.seen, account.as_ref(), None, &self.audit.circumstances) {
            Some(Reason::Unexplained(lost)) => self.doubt(met.relative, lost).await,
            Some(reason) => {
                self.counts.add(&reason, met.files, true);
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> Result<Counts, AuditError> {
        while let Some(account) = self.rows.before(None, &self.audit).await? {
            self.pass(account).await?;
        }
        self.look_for_passed().await?;
        self.look_again().await?;
        Ok(self.counts)
    }

    /// An account that the walk met no file of.
    async fn pass(&mut self, account: Account) -> Result<(), AuditError> {
        if account.presence == Presence::Present {
            self.passed.push(account.relative);
        }
        if self.passed.len() >= PAGE { self.look_for_passed().await } else { Ok(()) }
    }

    async fn look_for_passed(&mut self) -> Result<(), AuditError> {
        let passed = std::mem::take(&mut self.passed);
        for (name, seen, why) in self.look_at(passed).await? {
            match (seen, why) {
                // Counted by the walk with what leaves it out, or with the folder that can't be read.
                (OnDisk::Excluded(_) | OnDisk::Unreadable(_), _) | (_, None) => (),
                (_, Some(Reason::Unexplained(lost))) => self.doubt(name, lost).await?,
                (seen, Some(reason)) => self.counts.add(&reason, 1, seen != OnDisk::Gone),
            }
        }
        Ok(())
    }

    async fn doubt(&mut self, name: PathBuf, lost: Lost) -> Result<(), AuditError> {
        self.candidates.insert(name, lost);
        if self.candidates.len() >= CANDIDATES { self.look_again().await } else { Ok(()) }
    }

    /// Looks at the candidates until each is explained or there is no time left.
    async fn look_again(&mut self) -> Result<(), AuditError> {
        let mut pause = PAUSES.0;
        loop {
            let names: Vec<PathBuf> = std::mem::take(&mut self.candidates).into_keys().collect();
            for (name, seen, why) in self.look_at(names).await? {
                match why {
                    Some(Reason::Unexplained(lost)) => drop(self.candidates.insert(name, lost)),
                    Some(reason) => self.counts.add(&reason, 1, seen != OnDisk::Gone),
                    None => (),
                }
            }
            if self.candidates.is_empty() || self.patience.is_zero() {
                break;
            }
            let rest = pause.min(self.patience);
            tokio::time::sleep(rest).await;
            self.patience -= rest;
            pause = (pause * 2).min(PAUSES.1);
        }
        for (name, lost) in std::mem::take(&mut self.candidates) {
            self.counts.unexplained(name, lost);
        }
        Ok(())
    }

    /// Everything about these names as of now: first the disk, then the daemon's word, then what is known, because a file
    /// goes that way: what the daemon does not know of any more is in the database by then.
    async fn look_at(&mut self, names: Vec<PathBuf>) -> Result<Vec<(PathBuf, OnDisk, Option<Reason>)>, AuditError> {
        let mut looked = Vec::with_capacity(names.len());
        for names in names.chunks(PAGE) {
            let (tree, asked) = (self.audit.tree.clone(), names.to_vec());
            let seen = tokio::task::spawn_blocking(move || disk::look(&tree, asked)).await;
            let seen = seen.map_err(io::Error::other).flatten().map_err(AuditError::NoRoot)?;
            let live = self.ask(names).await;
            let audit = &mut self.audit;
            let accounts = audit.accounts.accounts_of(&audit.watch, &audit.pipeline, names.to_vec()).await?;
            audit.circumstances.now = audit.clock.now();
            for (at, ((name, seen), account)) in seen.into_iter().zip(accounts).enumerate() {
                let why = reason(&seen, account.as_ref(), live.get(at), &audit.circumstances);
                looked.push((name, seen, why));
            }
        }
        Ok(looked)
    }

    async fn ask(&mut self, names: &[PathBuf]) -> Vec<LiveFile> {
        match &mut self.audit.daemon {
            Some(daemon) => daemon.files(&self.audit.watch, names).await.unwrap_or_default(),
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
