//! The backup folder: names that tell when, how many are kept, and what an interrupted backup left.
//!
//! A backup is `ingestd-YYYYMMDDTHHMMSSZ.db`, in UTC. While it is made it lives in a folder of its own,
//! `.ingestd-TIME.PID.partial/`, so that whatever an interruption leaves is one thing to remove.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::duty::Failure;
use crate::clock::Timestamp;
use crate::durable::{Renamed, parent, rename_exclusively, sync_name};

/// What is said where the backup has its name, and nobody knows whether it keeps it.
const UNSYNCED: &str = "sync, so that it is unknown whether the new backup, which is whole, outlives a power cut,";

const FORMAT: &str = "ingestd-%Y%m%dT%H%M%SZ.db";
const PARTIAL_PREFIX: &str = ".ingestd-";
const PARTIAL_SUFFIX: &str = ".partial";

/// A backup in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupFile {
    /// Where.
    pub path: PathBuf,
    /// When it was made, as its name says.
    pub made_at: Timestamp,
    /// How large it is.
    pub size_bytes: u64,
}

/// The backups in the folder, newest first; none where there is no folder.
///
/// # Errors
/// When the folder can't be read.
pub fn list(folder: &Path) -> Result<Vec<BackupFile>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::file("list", folder)(error)),
    };
    let backup = |entry: std::fs::DirEntry| {
        let made_at = made_at(entry.file_name().to_str()?)?;
        let meta = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(BackupFile { path: entry.path(), made_at, size_bytes: meta.len() })
    };
    let mut backups: Vec<BackupFile> = entries.flatten().filter_map(backup).collect();
    backups.sort_by_key(|backup| std::cmp::Reverse(backup.made_at));
    Ok(backups)
}

/// The name of a backup made at `now`.
pub(super) fn name_at(now: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(now.as_millis()).unwrap_or_default();
    time.strftime(FORMAT).to_string()
}

fn made_at(name: &str) -> Option<Timestamp> {
    let time = jiff::civil::DateTime::strptime(FORMAT, name).ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    let made_at = Timestamp::from_millis(time.timestamp().as_millisecond());
    // The parser is lenient about digits; a name that we would not write is not ours to remove.
    (name_at(made_at) == name).then_some(made_at)
}

/// Removes all but the `keep` newest backups; answers how many. `fresh`, the one that was just made and found
/// good, stays whatever its name says: the clock may have been set back.
pub(super) fn rotate(folder: &Path, keep: usize, fresh: &Path) -> Result<u64, Failure> {
    let mut removed = 0;
    let others = list(folder)?.into_iter().filter(|backup| backup.path != fresh);
    for old in others.skip(keep.saturating_sub(1)) {
        std::fs::remove_file(&old.path).map_err(Failure::file("remove the old backup", &old.path))?;
        removed += 1;
    }
    Ok(removed)
}

/// The private folder in which a backup is made; gone when dropped, whatever is in it by then.
#[derive(Debug)]
pub(super) struct Partial {
    folder: PathBuf,
}

impl Partial {
    /// Makes it beside the backup's future place, so that the rename stays on one filesystem.
    pub(super) fn create(beside: &Path, now: Timestamp) -> Result<Self, Failure> {
        let name = format!("{PARTIAL_PREFIX}{}.{}{PARTIAL_SUFFIX}", now.as_millis(), std::process::id());
        let folder = beside.join(name);
        DirBuilder::new().mode(0o700).create(&folder).map_err(Failure::file("make the folder", &folder))?;
        Ok(Self { folder })
    }

    /// Where the copy is written.
    pub(super) fn copy(&self) -> PathBuf {
        self.folder.join("copy.db")
    }

    /// Syncs the copy and gives it its name. Nothing else may have the copy open.
    pub(super) fn publish(self, target: &Path, replace: bool) -> Result<u64, Failure> {
        let copy = self.copy();
        let sync = || -> io::Result<u64> {
            let file = File::open(&copy)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.sync_all()?;
            Ok(file.metadata()?.len())
        };
        let size = sync().map_err(Failure::file("sync the copy", &copy))?;
        let renamed = if replace { std::fs::rename(&copy, target) } else { rename_new(&copy, target) };
        renamed.map_err(Failure::file("name the backup", target))?;
        sync_name(target).map_err(Failure::file(UNSYNCED, parent(target)))?;
        Ok(size)
    }
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_exclusively(from, to)? {
        Renamed::Yes => Ok(()),
        Renamed::Taken => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What can't be removed now is found by the next backup.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Removes what interrupted backups left in the folder: those of processes that are gone, and of this one,
/// which makes one backup at a time.
pub(super) fn remove_leftovers(folder: &Path) -> Result<u64, Failure> {
    let mut removed = 0;
    let entries = std::fs::read_dir(folder).map_err(Failure::file("list", folder))?;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(partial_pid) else { continue };
        let alive = pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists();
        if !alive && std::fs::remove_dir_all(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

fn partial_pid(name: &str) -> Option<u32> {
    let (_, pid) = name.strip_prefix(PARTIAL_PREFIX)?.strip_suffix(PARTIAL_SUFFIX)?.split_once('.')?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000;

    fn at(second: i64) -> Timestamp {
        // 2026-01-02T03:04:05Z
        Timestamp::from_millis((1_767_323_045 + second) * SECOND)
    }

    fn fill(folder: &Path, seconds: impl IntoIterator<Item = i64>) {
        for second in seconds {
            std::fs::write(folder.join(name_at(at(second))), "copy").unwrap();
        }
    }

    #[test]
    fn names_tell_the_time_and_strangers_are_left_alone() {
        assert_eq!(name_at(at(0)), "ingestd-20260102T030405Z.db");
        assert_eq!(made_at("ingestd-20260102T030405Z.db"), Some(at(0)));
        for stranger in ["ingestd-2026012T030405Z.db", "ingestd-20260102T030405Z.db.old", "ingestd.db", "x"] {
            assert_eq!(made_at(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), 0..6);
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let fresh = folder.path().join(name_at(at(5)));
        assert_eq!(rotate(folder.path(), 3, &fresh).unwrap(), 3);
        let left: Vec<Timestamp> = list(folder.path()).unwrap().into_iter().map(|backup| backup.made_at).collect();
        assert_eq!(left, [at(5), at(4), at(3)]);
        assert!(folder.path().join("notes.txt").exists());
    }

    #[test]
    fn the_one_just_made_stays_although_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), [-100, 0, 1, 2]);
        let fresh = folder.path().join(name_at(at(-100)));
        rotate(folder.path(), 1, &fresh).unwrap();
        let left = list(folder.path()).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].path, fresh);
    }

    #[test]
    fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
        let folder = tempfile::tempdir().unwrap();
        let name = |pid: u32| folder.path().join(format!(".ingestd-1.{pid}.partial"));
        let living = std::os::unix::process::parent_id();
        for pid in [u32::MAX, std::process::id(), living] {
            std::fs::create_dir(name(pid)).unwrap();
            std::fs::write(name(pid).join("copy.db"), "half").unwrap();
        }
        assert_eq!(remove_leftovers(folder.path()).unwrap(), 2);
        assert!(name(living).exists());
    }

    #[test]
    fn a_file_in_the_place_is_never_replaced_unless_asked() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("mine.db");
        std::fs::write(&target, "precious").unwrap();
        let partial = Partial::create(folder.path(), at(0)).unwrap();
        std::fs::write(partial.copy(), "copy").unwrap();
        partial.publish(&target, false).unwrap_err();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
