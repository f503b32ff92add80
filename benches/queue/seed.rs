//! Databases in a state that would take long to reach by the program's own calls: the rows are as it writes them.

use std::path::{Path, PathBuf};

use ingestd::job::FileIdentity;
use rusqlite::{Connection, params};

use crate::database;
use crate::paths::RELATIVE_SQL;
use crate::raw::now_ms;

/// Opens a database that nobody else uses, to fill it quickly.
fn opened(path: &Path) -> Connection {
    let connection = database::connect(path);
    connection
        .execute_batch("PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA cache_size = -1000000; BEGIN")
        .unwrap();
    connection
}

/// Counts, and leaves the file as it was found: in the WAL's mode, and on the disk.
fn closed(connection: Connection) {
    connection
        .execute_batch(
            "DELETE FROM counters;
             INSERT INTO counters (pipeline, state, priority, n)
             SELECT pipeline, state, priority, count(*) FROM jobs GROUP BY 1, 2, 3;
             COMMIT; PRAGMA journal_mode = wal; PRAGMA synchronous = full",
        )
        .unwrap();
    connection.close().unwrap();
}

/// `n` files that were processed once and are gone since, in a watch that asks for deletes: a delete waits for each,
/// and has no file that a worker could look at. What their first versions became was pruned.
pub fn deletes(path: &Path, n: i64) {
    let connection = opened(path);
    let now = now_ms();
    let numbers = format!("WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {n})");
    connection
        .execute_batch(&format!(
            "{numbers} INSERT INTO sources
                 (id, scope, identity, dev, inode, size, mtime_ns, ctime_ns, version, presence, gone_at)
             SELECT i, 1, {RELATIVE_SQL}, 65024, i, 48000, 1790000000000000000 + i, 1790000000000000000 + i, 2,
                    'vanished', {now} FROM numbers;
             {numbers} INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, size)
             SELECT i, i, 1, 2, 'delete', 2, 'pending', {now}, {now}, 0 FROM numbers;
             INSERT INTO taken (source, pipeline, version, job, started) SELECT source, 1, 2, id, 1 FROM jobs;"
        ))
        .unwrap();
    closed(connection);
}

/// A waiting job for each of these files.
pub fn files(path: &Path, files: &[(PathBuf, FileIdentity)]) {
    use std::os::unix::ffi::OsStrExt as _;
    let connection = opened(path);
    let now = now_ms();
    let mut source = connection
        .prepare(
            "INSERT INTO sources (id, scope, identity, dev, inode, size, mtime_ns, ctime_ns, version)
             VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, 1)",
        )
        .unwrap();
    let mut job = connection
        .prepare(
            "INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, size)
             VALUES (?1, ?1, 1, 1, 'add', 2, 'pending', ?2, ?2, ?3)",
        )
        .unwrap();
    for (id, (relative, file)) in (1_i64..).zip(files) {
        let (dev, inode, size) = (file.dev as i64, file.inode as i64, file.size as i64);
        let relative = relative.as_os_str().as_bytes();
        source.execute(params![id, relative, dev, inode, size, file.mtime_ns, file.ctime_ns]).unwrap();
        job.execute(params![id, now, size]).unwrap();
    }
    drop((source, job));
    connection
        .execute_batch("INSERT INTO taken (source, pipeline, version, job) SELECT source, 1, 1, id FROM jobs")
        .unwrap();
    closed(connection);
}
