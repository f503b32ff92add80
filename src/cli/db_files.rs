//! The database as files: backups in their folder, and putting another file in its place.
//!
//! Replacing goes so that a crash at any point leaves the old database where it was or under its new name, and
//! never a database with another one's log:
//!
//! 1. The new file is complete and synced under a name of its own.
//! 2. The old database and its log get a second name (`<db>.before-…`), as hard links.
//! 3. From then on the new file counts ([`replacement`]): the log's old names go away, the new file is renamed over the
//!    database, and whoever opens it next brings that to its end where it was broken off.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::failure::Failure;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::control::lock::give_to_owner;
use crate::control::replacement::{self, KEPT, files_of};
use crate::durable::{sync_name, with_suffix};

/// What a backup's name tells: when it was made, in UTC.
pub const BACKUP_NAME: &str = "ingestd-%Y%m%dT%H%M%SZ.db";

/// A backup in the folder of backups.
#[derive(Debug, Serialize)]
pub struct BackupFile {
    /// Where.
    pub path: PathBuf,
    /// When it was made.
    pub made_at: Timestamp,
    /// How large it is.
    pub size_bytes: u64,
}

/// Where scheduled backups go.
pub fn backup_folder(config: &Config) -> PathBuf {
    let beside = || config.state_directory().join("backups");
    config.maintenance.backup.directory.clone().unwrap_or_else(beside)
}

/// The backups in a folder, newest first; none where it can't be read.
pub fn backups(folder: &Path) -> Vec<BackupFile> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<BackupFile> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let time = jiff::civil::DateTime::strptime(BACKUP_NAME, name.to_str()?).ok()?;
            let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
            Some(BackupFile {
                path: entry.path(),
                made_at: Timestamp::from_millis(time.as_millisecond()),
                size_bytes: entry.metadata().ok()?.len(),
            })
        })
        .collect();
    found.sort_by_key(|backup| std::cmp::Reverse(backup.made_at));
    found
}

/// Copies a file to a new name, synced. The name must be free; what an interrupted copy left there goes first.
pub fn copy_synced(from: &Path, to: &Path, mode: u32) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("{} can't be copied to {}: {error}", from.display(), to.display()));
    replacement::remove_with_log(to).map_err(failed)?;
    let mut source = File::open(from).map_err(failed)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(mode).open(to).map_err(failed)?;
    let copied = io::copy(&mut source, &mut target).and_then(|_| target.sync_all());
    copied.map_err(|error| {
        let _ = fs::remove_file(to);
        failed(error)
    })
}

/// Puts `new`, which gets this mode, in the database's place; see the module. Answers where the old one is kept, if there
/// was one. Called under the exclusive lock, with the old database closed everywhere.
pub fn replace(database: &Path, mode: u32, new: &Path, why: &str, now: Timestamp) -> Result<Option<PathBuf>, Failure> {
    let failed = |error: io::Error| {
        Failure::failed(format!("{} can't be put in place of {}: {error}", new.display(), database.display()))
    };
    let file = File::open(new).map_err(failed)?;
    give_to_owner(&file, database);
    // The umask may have taken bits away, and a repair makes it for its owner alone.
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let kept = free_name(&with_suffix(database, &format!("{KEPT}{why}-{}", stamp(now))));
    let mut put_aside = None;
    if fs::symlink_metadata(database).is_ok_and(|there| there.is_dir()) {
        // There are no second names for folders; a folder was no database, so none is missing for a moment.
        fs::rename(database, &kept).map_err(failed)?;
        put_aside = Some(kept.clone());
    }
    // Each for itself: the log may be there when the database is lost, and has what was accepted last.
    for (file, aside) in files_of(database).into_iter().zip(files_of(&kept)) {
        match fs::hard_link(file, &aside) {
            Ok(()) => drop(put_aside.get_or_insert(aside)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    sync_name(database).map_err(failed)?;
    match replacement::announce(database, new) {
        Err(error) if !replacement::is_pending(database) => return Err(failed(error)),
        announced => announced.and_then(|()| replacement::complete(database)),
    }
    .map_err(|error| in_doubt(database, put_aside.as_deref(), &error))?;
    Ok(put_aside)
}

/// The words for a replacement that has begun and was not brought to its end.
fn in_doubt(database: &Path, kept: Option<&Path>, error: &io::Error) -> Failure {
    let kept = kept.map_or(String::new(), |kept| format!(" The one that was there is kept as {}.", kept.display()));
    Failure::failed(format!(
        "the new database counts from now on in the place of {}, but it is unknown whether that outlives a power cut \
         ({error}); the next start or command brings it to its end.{kept}",
        database.display()
    ))
}

/// Removes a database that nobody uses, as far as it is there.
pub fn remove_with_log(database: &Path) -> Result<(), Failure> {
    replacement::remove_with_log(database).map_err(|error| Failure::failed(format!("{}: {error}", database.display())))
}

/// Whether two names are one file.
pub fn same_file(left: &Path, right: &Path) -> bool {
    match (fs::metadata(left), fs::metadata(right)) {
        (Ok(left), Ok(right)) => (left.dev(), left.ino()) == (right.dev(), right.ino()),
        _ => false,
    }
}

/// The name, or one that says the same and is free: two may be replaced within a second.
fn free_name(wanted: &Path) -> PathBuf {
    let numbered = (2..).map(|number: u32| with_suffix(wanted, &format!("-{number}")));
    let mut names = std::iter::once(wanted.to_path_buf()).chain(numbered);
    let is_taken = |name: &Path| files_of(name).iter().any(|file| fs::symlink_metadata(file).is_ok());
    names.find(|name| !is_taken(name)).unwrap_or_else(|| wanted.to_path_buf())
}

fn stamp(now: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(now.as_millis()).unwrap_or_default();
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_366_245_000);

    #[test]
    fn backups_are_told_by_their_names_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ingestd-20260102T150405Z.db", "ingestd-20260103T000000Z.db", "ingestd.db", "notes.txt"] {
            fs::write(folder.path().join(name), "abc").unwrap();
        }
        let found = backups(folder.path());
        assert_eq!(found.len(), 2);
        assert!(found[0].path.ends_with("ingestd-20260103T000000Z.db"));
        assert_eq!((found[1].made_at, found[1].size_bytes), (NOW, 3));
        assert!(backups(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn the_old_database_is_kept_with_its_log_and_the_new_one_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [("q.db", "old"), ("q.db-wal", "log"), ("new", "new")] {
            fs::write(path(name), text).unwrap();
        }
        let kept = replace(&path("q.db"), 0o600, &path("new"), "restore", NOW).unwrap().unwrap();
        assert_eq!(kept, path("q.db.before-restore-20260102T150405Z"));
        assert_eq!(fs::read_to_string(path("q.db")).unwrap(), "new");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "old");
        assert_eq!(fs::read_to_string(with_suffix(&kept, "-wal")).unwrap(), "log");
        assert!(!path("q.db-wal").exists() && !path("new").exists());
    }

    #[test]
    fn the_log_of_a_database_that_is_lost_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for round in 0..2 {
            fs::write(path("q.db-wal"), format!("log {round}")).unwrap();
            fs::write(path("new"), "new").unwrap();
            let kept = replace(&path("q.db"), 0o600, &path("new"), "restore", NOW).unwrap().unwrap();
            assert_eq!(fs::read_to_string(kept).unwrap(), format!("log {round}"));
            fs::remove_file(path("q.db")).unwrap();
        }
    }

    #[test]
    fn a_database_that_was_not_there_leaves_nothing_to_keep() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new");
        fs::write(&new, "new").unwrap();
        let database = folder.path().join("q.db");
        assert_eq!(replace(&database, 0o600, &new, "restore", NOW).unwrap(), None);
        assert!(database.exists());
    }

    #[test]
    fn an_interrupted_copy_does_not_stand_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "whole").unwrap();
        fs::write(&to, "half of an older one, and longer").unwrap();
        fs::write(with_suffix(&to, "-journal"), "what that one was before").unwrap();
        copy_synced(&from, &to, 0o600).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "whole");
        assert!(!with_suffix(&to, "-journal").exists(), "it would be played into the new copy");
    }
}
