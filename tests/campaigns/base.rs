//! The base: what a daemon at rest uses, to which it comes back when the faults have stopped and the queue is empty.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Daemon, Place, count, wait_until};

/// A pool may have grown by as many connections and files as this.
const HANDLES_MORE: usize = 12;
/// What is written after a checkpoint, its own record to begin with, in bytes.
pub const WAL_MOST: i64 = 256 << 10;
/// Heaps don't shrink to what they were: this much more than the base is no leak of a campaign's work.
const MEMORY_MORE: u64 = 48 << 20;

/// What a daemon at rest uses.
#[derive(Debug)]
pub struct Base {
    handles: usize,
    resident: u64,
    /// The files of the state directory but for the database with its log, and its backups.
    files: BTreeSet<PathBuf>,
}

impl Base {
    /// The base of a daemon that has nothing to do. Take it when it has worked before: connections are opened late.
    pub fn of(daemon: &Daemon, place: &Place) -> Self {
        let files = leftovers(&place.at("state"));
        Self { handles: handles(daemon.pid()), resident: resident(daemon.pid()), files }
    }

    /// Waits until a daemon (this one or a later one) is back at the base.
    ///
    /// # Panics
    ///
    /// If it never is; says in what.
    #[track_caller]
    pub fn wait_back(&self, daemon: &Daemon, place: &Place) {
        place.ok(&["db", "checkpoint"]);
        let wal = count(&place.status()["database"], "wal_bytes");
        assert!(wal <= WAL_MOST, "the WAL has {wal} bytes after a checkpoint");
        let pid = daemon.pid();
        wait_until(&format!("{} handles or little more are open", self.handles), || {
            handles(pid) <= self.handles + HANDLES_MORE
        });
        wait_until(&format!("memory is back near {} bytes", self.resident), || {
            resident(pid) <= self.resident + MEMORY_MORE
        });
        wait_until(&format!("nothing more is left in the state directory than {:?}", self.files), || {
            leftovers(&place.at("state")).is_subset(&self.files)
        });
    }
}

fn handles(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Resident memory in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn leftovers(state: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = ["backups", "ingestd.db", "ingestd.db-wal", "ingestd.db-shm"].contains(&name.as_str());
            if path.is_dir() && !known {
                folders.push(path);
            } else if !known {
                found.insert(path);
            }
        }
    }
    found
}
