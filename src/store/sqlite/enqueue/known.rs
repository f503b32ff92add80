//! What is known of a version's source, and what follows from it: the one decision of an enqueue, pure.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::super::error::{Result, StoreError};
use super::super::super::queue::NewJob;
use super::super::bulk::Bulk;
use super::super::wire;
use super::Key;
use crate::clock::Timestamp;
use crate::job::{Digest, FileIdentity, JobId, Op, StateName};

/// What is known of an asked version's source.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) source: i64,
    pub(super) version: i64,
    pub(super) identity: FileIdentity,
    pub(super) digest: Option<Digest>,
    pub(super) digest_version: Option<i64>,
    pub(super) present: bool,
    pub(super) consumed: bool,
    /// The file as it was processed, while it is on its way to where `on_success` or `on_failure` send it.
    pub(super) moving: Option<FileIdentity>,
    pub(super) taken: Option<Taken>,
    /// The pipeline's job of the source that runs or has its file on its way, whichever version it is.
    pub(super) in_the_way: Option<i64>,
    /// Whether a job of it that is not over belongs to another pipeline.
    pub(super) elsewhere: bool,
}

impl Known {
    /// Whether nothing is known of its file: what a delete leaves.
    fn holds_nothing(&self) -> bool {
        !self.present && self.identity.inode == 0 && self.identity.dev == 0 && self.current_digest().is_none()
    }

    /// The digest of the newest version's content, where it was taken.
    pub(super) fn current_digest(&self) -> Option<Digest> {
        self.digest.filter(|_| self.digest_version == Some(self.version))
    }
}

/// The newest version that the pipeline was given of a source.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) version: i64,
    pub(super) job: JobId,
    pub(super) started: bool,
    /// The newest run over a list that named the source.
    pub(super) list_run: Option<i64>,
    /// The job itself, unless it was pruned.
    pub(super) row: Option<TakenRow>,
}

impl Taken {
    /// The run over a list that its job is of.
    pub(super) fn run(&self) -> Option<i64> {
        self.row.as_ref().and_then(|row| row.run)
    }
}

#[derive(Clone, Debug)]
pub(super) struct TakenRow {
    pub(super) version: i64,
    pub(super) state: StateName,
    pub(super) op: Op,
    pub(super) priority: i64,
    pub(super) run_at: Timestamp,
    pub(super) executions: i64,
    pub(super) deferrals: i64,
    pub(super) vanished: bool,
    pub(super) duplicate: bool,
    pub(super) moved_from: Option<Vec<u8>>,
    pub(super) run: Option<i64>,
    pub(super) line: Option<i64>,
    pub(super) repo: Option<String>,
}

impl TakenRow {
    /// Whether a processor was given it, as far as that can be told.
    pub(super) const fn was_handed_over(&self) -> bool {
        self.executions > 0 && !self.duplicate && !(self.vanished && self.executions == 1)
    }

    /// Whether a person's `retry` leads out of its state.
    pub(super) const fn may_be_reopened(&self) -> bool {
        matches!(self.state, StateName::Failed | StateName::Cancelled)
    }
}

/// What follows for one asked version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nobody has heard of the source.
    First,
    /// Its version is this one already; `refresh`: its identity on disk is a new one all the same.
    Same { refresh: bool },
    /// A pipeline that was not given this version yet.
    AnotherPipeline,
    /// New content, or content that came anew.
    Raise { op: Op },
    /// Only the content can tell.
    TakeDigest,
}

/// Compares what was seen with what is known.
pub(super) fn decide(new: &NewJob, known: &Known) -> Decision {
    if new.note_only {
        return Decision::Same { refresh: !known.present };
    }
    if new.listed.as_ref().is_some_and(|listed| listed.op == Some(Op::Delete)) {
        return deleted(known);
    }
    if known.consumed {
        // We take the old file away ourselves: whatever else is there arrived anew. But the old file may have been
        // seen just before it went.
        let old =
            known.moving.is_some_and(|old| old.same_but_for_ctime(&new.identity)) || new.identity == known.identity;
        return if old { Decision::Same { refresh: false } } else { Decision::Raise { op: Op::Add } };
    }
    match &known.taken {
        // What another pipeline was told to delete is there again.
        None if known.holds_nothing() => return Decision::Raise { op: Op::Add },
        Some(_) if new.force => return Decision::Raise { op: Op::Modify },
        Some(taken) if came_back(new, known, taken) => return Decision::Raise { op: Op::Add },
        _ => {}
    }
    if new.identity == known.identity {
        return current(known, !known.present);
    }
    // The digest decides. Where the old one was never taken, nobody can say that the content is the same.
    match (new.digest, known.current_digest()) {
        (None, _) => Decision::TakeDigest,
        (Some(digest), Some(old)) if digest == old => current(known, true),
        (Some(_), _) => Decision::Raise { op: if known.taken.is_some() { Op::Modify } else { Op::Add } },
    }
}

/// What follows from a line that says that the source was deleted: a job, unless that is the newest that the pipeline
/// was given of it.
fn deleted(known: &Known) -> Decision {
    let told = known.taken.as_ref().and_then(|taken| taken.row.as_ref()).is_some_and(|row| row.op == Op::Delete);
    if told {
        return Decision::Same { refresh: false };
    }
    let nothing_left = !known.present && !known.consumed && known.current_digest().is_none();
    match &known.taken {
        _ if !nothing_left => Decision::Raise { op: Op::Delete },
        Some(taken) if taken.version == known.version => match &taken.row {
            Some(_) => Decision::Raise { op: Op::Delete },
            None => Decision::Same { refresh: false },
        },
        _ => Decision::AnotherPipeline,
    }
}

/// Whether what is there now was never worked on, because it was gone when its turn came: whatever its content.
fn came_back(new: &NewJob, known: &Known, taken: &Taken) -> bool {
    match &taken.row {
        None => !known.present && known.current_digest().is_none(),
        Some(row) if row.vanished => !known.present || new.identity != known.identity,
        Some(row) => !known.present && row.op == Op::Delete,
    }
}

/// What follows where the source's version is what is there.
fn current(known: &Known, refresh: bool) -> Decision {
    let given = known.taken.as_ref().is_some_and(|taken| taken.version >= known.version);
    if given { Decision::Same { refresh } } else { Decision::AnotherPipeline }
}

/// What is known of each asked (scope, identity, pipeline), with its place in the question.
pub(in crate::store::sqlite) static LOOK_UP: Bulk = Bulk::new(include_str!("../sql/look_up.sql"), 4);

/// What is known under each of these names for the pipeline beside it.
pub(super) async fn look_up(tx: &mut SqliteConnection, keys: &[Key<'_>]) -> Result<Vec<Option<Known>>> {
    let rows: Vec<_> = keys.iter().enumerate().map(|(at, key)| (wire::count(at), *key)).collect();
    let rows = LOOK_UP
        .fetch(tx, &rows, |values, (at, key)| {
            values.push(*at).push(key.scope).push(key.identity).push(key.pipeline);
        })
        .await?;
    let mut known = vec![None; keys.len()];
    for row in rows {
        let at = usize::try_from(row.try_get::<i64, _>("at")?).unwrap_or(usize::MAX);
        if let Some(slot) = known.get_mut(at) {
            *slot = Some(read_known(&row)?);
        }
    }
    Ok(known)
}

fn read_known(row: &SqliteRow) -> Result<Known> {
    let word = |name: &str| -> Result<Option<String>> { Ok(row.try_get(name)?) };
    let taken = match row.try_get::<Option<i64>, _>("taken_version")? {
        None => None,
        Some(version) => Some(Taken {
            version,
            job: JobId(row.try_get("taken_job")?),
            started: row.try_get::<bool, _>("taken_started")?,
            list_run: row.try_get("taken_list_run")?,
            row: match word("job_state")? {
                None => None,
                Some(state) => Some(TakenRow {
                    version: row.try_get("job_version")?,
                    state: parse(&state)?,
                    op: parse(&word("job_op")?.unwrap_or_default())?,
                    priority: row.try_get("job_priority")?,
                    run_at: Timestamp::from_millis(row.try_get("job_run_at")?),
                    executions: row.try_get("job_executions")?,
                    deferrals: row.try_get("job_deferrals")?,
                    vanished: row.try_get("job_vanished")?,
                    duplicate: row.try_get("job_duplicate")?,
                    moved_from: row.try_get("job_moved_from")?,
                    run: row.try_get("job_run")?,
                    line: row.try_get("job_line")?,
                    repo: row.try_get("job_repo")?,
                }),
            },
        }),
    };
    let presence = word("presence")?.unwrap_or_default();
    Ok(Known {
        source: row.try_get("source")?,
        version: row.try_get("version")?,
        identity: wire::identity_of(row)?,
        digest: wire::digest(row.try_get("digest")?)?,
        digest_version: row.try_get("digest_version")?,
        present: presence == "present",
        consumed: presence == "consumed",
        moving: match row.try_get::<Option<i64>, _>("d_dev")? {
            None => None,
            Some(dev) => Some(wire::identity([
                dev,
                row.try_get("d_inode")?,
                row.try_get("d_size")?,
                row.try_get("d_mtime_ns")?,
                row.try_get("d_ctime_ns")?,
            ])),
        },
        taken,
        in_the_way: row.try_get("in_the_way")?,
        elsewhere: row.try_get("elsewhere")?,
    })
}

/// A word of the tables as its enum.
pub(in crate::store::sqlite) fn parse<T: std::str::FromStr>(word: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    word.parse().map_err(|error| StoreError::Corrupt(format!("a row of the database holds an unknown word: {error}")))
}
