//! Whether rows can be read: each value is of its column's type, and text is UTF-8.
//!
//! SQLite keeps any value in any column, and a flipped bit in a row's header makes a number of a text. Its own check
//! does not look for that, and whoever reads the row fails. So this looks, and salvaging leaves such rows behind.

use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::super::error::Result;

/// Texts that are kept of one column at most.
const MOST_GARBLED: usize = 1_000;

/// A column, and the type that it was declared with.
pub(super) struct Column {
    pub(super) name: String,
    declared: String,
    /// Its place in the primary key, from 1; 0: it is not in it.
    pub(super) in_key: i64,
}

impl Column {
    /// Whether it holds text.
    pub(super) fn is_text(&self) -> bool {
        self.declared == "TEXT"
    }
}

/// The columns of a table of an attached database (`main`, where there is but one); none: there is no such table.
pub(super) async fn columns(connection: &mut SqliteConnection, database: &str, table: &str) -> Result<Vec<Column>> {
    let rows = sqlx::query("SELECT name, upper(type), pk FROM pragma_table_info(?1, ?2)")
        .bind(table.to_owned())
        .bind(database.to_owned())
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok(Column { name: row.try_get(0)?, declared: row.try_get(1)?, in_key: row.try_get(2)? }))
        .collect()
}

/// An SQL condition that holds for a row whose values are of their columns' types.
pub(super) fn is_typed(columns: &[Column]) -> String {
    let conditions: Vec<String> = columns
        .iter()
        .filter_map(|Column { name, declared, .. }| {
            let types = match declared.as_str() {
                "INTEGER" => "'integer', 'null'",
                "REAL" => "'real', 'integer', 'null'",
                "TEXT" => "'text', 'null'",
                "BLOB" => "'blob', 'null'",
                _ => return None,
            };
            Some(format!("typeof({name}) IN ({types})"))
        })
        .collect();
    if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") }
}

/// What can't be read of the database, in sentences, at most `most`.
pub(super) async fn unreadable(connection: &mut SqliteConnection, most: usize) -> Result<Vec<String>> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut found = Vec::new();
    for table in tables {
        let columns = columns(connection, "main", &table).await?;
        let sql = format!("SELECT count(*) FROM {table} WHERE NOT ({})", is_typed(&columns));
        let mistyped: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
        if mistyped > 0 {
            found.push(format!("{mistyped} rows of the table {table} hold values of another type than their columns"));
        }
        for column in columns.iter().filter(|column| column.is_text()) {
            let garbled = garbled(connection, &table, &column.name).await?.len();
            if garbled > 0 {
                found.push(format!(
                    "{garbled} rows of the table {table} hold what is no text in the column {}",
                    column.name
                ));
            }
        }
    }
    found.truncate(most);
    Ok(found)
}

/// The texts of a column that are not UTF-8.
pub(super) async fn garbled(connection: &mut SqliteConnection, table: &str, column: &str) -> Result<Vec<Vec<u8>>> {
    // What is plain ASCII, nearly everything, is passed over by SQLite itself.
    let sql = format!("SELECT CAST({column} AS BLOB) FROM {table} WHERE {column} GLOB '*[^ -~]*'");
    let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(connection);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await? {
        if found.len() == MOST_GARBLED {
            break;
        }
        let bytes: Vec<u8> = row.try_get(0)?;
        if std::str::from_utf8(&bytes).is_err() {
            found.push(bytes);
        }
    }
    Ok(found)
}
