//! One table of a damaged database into the new one: by ranges of rowid, or from both ends.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::super::super::error::Result;
use super::super::values::{self, Column};
use super::{Lost, Table};

/// So many failures in a row are each narrowed down to one row, more than a page has; with as many more, the ranges that
/// are given up whole are twice as wide, and so on, until something can be read again.
const EXACT_FAILURES: u32 = 128;
/// Where the highest number can't be read.
pub(super) const HIGHEST: i64 = 1 << 32;

/// Copies what can be read of one table; answers how many rows, and what was lost. `found` counts the tables that are
/// there.
pub(super) async fn copy(
    connection: &mut SqliteConnection,
    table: &Table,
    version: i64,
    found: &mut u32,
) -> Result<(u64, Lost)> {
    let ours = values::columns(connection, "main", table.name).await?;
    let theirs = values::columns(connection, "damaged", table.name).await?;
    if theirs.is_empty() {
        let whole = table.since <= version;
        return Ok((0, Lost { whole, missing: if whole { vec![(0, i64::MAX)] } else { vec![] }, ..Lost::default() }));
    }
    *found += 1;
    // An older schema has fewer columns.
    let shared: Vec<Column> =
        ours.into_iter().filter(|column| theirs.iter().any(|theirs| theirs.name == column.name)).collect();
    let copier = Copier { table: table.name, typed: values::is_typed(&shared), columns: shared };
    Ok(if table.has_rowid { copier.by_rowid(connection).await } else { copier.by_key(connection).await })
}

/// Copies one table.
struct Copier {
    table: &'static str,
    columns: Vec<Column>,
    typed: String,
}

impl Copier {
    fn insert(&self, and: &str) -> String {
        let columns: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let (table, columns, typed) = (self.table, columns.join(", "), &self.typed);
        format!(
            "INSERT OR IGNORE INTO main.{table} ({columns}) SELECT {columns} FROM damaged.{table} WHERE {typed} {and}"
        )
    }

    async fn by_rowid(&self, connection: &mut SqliteConnection) -> (u64, Lost) {
        let (mut rows, mut lost, mut failures) = (0, Lost::default(), 0);
        let (insert, table) = (self.insert("AND rowid BETWEEN ?1 AND ?2"), self.table);
        // Each alone is one probe; both in one query would read the whole table, and stumble over the damage.
        let first = bound(connection, &format!("SELECT min(rowid) FROM damaged.{table}")).await;
        let last = bound(connection, &format!("SELECT max(rowid) FROM damaged.{table}")).await;
        let mut ranges = match (first, last) {
            (Ok(None), _) | (_, Ok(None)) => vec![],
            (first, last) => vec![(first.ok().flatten().unwrap_or(0), last.ok().flatten().unwrap_or(HIGHEST))],
        };
        while let Some((low, high)) = ranges.pop() {
            let widest = 1_i64 << (failures / EXACT_FAILURES).min(40);
            match sqlx::query(AssertSqlSafe(insert.as_str())).bind(low).bind(high).execute(&mut *connection).await {
                Ok(done) => {
                    if done.rows_affected() > 0 {
                        failures = 0;
                    }
                    rows += done.rows_affected();
                    self.note_senseless(connection, (low, high), &mut lost).await;
                }
                Err(_) if high.saturating_sub(low) >= widest => {
                    let middle = low.midpoint(high);
                    ranges.push((middle + 1, high));
                    ranges.push((low, middle));
                }
                Err(_) => {
                    failures += 1;
                    lost.add_range(low, high);
                }
            }
        }
        self.note_absent(connection, &mut lost).await;
        (rows, lost)
    }

    /// Notes which rows an index names that were neither copied nor given up: a page of an earlier time can be read, and
    /// has fewer of them. Partial indexes are left out, as they name rows of one moment. An index that is damaged
    /// itself says what it can; what it makes up is no row of anybody.
    async fn note_absent(&self, connection: &mut SqliteConnection, lost: &mut Lost) {
        let table = self.table;
        let list = "SELECT name FROM pragma_index_list(?1, 'damaged') WHERE NOT partial";
        let indexes = sqlx::query_scalar::<_, String>(list).bind(table).fetch_all(&mut *connection).await;
        let mut named = BTreeSet::new();
        for index in indexes.unwrap_or_default() {
            // By the index alone: the table is not asked.
            let rows = format!(
                "SELECT rowid FROM damaged.{table} INDEXED BY {index} WHERE rowid NOT IN (SELECT rowid FROM main.{table})"
            );
            let mut rows = sqlx::query_scalar::<_, i64>(AssertSqlSafe(rows)).fetch(&mut *connection);
            while let Ok(Some(row)) = rows.try_next().await {
                named.insert(row);
            }
        }
        // They are in order so far, because the ranges were.
        let given_up = |row: &i64| {
            let next = lost.missing.partition_point(|(_, high)| high < row);
            lost.missing.get(next).is_some_and(|(low, _)| low <= row)
        };
        named.retain(|row| !given_up(row));
        lost.absent = named.len() as u64;
        for row in named {
            match lost.missing.last_mut() {
                Some((_, high)) if row == high.saturating_add(1) => *high = row,
                _ => lost.missing.push((row, row)),
            }
        }
    }

    /// Notes which rows of a range that could be read were left behind.
    async fn note_senseless(&self, connection: &mut SqliteConnection, (low, high): (i64, i64), lost: &mut Lost) {
        let table = self.table;
        let left = format!(
            "SELECT rowid FROM damaged.{table} NOT INDEXED
             WHERE rowid BETWEEN ?1 AND ?2 AND rowid NOT IN (SELECT rowid FROM main.{table})"
        );
        let left = sqlx::query_scalar::<_, i64>(AssertSqlSafe(left)).bind(low).bind(high).fetch_all(connection).await;
        for row in left.unwrap_or_default() {
            lost.senseless += 1;
            lost.missing.push((row, row));
        }
    }

    async fn by_key(&self, connection: &mut SqliteConnection) -> (u64, Lost) {
        let mut lost = Lost::default();
        let whole = sqlx::query(AssertSqlSafe(self.insert(""))).execute(&mut *connection).await;
        if let Ok(done) = whole {
            let count = format!("SELECT count(*) FROM damaged.{}", self.table);
            let read: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(connection).await.unwrap_or(0);
            lost.senseless = u64::try_from(read).unwrap_or(0).saturating_sub(done.rows_affected());
            return (done.rows_affected(), lost);
        }
        lost.some = true;
        let mut key: Vec<&Column> = self.columns.iter().filter(|column| column.in_key > 0).collect();
        key.sort_by_key(|column| column.in_key);
        let mut rows = 0;
        for direction in ["ASC", "DESC"] {
            let order: Vec<String> = key.iter().map(|column| format!("{} {direction}", column.name)).collect();
            rows += longest(connection, &self.insert(&format!("ORDER BY {} LIMIT ?1", order.join(", ")))).await;
        }
        (rows, lost)
    }
}

/// One number, where it can be read.
pub(super) async fn bound(connection: &mut SqliteConnection, sql: &str) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await?)
}

/// Copies as many rows from one end as can be read, and answers how many: a statement that fails copies none, and one that
/// is repeated changes nothing.
async fn longest(connection: &mut SqliteConnection, insert: &str) -> u64 {
    let mut rows = 0;
    let (mut good, mut step) = (0_i64, 1_i64);
    while step > 0 {
        match sqlx::query(AssertSqlSafe(insert)).bind(good + step).execute(&mut *connection).await {
            Ok(done) => {
                rows += done.rows_affected();
                good += step;
                step = step.saturating_mul(2).min(1 << 40);
                // More were asked for than there are: all of them were read.
                if step >= 1 << 40 {
                    break;
                }
            }
            Err(_) => step /= 2,
        }
    }
    rows
}
