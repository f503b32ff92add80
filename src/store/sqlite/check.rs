//! What is wrong with the database, in sentences: SQLite's own check, and the queue's promises.

use std::collections::BTreeMap;

use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::super::error::{Result, StoreError};
use super::values;

/// The promises that no CHECK can hold, each as a statement that yields one sentence for each breach.
const PROMISES: &str = include_str!("sql/promises.sql");

/// Breaches that are reported at most of each kind.
const MOST: i64 = 100;

/// Columns that are told to hold what can't be read.
const MOST_UNREADABLE: usize = 100;

/// Jobs that are counted at once: what GROUP BY sorts is kept in memory.
const PAGE: i64 = 100_000;

/// ?1: above this number, ?2: at most so many.
pub(super) const COUNT_PAGE: &str = "
    SELECT pipeline, state, priority, count(*), max(id)
    FROM (SELECT id, pipeline, state, priority FROM jobs WHERE id > ?1 ORDER BY id LIMIT ?2)
    GROUP BY pipeline, state, priority";

/// Everything that is wrong; empty: nothing.
pub(super) async fn run(readers: &SqlitePool, full: bool) -> Result<Vec<String>> {
    // One snapshot, so that counters and rows are of one moment.
    let mut snapshot = readers.begin().await?;
    let found = structure(&mut snapshot, full).await?;
    if !found.is_empty() {
        // What the rest says can't be trusted then, and may not even be read.
        return Ok(found);
    }
    let mut found = miscounted(&mut snapshot).await?;
    found.extend(sqlx::query_scalar::<_, String>(PROMISES).bind(MOST).fetch_all(&mut *snapshot).await?);
    snapshot.commit().await?;
    Ok(found)
}

/// Counters equal what they count.
async fn miscounted(snapshot: &mut SqliteConnection) -> Result<Vec<String>> {
    let names: Vec<(i64, String)> = sqlx::query_as("SELECT id, name FROM pipelines").fetch_all(&mut *snapshot).await?;
    let names: BTreeMap<i64, String> = names.into_iter().collect();
    let counters: Vec<(i64, String, i64, i64)> =
        sqlx::query_as("SELECT pipeline, state, priority, n FROM counters").fetch_all(&mut *snapshot).await?;
    // What is told, and what is there.
    let mut counts: BTreeMap<(i64, String, i64), (i64, i64)> = BTreeMap::new();
    for (pipeline, state, priority, told) in counters {
        counts.entry((pipeline, state, priority)).or_default().0 = told;
    }
    let mut after = i64::MIN;
    loop {
        let page: Vec<(i64, String, i64, i64, i64)> =
            sqlx::query_as(COUNT_PAGE).bind(after).bind(PAGE).fetch_all(&mut *snapshot).await?;
        let Some(last) = page.iter().map(|row| row.4).max() else { break };
        after = last;
        for (pipeline, state, priority, n, _) in page {
            counts.entry((pipeline, state, priority)).or_default().1 += n;
        }
    }
    let sentence = |((pipeline, state, level), (told, there)): (&(i64, String, i64), &(i64, i64))| {
        let name = names.get(pipeline).map_or("", String::as_str);
        format!("the counters say {told} jobs of pipeline \"{name}\" are {state} at level {level}; there are {there}")
    };
    Ok(counts.iter().filter(|(_, (told, there))| told != there).map(sentence).collect())
}

/// What SQLite finds in its own structure; `full` also compares indexes with their tables, and looks whether the rows
/// can be read. What SQLite refuses to read at all is a finding too.
pub(super) async fn structure(reader: &mut SqliteConnection, full: bool) -> Result<Vec<String>> {
    let found = async {
        let sql = if full { "PRAGMA integrity_check(100)" } else { "PRAGMA quick_check(100)" };
        let lines: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *reader).await?;
        // One finding may have several lines, the first of which names the database among attached ones.
        let lines = lines.iter().flat_map(|line| line.lines()).filter(|line| *line != "ok" && !line.starts_with("***"));
        let mut found: Vec<String> = lines.map(str::to_owned).collect();
        if full && found.is_empty() {
            found = values::unreadable(reader, MOST_UNREADABLE).await?;
        }
        Ok(found.into_iter().map(|line| format!("the file is damaged: {line}")).collect())
    };
    match found.await {
        Err(StoreError::Corrupt(why)) => Ok(vec![why]),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::fixture;
    use crate::store::Upkeep as _;

    #[tokio::test]
    async fn each_broken_promise_is_told_in_a_sentence() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::sql(
            &store,
            "INSERT INTO boots VALUES (1, zeroblob(16), 1, 'v', 0, NULL), (2, CAST(printf('%016d', 2) AS BLOB), 1, 'v', 0, 9)",
        )
        .await;
        fixture::jobs(&store, 1, 3, "state", "'pending'").await;
        fixture::jobs(&store, 4, 1, "state, boot, lease_deadline, started_at", "'running', 1, 5, 6").await;
        fixture::jobs(&store, 5, 1, "state, finished_at", "'completed', 7").await;
        assert_eq!(store.check(false).await.unwrap(), Vec::<String>::new());
        for (damage, sentence, repair) in [
            (
                "UPDATE counters SET n = 5 WHERE state = 'pending'",
                "the counters say 5 jobs of pipeline \"documents\" are pending at level 2; there are 3",
                "UPDATE counters SET n = 3 WHERE state = 'pending'",
            ),
            (
                "DELETE FROM counters WHERE state = 'running'",
                "the counters say 0 jobs of pipeline \"documents\" are running at level 2; there are 1",
                "INSERT INTO counters VALUES (1, 'running', 2, 1)",
            ),
            (
                "UPDATE jobs SET blocked_by = 4 WHERE id = 1",
                "job 1 waits for job 4, which is not a running job of the same source: it would wait for ever",
                "UPDATE jobs SET blocked_by = NULL WHERE id = 1",
            ),
            (
                "UPDATE jobs SET blocked_by = 77 WHERE id = 1",
                "job 1 waits for job 77, which is not a running job of the same source: it would wait for ever",
                "UPDATE jobs SET blocked_by = NULL WHERE id = 1",
            ),
            (
                "UPDATE jobs SET source = 2 WHERE id = 3",
                "jobs 2 and 3 wait side by side, though they are versions of one source",
                "UPDATE jobs SET source = 3 WHERE id = 3",
            ),
            (
                "UPDATE jobs SET boot = 2 WHERE id = 4",
                "job 4 runs, though the daemon that leased it stopped",
                "UPDATE jobs SET boot = 1 WHERE id = 4",
            ),
            (
                "DELETE FROM taken WHERE job = 5",
                "job 5 is version 1 of its source, which is not known to have been taken",
                "INSERT INTO taken (source, pipeline, version, job) VALUES (5, 1, 1, 5)",
            ),
            (
                "UPDATE taken SET version = 2 WHERE job = 5",
                "version 2 of source 5 was taken, and the source is at version 1",
                "UPDATE taken SET version = 1 WHERE job = 5",
            ),
            (
                "INSERT INTO dispositions VALUES (5, x'61', x'62', NULL, 'completed', NULL, NULL, 1, 1, 1, 1, 1, NULL)",
                "job 5 is completed, and its file is still noted as on its way",
                "DELETE FROM dispositions",
            ),
        ] {
            fixture::sql(&store, damage).await;
            assert_eq!(store.check(true).await.unwrap(), [sentence]);
            fixture::sql(&store, repair).await;
        }
        assert_eq!(store.check(false).await.unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_reference_into_nothing_is_told() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        fixture::sql(&store, "INSERT INTO taken (source, pipeline, version, job) VALUES (9, 1, 1, 5)").await;
        assert_eq!(
            store.check(false).await.unwrap(),
            ["what was taken of source 9 is noted, and the source does not exist"]
        );
    }
}
