//! Salvaging from databases that were damaged on purpose.

use std::path::PathBuf;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use super::super::fixture;
use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::store::Upkeep as _;
use crate::store::sqlite::verify_whole;

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_millis(fixture::NOW))
}

/// A database with 3 000 jobs as a file that nobody uses; `statements` are run last.
async fn database(dir: &TempDir, statements: &'static str) -> PathBuf {
    let store = fixture::store(dir).await;
    fixture::jobs(&store, 1, 3_000, "state", "'pending'").await;
    fixture::sql(&store, statements).await;
    let copy = dir.path().join("damaged.db");
    store.backup_to(&copy).await.unwrap();
    copy
}

async fn number(file: &Path, sql: &'static str) -> i64 {
    let mut connection = SqliteConnectOptions::new().filename(file).read_only(true).connect().await.unwrap();
    let number = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    number
}

fn lost<'a>(salvage: &'a Salvage, table: &str) -> Option<&'a Lost> {
    salvage.lost.iter().find(|lost| lost.table == table)
}

/// Where the third child of a table's root lies in the file; `root` asks which page that is.
async fn third_page(file: &Path, root: &'static str) -> std::ops::Range<usize> {
    let root = usize::try_from(number(file, root).await).unwrap();
    let bytes = std::fs::read(file).unwrap();
    let page = |number: usize| (number - 1) * 4_096..number * 4_096;
    // Its cell says which page that is.
    let root = &bytes[page(root)];
    let cell = usize::from(u16::from_be_bytes([root[12 + 4], root[12 + 5]]));
    page(usize::try_from(u32::from_be_bytes(root[cell..cell + 4].try_into().unwrap())).unwrap())
}

#[tokio::test]
async fn nothing_is_lost_of_a_sound_one_and_not_a_byte_of_it_is_changed() {
    let dir = TempDir::new().unwrap();
    let damaged = database(&dir, "SELECT 1").await;
    let before = std::fs::read(&damaged).unwrap();
    let into = dir.path().join("new.db");
    let salvage = salvage(&damaged, &into, &clock()).await.unwrap();
    assert_eq!(salvage.lost, []);
    assert_eq!(number(&into, "SELECT count(*) FROM jobs").await, 3_000);
    assert!(std::fs::read(&damaged).unwrap() == before);
    verify_whole(&into).await.unwrap();
    let keys = "SELECT value FROM kv WHERE key = 'ingestd.incarnation'";
    let key = |file: PathBuf| async move {
        let mut connection = SqliteConnectOptions::new().filename(file).read_only(true).connect().await.unwrap();
        sqlx::query_scalar::<_, String>(keys).fetch_one(&mut connection).await.unwrap()
    };
    assert_ne!(key(damaged).await, key(into.clone()).await, "an old key never meets a new job");
    assert!(number(&into, "SELECT min(fence) FROM jobs").await > 1 << 32, "nobody holds an old lease");
}

#[tokio::test]
async fn a_damaged_page_costs_its_rows_which_are_named_and_no_others() {
    let dir = TempDir::new().unwrap();
    let damaged = database(&dir, "SELECT 1").await;
    let page = third_page(&damaged, "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'").await;
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[page].fill(0xa5);
    std::fs::write(&damaged, bytes).unwrap();

    let into = dir.path().join("new.db");
    let salvage = salvage(&damaged, &into, &clock()).await.unwrap();
    let jobs = lost(&salvage, "jobs").unwrap();
    let [(low, high)] = jobs.ranges[..] else { panic!("{jobs:?}") };
    assert!((2..200).contains(&(high - low)), "{jobs}");
    assert_eq!(number(&into, "SELECT count(*) FROM jobs").await, 3_000 - (high - low + 1));
    assert_eq!(number(&into, "SELECT count(*) FROM sources").await, 3_000);
    let anew = number(&into, "SELECT count(*) FROM sources WHERE presence = 'consumed'").await;
    assert_eq!(anew, high - low + 1, "a file whose job is lost arrives anew");
    verify_whole(&into).await.unwrap();
}

#[tokio::test]
async fn rows_that_went_without_a_failure_are_named_by_an_index_and_their_files_arrive_anew() {
    let dir = TempDir::new().unwrap();
    let damaged = database(&dir, "SELECT 1").await;
    let page = third_page(&damaged, "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'").await;
    let mut bytes = std::fs::read(&damaged).unwrap();
    // The page as it was when it had two rows: all of it can be read.
    let rows = &mut bytes[page][3..5];
    let went = i64::from(u16::from_be_bytes([rows[0], rows[1]])) - 2;
    rows.copy_from_slice(&[0, 2]);
    std::fs::write(&damaged, bytes).unwrap();

    let into = dir.path().join("new.db");
    let salvage = salvage(&damaged, &into, &clock()).await.unwrap();
    let jobs = lost(&salvage, "jobs").unwrap();
    assert_eq!((i64::try_from(jobs.absent).unwrap(), &jobs.ranges[..]), (went, &[][..]), "{jobs}");
    assert_eq!(number(&into, "SELECT count(*) FROM jobs").await, 3_000 - went);
    assert_eq!(number(&into, "SELECT count(*) FROM sources WHERE presence = 'consumed'").await, went);
    verify_whole(&into).await.unwrap();
}

#[tokio::test]
async fn of_a_table_without_numbers_both_ends_are_kept() {
    let dir = TempDir::new().unwrap();
    let damaged = database(&dir, "SELECT 1").await;
    let page = third_page(&damaged, "SELECT rootpage FROM sqlite_schema WHERE name = 'taken'").await;
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[page].fill(0);
    std::fs::write(&damaged, bytes).unwrap();
    let into = dir.path().join("new.db");
    let salvage = salvage(&damaged, &into, &clock()).await.unwrap();
    assert!(lost(&salvage, "taken").unwrap().some, "{salvage:?}");
    // What was taken is at least what the jobs are, so here nothing of it is missing in the end.
    assert_eq!(number(&into, "SELECT count(*) FROM taken").await, 3_000);
    verify_whole(&into).await.unwrap();
}

#[tokio::test]
async fn rows_that_nobody_could_read_are_left_behind_or_mended() {
    let dir = TempDir::new().unwrap();
    let damaged = database(
        &dir,
        "PRAGMA ignore_check_constraints = on;
         UPDATE jobs SET state = 'penting' WHERE id = 5;
         UPDATE jobs SET run_at = 'soon' WHERE id = 6;
         UPDATE jobs SET metadata = CAST(x'7b2261223a22ff227d' AS TEXT) WHERE id = 7;
         PRAGMA ignore_check_constraints = off",
    )
    .await;
    let found = verify_whole(&damaged).await.unwrap_err().to_string();
    assert!(found.contains("another type") && found.contains("no text in the column metadata"), "{found}");
    let into = dir.path().join("new.db");
    let salvage = salvage(&damaged, &into, &clock()).await.unwrap();
    assert_eq!(lost(&salvage, "jobs").unwrap().senseless, 2, "{salvage:?}");
    assert_eq!(number(&into, "SELECT count(*) FROM jobs WHERE id IN (5, 6)").await, 0);
    assert_eq!(number(&into, "SELECT count(*) FROM jobs WHERE id = 7 AND metadata IS NOT NULL").await, 1);
    verify_whole(&into).await.unwrap();
}

#[tokio::test]
async fn numbers_that_were_given_out_are_not_given_out_again_and_nothing_refers_to_what_is_lost() {
    let dir = TempDir::new().unwrap();
    let damaged = database(
        &dir,
        "DELETE FROM jobs WHERE id > 2900; DELETE FROM watches; DELETE FROM pipelines WHERE name = 'documents'",
    )
    .await;
    let into = dir.path().join("new.db");
    let salvage = salvage(&damaged, &into, &clock()).await.unwrap();
    assert_eq!(lost(&salvage, "sources").unwrap().orphans, 3_000, "{salvage:?}");
    for table in ["SELECT count(*) FROM jobs", "SELECT count(*) FROM taken", "SELECT count(*) FROM sources"] {
        assert_eq!(number(&into, table).await, 0, "a new watch's number must not lead to an old one's files: {table}");
    }
    assert_eq!(number(&into, "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").await, 3_000);
}

#[tokio::test]
async fn a_file_that_holds_nothing_of_a_database_is_told() {
    let dir = TempDir::new().unwrap();
    let damaged = dir.path().join("letter.db");
    for content in [&b"Dear database"[..], &[0xa5; 9_000], b""] {
        std::fs::write(&damaged, content).unwrap();
        let into = dir.path().join("new.db");
        let refused = salvage(&damaged, &into, &clock()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt(_)), "{refused:?}");
        assert_eq!(std::fs::read(&damaged).unwrap(), content);
        std::fs::remove_file(&into).unwrap();
    }
}
