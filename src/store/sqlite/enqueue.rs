//! A version becomes a job, once: what was seen is compared with what is known, and the decision is written in
//! the same transaction.
//!
//! 1. One query brings, for every asked version, what is known of its source and the newest job that its
//!    pipeline was given of it.
//! 2. [`decide`] is pure: same version, refreshed identity, new version, or *take the digest first*.
//! 3. The decisions are written as a handful of set-based statements. Numbers are given out here.
//!
//! 4. Where the caller is bound by a number of waiting jobs, whatever would raise it beyond is answered *full*, and
//!    nothing of it is written. The number is read from the counters once for a group.
//!
//! A source that is asked for twice in one group, or by two of its names, is decided in two rounds, so that the second
//! sees the first.
//!
//! Lines of a list come through here too ([`lines`]): their run names their sources, and what a line says of itself
//! stands in its job.

mod known;
mod lines;
mod rename;
mod room;
mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;

use super::super::error::{Result, StoreError};
use super::super::queue::{Enqueued, NewJob};
use super::catalog::{Catalog, Numbers, unknown_watch};
use super::tally::Tally;
use super::wire;
use crate::clock::{Clock, Timestamp};
use crate::job::{JobId, Op, SourceKey};

use known::{Decision, Known, Taken, decide, look_up};
use rename::{FollowUp, Move, Recognised, follow_up, recognise};
use room::Room;
use rows::Plan;

pub(super) use known::parse;
pub(super) use lines::{Decided, Naming};
pub(super) use rows::NO_JOB;
#[cfg(test)]
pub(super) use {known::LOOK_UP, rename::STATEMENTS as RENAME_STATEMENTS, rows::STATEMENTS};

/// The scope of absolute paths.
pub(super) const SCOPE_PATH: i64 = 0;
/// The scope of identities that the caller chose.
pub(super) const SCOPE_KEY: i64 = -1;

/// Versions that somebody asks to become jobs.
#[derive(Debug)]
pub(super) struct Offer {
    pub jobs: Vec<NewJob>,
    /// So many jobs may wait, and no more of these.
    pub limit: Option<u64>,
}

/// Writes enqueues.
#[derive(Debug)]
pub(super) struct Intake {
    clock: Arc<dyn Clock>,
}

impl Intake {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) async fn write<'a>(
        &self,
        tx: &mut SqliteConnection,
        offers: impl Iterator<Item = &'a Offer> + Send,
        catalog: &mut Catalog,
        tally: &mut Tally,
    ) -> Result<Vec<Enqueued>> {
        let (mut jobs, mut limits): (Vec<&NewJob>, Vec<Option<u64>>) = (Vec::new(), Vec::new());
        for offer in offers {
            jobs.extend(&offer.jobs);
            limits.resize(jobs.len(), offer.limit);
        }
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        learn(tx, &jobs, catalog).await?;
        let mut desk = Desk { now: self.clock.now(), room: Room::read(tx, &limits).await?, naming: None };
        let mut answers = vec![Enqueued::NeedsDigest; jobs.len()];
        for round in rounds(&jobs, &limits, catalog)? {
            let plan = decide_round(tx, &round, &mut desk, catalog, tally, &mut answers).await?;
            plan.write(tx, desk.now).await?;
        }
        Ok(answers)
    }
}

/// What the rounds of a group share.
struct Desk {
    now: Timestamp,
    room: Room,
    naming: Option<Naming>,
}

/// The rounds in which jobs are decided.
fn rounds<'a>(jobs: &[&'a NewJob], limits: &[Option<u64>], catalog: &Catalog) -> Result<Vec<Vec<Asked<'a>>>> {
    let keys: Vec<Key<'_>> = jobs.iter().map(|job| Key::of(job, catalog)).collect::<Result<_>>()?;
    let mut left: Vec<usize> = (0..jobs.len()).collect();
    let mut rounds = Vec::new();
    while !left.is_empty() {
        let mut seen = BTreeSet::new();
        let (round, later) = left.into_iter().partition(|&i| {
            let alone = seen.insert((keys[i].scope, keys[i].identity));
            origin(jobs[i], keys[i]).is_none_or(|from| seen.insert((from.scope, from.identity))) && alone
        });
        let asked = |at| Asked { at, job: jobs[at], key: keys[at], limit: limits[at] };
        rounds.push(Vec::<usize>::into_iter(round).map(asked).collect());
        left = later;
    }
    Ok(rounds)
}

/// Where a source and a pipeline stand in the tables.
#[derive(Clone, Copy, Debug)]
struct Key<'a> {
    scope: i64,
    identity: &'a [u8],
    pipeline: i64,
}

impl<'a> Key<'a> {
    fn of(job: &'a NewJob, catalog: &Catalog) -> Result<Self> {
        let pipeline = catalog.pipeline(&job.pipeline).ok_or(StoreError::Closed)?.id;
        let (scope, identity) = match &job.source {
            SourceKey::Watched { watch, relative } => {
                let scope = catalog.watch(watch).ok_or_else(|| unknown_watch(watch))?;
                (scope, wire::path_bytes(relative))
            }
            SourceKey::Path(path) => (SCOPE_PATH, wire::path_bytes(path)),
            SourceKey::Keyed { key, .. } => (SCOPE_KEY, key.as_bytes()),
        };
        Ok(Self { scope, identity, pipeline })
    }
}

/// Where the name stands that the file may have had until now.
fn origin<'a>(job: &'a NewJob, key: Key<'a>) -> Option<Key<'a>> {
    let watched = matches!(job.source, SourceKey::Watched { .. });
    let renamed = job.renamed.as_ref().filter(|_| watched)?;
    Some(Key { identity: wire::path_bytes(&renamed.from), ..key })
}

struct Asked<'a> {
    at: usize,
    job: &'a NewJob,
    key: Key<'a>,
    limit: Option<u64>,
}

impl Asked<'_> {
    /// What happened to the source: what its line says, or else what the queue made out.
    fn op(&self, made_out: Op) -> Op {
        self.job.listed.as_ref().and_then(|listed| listed.op).unwrap_or(made_out)
    }
}

/// Learns the names that the jobs are about.
async fn learn(tx: &mut SqliteConnection, jobs: &[&NewJob], catalog: &mut Catalog) -> Result<()> {
    catalog.enter_pipelines(tx, jobs.iter().map(|job| job.pipeline.as_str()).collect()).await?;
    let watches = jobs.iter().filter_map(|job| match &job.source {
        SourceKey::Watched { watch, .. } => Some(watch.as_str()),
        _ => None,
    });
    catalog.learn_watches(tx, watches.collect()).await
}

/// Decides a round; answers what there is to write.
async fn decide_round<'a>(
    tx: &mut SqliteConnection,
    round: &[Asked<'a>],
    desk: &mut Desk,
    catalog: &mut Catalog,
    tally: &mut Tally,
    answers: &mut [Enqueued],
) -> Result<Plan<'a>> {
    let mut keys: Vec<Key<'_>> = round.iter().map(|asked| asked.key).collect();
    keys.extend(round.iter().filter_map(|asked| origin(asked.job, asked.key)));
    let known = look_up(tx, &keys).await?;
    let (known, origins) = known.split_at(round.len());
    let mut origins = origins.iter();
    let numbers = catalog.numbers(tx).await?;
    let mut plan = Plan::named_by(desk.naming);
    for (asked, known) in round.iter().zip(known) {
        let from = origin(asked.job, asked.key).and_then(|_| origins.next()?.as_ref());
        let used = known.as_ref().map_or(0, |known| known.version).max(numbers.first_version - 1);
        answers[asked.at] = match recognise(asked.job, known.as_ref(), from, used) {
            Recognised::TakeDigest => Enqueued::NeedsDigest,
            Recognised::Yes(from) => plan.renamed(asked, from, known.as_ref(), used, desk, numbers, tally),
            Recognised::No => plan.decided(asked, known.as_ref(), desk, numbers, tally),
        };
        plan.name_known(asked, known.as_ref(), answers[asked.at]);
    }
    Ok(plan)
}

impl<'p> Plan<'p> {
    /// What follows from a version that was seen under the name that its source has, or has from now on.
    fn decided(
        &mut self,
        asked: &Asked<'p>,
        known: Option<&Known>,
        desk: &mut Desk,
        numbers: &mut Numbers,
        tally: &mut Tally,
    ) -> Enqueued {
        let now = desk.now;
        let decision = known.map_or(Decision::First, |known| decide(asked.job, known));
        match (decision, known) {
            (Decision::TakeDigest, _) => Enqueued::NeedsDigest,
            (Decision::Same { refresh }, Some(known)) => {
                if refresh {
                    self.see_again(asked, known);
                }
                same(known)
            }
            (decision, known) if !desk.room.has_place(decision, known, asked) => Enqueued::Full,
            (Decision::AnotherPipeline, Some(known)) => {
                let (id, version) = (numbers.take_job(), known.version);
                if !known.present || asked.job.identity != known.identity {
                    self.see_again(asked, known);
                }
                self.insert(id, known.source, asked, version, asked.op(Op::Add), Some(known), now, tally);
                self.carry_name(id, asked, known, now);
                Enqueued::New { id: JobId(id), version }
            }
            (Decision::Raise { op }, Some(known)) => {
                let (id, version, op) = (numbers.take_job(), known.version + 1, asked.op(op));
                if op == Op::Delete {
                    self.leave(known.source, version);
                } else {
                    self.touch(known.source, asked, version, asked.job.digest);
                }
                self.insert(id, known.source, asked, version, op, Some(known), now, tally);
                self.carry_name(id, asked, known, now);
                Enqueued::New { id: JobId(id), version }
            }
            (_, _) if asked.job.note_only && asked.op(Op::Add) == Op::Delete => Enqueued::Unchanged,
            (_, _) if asked.job.note_only => {
                self.note(numbers.take_source(), asked, numbers.first_version);
                Enqueued::Unchanged
            }
            (_, _) => {
                let (id, source, version) = (numbers.take_job(), numbers.take_source(), numbers.first_version);
                self.first(source, asked, version);
                let op = asked.op(Op::Add);
                if op == Op::Delete {
                    self.leave(source, version);
                }
                self.insert(id, source, asked, version, op, None, now, tally);
                Enqueued::New { id: JobId(id), version }
            }
        }
    }

    /// The source is there, and its version the same. What is known of another file's content is not known of this one.
    fn see_again(&mut self, asked: &Asked<'p>, known: &Known) {
        let digest = if asked.job.identity == known.identity { known.current_digest() } else { asked.job.digest };
        self.touch(known.source, asked, known.version, digest);
    }

    /// What follows from a file that has another name: see [`rename`].
    #[expect(clippy::too_many_arguments, reason = "what is known of both names, and what a round shares")]
    fn renamed(
        &mut self,
        asked: &Asked<'p>,
        from: &Known,
        to: Option<&Known>,
        used: i64,
        desk: &mut Desk,
        numbers: &mut Numbers,
        tally: &mut Tally,
    ) -> Enqueued {
        let Some(renamed) = &asked.job.renamed else { return same(from) };
        let follow_up = follow_up(asked.job, renamed, from, used);
        let version = match follow_up {
            FollowUp::Job { op, .. } if !desk.room.has_place(Decision::Raise { op }, Some(from), asked) => {
                return Enqueued::Full;
            }
            FollowUp::Job { .. } => from.version.max(used) + 1,
            FollowUp::Nothing | FollowUp::Along => from.version.max(used),
        };
        let left = if to.is_some() { 0 } else { numbers.take_source() };
        self.moves.add(asked, wire::path_bytes(&renamed.from), &Move { from, to, left, version, follow_up });
        self.touch(from.source, asked, version, asked.job.digest.or(from.current_digest()));
        let FollowUp::Job { op, moved_from } = follow_up else { return same(from) };
        let id = numbers.take_job();
        self.insert(id, from.source, asked, version, op, Some(from), desk.now, tally);
        if let Some(name) = moved_from.filter(|name| *name != asked.key.identity) {
            self.moves.tell(id, name);
        }
        Enqueued::New { id: JobId(id), version }
    }
}

const fn same(known: &Known) -> Enqueued {
    match &known.taken {
        Some(Taken { job, row: Some(row), .. }) => Enqueued::Known { id: *job, state: row.state },
        _ => Enqueued::Unchanged,
    }
}
