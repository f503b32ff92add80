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
async fn leasing_reads_the_head_of_one_range_in_order() {
    let (_folder, mut connection) = database().await;
    assert_uses(&plan(&mut connection, include_str!("sql/due.sql")).await, "jobs_due");
}

#[tokio::test]
async fn the_next_due_time_is_one_probe_for_each_level() {
    let (_folder, mut connection) = database().await;
    let plan = plan(&mut connection, include_str!("sql/next_due.sql")).await;
    assert_eq!(plan.matches("INDEX jobs_due (").count(), 4, "{plan}");
    assert_eq!(plan.matches("INDEX jobs_suspect (").count(), 1, "{plan}");
    assert!(!plan.contains("SCAN jobs"), "{plan}");
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
