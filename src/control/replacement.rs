//! A database that another file takes the place of: for good, or not at all.
//!
//! A database and its log are two names, and no rename changes both at once. Between the removal of the log and the
//! arrival of the new file the old database would stand there without its newest commits. So the new file, complete
//! and synced, first gets a name that says what is meant ([`announce`]); that is the moment from which on the new one
//! counts. Whoever has the database's lock next brings it to its end ([`complete`]), as often as it is interrupted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::durable::{sync_name, with_suffix};

/// The suffixes of the files that belong to a database. A rollback journal there is only while a database is made, or a
/// restored one is opened for the first time; left over, it would be played into the next one.
pub const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The suffix of the copy that a restore makes of a backup.
pub const RESTORING: &str = ".restoring";
/// The suffix of the database that a repair makes.
pub const SALVAGED: &str = ".salvaged";
/// The beginning of the suffix under which the old database is kept.
pub const KEPT: &str = ".before-";

/// The files of a database that may be there: its own, then those that belong to it.
pub fn files_of(database: &Path) -> [PathBuf; 4] {
    let [log, index, journal] = SIDE_FILES;
    ["", log, index, journal].map(|suffix| with_suffix(database, suffix))
}

/// Removes what a restore or repair that was broken off has left. Called by whoever has the lock alone.
///
/// # Errors
/// It is there and stays.
pub fn remove_unfinished(database: &Path) -> io::Result<()> {
    [RESTORING, SALVAGED].iter().try_for_each(|made| remove_with_log(&with_suffix(database, made)))
}

/// Removes a database that nobody uses, as far as it is there.
///
/// # Errors
/// It is there and stays.
pub fn remove_with_log(database: &Path) -> io::Result<()> {
    // Its own last: none of the others is ever left to a new file of its name.
    files_of(database).iter().rev().try_for_each(|file| remove(file))
}

/// Says that `new`, which is synced, takes the database's place. The old one has to be kept elsewhere by now.
///
/// # Errors
/// Not renamed: nothing is said, and none [`is_pending`]. Not synced: it is said, and a power cut may take that back.
pub fn announce(database: &Path, new: &Path) -> io::Result<()> {
    fs::rename(new, announced(database))?;
    sync_name(database)
}

/// Whether a replacement was announced that has not come to its end.
pub fn is_pending(database: &Path) -> bool {
    fs::symlink_metadata(announced(database)).is_ok()
}

/// Brings an announced replacement to its end, if there is one: the old log goes, the new file comes. Answers whether
/// there was one. Called by whoever has the lock alone.
///
/// # Errors
/// The folder can't be written; the next one goes on.
pub fn complete(database: &Path) -> io::Result<bool> {
    if !is_pending(database) {
        return Ok(false);
    }
    // A log that outlives its database would be played into the next one.
    for side in SIDE_FILES {
        remove(&with_suffix(database, side))?;
    }
    sync_name(database)?;
    fs::rename(announced(database), database)?;
    sync_name(database)?;
    Ok(true)
}

/// Removes a file, if it is there.
///
/// # Errors
/// It is there and stays.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn announced(database: &Path) -> PathBuf {
    with_suffix(database, ".replacing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("q.db");
        for (suffix, text) in [("", "old"), ("-wal", "log"), ("-journal", "journal"), (".new", "new")] {
            fs::write(with_suffix(&database, suffix), text).unwrap();
        }
        (folder, database)
    }

    #[test]
    fn what_is_announced_is_completed_wherever_it_was_broken_off() {
        for broken_off in ["after the announcement", "after the log's removal"] {
            let (_folder, database) = place();
            announce(&database, &with_suffix(&database, ".new")).unwrap();
            if broken_off == "after the log's removal" {
                remove(&with_suffix(&database, "-wal")).unwrap();
            }
            assert!(complete(&database).unwrap(), "{broken_off}");
            assert_eq!(fs::read_to_string(&database).unwrap(), "new", "{broken_off}");
            assert!(!is_pending(&database), "{broken_off}");
            let left = SIDE_FILES.into_iter().find(|side| with_suffix(&database, side).exists());
            assert_eq!(left, None, "{broken_off}");
            assert!(!complete(&database).unwrap());
        }
    }

    #[test]
    fn what_a_restore_or_repair_left_unfinished_goes_with_all_its_files_and_nothing_else() {
        for made in [RESTORING, SALVAGED] {
            let (_folder, database) = place();
            for left in files_of(&with_suffix(&database, made)) {
                fs::write(left, "half a copy").unwrap();
            }
            remove_unfinished(&database).unwrap();
            assert_eq!(files_of(&with_suffix(&database, made)).into_iter().find(|left| left.exists()), None);
            assert_eq!(fs::read_to_string(&database).unwrap(), "old");
            assert!(with_suffix(&database, "-wal").exists());
        }
    }

    #[test]
    fn without_an_announcement_nothing_is_touched() {
        let (_folder, database) = place();
        assert!(!complete(&database).unwrap());
        assert_eq!(fs::read_to_string(&database).unwrap(), "old");
        assert!(with_suffix(&database, "-wal").exists());
    }
}
