//! Renames that never overwrite, and the sync that makes them last.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Whether the file has its new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renamed {
    /// It has.
    Yes,
    /// Another file has that name.
    Taken,
}

/// Renames `from`, a name that nobody else touches, to `to` unless something has that name.
///
/// The kernel does it in one step (`RENAME_NOREPLACE`). Filesystems that can't (NFS, some FUSE) get a second name
/// and lose the first; if a crash came in between, the next call finds both names on one file and goes on. Those
/// without hard links (FAT) are asked first and renamed then, which leaves a gap that nothing can close there.
pub fn rename_exclusively(from: &Path, to: &Path) -> io::Result<Renamed> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Renamed::Yes),
        Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => by_link(from, to),
        Err(error) => Err(error.into()),
    }
}

/// Gives the file the name `to` beside `from`, and then takes `from` away.
fn by_link(from: &Path, to: &Path) -> io::Result<Renamed> {
    match to.symlink_metadata() {
        // Both are names of one file already: an earlier call was interrupted.
        Ok(there) if is_same(&from.symlink_metadata()?, &there) => {}
        Ok(_) => return Ok(Renamed::Taken),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => match fs::hard_link(from, to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Renamed::Taken),
            Err(error) if lacks_links(&error) => return fs::rename(from, to).map(|()| Renamed::Yes),
            Err(error) => return Err(error),
        },
    }
    fs::remove_file(from)?;
    Ok(Renamed::Yes)
}

fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn lacks_links(error: &io::Error) -> bool {
    // EPERM is what link(2) answers where the filesystem has no hard links, and where `fs.protected_hardlinks`
    // forbids one to a file of another owner.
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(number, Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::MLINK))
}

/// Makes the names in a folder last. Filesystems that sync no folders do so by themselves.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_renaming_overwrites() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for rename in [rename_exclusively, by_link] {
            fs::write(&from, "new").unwrap();
            fs::write(&to, "old").unwrap();
            assert_eq!(rename(&from, &to).unwrap(), Renamed::Taken);
            assert_eq!((fs::read(&from).unwrap(), fs::read(&to).unwrap()), (b"new".to_vec(), b"old".to_vec()));
            fs::remove_file(&to).unwrap();
            assert_eq!(rename(&from, &to).unwrap(), Renamed::Yes);
            assert!(!from.exists());
            assert_eq!(fs::read(&to).unwrap(), b"new");
        }
    }

    #[test]
    fn a_rename_interrupted_between_link_and_unlink_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "x").unwrap();
        fs::hard_link(&from, &to).unwrap();
        assert_eq!(rename_exclusively(&from, &to).unwrap(), Renamed::Yes);
        assert!(!from.exists() && to.exists());
    }

    #[test]
    fn a_dangling_link_counts_as_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "x").unwrap();
        std::os::unix::fs::symlink("/no/such/file", &to).unwrap();
        assert_eq!(rename_exclusively(&from, &to).unwrap(), Renamed::Taken);
        assert_eq!(by_link(&from, &to).unwrap(), Renamed::Taken);
    }
}
