//! Files and folders that outlive a power cut, under their names.
//!
//! 1. An `fsync` of a file makes its content last, and not its name: that one is the folder's, which has a sync of its
//!    own. A folder's own name is in the folder above. Whoever tells somebody that a file is there, or removes what it was
//!    made of, has synced all of these ([`make_folder`], [`publish`], [`sync_name`]).
//! 2. A rename that must not lose what has the name already never overwrites ([`rename_exclusively`]).
//! 3. The mode of what is there already is changed without following a link ([`change_mode`]).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, open, renameat_with};
use rustix::io::Errno;

/// The folder that holds the name.
pub fn parent(path: &Path) -> &Path {
    let bare = Path::new(if path.is_absolute() { "/" } else { "." });
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(bare)
}

/// The path with something added to its last name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the names in a folder last. Filesystems that sync no folders do so by themselves.
///
/// # Errors
/// The folder can't be opened or synced; whether its names last is unknown.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        synced => synced,
    }
}

/// Makes the name of a file or folder last.
///
/// # Errors
/// As of [`sync_folder`].
pub fn sync_name(path: &Path) -> io::Result<()> {
    sync_folder(parent(path))
}

/// [`sync_name`] of a folder above which there may be one that we may not read, and so can't sync: it was there before.
///
/// # Errors
/// As of [`sync_folder`].
pub fn sync_name_if_readable(folder: &Path) -> io::Result<()> {
    match sync_name(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// The mode of a folder for files of this mode: who may read or write them may also enter.
pub const fn folder_mode(files: u32) -> u32 {
    files | (files & 0o444) >> 2
}

/// Makes a folder for files of this mode, unless it is there. What it makes outlives a power cut: a file that is
/// synced in a folder that isn't would go with it.
///
/// # Errors
/// It can't be made.
pub fn make_folder(folder: &Path, files: u32) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = folder.ancestors().take_while(is_missing).collect();
    let mode = folder_mode(files);
    DirBuilder::new().recursive(true).mode(mode).create(folder)?;
    // The umask may have taken bits away.
    fs::set_permissions(folder, Permissions::from_mode(mode))?;
    missing.iter().try_for_each(|made| sync_name_if_readable(made))
}

/// Changes the mode of the very file or folder that has this name, of which `wanted` is told what it is: nothing is done
/// to what a link leads to. The handle is none for reading, so that closing it drops nobody's locks (POSIX; SQLite's).
///
/// # Errors
/// There is none; it is something else; it belongs to another user.
pub fn change_mode(path: &Path, wanted: impl FnOnce(u32) -> u32) -> io::Result<()> {
    let itself = File::from(open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?);
    let meta = itself.metadata()?;
    if !meta.is_file() && !meta.is_dir() {
        return Err(io::Error::other("it is neither a file nor a folder"));
    }
    let has = meta.mode() & 0o7777;
    let wanted = wanted(has);
    if wanted == has {
        return Ok(());
    }
    fs::set_permissions(format!("/proc/self/fd/{}", itself.as_raw_fd()), Permissions::from_mode(wanted))
}

/// Gives a complete file its name, in place of what has it, for good.
///
/// # Errors
/// It was not synced or not renamed; or its name was not synced, and then it has it, and may lose it.
pub fn publish(file: &Path, name: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    fs::rename(file, name)?;
    sync_name(name)
}

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

/// Whether both are one file.
pub fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn lacks_links(error: &io::Error) -> bool {
    // EPERM is what link(2) answers where the filesystem has no hard links, and where `fs.protected_hardlinks`
    // forbids one to a file of another owner.
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(number, Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::MLINK))
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
