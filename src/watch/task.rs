//! The task of one watch: a loop that waits for whatever comes first, and does one short thing about it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batches::BATCH;
use super::brake::Brake;
use super::compare::{Ended, MAX_GONE, Scanner};
use super::dirty::Dirty;
use super::filter::{BadGlob, Ruling};
use super::mounts;
use super::native::{Hint, Native};
use super::renames::{Held, MOST_HELD};
use super::rescan::{Coverage, RunningScan, Wish};
use super::run::{Runs, ScanRun};
use super::settle::{Settling, Sign};
use super::standing::Standing;
use super::status::{LastScan, WatchStatus};
use super::tree::{FolderId, Tree};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::intake::Intake;
use crate::job::DigestAlgorithm;
use crate::lifecycle::Pulse;
use crate::store::{Queue, Sources, StoreError};

/// How many files may be settling; a scan waits for room, and an event without room leads to a scan.
pub(super) const MAX_SETTLING: usize = 16_384;
/// How many hints are heard at once.
const MAX_HINTS: usize = 1_024;
/// How many files and errors the status names.
pub(super) const NAMES: usize = 10;
/// How soon a scan follows when events were lost.
const LOST_PAUSE: Duration = Duration::from_millis(100);
/// Why there is no scan.
const SHUT: &str = "nothing is taken in right now: the watch or the intake is paused, or the queue is full";
const FAR: Duration = Duration::from_hours(24);

/// What a watch is.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// Its name.
    pub name: String,
    /// Its section of the configuration.
    pub watch: config::Watch,
    /// The folder of the database, which is never entered.
    pub state_directory: PathBuf,
    /// How contents are digested.
    pub digest: DigestAlgorithm,
    /// Files that were there before this, and that the first scan finds, are noted as known and not processed.
    pub adopt_before: Option<Timestamp>,
}

/// What a watch works with.
pub struct WatchStations {
    /// Where versions go.
    pub queue: Arc<dyn Queue>,
    /// What is known of files.
    pub sources: Arc<dyn Sources>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How many digests may be taken at a time, over all watches.
    pub digests: Arc<Semaphore>,
    /// Whether files may be handed over: `false` while the watch is paused or there is no room for jobs. What
    /// happens meanwhile is found by a scan afterwards.
    pub intake_open: watch::Receiver<bool>,
    /// What is mounted where.
    pub mounts: watch::Receiver<mounts::Table>,
    /// Whoever writes down the scans that are runs.
    pub runs: mpsc::Sender<ScanRun>,
    /// Shows the watchdog that the loop turns.
    pub pulse: Pulse,
}

/// Something that a person asks of a watch.
#[derive(Debug)]
pub enum WatchCommand {
    /// Scan everything now; `force` takes every file again. Answers when the scan is through (files that have to
    /// settle follow later), or with the reason why there is none, or why it was broken off. Then the next full scan
    /// goes on with it.
    Scan {
        /// Whether files are taken though nothing changed.
        force: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<LastScan, String>>,
    },
    /// Tell what is known of these names under the root, in their order.
    Tell {
        /// Which.
        names: Vec<PathBuf>,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<Standing>>,
    },
    /// The files that the brake holds back are gone indeed. Answers how many those are, and a scan follows.
    Confirm {
        /// Where the answer goes.
        reply: oneshot::Sender<u64>,
    },
}

/// The other end of a watch's task.
#[derive(Clone, Debug)]
pub struct WatchHandle {
    /// What a person asks goes in here.
    pub commands: mpsc::Sender<WatchCommand>,
    /// How it is.
    pub status: watch::Receiver<WatchStatus>,
}

/// One watch at work.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any of them may hold with any other")]
pub struct WatchTask {
    pub(super) settings: WatchSettings,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tree: Arc<Tree>,
    pub(super) scanner: Scanner,
    pub(super) intake: Intake,
    pub(super) stop: CancellationToken,
    commands: mpsc::Receiver<WatchCommand>,
    gate: watch::Receiver<bool>,
    pub(super) mounts: watch::Receiver<mounts::Table>,
    /// The mounts that concern the root.
    pub(super) mounted: BTreeSet<Vec<u8>>,
    pub(super) pulse: Pulse,
    pub(super) told: watch::Sender<WatchStatus>,
    pub(super) next_telling: Instant,

    pub(super) native: Option<Native>,
    /// The root with its links resolved, as of the last look at it.
    pub(super) real_root: PathBuf,
    /// Whether the root was removed or moved, so that it has to be armed anew even if it looks the same.
    pub(super) root_went: bool,
    /// The root that the events come from and that scans are compared with; `None`: it is not there.
    pub(super) armed: Option<FolderId>,
    /// The root in which a scan last went through.
    pub(super) trusted_root: Option<FolderId>,
    /// When to look whether the root is there, or still the same.
    pub(super) check_root_at: Option<Instant>,
    /// Whether other machines write here, so that neither events nor leases nor times can be trusted.
    pub(super) remote: bool,

    pub(super) settling: Settling,
    /// Files that events told to be gone, and that may be on their way in under another name.
    pub(super) held: Held,
    pub(super) dirty: Dirty,
    pub(super) wish: Wish,
    pub(super) next_full: Option<Instant>,
    /// When the folders that send no events are scanned next.
    pub(super) next_poll: Option<Instant>,
    /// When files are scanned for that were too young.
    pub(super) next_ripe: Option<Instant>,
    pub(super) coverage: Coverage,
    pub(super) brake: Brake,
    /// Whether a full scan since the start has said what is gone.
    pub(super) losses_judged: bool,
    /// Files that scans found gone, until they are looked for once more and noted.
    pub(super) leaving: Held,
    /// How many files are known, about: as the newest full scan counted them, and what came and went since.
    pub(super) known_files: u64,
    pub(super) scan: Option<RunningScan>,
    pub(super) scans: JoinSet<Result<Ended, StoreError>>,
    pub(super) scanned_once: bool,
    /// Some of the files that lack nothing but their companion.
    pub(super) not_ready: BTreeSet<PathBuf>,
    pub(super) runs: Runs,
    pub(super) status: WatchStatus,
}

impl WatchTask {
    /// A watch, and the other end of it. It ends soon after `stop` is cancelled.
    pub fn new(
        settings: WatchSettings,
        stations: WatchStations,
        stop: CancellationToken,
    ) -> Result<(Self, WatchHandle), BadGlob> {
        let tree = Arc::new(Tree::new(&settings.watch, settings.state_directory.clone())?);
        let (sender, commands) = mpsc::channel(16);
        let (told, status) = watch::channel(WatchStatus::default());
        let WatchStations { queue, sources, clock, digests, intake_open: gate, mounts, runs, pulse } = stations;
        let scanner = Scanner {
            watch: settings.name.clone(),
            tree: tree.clone(),
            sources,
            clock: clock.clone(),
            rules: Arc::new(settings.watch.clone()),
            stop: stop.clone(),
        };
        let (now, brake, real_root) = (Instant::now(), settings.watch.delete_brake, tree.root().to_owned());
        let task = Self {
            intake: Intake::new(queue.clone(), settings.digest, digests, stop.clone()),
            settling: Settling::new(settings.watch.settle, MAX_SETTLING),
            held: Held::new(MOST_HELD),
            settings,
            queue,
            clock,
            tree,
            scanner,
            stop,
            commands,
            gate,
            mounts,
            mounted: BTreeSet::new(),
            pulse,
            told,
            next_telling: now,
            native: None,
            real_root,
            root_went: false,
            armed: None,
            trusted_root: None,
            check_root_at: Some(now),
            remote: false,
            dirty: Dirty::default(),
            wish: Wish::default(),
            next_full: None,
            next_poll: None,
            next_ripe: None,
            coverage: Coverage::default(),
            brake: Brake::new(brake),
            losses_judged: false,
            leaving: Held::new(MAX_GONE),
            known_files: 0,
            scan: None,
            scans: JoinSet::new(),
            scanned_once: false,
            not_ready: BTreeSet::new(),
            runs: Runs::new(runs),
            status: WatchStatus::default(),
        };
        Ok((task, WatchHandle { commands: sender, status }))
    }

    /// Watches until it is stopped. An error is one of the store that the daemon has to leave for.
    pub async fn run(mut self) -> Result<(), StoreError> {
        self.status.open = *self.gate.borrow_and_update();
        let mut hints = Vec::new();
        while !self.stop.is_cancelled() {
            self.do_what_is_due().await?;
            let tell_at = self.tell();
            let wake = self.next_due().into_iter().chain(tell_at).min().unwrap_or_else(|| Instant::now() + FAR);
            let room = self.settling.has_room(BATCH) && self.intake.len() < MAX_SETTLING;
            // Every branch only waits, and may be dropped; what follows runs to its end.
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep_until(wake) => (),
                () = hear(&mut self.native, &mut hints) => self.heed(&mut hints),
                finding = RunningScan::next(&mut self.scan), if room => self.found(finding).await?,
                done = self.intake.digested() => self.digested(done).await?,
                Some(command) = self.commands.recv() => self.obey(command),
                Ok(()) = self.gate.changed() => self.gate_moved(),
                Ok(()) = self.mounts.changed() => self.mounts_changed(),
                () = self.pulse.asked() => self.pulse.beat(),
            }
        }
        self.native = None;
        self.scan = None;
        self.scans.shutdown().await;
        Ok(())
    }

    async fn do_what_is_due(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.check_root_at.is_some_and(|at| at <= now) {
            self.check_root().await;
        }
        if !self.status.open {
            return Ok(());
        }
        if self.settling.next_due().is_some_and(|due| due <= now) {
            self.look_at_due().await?;
        }
        if self.held.next_due().is_some_and(|due| due <= now) {
            self.let_go(now).await?;
        }
        if self.leaving.next_due().is_some_and(|due| due <= now) {
            self.note_leaving(now).await?;
        }
        if self.scan.is_none() && self.armed.is_some() {
            self.start_due_scan(now).await;
        }
        self.end_run_if_over(now);
        Ok(())
    }

    fn next_due(&self) -> Option<Instant> {
        let may_scan = self.status.open && self.scan.is_none() && self.armed.is_some();
        let scan = self.dirty.next_due().into_iter().chain(self.next_timed_scan()).min().filter(|_| may_scan);
        let look =
            self.settling.next_due().into_iter().chain(self.held.next_due()).chain(self.leaving.next_due()).min();
        let look = look.filter(|_| self.status.open);
        let tell = self.scan.is_some().then_some(self.next_telling);
        self.check_root_at.into_iter().chain(scan).chain(look).chain(tell).chain(self.run_ends_at()).min()
    }

    fn heed(&mut self, hints: &mut Vec<Hint>) {
        self.status.last_event_at = Some(self.clock.now());
        let lost = self.native.as_ref().map_or(0, Native::take_lost);
        if lost > 0 {
            self.lost();
        }
        let now = Instant::now();
        for hint in hints.drain(..) {
            match hint {
                Hint::Root => {
                    // Its watch is gone with it, also where the new one has got the same number on disk.
                    self.root_went = true;
                    self.check_root_at = Some(now);
                }
                Hint::Limit(why) => self.fall_back(why),
                Hint::Lost => self.lost(),
                // While the intake is closed, the scan that follows its opening finds everything.
                _ if !self.status.open => (),
                Hint::File(relative, sign) => self.notice(relative, sign, now),
                Hint::Gone(relative) => self.notice_gone(relative, now),
                Hint::Folder(relative) => {
                    if is_taken(self.tree.filter().folders_above(&relative))
                        && is_taken(self.tree.filter().folder(&relative))
                    {
                        self.dirty.folder(relative, now);
                    }
                }
            }
        }
    }

    fn notice(&mut self, relative: PathBuf, sign: Sign, now: Instant) {
        self.note_rules(&relative, now);
        let relative = self.tree.filter().companion_of(&relative).unwrap_or(relative);
        if is_taken(self.tree.filter().path(&relative)) {
            self.settle_from(relative, sign, now);
        } else {
            self.status.excluded += 1;
        }
    }

    /// An ignore file that changes decides anew about its folder and all below.
    fn note_rules(&mut self, relative: &Path, now: Instant) {
        if self.tree.is_ignore_file(relative)
            && let Some(folder) = relative.parent()
        {
            self.dirty.folder(folder.to_owned(), now);
        }
    }

    fn notice_gone(&mut self, relative: PathBuf, now: Instant) {
        self.note_rules(&relative, now);
        let filter = self.tree.filter();
        let as_file = is_taken(filter.file(&relative));
        if is_taken(filter.folders_above(&relative)) && (as_file || is_taken(filter.folder(&relative))) {
            self.settle_from(relative, Sign::Changed, now);
        }
    }

    pub(super) fn settle_from(&mut self, relative: PathBuf, sign: Sign, now: Instant) {
        if !self.settling.noticed(relative, sign, now) {
            self.runs.missed();
            self.dirty.everything(now + LOST_PAUSE);
        }
    }

    pub(super) fn lost(&mut self) {
        self.status.events_lost += 1;
        self.runs.missed();
        self.dirty.everything(Instant::now() + LOST_PAUSE);
    }

    /// The queue is full: what it did not take is found by a scan, at the latest when the gate has opened again.
    pub(super) fn turned_away(&mut self) {
        self.dirty.everything(Instant::now() + LOST_PAUSE);
    }

    fn obey(&mut self, command: WatchCommand) {
        match command {
            WatchCommand::Scan { reply, .. } if !self.status.open => {
                drop(reply.send(Err(SHUT.to_owned())));
            }
            WatchCommand::Scan { force, reply } => {
                self.wish.add(force, reply);
                self.dirty.everything(Instant::now());
                self.check_root_at = Some(Instant::now());
            }
            // Whoever asked may have gone away.
            WatchCommand::Tell { names, reply } => drop(reply.send(self.standings(&names))),
            WatchCommand::Confirm { reply } => {
                let held = self.brake.held().map_or(0, |held| held.files);
                if held > 0 {
                    self.brake.confirm();
                    self.dirty.everything(Instant::now());
                }
                // Whoever asked may have gone away.
                let _ = reply.send(held);
            }
        }
    }

    /// Something was mounted or unmounted somewhere.
    fn mounts_changed(&mut self) {
        let mounted = self.find_mounts();
        if mounted != self.mounted {
            self.mounted = mounted;
            // A folder that is covered now, or bare again, is not the one whose events come: everything is armed anew.
            self.root_went = true;
            self.check_root_at = Some(Instant::now());
            self.dirty.everything(Instant::now());
        }
    }

    pub(super) fn find_mounts(&mut self) -> BTreeSet<Vec<u8>> {
        mounts::concerning(&self.mounts.borrow_and_update(), &self.real_root)
    }

    /// Whether files may be handed over, as of now.
    pub(super) fn heed_gate(&mut self) {
        if self.gate.has_changed().unwrap_or(false) {
            self.gate_moved();
        }
    }

    fn gate_moved(&mut self) {
        let open = *self.gate.borrow_and_update();
        if open != self.status.open {
            self.status.open = open;
            self.forget_settling();
            self.held.clear();
            self.intake.clear();
            self.leaving.clear();
            self.runs.break_off(SHUT);
            self.wish.break_off(self.scan.take(), &format!("it was broken off, and goes on by itself: {SHUT}"));
            self.scans.abort_all();
            self.dirty.everything(Instant::now());
        }
    }

    /// Forgets what settles: a full scan finds it again, and takes again what it was told to.
    pub(super) fn forget_settling(&mut self) {
        self.wish.leave(self.settling.forced().map(Path::to_owned));
        self.settling.clear();
    }

    /// Runs something that blocks, and gives up on it when the watch is stopped: a dead network filesystem must not
    /// keep the daemon from leaving.
    pub(super) async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let work = tokio::task::spawn_blocking(work);
        tokio::select! {
            () = self.stop.cancelled() => None,
            done = work => done.ok(),
        }
    }
}

pub(super) fn is_taken(ruling: Ruling) -> bool {
    ruling == Ruling::Taken
}

/// Waits for hints; for ever, where there are no native events.
async fn hear(native: &mut Option<Native>, into: &mut Vec<Hint>) {
    match native {
        Some(native) => native.hints(into, MAX_HINTS).await,
        None => std::future::pending().await,
    }
}
