//! `ingestd sync`: a list of plain paths becomes jobs, by the command itself, without a daemon.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ingestd::job::FileIdentity;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::Bench;
use crate::database;
use crate::paths;
use crate::raw::now_ms;
use crate::report::{self, Aim, Rounds, Took, Watch, grouped};

const ROUNDS: usize = 3;
/// Lines in a commit, on both sides.
const BATCH: usize = 1_000;

/// A list of files, and where they are.
struct Listed {
    folder: tempfile::TempDir,
    files: Vec<(PathBuf, FileIdentity)>,
}

impl Listed {
    fn make(n: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = paths::make(&folder.path().join("files"), n)
            .into_iter()
            .map(|(relative, identity)| (folder.path().join("files").join(relative), identity))
            .collect();
        let mut list = BufWriter::new(fs::File::create(folder.path().join("list")).unwrap());
        for (path, _) in &files {
            list.write_all(path.as_os_str().as_bytes()).unwrap();
            list.write_all(b"\n").unwrap();
        }
        list.flush().unwrap();
        Self { folder, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command on a database of its own.
    fn sync(&self, database: &Path) -> Child {
        let config = self.path("ingestd.toml");
        let text = format!("[database]\nurl = \"sqlite://{}\"\n[pipeline.p]\nkind = \"noop\"\n", database.display());
        fs::write(&config, text).unwrap();
        Command::new(env!("CARGO_BIN_EXE_ingestd"))
            .args(["sync", "-q", "--config"])
            .arg(&config)
            .arg(self.path("list"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
}

/// A list of new files becomes jobs, beside raw SQLite that writes the same rows; and what the command holds in memory.
pub fn plain_paths(bench: &Bench) {
    let n: i64 = if bench.long { 1_000_000 } else { 100_000 };
    let listed = Listed::make(n);
    let mut peak = 0.0_f64;
    let rounds = Rounds::take(
        ROUNDS,
        || {
            let path = listed.path("ours.db");
            database::create(bench, &path, listed.folder.path());
            let watch = Watch::start();
            let mut child = listed.sync(&path);
            while child.try_wait().unwrap().is_none() {
                peak = peak.max(resident_mb(child.id()));
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(child.wait().unwrap().success());
            let took = watch.stop();
            database::assert_sound(bench, &path);
            remove(&path);
            took
        },
        || {
            let path = listed.path("raw.db");
            database::create(bench, &path, listed.folder.path());
            let connection = database::connect(&path);
            let took = enqueue_raw(&connection, &listed.files);
            connection.close().unwrap();
            database::assert_sound(bench, &path);
            remove(&path);
            took
        },
    );
    let (ours, raw) = rounds.rates(n);
    let ratio = rounds.ratio();
    let what = format!("sync of {} plain paths", grouped(n as f64));
    report::row(&what, &ours, &format!("raw: {raw}"), Some(ratio), &Aim::at_least(ratio, 0.5));
    let what = format!("{what}, resident memory at most");
    report::row(&what, &report::mb(peak), "", None, &Aim::under(peak, 60.0, "MB"));
}

/// A command that was killed after nine of ten lines: how long the next one takes to take more of them.
pub fn resumed(bench: &Bench) {
    let n: i64 = if bench.long { 1_000_000 } else { 100_000 };
    let listed = Listed::make(n);
    let path = listed.path("ours.db");
    database::create(bench, &path, listed.folder.path());
    let mut child = listed.sync(&path);
    let onlooker = database::look(&path);
    let stop = n / 10 * 9;
    while position(&onlooker) < stop {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let stopped = position(&onlooker);
    assert!(stopped < n, "there was something left to do");
    let begun = Instant::now();
    let mut child = listed.sync(&path);
    while position(&onlooker) == stopped {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed();
    assert!(child.wait().unwrap().success());
    assert_eq!(position(&onlooker), n);
    let what = format!("sync resumed after {} lines → the next ones are taken", grouped(stopped as f64));
    report::row(&what, &report::ms(took), "", None, &Aim::under(took.as_secs_f64() * 1_000.0, 2_000.0, "ms"));
}

fn position(onlooker: &Connection) -> i64 {
    onlooker.query_row("SELECT position FROM runs", [], |row| row.get(0)).optional().unwrap().unwrap_or(0)
}

/// The same rows by prepared statements.
fn enqueue_raw(connection: &Connection, files: &[(PathBuf, FileIdentity)]) -> Took {
    connection
        .execute_batch(
            "INSERT INTO lists (id, name) VALUES (1, 'raw');
             INSERT INTO runs (id, type, state, input_kind, pipeline, list, newest_job, started_at, updated_at)
             VALUES (1, 'initial', 'running', 'stdin', 'p', 1, 0, 0, 0);
             INSERT INTO counters (pipeline, state, priority, n) VALUES (1, 'pending', 2, 0)",
        )
        .unwrap();
    let prepare = |sql| connection.prepare(sql).unwrap();
    let mut source = prepare(
        "INSERT INTO sources (id, scope, identity, dev, inode, size, mtime_ns, ctime_ns, version)
         VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, 1)",
    );
    let mut job = prepare(
        "INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, size, run, line)
         VALUES (?1, ?1, 1, 1, 'add', 2, 'pending', ?2, ?2, ?3, 1, ?1)",
    );
    let mut taken = prepare(
        "INSERT INTO taken (source, pipeline, version, job, started, list, list_run) VALUES (?1, 1, 1, ?1, 0, 1, 1)",
    );
    let mut count = prepare("UPDATE counters SET n = n + ?1 WHERE pipeline = 1 AND state = 'pending' AND priority = 2");
    let mut run = prepare(
        "UPDATE runs SET position = ?1, processed = ?1, enqueued = ?1, jobs_open = ?1, batch = batch + 1 WHERE id = 1",
    );
    let watch = Watch::start();
    let mut id = 0;
    for batch in files.chunks(BATCH) {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let now = now_ms();
        for (path, file) in batch {
            id += 1;
            let (dev, inode, size) = (file.dev as i64, file.inode as i64, file.size as i64);
            let path = path.as_os_str().as_bytes();
            source.execute(params![id, path, dev, inode, size, file.mtime_ns, file.ctime_ns]).unwrap();
            job.execute(params![id, now, size]).unwrap();
            taken.execute([id]).unwrap();
        }
        count.execute([batch.len() as i64]).unwrap();
        run.execute([id]).unwrap();
        connection.execute_batch("COMMIT").unwrap();
    }
    watch.stop()
}

/// Resident memory of a process; zero when it has ended.
fn resident_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1_024.0
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = fs::remove_file(name);
    }
}
