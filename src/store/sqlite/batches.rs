//! Which jobs at the head of a pipeline's queue are executed together.
//!
//! 1. The jobs come in the order of the queue. Each joins the batch of its operation that is not full yet, or opens the
//!    next one. So a batch is in the queue's order, and the batches are in the order of their first jobs: no operation
//!    has to wait for another one to run dry.
//! 2. A batch that is not full goes at once, unless more is known to become due within its linger. Under load batches
//!    fill by themselves, and a lone file never waits for company that nobody has announced.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::error::{Result, StoreError};
use super::super::queue::{Batching, Want};
use super::bulk::Bulk;
use super::lease::Head;
use super::wire;
use crate::clock::Timestamp;

/// The most jobs that one call leases of a pipeline that works in batches.
const MOST_JOBS: usize = 10_000;

/// The operations of jobs.
pub(super) static OPERATIONS: Bulk = Bulk::new(include_str!("sql/operations.sql"), 2);

/// How many jobs so many executions take at most, and whether they might take more than one call gives.
pub(super) fn depth(want: &Want, limit: usize) -> (usize, bool) {
    let permits = want.permits.min(limit);
    let wanted = permits.saturating_mul(want.batch.size.max(1));
    let depth = wanted.min(MOST_JOBS.max(permits));
    (depth, depth < wanted)
}

/// Puts jobs together. `next_due` is when the next job of the pipeline becomes due, where all that are due are here.
pub(super) async fn gather(
    tx: &mut SqliteConnection,
    due: Vec<Head>,
    want: &Want,
    now: Timestamp,
    next_due: Option<Timestamp>,
) -> Result<Vec<Vec<Head>>> {
    if want.batch.size <= 1 {
        return Ok(due.into_iter().map(|head| vec![head]).collect());
    }
    let operations = operations(tx, &due).await?;
    let mut batches = put_together(due.into_iter().zip(operations), want.batch.size);
    batches.retain(|batch| !lingers(batch, want.batch, now, next_due));
    batches.truncate(want.permits);
    Ok(batches)
}

async fn operations(tx: &mut SqliteConnection, heads: &[Head]) -> Result<Vec<String>> {
    let places: Vec<_> = heads.iter().enumerate().map(|(at, head)| (wire::count(at), head.id)).collect();
    let rows = OPERATIONS
        .fetch(tx, &places, |values, (at, id)| {
            values.push(*at).push(*id);
        })
        .await?;
    let mut operations = vec![String::new(); heads.len()];
    for row in &rows {
        let at = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
        match operations.get_mut(at) {
            Some(operation) => *operation = row.try_get(1)?,
            None => return Err(StoreError::Other(format!("a job at place {at} was not asked for"))),
        }
    }
    Ok(operations)
}

fn put_together<O: PartialEq>(due: impl Iterator<Item = (Head, O)>, size: usize) -> Vec<Vec<Head>> {
    let mut batches: Vec<(O, Vec<Head>)> = Vec::new();
    // Few operations have a batch open at the same time, and the open ones are looked at first.
    let mut open: Vec<usize> = Vec::new();
    for (head, operation) in due {
        match open.iter().position(|at| batches[*at].0 == operation) {
            Some(place) => {
                let batch = &mut batches[open[place]].1;
                batch.push(head);
                if batch.len() >= size {
                    open.swap_remove(place);
                }
            }
            None => {
                if size > 1 {
                    open.push(batches.len());
                }
                batches.push((operation, vec![head]));
            }
        }
    }
    batches.into_iter().map(|(_, batch)| batch).collect()
}

/// Whether a batch waits for the next job that becomes due. It never waits beyond its linger, which counts from when
/// its oldest job became due, and never for nothing: what becomes due later than that is not waited for at all.
fn lingers(batch: &[Head], batching: Batching, now: Timestamp, next_due: Option<Timestamp>) -> bool {
    let (Some(next), Some(oldest)) = (next_due, batch.iter().map(|head| head.run_at).min()) else { return false };
    let until = Timestamp::from_millis(oldest).plus(batching.linger);
    batch.len() < batching.size && next > now && next <= until
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn head(id: i64) -> Head {
        Head { id, priority: 2, run_at: id }
    }

    fn ids(batches: &[Vec<Head>]) -> Vec<Vec<i64>> {
        batches.iter().map(|batch| batch.iter().map(|head| head.id).collect()).collect()
    }

    fn together(operations: &str, size: usize) -> Vec<Vec<i64>> {
        ids(&put_together((1..).map(head).zip(operations.chars()), size))
    }

    #[test]
    fn operations_never_mix_and_every_batch_keeps_the_order_of_the_queue() {
        assert_eq!(together("", 3), Vec::<Vec<i64>>::new());
        assert_eq!(together("aaaaa", 2), [vec![1, 2], vec![3, 4], vec![5]]);
        assert_eq!(together("aabab", 3), [vec![1, 2, 4], vec![3, 5]]);
        assert_eq!(together("abababa", 2), [vec![1, 3], vec![2, 4], vec![5, 7], vec![6]]);
        assert_eq!(together("abc", 1), [vec![1], vec![2], vec![3]]);
    }

    #[test]
    fn a_batch_waits_only_for_what_is_known_to_become_due_within_its_linger() {
        let batching = Batching { size: 3, linger: Duration::from_millis(100) };
        let batch = [head(10), head(20)];
        assert!(!lingers(&batch, batching, at(20), None), "nothing is known");
        assert!(lingers(&batch, batching, at(20), Some(at(110))));
        assert!(!lingers(&batch, batching, at(20), Some(at(111))), "too late for the oldest");
        assert!(!lingers(&batch, batching, at(110), Some(at(110))), "what is due is here");
        assert!(!lingers(&[head(1), head(2), head(3)], batching, at(20), Some(at(30))), "full");
        let never = Batching { linger: Duration::ZERO, ..batching };
        assert!(!lingers(&batch, never, at(20), Some(at(21))), "no linger");
    }

    #[test]
    fn a_call_asks_for_as_many_jobs_as_its_executions_take_and_no_more_than_a_limit() {
        let want =
            |permits, size| Want { batch: Batching { size, linger: Duration::ZERO }, ..Want::single("p", permits) };
        assert_eq!(depth(&want(4, 1), 3), (3, false));
        assert_eq!(depth(&want(4, 10), 100), (40, false));
        assert_eq!(depth(&want(4, 10_000), 100), (10_000, true));
        assert_eq!(depth(&want(20_000, 1), usize::MAX), (20_000, false));
    }
}
