//! Which other processes have the database open, by the links in `/proc/*/fd`.
//!
//! The links are read, never opened: opening the database's files as plain files would drop SQLite's locks.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// A process that has the database's log open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel knows it.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// The other processes that have the log of this database open, or the index of it, as far as this user may
/// see them. Best effort: a process that can't be looked into is left out.
pub fn holders(database: &Path) -> Vec<Holder> {
    let files = [beside(database, "-wal"), beside(database, "-shm")];
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id() && has_open(*pid, &files))
        .map(|pid| Holder { pid, name: name_of(pid) })
        .collect()
}

/// The file beside the database, under its real name: links in `/proc` are free of symbolic links.
fn beside(database: &Path, suffix: &str) -> PathBuf {
    let real = database.canonicalize().unwrap_or_else(|_| match (database.parent(), database.file_name()) {
        (Some(folder), Some(name)) => folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).join(name),
        _ => database.to_owned(),
    });
    let mut name = OsString::from(real);
    name.push(suffix);
    PathBuf::from(name)
}

fn has_open(pid: u32, files: &[PathBuf]) -> bool {
    let Ok(links) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    links.flatten().any(|link| std::fs::read_link(link.path()).is_ok_and(|target| files.contains(&target)))
}

fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_not_in_its_own_way() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("q.db");
        let _wal = std::fs::File::create(folder.path().join("q.db-wal")).unwrap();
        assert_eq!(holders(&database), []);
        assert!(has_open(std::process::id(), &[beside(&database, "-wal")]));
        assert!(!has_open(std::process::id(), &[beside(&database, "-shm")]));
    }
}
