//! Carries actions out on a real store and on the model, and compares what they answer and what they leave behind.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ingestd::clock::{Clock, ManualClock, Timestamp};
use ingestd::config::{Database, Durability};
use ingestd::job::{
    Digest, DigestAlgorithm, ErrorKind, FileIdentity, IdempotencyKey, JobError, JobId, Outcome, RetryPolicy,
    SkipReason, SourceKey, StateName, Verdict,
};
use ingestd::store::sqlite::{OpenMode, QueueRules, SqliteStore};
use ingestd::store::{
    Appetite, Backlog, Browse, Content, Disposition, Dispositions, Enqueued, Gone, Intent, Lease, Leased, NewJob,
    Prunable, Queue, Recovery, Settings, Settled, Settlement, Steered, Steering, Upkeep, Vanished, Want, Work,
};
use rusqlite::{Connection, OpenFlags};

use super::actions::{Action, Ask, End, Ending, Hand, Look, Loss, Old, PIPELINES, Pick, SOURCES, Sighting, WATCHED};
use super::check::{self, MAX_ATTEMPTS};
use super::executions::{AGING_MS, LEASE_MS, MAX_CRASHES, Recovered, Steer};
use super::model::{Answer, Facts, Model};

const START_MS: i64 = 1_800_000_000_000;
/// Leases that are held at most, most of them stale.
const MOST_HELD: usize = 12;

/// What a step shows when something is not as it should be.
pub type Step = Result<String, String>;

/// A store, its model, and the leases that workers hold or believe to hold.
pub struct World {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Arc<SqliteStore>,
    writer: tokio::task::JoinHandle<ingestd::store::Result<()>>,
    reader: Connection,
    model: Model,
    before: Facts,
    held: Vec<(Lease, Work)>,
    /// The job that each idempotency key was handed out for.
    keys: HashMap<IdempotencyKey, JobId>,
    boots: u32,
}

async fn open(
    folder: &tempfile::TempDir,
    clock: &Arc<ManualClock>,
) -> (Arc<SqliteStore>, tokio::task::JoinHandle<ingestd::store::Result<()>>) {
    let path = folder.path().join("q.db");
    let database = Database { path, durability: Durability::Normal, readers: 1, ..Database::default() };
    let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
    let max_crashes = u32::try_from(MAX_CRASHES).unwrap();
    let rules = QueueRules { lease: ms(LEASE_MS), priority_aging: ms(AGING_MS), max_crashes };
    let (store, task) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock.clone()).await.unwrap();
    (store, tokio::spawn(task.unwrap().run()))
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(START_MS)));
        let (store, writer) = open(&folder, &clock).await;
        store.begin_boot(1, "model").await.unwrap();
        store.put_watch("inbox", PathBuf::from("/in"), None).await.unwrap();
        store.register_pipelines(PIPELINES.map(str::to_owned).to_vec()).await.unwrap();
        let reader = Connection::open_with_flags(folder.path().join("q.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let model = Model { now: START_MS, ..Model::default() };
        let (before, held, keys) = (Facts::default(), Vec::new(), HashMap::new());
        Self { folder, clock, store, writer, reader, model, before, held, keys, boots: 1 }
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
        self.before = after;
        if wrong.is_empty() { Ok(told) } else { Err(format!("{told}\n    {}", wrong.join("\n    "))) }
    }

    async fn act(&mut self, action: &Action) -> Step {
        match action {
            Action::Enqueue { sightings, answer } => self.enqueue(sightings, *answer).await,
            Action::Vanish(losses) => self.vanish(losses).await,
            Action::Lease(ask) => self.lease(ask).await,
            Action::LeaseSuspect => self.lease_suspect().await,
            Action::Settle(ends) => self.settle(ends).await,
            Action::Together { sighting, end, ask } => self.together(sighting, end, ask).await,
            Action::Renew(picks) => self.renew(picks).await,
            Action::Reclaim => self.reclaim().await,
            Action::Intend(pick) => self.intend(*pick).await,
            Action::Withdraw(pick, back) => self.withdraw(*pick, *back).await,
            Action::Advance { seconds } => {
                self.clock.advance(Duration::from_secs(*seconds));
                self.read_clock()
            }
            Action::Step { seconds } => {
                self.clock.step_wall(Timestamp::from_millis(self.model.now + seconds * 1_000));
                self.read_clock()
            }
            Action::Crash { reboot } => self.crash(*reboot).await,
            Action::Restart => self.restart().await,
            Action::Steer { hand, jobs } => self.steer(*hand, jobs).await,
            Action::Pause { pipeline, paused } => self.pause(pipeline, *paused).await,
            Action::Prune { what, age_s } => self.prune(*what, *age_s).await,
            Action::Check => self.check().await,
        }
    }

    fn read_clock(&mut self) -> Step {
        (self.model.now, self.model.boottime) = (self.clock.now().as_millis(), self.clock.boottime().as_millis());
        Ok(format!(
            "wall clock {:+} s, boot time {} s",
            (self.model.now - START_MS) / 1_000,
            self.model.boottime / 1_000
        ))
    }

    async fn enqueue(&mut self, sightings: &[Sighting], answer: bool) -> Step {
        let jobs = sightings.iter().map(|seen| new_job(seen, seen.eager, self.model.now)).collect();
        let answers = self.store.enqueue(jobs).await.map_err(failed)?;
        let mut told = self.judge_enqueue(sightings, &answers, |seen| seen.eager)?;
        let asked: Vec<Sighting> = sightings
            .iter()
            .zip(&answers)
            .filter(|(_, a)| **a == Enqueued::NeedsDigest)
            .map(|(s, _)| s.clone())
            .collect();
        if answer && !asked.is_empty() {
            let jobs = asked.iter().map(|seen| new_job(seen, true, self.model.now)).collect();
            let answers = self.store.enqueue(jobs).await.map_err(failed)?;
            told += &format!(", with digests {}", self.judge_enqueue(&asked, &answers, |_| true)?);
        }
        Ok(told)
    }

    fn judge_enqueue(&mut self, seen: &[Sighting], answers: &[Enqueued], eager: impl Fn(&Sighting) -> bool) -> Step {
        let expected: Vec<Answer> =
            seen.iter().map(|seen| self.model.enqueue(seen, eager(seen).then_some(seen.content))).collect();
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
                Vanished::Nothing => None,
                Vanished::Noted => Some(None),
                Vanished::New { id } => Some(Some(id.0)),
            })
            .collect();
        same("vanish", &expected, &found)
    }

    async fn lease(&mut self, ask: &Ask) -> Step {
        if self.model.running().any(|(_, job)| job.crashes >= 2) {
            return Ok("a suspect runs alone".to_owned());
        }
        let leased = self.store.lease(wants(ask), ask.limit, Appetite::Regular).await.map_err(failed)?;
        self.judge_lease(ask, leased)
    }

    /// Each pipeline gives its first jobs in their order; as many in all as may start; none gets two more than
    /// another that would have had more.
    fn judge_lease(&mut self, ask: &Ask, leased: Leased) -> Step {
        let found: Vec<i64> = leased.work.iter().map(|(_, work)| work.job.0).collect();
        let mut shares = Vec::new();
        for (pipeline, permits) in &ask.wants {
            let due = self.model.due(pipeline, false);
            let got: Vec<i64> =
                leased.work.iter().filter(|(_, work)| work.pipeline == *pipeline).map(|(_, work)| work.job.0).collect();
            same(&format!("lease of {pipeline}"), &due.iter().copied().take(got.len()).collect::<Vec<_>>(), &got)?;
            shares.push((got.len(), due.len().min(*permits)));
        }
        let most: usize = shares.iter().map(|(_, could)| could).sum();
        same("number of leases", &most.min(ask.limit), &found.len())?;
        let unfair = |(got, could): &(usize, usize)| got < could && shares.iter().any(|(other, _)| *other > got + 1);
        if let Some(at) = shares.iter().position(unfair) {
            return Err(format!("{} got too little: (got, could have had) {shares:?}", ask.wants[at].0));
        }
        self.judge_outlook(ask, &leased, &shares)?;
        self.take_up(leased)?;
        Ok(format!("leased {found:?}"))
    }

    fn judge_outlook(&self, ask: &Ask, leased: &Leased, shares: &[(usize, usize)]) -> Result<(), String> {
        let suspect_due = ask.wants.iter().any(|(pipeline, _)| !self.model.due(pipeline, true).is_empty());
        same("suspect due", &suspect_due, &leased.suspect_due)?;
        let next = |(pipeline, _): &(&str, usize)| self.model.next_due(pipeline);
        // Whoever could have started more has to know when to come again; others may.
        let hungry = ask.wants.iter().zip(shares).filter(|((_, permits), (_, could))| could < permits.min(&ask.limit));
        let latest = hungry.filter_map(|(want, _)| next(want)).min();
        let found = leased.next_due.map(Timestamp::as_millis);
        let real = found.is_none_or(|found| ask.wants.iter().any(|want| next(want) == Some(found)));
        if real && latest.is_none_or(|latest| found.is_some_and(|found| found <= latest)) {
            return Ok(());
        }
        Err(format!("next due: expected {latest:?} or earlier, found {found:?}"))
    }

    async fn lease_suspect(&mut self) -> Step {
        if self.model.running().count() > 0 {
            return Ok("others run".to_owned());
        }
        let ask = Ask { wants: PIPELINES.map(|pipeline| (pipeline, 2)).to_vec(), limit: 6 };
        let leased = self.store.lease(wants(&ask), ask.limit, Appetite::OneSuspect).await.map_err(failed)?;
        let first: Vec<i64> = PIPELINES.iter().filter_map(|p| self.model.due(p, true).first().copied()).collect();
        let found: Vec<i64> = leased.work.iter().map(|(_, work)| work.job.0).collect();
        if found.len() != first.len().min(1) || found.iter().any(|id| !first.contains(id)) {
            return Err(format!("leased suspects {found:?}, expected one of {first:?}"));
        }
        self.take_up(leased)?;
        Ok(format!("leased suspects {found:?}"))
    }

    /// The model follows the lease, and what the workers were told is looked at.
    fn take_up(&mut self, leased: Leased) -> Result<(), String> {
        for (lease, work) in leased.work {
            let id = work.job.0;
            let source = &self.model.facts.sources[self.model.facts.jobs[&id].source];
            let look = source.look;
            self.model.lease(id);
            let job = &self.model.facts.jobs[&id];
            let expected = (job.fence, job.deadline, job.version, job.op, job.priority, look, job.moving);
            let (fence, deadline) = (lease.fence().0, Some(lease.deadline().as_millis()));
            let moving = work.disposition.as_ref().map(|way| look_of(&way.identity));
            let found =
                (fence, deadline, work.version, work.op, work.priority.number(), look_of(&work.identity), moving);
            same(&format!("lease of job {id}"), &expected, &found)?;
            let expected = (job.attempt, job.attempt + 1, job.executions, job.deferrals, job.first_started_at);
            let spent = &work.spent;
            let found = (i64::from(spent.attempts), i64::from(work.attempt), i64::from(work.execution));
            let found =
                (found.0, found.1, found.2, i64::from(spent.deferrals), Some(spent.first_started_at.as_millis()));
            same(&format!("what job {id} has spent"), &expected, &found)?;
            let expected = (job.digest, job.baseline, job.crashes >= 2);
            let found = (work.digest.map(content_of), work.completed_digest.map(content_of), work.suspect);
            same(&format!("what is known for job {id}"), &expected, &found)?;
            if self.keys.insert(work.idempotency_key, work.job).is_some_and(|before| before != work.job) {
                return Err(format!("job {id} has the idempotency key of another job"));
            }
            self.held.push((lease, work));
        }
        let model = &self.model;
        while let Some(stale) = (self.held.len() > MOST_HELD)
            .then(|| self.held.iter().position(|(lease, _)| !model.stands(lease.job().0, lease.fence().0)))
            .flatten()
        {
            self.held.remove(stale);
        }
        Ok(())
    }

    async fn settle(&mut self, ends: &[End]) -> Step {
        let ends: Vec<Settlement> = ends.iter().filter_map(|end| self.end(end)).collect();
        if ends.is_empty() {
            return Ok("nothing to settle".to_owned());
        }
        let about = about(&ends);
        let answers = self.store.settle(ends).await.map_err(failed)?;
        self.judge_settle(about, &answers)
    }

    /// Takes a lease out of the workers' hands and ends it.
    fn end(&mut self, end: &End) -> Option<Settlement> {
        let at = usize::from(end.lease).checked_rem(self.held.len())?;
        let (lease, work) = self.held.remove(at);
        let stands = self.model.stands(lease.job().0, lease.fence().0);
        let newer = stands.then(|| self.model.newer(work.job.0)).flatten();
        let outcome = outcome(end.ending, newer);
        let verdict = policy().judge(outcome, work.spent, self.clock.now(), f64::from(end.chance) / 100.0);
        // The content of what is gone was never seen.
        let content = end.content.filter(|_| work.op != ingestd::job::Op::Delete);
        Some(Settlement {
            lease,
            verdict,
            code: Some(0),
            output: b"out".to_vec(),
            content: content.map(|(look, byte)| Content { identity: identity(look), digest: digest(byte) }),
            finished_at: self.clock.now(),
            duration: Duration::from_millis(5),
        })
    }

    fn judge_settle(&mut self, ends: Vec<About>, answers: &[Settled]) -> Step {
        let expected: Vec<_> = ends
            .iter()
            .map(|(id, fence, verdict, content)| self.model.settle(*id, *fence, verdict, *content))
            .collect();
        let found: Vec<Option<StateName>> = answers
            .iter()
            .map(|answer| match answer {
                Settled::As(state) => Some(*state),
                Settled::LeaseLost => None,
            })
            .collect();
        let ends: Vec<String> =
            ends.iter().map(|(id, fence, verdict, _)| format!("job {id} fence {fence} {}", verdict.as_str())).collect();
        Ok(format!("{}: {}", ends.join(", "), same("settle", &expected, &found)?))
    }

    async fn together(&mut self, sighting: &Sighting, end: &End, ask: &Ask) -> Step {
        let good = new_job(sighting, sighting.eager, self.model.now);
        let nowhere = SourceKey::Watched { watch: "nobody".to_owned(), relative: "a".into() };
        let bad = NewJob { source: nowhere, ..good.clone() };
        let ends: Vec<Settlement> = self.end(end).into_iter().collect();
        let about = about(&ends);
        let limit = if self.model.running().any(|(_, job)| job.crashes >= 2) { 0 } else { ask.limit };
        let ask = Ask { wants: ask.wants.clone(), limit };
        let store = self.store.clone();
        let (good, bad, settled, leased) = tokio::join!(
            store.enqueue(vec![good]),
            store.enqueue(vec![bad]),
            store.settle(ends),
            store.lease(wants(&ask), ask.limit, Appetite::Regular),
        );
        same("the bad call fails", &true, &bad.is_err())?;
        let enqueued = self.judge_enqueue(std::slice::from_ref(sighting), &good.map_err(failed)?, |seen| seen.eager)?;
        let settled = self.judge_settle(about, &settled.map_err(failed)?)?;
        let leased = self.judge_lease(&ask, leased.map_err(failed)?)?;
        Ok(format!("{enqueued}; {settled}; {leased}"))
    }

    fn pick_lease(&self, pick: Pick) -> Option<&(Lease, Work)> {
        self.held.get(usize::from(pick).checked_rem(self.held.len())?)
    }

    async fn renew(&mut self, picks: &[Pick]) -> Step {
        let claims: Vec<_> = picks.iter().filter_map(|pick| Some(self.pick_lease(*pick)?.0.claim())).collect();
        let answers = self.store.renew(claims.clone()).await.map_err(failed)?;
        let expected: Vec<_> = claims.iter().map(|claim| self.model.renew(claim.job.0, claim.fence.0)).collect();
        let found: Vec<_> = answers.into_iter().map(|deadline| deadline.map(|at| at.as_millis())).collect();
        same(&format!("renewal of {claims:?}"), &expected, &found)
    }

    async fn reclaim(&mut self) -> Step {
        let taken_back = self.store.reclaim().await.map_err(failed)?;
        let expected = self.model.take_back(true);
        same("reclaimed", &(expected.released + expected.failed + expected.superseded), &taken_back)
    }

    async fn intend(&mut self, pick: Pick) -> Step {
        let Some((lease, work)) = self.pick_lease(pick) else { return Ok("nothing to move".to_owned()) };
        let claim = lease.claim();
        let (id, fence, look) = (claim.job.0, claim.fence.0, look_of(&work.identity));
        let way = Disposition {
            path: work.path.clone(),
            private: PathBuf::from(format!("/in/.ingestd-{id}-{fence}")),
            target: None,
            identity: work.identity,
            error: None,
        };
        let answer = self.store.intend(claim, way).await.map_err(failed)?;
        let found = match answer {
            Intent::Committed => Some(true),
            Intent::Newer => Some(false),
            Intent::LeaseLost => None,
        };
        let expected = self.model.intend(id, fence, look);
        same(&format!("intent for job {id}"), &expected, &found)
    }

    async fn withdraw(&mut self, pick: Pick, back: Option<Look>) -> Step {
        let Some((lease, _)) = self.pick_lease(pick) else { return Ok("nothing to withdraw".to_owned()) };
        let claim = lease.claim();
        let found = self.store.withdraw(claim, back.map(identity)).await.map_err(failed)?;
        let expected = self.model.withdraw(claim.job.0, claim.fence.0, back);
        same(&format!("withdrawal for job {}", claim.job), &expected, &found)
    }

    async fn crash(&mut self, reboot: bool) -> Step {
        self.writer.abort();
        if reboot {
            self.clock = Arc::new(ManualClock::at(self.clock.now()));
            self.read_clock()?;
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
        let will_run = |job: &&super::model::Job| {
            let (paused, state) = (self.model.facts.paused.contains(job.pipeline), job.state);
            let by_itself = job.deferrals > 0 || job.crashes > 0 || job.run_at <= self.model.now;
            let by_itself = by_itself || state == StateName::Retrying || job.blocked_by.is_some();
            !paused && state.is_waiting() && by_itself
        };
        let expected = (self.model.running().count() as u64, self.model.facts.jobs.values().any(|job| will_run(&job)));
        same("what is left", &expected, &(left.running, left.waiting))
    }
}

/// What a settlement says: job, fence, verdict, content.
type About = (i64, i64, Verdict, Option<(Look, u8)>);

fn about(ends: &[Settlement]) -> Vec<About> {
    let content = |content: Content| (look_of(&content.identity), content_of(content.digest));
    ends.iter()
        .map(|end| (end.lease.job().0, end.lease.fence().0, end.verdict.clone(), end.content.map(content)))
        .collect()
}

fn policy() -> RetryPolicy {
    RetryPolicy {
        max_attempts: u32::try_from(MAX_ATTEMPTS).unwrap(),
        max_elapsed: Duration::from_hours(1),
        ..RetryPolicy::default()
    }
}

fn outcome(ending: Ending, newer: Option<i64>) -> Outcome {
    match ending {
        Ending::Done => Outcome::Done,
        Ending::Failed => Outcome::Failed(JobError::transient(ErrorKind::Exit, "exit 1")),
        Ending::FailedForGood => Outcome::Failed(JobError::permanent(ErrorKind::Status, "404")),
        Ending::Deferred(after) => Outcome::Deferred {
            after: after.map(Duration::from_secs),
            error: JobError::transient(ErrorKind::Connection, "refused"),
        },
        Ending::Interrupted => Outcome::Interrupted,
        Ending::Cancelled => Outcome::Cancelled,
        Ending::Vanished => Outcome::Moot(SkipReason::Vanished),
        Ending::Unchanged => Outcome::Moot(SkipReason::Unchanged),
        Ending::Superseded => {
            Outcome::Moot(newer.map_or(SkipReason::Unchanged, |by| SkipReason::Superseded { by: JobId(by) }))
        }
    }
}

fn wants(ask: &Ask) -> Vec<Want> {
    ask.wants.iter().map(|(pipeline, permits)| Want { pipeline: (*pipeline).to_owned(), permits: *permits }).collect()
}

fn new_job(seen: &Sighting, with_digest: bool, now: i64) -> NewJob {
    NewJob {
        source: source_key(seen.source),
        pipeline: seen.pipeline.to_owned(),
        priority: seen.priority,
        run_at: seen.delay_s.map(|delay| Timestamp::from_millis(now + delay * 1_000)),
        identity: identity(seen.look),
        digest: with_digest.then(|| digest(seen.content)),
        metadata: None,
        force: seen.force,
        note_only: seen.note_only,
    }
}

fn source_key(name: &'static str) -> SourceKey {
    match name {
        watched if SOURCES[..WATCHED].contains(&watched) => {
            SourceKey::Watched { watch: "inbox".to_owned(), relative: watched.into() }
        }
        path if path.starts_with('/') => SourceKey::Path(path.into()),
        key => SourceKey::Keyed { key: key.to_owned(), path: "/keyed".into() },
    }
}

fn gone(loss: &Loss) -> Gone {
    Gone {
        watch: "inbox".to_owned(),
        relative: loss.source.into(),
        pipeline: loss.pipeline.to_owned(),
        wants_job: loss.wants_job,
        priority: loss.priority,
    }
}

fn identity(look: Look) -> FileIdentity {
    FileIdentity { dev: 1, inode: 2, size: 3, mtime_ns: look.mtime, ctime_ns: look.ctime }
}

fn look_of(identity: &FileIdentity) -> Look {
    Look { mtime: identity.mtime_ns, ctime: identity.ctime_ns }
}

fn digest(content: u8) -> Digest {
    Digest { algorithm: DigestAlgorithm::Blake3, bytes: [content; 32] }
}

fn content_of(digest: Digest) -> u8 {
    digest.bytes[0]
}

fn enqueued(answer: Enqueued) -> Answer {
    match answer {
        Enqueued::New { id, version } => Answer::New { id: id.0, version },
        Enqueued::Known { id, state } => Answer::Known { id: id.0, state },
        Enqueued::Unchanged => Answer::Unchanged,
        Enqueued::NeedsDigest => Answer::NeedsDigest,
    }
}

fn failed(error: ingestd::store::StoreError) -> String {
    format!("the store failed: {error}")
}

/// Answers what was found, or how it differs from what was expected.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Step {
    if expected == found {
        return Ok(format!("{what}: {found:?}"));
    }
    Err(format!("{what}: expected {expected:?}, found {found:?}"))
}
