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
mod numbers;
mod room;
mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;

use super::super::error::Result;
use super::super::queue::{Enqueued, NewJob};
use super::tally::Tally;
use crate::clock::{Clock, Timestamp};
use crate::job::{JobId, Op};

use known::{Decision, Known, Taken, decide, look_up};
use numbers::Names;
use room::Room;
use rows::Plan;

pub(super) use known::parse;
pub(super) use numbers::{Numbers, pipeline_ids, watch_ids};

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
        let names = Names::resolve(tx, &jobs).await?;
        let keys: Vec<Key> = jobs.iter().map(|job| names.key(job)).collect::<Result<_>>()?;
        let mut answers = vec![Enqueued::NeedsDigest; jobs.len()];
        let mut left: Vec<usize> = (0..jobs.len()).collect();
        while !left.is_empty() {
            let mut seen = BTreeSet::new();
            let (round, later) = left.into_iter().partition(|&i| seen.insert((keys[i].scope, &keys[i].identity)));
            let round: Vec<Asked<'_>> = Vec::<usize>::into_iter(round)
                .map(|at| Asked { at, job: jobs[at], key: &keys[at], limit: limits[at] })
                .collect();
            write_round(tx, &round, now, &mut room, tally, &mut answers).await?;
            left = later;
        }
        Ok(answers)
    }
}

/// Where a source and a pipeline stand in the tables.
#[derive(Debug)]
struct Key {
    scope: i64,
    identity: String,
    pipeline: i64,
}

struct Asked<'a> {
    at: usize,
    job: &'a NewJob,
    key: &'a Key,
    limit: Option<u64>,
}

async fn write_round(
    tx: &mut SqliteConnection,
    round: &[Asked<'_>],
    now: Timestamp,
    room: &mut Room,
    tally: &mut Tally,
    answers: &mut [Enqueued],
) -> Result<()> {
    let known = look_up(tx, round).await?;
    let mut numbers = Numbers::read(tx).await?;
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
