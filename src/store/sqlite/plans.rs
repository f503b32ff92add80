//! No statement's cost grows with the tables, as SQLite itself says: each finds its rows by an index, and takes their
//! order from it. (Statements that have to look at everything, such as the check, say so below.)

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};

use super::{
    accounts, backlog, batches, browse, check, contents, disposition, effects, enqueue, lease, lists, overview, prune,
    recover, runs, settle, sources, stages, stats, steer, tally, upkeep, vanish, ways,
};

/// The tables that grow, by the names that the statements give them. Others hold a few rows whatever the queue does.
const LARGE: [&str; 26] = [
    "run_lines",
    "run_changesets",
    "jobs",
    "j",
    "b",
    "newer",
    "older",
    "sources",
    "s",
    "f",
    "os",
    "contents",
    "k",
    "taken",
    "t",
    "attempts",
    "a",
    "outputs",
    "o",
    "dispositions",
    "runs",
    "rates",
    "r",
    "effects",
    "e",
    "job_stages",
];

/// A queue as SQLite sees it: new, and with statistics of one in which every state and the history hold many rows.
async fn databases() -> (tempfile::TempDir, Vec<SqliteConnection>) {
    let folder = tempfile::tempdir().unwrap();
    let mut connections = Vec::new();
    for (name, fill) in [("new.db", ""), ("full.db", FILL)] {
        let later = if fill.is_empty() { "" } else { LATER };
        let path = folder.path().join(name);
        super::open::create_empty(&path).await.unwrap();
        let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        sqlx::raw_sql(fill).execute(&mut connection).await.unwrap();
        sqlx::raw_sql(later).execute(&mut connection).await.unwrap();
        sqlx::query(recover::CRASHED).execute(&mut connection).await.unwrap();
        connections.push(connection);
    }
    (folder, connections)
}

/// Rows of the first schema, in every state.
pub(super) const FILL: &str = "
    INSERT INTO pipelines (id, name) VALUES (1, 'a'), (2, 'b');
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO sources (id, scope, identity, version) SELECT i, 1 - i % 3 / 2, CAST(i AS BLOB), 1 FROM n;
    INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, finished_at, boot,
                      lease_deadline, crashes, blocked_by, error_kind, reason)
    SELECT id, id, 1 + id % 2, 1, 'add', 1 + id % 4,
           CASE WHEN id > 2500 THEN 'pending' WHEN id > 2490 THEN 'running' WHEN id > 2400 THEN 'retrying'
                WHEN id > 2300 THEN 'failed' WHEN id > 2200 THEN 'skipped' ELSE 'completed' END,
           id, id, iif(id <= 2400, id, NULL), iif(id > 2490 AND id <= 2500, 1, NULL),
           iif(id > 2490 AND id <= 2500, 1, NULL), iif(id > 4990, 2, 0), iif(id BETWEEN 2501 AND 2510, id - 10, NULL),
           iif(id > 2300 AND id <= 2490, 'exit', NULL), iif(id > 2200 AND id <= 2300, 'vanished', NULL)
    FROM sources;
    INSERT INTO taken (source, pipeline, version, job, started) SELECT source, pipeline, 1, id, 1 FROM jobs;
    INSERT INTO attempts (job, seq, source, pipeline, priority, outcome, spent, due_at, started_at, finished_at, duration_ms)
    SELECT id, 1, source, pipeline, priority, 'completed', 1, 1, 1, id, 1 FROM jobs;
    INSERT INTO outputs SELECT id, 1, x'61' FROM jobs;
    INSERT INTO counters SELECT pipeline, state, priority, count(*) FROM jobs GROUP BY 1, 2, 3;
    INSERT INTO rates (slot, pipeline) SELECT 10000 * id, pipeline FROM jobs WHERE id <= 300;
    INSERT INTO boots SELECT id, randomblob(16), 1, 'v', id, id FROM jobs WHERE id <= 5;
    ANALYZE";

/// What later schemas added.
const LATER: &str = "
    INSERT INTO runs (name, type, state, input_kind, input_path, pipeline, newest_job, started_at, updated_at, finished_at)
    SELECT 'w' || id % 9, 'recovery', 'completed', 'watch', x'2f', 'a', 0, id, id, id FROM jobs;
    INSERT INTO runs (name, type, state, input_kind, pipeline, newest_job, started_at, updated_at, finished_at, list,
                      reading)
    SELECT 'l' || id, 'initial', 'completed', 'stdin', 'a', 0, id, id, id, 1 + id % 9, 0 FROM jobs;
    UPDATE jobs SET run = 5001 + id % 50, line = id;
    UPDATE taken SET list = 1 + source % 9, list_run = 5001 + source % 50;
    INSERT INTO run_lines (run, line, kind, text, message) SELECT run, line, 'bad', x'', '' FROM jobs;
    INSERT INTO run_changesets (run, line, changeset) SELECT run, line, '{}' FROM jobs;
    INSERT INTO contents SELECT pipeline, randomblob(33), source, id FROM jobs WHERE state = 'completed';
    ANALYZE";

/// The plans, a line a step; parameters stay unbound, which the planner does not mind.
async fn plans(sql: &str) -> Vec<Vec<String>> {
    let (_folder, mut connections) = databases().await;
    let mut plans = Vec::new();
    for connection in &mut connections {
        let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(connection).await;
        let rows = rows.unwrap_or_else(|error| panic!("{error}:\n{sql}"));
        plans.push(rows.iter().map(|row| row.get("detail")).collect());
    }
    plans
}

/// A step that reads such a table, or an index of one, from end to end. An index of what runs now, or of paused runs,
/// holds nothing else.
fn walks(step: &str) -> bool {
    let Some(table) = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next()) else { return false };
    let of_now = ["jobs_running", "jobs_leased", "effects_begun"];
    let running = of_now.iter().any(|index| step.ends_with(&format!("INDEX {index}")));
    let few = running || step.ends_with("INDEX runs_paused");
    LARGE.contains(&table) && !few && !step.contains("VIRTUAL TABLE")
}

/// A step that sorts, or keeps what it found.
fn sorts(step: &str) -> bool {
    step.contains("TEMP B-TREE")
}

/// Asserts that each of the statements finds its rows as the words beside it say, and walks no table.
async fn assert_no_walk(statements: &[(&str, &str)]) {
    for (sql, way) in statements {
        for plan in plans(sql).await {
            assert!(plan.iter().any(|step| step.contains(way)), "not `{way}`: {plan:#?}\n{sql}");
            assert!(!plan.iter().any(|step| walks(step)), "walks: {plan:#?}\n{sql}");
        }
    }
}

/// As [`assert_no_walk`], and that the order comes from the index.
async fn assert_in_order(statements: &[(&str, &str)]) {
    assert_no_walk(statements).await;
    for (sql, _) in statements {
        for plan in plans(sql).await {
            assert!(!plan.iter().any(|step| sorts(step)), "sorts: {plan:#?}\n{sql}");
        }
    }
}

#[tokio::test]
async fn leasing_reads_the_heads_of_ranges_in_order() {
    assert_in_order(&[(lease::HEADS, "INDEX jobs_suspect (pipeline=? AND run_at<?)")]).await;
    for plan in plans(lease::HEADS).await {
        for side in ["run_at<?", "run_at>?"] {
            let way = format!("INDEX jobs_due (pipeline=? AND priority=? AND {side})");
            assert_eq!(plan.iter().filter(|step| step.contains(&way)).count(), 4, "one for each level: {plan:#?}");
        }
    }
}

#[tokio::test]
async fn no_statement_over_many_rows_walks_or_sorts() {
    let bulks = [&enqueue::LOOK_UP, &batches::OPERATIONS, &lease::WORK, &lease::MARK_LEASED].into_iter();
    let bulks = bulks.chain([&sources::KNOWN_AS]).chain(enqueue::RENAME_STATEMENTS);
    for bulk in bulks.chain(enqueue::STATEMENTS).chain(settle::STATEMENTS).chain(tally::STATEMENTS) {
        for rows in [1, 1_000] {
            for plan in plans(bulk.text(rows)).await {
                assert!(!plan.iter().any(|step| walks(step) || sorts(step)), "{plan:#?}\n{}", bulk.text(1));
            }
        }
    }
}

#[tokio::test]
async fn recovery_reads_the_leases_alone_and_finds_who_waited_by_index() {
    assert_no_walk(&[
        (include_str!("sql/past_deadline.sql"), "INDEX jobs_leased (boot=? AND lease_deadline<?)"),
        // All boots but one: the index of leases as a whole.
        (include_str!("sql/gather_crashed.sql"), "INDEX jobs_leased"),
        (include_str!("sql/gather_crashed.sql"), "SEARCH t USING PRIMARY KEY (source=? AND pipeline=?)"),
        (include_str!("sql/record_crashes.sql"), "SEARCH j USING INTEGER PRIMARY KEY"),
        (include_str!("sql/release_crashed.sql"), "LIST SUBQUERY"),
        (include_str!("sql/end_crashed.sql"), "INTEGER PRIMARY KEY"),
        (recover::UNBLOCK, "INDEX jobs_blocked (blocked_by=?)"),
    ])
    .await;
}

#[tokio::test]
async fn files_that_come_and_go_are_found_by_their_key() {
    assert_in_order(&[
        (sources::KNOWN, "(scope=? AND identity=?)"),
        (sources::PRESENT, "(scope=? AND identity>? AND identity<?)"),
        (upkeep::ADDED_FILES, "INDEX sqlite_autoindex_sources_1 ("),
        (upkeep::NEEDED_CONTENTS.text(16), "SEARCH j USING INDEX jobs_content (content=?)"),
        (vanish::LOSS, "(scope=? AND identity=?)"),
        (vanish::LOSS, "SEARCH t USING PRIMARY KEY (source=? AND pipeline=?)"),
        (disposition::NEWER, "SEARCH j USING INTEGER PRIMARY KEY"),
        (steer::NAMED, "SEARCH t USING PRIMARY KEY (source=? AND pipeline=?)"),
    ])
    .await;
}

#[tokio::test]
async fn effects_and_stages_are_found_by_their_job_their_state_or_their_names() {
    assert_no_walk(&[
        (effects::BEGIN, "SEARCH j USING INTEGER PRIMARY KEY"),
        (effects::COMMIT, "SEARCH effects USING INTEGER PRIMARY KEY"),
        (effects::WITHDRAW, "SEARCH effects USING INTEGER PRIMARY KEY"),
        (effects::ABANDON, "SEARCH j USING INTEGER PRIMARY KEY"),
        (effects::OF_JOB, "INDEX sqlite_autoindex_effects_1 (job=?)"),
        (stages::BY_EXTERNAL, "INDEX jobs_external (external_id=?)"),
        (stages::BY_KEY, "INDEX jobs_key (key=?)"),
        (stages::BY_CALLERS_KEY, "(scope=? AND identity=?)"),
        (stages::PLACE, "SEARCH j USING INTEGER PRIMARY KEY"),
        (prune::FORGET_EFFECTS, "INDEX sqlite_autoindex_effects_1 (job=?)"),
        (prune::FORGET_STAGES, "SEARCH job_stages USING PRIMARY KEY (job=?)"),
    ])
    .await;
    assert_in_order(&[(effects::OVERDUE, "INDEX effects_begun (begun_at<?)")]).await;
}

#[tokio::test]
async fn accounts_are_read_by_key_and_what_comes_before_a_job_by_ranges() {
    assert_in_order(&[
        (accounts::PAGE, "(scope=? AND identity>?)"),
        (accounts::PAGE, "SEARCH t USING PRIMARY KEY (source=? AND pipeline=?)"),
        (accounts::PAGE, "SEARCH j USING INTEGER PRIMARY KEY"),
        (accounts::NAMED, "(scope=? AND identity=?)"),
        (accounts::ADDED, "(scope=? AND identity=?)"),
        (accounts::ADDED, "INDEX jobs_source (source=?)"),
        (accounts::NEWEST, "SEARCH j USING INTEGER PRIMARY KEY"),
        (accounts::NEWEST, "SEARCH t USING PRIMARY KEY (source=? AND pipeline=?)"),
        (accounts::AHEAD, "INDEX jobs_due (pipeline=? AND priority=? AND run_at<?)"),
        (accounts::DUE_SUSPECT, "INDEX jobs_suspect (pipeline=? AND run_at<?)"),
    ])
    .await;
}

#[tokio::test]
async fn renamed_files_and_equal_contents_are_found_by_index() {
    for plan in plans(sources::KNOWN_AS.text(1_000)).await {
        let way = "SEARCH f USING COVERING INDEX sources_inode (scope=? AND inode=? AND mtime_ns=?)";
        assert!(plan.iter().any(|step| step == way), "{plan:#?}");
        assert!(!plan.iter().any(|step| step.contains("AUTOMATIC")), "{plan:#?}");
    }
    assert_in_order(&[
        (contents::ELSEWHERE, "SEARCH k USING PRIMARY KEY (pipeline=? AND digest=?)"),
        (contents::ELSEWHERE, "SEARCH s USING INTEGER PRIMARY KEY"),
        (prune::FORGET_CONTENTS, "INDEX contents_source (source=?)"),
    ])
    .await;
}

#[tokio::test]
async fn status_counts_nothing() {
    // What is put in order is the pipelines and levels of the counters.
    assert_no_walk(&[
        (overview::COUNTERS, "SEARCH c USING PRIMARY KEY (pipeline=?)"),
        (overview::ENDS, "SEARCH r USING PRIMARY KEY (slot>? AND slot<?)"),
        (overview::EARLIEST_DUE, "INDEX jobs_due (pipeline=? AND priority=?)"),
        (overview::EARLIEST_DUE, "INDEX jobs_suspect (pipeline=?)"),
    ])
    .await;
    for plan in plans(overview::EARLIEST_DUE).await {
        assert!(!plan.iter().any(|step| step.contains("FOR ORDER BY")), "{plan:#?}");
    }
}

#[tokio::test]
async fn what_is_left_is_asked_of_indexes_and_of_the_newest_executions() {
    assert_no_walk(&[(backlog::ENDED, "INDEX jobs_final (state=? AND finished_at>?)")]).await;
    for plan in plans(backlog::LEFT).await {
        for way in ["INDEX jobs_due (pipeline=? AND priority=? AND run_at<?)", "SEARCH j USING INTEGER PRIMARY KEY"] {
            assert!(plan.iter().any(|step| step.contains(way)), "not `{way}`: {plan:#?}");
        }
        let walked: Vec<&String> = plan.iter().filter(|step| walks(step)).collect();
        assert_eq!(walked, ["SCAN attempts"], "{plan:#?}");
    }
    assert!(backlog::LEFT.contains("FROM attempts ORDER BY id DESC LIMIT 1000"), "that walk ends soon");
}

#[tokio::test]
async fn a_run_is_found_by_its_name_and_what_it_made_by_numbers() {
    assert_in_order(&[
        (runs::ACTIVE, "INDEX runs_active (name=?)"),
        (runs::MADE_SINCE, "SEARCH j USING INTEGER PRIMARY KEY (rowid>?)"),
        (runs::MADE_SINCE, "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)"),
        (runs::NEWEST, "SEARCH runs USING INTEGER PRIMARY KEY (rowid<?)"),
    ])
    .await;
}

#[tokio::test]
async fn runs_over_lists_and_their_jobs_are_found_by_index() {
    assert_in_order(&lists::BEGIN_STATEMENTS).await;
    assert_in_order(&lists::STEER_STATEMENTS).await;
    assert_in_order(&[
        (lists::MISSING, "INDEX taken_list (list=? AND list_run<?)"),
        (lists::COUNT_MISSING, "INDEX taken_list (list=? AND list_run<?)"),
        (lists::CHANGESETS, "SEARCH run_changesets USING PRIMARY KEY (run=?)"),
        (ways::OF_RUN, "INDEX jobs_run (run=? AND id<?)"),
    ])
    .await;
    assert_no_walk(&lists::HOLD_STATEMENTS).await;
    assert_no_walk(&lists::REMOVE_STATEMENTS).await;
    assert_no_walk(&[(tally::JUDGE_RUNS, "SEARCH runs USING INTEGER PRIMARY KEY")]).await;
}

#[tokio::test]
async fn pages_of_lists_are_read_by_key() {
    assert_in_order(&[
        (ways::ALL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid<?)"),
        (ways::RETRYING, "INDEX jobs_retrying (state=? AND rowid<?)"),
        (browse::HISTORY, "SEARCH a USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (stats::EXECUTIONS, "SEARCH attempts USING INTEGER PRIMARY KEY (rowid>?)"),
    ])
    .await;
    // A page, one job's executions, and states that hold few jobs are put in order.
    assert_no_walk(&[
        (ways::FINAL, "INDEX jobs_final (state=?)"),
        (browse::JOBS_BY_ID, "SEARCH j USING INTEGER PRIMARY KEY"),
        (browse::FILES, "SEARCH j USING INTEGER PRIMARY KEY"),
        (browse::ATTEMPTS_OF_JOB, "INDEX attempts_job (job=?)"),
        (browse::FAILURES, "INDEX jobs_final (state=?)"),
        (browse::FAILURES, "INDEX jobs_retrying (state=?)"),
    ])
    .await;
}

#[tokio::test]
async fn pruning_finds_what_is_old_by_index() {
    assert_in_order(&[
        (prune::OLD_JOBS, "INDEX jobs_final (state=? AND finished_at<?)"),
        (prune::NOTE_STARTED, "SEARCH taken USING PRIMARY KEY (source=?"),
        (prune::OUTPUTS, "SEARCH outputs USING PRIMARY KEY (job=?"),
        (prune::OLD_SOURCES, "INDEX sources_gone (gone_at>? AND gone_at<?)"),
        (prune::OLD_SOURCES, "INDEX jobs_source (source=?)"),
        (prune::RAISE_FLOOR, "SEARCH sources USING INTEGER PRIMARY KEY"),
        (prune::OLD_RUNS, "INDEX runs_final (finished_at>? AND finished_at<?)"),
        (prune::OLD_RATES, "SEARCH rates USING PRIMARY KEY"),
        (prune::OLD_BOOTS, "INDEX jobs_leased (boot=?)"),
    ])
    .await;
    // A batch's jobs are grouped.
    assert_no_walk(&[(prune::UNCOUNT_JOBS, "SEARCH jobs USING INTEGER PRIMARY KEY")]).await;
    for plan in plans(prune::OLD_ATTEMPTS).await {
        assert!(plan.iter().any(|step| step == "SEARCH attempts USING INTEGER PRIMARY KEY (rowid=?)"), "{plan:#?}");
    }
    assert!(prune::OLD_ATTEMPTS.contains("FROM attempts ORDER BY id LIMIT ?2"), "the walk ends with the batch");
}

#[tokio::test]
async fn the_check_sorts_no_more_than_a_page() {
    for plan in plans(include_str!("sql/promises.sql")).await {
        assert!(!plan.iter().any(|step| sorts(step)), "{plan:#?}");
    }
    for plan in plans(check::COUNT_PAGE).await {
        assert!(plan.iter().any(|step| step == "SEARCH jobs USING INTEGER PRIMARY KEY (rowid>?)"), "{plan:#?}");
    }
}
