//! The model's account of a file that has another name.

use ingestd::job::{Op, StateName};

use super::actions::{Look, Renaming, Sighting};
use super::semantics::{Answer, Job, Model, Presence, Source, Taken};

/// What becomes of the work on it.
enum FollowUp {
    Nothing,
    Along,
    Job(Op, Option<&'static str>),
}

impl Model {
    /// Takes what was seen for the known file that had another name, if it is; `None`: it is another one.
    pub fn rename(&mut self, seen: &Sighting, digest: Option<u8>) -> Option<Answer> {
        let Renaming { from, told } = seen.renamed?;
        let (old, new) = ((from, seen.pipeline), (seen.source, seen.pipeline));
        let source = self.facts.sources.get(from)?.clone();
        let used = self.facts.sources.get(seen.source).map_or(0, |to| to.version).max(self.version_floor);
        let job = self.newest(old);
        let elsewhere = |job: &Job| job.source == from && job.pipeline != seen.pipeline && !job.state.is_final();
        let is_delete = job.as_ref().is_some_and(|job| job.op == Op::Delete);
        if self.facts.jobs.values().any(elsewhere) {
            return None;
        }
        if source.presence == Presence::Consumed || is_delete || source.look.mtime != seen.look.mtime {
            return None;
        }
        let in_use = self.facts.sources.get(seen.source).is_some_and(|to| to.presence == Presence::Present)
            || self.in_the_way(new).is_some()
            || self.newest(new).is_some_and(|job| !job.state.is_final())
            || self.facts.jobs.values().any(|job| job.source == seen.source && !job.state.is_final());
        if in_use || (!told && job.as_ref().is_some_and(|job| may_be_reopened(job) && job.version <= used)) {
            return None;
        }
        match (source.digest, digest) {
            (None, _) if source.presence == Presence::Present => {}
            (Some(_), None) => return Some(Answer::NeedsDigest),
            (Some(known), Some(taken)) if known == taken => {}
            _ => return None,
        }
        let follow_up = self.follow_up(seen, from, told || seen.force, used);
        if matches!(follow_up, FollowUp::Job(..)) && self.is_full_for(old) {
            return Some(Answer::Full);
        }
        Some(self.carry_over(seen, &source, digest, used, follow_up))
    }

    fn follow_up(&self, seen: &Sighting, from: &'static str, tell: bool, used: i64) -> FollowUp {
        let key = (from, seen.pipeline);
        let Some(taken) = self.facts.taken.get(&key) else {
            return if seen.note_only { FollowUp::Nothing } else { FollowUp::Job(Op::Add, None) };
        };
        let job = self.newest(key);
        let handed =
            job.as_ref().is_some_and(|job| job.executions > 0 && !(job.missed_its_file() && job.executions == 1));
        let known_to_processors = taken.started || handed;
        match job {
            Some(job)
                if job.state.is_waiting() && job.executions == 0 && job.moving.is_none() && job.version > used =>
            {
                FollowUp::Along
            }
            Some(job) if !job.state.is_final() || job.missed_its_file() => match tell && known_to_processors {
                true if handed => FollowUp::Job(Op::Modify, Some(from)),
                true => FollowUp::Job(Op::Modify, Some(job.moved_from.unwrap_or(from))),
                false => FollowUp::Job(job.op, job.moved_from),
            },
            _ if tell && known_to_processors => FollowUp::Job(Op::Modify, Some(from)),
            _ if tell && !seen.note_only => FollowUp::Job(Op::Add, None),
            _ => FollowUp::Nothing,
        }
    }

    /// The source has the new name, and what stays behind has the old one.
    fn carry_over(
        &mut self,
        seen: &Sighting,
        source: &Source,
        digest: Option<u8>,
        used: i64,
        follow_up: FollowUp,
    ) -> Answer {
        let (from, to) = (seen.renamed.expect("a rename").from, seen.source);
        let key = (to, seen.pipeline);
        let before = self.facts.sources.remove(to);
        self.leave_behind(from, to, source.version, before.map_or(0, |to| to.version));
        let mut version = source.version.max(used);
        if matches!(follow_up, FollowUp::Job(..)) {
            version += 1;
        }
        let (known, presence) = (digest.or(source.digest), Presence::Present);
        let renamed = Source { version, look: seen.look, digest: known, presence, gone_at: None, empty: false };
        self.facts.sources.insert(to, renamed);
        let reopenable = self.newest(key).filter(may_be_reopened).map(|_| self.facts.taken[&key].job);
        let (answer, along) = match follow_up {
            FollowUp::Along => (self.as_known(key), None),
            FollowUp::Nothing => {
                for (_, taken) in self.facts.taken.iter_mut().filter(|((name, _), _)| *name == to) {
                    if taken.version == source.version {
                        taken.version = version;
                    }
                }
                (self.as_known(key), reopenable)
            }
            FollowUp::Job(op, moved_from) => {
                let answer = self.insert(seen, version, digest, op);
                let Answer::New { id, .. } = answer else { panic!("there was room") };
                self.job(id).moved_from = moved_from.filter(|name| *name != to);
                (answer, None)
            }
        };
        for (id, job) in self.facts.jobs.iter_mut().filter(|(_, job)| job.source == to) {
            if (!job.state.is_waiting() || job.executions > 0) && Some(*id) != along {
                job.name.get_or_insert(from);
            }
        }
        answer
    }

    /// Swaps the names of two sources, the second of which may not exist: then it comes into being.
    fn leave_behind(&mut self, from: &'static str, to: &'static str, moved: i64, before: i64) {
        let (look, now) = (Look { mtime: 0, ctime: 0 }, self.now);
        let version = moved.max(before);
        let left =
            Source { version, look, digest: None, presence: Presence::Vanished, gone_at: Some(now), empty: true };
        self.facts.sources.insert(from, left);
        for job in self.facts.jobs.values_mut() {
            if job.source == to {
                job.source = from;
                job.name.get_or_insert(to);
            } else if job.source == from {
                job.source = to;
            }
        }
        let taken = std::mem::take(&mut self.facts.taken);
        for ((name, pipeline), taken) in taken {
            if name == from || name == to {
                self.facts.taken.insert((from, pipeline), Taken { version, job: 0, started: false });
            }
            if name == from {
                self.facts.taken.insert((to, pipeline), taken);
            } else if name != to {
                self.facts.taken.insert((name, pipeline), taken);
            }
        }
    }
}

const fn may_be_reopened(job: &Job) -> bool {
    matches!(job.state, StateName::Failed | StateName::Cancelled)
}
