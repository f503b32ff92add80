//! Which full scans are runs, and when such a run is over.
//!
//! 1. A run begins with the first scan of a watch's task, with one that a person asked for, and with one that events
//!    were lost before. Scans that come with time, and those of single folders, are none.
//! 2. It is over when a scan went through, what that found was handed over, and nothing calls for another full scan. One
//!    that is broken off stays open, and the next full scan goes on with it: it begins at the root again, and what was
//!    taken by then is known.
//! 3. The task only tells: whoever writes runs down hears of each through a channel, and looks at the counters as often as
//!    it likes. Nothing here waits for that.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::compare::Compared;
use super::progress::{Progress, ScanProgress};
use super::status::ScanKind;
use super::task::WatchTask;
use crate::intake::Tally;
use crate::job::JobId;

/// How much longer than `settle` a run waits for what its scan found: in a folder in which files always settle, that would
/// have no end.
const HANDING_OVER: Duration = Duration::from_secs(10);

/// Why a scan is a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunCause {
    /// It is the first since the watch was started.
    Start,
    /// A person asked for it.
    Asked,
    /// Events were lost, or there was no room for what they told.
    Lost,
}

/// A run that began.
#[derive(Debug)]
pub struct ScanRun {
    /// Why.
    pub cause: RunCause,
    /// The jobs that were made since.
    pub made: Arc<Made>,
    /// Where it stands. Closed without [`RunStage::Over`]: the watch was stopped.
    pub told: watch::Receiver<RunTold>,
}

/// Where a run stands.
#[derive(Clone, Debug)]
pub struct RunTold {
    /// What it does.
    pub stage: RunStage,
    /// How long its newest scan took; `None`: that is under way, or was broken off.
    pub took: Option<Duration>,
    /// Why it stands still, or what its newest scan could not read.
    pub trouble: Option<String>,
    progress: Arc<Progress>,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStage {
    /// A scan is under way.
    Scanning,
    /// The scan went through; some of what it found still settles, or is read.
    HandingOver,
    /// It waits for the next full scan.
    BrokenOff,
    /// It is over.
    Over,
}

impl RunTold {
    /// How far its newest scan came.
    pub fn scanned(&self) -> ScanProgress {
        self.progress.read()
    }

    /// The folder that is read, relative to the root.
    pub fn folder(&self) -> Option<PathBuf> {
        (self.stage == RunStage::Scanning).then(|| self.progress.folder())
    }
}

/// Counts the jobs that were made in a run, each once.
#[derive(Debug, Default)]
pub struct Made(Mutex<(u64, Option<JobId>)>);

impl Made {
    fn add(&self, tally: Tally) {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.0 += tally.new;
        made.1 = made.1.max(tally.newest);
    }

    /// How many there are, and the newest of them.
    pub fn read(&self) -> (u64, Option<JobId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runs of a watch's task.
#[derive(Debug)]
pub(super) struct Runs {
    listener: mpsc::Sender<ScanRun>,
    open: Option<OpenRun>,
    missed: bool,
}

#[derive(Debug)]
struct OpenRun {
    made: Arc<Made>,
    told: watch::Sender<RunTold>,
    /// When its scan went through.
    through: Option<Instant>,
}

impl Runs {
    pub const fn new(listener: mpsc::Sender<ScanRun>) -> Self {
        Self { listener, open: None, missed: false }
    }

    /// Something happened of which no event will tell: the next full scan is a run.
    pub const fn missed(&mut self) {
        self.missed = true;
    }

    /// Jobs were made.
    pub fn made(&self, tally: Tally) {
        if let Some(run) = &self.open {
            run.made.add(tally);
        }
    }

    /// The run stands still until the next full scan.
    pub fn break_off(&mut self, why: &str) {
        if let Some(run) = &mut self.open {
            run.through = None;
            run.tell(|told| {
                told.stage = RunStage::BrokenOff;
                told.trouble = Some(why.to_owned());
            });
        }
    }

    fn begin(&mut self, cause: RunCause, progress: Arc<Progress>) {
        let (told, stands) = watch::channel(RunTold { stage: RunStage::Scanning, took: None, trouble: None, progress });
        let run = OpenRun { made: Arc::default(), told, through: None };
        // Nobody writes runs down, or does not get to it: then the scan goes on without.
        if self.listener.try_send(ScanRun { cause, made: run.made.clone(), told: stands }).is_ok() {
            self.open = Some(run);
        }
    }
}

impl OpenRun {
    fn tell(&self, change: impl FnOnce(&mut RunTold)) {
        self.told.send_modify(change);
    }
}

impl WatchTask {
    /// A full scan begins: as a run, as the next part of one, or as none.
    pub(super) fn join_run(&mut self, kind: ScanKind, asked: bool, progress: &Arc<Progress>) {
        let missed = std::mem::take(&mut self.runs.missed);
        // What a person asks for is a run of its own, unless the one before it did not get through.
        if asked && self.runs.open.as_ref().is_some_and(|run| run.through.is_some()) {
            self.end_run();
        }
        if let Some(run) = &mut self.runs.open {
            run.through = None;
            let progress = progress.clone();
            let scanning = RunTold { stage: RunStage::Scanning, took: None, trouble: None, progress };
            run.tell(|told| *told = scanning);
            return;
        }
        let cause = match kind {
            _ if !self.scanned_once => RunCause::Start,
            _ if asked => RunCause::Asked,
            _ if missed => RunCause::Lost,
            _ => return,
        };
        self.runs.begin(cause, progress.clone());
    }

    /// The full scan of the run went through.
    pub(super) fn note_run_through(&mut self, compared: &Compared, took: Duration, now: Instant) {
        let Some(run) = &mut self.runs.open else { return };
        let walked = &compared.walked;
        let trouble = walked.first_errors.first().map(|(relative, error)| match walked.errors {
            1 => format!("{}: {error}", relative.display()),
            n => format!("{n} entries can't be read, for instance {}: {error}", relative.display()),
        });
        run.through = Some(now);
        run.tell(|told| {
            told.stage = RunStage::HandingOver;
            told.took = Some(took);
            told.trouble = trouble;
        });
    }

    /// Ends the run whose scan went through, once what that found was handed over.
    pub(super) fn end_run_if_over(&mut self, now: Instant) {
        if self.run_ends_at().is_some_and(|at| at <= now || self.has_handed_over()) {
            self.end_run();
        }
    }

    /// When the run is over at the latest; `None`: there is none, or it needs another scan.
    pub(super) fn run_ends_at(&self) -> Option<Instant> {
        let through = self.runs.open.as_ref()?.through?;
        let another = self.dirty.wants_everything() && !self.wish.is_asked();
        (!another).then(|| through + self.settings.watch.settle + HANDING_OVER)
    }

    fn end_run(&mut self) {
        if let Some(run) = self.runs.open.take() {
            run.tell(|told| told.stage = RunStage::Over);
        }
    }

    /// Whether nothing is on its way to the queue but what somebody still writes, or what is too young.
    pub(super) fn has_handed_over(&self) -> bool {
        self.intake.is_empty() && self.settling.len() == self.settling.still_open() + self.settling.too_young()
    }
}
