//! Carries actions out on a real store and on the model, and compares what they answer and what they leave behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ingestd::clock::{Clock, ManualClock, Timestamp};
use ingestd::config::{Database, Durability};
use ingestd::job::{IdempotencyKey, JobId, StateName};
use ingestd::run::{InputRead, RunInput};
use ingestd::store::sqlite::{OpenMode, QueueRules, SqliteStore};
use ingestd::store::{
    AddedFile, AtWork, Backlog, Begun, Browse, Enqueued, Holder, Lease, Lists, NewListRun, Prunable, Queue, Recovery,
    Settings, Steered, Steering, Upkeep, Vanished, Work,
};
use rusqlite::{Connection, OpenFlags};

use super::actions::{Action, End, Ending, Hand, Loss, Old, PIPELINES, Pick, SOURCES, Sighting, WATCHED};
use super::check;
use super::executions::{AGING_MS, LEASE_MS, MAX_CRASHES, Recovered, Steer};
use super::semantics::{Answer, Facts, Gone, Model, Presence};
use super::terms::{KEYED_PATH, RUN, Step, enqueued, failed, gone, new_job, same};

const START_MS: i64 = 1_800_000_000_000;
/// How many jobs may wait, for those who ask.
const MAX_PENDING: usize = 4;

/// The writer's task.
type WriterEnd = tokio::task::JoinHandle<ingestd::store::Result<()>>;

/// A store, its model, and the leases that workers hold or believe to hold.
pub struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Arc<SqliteStore>,
    pub(super) writer: WriterEnd,
    pub(super) reader: Connection,
    pub(super) model: Model,
    pub(super) before: Facts,
    pub(super) held: Vec<(Lease, Work)>,
    pub(super) at_work: Vec<AtWork>,
    /// The job that each idempotency key was handed out for.
    pub(super) keys: HashMap<IdempotencyKey, JobId>,
    pub(super) boots: u32,
}

async fn open(folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> (Arc<SqliteStore>, WriterEnd) {
    let path = folder.path().join("q.db");
    let database = Database { path, durability: Durability::Normal, readers: 1, ..Database::default() };
    let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
    let max_crashes = u32::try_from(MAX_CRASHES).unwrap();
    let rules = QueueRules { lease: ms(LEASE_MS), priority_aging: ms(AGING_MS), max_crashes };
    let (store, task) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock.clone()).await.unwrap();
    store.set_max_pending(Some(MAX_PENDING as u64));
    (store, tokio::spawn(task.unwrap().run()))
}

/// A run whose input is read: from here on its state follows its jobs.
async fn begin_list(store: &SqliteStore) {
    let holder = Holder("model".to_owned());
    let list = NewListRun {
        name: None,
        list: "stdin".to_owned(),
        input: RunInput::Stdin { read: InputRead::default() },
        pipeline: PIPELINES[0].to_owned(),
        dry_run: false,
        delete_missing: false,
        holder: holder.clone(),
    };
    assert!(matches!(store.begin_list(list).await, Ok(Begun::Run { id: RUN, .. })));
    assert!(store.end_input(RUN, holder).await.unwrap());
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(START_MS)));
        let (store, writer) = open(&folder, &clock).await;
        store.begin_boot(1, "model").await.unwrap();
        store.put_watch("inbox", PathBuf::from("/in"), None).await.unwrap();
        store.register_pipelines(PIPELINES.map(str::to_owned).to_vec()).await.unwrap();
        begin_list(&store).await;
        let reader = Connection::open_with_flags(folder.path().join("q.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let model = Model { now: START_MS, ..Model::default() };
        let (before, held, at_work, keys) = (Facts::default(), Vec::new(), Vec::new(), HashMap::new());
        Self { folder, clock, store, writer, reader, model, before, held, at_work, keys, boots: 1 }
    }

    /// Lets the store finish, so that nothing of it outlives the test.
    pub async fn close(self) {
        self.store.close().await;
        self.writer.await.unwrap().unwrap();
    }

    /// Carries out one action and looks at everything; answers what happened, for people.
    pub async fn step(&mut self, action: &Action) -> Step {
        let told = self.act(action).await?;
        let (after, counters) = check::read(&self.reader).map_err(|error| error.to_string())?;
        let reopened = match action {
            Action::Steer { hand: Hand::Retry, jobs } => jobs.iter().map(|pick| self.pick_job(*pick).0).collect(),
            _ => BTreeSet::new(),
        };
        let mut wrong = check::breaches(&self.before, &after, &counters, &reopened);
        wrong.extend(check::deviations(&self.model.facts, &after));
        wrong.extend(check::miscounts(&self.reader).map_err(|error| error.to_string())?);
        self.before = after;
        if wrong.is_empty() { Ok(told) } else { Err(format!("{told}\n    {}", wrong.join("\n    "))) }
    }

    async fn act(&mut self, action: &Action) -> Step {
        match action {
            Action::Enqueue { sightings, answer, offer } => self.enqueue(sightings, *answer, *offer).await,
            Action::Vanish(losses) => self.vanish(losses).await,
            Action::NoteAbsent(picks) => self.note_absent(picks).await,
            Action::Lease(ask) => self.lease(ask).await,
            Action::LeaseSuspect => self.lease_suspect().await,
            Action::Settle(ends) => self.settle(ends).await,
            Action::Together { sighting, end, ask } => self.together(sighting, end, ask).await,
            Action::Renew(picks) => self.renew(picks).await,
            Action::Work(pick) => Ok(self.work(*pick)),
            Action::Rest => {
                self.at_work.clear();
                self.model.at_work.clear();
                Ok("nobody is at work".to_owned())
            }
            Action::Reclaim => self.reclaim().await,
            Action::Intend(pick) => self.intend(*pick).await,
            Action::Withdraw(pick, back) => self.withdraw(*pick, *back).await,
            Action::Live { pulses } => self.live(*pulses).await,
            Action::Advance { seconds } => {
                self.clock.advance(Duration::from_secs(*seconds));
                Ok(self.read_clock())
            }
            Action::Step { seconds } => {
                self.clock.step_wall(Timestamp::from_millis(self.model.now + seconds * 1_000));
                // Whatever is written next notices.
                self.store.ping().await.map_err(failed)?;
                self.model.move_along(seconds * 1_000);
                Ok(self.read_clock())
            }
            Action::Crash { reboot } => self.crash(*reboot).await,
            Action::Restart => self.restart().await,
            Action::Steer { hand, jobs } => self.steer(*hand, jobs).await,
            Action::Pause { pipeline, paused } => self.pause(pipeline, *paused).await,
            Action::Prune { what, age_s } => self.prune(*what, *age_s).await,
            Action::Check => self.check().await,
        }
    }

    pub(super) fn read_clock(&mut self) -> String {
        (self.model.now, self.model.boottime) = (self.clock.now().as_millis(), self.clock.boottime().as_millis());
        format!("wall clock {:+} s, boot time {} s", (self.model.now - START_MS) / 1_000, self.model.boottime / 1_000)
    }

    async fn enqueue(&mut self, sightings: &[Sighting], answer: bool, offer: bool) -> Step {
        self.model.room = offer.then_some(MAX_PENDING);
        let answers = self.ask(sightings, offer, |seen| seen.eager).await?;
        let mut told = self.judge_enqueue(sightings, &answers, |seen| seen.eager)?;
        let asked: Vec<Sighting> = sightings
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| **answer == Enqueued::NeedsDigest)
            .map(|(seen, _)| seen.clone())
            .collect();
        if answer && !asked.is_empty() {
            let answers = self.ask(&asked, offer, |_| true).await?;
            told = format!("{told}, with digests {}", self.judge_enqueue(&asked, &answers, |_| true)?);
        }
        self.model.room = None;
        Ok(told)
    }

    async fn ask(
        &self,
        sightings: &[Sighting],
        offer: bool,
        with_digest: impl Fn(&Sighting) -> bool,
    ) -> Result<Vec<Enqueued>, String> {
        let jobs = sightings.iter().map(|seen| new_job(seen, with_digest(seen), self.model.now)).collect();
        let answers = if offer { self.store.offer(jobs).await } else { self.store.enqueue(jobs).await };
        answers.map_err(failed)
    }

    /// A source that is named again in one call, by either name, is decided after the others, so that it sees what came of
    /// the first.
    pub(super) fn judge_enqueue(
        &mut self,
        seen: &[Sighting],
        answers: &[Enqueued],
        eager: impl Fn(&Sighting) -> bool,
    ) -> Step {
        let mut expected = vec![Answer::NeedsDigest; seen.len()];
        let mut left: Vec<usize> = (0..seen.len()).collect();
        while !left.is_empty() {
            let mut names = BTreeSet::new();
            let (round, later) = left.into_iter().partition(|at| {
                let alone = names.insert(seen[*at].source);
                seen[*at].renamed.is_none_or(|renamed| names.insert(renamed.from)) && alone
            });
            left = later;
            for at in Vec::<usize>::into_iter(round) {
                expected[at] = self.model.enqueue(&seen[at], eager(&seen[at]).then_some(seen[at].content));
            }
        }
        let found: Vec<Answer> = answers.iter().map(|answer| enqueued(*answer)).collect();
        same("enqueue", &expected, &found)
    }

    async fn vanish(&mut self, losses: &[Loss]) -> Step {
        let gone = losses.iter().map(gone).collect();
        let answers = self.store.vanish(gone).await.map_err(failed)?;
        let expected: Vec<_> = losses.iter().map(|loss| self.model.vanish(loss)).collect();
        let found: Vec<_> = answers
            .into_iter()
            .map(|answer| match answer {
                Vanished::Nothing => Gone::Nothing,
                Vanished::Noted => Gone::Noted,
                Vanished::New { id } => Gone::New(id.0),
            })
            .collect();
        same("vanish", &expected, &found)
    }

    async fn note_absent(&mut self, picks: &[Pick]) -> Step {
        let added = self.store.added_files(0, 100).await.map_err(failed)?;
        let path = |name: &&'static str| PathBuf::from(if name.starts_with('/') { name } else { KEYED_PATH });
        let name = |file: &AddedFile| SOURCES[WATCHED..].iter().copied().find(|name| path(name) == file.path);
        let found: BTreeSet<&str> = added.iter().filter_map(name).collect();
        let present =
            |name: &&str| self.model.facts.sources.get(*name).is_some_and(|s| s.presence == Presence::Present);
        same("added files", &SOURCES[WATCHED..].iter().copied().filter(present).collect(), &found)?;
        let gone: BTreeMap<i64, &str> = picks
            .iter()
            .filter_map(|pick| added.get(usize::from(*pick).checked_rem(added.len())?))
            .filter_map(|file| Some((file.source, name(file)?)))
            .collect();
        let noted = self.store.note_absent(gone.keys().copied().collect()).await.map_err(failed)?;
        for name in gone.values() {
            self.model.note_absent(name);
        }
        same(&format!("{:?} noted as gone", gone.values()), &(gone.len() as u64), &noted)
    }

    async fn crash(&mut self, reboot: bool) -> Step {
        self.writer.abort();
        if reboot {
            self.clock.reboot(self.clock.now());
            self.read_clock();
        }
        let recovery = self.start().await?;
        let expected = self.model.take_back(false);
        let found = Recovered {
            released: recovery.released,
            suspects: recovery.suspects,
            failed: recovery.failed,
            superseded: recovery.superseded,
            moving: recovery.dispositions,
        };
        same("dead boots", &1, &recovery.dead_boots)?;
        same("recovery", &expected, &found)
    }

    async fn restart(&mut self) -> Step {
        let ends: Vec<End> = (0..self.held.len())
            .map(|_| End { lease: 0, ending: Ending::Interrupted, content: None, chance: 0 })
            .collect();
        let released = self.settle(&ends).await?;
        self.store.end_boot().await.map_err(failed)?;
        self.store.close().await;
        let recovery = self.start().await?;
        same("recovery after an orderly stop", &(0, 0), &(recovery.dead_boots, recovery.released))?;
        Ok(released)
    }

    async fn start(&mut self) -> Result<Recovery, String> {
        (self.store, self.writer) = open(&self.folder, &self.clock).await;
        self.boots += 1;
        self.store.begin_boot(self.boots, "model").await.map_err(failed)
    }

    /// One of the newest jobs, or now and then one that does not exist.
    fn pick_job(&self, pick: Pick) -> JobId {
        if pick == Pick::MAX {
            return JobId(1_000_000);
        }
        let ids: Vec<i64> = self.before.jobs.keys().rev().take(10).copied().collect();
        JobId(usize::from(pick).checked_rem(ids.len()).map_or(1_000_000, |at| ids[at]))
    }

    async fn steer(&mut self, hand: Hand, picks: &[Pick]) -> Step {
        let jobs: Vec<JobId> = picks.iter().map(|pick| self.pick_job(*pick)).collect();
        let answers = match hand {
            Hand::Retry => self.store.retry(jobs.clone()).await,
            Hand::Cancel => self.store.cancel(jobs.clone()).await,
            Hand::Prioritize(priority) => self.store.prioritize(jobs.clone(), priority).await,
        };
        let found: Vec<Steer> = answers
            .map_err(failed)?
            .into_iter()
            .map(|answer| match answer {
                Steered::Done => Steer::Done,
                Steered::Running => Steer::Running,
                Steered::Refused(_) => Steer::Refused,
                Steered::Unknown => Steer::Unknown,
            })
            .collect();
        let expected: Vec<Steer> = jobs.iter().map(|id| self.model.steer(id.0, hand)).collect();
        same(&format!("{hand:?} of {jobs:?}"), &expected, &found)
    }

    async fn pause(&mut self, pipeline: &'static str, paused: bool) -> Step {
        self.store.pause_pipelines(vec![pipeline.to_owned()], paused).await.map_err(failed)?;
        let set = &mut self.model.facts.paused;
        if paused {
            set.insert(pipeline)
        } else {
            set.remove(pipeline)
        };
        Ok("done".to_owned())
    }

    async fn prune(&mut self, what: Old, age_s: u64) -> Step {
        let cutoff = self.clock.now().minus(Duration::from_secs(age_s));
        let kind = match what {
            Old::Completed => Prunable::Jobs(StateName::Completed),
            Old::Failed => Prunable::Jobs(StateName::Failed),
            Old::Cancelled => Prunable::Jobs(StateName::Cancelled),
            Old::Skipped => Prunable::Jobs(StateName::Skipped),
            Old::Attempts => Prunable::Attempts,
            Old::Sources => Prunable::Sources,
        };
        let announced = self.store.prunable(kind, cutoff).await.map_err(failed)?;
        let found = self.store.prune(kind, cutoff, 10_000).await.map_err(failed)?;
        let expected = self.model.prune(what, cutoff.as_millis()) as u64;
        same("announced and pruned", &(expected, expected), &(announced, found))
    }

    async fn check(&mut self) -> Step {
        let found = self.store.check(true).await.map_err(failed)?;
        same("db check", &Vec::<String>::new(), &found)?;
        let overview = self.store.overview().await.map_err(failed)?;
        for state in StateName::ALL {
            let expected = self.model.facts.jobs.values().filter(|job| job.state == state).count() as u64;
            same(state.as_str(), &expected, &overview.total.in_state(state))?;
        }
        let left = self.store.left(PIPELINES.map(str::to_owned).to_vec()).await.map_err(failed)?;
        let will_run = |job: &&super::semantics::Job| {
            let (paused, state) = (self.model.facts.paused.contains(job.pipeline), job.state);
            let by_itself = job.deferrals > 0 || job.crashes > 0 || job.run_at <= self.model.now;
            let by_itself = by_itself || state == StateName::Retrying || job.blocked_by.is_some();
            !paused && state.is_waiting() && by_itself
        };
        let expected = (self.model.running().count() as u64, self.model.facts.jobs.values().any(|job| will_run(&job)));
        same("what is left", &expected, &(left.running, left.waiting))
    }
}
