//! Counts jobs without a word to the daemon: a command for every look would itself be a load.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

/// For so long a count may fail to come.
const PATIENCE: Duration = Duration::from_mins(20);

/// A connection that only reads.
pub struct Onlooker(Connection);

impl Onlooker {
    /// Opens the database of a running daemon.
    pub fn open(path: &Path) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self(Connection::open_with_flags(path, flags).unwrap())
    }

    /// Jobs in this state.
    pub fn count(&self, state: &str) -> u64 {
        let sql = "SELECT coalesce(sum(n), 0) FROM counters WHERE state = ?1";
        self.0.query_row(sql, [state], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
    }

    /// Waits until this many jobs are in this state.
    pub fn until(&self, state: &str, jobs: u64) {
        let begun = Instant::now();
        while self.count(state) < jobs {
            let count = self.count(state);
            assert!(begun.elapsed() < PATIENCE, "{count} of {jobs} jobs are {state} after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
