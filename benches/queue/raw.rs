//! Raw SQLite: the same rows by prepared statements, a batch a transaction.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ingestd::intake::digest_file;
use ingestd::job::{DigestAlgorithm, FileIdentity};
use rusqlite::{Connection, PrepFlags, Statement, params};

const INSERT_SOURCE: &str =
    "INSERT INTO sources (id, scope, identity, path, dev, inode, size, mtime_ns, ctime_ns, digest, digest_version, version)
     VALUES (?1, 1, ?2, NULL, ?3, ?4, ?5, ?6, ?7, NULL, NULL, 1)";
const INSERT_JOB: &str =
    "INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, blocked_by, size, digest, metadata)
     VALUES (?1, ?1, 1, 1, 'add', 2, 'pending', ?2, ?2, NULL, ?3, NULL, NULL)";
const INSERT_TAKEN: &str = "INSERT INTO taken (source, pipeline, version, job, started) VALUES (?1, 1, 1, ?1, 0)";
const BEGIN_COUNT: &str = "INSERT OR IGNORE INTO counters (pipeline, state, priority, n) VALUES (1, ?1, 2, 0)";
const COUNT: &str = "UPDATE counters SET n = n + ?2 WHERE pipeline = 1 AND state = ?1 AND priority = 2";
const RATE: &str = "INSERT INTO rates (slot, pipeline, completed, busy_ms) VALUES (?1, 1, ?2, 0)
     ON CONFLICT (slot, pipeline) DO UPDATE SET completed = completed + excluded.completed";
const DUE: &str = "SELECT id, source, run_at, fence, executions FROM jobs
     WHERE pipeline = 1 AND priority = 2 AND run_at <= ?1
       AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2
     ORDER BY run_at, id LIMIT ?2";
const IDENTITY: &str = "SELECT identity FROM sources WHERE id = ?1";
const MARK: &str = "UPDATE jobs SET state = 'running', boot = 1, lease_deadline = ?2, fence = fence + 1,
         executions = executions + 1, started_at = ?3, first_started_at = coalesce(first_started_at, ?3)
     WHERE id = ?1 AND state IN ('pending', 'retrying')";
const INSERT_ATTEMPT: &str = "INSERT INTO attempts (job, seq, source, pipeline, priority, outcome, spent, due_at,
         started_at, finished_at, duration_ms, code, error_kind, error_message)
     VALUES (?1, ?2, ?3, 1, 2, 'completed', 1, ?4, ?5, ?6, 0, NULL, NULL, NULL)";
const END: &str = "UPDATE jobs SET state = 'completed', finished_at = ?3, attempt = attempt + 1, deferrals = 0,
         crashes = 0, crashes_alone = 0, boot = NULL, lease_deadline = NULL, size = coalesce(?4, size),
         digest = coalesce(?5, digest), error_kind = NULL, error_message = NULL, error_permanent = NULL
     WHERE id = ?1 AND fence = ?2 AND state = 'running'";
const NOTE_CONTENT: &str = "UPDATE sources SET dev = ?2, inode = ?3, size = ?4, mtime_ns = ?5, ctime_ns = ?6,
         digest = ?7, digest_version = version WHERE id = ?1 AND version = 1";

/// A day of CLOCK_BOOTTIME, in milliseconds: as long as any that the program would write.
const LEASE_DEADLINE: i64 = 86_400_000;

/// The prepared statements of one connection.
pub struct Raw<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    insert_source: Statement<'c>,
    insert_job: Statement<'c>,
    insert_taken: Statement<'c>,
    begin_count: Statement<'c>,
    count: Statement<'c>,
    rate: Statement<'c>,
    due: Statement<'c>,
    identity: Statement<'c>,
    mark: Statement<'c>,
    insert_attempt: Statement<'c>,
    end: Statement<'c>,
    note_content: Statement<'c>,
}

/// A job that raw SQLite leased, and what was read of its file.
struct Leased {
    id: i64,
    source: i64,
    run_at: i64,
    started_at: i64,
    fence: i64,
    execution: i64,
    content: Option<(FileIdentity, [u8; 33])>,
}

impl<'c> Raw<'c> {
    /// Prepares every statement.
    pub fn new(connection: &'c Connection) -> Self {
        let prepare = |sql| connection.prepare_with_flags(sql, PrepFlags::SQLITE_PREPARE_PERSISTENT).unwrap();
        Self {
            begin: prepare("BEGIN IMMEDIATE"),
            commit: prepare("COMMIT"),
            insert_source: prepare(INSERT_SOURCE),
            insert_job: prepare(INSERT_JOB),
            insert_taken: prepare(INSERT_TAKEN),
            begin_count: prepare(BEGIN_COUNT),
            count: prepare(COUNT),
            rate: prepare(RATE),
            due: prepare(DUE),
            identity: prepare(IDENTITY),
            mark: prepare(MARK),
            insert_attempt: prepare(INSERT_ATTEMPT),
            end: prepare(END),
            note_content: prepare(NOTE_CONTENT),
        }
    }

    /// One transaction that makes a job of each of these new files. Its number is its source's too.
    pub fn enqueue(&mut self, files: &[(i64, PathBuf, FileIdentity)]) {
        use std::os::unix::ffi::OsStrExt as _;
        self.begin.execute([]).unwrap();
        let now = now_ms();
        for (id, relative, identity) in files {
            let (dev, inode, size) = (identity.dev as i64, identity.inode as i64, identity.size as i64);
            let path = relative.as_os_str().as_bytes();
            let row = params![id, path, dev, inode, size, identity.mtime_ns, identity.ctime_ns];
            self.insert_source.execute(row).unwrap();
            self.insert_job.execute(params![id, now, size]).unwrap();
            self.insert_taken.execute([id]).unwrap();
        }
        self.add("pending", files.len() as i64);
        self.commit.execute([]).unwrap();
    }

    /// Leases and acknowledges until nothing waits, `batch` at a time: each transaction acknowledges what the one
    /// before it leased. With a root, the files are read and digested in between. Answers how many there were.
    pub fn drain(&mut self, batch: usize, root: Option<&Path>) -> usize {
        let (mut held, mut done) = (Vec::new(), 0);
        loop {
            self.begin.execute([]).unwrap();
            self.acknowledge(&held);
            done += held.len();
            held = self.lease(batch);
            self.commit.execute([]).unwrap();
            if held.is_empty() {
                return done;
            }
            if let Some(root) = root {
                for job in &mut held {
                    self.read(job, root);
                }
            }
        }
    }

    fn lease(&mut self, batch: usize) -> Vec<Leased> {
        let started_at = now_ms();
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Leased {
                id: row.get(0)?,
                source: row.get(1)?,
                run_at: row.get(2)?,
                started_at,
                fence: row.get::<_, i64>(3)? + 1,
                execution: row.get::<_, i64>(4)? + 1,
                content: None,
            })
        };
        let rows = self.due.query_map(params![started_at, batch as i64], read).unwrap();
        let leased: Vec<Leased> = rows.collect::<Result<_, _>>().unwrap();
        for job in &leased {
            self.mark.execute(params![job.id, LEASE_DEADLINE, started_at]).unwrap();
        }
        self.add("pending", -(leased.len() as i64));
        self.add("running", leased.len() as i64);
        leased
    }

    fn acknowledge(&mut self, ends: &[Leased]) {
        if ends.is_empty() {
            return;
        }
        let now = now_ms();
        for job in ends {
            let attempt = params![job.id, job.execution, job.source, job.run_at, job.started_at, now];
            self.insert_attempt.execute(attempt).unwrap();
            let size = job.content.as_ref().map(|content| content.0.size as i64);
            let digest = job.content.as_ref().map(|content| &content.1[..]);
            self.end.execute(params![job.id, job.fence, now, size, digest]).unwrap();
            if let Some((file, digest)) = &job.content {
                let (dev, inode, size) = (file.dev as i64, file.inode as i64, file.size as i64);
                let row = params![job.source, dev, inode, size, file.mtime_ns, file.ctime_ns, &digest[..]];
                self.note_content.execute(row).unwrap();
            }
        }
        self.add("running", -(ends.len() as i64));
        self.add("completed", ends.len() as i64);
        self.rate.execute(params![now.div_euclid(10_000) * 10_000, ends.len() as i64]).unwrap();
    }

    fn read(&mut self, job: &mut Leased, root: &Path) {
        let relative: Vec<u8> = self.identity.query_row([job.source], |row| row.get(0)).unwrap();
        let path = root.join(std::str::from_utf8(&relative).unwrap());
        let content = digest_file(&path, DigestAlgorithm::Blake3).unwrap();
        job.content = Some((content.identity, content.digest.to_bytes()));
    }

    fn add(&mut self, state: &str, n: i64) {
        self.begin_count.execute([state]).unwrap();
        self.count.execute(params![state, n]).unwrap();
    }
}

/// Now, in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
