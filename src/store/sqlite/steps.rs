//! Steps of the wall clock, noticed by the writer at the beginning of each transaction.
//!
//! 1. Within one boot of the machine the wall clock and `CLOCK_BOOTTIME` go alike. Where their difference is another
//!    one than before, somebody set the wall clock.
//! 2. What waits for a while then moves along, in the same transaction: a due job stays due and keeps its place, a retry
//!    waits as long as it would have, ageing and `max_elapsed` count the time that passed. What waits for a date
//!    (`--at`, `--in`) stays where it is.
//! 3. The difference is kept with the name of the machine's boot, so that a step between two daemons is noticed by the
//!    second. From another boot only the newest date in the tables is left to compare with: a clock that lies before it
//!    was set back. A clock that went ahead while the machine was off can't be told from time that passed.
//! 4. Steps ahead are kept, because ages that reach behind one are longer than they look: see [`ClockSteps`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteConnection;

use super::super::error::Result;
use super::super::upkeep::ClockSteps;
use crate::clock::{Clock, Timestamp};

/// Where it is kept.
const KEY: &str = "ingestd.clock";
/// Both clocks are read one after the other, and a machine that resumes sets its clock to a second: less is no step.
const TOLERANCE_MS: i64 = 2_000;

/// Compares the clocks.
#[derive(Debug)]
pub(super) struct Watchmaker {
    clock: Arc<dyn Clock>,
    known: Option<Known>,
    /// What becomes known when the transaction is committed.
    noticed: Option<Known>,
}

/// How the clocks stood to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    /// The machine's boot; empty where it has no name.
    boot: String,
    /// The wall clock less boot time.
    offset_ms: i64,
    /// Rows may be dated up to here, from before the clock was set back.
    #[serde(default)]
    dated_until_ms: i64,
    #[serde(default)]
    steps: ClockSteps,
}

impl Watchmaker {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: None, noticed: None }
    }

    /// Looks whether the clock was set since the last time, and moves along what waits for a while.
    pub(super) async fn look(&mut self, tx: &mut SqliteConnection) -> Result<()> {
        self.noticed = None;
        let now = self.clock.now();
        let offset_ms = now.as_millis().saturating_sub(self.clock.boottime().as_millis());
        let (mut known, changed) = match &self.known {
            Some(known) if known.offset_ms.abs_diff(offset_ms) < TOLERANCE_MS.unsigned_abs() => return Ok(()),
            Some(known) => (known.clone(), true),
            None => self.recall(tx, offset_ms, now).await?,
        };
        let by_ms = offset_ms.saturating_sub(known.offset_ms);
        let stepped = by_ms.unsigned_abs() >= TOLERANCE_MS.unsigned_abs();
        if stepped {
            let jobs = move_along(tx, by_ms, now).await?;
            tracing::warn!(by_ms, %now, jobs, "the wall clock was stepped; what waits moves along with it");
            known.dated_until_ms = known.dated_until_ms.max(now.as_millis().saturating_sub(by_ms));
            known.steps.add(now, by_ms);
            known.offset_ms = offset_ms;
        }
        if stepped || changed {
            keep(tx, &known, now).await?;
        }
        self.noticed = Some(known);
        Ok(())
    }

    /// The transaction was committed.
    pub(super) fn committed(&mut self) {
        if let Some(noticed) = self.noticed.take() {
            self.known = Some(noticed);
        }
    }

    /// What was kept by whoever wrote before, made comparable; and whether it has to be kept anew.
    async fn recall(&self, tx: &mut SqliteConnection, offset_ms: i64, now: Timestamp) -> Result<(Known, bool)> {
        let kept: Option<String> =
            sqlx::query_scalar("SELECT value FROM kv WHERE key = ?1").bind(KEY).fetch_all(&mut *tx).await?.pop();
        let kept: Option<Known> = kept.and_then(|kept| serde_json::from_str(&kept).ok());
        let boot = self.clock.boot_name();
        match kept {
            Some(kept) if kept.boot == boot && !boot.is_empty() => Ok((kept, false)),
            other => {
                let newest: Option<i64> =
                    sqlx::query_scalar(include_str!("sql/newest_date.sql")).fetch_all(tx).await?.pop().flatten();
                let (dated_until_ms, steps) = other.map(|kept| (kept.dated_until_ms, kept.steps)).unwrap_or_default();
                // A date from before a step back that was noticed says nothing of another one.
                let newest = newest.filter(|newest| *newest > dated_until_ms.saturating_add(TOLERANCE_MS));
                let back_ms = newest.map_or(0, |newest| newest.saturating_sub(now.as_millis())).max(0);
                Ok((Known { boot, offset_ms: offset_ms.saturating_add(back_ms), dated_until_ms, steps }, true))
            }
        }
    }
}

/// Answers how many jobs moved.
async fn move_along(tx: &mut SqliteConnection, by_ms: i64, now: Timestamp) -> Result<u64> {
    let before_ms = now.as_millis().saturating_sub(by_ms);
    let moved = sqlx::query(include_str!("sql/move_along.sql")).bind(by_ms).bind(before_ms).execute(tx).await?;
    Ok(moved.rows_affected())
}

async fn keep(tx: &mut SqliteConnection, known: &Known, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO kv (key, value, updated_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
    )
    .bind(KEY)
    .bind(serde_json::to_string(known)?)
    .bind(now.as_millis())
    .execute(tx)
    .await?;
    Ok(())
}

impl super::SqliteStore {
    /// The steps ahead of the wall clock that are still known.
    pub(super) async fn read_clock_steps(&self) -> Result<ClockSteps> {
        // A write notices a step that nobody wrote since; where nothing can be written, what is kept has to do.
        let _ = self.ping().await;
        let kept: Option<String> =
            sqlx::query_scalar("SELECT value FROM kv WHERE key = ?1").bind(KEY).fetch_all(self.readers()).await?.pop();
        let known: Option<Known> = kept.and_then(|kept| serde_json::from_str(&kept).ok());
        Ok(known.map(|known| known.steps).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::AssertSqlSafe;
    use tempfile::TempDir;

    use super::super::{OpenMode, QueueRules, SqliteStore, fixture};
    use super::*;
    use crate::clock::ManualClock;
    use crate::store::Upkeep as _;

    const DAY: i64 = 86_400_000;

    /// A store whose clock can be set, and who opens it anew.
    struct Bench {
        folder: TempDir,
        clock: Arc<ManualClock>,
        store: Arc<SqliteStore>,
    }

    impl Bench {
        /// Jobs: 1 is due, 2 was tried and waits an hour for another attempt, 3 waits a day for its date, 4 is completed.
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::at(Timestamp::from_millis(fixture::NOW)));
            let store = open(&folder, &clock).await;
            fixture::sql(
                &store,
                "INSERT INTO pipelines (id, name) VALUES (1, 'documents');
                 INSERT INTO watches (id, name, root, created_at) VALUES (1, 'inbox', CAST('/srv/inbox' AS BLOB), 0)",
            )
            .await;
            fixture::jobs(&store, 1, 1, "state", "'pending'").await;
            fixture::jobs(
                &store,
                2,
                1,
                "state, executions, error_kind, first_started_at",
                "'retrying', 1, 'exit', run_at",
            )
            .await;
            fixture::jobs(&store, 3, 1, "state", "'pending'").await;
            fixture::jobs(&store, 4, 1, "state, finished_at", "'completed', run_at").await;
            fixture::sql(
                &store,
                "UPDATE jobs SET run_at = run_at + 3600000 WHERE id = 2; UPDATE jobs SET run_at = run_at + 86400000 WHERE id = 3",
            )
            .await;
            Self { folder, clock, store }
        }

        fn step(&self, by_ms: i64) {
            self.clock.step_wall(Timestamp::from_millis(self.clock.now().as_millis() + by_ms));
        }

        /// When jobs are due, and the second began, beside the fixture's time.
        async fn dates(&self) -> Vec<i64> {
            self.store.ping().await.unwrap();
            let ask = format!(
                "SELECT run_at - {now} FROM jobs WHERE id <= 4
                 UNION ALL SELECT first_started_at - {now} FROM jobs WHERE id = 2",
                now = fixture::NOW
            );
            sqlx::query_scalar(AssertSqlSafe(ask)).fetch_all(self.store.readers()).await.unwrap()
        }

        async fn reopen(&mut self) {
            self.store.close().await;
            self.store = open(&self.folder, &self.clock).await;
        }
    }

    async fn open(folder: &TempDir, clock: &Arc<ManualClock>) -> Arc<SqliteStore> {
        let database =
            crate::config::Database { path: folder.path().join("q.db"), ..crate::config::Database::default() };
        let rules = QueueRules::from(&crate::config::Queue::default());
        let (store, writer) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock.clone()).await.unwrap();
        tokio::spawn(writer.unwrap().run());
        store
    }

    const HOUR: i64 = 3_600_000;
    const AT_FIRST: [i64; 5] = [0, HOUR, DAY, 0, 0];

    fn moved(by_ms: i64) -> [i64; 5] {
        [by_ms, HOUR + by_ms, DAY, 0, by_ms]
    }

    #[tokio::test]
    async fn what_waits_for_a_while_moves_along_and_what_waits_for_a_date_stays() {
        let bench = Bench::new().await;
        assert_eq!(bench.dates().await, AT_FIRST);
        bench.clock.advance(Duration::from_secs(60));
        bench.step(1_500);
        assert_eq!(bench.dates().await, AT_FIRST, "neither time that passes nor a second is a step");
        bench.step(-DAY);
        assert_eq!(bench.dates().await, moved(1_500 - DAY), "small steps are made good by the next large one");
        bench.step(DAY);
        assert_eq!(bench.dates().await, moved(1_500));
    }

    #[tokio::test]
    async fn a_step_between_two_daemons_is_noticed_by_the_second() {
        let mut bench = Bench::new().await;
        bench.dates().await;
        bench.step(-400 * DAY);
        bench.reopen().await;
        assert_eq!(bench.dates().await, moved(-400 * DAY));
        bench.reopen().await;
        assert_eq!(bench.dates().await, moved(-400 * DAY), "once");
    }

    #[tokio::test]
    async fn after_a_boot_a_clock_is_wrong_only_if_it_lies_behind_what_was_written() {
        let mut bench = Bench::new().await;
        bench.dates().await;
        bench.clock.reboot(Timestamp::from_millis(fixture::NOW + 400 * DAY));
        bench.reopen().await;
        assert_eq!(bench.dates().await, AT_FIRST, "400 days passed, for all that anybody knows");
        bench.clock.reboot(Timestamp::from_millis(fixture::NOW - DAY));
        bench.reopen().await;
        assert_eq!(bench.dates().await, moved(-DAY));
        // The rows are still dated a day ahead, and that is known.
        bench.clock.reboot(Timestamp::from_millis(fixture::NOW - DAY + 1_000));
        bench.reopen().await;
        assert_eq!(bench.dates().await, moved(-DAY));
    }

    #[tokio::test]
    async fn a_step_that_could_not_be_committed_is_noticed_again() {
        let bench = Bench::new().await;
        bench.dates().await;
        bench.step(-DAY);
        let refused = bench.store.write(|tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO nowhere VALUES (1)").execute(tx).await?;
                Ok(())
            })
        });
        refused.await.unwrap_err();
        assert_eq!(bench.dates().await, moved(-DAY));
    }

    #[tokio::test]
    async fn an_age_never_counts_a_step_until_it_is_longer_ago() {
        let bench = Bench::new().await;
        bench.step(400 * DAY);
        let (steps, keep) = (bench.store.clock_steps().await.unwrap(), Duration::from_hours(7 * 24));
        let now = bench.clock.now();
        assert_eq!(steps.cutoff(now, keep).as_millis(), fixture::NOW - 7 * DAY);
        assert_eq!(steps.cutoff(now.plus(keep * 2), keep), now.plus(keep));
        let mut steps = steps;
        for _ in 0..100 {
            steps.add(now, DAY);
        }
        assert!(steps.cutoff(now, keep).as_millis() <= fixture::NOW - 7 * DAY - 15 * DAY);
    }
}
