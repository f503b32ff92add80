//! How many rows travel into one statement: as the parameters of its `VALUES` list.
//!
//! 1. A statement writes `ROWS` where the list stands. Each row has the same number of parameters, bound as what they
//!    are: numbers, words, bytes.
//! 2. The list has a few lengths only, each a power of four, so that a connection prepares the statement a few times
//!    and then never again. A call takes the shortest that holds its rows; the places left over are NULL, and every
//!    statement leaves rows out whose first column is NULL.
//! 3. More rows than the longest list holds are several statements, one after the other.
//!
//! Weighed against one JSON array and `json_each`: there SQLite renders each element and parses it again for each
//! column, which took three quarters of the writer's time.

use std::sync::OnceLock;

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, Encode, Sqlite, Type};

use super::super::error::{Result, StoreError};

/// The lengths of the list. The longest, with 31 columns, stays below SQLite's 32 766 parameters.
const LENGTHS: [usize; 6] = [1, 4, 16, 64, 256, 1_024];

/// A statement over many rows.
#[derive(Debug)]
pub(super) struct Bulk {
    sql: &'static str,
    columns: usize,
    texts: [OnceLock<String>; LENGTHS.len()],
}

/// The parameters of a call, in the order of the statement's text.
#[derive(Debug, Default)]
pub(super) struct Values {
    arguments: SqliteArguments,
    error: Option<sqlx::error::BoxDynError>,
}

impl Values {
    /// The next parameter.
    pub(super) fn push<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.error.get_or_insert(error);
        }
        self
    }

    fn into_arguments(self) -> Result<SqliteArguments> {
        match self.error {
            None => Ok(self.arguments),
            Some(error) => Err(StoreError::Other(format!("a value can't be bound: {error}"))),
        }
    }
}

impl Bulk {
    /// The statement `sql`, whose rows have that many parameters each. Parameters that all rows share stand before the
    /// list.
    pub(super) const fn new(sql: &'static str, columns: usize) -> Self {
        Self { sql, columns, texts: [const { OnceLock::new() }; LENGTHS.len()] }
    }

    /// The statement with a list of at least `rows` rows, or the longest.
    pub(super) fn text(&'static self, rows: usize) -> &'static str {
        let at = LENGTHS.iter().position(|length| *length >= rows).unwrap_or(LENGTHS.len() - 1);
        self.texts[at].get_or_init(|| {
            let row = format!("({})", vec!["?"; self.columns].join(","));
            self.sql.replace("ROWS", &format!("VALUES {}", vec![row; LENGTHS[at]].join(",")))
        })
    }

    /// Runs it over the rows; answers how many rows of the table it touched.
    pub(super) async fn execute<T: Sync>(
        &'static self,
        tx: &mut SqliteConnection,
        shared: &[i64],
        rows: &[T],
        bind: impl Fn(&mut Values, &T) + Send + Sync,
    ) -> Result<u64> {
        let mut touched = 0;
        for part in rows.chunks(LENGTHS[LENGTHS.len() - 1]) {
            let arguments = self.arguments(shared, part, &bind)?;
            touched += sqlx::query_with(self.text(part.len()), arguments).execute(&mut *tx).await?.rows_affected();
        }
        Ok(touched)
    }

    /// Runs it over the rows; answers what it found.
    pub(super) async fn fetch<T: Sync>(
        &'static self,
        tx: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Values, &T) + Send + Sync,
    ) -> Result<Vec<SqliteRow>> {
        let mut found = Vec::new();
        for part in rows.chunks(LENGTHS[LENGTHS.len() - 1]) {
            let arguments = self.arguments(&[], part, &bind)?;
            found.append(&mut sqlx::query_with(self.text(part.len()), arguments).fetch_all(&mut *tx).await?);
        }
        Ok(found)
    }

    fn arguments<T>(&self, shared: &[i64], rows: &[T], bind: impl Fn(&mut Values, &T)) -> Result<SqliteArguments> {
        let mut values = Values::default();
        values.arguments.reserve(shared.len() + rows.len() * self.columns, 0);
        for value in shared {
            values.push(*value);
        }
        for row in rows {
            bind(&mut values, row);
        }
        debug_assert_eq!(values.arguments.len(), shared.len() + rows.len() * self.columns, "{}", self.sql);
        values.into_arguments()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{ConnectOptions as _, Row as _};

    use super::*;

    static DOUBLE: Bulk =
        Bulk::new("WITH v(n, word) AS (ROWS) SELECT n * 2 AS twice, word FROM v WHERE n IS NOT NULL", 2);

    #[tokio::test]
    async fn every_row_arrives_once_in_order_whatever_their_number() {
        let mut connection = sqlx::sqlite::SqliteConnectOptions::new().connect().await.unwrap();
        for count in [0_i64, 1, 2, 4, 5, 63, 256, 1_024, 1_025, 3_000] {
            let rows: Vec<i64> = (0..count).collect();
            let found = DOUBLE
                .fetch(&mut connection, &rows, |values, n| {
                    values.push(*n).push(format!("word {n}"));
                })
                .await
                .unwrap();
            let found: Vec<(i64, String)> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
            let wanted: Vec<(i64, String)> = rows.iter().map(|n| (n * 2, format!("word {n}"))).collect();
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn a_statement_is_prepared_for_a_few_lengths_only() {
        let texts: std::collections::BTreeSet<&str> = (0..5_000).map(|rows| DOUBLE.text(rows)).collect();
        assert_eq!(texts.len(), LENGTHS.len());
    }
}
