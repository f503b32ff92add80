//! A scan: the walk, compared with what is known.
//!
//! Of a million files that are as they were, a thousand at a time are read from the database and none is written.
//! Only what is new or changed goes on to the watch's task, through a bounded channel: while the task is busy, the
//! scan waits. After a complete walk of the whole tree, the files that are known and were not there any more are
//! told, each checked by a look of its own: what lies in a folder that can't be read is not gone, and neither is
//! what a filter excludes by now.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::scan::{self, Found, Walked};
use super::tree::{FolderId, Tree, prefix_of};
use crate::intake::patiently;
use crate::job::FileIdentity;
use crate::store::{KnownFile, Sources, StoreError};

/// How many known files are checked at once.
const PAGE: usize = 1_000;

/// What a scan tells while it goes on.
#[derive(Debug)]
pub(super) enum Finding {
    /// Files that are new or changed.
    Changed(Vec<Candidate>),
    /// Files that are gone.
    Gone(Vec<PathBuf>),
}

/// A file that may have to be taken.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub relative: PathBuf,
    pub identity: FileIdentity,
    pub force: bool,
}

/// What to scan.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// Folders; the empty path is the root.
    pub starts: Vec<PathBuf>,
    /// Whether it is the whole tree, so that what was not found may be gone.
    pub full: bool,
    /// Whether files are taken though nothing changed.
    pub force: bool,
    /// The root in which files were last seen: another one that is empty proves nothing.
    pub trusted_root: Option<FolderId>,
}

/// What a scan came to.
#[derive(Debug)]
pub(super) enum Ended {
    /// It went through. `replaced`: the root is empty and another folder than before, so nothing is gone.
    Done { walked: Walked, changed: u64, gone: u64, replaced: bool },
    /// The root is not there.
    NoRoot(io::Error),
    /// It was stopped.
    Stopped,
}

/// What a scan works with.
#[derive(Clone)]
pub(super) struct Scanner {
    pub watch: String,
    pub tree: Arc<Tree>,
    pub sources: Arc<dyn Sources>,
    pub events: crate::config::WatchEvents,
    pub stop: CancellationToken,
}

impl Scanner {
    /// Scans, and tells what it finds.
    pub async fn scan(self, scope: Scope, findings: mpsc::Sender<Finding>) -> Result<Ended, StoreError> {
        let (batches, mut found) = mpsc::channel::<Vec<Found>>(2);
        let (tree, starts) = (self.tree.clone(), scope.starts.clone());
        let walk = move || {
            let take = |batch| drop(batches.blocking_send(batch));
            scan::walk(&tree, &starts, || !batches.is_closed(), take)
        };
        let walk = tokio::task::spawn_blocking(walk);
        let mut changed = 0;
        while let Some(batch) = found.recv().await {
            let Some(candidates) = self.changed(batch, scope.force).await? else { return Ok(Ended::Stopped) };
            changed += candidates.len() as u64;
            if !candidates.is_empty() && findings.send(Finding::Changed(candidates)).await.is_err() {
                return Ok(Ended::Stopped);
            }
        }
        let walked = match walk.await {
            Ok(Ok(walked)) => walked,
            Ok(Err(error)) => return Ok(Ended::NoRoot(error)),
            Err(_) => return Ok(Ended::Stopped),
        };
        if !scope.full || walked.cut {
            return Ok(Ended::Done { walked, changed, gone: 0, replaced: false });
        }
        self.find_gone(&scope, walked, changed, &findings).await
    }

    /// Those of the files that are new or changed, as far as the watch asks for them.
    async fn changed(&self, batch: Vec<Found>, force: bool) -> Result<Option<Vec<Candidate>>, StoreError> {
        let names: Vec<PathBuf> = batch.iter().map(|found| found.relative.clone()).collect();
        let Some(known) = self.known(names).await? else { return Ok(None) };
        let wanted = batch
            .into_iter()
            .zip(known)
            .filter(|(found, known)| force || is_wanted(self.events, &found.identity, known.as_ref()));
        let candidate =
            |(found, _): (Found, _)| Candidate { relative: found.relative, identity: found.identity, force };
        Ok(Some(wanted.map(candidate).collect()))
    }

    /// What is known of files; `None`: stopped.
    pub async fn known(&self, names: Vec<PathBuf>) -> Result<Option<Vec<Option<KnownFile>>>, StoreError> {
        patiently(&self.stop, "reading what is known", || self.sources.known(&self.watch, names.clone())).await
    }

    async fn find_gone(
        &self,
        scope: &Scope,
        walked: Walked,
        changed: u64,
        findings: &mpsc::Sender<Finding>,
    ) -> Result<Ended, StoreError> {
        let (mut after, mut gone) = (None, 0);
        loop {
            let Some(page) = self.present(after.take()).await? else { return Ok(Ended::Stopped) };
            let Some(last) = page.last().cloned() else { break };
            if walked.empty && gone == 0 && self.is_replaced(scope, &walked, &page).await? {
                return Ok(Ended::Done { walked, changed, gone: 0, replaced: true });
            }
            let missing = match self.missing(page, walked.root).await {
                Ok(missing) => missing,
                Err(error) => return Ok(Ended::NoRoot(error)),
            };
            gone += missing.len() as u64;
            if !missing.is_empty() && findings.send(Finding::Gone(missing)).await.is_err() {
                return Ok(Ended::Stopped);
            }
            after = Some(last);
        }
        Ok(Ended::Done { walked, changed, gone, replaced: false })
    }

    async fn present(&self, after: Option<PathBuf>) -> Result<Option<Vec<PathBuf>>, StoreError> {
        let call = || self.sources.present(&self.watch, after.clone(), PAGE);
        patiently(&self.stop, "reading what is known", call).await
    }

    /// Whether an empty root is not the folder that held the files: an empty mount point, for instance.
    async fn is_replaced(&self, scope: &Scope, walked: &Walked, page: &[PathBuf]) -> Result<bool, StoreError> {
        if let Some(trusted) = scope.trusted_root {
            return Ok(Some(trusted) != walked.root);
        }
        let known = self.known(page.iter().take(1).cloned().collect()).await?.unwrap_or_default();
        let device = known.into_iter().flatten().next().map(|known| known.identity.dev);
        Ok(device.is_some_and(|dev| walked.root.is_some_and(|root| root.dev != dev)))
    }

    /// Those of the files that are not there, as long as the root is the folder that was walked.
    pub async fn missing(&self, names: Vec<PathBuf>, root: Option<FolderId>) -> io::Result<Vec<PathBuf>> {
        let tree = self.tree.clone();
        let check = move || {
            let view = tree.view()?;
            let missing: Vec<PathBuf> = names.into_iter().filter(|name| view.is_gone(name)).collect();
            // Asked again afterwards: a root that went away in between makes every file look gone.
            if root != Some(view.root_id()) || FolderId::at(tree.root()).ok() != root {
                return Err(io::Error::other("the folder was replaced during the scan"));
            }
            Ok(missing)
        };
        tokio::task::spawn_blocking(check).await.map_err(io::Error::other)?
    }

    /// The known files below a folder that is gone, of which at most a page is told; the rest is left to a scan,
    /// which the second value asks for.
    pub async fn known_below(&self, folder: &Path) -> Result<(Vec<PathBuf>, bool), StoreError> {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let prefix = prefix_of(folder);
        let after = PathBuf::from(std::ffi::OsString::from_vec(prefix.clone()));
        let page = self.present(Some(after)).await?.unwrap_or_default();
        let full = page.len() >= PAGE;
        let below: Vec<PathBuf> =
            page.into_iter().take_while(|name| name.as_os_str().as_bytes().starts_with(&prefix)).collect();
        let more = full && below.len() >= PAGE;
        Ok((below, more))
    }
}

/// Whether a file that looks like this has to be told to the queue: it is new, or it changed and the watch asks for
/// that. Of new files that the watch does not ask for, a note is taken, so that their changes are seen.
pub(super) fn is_wanted(
    events: crate::config::WatchEvents,
    identity: &FileIdentity,
    known: Option<&KnownFile>,
) -> bool {
    match known {
        Some(known) if known.present => known.identity != *identity && events.modify,
        _ => true,
    }
}
