//! Lines of a list become jobs: as any version does, but all lines of a batch or none.
//!
//! 1. What a digest or more room is asked for is told before anything is written. Only where a source stands in a batch
//!    more than once, its later rounds see the earlier ones written; then these are taken back.
//! 2. `taken` notes which list named a source last, and in which run, whether or not it needed a job.

use std::borrow::Cow;

use sqlx::sqlite::SqliteConnection;

use super::super::super::error::Result;
use super::super::super::queue::{Enqueued, Listed, NewJob};
use super::super::bulk::Values;
use super::super::catalog::Catalog;
use super::super::tally::Tally;
use super::super::wire;
use super::{Desk, Intake, Room, Taken, decide_round, learn, rounds};

/// Who names the sources of lines.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::sqlite) struct Naming {
    pub list: i64,
    pub run: i64,
}

impl Naming {
    pub(super) const fn columns(self) -> [i64; 2] {
        [self.list, self.run]
    }
}

/// What became of a batch of lines.
#[derive(Debug)]
pub(in crate::store::sqlite) enum Decided {
    /// All are written. `duplicates`: those whose source the same run had named before; `named`: the other sources, with
    /// their pipelines.
    All { answers: Vec<Enqueued>, duplicates: u64, named: Vec<(i64, i64)> },
    /// These need a digest; nothing is written.
    NeedDigests(Vec<usize>),
    /// Too many jobs wait; nothing is written.
    Full { room: u64 },
}

/// The line that a job is for.
pub(super) struct LineOf<'a> {
    pub(super) run: i64,
    line: Option<i64>,
    repo: Option<Cow<'a, str>>,
    content: Option<&'a [u8]>,
}

impl<'a> LineOf<'a> {
    /// What a line says of its job. A source that the list no longer names stands in no line.
    pub(super) fn said(listed: &'a Listed) -> Self {
        Self {
            run: listed.run.0,
            line: (listed.line > 0).then(|| i64::try_from(listed.line).unwrap_or(i64::MAX)),
            repo: listed.repo.as_deref().map(Cow::Borrowed),
            content: listed.content.as_deref().map(wire::path_bytes),
        }
    }

    /// The line of the version before, whose job is not over: a newer version takes its place in the run, or the run
    /// would end well although nobody did what the line asks for.
    pub(super) fn goes_on(older: &Taken) -> Option<Self> {
        let row = older.row.as_ref().filter(|row| !row.state.is_final())?;
        Some(Self { run: row.run?, line: row.line, repo: row.repo.clone().map(Cow::Owned), content: None })
    }

    /// The columns after those that all jobs have.
    pub(super) fn bind(&self, values: &mut Values) {
        values.push(self.run).push(self.line).push(self.repo.as_deref()).push(self.content);
    }
}

impl Intake {
    /// Writes all of these jobs, or none.
    pub(in crate::store::sqlite) async fn write_lines(
        &self,
        tx: &mut SqliteConnection,
        jobs: &[&NewJob],
        naming: Naming,
        limit: Option<u64>,
        tally: &mut Tally,
    ) -> Result<Decided> {
        let (mut catalog, mut counted) = (Catalog::new(true), Tally::default());
        learn(tx, jobs, &mut catalog).await?;
        let limits = vec![limit; jobs.len()];
        let room = Room::read(tx, &limits).await?;
        let left = limit.map(|limit| room.left_of(limit));
        let mut desk = Desk { now: self.clock.now(), room, naming: Some(naming) };
        let rounds = rounds(jobs, &limits, &catalog)?;
        let mut answers = vec![Enqueued::Unchanged; jobs.len()];
        let (mut duplicates, mut named) = (0, Vec::new());
        if rounds.len() > 1 {
            sqlx::query("SAVEPOINT lines").execute(&mut *tx).await?;
        }
        let mut refused = None;
        for round in &rounds {
            let plan = decide_round(tx, round, &mut desk, &mut catalog, &mut counted, &mut answers).await?;
            refused = refusal(&answers, left);
            if refused.is_some() {
                break;
            }
            duplicates += plan.duplicates;
            named.extend(plan.names());
            plan.write(tx, desk.now).await?;
        }
        if rounds.len() > 1 {
            if refused.is_some() {
                sqlx::query("ROLLBACK TO lines").execute(&mut *tx).await?;
            }
            sqlx::query("RELEASE lines").execute(&mut *tx).await?;
        }
        if let Some(refused) = refused {
            return Ok(refused);
        }
        tally.absorb(counted);
        Ok(Decided::All { answers, duplicates, named })
    }
}

/// Why not all can be written. Digests come first: whoever is told of them comes again anyway.
fn refusal(answers: &[Enqueued], left: Option<u64>) -> Option<Decided> {
    let undecided = |(at, answer): (usize, &Enqueued)| (*answer == Enqueued::NeedsDigest).then_some(at);
    let digests: Vec<usize> = answers.iter().enumerate().filter_map(undecided).collect();
    if !digests.is_empty() {
        return Some(Decided::NeedDigests(digests));
    }
    answers.contains(&Enqueued::Full).then(|| Decided::Full { room: left.unwrap_or(0) })
}
