//! A person's own statement, read-only.
//!
//! It runs on a connection of its own that is opened read-only and dies afterwards, so whatever it sets is gone with
//! it. Three things are refused before SQLite sees them: more than one statement, a statement that is not one of
//! those that read (`VACUUM INTO` writes a file even here), and an empty one. While it runs, a progress handler ends
//! what takes too long: a read that never ends would keep the write-ahead log growing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Column as _, Connection as _, Executor as _, Row as _, SqlSafeStr as _, Statement as _};
use sqlx::{TypeInfo as _, ValueRef as _};

use super::super::browse::Table;
use super::super::error::{Result, StoreError};
use super::upkeep::own_reader;
use crate::clock::Clock;

/// How long a statement may take.
const LONGEST: Duration = Duration::from_mins(1);
/// Instructions of SQLite's machine between two looks at the clock: some milliseconds.
const INSTRUCTIONS: i32 = 100_000;
/// Bytes of all values after which the result is cut.
const MOST_BYTES: usize = 64 << 20;
/// The statements that read.
const READING: [&str; 5] = ["select", "with", "values", "explain", "pragma"];

/// Runs one reading statement on the database, and answers at most `limit` rows.
pub(super) async fn run(database: &Path, clock: Arc<dyn Clock>, sql: &str, limit: usize) -> Result<Table> {
    refuse_what_does_not_read(sql)?;
    let mut connection = own_reader(database).await?;
    // Opened read-only already; this also keeps a statement from writing to temporary tables.
    sqlx::query("PRAGMA query_only = 1").execute(&mut connection).await?;
    let deadline = clock.boottime().plus(LONGEST);
    connection.lock_handle().await?.set_progress_handler(INSTRUCTIONS, move || clock.boottime() < deadline);
    let table = read(&mut connection, sql, limit).await.map_err(refusal);
    connection.close().await?;
    table
}

async fn read(connection: &mut SqliteConnection, sql: &str, limit: usize) -> Result<Table, sqlx::Error> {
    let statement = (&mut *connection).prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await?;
    let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut table = Table { columns, ..Table::default() };
    // The one stream in the store: there is no place for a LIMIT in a stranger's statement. It is dropped at once
    // when enough was read, and its connection closed.
    let mut rows = statement.query().fetch(&mut *connection);
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        if table.rows.len() == limit || bytes > MOST_BYTES {
            table.cut = true;
            break;
        }
        let values = (0..row.len()).map(|i| value(&row, i)).collect::<Result<Vec<_>, _>>()?;
        bytes += values.iter().map(|value| value.as_str().map_or(8, str::len)).sum::<usize>();
        table.rows.push(values);
    }
    Ok(table)
}

/// A value as JSON: bytes as text where they are UTF-8, as most paths are, and as base64 otherwise.
fn value(row: &SqliteRow, i: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(i)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    Ok(match raw.type_info().name() {
        "INTEGER" | "BOOLEAN" => Value::from(row.try_get_unchecked::<i64, _>(i)?),
        "REAL" => Value::from(row.try_get_unchecked::<f64, _>(i)?),
        _ => {
            let bytes: Vec<u8> = row.try_get_unchecked(i)?;
            Value::from(String::from_utf8(bytes).unwrap_or_else(|bytes| BASE64.encode(bytes.as_bytes())))
        }
    })
}

fn refuse_what_does_not_read(sql: &str) -> Result<()> {
    let statements = statements(sql);
    let [statement] = statements.as_slice() else {
        return Err(StoreError::Refused(match statements.len() {
            0 => "there is no statement to run".to_owned(),
            n => format!("these are {n} statements; one at a time"),
        }));
    };
    let verb: String = statement.chars().take_while(char::is_ascii_alphabetic).collect();
    if READING.iter().any(|reading| verb.eq_ignore_ascii_case(reading)) {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "`{verb}` is refused: `db query` only reads (SELECT, WITH, VALUES, EXPLAIN, PRAGMA)"
    )))
}

/// The statements in `sql`, each from its first word on, without comments before it: cut at semicolons outside of
/// quotes and comments.
fn statements(sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut begin = None;
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let at = sql.len() - rest.len();
        let length = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            ';' => {
                found.extend(begin.take().map(|begin| &sql[begin..at]));
                1
            }
            space if space.is_whitespace() => space.len_utf8(),
            other => {
                begin.get_or_insert(at);
                token_length(rest, other)
            }
        };
        rest = &rest[length..];
    }
    found.extend(begin.map(|begin| &sql[begin..]));
    found
}

/// A quoted token whole; of anything else one character. A doubled quote is two quoted tokens in a row.
fn token_length(rest: &str, first: char) -> usize {
    let end = match first {
        '\'' | '"' | '`' => first,
        '[' => ']',
        other => return other.len_utf8(),
    };
    rest[1..].find(end).map_or(rest.len(), |at| at + 2)
}

/// What SQLite says about a person's statement is for that person, unless it is about the file.
fn refusal(error: sqlx::Error) -> StoreError {
    /// SQLite's code for a statement that was ended from outside.
    const INTERRUPTED: &str = "9";
    match &error {
        sqlx::Error::Database(inner) if inner.code().as_deref() == Some(INTERRUPTED) => {
            StoreError::Refused(format!("the statement took longer than {} s and was ended", LONGEST.as_secs()))
        }
        sqlx::Error::Database(inner) if matches!(inner.code().as_deref(), Some("1" | "8" | "25")) => {
            StoreError::Refused(inner.message().to_owned())
        }
        _ => StoreError::from(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::super::fixture;
    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use crate::store::Browse as _;

    #[tokio::test]
    async fn values_keep_their_kind_and_bytes_are_text_where_they_can_be() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let table =
            store.query("SELECT 1 AS a, 2.5 AS b, 'x' AS c, NULL AS d, x'61c3a4' AS e, x'ff00' AS f;", 10).await;
        let table = table.unwrap();
        assert_eq!(table.columns, ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(table.rows, [[json!(1), json!(2.5), json!("x"), json!(null), json!("aä"), json!("/wA=")]]);
        let table = store.query("select name, root, paused from watches", 10).await.unwrap();
        assert_eq!(table.rows, [[json!("inbox"), json!("/srv/inbox"), json!(0)]]);
    }

    #[tokio::test]
    async fn rows_beyond_the_limit_are_cut_and_an_empty_result_has_its_columns() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        let table = store.query(endless, 3).await.unwrap();
        assert_eq!((table.rows, table.cut), (vec![vec![json!(1)], vec![json!(2)], vec![json!(3)]], true));
        let table = store.query("SELECT id, state FROM jobs", 3).await.unwrap();
        assert_eq!((table.columns.len(), table.rows.len(), table.cut), (2, 0, false));
        assert!(!store.query("VALUES (1), (2)", 2).await.unwrap().cut);
    }

    #[tokio::test]
    async fn nothing_that_writes_gets_through() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let copy = dir.path().join("copy.db");
        let into = format!("VACUUM INTO '{}'", copy.display());
        let hidden = format!("EXPLAIN SELECT 1;\n{into}");
        for sql in [
            "DELETE FROM pipelines",
            "/* SELECT */ UPDATE pipelines SET name = 'x'",
            "WITH x AS (SELECT 1) DELETE FROM pipelines",
            "SELECT 1; DELETE FROM pipelines",
            "PRAGMA query_only = 0; DELETE FROM pipelines",
            "ATTACH ':memory:' AS other",
            &into,
            &hidden,
            "",
            " -- nothing",
            "SELECT nonsense FROM nowhere",
        ] {
            let error = store.query(sql, 10).await.unwrap_err();
            assert!(matches!(error, StoreError::Refused(_)), "{sql}: {error:?}");
        }
        assert!(!copy.exists());
        // A pragma that sets something sets it on a connection that dies.
        store.query("PRAGMA user_version = 5", 10).await.unwrap_err();
        let names = store.query("SELECT name FROM pipelines ORDER BY id", 10).await.unwrap();
        assert_eq!(names.rows, [[json!("documents")], [json!("hook")]]);
    }

    #[tokio::test]
    async fn a_statement_that_takes_too_long_is_ended() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let query = run(&store.path, clock.clone(), endless, 1);
        let time_passes = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                clock.advance(LONGEST);
            }
        };
        let ended = tokio::select! { ended = query => ended, () = time_passes => unreachable!() };
        assert!(matches!(&ended, Err(StoreError::Refused(why)) if why.contains("60 s")), "{ended:?}");
    }

    #[test]
    fn statements_are_cut_outside_of_quotes_and_comments() {
        assert_eq!(statements("SELECT ';' -- a;b\n"), ["SELECT ';' -- a;b\n"]);
        assert_eq!(statements("SELECT 'it''s;' , \"a;b\", [c;d], `e;f`;"), ["SELECT 'it''s;' , \"a;b\", [c;d], `e;f`"]);
        assert_eq!(statements("/* a; */ ; -- b;\nSELECT 1 /* ; */; ;SELECT 2"), ["SELECT 1 /* ; */", "SELECT 2"]);
        assert_eq!(statements("SELECT 'open; ö"), ["SELECT 'open; ö"]);
        assert_eq!(statements("/* open"), Vec::<&str>::new());
    }
}
