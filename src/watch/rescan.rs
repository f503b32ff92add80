//! Scans within the watch's task: when one starts, what it finds, how it ends.
//!
//! What a scan found gone is noted last, and not before the files that it found new have had the time to settle: one
//! of them may be the gone file under another name. And only if the brake lets it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::brake::Losses;
use super::candidates::{Candidate, rank};
use super::compare::{Compared, Ended, Scope};
use super::dirty::Due;
use super::force::Force;
use super::handover::Whole;
use super::progress::Progress;
use super::renames::Hold;
use super::settle::{Sign, unchanged_for};
use super::status::{LastScan, Mode, Root, ScanKind};
use super::task::{NAMES, WatchTask};
use crate::clock::millis;
use crate::job::FileIdentity;
use crate::store::StoreError;

/// How soon and how late a scan comes that looks for files which were too young.
const RIPE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// With so many known files, a root that holds nothing counts as one that is not mounted.
const EMPTIED: u64 = 10;
/// A polled tree rests for at least so many times as long as its scan took.
const REST: u32 = 4;

type Reply = oneshot::Sender<Result<LastScan, String>>;

/// What people ask of the next full scan.
#[derive(Debug, Default)]
pub(super) struct Wish {
    force: bool,
    /// What a forced scan that was broken off has not taken.
    rest: Option<Force>,
    replies: Vec<Reply>,
}

impl Wish {
    pub fn add(&mut self, force: bool, reply: Reply) {
        self.force |= force;
        self.replies.push(reply);
    }

    /// Whether a person waits for the next full scan.
    pub const fn is_asked(&self) -> bool {
        !self.replies.is_empty()
    }

    /// There is no scan. The rest of an earlier one stays.
    pub fn refuse(&mut self, why: &str) {
        self.force = false;
        for reply in self.replies.drain(..) {
            // Whoever asked may have gone away.
            drop(reply.send(Err(why.to_owned())));
        }
    }

    /// These were to be taken again, and were not: the next full scan does.
    pub fn leave(&mut self, names: impl Iterator<Item = PathBuf>) {
        self.put_back(Force::only(names));
    }

    /// What is asked for is put off, and so is what this scan has not come to. People are told so, rather than kept
    /// waiting for as long as a pause may last.
    pub fn break_off(&mut self, scan: Option<RunningScan>, why: &str) {
        if std::mem::take(&mut self.force) {
            self.put_back(Force::default());
        }
        if let Some(scan) = scan {
            self.replies.extend(scan.replies);
            scan.force.into_iter().for_each(|force| self.put_back(force));
        }
        self.refuse(why);
    }

    fn put_back(&mut self, mut force: Force) {
        self.rest.take().into_iter().for_each(|rest| force.join(rest));
        self.rest = Some(force).filter(|force| !force.is_over());
    }

    /// What the full scan that begins now takes again, and who waits for it.
    fn take(&mut self) -> (Option<Force>, Vec<Reply>) {
        let wish = std::mem::take(self);
        (if wish.force { Some(Force::default()) } else { wish.rest }, wish.replies)
    }
}

/// A scan under way.
#[derive(Debug)]
pub(super) struct RunningScan {
    pub kind: ScanKind,
    pub progress: Arc<Progress>,
    full: bool,
    starts: Vec<PathBuf>,
    findings: mpsc::Receiver<Vec<Candidate>>,
    started: Instant,
    /// What it has yet to take again.
    force: Option<Force>,
    replies: Vec<Reply>,
}

impl RunningScan {
    /// Whether it comes to this name.
    pub fn comes_to(&self, name: &Path) -> bool {
        self.starts.iter().any(|start| name.starts_with(start))
    }

    /// What the scan finds next; `None`: it ended. Waits for ever while there is no scan.
    pub async fn next(scan: &mut Option<Self>) -> Option<Vec<Candidate>> {
        match scan {
            Some(scan) => scan.findings.recv().await,
            None => std::future::pending().await,
        }
    }
}

impl WatchTask {
    /// When the next scan that nothing but time asks for is due.
    pub(super) fn next_timed_scan(&self) -> Option<Instant> {
        let held = self.brake.held().map(|held| held.until);
        self.next_full.into_iter().chain(self.next_poll).chain(self.next_ripe).chain(held).min()
    }

    /// Whether this scan is one of those that look again and again at folders without events.
    pub(super) fn is_poll(&self, scan: &RunningScan) -> bool {
        scan.starts == self.coverage.uncovered
    }

    /// What is due, and the kind of scan that it asks for.
    fn take_due(&mut self, now: Instant) -> Option<(Vec<PathBuf>, ScanKind)> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let everything = vec![PathBuf::new()];
        match self.dirty.take(now) {
            Due::Everything if !self.scanned_once => Some((everything, ScanKind::Initial)),
            Due::Everything => Some((everything, ScanKind::Recovery)),
            _ if due(self.next_full) || due(self.next_ripe) || due(self.brake.held().map(|held| held.until)) => {
                Some((everything, ScanKind::Periodic))
            }
            Due::Folders(folders) => Some((folders, ScanKind::Folders)),
            Due::Nothing if due(self.next_poll) => Some((self.coverage.uncovered.clone(), ScanKind::Folders)),
            Due::Nothing => None,
        }
    }

    pub(super) async fn start_due_scan(&mut self, now: Instant) {
        let Some((starts, kind)) = self.take_due(now) else { return };
        let full = starts.iter().any(|start| start.as_os_str().is_empty());
        if full {
            // No event tells that a folder was mounted over the root, or that one above it was moved.
            self.check_root().await;
            if self.armed.is_none() {
                return;
            }
            self.next_ripe = None;
            // Whatever was asked for until now, this scan does.
            self.dirty.take(Instant::now());
        }
        let (force, replies) = if full { self.wish.take() } else { (None, Vec::new()) };
        let progress = Arc::new(Progress::begin(kind, self.clock.now()));
        if full {
            self.join_run(kind, !replies.is_empty(), &progress);
        }
        let scope = Scope {
            starts: starts.clone(),
            force: force.clone(),
            trusted_root: self.trusted_root,
            local: !self.remote,
            adopt_before: self.adopt_before(),
            progress: progress.clone(),
        };
        // One that was broken off may still be ending; its end must not be taken for this one's.
        self.scans.shutdown().await;
        let covering = self.native.as_ref().map(super::native::Native::covering);
        let (sender, findings) = mpsc::channel(2);
        self.scans.spawn(self.scanner.clone().scan(scope, covering, sender));
        self.next_poll = None;
        self.scan = Some(RunningScan { kind, progress, full, starts, findings, started: now, force, replies });
    }

    pub(super) async fn found(&mut self, finding: Option<Vec<Candidate>>) -> Result<(), StoreError> {
        let Some(candidates) = finding else { return self.end_scan().await };
        let mut whole = Vec::new();
        let order = self.settings.watch.order;
        let forced = candidates.iter().filter(|candidate| candidate.force);
        let forced: Vec<_> = forced.map(|found| (rank(order, &found.identity), found.relative.clone())).collect();
        for candidate in candidates {
            let Candidate { relative, identity, force, .. } = candidate;
            // An older version of it may be on its way; then it waits for its turn.
            if !candidate.whole
                || self.settling.contains(&relative)
                || self.intake.holds(&self.tree.absolute(&relative))
            {
                self.settle_found(relative, identity, force);
            } else {
                whole.push(Whole { relative, identity, force, present: Some(candidate.known) });
            }
        }
        self.hand_over(whole).await?;
        // Unless it was broken off meanwhile.
        if let Some(force) = self.scan.as_mut().and_then(|scan| scan.force.as_mut()) {
            for (rank, name) in forced {
                force.taken(rank, &name);
            }
        }
        Ok(())
    }

    fn settle_found(&mut self, relative: PathBuf, identity: FileIdentity, force: bool) {
        let now = Instant::now();
        // By its own times only where those are of this machine.
        let age = if self.remote { Duration::ZERO } else { unchanged_for(&identity, self.clock.now()) };
        if !self.settling.found(relative, identity, age, force, now) {
            self.runs.missed();
            self.dirty.everything(now);
        }
    }

    async fn end_scan(&mut self) -> Result<(), StoreError> {
        let Some(scan) = self.scan.take() else { return Ok(()) };
        let ended = match self.scans.join_next().await {
            Some(Ok(ended)) => ended?,
            Some(Err(_)) | None => Ended::Stopped,
        };
        let now = Instant::now();
        match ended {
            Ended::Done(compared) => self.note_scan(scan, *compared, now),
            Ended::NoRoot(error) => {
                if scan.full {
                    self.runs.break_off(&error.to_string());
                }
                if scan.replies.is_empty() {
                    scan.force.into_iter().for_each(|rest| self.wish.put_back(rest));
                }
                scan.replies.into_iter().for_each(|reply| drop(reply.send(Err(error.to_string()))));
                self.check_root_at = Some(now);
                self.dirty.everything(now + self.settings.watch.poll_interval);
            }
            Ended::Stopped => {
                if scan.full {
                    self.runs.break_off("the scan was broken off, and another one follows");
                }
                self.wish.break_off(Some(scan), "it was broken off, and goes on by itself");
                self.dirty.everything(now + self.settings.watch.poll_interval);
            }
        }
        Ok(())
    }

    fn note_scan(&mut self, mut scan: RunningScan, mut compared: Compared, now: Instant) {
        self.note_errors(&compared);
        if let Some(ripe_in) = compared.ripe_in {
            self.look_when_ripe(ripe_in.max(now.duration_since(scan.started) * REST));
        }
        self.note_covered(&scan, &mut compared, now);
        if compared.more {
            scan.force.take().into_iter().for_each(|rest| self.wish.put_back(rest));
            self.dirty.everything(now);
        }
        if compared.walked.short {
            // No event will tell when there is enough again.
            self.dirty.everything(now + self.rest_after(now.duration_since(scan.started)));
        }
        if scan.full {
            let summary = self.note_full(&scan, &compared, now);
            scan.replies.into_iter().for_each(|reply| drop(reply.send(Ok(summary))));
        }
        self.note_losses(scan.full, compared, now);
        self.refresh_warnings();
    }

    /// Files that are too young and for which there is no room are found by a scan when the first of them is not.
    pub(super) fn look_when_ripe(&mut self, young_for: Duration) {
        let at = Instant::now() + young_for.clamp(RIPE.0, RIPE.1);
        self.next_ripe = Some(self.next_ripe.map_or(at, |sooner| sooner.min(at)));
    }

    fn note_errors(&mut self, compared: &Compared) {
        let mut news = None;
        for (relative, error) in compared.walked.first_errors.iter().take(NAMES) {
            if self.note_error(relative, error.clone()) {
                news = news.or(Some((relative, error)));
            }
        }
        if let Some((relative, error)) = news {
            let path = self.tree.absolute(relative);
            let (watch, errors) = (&self.settings.name, compared.walked.errors);
            tracing::warn!(watch, errors, path = %path.display(), "some of the tree can't be read: {error}");
        }
    }

    fn note_covered(&mut self, scan: &RunningScan, compared: &mut Compared, now: Instant) {
        let took = now.duration_since(scan.started);
        let covered = std::mem::take(&mut compared.covered);
        if self.native.is_some() {
            self.coverage.note(&scan.starts, covered);
            let polled = !self.coverage.uncovered.is_empty();
            self.next_poll = polled.then(|| now + self.rest_after(took));
        }
    }

    fn note_full(&mut self, scan: &RunningScan, compared: &Compared, now: Instant) -> LastScan {
        let walked = &compared.walked;
        if walked.root != self.armed {
            self.check_root_at = Some(now);
        }
        self.note_replaced(compared);
        let took = now.duration_since(scan.started);
        self.note_run_through(compared, took, now);
        let summary = LastScan {
            at: self.clock.now(),
            duration_ms: millis(took),
            files: walked.files,
            changed: compared.changed,
            excluded: walked.excluded,
            not_ready: walked.not_ready,
            too_young: compared.young,
            vanished: compared.gone,
            errors: walked.errors,
        };
        self.status.excluded_by = walked.excluded_by.in_words();
        self.note_not_ready(&walked.first_not_ready);
        self.known_files = compared.known;
        self.status.last_scan = Some(summary);
        self.scanned_once = true;
        self.next_full = Some(now + self.pause_after(took));
        summary
    }

    fn note_replaced(&mut self, compared: &Compared) {
        let (replaced, root) = (compared.replaced, self.tree.root().display());
        if replaced && self.status.root != Root::Replaced {
            tracing::warn!(
                watch = self.settings.name,
                "{root} is empty and not the folder that it was: nothing counts as deleted"
            );
        }
        if !replaced {
            self.trusted_root = compared.walked.root;
        }
        self.status.root = if replaced { Root::Replaced } else { Root::Present };
    }

    /// Files that are gone wait for those that are new, or for the brake.
    fn note_losses(&mut self, full: bool, compared: Compared, now: Instant) {
        let gone = compared.names;
        // A root that was seen all along and is the same folder was emptied by somebody; over a network nobody knows.
        let unseen = self.remote || !self.losses_judged;
        let emptied = compared.walked.empty && compared.gone >= EMPTIED && unseen;
        self.losses_judged |= full;
        let counts = if full {
            self.brake
                .after_scan(Losses { gone: compared.gone, new: compared.new, known: compared.known, emptied }, now)
        } else {
            gone.is_empty() || self.brake.after_events(compared.gone, self.known_files, now)
        };
        let may_be_renamed = self.renames().is_some() && (compared.changed > 0 || !self.settling.is_empty());
        let pause = if may_be_renamed { self.time_for_renames() } else { Duration::ZERO };
        if !counts {
            // What other scans found is held back as well, and only a full scan knows of that.
            let others = !full && !self.leaving.is_empty();
            self.leaving.clear();
            // They may all have gone to where the others came, and then nothing is gone at all.
            if may_be_renamed || others {
                self.dirty.everything(now + pause);
            }
        } else if !gone.is_empty() {
            let hold = Hold { due: now + pause, since: now };
            let mut more = compared.more_gone;
            // A scan of some folders knows nothing of those that wait already: they stay.
            for name in gone {
                more |= !self.leaving.add(name, hold);
            }
            if more {
                self.dirty.everything(hold.due);
            }
        }
    }

    /// Looks once more for files that scans found gone, and notes those that still are.
    pub(super) async fn note_leaving(&mut self, now: Instant) -> Result<(), StoreError> {
        let leaving = self.leaving.take(now).into_iter().map(|(name, _)| name);
        let (held, names): (Vec<_>, Vec<_>) = leaving.partition(|name| self.intake.holds(&self.tree.absolute(name)));
        self.put_off(held);
        let names = self.keep_read(names);
        match self.scanner.missing(names, self.armed).await {
            Ok(gone) => self.vanish(gone).await,
            Err(_) => {
                self.check_root_at = Some(now);
                self.dirty.everything(now);
                Ok(())
            }
        }
    }

    fn put_off(&mut self, names: Vec<PathBuf>) {
        let now = Instant::now();
        for name in names {
            self.settle_from(name, Sign::Changed, now);
        }
    }

    /// How long after a poll the next one comes: a tree whose scan takes long is polled less often.
    pub(super) fn rest_after(&self, took: Duration) -> Duration {
        self.settings.watch.poll_interval.max(took * REST)
    }

    /// How long after a full scan the next one comes, if nothing else asks for one. Rescans of several watches are
    /// spread out.
    fn pause_after(&self, took: Duration) -> Duration {
        match self.status.mode {
            Mode::Poll(_) => self.rest_after(took),
            _ => self.settings.watch.rescan_interval.mul_f64(1.0 - fastrand::f64() / 10.0),
        }
    }
}

/// Which folders send events, as the scans found.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage {
    /// Folders that do, as of the newest full scan.
    pub folders: u64,
    /// Folders that don't; they are polled with all that is below.
    pub uncovered: Vec<PathBuf>,
    /// Why.
    pub why: Option<String>,
}

impl Coverage {
    fn note(&mut self, starts: &[PathBuf], covered: super::native::Covered) {
        let walked = |folder: &Path| starts.iter().any(|start| folder.starts_with(start));
        self.uncovered.retain(|folder| !walked(folder));
        self.uncovered.extend(covered.uncovered);
        if starts.iter().any(|start| start.as_os_str().is_empty()) {
            self.folders = covered.folders;
        }
        self.why = if self.uncovered.is_empty() { None } else { covered.why.or_else(|| self.why.take()) };
    }
}
