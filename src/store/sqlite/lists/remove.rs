//! A run that is over is forgotten, with its lines and changesets; its jobs stay. The lines go first and in slices, so that
//! none is ever left without its run, and the writer is never away for long.

use sqlx::sqlite::SqliteConnection;

use super::super::super::error::Result;
use super::super::super::lists::RunSteered;
use super::super::SqliteStore;
use super::super::enqueue::parse;
use crate::clock::Timestamp;
use crate::run::{RunId, RunState};

/// Rows that go at once.
const SLICE: i64 = 5_000;

/// ?1: the run, ?2: at most so many.
const DELETE_LINES: &str = "
    DELETE FROM run_lines
    WHERE run = ?1 AND line IN (SELECT line FROM run_lines WHERE run = ?1 ORDER BY line LIMIT ?2 + 0)";
/// As [`DELETE_LINES`].
const DELETE_CHANGESETS: &str = "
    DELETE FROM run_changesets
    WHERE run = ?1 AND line IN (SELECT line FROM run_changesets WHERE run = ?1 ORDER BY line LIMIT ?2 + 0)";

/// ?1: the cutoff, ?2: after this run. The next old run that has lines or changesets.
const NEXT_WITH_LINES: &str = "
    SELECT min(id) FROM runs
    WHERE id > ?2 AND finished_at < ?1 AND list IS NOT NULL
        AND (EXISTS (SELECT 1 FROM run_lines WHERE run = runs.id) OR EXISTS (SELECT 1 FROM run_changesets WHERE run = runs.id))";

/// What goes by its key.
#[cfg(test)]
pub(in crate::store::sqlite) const STATEMENTS: [(&str, &str); 2] = [
    (DELETE_LINES, "SEARCH run_lines USING PRIMARY KEY (run=?"),
    (DELETE_CHANGESETS, "SEARCH run_changesets USING PRIMARY KEY (run=?"),
];

/// What became of a slice.
enum Slice {
    More,
    Gone,
    Refused(RunState),
    Unknown,
}

impl SqliteStore {
    pub(super) async fn forget_run(&self, id: RunId) -> Result<RunSteered> {
        loop {
            match self.write(move |tx| Box::pin(slice(tx, id, true))).await? {
                Slice::More => {}
                Slice::Gone => return Ok(RunSteered::Done),
                Slice::Refused(state) => return Ok(RunSteered::Refused(state)),
                Slice::Unknown => return Ok(RunSteered::Unknown),
            }
        }
    }

    /// Removes the lines of runs that ended before the cutoff, so that pruning finds nothing but the runs.
    pub(in crate::store::sqlite) async fn prune_lines(&self, cutoff: Timestamp) -> Result<()> {
        let mut after = 0;
        loop {
            let next: Option<i64> = sqlx::query_scalar(NEXT_WITH_LINES)
                .bind(cutoff.as_millis())
                .bind(after)
                .fetch_one(self.readers())
                .await?;
            let Some(run) = next else { return Ok(()) };
            while let Slice::More = self.write(move |tx| Box::pin(slice(tx, RunId(run), false))).await? {}
            after = run;
        }
    }
}

/// Removes some lines of a run that is over; and the run itself, where that is wanted, once there are none.
async fn slice(tx: &mut SqliteConnection, id: RunId, whole: bool) -> Result<Slice> {
    let state: Option<String> =
        sqlx::query_scalar("SELECT state FROM runs WHERE id = ?1").bind(id.0).fetch_optional(&mut *tx).await?;
    let Some(state) = state else { return Ok(Slice::Unknown) };
    let state: RunState = parse(&state)?;
    if !state.is_final() {
        return Ok(Slice::Refused(state));
    }
    for sql in [DELETE_LINES, DELETE_CHANGESETS] {
        if sqlx::query(sql).bind(id.0).bind(SLICE).execute(&mut *tx).await?.rows_affected() > 0 {
            return Ok(Slice::More);
        }
    }
    if whole {
        sqlx::query("DELETE FROM runs WHERE id = ?1").bind(id.0).execute(tx).await?;
    }
    Ok(Slice::Gone)
}
