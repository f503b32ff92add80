//! Databases in a state that would take long to reach by the program's own calls: the rows are as it writes them.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ingestd::job::FileIdentity;
use rusqlite::{Connection, params};

use crate::database;
use crate::paths::RELATIVE_SQL;
use crate::raw::now_ms;

/// A database that nobody else uses, while it is filled.
pub struct Seed {
    connection: Connection,
    now: i64,
}

impl Seed {
    /// Opens a database without the care for crashes that filling it does not need.
    pub fn open(path: &Path) -> Self {
        let connection = database::connect(path);
        let hasty = "PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA cache_size = -1000000; BEGIN";
        connection.execute_batch(hasty).unwrap();
        Self { connection, now: now_ms() }
    }

    /// Counts, and leaves the file as it was found: in the WAL's mode, and on the disk.
    pub fn close(self) {
        let count = "DELETE FROM counters;
             INSERT INTO counters (pipeline, state, priority, n)
             SELECT pipeline, state, priority, count(*) FROM jobs GROUP BY 1, 2, 3;
             COMMIT; PRAGMA journal_mode = wal; PRAGMA synchronous = full";
        self.connection.execute_batch(count).unwrap();
        let path = PathBuf::from(self.connection.path().unwrap());
        self.connection.close().unwrap();
        // No descriptor of a database may be closed while SQLite has locks on it; nobody has it open now.
        std::fs::File::open(path).unwrap().sync_all().unwrap();
    }

    /// Files that were processed once and are gone since, in a watch that asks for deletes: a delete waits for each,
    /// and has no file that a worker could look at. What their first versions became was pruned.
    pub fn deletes(self, numbers: (i64, i64)) -> Self {
        let now = self.now;
        self.gone(numbers, &format!("'pending', {now}, {now}, NULL, NULL, 0, 0, NULL, NULL"))
    }

    /// As [`Self::deletes`], and of ten only one is due; the others are in the course of the next month.
    pub fn delayed_deletes(self, numbers: (i64, i64)) -> Self {
        let now = self.now;
        let run_at = format!("iif(i % 10 = 0, {now}, {now} + 3600000 + i * 7919 % 2592000000)");
        self.gone(numbers, &format!("'pending', {run_at}, {now}, NULL, NULL, 0, 0, NULL, NULL"))
    }

    /// As [`Self::deletes`], and each ran when its daemon died.
    pub fn interrupted_deletes(self, numbers: (i64, i64)) -> Self {
        let now = self.now;
        self.connection
            .execute(
                "INSERT INTO boots (id, token, pid, version, started_at) VALUES (1, randomblob(16), 1, 'bench', ?1)",
                [now],
            )
            .unwrap();
        self.gone(numbers, &format!("'running', {now}, {now}, {now}, {now}, 1, 1, 1, 60000"))
    }

    /// `facts`: the columns from `state` on.
    fn gone(self, (first, last): (i64, i64), facts: &str) -> Self {
        let now = self.now;
        let numbers = numbers(first, last);
        self.run(&format!(
            "{numbers} INSERT INTO sources
                 (id, scope, identity, dev, inode, size, mtime_ns, ctime_ns, version, presence, gone_at)
             SELECT i, 1, {RELATIVE_SQL}, 65024, i, 48000, 1790000000000000000 + i, 1790000000000000000 + i, 2,
                    'vanished', {now} FROM numbers;
             {numbers} INSERT INTO jobs (id, source, pipeline, version, op, priority, size, state, run_at, created_at,
                 first_started_at, started_at, executions, fence, boot, lease_deadline)
             SELECT i, i, 1, 2, 'delete', 2, 0, {facts} FROM numbers;
             {numbers} INSERT INTO taken (source, pipeline, version, job, started) SELECT i, 1, 2, i, 1 FROM numbers;"
        ))
    }

    /// Files that are there, each with a job that completed in its first attempt.
    pub fn completed(self, (first, last): (i64, i64)) -> Self {
        let now = self.now;
        let numbers = numbers(first, last);
        self.run(&format!(
            "{numbers} INSERT INTO sources (id, scope, identity, dev, inode, size, mtime_ns, ctime_ns, digest,
                 digest_version, version)
             SELECT i, 1, {RELATIVE_SQL}, 65024, i, 48000, 1790000000000000000 + i, 1790000000000000000 + i,
                    x'01' || randomblob(32), 1, 1 FROM numbers;
             {numbers} INSERT INTO jobs (id, source, pipeline, version, op, priority, size, state, run_at, created_at,
                 first_started_at, started_at, finished_at, attempt, executions, fence)
             SELECT i, i, 1, 1, 'add', 2, 48000, 'completed', {now}, {now}, {now}, {now}, {now} + i / 1000, 1, 1, 1
             FROM numbers;
             UPDATE jobs SET digest = (SELECT s.digest FROM sources AS s WHERE s.id = jobs.source)
             WHERE id BETWEEN {first} AND {last};
             {numbers} INSERT INTO taken (source, pipeline, version, job, started) SELECT i, 1, 1, i, 0 FROM numbers;
             {numbers} INSERT INTO attempts (job, seq, source, pipeline, priority, outcome, spent, due_at, started_at,
                 finished_at, duration_ms)
             SELECT i, 1, i, 1, 2, 'completed', 1, {now}, {now}, {now} + i / 1000, 0 FROM numbers;"
        ))
    }

    /// A waiting job for each of these files.
    pub fn files(self, files: &[(PathBuf, FileIdentity)]) -> Self {
        let source = "INSERT INTO sources (id, scope, identity, dev, inode, size, mtime_ns, ctime_ns, version)
             VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, 1)";
        let job = "INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, size)
             VALUES (?1, ?1, 1, 1, 'add', 2, 'pending', ?2, ?2, ?3)";
        let [mut source, mut job] = [source, job].map(|sql| self.connection.prepare(sql).unwrap());
        for (id, (relative, file)) in (1_i64..).zip(files) {
            let (dev, inode, size) = (file.dev as i64, file.inode as i64, file.size as i64);
            let relative = relative.as_os_str().as_bytes();
            source.execute(params![id, relative, dev, inode, size, file.mtime_ns, file.ctime_ns]).unwrap();
            job.execute(params![id, self.now, size]).unwrap();
        }
        drop((source, job));
        self.run("INSERT INTO taken (source, pipeline, version, job) SELECT source, 1, 1, id FROM jobs")
    }

    /// Pauses the pipeline.
    pub fn paused(self) -> Self {
        self.run("UPDATE pipelines SET paused = 1")
    }

    fn run(self, statements: &str) -> Self {
        self.connection.execute_batch(statements).unwrap();
        self
    }
}

fn numbers(first: i64, last: i64) -> String {
    format!("WITH RECURSIVE numbers(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM numbers WHERE i < {last})")
}
