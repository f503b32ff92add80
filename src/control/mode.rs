//! The mode of a database's files is `database.mode`, whatever it was when they were made.
//!
//! 1. Whoever has the database's lock alone brings the database and its companions to that mode: a daemon at its start,
//!    what replaces the database before it does. SQLite gives companions that it makes later the mode of the database.
//! 2. What is kept aside loses what the mode does not grant, and is given nothing: it is nobody's tool any more.
//! 3. Only the owner may change a mode. For anybody else the files stay as the owner left them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::replacement::{KEPT, files_of};
use crate::durable::{change_mode, parent};

/// Brings the files of a database that are there to its mode.
pub fn apply(database: &Path, mode: u32) {
    for file in files_of(database) {
        told(&file, change_mode(&file, |_| mode));
    }
    for kept in kept_aside(database) {
        told(&kept, change_mode(&kept, |has| has & mode));
    }
}

/// What restores and repairs put aside. A folder is none: it was no database.
fn kept_aside(database: &Path) -> Vec<PathBuf> {
    let mut beginning = database.file_name().map(OsString::from).unwrap_or_default();
    beginning.push(KEPT);
    let entries = std::fs::read_dir(parent(database)).into_iter().flatten().flatten();
    let is_kept = |entry: &std::fs::DirEntry| {
        entry.file_name().as_encoded_bytes().starts_with(beginning.as_encoded_bytes())
            && entry.file_type().is_ok_and(|kind| kind.is_file())
    };
    entries.filter(is_kept).map(|entry| entry.path()).collect()
}

/// What could not be changed is only noted: whether it matters shows when somebody opens the file.
pub fn told(path: &Path, changed: io::Result<()>) {
    match changed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(path = %path.display(), %error, "the mode stays as it is");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::durable::with_suffix;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn file(path: PathBuf, mode: u32) -> PathBuf {
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_files_of_a_database_follow_its_mode_and_what_is_kept_aside_is_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("q.db");
        for (had, wanted) in [(0o600, 0o660), (0o660, 0o600), (0o644, 0o640)] {
            let files = files_of(&database).map(|path| file(path, had));
            let kept =
                [".before-restore-1", ".before-restore-1-wal"].map(|name| file(with_suffix(&database, name), had));
            let other = file(folder.path().join("q.db.txt"), had);
            apply(&database, wanted);
            assert_eq!(files.map(|path| mode(&path)), [wanted; 4]);
            assert_eq!(kept.map(|path| mode(&path)), [had & wanted; 2]);
            assert_eq!(mode(&other), had, "it is nobody's of the database");
        }
    }

    #[test]
    fn no_link_leads_to_the_mode_of_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let (database, other) = (folder.path().join("q.db"), file(folder.path().join("other"), 0o640));
        for path in files_of(&database).iter().chain([&with_suffix(&database, ".before-restore-1")]) {
            symlink(&other, path).unwrap();
        }
        apply(&database, 0o660);
        assert_eq!(mode(&other), 0o640);
    }
}
