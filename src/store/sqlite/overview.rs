//! The queue at a glance, without counting rows: states from the counters, rates from the slots, the earliest due
//! time by one seek for each pipeline and level. All three are read in one snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::browse::{Counts, Overview};
use super::super::error::{Result, StoreError};
use super::SqliteStore;
use crate::clock::{Timestamp, millis};
use crate::job::{Priority, StateName};

/// The windows of `rate_per_s`.
const WINDOWS: [Duration; 3] = [Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(15)];
/// The length of a slot of `rates`.
const SLOT_MS: i64 = 10_000;
/// Rows of `counters` and `rates` that are read at most: hundreds of pipelines.
const MOST_ROWS: i64 = 100_000;

/// Every pipeline with its counters.
pub(super) const COUNTERS: &str = "
    SELECT p.name, p.paused, c.state, c.priority, c.n
    FROM pipelines AS p LEFT JOIN counters AS c ON c.pipeline = p.id
    LIMIT ?1 + 0";

/// What ended in the slots of the longest window.
pub(super) const ENDS: &str = "
    SELECT p.name, r.slot, r.completed, r.failed
    FROM rates AS r JOIN pipelines AS p ON p.id = r.pipeline
    WHERE r.slot >= ?1 AND r.slot <= ?2
    LIMIT ?3 + 0";

pub(super) const EARLIEST_DUE: &str = include_str!("sql/earliest_due.sql");

impl SqliteStore {
    pub(super) async fn read_overview(&self) -> Result<Overview> {
        let now = self.clock.now();
        let mut snapshot = self.readers().begin().await?;
        let levels: Vec<Level> = sqlx::query_as(COUNTERS).bind(MOST_ROWS).fetch_all(&mut *snapshot).await?;
        let slots: Vec<Slot> = sqlx::query_as(ENDS)
            .bind(first_slot(now, WINDOWS[2]))
            .bind(now.as_millis())
            .bind(MOST_ROWS)
            .fetch_all(&mut *snapshot)
            .await?;
        let earliest: Option<i64> = sqlx::query_scalar(EARLIEST_DUE).fetch_one(&mut *snapshot).await?;
        snapshot.commit().await?;

        let mut overview = Overview::default();
        add_counters(&mut overview, levels)?;
        add_rates(&mut overview, &slots, now);
        match earliest.map(Timestamp::from_millis) {
            Some(at) if at <= now => overview.oldest_due = Some(at),
            at => overview.next_due = at,
        }
        Ok(overview)
    }
}

/// Pipeline, paused, state, level, how many; no state for a pipeline that never had a job.
type Level = (String, bool, Option<String>, Option<i64>, Option<i64>);
/// Pipeline, start, completed, failed.
type Slot = (String, i64, i64, i64);

fn add_counters(overview: &mut Overview, levels: Vec<Level>) -> Result<()> {
    for (pipeline, paused, state, level, n) in levels {
        let entry = overview.pipelines.entry(pipeline).or_default();
        entry.1 = paused;
        let (Some(state), Some(level), Some(n)) = (state, level, n) else { continue };
        let state: StateName = state.parse().map_err(|e| StoreError::Corrupt(format!("a counter's state: {e}")))?;
        let level = Priority::from_number(level)
            .ok_or_else(|| StoreError::Corrupt(format!("a counter's priority: {level} is none")))?;
        let n = u64::try_from(n).unwrap_or(0);
        for counts in [&mut entry.0, &mut overview.total] {
            *counts.by_state_and_priority.entry((state, level)).or_default() += n;
        }
    }
    Ok(())
}

/// What ended within each window.
#[derive(Default)]
struct Ends {
    completed: [i64; 3],
    failed: [i64; 3],
}

fn add_rates(overview: &mut Overview, slots: &[Slot], now: Timestamp) {
    let mut total = Ends::default();
    let mut pipelines: BTreeMap<&str, Ends> = BTreeMap::new();
    for (pipeline, slot, completed, failed) in slots {
        for ends in [pipelines.entry(pipeline).or_default(), &mut total] {
            for (i, window) in WINDOWS.into_iter().enumerate() {
                if *slot >= first_slot(now, window) {
                    ends.completed[i] += completed;
                    ends.failed[i] += failed;
                }
            }
        }
    }
    total.fill(&mut overview.total, now);
    for (pipeline, ends) in pipelines {
        if let Some((counts, _)) = overview.pipelines.get_mut(pipeline) {
            ends.fill(counts, now);
        }
    }
}

impl Ends {
    #[expect(clippy::cast_precision_loss, reason = "counts of jobs stay far below 2^52")]
    fn fill(&self, counts: &mut Counts, now: Timestamp) {
        for (i, window) in WINDOWS.into_iter().enumerate() {
            // The newest slot is still filling: the time that the slots cover ends now.
            let covered_ms = now.as_millis() - first_slot(now, window);
            counts.rate_per_s[i] = (self.completed[i] + self.failed[i]) as f64 * 1_000.0 / covered_ms as f64;
        }
        let ended = self.completed[2] + self.failed[2];
        counts.success_rate = (ended > 0).then(|| self.completed[2] as f64 / ended as f64);
    }
}

/// The oldest slot that lies wholly within the window that ends now.
fn first_slot(now: Timestamp, window: Duration) -> i64 {
    let begin = now.as_millis() - millis(window);
    -(-begin).div_euclid(SLOT_MS) * SLOT_MS
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::fixture::{self, NOW};
    use super::*;
    use crate::store::Browse as _;

    #[tokio::test]
    async fn states_come_from_the_counters_and_rates_from_the_slots() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::sql(
            &store,
            "UPDATE pipelines SET paused = 1 WHERE id = 2;
             INSERT INTO counters VALUES (1, 'pending', 2, 7), (1, 'pending', 4, 1), (2, 'pending', 2, 5), (2, 'failed', 2, 3);
             INSERT INTO rates (slot, pipeline, completed, failed) VALUES
                 (1700000000000, 1, 999, 0), (1699999990000, 1, 30, 0), (1699999940000, 1, 20, 10), (1699999930000, 2, 0, 240),
                 (1699999090000, 1, 1000, 0), (1700000010000, 1, 5000, 0);
             DELETE FROM rates WHERE completed = 999",
        )
        .await;
        let overview = store.overview().await.unwrap();
        assert_eq!(overview.total.in_state(StateName::Pending), 13);
        assert_eq!(overview.total.by_state_and_priority[&(StateName::Pending, Priority::Normal)], 12);
        let (documents, paused) = &overview.pipelines["documents"];
        assert_eq!((documents.in_state(StateName::Pending), *paused), (8, false));
        let (hook, paused) = &overview.pipelines["hook"];
        assert_eq!((hook.in_state(StateName::Failed), *paused), (3, true));
        // 60 jobs ended in the last minute, 240 more in the four before; what lies further back or ahead is left out.
        assert_eq!(overview.total.rate_per_s, [1.0, 1.0, 1.0 / 3.0]);
        assert_eq!(documents.rate_per_s[0], 1.0);
        assert_eq!(overview.total.success_rate, Some(50.0 / 300.0));
        assert_eq!(hook.success_rate, Some(0.0));
    }

    #[tokio::test]
    async fn the_earliest_due_job_counts_whether_suspect_or_not_unless_it_is_blocked() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let earliest = async || {
            let overview = store.overview().await.unwrap();
            (overview.oldest_due.map(Timestamp::as_millis), overview.next_due.map(Timestamp::as_millis))
        };
        assert_eq!(earliest().await, (None, None));
        fixture::jobs(&store, 1, 4, "state", "'pending'").await;
        fixture::sql(
            &store,
            "UPDATE jobs SET run_at = run_at + 1000 * id; UPDATE jobs SET blocked_by = 9 WHERE id = 1",
        )
        .await;
        assert_eq!(earliest().await, (None, Some(NOW + 2_000)));
        fixture::sql(&store, "UPDATE jobs SET run_at = 70 WHERE id = 4").await;
        assert_eq!(earliest().await, (Some(70), None));
        fixture::sql(&store, "UPDATE jobs SET run_at = 60, crashes = 2 WHERE id = 3").await;
        assert_eq!(earliest().await, (Some(60), None));
    }

    #[tokio::test]
    async fn no_job_is_counted_or_scanned() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        assert!(!COUNTERS.contains("jobs") && !ENDS.contains("jobs"));
        let plan = fixture::plan(&store, EARLIEST_DUE).await;
        for index in ["jobs_due (pipeline=? AND priority=?)", "jobs_suspect (pipeline=?)"] {
            assert!(plan.iter().any(|line| line.contains("SEARCH j") && line.contains(index)), "{index}: {plan:#?}");
        }
        assert!(!plan.iter().any(|line| line.contains("SCAN j") || line.contains("ORDER BY")), "{plan:#?}");
        fixture::assert_no_scan(&store, ENDS, "r").await;
    }
}
