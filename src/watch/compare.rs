//! A scan: the walk, compared with what is known.
//!
//! 1. Both come in the order of the paths' bytes: the walk by how it goes, what is known by the database's index, of
//!    which pages are read ahead of the walk. So one pass tells what is new, what changed and what is missing, and
//!    nothing is held in memory but the pages and the folders on the way down. Of a million files that are as they
//!    were, none is opened and nothing is written.
//! 2. What is new or changed goes on to the watch's task in batches, through a bounded channel: while the task is
//!    busy, the scan waits. A file that has been quiet for long enough is asked here, where its folder is open,
//!    whether somebody writes it, and is then whole at once.
//! 3. What is known and was not met is looked for by its very name: what lies in a folder that can't be read is not
//!    gone, and neither is what a filter excludes by now. Under a root that was replaced meanwhile nothing is gone.

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::candidates::{Candidate, Candidates, rank};
use super::force::Force;
use super::native::{Covered, Covering};
use super::progress::Progress;
use super::scan::{self, Spotted, Visit, Walked};
use super::settle;
use super::tree::{FolderId, Tree, prefix_of};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, WatchEvents};
use crate::intake::patiently;
use crate::job::FileIdentity;
use crate::store::{KnownFile, PresentFile, Sources, StoreError};

/// How many known files are read at once, and looked for at once.
const PAGE: usize = 1_000;
/// How many files that are gone one scan names; if there are more, another scan follows.
pub(super) const MAX_GONE: usize = 100_000;

/// What to scan.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// Folders, none below another; the empty path is the root.
    pub starts: Vec<PathBuf>,
    /// Which files are taken though nothing changed, if any.
    pub force: Option<Force>,
    /// The root in which files were last seen: another one that is empty proves nothing.
    pub trusted_root: Option<FolderId>,
    /// Whether the times of files are those of this machine's clock, and leases can be asked for.
    pub local: bool,
    /// Unknown files that are as they were before this are noted as known, and for that they need not be whole.
    pub adopt_before: Option<Timestamp>,
    /// Where it is told how far it has come.
    pub progress: Arc<Progress>,
}

/// Whether a file is as it was before this. The status change tells, because a copy may carry any modification time;
/// the kernel dates it by a clock that lags a tick behind.
pub(super) fn was_there(file: &FileIdentity, before: Timestamp) -> bool {
    const TICK_NS: i64 = 10_000_000;
    file.ctime_ns < before.as_millis().saturating_mul(1_000_000) - TICK_NS
}

/// What a scan came to.
#[derive(Debug)]
pub(super) enum Ended {
    /// It went through.
    Done(Box<Compared>),
    /// The root is not there.
    NoRoot(io::Error),
    /// It was stopped.
    Stopped,
}

/// What a comparison found, beside the candidates that it told.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub walked: Walked,
    /// Files that are new or changed.
    pub changed: u64,
    /// Of them those that are not known as present.
    pub new: u64,
    /// Known files in the folders that were walked, present or gone.
    pub known: u64,
    /// Known files that are gone, the first of them by name.
    pub gone: u64,
    pub names: Vec<PathBuf>,
    /// Files that are too young yet, and after how long the first of them is not.
    pub young: u64,
    pub ripe_in: Option<Duration>,
    /// The root is empty and another folder than before, so nothing is gone.
    pub replaced: bool,
    /// More was found than was told: another scan has to follow.
    pub more: bool,
    /// More are gone than were named: another scan has to follow, if they count as deleted.
    pub more_gone: bool,
    /// Which of the folders send events, where that was asked for.
    pub covered: Covered,
}

/// What a scan works with.
#[derive(Clone)]
pub(super) struct Scanner {
    pub watch: String,
    pub tree: Arc<Tree>,
    pub sources: Arc<dyn Sources>,
    pub clock: Arc<dyn Clock>,
    pub rules: Arc<config::Watch>,
    pub stop: CancellationToken,
}

impl Scanner {
    /// Scans, and tells what it finds.
    pub async fn scan(
        self,
        scope: Scope,
        covering: Option<Covering>,
        findings: mpsc::Sender<Vec<Candidate>>,
    ) -> Result<Ended, StoreError> {
        let (pages, known) = mpsc::channel(2);
        let (tree, starts) = (self.tree.clone(), scope.starts.clone());
        let comparison = Comparison {
            candidates: Candidates::new(self.rules.order, findings),
            known: Known { pages: known, page: Vec::new().into_iter(), next: None, broken: false },
            missing: Vec::new(),
            trouble: None,
            first_known: None,
            covering,
            scanner: self.clone(),
            scope,
            found: Compared::default(),
        };
        let walk = tokio::task::spawn_blocking(move || comparison.run(&tree));
        self.read_known(&starts, pages).await?;
        match walk.await {
            Ok(Ok(Some(compared))) => Ok(Ended::Done(Box::new(compared))),
            Ok(Ok(None)) | Err(_) => Ok(Ended::Stopped),
            Ok(Err(error)) => Ok(Ended::NoRoot(error)),
        }
    }

    /// Reads ahead what is known below each of the starts, and an empty page after each.
    async fn read_known(&self, starts: &[PathBuf], pages: mpsc::Sender<Vec<PresentFile>>) -> Result<(), StoreError> {
        for start in starts {
            let mut after = prefix_of(start);
            loop {
                let Some(page) = self.present_below(start, &after).await? else { return Ok(()) };
                let full = page.len() >= PAGE;
                after = page.last().map(|file| file.relative.clone()).unwrap_or_default();
                let empty = page.is_empty();
                if pages.send(page).await.is_err() {
                    return Ok(());
                }
                if !full {
                    if !empty && pages.send(Vec::new()).await.is_err() {
                        return Ok(());
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// A page of the known files below a folder; `None`: stopped.
    async fn present_below(&self, folder: &Path, after: &Path) -> Result<Option<Vec<PresentFile>>, StoreError> {
        let call = || self.sources.present(&self.watch, folder.to_owned(), after.to_owned(), PAGE);
        patiently(&self.stop, "reading what is known", call).await
    }

    /// What is known of files; `None`: stopped.
    pub async fn known(&self, names: Vec<PathBuf>) -> Result<Option<Vec<Option<KnownFile>>>, StoreError> {
        patiently(&self.stop, "reading what is known", || self.sources.known(&self.watch, names.clone())).await
    }

    /// Those of the files that are not there, as long as the root is the folder that was walked.
    pub async fn missing(&self, names: Vec<PathBuf>, root: Option<FolderId>) -> io::Result<Vec<PathBuf>> {
        let tree = self.tree.clone();
        tokio::task::spawn_blocking(move || missing(&tree, names, root)).await.map_err(io::Error::other)?
    }

    /// The known files below a folder that is gone, of which at most a page is told; the rest is left to a scan,
    /// which the second value asks for.
    pub async fn known_below(&self, folder: &Path) -> Result<(Vec<PathBuf>, bool), StoreError> {
        let page = self.present_below(folder, &prefix_of(folder)).await?.unwrap_or_default();
        let more = page.len() >= PAGE;
        Ok((page.into_iter().map(|file| file.relative).collect(), more))
    }
}

fn missing(tree: &Tree, names: Vec<PathBuf>, root: Option<FolderId>) -> io::Result<Vec<PathBuf>> {
    let view = tree.view()?;
    let missing: Vec<PathBuf> = names.into_iter().filter(|name| view.is_gone(name)).collect();
    // Asked again afterwards: a root that went away in between makes every file look gone.
    if root != Some(view.root_id()) || FolderId::at(tree.root()).ok() != root {
        return Err(io::Error::other("the folder was replaced during the scan"));
    }
    Ok(missing)
}

/// What is known, in order, page by page.
struct Known {
    pages: mpsc::Receiver<Vec<PresentFile>>,
    page: std::vec::IntoIter<PresentFile>,
    next: Option<PresentFile>,
    /// The pages ended before their time: what is known is not known.
    broken: bool,
}

impl Known {
    /// The first page of the next start. Blocks.
    fn begin(&mut self) {
        self.turn();
    }

    fn turn(&mut self) {
        match self.pages.blocking_recv() {
            Some(page) => self.page = page.into_iter(),
            None => self.broken = true,
        }
        self.next = self.page.next();
    }

    fn peek(&self) -> Option<&PresentFile> {
        self.next.as_ref()
    }

    /// The next known file; after the last one of a start there is none.
    fn take(&mut self) -> Option<PresentFile> {
        let taken = self.next.take()?;
        self.next = self.page.next();
        if self.next.is_none() {
            self.turn();
        }
        Some(taken)
    }
}

struct Comparison {
    scanner: Scanner,
    scope: Scope,
    covering: Option<Covering>,
    candidates: Candidates,
    known: Known,
    missing: Vec<PathBuf>,
    /// Why what is missing could not be looked for.
    trouble: Option<io::Error>,
    /// The device on which known files were, where the walk met none of them.
    first_known: Option<FileIdentity>,
    found: Compared,
}

impl Comparison {
    /// `None`: it was stopped.
    fn run(mut self, tree: &Tree) -> io::Result<Option<Compared>> {
        let root = tree.view()?.root_id();
        self.found.walked.root = Some(root);
        let starts = self.scope.starts.clone();
        let walked = scan::walk(tree, &starts, &mut self)?;
        self.look_for_missing();
        if let Some(error) = self.trouble {
            return Err(error);
        }
        if walked.cut || self.known.broken || !self.candidates.finish() {
            return Ok(None);
        }
        self.found.replaced = walked.empty && self.found.gone > 0 && self.is_replaced(root);
        if self.found.replaced {
            self.found.gone = 0;
            self.found.names.clear();
        }
        self.found.changed = self.candidates.told();
        self.found.more |= self.candidates.left_out();
        if let Some(covering) = self.covering.take() {
            self.found.covered = covering.came_to();
        }
        self.found.walked = walked;
        Ok(Some(self.found))
    }

    /// Whether an empty root is not the folder that held the files: an empty mount point, for instance.
    fn is_replaced(&self, root: FolderId) -> bool {
        match (self.scope.trusted_root, self.first_known) {
            (Some(trusted), _) => trusted != root,
            (None, Some(known)) => known.dev != root.dev,
            (None, None) => false,
        }
    }

    fn pass(&mut self, known: PresentFile) {
        self.found.known += 1;
        self.first_known.get_or_insert(known.identity);
        self.missing.push(known.relative);
        if self.missing.len() >= PAGE {
            self.look_for_missing();
        }
    }

    fn look_for_missing(&mut self) {
        if self.missing.is_empty() || self.known.broken || self.trouble.is_some() {
            return;
        }
        match missing(&self.scanner.tree, std::mem::take(&mut self.missing), self.found.walked.root) {
            Ok(gone) => {
                self.found.gone += gone.len() as u64;
                let room = MAX_GONE.saturating_sub(self.found.names.len());
                self.found.more_gone |= gone.len() > room;
                self.found.names.extend(gone.into_iter().take(room));
            }
            Err(error) => self.trouble = Some(error),
        }
    }

    /// Whether a file has been as it is for long enough, by its own times, and nobody writes it.
    fn is_whole(&self, file: &Spotted<'_>) -> bool {
        let age = settle::unchanged_for(&file.identity, self.scanner.clock.now());
        let settle = self.scanner.rules.settle;
        if !self.scope.local || age < settle || !self.young_for(&file.identity).is_zero() {
            return false;
        }
        file.probe()
            .is_some_and(|(writers, identity)| identity == file.identity && settle::whole_by_age(settle, age, writers))
    }

    fn is_forced(&self, file: &Spotted<'_>) -> bool {
        let rank = rank(self.scanner.rules.order, &file.identity);
        self.scope.force.as_ref().is_some_and(|force| force.asks_for(rank, file.relative))
    }

    fn young_for(&self, identity: &FileIdentity) -> Duration {
        settle::young_for(self.scanner.rules.min_age, identity, self.scanner.clock.now())
    }

    /// Leaves a file for another scan, if it is too young: there may be any number of them.
    fn leave_young(&mut self, identity: &FileIdentity) -> bool {
        let left = self.young_for(identity);
        if left.is_zero() {
            return false;
        }
        self.found.young += 1;
        self.found.ripe_in = Some(self.found.ripe_in.map_or(left, |sooner| sooner.min(left)));
        true
    }
}

impl Visit for Comparison {
    fn begin(&mut self, _start: &Path) {
        self.known.begin();
    }

    fn end(&mut self) {
        while let Some(known) = self.known.take() {
            self.pass(known);
        }
    }

    fn folder(&mut self, relative: &Path) {
        self.scope.progress.enter(relative);
        if let Some(covering) = &mut self.covering {
            covering.cover(relative);
        }
    }

    fn file(&mut self, file: &Spotted<'_>) {
        self.scope.progress.meet();
        let known = loop {
            match self.known.peek().map(|known| known.relative.as_os_str().cmp(file.relative.as_os_str())) {
                Some(Ordering::Equal) => break self.known.take(),
                Some(Ordering::Greater) | None => break None,
                Some(Ordering::Less) => self.known.take().into_iter().for_each(|known| self.pass(known)),
            }
        };
        self.found.known += u64::from(known.is_some());
        let before = known.as_ref().map(|known| KnownFile { identity: known.identity, present: true });
        let force = self.is_forced(file);
        let wanted = force || is_wanted(self.scanner.rules.events, &file.identity, before.as_ref());
        let adopted = known.is_none()
            && !force
            && self.scope.adopt_before.is_some_and(|before| was_there(&file.identity, before));
        if wanted && (adopted || force || !self.leave_young(&file.identity)) {
            self.scope.progress.find();
            self.found.new += u64::from(known.is_none());
            self.candidates.add(Candidate {
                relative: file.relative.to_owned(),
                identity: file.identity,
                force,
                whole: adopted || self.is_whole(file),
                known: known.is_some(),
            });
        }
    }

    fn wanted(&self) -> bool {
        !self.known.broken && self.trouble.is_none() && self.candidates.wanted()
    }
}

/// Whether a file that looks like this has to be told to the queue: it is new, or it changed and the watch asks for
/// that. Of new files that the watch does not ask for, a note is taken, so that their changes are seen.
pub(super) fn is_wanted(events: WatchEvents, identity: &FileIdentity, known: Option<&KnownFile>) -> bool {
    match known {
        Some(known) if known.present => known.identity != *identity && events.modify,
        _ => true,
    }
}
