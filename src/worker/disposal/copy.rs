//! Copies across filesystems: content, mode and modification time, synced.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::intake::open_regular;

/// How far two modification times may lie apart on one content: FAT keeps them to two seconds.
const COARSE: Duration = Duration::from_secs(2);

/// Copies the file to the new file `to`. The owner is the daemon's user.
///
/// # Errors
/// Besides what the disks say: the file changed while it was copied.
pub fn copy_to(mut source: &File, to: &Path) -> io::Result<()> {
    source.rewind()?;
    let before = source.metadata()?;
    // Nobody else reads it before it is whole.
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut source, &mut copy)?;
    copy.set_permissions(PermissionsExt::from_mode(before.permissions().mode() & 0o777))?;
    copy.set_modified(before.modified()?)?;
    copy.sync_all()?;
    let after = source.metadata()?;
    if (before.len(), before.modified()?) != (after.len(), after.modified()?) {
        return Err(io::Error::other("the file changed while it was being copied"));
    }
    Ok(())
}

/// Whether the file `there` is a copy of `here` that [`copy_to`] made. Two files of one name, size, time and content
/// are one as far as anybody can tell, so nothing is lost by believing it.
pub fn is_copy_of(there: &Path, mut here: &File) -> io::Result<bool> {
    let (there_meta, here_meta) = (there.symlink_metadata()?, here.metadata()?);
    if !there_meta.is_file() || there_meta.len() != here_meta.len() || !same_time(&there_meta, &here_meta)? {
        return Ok(false);
    }
    here.rewind()?;
    same_bytes(open_regular(there)?, here)
}

fn same_time(a: &Metadata, b: &Metadata) -> io::Result<bool> {
    let (a, b): (SystemTime, SystemTime) = (a.modified()?, b.modified()?);
    let apart = a.duration_since(b).unwrap_or_else(|error| error.duration());
    Ok(apart <= COARSE)
}

fn same_bytes(a: File, b: &File) -> io::Result<bool> {
    let (mut a, mut b) = (BufReader::with_capacity(64 << 10, a), BufReader::with_capacity(64 << 10, b));
    let (mut left, mut right) = ([0; 4096], [0; 4096]);
    loop {
        let count = a.read(&mut left)?;
        if count == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        match b.read_exact(&mut right[..count]) {
            Ok(()) if left[..count] == right[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(path: &Path) -> File {
        File::open(path).unwrap()
    }

    #[test]
    fn a_copy_has_content_mode_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let content: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        fs::write(&from, &content).unwrap();
        fs::set_permissions(&from, PermissionsExt::from_mode(0o640)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        File::options().write(true).open(&from).unwrap().set_modified(time).unwrap();
        copy_to(&open(&from), &to).unwrap();
        let meta = fs::metadata(&to).unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.modified().unwrap()), (0o640, time));
        assert_eq!(fs::read(&to).unwrap(), content);
        assert!(is_copy_of(&to, &open(&from)).unwrap());
        assert!(copy_to(&open(&from), &to).is_err(), "a copy overwrites nothing");
    }

    #[test]
    fn another_file_is_no_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path().join("here"), folder.path().join("there"));
        fs::write(&here, "abc").unwrap();
        for other in ["abd", "ab", "abcd"] {
            fs::write(&there, other).unwrap();
            assert!(!is_copy_of(&there, &open(&here)).unwrap(), "{other}");
        }
        fs::write(&there, "abc").unwrap();
        File::options().write(true).open(&there).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!is_copy_of(&there, &open(&here)).unwrap());
        fs::remove_file(&there).unwrap();
        fs::create_dir(&there).unwrap();
        assert!(!is_copy_of(&there, &open(&here)).unwrap());
    }
}
