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
//! A source that is asked for twice in one group is decided in two rounds, so that the second sees the first.

mod known;
mod room;
mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;

use super::super::error::{Result, StoreError};
use super::super::queue::{Enqueued, NewJob};
use super::catalog::{Catalog, unknown_watch};
use super::tally::Tally;
use super::wire;
use crate::clock::{Clock, Timestamp};
use crate::job::{JobId, Op, SourceKey};

use known::{Decision, Known, Taken, decide, look_up};
use room::Room;
use rows::Plan;

pub(super) use known::parse;
#[cfg(test)]
pub(super) use {known::LOOK_UP, rows::STATEMENTS};

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
        let mut room = Room::read(tx, &limits).await?;
        let now = self.clock.now();
        learn(tx, &jobs, catalog).await?;
        let keys: Vec<Key<'_>> = jobs.iter().map(|job| Key::of(job, catalog)).collect::<Result<_>>()?;
        let mut answers = vec![Enqueued::NeedsDigest; jobs.len()];
        let mut left: Vec<usize> = (0..jobs.len()).collect();
        while !left.is_empty() {
            let mut seen = BTreeSet::new();
            let (round, later) = left.into_iter().partition(|&i| seen.insert((keys[i].scope, keys[i].identity)));
            let round: Vec<Asked<'_>> = Vec::<usize>::into_iter(round)
                .map(|at| Asked { at, job: jobs[at], key: keys[at], limit: limits[at] })
                .collect();
            write_round(tx, &round, now, &mut room, catalog, tally, &mut answers).await?;
            left = later;
        }
        Ok(answers)
    }
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

struct Asked<'a> {
    at: usize,
    job: &'a NewJob,
    key: Key<'a>,
    limit: Option<u64>,
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

async fn write_round(
    tx: &mut SqliteConnection,
    round: &[Asked<'_>],
    now: Timestamp,
    room: &mut Room,
    catalog: &mut Catalog,
    tally: &mut Tally,
    answers: &mut [Enqueued],
) -> Result<()> {
    let known = look_up(tx, round).await?;
    let numbers = catalog.numbers(tx).await?;
    let mut plan = Plan::default();
    for (asked, known) in round.iter().zip(&known) {
        let decision = known.as_ref().map_or(Decision::First, |known| decide(asked.job, known));
        answers[asked.at] = match (decision, known) {
            (Decision::TakeDigest, _) => Enqueued::NeedsDigest,
            (Decision::Same { refresh }, Some(known)) => {
                if refresh {
                    plan.touch(known.source, asked, known.version, known.current_digest());
                }
                same(known)
            }
            (decision, known) if !room.has_place(decision, known.as_ref(), asked) => Enqueued::Full,
            (Decision::AnotherPipeline, Some(known)) => {
                let (id, version) = (numbers.take_job(), known.version);
                plan.insert(id, known.source, asked, version, Op::Add, Some(known), now, tally);
                Enqueued::New { id: JobId(id), version }
            }
            (Decision::Raise { op }, Some(known)) => {
                let (id, version) = (numbers.take_job(), known.version + 1);
                plan.touch(known.source, asked, version, asked.job.digest);
                plan.insert(id, known.source, asked, version, op, Some(known), now, tally);
                Enqueued::New { id: JobId(id), version }
            }
            (_, _) if asked.job.note_only => {
                plan.note(numbers.take_source(), asked, numbers.first_version);
                Enqueued::Unchanged
            }
            (_, _) => {
                let (id, source, version) = (numbers.take_job(), numbers.take_source(), numbers.first_version);
                plan.first(source, asked, version);
                plan.insert(id, source, asked, version, Op::Add, None, now, tally);
                Enqueued::New { id: JobId(id), version }
            }
        };
    }
    plan.write(tx, now).await
}

const fn same(known: &Known) -> Enqueued {
    match &known.taken {
        Some(Taken { job, row: Some(row), .. }) => Enqueued::Known { id: *job, state: row.state },
        _ => Enqueued::Unchanged,
    }
}
