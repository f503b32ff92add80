//! Writes down the runs of one watch, beside its task.
//!
//! The task tells what is a run and where it stands, and counts. This looks at the counters every few seconds while a
//! scan is under way, so a first scan of any size costs one small write in that time, and nothing waits for it. When the
//! watch is stopped, or the daemon dies, the run stays active, and the next scan goes on with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::intake::patiently;
use crate::run::{RunId, RunState, RunType};
use crate::store::{RunProgress, Runs, ScanToRun, StoreError};
use crate::watch::{RunCause, RunStage, RunTold, ScanRun};

/// How often it is noted how far a scan has come.
const NOTE_EVERY: Duration = Duration::from_secs(2);

/// Writes down the runs of a watch.
pub(super) struct Recorder {
    pub store: Arc<dyn Runs>,
    pub clock: Arc<dyn Clock>,
    pub stop: CancellationToken,
    pub watch: String,
    pub root: PathBuf,
    pub pipeline: String,
    /// The last daemon did not stop in order, and this watch was not scanned since.
    pub crashed: bool,
    pub runs: mpsc::Receiver<ScanRun>,
}

/// What was noted of a run.
struct Noted {
    enqueued: u64,
    at: Instant,
    was_at_work: bool,
}

impl Recorder {
    /// Follows each run to its end. An error is one of the store that the daemon has to leave for.
    pub async fn record(mut self) -> Result<(), StoreError> {
        while let Some(run) = self.runs.recv().await {
            self.follow(run).await?;
        }
        Ok(())
    }

    async fn follow(&mut self, mut run: ScanRun) -> Result<(), StoreError> {
        let scan = ScanToRun {
            watch: self.watch.clone(),
            root: self.root.clone(),
            pipeline: self.pipeline.clone(),
            run_type: self.run_type(run.cause),
        };
        let begin = || self.store.begin_scan(scan.clone());
        let Some(begun) = patiently(&self.stop, "noting that a run begins", begin).await? else { return Ok(()) };
        let (watch, id) = (&self.watch, begun.id);
        let verb = if begun.goes_on { "goes on" } else { "begins" };
        tracing::info!(watch, run.id = %id, run.r#type = %begun.run_type, "a scan {verb}");
        let mut noted = Noted { enqueued: 0, at: Instant::now(), was_at_work: true };
        loop {
            let told = run.told.borrow_and_update().clone();
            if !self.note(id, &told, &run, &mut noted).await? || told.stage == RunStage::Over {
                return Ok(());
            }
            // Both only wait.
            let ended = tokio::select! {
                changed = run.told.changed() => changed.is_err(),
                () = sleep(NOTE_EVERY), if told.stage == RunStage::Scanning => false,
            };
            if ended {
                // The watch was stopped: what it came to since is the last to be noted.
                self.note(id, &told, &run, &mut noted).await?;
                return Ok(());
            }
        }
    }

    /// What a run is for, unless it is the first.
    fn run_type(&mut self, cause: RunCause) -> RunType {
        match cause {
            RunCause::Start if std::mem::take(&mut self.crashed) => RunType::Recovery,
            RunCause::Start | RunCause::Asked => RunType::Incremental,
            RunCause::Lost => RunType::Recovery,
        }
    }

    /// Notes where a run stands; `false`: it is not to be followed any more.
    async fn note(&self, id: RunId, told: &RunTold, run: &ScanRun, noted: &mut Noted) -> Result<bool, StoreError> {
        let (enqueued, newest_job) = run.made.read();
        let scanned = told.scanned();
        let took = told.took.unwrap_or_else(|| self.clock.now().since(scanned.started_at));
        let now = Instant::now();
        let progress = RunProgress {
            processed: scanned.files,
            more_enqueued: enqueued - noted.enqueued,
            newest_job,
            current_path: told.folder().map(|folder| self.root.components().chain(folder.components()).collect()),
            rate_per_s: scanned.rate_per_s(took),
            more_worked: if noted.was_at_work { now.duration_since(noted.at) } else { Duration::ZERO },
            last_error: told.trouble.clone(),
        };
        *noted = Noted { enqueued, at: now, was_at_work: told.stage != RunStage::BrokenOff };
        if told.stage != RunStage::Over {
            let call = || self.store.note_progress(id, progress.clone());
            return Ok(patiently(&self.stop, "noting a run's progress", call).await?.unwrap_or(false));
        }
        let call = || self.store.end_run(id, RunState::Completed, progress.clone());
        if patiently(&self.stop, "noting that a run is over", call).await? == Some(true) {
            let (watch, files) = (&self.watch, scanned.files);
            tracing::info!(watch, run.id = %id, files, jobs = enqueued, "the scan is through");
        }
        Ok(false)
    }
}
