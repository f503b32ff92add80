//! Runs over lists, in memory: guarded as the store guards them, and open about what was taken.

use async_trait::async_trait;

use super::Fake;
use crate::clock::Timestamp;
use crate::job::{JobId, StateName};
use crate::run::{Run, RunId, RunJobs, RunState, RunType};
use crate::store::{
    Begun, Changeset, Enqueued, FailedLine, Holder, Lines, LinesTaken, Lists, MissingStep, NewJob, NewListRun,
    RepoCounts, Result, RunSteered, RunSummary, StoreError, Unfinished,
};

/// A run, and what it took.
#[derive(Clone, Debug)]
pub(crate) struct ListRun {
    pub(crate) new: NewListRun,
    pub(crate) state: RunState,
    pub(crate) reading: bool,
    pub(crate) line: u64,
    pub(crate) taken: Vec<Lines>,
    /// Waiting jobs that a cancel finds.
    pub(crate) waiting: u64,
    /// How many jobs may wait.
    pub(crate) room: Option<u64>,
}

impl ListRun {
    /// The run as the database would tell it.
    pub(super) fn told(&self, id: RunId) -> Run {
        let at = Timestamp::from_millis(1_700_000_000_000);
        Run {
            id,
            name: self.new.name.clone(),
            run_type: RunType::Initial,
            state: self.state,
            input: self.new.input.clone(),
            pipeline: self.new.pipeline.clone(),
            total: None,
            processed: self.line,
            enqueued: 0,
            skipped: 0,
            position: self.line,
            current_path: None,
            rate_per_s: 0.0,
            started_at: at,
            updated_at: at,
            finished_at: None,
            duration_ms: 0,
            last_error: None,
            dry_run: self.new.dry_run,
            reading: self.reading,
            bad_lines: 0,
            failed_lines: 0,
            duplicates: 0,
            deletes: 0,
            batch: self.taken.len() as u64,
            checkpoint_version: 1,
            jobs: RunJobs::default(),
        }
    }

    /// A file named `changed` needs its digest, one named `known` was completed before.
    fn take(&mut self, lines: Lines) -> LinesTaken {
        if self.new.holder != lines.holder {
            return LinesTaken::TakenOver;
        }
        if self.state != RunState::Running {
            return LinesTaken::NotRunning(self.state);
        }
        if self.line != lines.after {
            return LinesTaken::Elsewhere { line: self.line };
        }
        if let Some(room) = self.room.filter(|room| *room < lines.jobs.len() as u64) {
            return LinesTaken::Full { room };
        }
        let named = |job: &NewJob, name: &str| job.source.display_path().ends_with(name);
        let needs = |(at, job): (usize, &NewJob)| (named(job, "changed") && job.digest.is_none()).then_some(at);
        let needed: Vec<usize> = lines.jobs.iter().enumerate().filter_map(needs).collect();
        if !needed.is_empty() {
            return LinesTaken::NeedDigests(needed);
        }
        let answer = |(job, id): (&NewJob, i64)| match (named(job, "known"), job.note_only) {
            (true, _) => Enqueued::Known { id: JobId(id), state: StateName::Completed },
            (_, true) => Enqueued::Unchanged,
            _ => Enqueued::New { id: JobId(id), version: 1 },
        };
        let answers = lines.jobs.iter().zip(1..).map(answer).collect();
        self.line = lines.read.lines;
        self.taken.push(lines);
        LinesTaken::All(answers)
    }
}

impl Fake {
    fn with_run<T>(&self, id: RunId, unknown: T, act: impl FnOnce(&mut ListRun) -> T) -> T {
        self.listed.lock().unwrap().get_mut(&id).map_or(unknown, act)
    }

    /// Moves a run from one of these states to another; one that is there already is left alone.
    fn move_run(&self, id: RunId, from: &[RunState], to: RunState) -> RunSteered {
        self.with_run(id, RunSteered::Unknown, |run| {
            if !from.contains(&run.state) && run.state != to {
                return RunSteered::Refused(run.state);
            }
            run.state = to;
            RunSteered::Done
        })
    }
}

#[async_trait]
impl Lists for Fake {
    async fn begin_list(&self, new: NewListRun) -> Result<Begun> {
        let mut runs = self.listed.lock().unwrap();
        let same = |run: &ListRun| run.reading && run.new.name.is_some() && run.new.name == new.name;
        if let Some((id, _)) = runs.iter().find(|(_, run)| same(run)) {
            return Ok(Begun::Active(*id));
        }
        let id = RunId(runs.len() as i64 + 1);
        let (state, taken) = (RunState::Running, Vec::new());
        runs.insert(id, ListRun { new, state, reading: true, line: 0, taken, waiting: 0, room: None });
        Ok(Begun::Run { id, run_type: RunType::Initial })
    }

    async fn unfinished(&self, _list: String) -> Result<Vec<Unfinished>> {
        Err(StoreError::Closed)
    }

    async fn unfinished_run(&self, _id: RunId) -> Result<Option<Unfinished>> {
        Err(StoreError::Closed)
    }

    async fn take_over(&self, id: RunId, from: Holder, to: Holder) -> Result<bool> {
        Ok(self.with_run(id, false, |run| {
            let held = run.new.holder == from;
            if held {
                run.new.holder = to;
            }
            held
        }))
    }

    async fn take_lines(&self, lines: Lines) -> Result<LinesTaken> {
        Ok(self.with_run(lines.run, LinesTaken::TakenOver, |run| run.take(lines.clone())))
    }

    async fn delete_missing(&self, _id: RunId, _holder: Holder, limit: usize) -> Result<MissingStep> {
        Ok(MissingStep::More(limit as u64))
    }

    async fn end_input(&self, id: RunId, holder: Holder) -> Result<bool> {
        Ok(self.with_run(id, false, |run| {
            run.reading &= run.new.holder != holder;
            !run.reading
        }))
    }

    async fn pause_run(&self, id: RunId) -> Result<RunSteered> {
        Ok(self.move_run(id, &[RunState::Running], RunState::Paused))
    }

    async fn resume_run(&self, id: RunId) -> Result<RunSteered> {
        Ok(self.move_run(id, &[RunState::Paused], RunState::Running))
    }

    async fn cancel_run(&self, id: RunId) -> Result<RunSteered> {
        Ok(self.move_run(id, &[RunState::Running, RunState::Paused], RunState::Cancelled))
    }

    async fn give_up_run(&self, id: RunId) -> Result<RunSteered> {
        self.cancel_run(id).await
    }

    async fn cancel_jobs_of(&self, id: RunId, limit: usize) -> Result<u64> {
        Ok(self.with_run(id, 0, |run| {
            let some = run.waiting.min(limit as u64);
            run.waiting -= some;
            some
        }))
    }

    async fn remove_run(&self, id: RunId) -> Result<RunSteered> {
        let mut runs = self.listed.lock().unwrap();
        Ok(match runs.get(&id).map(|run| run.state) {
            None => RunSteered::Unknown,
            Some(state) if !state.is_final() => RunSteered::Refused(state),
            Some(_) => {
                runs.remove(&id);
                RunSteered::Done
            }
        })
    }

    async fn failed_lines(&self, _run: Option<RunId>, _limit: usize) -> Result<Vec<FailedLine>> {
        Err(StoreError::Closed)
    }

    async fn changesets(&self, _id: RunId, _limit: usize) -> Result<Vec<Changeset>> {
        Err(StoreError::Closed)
    }

    async fn repos(&self, _id: RunId) -> Result<Vec<RepoCounts>> {
        Err(StoreError::Closed)
    }

    async fn run_summary(&self, _since: Option<Timestamp>) -> Result<RunSummary> {
        Err(StoreError::Closed)
    }
}
