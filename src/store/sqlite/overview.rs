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
const WINDOWS: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900)];
/// The length of a slot of `rates`.
const SLOT_MS: i64 = 10_000;
/// Rows of `counters` and `rates` that are read at most: hundreds of pipelines.
const MOST_ROWS: i64 = 100_000;

/// Every pipeline with its counters.
const COUNTERS: &str = "
    SELECT p.name, p.paused, c.state, c.priority, c.n
    FROM pipelines AS p LEFT JOIN counters AS c ON c.pipeline = p.id
    LIMIT ?1";

/// What ended in the slots of the longest window.
const ENDS: &str = "
    SELECT p.name, r.slot, r.completed, r.failed
    FROM rates AS r JOIN pipelines AS p ON p.id = r.pipeline
    WHERE r.slot >= ?1 AND r.slot <= ?2
    LIMIT ?3";

const EARLIEST_DUE: &str = include_str!("sql/earliest_due.sql");

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
