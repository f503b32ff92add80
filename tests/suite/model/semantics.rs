//! The queue's semantics in memory: what is known of sources, and how a version becomes a job.
//!
//! This half is the intake's: enqueue and vanish. Executions and people are in `executions.rs`. Nothing here calls the
//! code under test; the two share only the nouns (states, levels, operations). A [`Facts`] is what the model holds
//! to be true and also what is read back from the tables, so that the two are compared by `==`.

use std::collections::{BTreeMap, BTreeSet};

use ingestd::job::{Op, StateName};

use super::actions::{Look, Loss, Sighting};

/// What tables and model both say. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub jobs: BTreeMap<i64, Job>,
    pub sources: BTreeMap<&'static str, Source>,
    /// By source and pipeline.
    pub taken: BTreeMap<(&'static str, &'static str), Taken>,
    /// Ended executions: job, sequence number, outcome, spent, end.
    pub history: Vec<(i64, i64, String, bool, i64)>,
    pub paused: BTreeSet<&'static str>,
    /// Ends of executions by the rates: completed, failed, retried.
    pub rates: [i64; 3],
}

#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub source: &'static str,
    pub pipeline: &'static str,
    pub version: i64,
    pub op: Op,
    pub priority: i64,
    pub state: StateName,
    pub run_at: i64,
    pub created_at: i64,
    pub first_started_at: Option<i64>,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub attempt: i64,
    pub deferrals: i64,
    pub executions: i64,
    pub crashes: i64,
    pub crashes_alone: i64,
    pub fence: i64,
    /// While it is leased: when the lease ended if it were never renewed, by boot time.
    pub deadline: Option<i64>,
    pub blocked_by: Option<i64>,
    pub reason: Option<String>,
    pub superseded_by: Option<i64>,
    pub digest: Option<u8>,
    /// What the version before it completed with, while this one waited for it.
    pub baseline: Option<u8>,
    pub error: Option<String>,
    /// The file as it was processed, while it is on its way.
    pub moving: Option<Look>,
    /// The name that its source had when it ended, where that has another one by now.
    pub name: Option<&'static str>,
    pub moved_from: Option<&'static str>,
}

impl Job {
    /// Whether it ended because there was no file.
    pub fn missed_its_file(&self) -> bool {
        let failed = self.state == StateName::Failed && self.error.as_deref() == Some("vanished");
        failed || self.reason.as_deref() == Some("vanished")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub version: i64,
    pub look: Look,
    /// Of the content of that version.
    pub digest: Option<u8>,
    pub presence: Presence,
    pub gone_at: Option<i64>,
    /// It is what stayed behind under a name that a file left: nothing is known but its version.
    pub empty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Present,
    Vanished,
    /// We took it away ourselves.
    Consumed,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    pub version: i64,
    pub job: i64,
    pub started: bool,
}

/// The answer to a sighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    New { id: i64, version: i64 },
    Known { id: i64, state: StateName },
    Unchanged,
    NeedsDigest,
    Full,
}

/// The answer to a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Nothing,
    Noted,
    New(i64),
}

/// What the queue should hold.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub facts: Facts,
    pub now: i64,
    pub boottime: i64,
    pub newest_job: i64,
    /// When the leases of this boot end, as they were renewed.
    pub deadlines: BTreeMap<i64, i64>,
    /// Leases (job and fence) under which somebody still works, however late it is.
    pub at_work: BTreeSet<(i64, i64)>,
    /// How many jobs may wait, for the call that is being decided.
    pub room: Option<usize>,
    /// The highest version of every source that was forgotten.
    pub version_floor: i64,
}

impl Model {
    pub fn enqueue(&mut self, seen: &Sighting, digest: Option<u8>) -> Answer {
        if let Some(answer) = self.rename(seen, digest) {
            return answer;
        }
        let Some(source) = self.facts.sources.get(seen.source).cloned() else { return self.first(seen, digest) };
        let key = (seen.source, seen.pipeline);
        let taken = self.facts.taken.get(&key).cloned();
        if seen.note_only {
            if source.presence != Presence::Present {
                // What was known of another file's content is not known of this one.
                let same_look = !source.empty && source.look == seen.look;
                let digest = if same_look { source.digest } else { digest };
                self.see_again(seen, source.version, digest);
            }
            return self.as_known(key);
        }
        if source.presence == Presence::Consumed {
            let moving = taken.and_then(|taken| self.facts.jobs.get(&taken.job)?.moving);
            let is_the_old_one = moving.is_some_and(|old| old.mtime == seen.look.mtime) || source.look == seen.look;
            return if is_the_old_one { self.as_known(key) } else { self.raise(seen, digest, Op::Add) };
        }
        let Some(taken) = taken else {
            let same_look = source.look == seen.look;
            return match (digest, source.digest) {
                _ if source.empty => self.raise(seen, digest, Op::Add),
                _ if same_look => self.insert_seen(seen, &source, source.digest, digest),
                (None, _) => Answer::NeedsDigest,
                (Some(new), Some(old)) if new == old => self.insert_seen(seen, &source, digest, digest),
                (Some(_), _) => self.raise(seen, digest, Op::Add),
            };
        };
        if seen.force {
            return self.raise(seen, digest, Op::Modify);
        }
        if self.came_back(&source, &taken, seen.look) {
            return self.raise(seen, digest, Op::Add);
        }
        let same_look = source.look == seen.look;
        match (digest, source.digest) {
            _ if same_look => {}
            (None, _) => return Answer::NeedsDigest,
            (Some(new), Some(old)) if new == old => {}
            (Some(_), _) => return self.raise(seen, digest, Op::Modify),
        }
        if taken.version < source.version {
            let known = if same_look { source.digest } else { digest };
            return self.insert_seen(seen, &source, known, digest);
        }
        if !same_look || source.presence != Presence::Present {
            self.see_again(seen, source.version, source.digest);
        }
        self.as_known(key)
    }

    /// Whether nothing of what is there now was ever worked on, because it was gone when that could have been.
    fn came_back(&self, source: &Source, taken: &Taken, look: Look) -> bool {
        let gone = source.presence != Presence::Present;
        match self.facts.jobs.get(&taken.job) {
            None => gone && source.digest.is_none(),
            Some(job) if job.missed_its_file() => gone || source.look != look,
            Some(job) => gone && job.op == Op::Delete,
        }
    }

    fn first(&mut self, seen: &Sighting, digest: Option<u8>) -> Answer {
        let version = self.version_floor + 1;
        let source =
            Source { version, look: seen.look, digest, presence: Presence::Present, gone_at: None, empty: false };
        self.facts.sources.insert(seen.source, source);
        if seen.note_only {
            let noted = Taken { version, job: 0, started: false };
            self.facts.taken.insert((seen.source, seen.pipeline), noted);
            return Answer::Unchanged;
        }
        let answer = self.insert(seen, version, digest, Op::Add);
        if answer == Answer::Full {
            self.facts.sources.remove(seen.source);
        }
        answer
    }

    pub fn as_known(&self, key: (&'static str, &'static str)) -> Answer {
        let taken = self.facts.taken.get(&key);
        match taken.and_then(|taken| Some((taken.job, self.facts.jobs.get(&taken.job)?))) {
            Some((id, job)) => Answer::Known { id, state: job.state },
            None => Answer::Unchanged,
        }
    }

    fn see_again(&mut self, seen: &Sighting, version: i64, digest: Option<u8>) {
        let source =
            Source { version, look: seen.look, digest, presence: Presence::Present, gone_at: None, empty: false };
        self.facts.sources.insert(seen.source, source);
    }

    /// A job of the version that is known, for a pipeline that was not given it.
    fn insert_seen(&mut self, seen: &Sighting, source: &Source, known: Option<u8>, digest: Option<u8>) -> Answer {
        let answer = self.insert(seen, source.version, digest, Op::Add);
        if answer != Answer::Full && (source.presence != Presence::Present || source.look != seen.look) {
            self.see_again(seen, source.version, known);
        }
        answer
    }

    fn raise(&mut self, seen: &Sighting, digest: Option<u8>, op: Op) -> Answer {
        let version = self.facts.sources[seen.source].version + 1;
        let answer = self.insert(seen, version, digest, op);
        if answer != Answer::Full {
            self.see_again(seen, version, digest);
        }
        answer
    }

    pub fn insert(&mut self, seen: &Sighting, version: i64, digest: Option<u8>, op: Op) -> Answer {
        let key = (seen.source, seen.pipeline);
        if self.is_full_for(key) {
            return Answer::Full;
        }
        let id = self.newest_job + 1;
        let asked = seen.delay_s.map(|delay| self.now + delay * 1_000);
        let older = self.newest(key);
        let place = self.take_place(key, id);
        let mut run_at = asked.unwrap_or(self.now);
        // It takes over the place; a wait that punished the old content does not bind the new one.
        if let Some(older) = older.filter(|job| place.superseded && job.state == StateName::Pending) {
            run_at = asked.unwrap_or(if older.deferrals == 0 { older.run_at } else { run_at });
        }
        let job = Job {
            digest,
            op,
            run_at,
            blocked_by: place.blocked_by,
            ..self.waiting(key, version, seen.priority.number().max(place.priority))
        };
        self.give_out(key, job);
        Answer::New { id, version }
    }

    /// Whether there is no room for another waiting job. What takes the place of one needs none.
    pub fn is_full_for(&self, key: (&'static str, &'static str)) -> bool {
        let waiting = self.facts.jobs.values().filter(|job| job.state.is_waiting()).count();
        self.room.is_some_and(|room| waiting >= room) && !self.newest(key).is_some_and(|job| gives_way(&job))
    }

    pub fn vanish(&mut self, loss: &Loss) -> Gone {
        let key = (loss.source, loss.pipeline);
        let present = |source: &&Source| source.presence == Presence::Present;
        let Some(source) = self.facts.sources.get(loss.source).filter(present).cloned() else { return Gone::Nothing };
        let job = self.newest(key);
        let started = self.facts.taken.get(&key).is_some_and(|taken| taken.started)
            || job.as_ref().is_some_and(|job| job.executions > 0);
        let mut delete = None;
        if loss.wants_job && started {
            let id = self.newest_job + 1;
            let place = self.take_place(key, id);
            let job = Job {
                op: Op::Delete,
                blocked_by: place.blocked_by,
                ..self.waiting(key, source.version + 1, loss.priority.number().max(place.priority))
            };
            self.give_out(key, job);
            delete = Some(id);
        } else if job.is_some_and(|job| job.state.is_waiting() && job.executions == 0) {
            self.skip(self.facts.taken[&key].job, "vanished", None, self.now);
        }
        let raised = i64::from(delete.is_some());
        let digest = source.digest.filter(|_| delete.is_none());
        let (version, presence, gone_at) = (source.version + raised, Presence::Vanished, Some(self.now));
        self.facts.sources.insert(loss.source, Source { version, digest, presence, gone_at, ..source });
        delete.map_or(Gone::Noted, Gone::New)
    }

    /// Notes that a file is gone; what waits for it is left to its attempt.
    pub fn note_absent(&mut self, name: &str) {
        let now = self.now;
        let source = self.facts.sources.get_mut(name).expect("a source that is known");
        (source.presence, source.gone_at) = (Presence::Vanished, Some(now));
    }

    /// The newest job that the pipeline was given of the source, unless it was pruned.
    pub fn newest(&self, key: (&'static str, &'static str)) -> Option<Job> {
        self.facts.jobs.get(&self.facts.taken.get(&key)?.job).cloned()
    }

    /// Makes room for the version that becomes job `id`: what waits is superseded; what runs, or has its file on its
    /// way, comes to its end first.
    fn take_place(&mut self, key: (&'static str, &'static str), id: i64) -> Place {
        let mut place = Place::default();
        if let Some(older) = self.newest(key).filter(gives_way) {
            place = Place { priority: older.priority, blocked_by: older.blocked_by, superseded: true };
            self.skip(self.facts.taken[&key].job, "superseded", Some(id), self.now);
        }
        place.blocked_by = place.blocked_by.or_else(|| self.in_the_way(key));
        place
    }

    /// The job of the source and pipeline that runs, or has its file on its way.
    pub fn in_the_way(&self, key: (&'static str, &'static str)) -> Option<i64> {
        let unfinished = |job: &Job| job.state == StateName::Running || job.moving.is_some();
        self.facts.jobs.iter().find(|(_, job)| (job.source, job.pipeline) == key && unfinished(job)).map(|(id, _)| *id)
    }

    pub fn skip(&mut self, id: i64, reason: &str, by: Option<i64>, at: i64) {
        let job = self.job(id);
        (job.state, job.finished_at) = (StateName::Skipped, Some(at));
        (job.reason, job.superseded_by) = (Some(reason.to_owned()), by);
        job.blocked_by = None;
    }

    /// A job that waits from now on.
    fn waiting(&self, (source, pipeline): (&'static str, &'static str), version: i64, priority: i64) -> Job {
        Job {
            source,
            pipeline,
            version,
            op: Op::Add,
            priority,
            state: StateName::Pending,
            run_at: self.now,
            created_at: self.now,
            first_started_at: None,
            started_at: None,
            finished_at: None,
            attempt: 0,
            deferrals: 0,
            executions: 0,
            crashes: 0,
            crashes_alone: 0,
            fence: 0,
            deadline: None,
            blocked_by: None,
            reason: None,
            superseded_by: None,
            digest: None,
            baseline: None,
            error: None,
            moving: None,
            name: None,
            moved_from: None,
        }
    }

    fn give_out(&mut self, key: (&'static str, &'static str), mut job: Job) {
        self.newest_job += 1;
        let older = self.facts.taken.get(&key);
        // What should have told of another name and never ran leaves that to the next one.
        let before = older.and_then(|older| self.facts.jobs.get(&older.job));
        let untold = |job: &&Job| job.superseded_by == Some(self.newest_job) || job.missed_its_file();
        job.moved_from = before.filter(untold).and_then(|job| job.moved_from);
        let started = job.op == Op::Delete
            || older.is_some_and(|older| {
                older.started || self.facts.jobs.get(&older.job).is_some_and(|job| job.executions > 0)
            });
        self.facts.taken.insert(key, Taken { version: job.version, job: self.newest_job, started });
        self.facts.jobs.insert(self.newest_job, job);
    }

    pub fn job(&mut self, id: i64) -> &mut Job {
        self.facts.jobs.get_mut(&id).expect("a job that the model knows")
    }
}

/// Whether it is superseded by a newer version at once: it waits, and its file is not on its way.
fn gives_way(job: &Job) -> bool {
    job.state.is_waiting() && job.moving.is_none()
}

/// Where a new version stands.
#[derive(Default)]
struct Place {
    priority: i64,
    blocked_by: Option<i64>,
    superseded: bool,
}
