//! A store on a real file, filled by SQL.

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use super::{OpenMode, QueueRules, SqliteStore};
use crate::clock::{ManualClock, Timestamp};
use crate::config::Database;

/// The time in every test, a multiple of ten seconds.
pub(super) const NOW: i64 = 1_700_000_000_000;

/// A store with the pipelines 1 `documents` and 2 `hook` and the watch 1 `inbox` on `/srv/inbox`.
pub(super) async fn store(dir: &TempDir) -> Arc<SqliteStore> {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW)));
    let database = Database { path: dir.path().join("queue.db"), ..Database::default() };
    let rules = QueueRules::from(&crate::config::Queue::default());
    let (store, writer) = SqliteStore::open(&database, rules, OpenMode::Daemon, clock).await.unwrap();
    tokio::spawn(writer.unwrap().run());
    sql(
        &store,
        "INSERT INTO pipelines (id, name) VALUES (1, 'documents'), (2, 'hook');
         INSERT INTO watches (id, name, root, created_at) VALUES (1, 'inbox', CAST('/srv/inbox' AS BLOB), 0)",
    )
    .await;
    store
}

/// Runs statements, each of them whole.
pub(super) async fn sql(store: &SqliteStore, statements: &'static str) {
    store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::raw_sql(statements).execute(tx).await?;
                Ok(())
            })
        })
        .await
        .unwrap();
}

/// `n` sources of the watch (numbers from `first` on, named `FIRST.pdf`, …) with a job of the same number each.
/// `columns` and `values` are added to the jobs' rows; `i` is the number.
pub(super) async fn jobs(store: &SqliteStore, first: i64, n: i64, columns: &str, values: &str) {
    let statements = format!(
        "WITH RECURSIVE numbers(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < {first} + {n})
         INSERT INTO sources (id, scope, identity, version) SELECT i, 1, CAST(i || '.pdf' AS BLOB), 1 FROM numbers;
         WITH RECURSIVE numbers(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < {first} + {n})
         INSERT INTO jobs (id, source, version, op, run_at, created_at, pipeline, priority, {columns})
         SELECT i, i, 1, 'add', run_at, run_at, 1, 2, {values} FROM (SELECT i, {NOW} AS run_at FROM numbers);
         INSERT INTO taken (source, pipeline, version, job)
         SELECT source, pipeline, version, id FROM jobs WHERE id >= {first};
         DELETE FROM counters;
         INSERT INTO counters (pipeline, state, priority, n)
         SELECT pipeline, state, priority, count(*) FROM jobs GROUP BY pipeline, state, priority"
    );
    store
        .write(move |tx| {
            let statements = statements.clone();
            Box::pin(async move {
                sqlx::raw_sql(AssertSqlSafe(statements)).execute(tx).await?;
                Ok(())
            })
        })
        .await
        .unwrap();
}

/// What `EXPLAIN QUERY PLAN` says.
pub(super) async fn plan(store: &SqliteStore, statement: &str) -> Vec<String> {
    let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
        .fetch_all(store.readers())
        .await
        .unwrap();
    rows.into_iter().map(|row| row.3).collect()
}

/// Asserts that no line of the plan walks through `table`.
pub(super) async fn assert_no_scan(store: &SqliteStore, statement: &str, table: &str) {
    let plan = plan(store, statement).await;
    assert!(
        !plan.iter().any(|line| line.starts_with(&format!("SCAN {table}"))),
        "{table} is scanned: {plan:#?}\n{statement}"
    );
}
