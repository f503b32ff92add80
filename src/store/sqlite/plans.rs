//! The hot statements use their partial indexes, as SQLite itself says.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};

async fn database() -> (tempfile::TempDir, SqliteConnection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.db");
    super::open::create_empty(&path).await.unwrap();
    let connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    (folder, connection)
}

/// The plan, a line a step; parameters stay unbound, which the planner does not mind.
async fn plan(connection: &mut SqliteConnection, sql: &str) -> String {
    let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail") + "\n").collect()
}

fn assert_uses(plan: &str, index: &str) {
    assert!(plan.contains(&format!("INDEX {index} ")), "{index} is not used:\n{plan}");
    assert!(!plan.contains("SCAN jobs") && !plan.contains("TEMP B-TREE"), "scans or sorts:\n{plan}");
}

#[tokio::test]
async fn every_head_of_the_queue_is_one_range_in_order() {
    let (_folder, mut connection) = database().await;
    let plan = plan(&mut connection, super::lease::HEADS).await;
    assert_eq!(plan.matches("INDEX jobs_due (").count(), 8, "{plan}");
    assert_eq!(plan.matches("INDEX jobs_suspect (").count(), 2, "{plan}");
    assert!(!plan.contains("SCAN jobs") && !plan.contains("TEMP B-TREE"), "scans or sorts:\n{plan}");
}

#[tokio::test]
async fn recovery_reads_the_leases_alone() {
    let (_folder, mut connection) = database().await;
    assert_uses(&plan(&mut connection, include_str!("sql/past_deadline.sql")).await, "jobs_leased");
}

#[tokio::test]
async fn a_settled_job_finds_its_successor_by_index() {
    let (_folder, mut connection) = database().await;
    let sql = "SELECT id FROM jobs WHERE blocked_by = ?";
    assert_uses(&plan(&mut connection, sql).await, "jobs_blocked");
}

/// The tables that grow.
const TABLES: [&str; 7] = ["jobs", "sources", "taken", "attempts", "outputs", "rates", "dispositions"];

#[tokio::test]
async fn no_statement_over_many_rows_walks_through_a_table() {
    let (_folder, mut connection) = database().await;
    let bulks = [&super::enqueue::LOOK_UP, &super::lease::WORK, &super::lease::MARK_LEASED]
        .into_iter()
        .chain(super::enqueue::STATEMENTS)
        .chain(super::settle::STATEMENTS)
        .chain(super::tally::STATEMENTS);
    for bulk in bulks {
        for rows in [1, 1_000] {
            let plan = plan(&mut connection, bulk.text(rows)).await;
            let scans = TABLES
                .iter()
                .any(|table| plan.contains(&format!("SCAN {table}\n")) || plan.contains(&format!("SCAN {table} ")));
            let aliases = ["SCAN j", "SCAN s", "SCAN t", "SCAN b", "SCAN d"]
                .iter()
                .any(|alias| plan.contains(&format!("{alias}\n")) || plan.contains(&format!("{alias} ")));
            assert!(!scans && !aliases && !plan.contains("TEMP B-TREE"), "{plan}\n{}", bulk.text(1));
        }
    }
}
