//! The accounts: what is known of each file beside what became of its newest version, by key; and how many jobs come
//! before one, by ranges of the index that the lease goes by.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::super::accounts::{Account, Accounts, Ahead, Presence, Succession, Taken};
use super::super::error::{Result, StoreError};
use super::enqueue::SCOPE_PATH;
use super::lease::effective_priority;
use super::steer::succession;
use super::{SqliteStore, row, wire};
use crate::clock::{Timestamp, millis};
use crate::job::{JobId, Priority};

/// The columns that [`account`] reads, of `s` (the source), `t` (what the pipeline was given) and `j` (its job).
macro_rules! columns {
    () => {
        "s.identity, s.dev, s.inode, s.size, s.mtime_ns, s.ctime_ns, s.presence, s.version,
         t.version AS taken_version, t.job AS taken_job, j.id, j.state, j.reason, j.superseded_by, j.duplicate_of"
    };
}
macro_rules! taken {
    () => {
        "LEFT JOIN taken AS t ON t.source = s.id AND t.pipeline = (SELECT id FROM pipelines WHERE name = ?2)
         LEFT JOIN jobs AS j ON j.id = t.job"
    };
}

/// ?1: the watch's name, ?2: the pipeline's, ?3: after this path, ?4: at most so many.
pub(super) const PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM sources AS s ",
    taken!(),
    " WHERE s.scope = (SELECT id FROM watches WHERE name = ?1) AND s.identity > ?3 ORDER BY s.identity LIMIT ?4 + 0"
);
/// ?1: the watch's name, ?2: the pipeline's, ?3: paths in hexadecimal.
pub(super) const NAMED: &str = concat!(
    "SELECT asked.key AS place, ",
    columns!(),
    " FROM json_each(?3) AS asked CROSS JOIN sources AS s
          ON s.scope = (SELECT id FROM watches WHERE name = ?1) AND s.identity = unhex(asked.value) ",
    taken!()
);
/// ?1: the scope of paths, ?2: an absolute path.
pub(super) const ADDED: &str = "
    SELECT max(j.id) FROM sources AS s CROSS JOIN jobs AS j ON j.source = s.id WHERE s.scope = ?1 AND s.identity = ?2";
/// The newest job that the pipeline of job ?1 was given of its source.
pub(super) const NEWEST: &str = "
    SELECT t.job FROM jobs AS j CROSS JOIN taken AS t ON t.source = j.source AND t.pipeline = j.pipeline WHERE j.id = ?1";
/// How many waiting jobs of the pipeline and level of job ?1 (?2: another level) come before (?3, ?4), at most ?5.
pub(super) const AHEAD: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM jobs AS j INDEXED BY jobs_due
        WHERE j.pipeline = (SELECT pipeline FROM jobs AS a WHERE a.id = ?1) AND j.priority = ?2
          AND j.state IN ('pending', 'retrying') AND j.blocked_by IS NULL AND j.held_by IS NULL AND j.crashes < 2
          AND (j.run_at, j.id) < (?3, ?4)
        LIMIT ?5 + 0)";
/// ?1: names of pipelines, ?2: now.
pub(super) const DUE_SUSPECT: &str = "
    SELECT (SELECT j.id FROM jobs AS j INDEXED BY jobs_suspect
            WHERE j.pipeline = p.id AND j.run_at <= ?2
              AND j.state IN ('pending', 'retrying') AND j.blocked_by IS NULL AND j.held_by IS NULL AND j.crashes >= 2
            ORDER BY j.run_at, j.id LIMIT 1) AS suspect
    FROM pipelines AS p
    WHERE NOT p.paused AND p.name IN (SELECT value FROM json_each(?1)) AND suspect IS NOT NULL
    LIMIT 1";
/// More than so many jobs are not counted.
const MOST: i64 = 1_000_000;

#[async_trait]
impl Accounts for SqliteStore {
    async fn accounts(
        &self,
        watch: &str,
        pipeline: &str,
        after: Option<PathBuf>,
        limit: usize,
    ) -> Result<Vec<Account>> {
        let rows = sqlx::query(PAGE)
            .bind(watch)
            .bind(pipeline)
            .bind(after.as_deref().map(wire::path_bytes).unwrap_or_default())
            .bind(wire::count(limit))
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(account).collect()
    }

    async fn accounts_of(&self, watch: &str, pipeline: &str, names: Vec<PathBuf>) -> Result<Vec<Option<Account>>> {
        let asked: Vec<String> = names.iter().map(|path| wire::hex_path(path)).collect();
        let rows =
            sqlx::query(NAMED).bind(watch).bind(pipeline).bind(wire::rows(&asked)?).fetch_all(self.readers()).await?;
        let mut accounts = vec![None; names.len()];
        for row in rows {
            let place = usize::try_from(row.try_get::<i64, _>("place")?).unwrap_or(usize::MAX);
            if let Some(slot) = accounts.get_mut(place) {
                *slot = Some(account(&row)?);
            }
        }
        Ok(accounts)
    }

    async fn added(&self, path: &Path) -> Result<Option<JobId>> {
        let found: Option<i64> =
            sqlx::query_scalar(ADDED).bind(SCOPE_PATH).bind(wire::path_bytes(path)).fetch_one(self.readers()).await?;
        Ok(found.map(JobId))
    }

    async fn succession(&self, job: JobId) -> Result<Succession> {
        let found: Option<i64> = sqlx::query_scalar(NEWEST).bind(job.0).fetch_optional(self.readers()).await?;
        Ok(succession(job, found))
    }

    async fn ahead(&self, job: JobId, aging: Duration, now: Timestamp) -> Result<Ahead> {
        let found: Option<(i64, i64)> = sqlx::query_as("SELECT priority, run_at FROM jobs WHERE id = ?")
            .bind(job.0)
            .fetch_optional(self.readers())
            .await?;
        let Some((priority, run_at)) = found else { return Ok(Ahead::default()) };
        let mut ahead = Ahead::default();
        let place = Place { priority, run_at, id: job.0 };
        for level in Priority::ALL.map(Priority::number) {
            let Some((before, id)) = place.bound(level, aging, now) else { continue };
            let n: i64 = sqlx::query_scalar(AHEAD)
                .bind(job.0)
                .bind(level)
                .bind(before)
                .bind(id)
                .bind(MOST)
                .fetch_one(self.readers())
                .await?;
            ahead.more |= n >= MOST;
            ahead.in_all += n.cast_unsigned();
            if level == priority {
                ahead.in_level = n.cast_unsigned();
            }
        }
        Ok(ahead)
    }

    async fn due_suspect(&self, pipelines: Vec<String>, now: Timestamp) -> Result<Option<JobId>> {
        let found: Option<i64> = sqlx::query_scalar(DUE_SUSPECT)
            .bind(wire::rows(&pipelines)?)
            .bind(now.as_millis())
            .fetch_optional(self.readers())
            .await?;
        Ok(found.map(JobId))
    }
}

fn account(row: &SqliteRow) -> Result<Account> {
    let identity = wire::identity_of(row)?;
    let presence = match row.try_get("presence")? {
        "present" => Presence::Present,
        "vanished" => Presence::Vanished,
        "consumed" => Presence::Consumed,
        other => return Err(StoreError::Corrupt(format!("a file's presence is `{other}`"))),
    };
    let taken = match row.try_get::<Option<i64>, _>("taken_job")? {
        Some(job) => Some(taken(row, JobId(job))?),
        None => None,
    };
    Ok(Account {
        relative: wire::path(row.try_get("identity")?),
        identity,
        presence,
        version: row.try_get("version")?,
        taken,
    })
}

fn taken(row: &SqliteRow, job: JobId) -> Result<Taken> {
    let pruned = row.try_get::<Option<i64>, _>("id")?.is_none();
    let (state, reason) = if pruned { (None, None) } else { row::standing(row, job).map(|(s, r)| (Some(s), r))? };
    Ok(Taken { version: row.try_get("taken_version")?, job, state, reason })
}

/// Where a waiting job stands in its queue.
#[derive(Clone, Copy, Debug)]
struct Place {
    priority: i64,
    run_at: i64,
    id: i64,
}

impl Place {
    /// The due time and number before which the jobs of a level come first; `None`: none of them does. Older jobs of a
    /// level have risen at least as far as younger ones, so it is one bound for each level.
    fn bound(&self, level: i64, aging: Duration, now: Timestamp) -> Option<(i64, i64)> {
        let (high, now_ms) = (Priority::High.number(), now.as_millis());
        let mine = effective_priority(self.priority, Timestamp::from_millis(self.run_at), now, aging);
        let rises = level < high && !aging.is_zero();
        // Since when a job of this level has to be due to have risen to `reached`.
        let due_since = |reached: i64| match reached - level {
            steps if steps <= 0 => Some(now_ms),
            steps if rises && reached <= high => {
                Some(now_ms.saturating_sub(steps.saturating_mul(millis(aging).max(1))))
            }
            _ => None,
        };
        let above = due_since(mine + 1).map(|at| (at + 1, 0));
        let beside = due_since(mine).map(|at| (at + 1, 0).min((self.run_at, self.id)));
        above.max(beside)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::fixture::{self, NOW};
    use super::*;
    use crate::job::{SkipReason, StateName};

    const AGING: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn an_account_tells_what_is_known_and_what_became_of_it_in_the_order_of_bytes() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 2, "state, finished_at", "'completed', 5").await;
        fixture::jobs(&store, 3, 1, "state, finished_at, reason, superseded_by", "'skipped', 5, 'superseded', 9").await;
        fixture::sql(
            &store,
            "UPDATE sources SET dev = 1, inode = id, size = 3, mtime_ns = 4, ctime_ns = 5, identity = CAST('1/a' AS BLOB)
             WHERE id = 1;
             DELETE FROM jobs WHERE id = 2;
             UPDATE sources SET presence = 'consumed', gone_at = 1 WHERE id = 3;
             INSERT INTO sources (id, scope, identity, version) VALUES (7, 1, x'31ff', 1), (8, 2, x'31ff', 1)",
        )
        .await;
        let all = store.accounts("inbox", "documents", None, 10).await.unwrap();
        let names: Vec<String> = all.iter().map(|account| account.relative.display().to_string()).collect();
        assert_eq!(names, ["1/a", "1\u{fffd}", "2.pdf", "3.pdf"]);
        assert_eq!((all[0].identity.inode, all[0].identity.size), (1, 3));
        let states: Vec<_> = all.iter().map(|account| account.taken.map(|taken| taken.state)).collect();
        let (completed, skipped) = (Some(StateName::Completed), Some(StateName::Skipped));
        assert_eq!(states, [Some(completed), None, Some(None), Some(skipped)]);
        assert_eq!(all[3].taken.unwrap().reason, Some(SkipReason::Superseded { by: JobId(9) }));
        assert_eq!(all[3].presence, Presence::Consumed);
        let page = store.accounts("inbox", "documents", Some(all[1].relative.clone()), 1).await.unwrap();
        assert_eq!(page, all[2..3]);
        let names = vec![PathBuf::from("none"), all[1].relative.clone(), PathBuf::from("3.pdf")];
        let named = store.accounts_of("inbox", "documents", names).await.unwrap();
        assert_eq!(named, [None, Some(all[1].clone()), Some(all[3].clone())]);
        assert_eq!(store.added(Path::new("/data/a")).await.unwrap(), None);
        fixture::sql(
            &store,
            "INSERT INTO sources (id, scope, identity, version) VALUES (9, 0, CAST('/data/a' AS BLOB), 1);
             UPDATE jobs SET source = 9 WHERE id IN (1, 3)",
        )
        .await;
        assert_eq!(store.added(Path::new("/data/a")).await.unwrap(), Some(JobId(3)));
        // Another pipeline was given nothing of them, whether it is known or not.
        for pipeline in ["hook", "nobody"] {
            assert!(store.accounts("inbox", pipeline, None, 1).await.unwrap()[0].taken.is_none());
        }
    }

    #[tokio::test]
    async fn what_comes_before_a_job_is_what_the_lease_would_take_before_it() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 200, "state", "'pending'").await;
        fixture::sql(
            &store,
            "UPDATE jobs SET priority = 1 + (id * 7) % 4, run_at = run_at - (id * 2654435761) % 3000000;
             UPDATE jobs SET run_at = run_at + 100000000 WHERE id % 20 = 0; UPDATE jobs SET blocked_by = 1 WHERE id % 21 = 0",
        )
        .await;
        let rows: Vec<(i64, i64, i64)> =
            sqlx::query_as("SELECT id, priority, run_at FROM jobs WHERE blocked_by IS NULL AND run_at <= ?")
                .bind(NOW)
                .fetch_all(store.readers())
                .await
                .unwrap();
        let now = Timestamp::from_millis(NOW);
        for aging in [AGING, Duration::ZERO] {
            let rank = |&(id, priority, run_at): &(i64, i64, i64)| {
                (-effective_priority(priority, Timestamp::from_millis(run_at), now, aging), run_at, id)
            };
            for job in &rows {
                let before: Vec<_> = rows.iter().filter(|other| rank(other) < rank(job)).collect();
                let in_level = before.iter().filter(|other| other.1 == job.1).count() as u64;
                let found = store.ahead(JobId(job.0), aging, now).await.unwrap();
                let expected = Ahead { in_level, in_all: before.len() as u64, more: false };
                assert_eq!(found, expected, "{job:?} {aging:?}");
            }
        }
        assert_eq!(store.ahead(JobId(999), AGING, now).await.unwrap(), Ahead::default());
    }

    #[tokio::test]
    async fn a_suspect_is_found_once_it_is_due_and_its_pipeline_not_paused() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::jobs(&store, 1, 3, "state, crashes", "'pending', i").await;
        let found = async |pipeline: &str, now| {
            store.due_suspect(vec![pipeline.to_owned()], Timestamp::from_millis(now)).await.unwrap()
        };
        assert_eq!(found("documents", NOW).await, Some(JobId(2)));
        assert_eq!(found("documents", NOW - 1).await, None);
        assert_eq!(found("hook", NOW).await, None);
        fixture::sql(&store, "UPDATE pipelines SET paused = 1").await;
        assert_eq!(found("documents", NOW).await, None);
    }
}
