//! The other half of the model: what is due and in which order, how executions end, crashes, and a person's hand.

use std::collections::BTreeMap;

use ingestd::job::{ErrorKind, Priority, SkipReason, StateName, Verdict};

use super::actions::{Hand, Look, Old};
use super::semantics::{Job, Model, Presence, Taken};

/// How long a lease lasts.
pub const LEASE_MS: i64 = 60_000;
/// A waiting job rises a level for each of these.
pub const AGING_MS: i64 = 600_000;
/// Crashes while alone that end a job.
pub const MAX_CRASHES: i64 = 2;

/// Whether an execution ended because there was no file.
fn missed_its_file(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Skip(reason) => *reason == SkipReason::Vanished,
        Verdict::Fail { error } => error.kind == ErrorKind::Vanished,
        _ => false,
    }
}

/// What a person is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    Done,
    Running,
    Refused,
    Unknown,
}

/// What a recovery took back: released, of them suspects now, failed, superseded, with a file on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub released: u64,
    pub suspects: u64,
    pub failed: u64,
    pub superseded: u64,
    pub moving: u64,
}

impl Model {
    /// The jobs of a pipeline that may start now, first the one that comes first: suspects, or the others.
    pub fn due(&self, pipeline: &str, suspects: bool) -> Vec<i64> {
        let mut due: Vec<_> = self
            .leasable(pipeline)
            .filter(|(_, job)| job.run_at <= self.now && (job.crashes >= 2) == suspects)
            .collect();
        due.sort_by_key(|(id, job)| (if suspects { 0 } else { -self.level(job) }, job.run_at, *id));
        due.into_iter().map(|(id, _)| id).collect()
    }

    /// When the pipeline's next job becomes due.
    pub fn next_due(&self, pipeline: &str) -> Option<i64> {
        self.leasable(pipeline).map(|(_, job)| job.run_at).filter(|at| *at > self.now).min()
    }

    fn leasable(&self, pipeline: &str) -> impl Iterator<Item = (i64, &Job)> {
        let paused = self.facts.paused.contains(pipeline);
        let waits = move |job: &Job| !paused && job.state.is_waiting() && job.blocked_by.is_none();
        self.facts
            .jobs
            .iter()
            .map(|(id, job)| (*id, job))
            .filter(move |(_, job)| job.pipeline == pipeline && waits(job))
    }

    /// The level that it has by waiting: one more for each step of ageing, never above high.
    fn level(&self, job: &Job) -> i64 {
        let high = Priority::High.number();
        let steps = (self.now - job.run_at).max(0) / AGING_MS;
        if job.priority >= high { job.priority } else { (job.priority + steps).min(high) }
    }

    pub fn running(&self) -> impl Iterator<Item = (i64, &Job)> {
        self.facts.jobs.iter().filter(|(_, job)| job.state == StateName::Running).map(|(id, job)| (*id, job))
    }

    pub fn lease(&mut self, id: i64) {
        let (now, deadline) = (self.now, self.boottime + LEASE_MS);
        let job = self.job(id);
        job.state = StateName::Running;
        (job.fence, job.executions) = (job.fence + 1, job.executions + 1);
        (job.started_at, job.first_started_at) = (Some(now), job.first_started_at.or(Some(now)));
        job.deadline = Some(deadline);
        self.deadlines.insert(id, deadline);
    }

    /// The wall clock was stepped, and still shows its old time in `now`: what waits for a while moves along.
    pub fn move_along(&mut self, by: i64) {
        let now = self.now;
        for job in self.facts.jobs.values_mut() {
            if !job.state.is_waiting() && job.state != StateName::Running {
                continue;
            }
            let waits_for_a_date = job.executions == 0 && job.run_at > now;
            job.run_at += if waits_for_a_date { 0 } else { by };
            job.first_started_at = job.first_started_at.map(|at| at + by);
        }
    }

    /// Whether a lease with this fence is the right to act.
    pub fn stands(&self, id: i64, fence: i64) -> bool {
        self.facts.jobs.get(&id).is_some_and(|job| job.state == StateName::Running && job.fence == fence)
    }

    /// The job that a running one was superseded by, if a newer version came meanwhile.
    pub fn newer(&self, id: i64) -> Option<i64> {
        let job = &self.facts.jobs[&id];
        let taken = &self.facts.taken[&(job.source, job.pipeline)];
        (taken.job != id).then_some(taken.job)
    }

    /// Ends an execution, if its lease stands.
    pub fn settle(&mut self, id: i64, fence: i64, verdict: &Verdict, content: Option<(Look, u8)>) -> Option<StateName> {
        if !self.stands(id, fence) {
            return None;
        }
        let (now, newer) = (self.now, self.newer(id));
        self.record(id, verdict.as_str(), verdict.spends(), now);
        self.rate(verdict);
        let job = self.job(id);
        (job.crashes, job.crashes_alone, job.deadline) = (0, 0, None);
        job.attempt += i64::from(verdict.spends());
        job.deferrals = if matches!(verdict, Verdict::Defer { .. }) { job.deferrals + 1 } else { 0 };
        if let Some(error) = verdict.error() {
            job.error = Some(error.kind.as_str().to_owned());
        }
        match verdict {
            Verdict::Complete => (job.state, job.error) = (StateName::Completed, None),
            Verdict::Fail { .. } => job.state = StateName::Failed,
            Verdict::Cancel => job.state = StateName::Cancelled,
            Verdict::Skip(SkipReason::Superseded { by }) => self.skip(id, "superseded", Some(by.0), now),
            Verdict::Skip(reason) => self.skip(id, reason.as_str(), None, now),
            Verdict::Release if newer.is_none() || job.moving.is_some() => job.state = StateName::Pending,
            Verdict::Retry { run_at, .. } if newer.is_none() || job.moving.is_some() => {
                (job.state, job.run_at) = (StateName::Retrying, run_at.as_millis());
            }
            Verdict::Defer { run_at, .. } if newer.is_none() || job.moving.is_some() => {
                (job.state, job.run_at) = (StateName::Pending, run_at.as_millis());
            }
            // It is never tried again once a newer version is there.
            Verdict::Release | Verdict::Retry { .. } | Verdict::Defer { .. } => self.skip(id, "superseded", newer, now),
        }
        if let Some(content) = content {
            self.note_content(id, content);
        }
        if missed_its_file(verdict) {
            self.look_anew(id);
        }
        let baseline = content.filter(|_| *verdict == Verdict::Complete).map(|(_, digest)| digest);
        Some(self.finish(id, baseline))
    }

    /// After an execution: a final job lets go of its file and of the version that waits for it.
    fn finish(&mut self, id: i64, baseline: Option<u8>) -> StateName {
        let now = self.now;
        let job = self.job(id);
        let state = job.state;
        if state.is_final() {
            (job.finished_at, job.moving) = (Some(now), None);
            for waiting in self.facts.jobs.values_mut().filter(|job| job.blocked_by == Some(id)) {
                (waiting.blocked_by, waiting.baseline) = (None, baseline.or(waiting.baseline));
            }
        }
        state
    }

    fn note_content(&mut self, id: i64, (look, digest): (Look, u8)) {
        let job = self.job(id);
        job.digest = Some(digest);
        let (name, version, over) = (job.source, job.version, job.state.is_final());
        let (completed, key) = (job.state == StateName::Completed, (name, job.pipeline));
        let divided = self.divides(id, look, digest);
        let source = self.facts.sources.get_mut(name).expect("a job's source");
        if source.version == version && divided {
            (source.look, source.digest) = (Look { ctime: 0, ..look }, over.then_some(digest));
            source.version = version + i64::from(over);
            let next = source.version;
            if completed {
                self.facts.taken.get_mut(&key).expect("what has a job").version = next;
            }
        } else if source.version == version {
            (source.look, source.digest) = (look, Some(digest));
        }
    }

    /// Whether the file changed between this execution and the end of another pipeline's job of the same version.
    fn divides(&self, id: i64, look: Look, digest: u8) -> bool {
        let job = &self.facts.jobs[&id];
        let source = &self.facts.sources[job.source];
        let ended_otherwise = |((name, pipeline), taken): (&(&str, &str), &Taken)| {
            let other = self.facts.jobs.get(&taken.job);
            (*name, taken.version) == (job.source, job.version)
                && *pipeline != job.pipeline
                && other.is_none_or(|other| other.state.is_final())
                && other.and_then(|other| other.digest).or(source.digest) != Some(digest)
        };
        let known_otherwise = source.digest.is_some_and(|known| known != digest);
        (source.look.mtime != look.mtime || known_otherwise)
            && source.presence != Presence::Consumed
            && self.facts.taken.iter().any(ended_otherwise)
    }

    /// The file was not there: whatever is seen next counts as changed.
    fn look_anew(&mut self, id: i64) {
        let job = self.job(id);
        let (name, version) = (job.source, job.version);
        let source = self.facts.sources.get_mut(name).expect("a job's source");
        if source.version == version && source.presence == Presence::Present {
            source.look.ctime = 0;
        }
    }

    fn record(&mut self, id: i64, outcome: &str, spent: bool, at: i64) {
        let executions = self.job(id).executions;
        self.facts.history.push((id, executions, outcome.to_owned(), spent, at));
    }

    fn rate(&mut self, verdict: &Verdict) {
        let [completed, failed, retried] = &mut self.facts.rates;
        match verdict {
            Verdict::Complete => *completed += 1,
            Verdict::Fail { .. } => *failed += 1,
            Verdict::Retry { .. } => *retried += 1,
            _ => {}
        }
    }

    /// Prolongs a lease that stands and has not ended by itself, and answers its new end.
    pub fn renew(&mut self, id: i64, fence: i64) -> Option<i64> {
        let deadline = self.boottime + LEASE_MS;
        let in_time = self.stands(id, fence) && self.deadlines[&id] > self.boottime;
        in_time.then(|| {
            self.deadlines.insert(id, deadline);
            deadline
        })
    }

    /// Takes back leases: those that ended by themselves, or after the daemon's death all.
    pub fn take_back(&mut self, only_expired: bool) -> Recovered {
        let late = |id: i64, fence: i64| self.deadlines[&id] <= self.boottime && !self.at_work.contains(&(id, fence));
        let lost = |(id, job): &(i64, &Job)| !only_expired || late(*id, job.fence);
        let lost: Vec<i64> = self.running().filter(lost).map(|(id, _)| id).collect();
        let mut recovered = Recovered::default();
        for id in lost {
            self.crash(id, &mut recovered);
        }
        recovered
    }

    fn crash(&mut self, id: i64, recovered: &mut Recovered) {
        let (now, newer) = (self.now, self.newer(id));
        self.record(id, "crashed", false, now);
        let job = self.job(id);
        let alone = job.crashes >= 2;
        (job.crashes, job.crashes_alone) = (job.crashes + 1, job.crashes_alone + i64::from(alone));
        job.deadline = None;
        let (moving, suspect) = (job.moving.is_some(), job.crashes >= 2);
        recovered.moving += u64::from(moving);
        if !moving && alone && job.crashes_alone >= MAX_CRASHES {
            (job.state, job.error) = (StateName::Failed, Some("crash".to_owned()));
            recovered.failed += 1;
        } else if !moving && newer.is_some() {
            self.skip(id, "superseded", newer, now);
            recovered.superseded += 1;
        } else {
            job.state = StateName::Pending;
            recovered.released += 1;
            recovered.suspects += u64::from(suspect);
        }
        self.finish(id, None);
    }

    /// Commits that the processed file goes away; `Some(false)`: it is a newer version's by now.
    pub fn intend(&mut self, id: i64, fence: i64, look: Look) -> Option<bool> {
        if !self.stands(id, fence) {
            return None;
        }
        let (now, job) = (self.now, self.job(id));
        let (name, version, moving) = (job.source, job.version, job.moving.is_some());
        let current = self.facts.sources[name].version == version;
        if !current && !moving {
            return Some(false);
        }
        self.job(id).moving = Some(look);
        if current {
            let source = self.facts.sources.get_mut(name).expect("a job's source");
            (source.presence, source.gone_at) = (Presence::Consumed, Some(now));
        }
        Some(true)
    }

    pub fn withdraw(&mut self, id: i64, fence: i64, back: Option<Look>) -> bool {
        if !self.stands(id, fence) {
            return false;
        }
        let job = self.job(id);
        job.moving = None;
        let (name, version) = (job.source, job.version);
        let source = self.facts.sources.get_mut(name).expect("a job's source");
        if let Some(look) = back.filter(|_| source.version == version) {
            (source.look, source.presence, source.gone_at) = (look, Presence::Present, None);
        }
        true
    }

    pub fn steer(&mut self, id: i64, hand: Hand) -> Steer {
        let now = self.now;
        let Some(job) = self.facts.jobs.get_mut(&id) else { return Steer::Unknown };
        match (hand, job.state) {
            (Hand::Retry | Hand::Cancel, StateName::Running) => Steer::Running,
            (Hand::Retry, StateName::Failed | StateName::Cancelled) => self.reopen(id),
            (Hand::Retry, state) if state.is_waiting() => {
                job.run_at = job.run_at.min(now);
                Steer::Done
            }
            (Hand::Cancel, state) if state.is_waiting() && job.moving.is_none() => {
                (job.state, job.finished_at, job.blocked_by) = (StateName::Cancelled, Some(now), None);
                Steer::Done
            }
            (Hand::Prioritize(level), state) if state.is_waiting() => {
                job.priority = level.number();
                Steer::Done
            }
            _ => Steer::Refused,
        }
    }

    /// A fresh budget, unless the source has moved on; an older version that still runs comes to its end first.
    fn reopen(&mut self, id: i64) -> Steer {
        if self.newer(id).is_some() {
            return Steer::Refused;
        }
        let now = self.now;
        self.record(id, "reopened", false, now);
        let job = self.job(id);
        let key = (job.source, job.pipeline);
        (job.state, job.run_at) = (StateName::Pending, now);
        (job.finished_at, job.first_started_at) = (None, None);
        (job.attempt, job.deferrals, job.crashes, job.crashes_alone) = (0, 0, 0, 0);
        let blocked_by = self.in_the_way(key);
        self.job(id).blocked_by = blocked_by;
        Steer::Done
    }

    /// Removes what ended before `cutoff`, and answers how much.
    pub fn prune(&mut self, what: Old, cutoff: i64) -> usize {
        match what {
            Old::Completed => self.prune_jobs(StateName::Completed, cutoff),
            Old::Failed => self.prune_jobs(StateName::Failed, cutoff),
            Old::Cancelled => self.prune_jobs(StateName::Cancelled, cutoff),
            Old::Skipped => self.prune_jobs(StateName::Skipped, cutoff),
            Old::Attempts => {
                let before = self.facts.history.len();
                self.facts.history.retain(|(.., at)| *at >= cutoff);
                before - self.facts.history.len()
            }
            Old::Sources => self.prune_sources(cutoff),
        }
    }

    fn prune_jobs(&mut self, state: StateName, cutoff: i64) -> usize {
        let old = |job: &Job| job.state == state && job.finished_at.is_some_and(|at| at < cutoff);
        let (gone, kept): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.facts.jobs).into_iter().partition(|(_, job)| old(job));
        self.facts.jobs = kept;
        // That some version was started is known for longer than its job.
        for job in gone.values().filter(|job| job.executions > 0) {
            if let Some(taken) = self.facts.taken.get_mut(&(job.source, job.pipeline)) {
                taken.started = true;
            }
        }
        gone.len()
    }

    /// A source is forgotten after it was gone for long, once no job of it is left; its version is not.
    fn prune_sources(&mut self, cutoff: i64) -> usize {
        let gone: Vec<&'static str> = self
            .facts
            .sources
            .iter()
            .filter(|(name, source)| {
                source.gone_at.is_some_and(|at| at < cutoff) && self.facts.jobs.values().all(|job| job.source != **name)
            })
            .map(|(name, _)| *name)
            .collect();
        for name in &gone {
            let source = self.facts.sources.remove(name).expect("was there just now");
            self.version_floor = self.version_floor.max(source.version);
            self.facts.taken.retain(|(source, _), _| source != name);
        }
        gone.len()
    }
}
