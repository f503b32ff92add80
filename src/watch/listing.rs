//! What one folder holds, in the order in which the paths below it come.
//!
//! A folder counts as its name with a slash, because that is what the paths in it go on with: `a-b`, `a.txt`, `a/c`.
//! So a walk that descends where it meets a folder yields all paths in the order of their bytes, which is the order
//! of the database's index, and both can be compared in one pass. The names of a folder lie in one piece of memory:
//! a million of them take some thirty bytes each.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, RawDir};

/// How much of a folder is asked of the kernel at once.
const BUFFER_BYTES: usize = 32 << 10;

/// The names in a folder, in order.
#[derive(Debug, Default)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    names: Vec<Span>,
}

/// Where a name lies; a folder's with its slash.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    length: u16,
}

impl Listing {
    /// Reads an open folder. Where links are followed, one that leads to a folder counts as a folder.
    pub(super) fn read(folder: impl AsFd, follow_symlinks: bool) -> io::Result<Self> {
        let folder = folder.as_fd();
        let mut listing = Self::default();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let is_folder = match entry.file_type() {
                FileType::Directory => true,
                FileType::Symlink if follow_symlinks => is_folder(folder, name, AtFlags::empty()),
                // Some filesystems don't say.
                FileType::Unknown => is_folder(folder, name, AtFlags::SYMLINK_NOFOLLOW),
                _ => false,
            };
            listing.push(name.to_bytes(), is_folder)?;
        }
        listing.sort();
        Ok(listing)
    }

    fn push(&mut self, name: &[u8], is_folder: bool) -> io::Result<()> {
        let too_big = |_| io::Error::other("the folder holds more names than can be listed (4 GiB of them)");
        let start = u32::try_from(self.bytes.len()).map_err(too_big)?;
        self.bytes.extend_from_slice(name);
        if is_folder {
            self.bytes.push(b'/');
        }
        let length = u16::try_from(name.len() + usize::from(is_folder)).map_err(too_big)?;
        self.names.push(Span { start, length });
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.names.sort_unstable_by(|a, b| a.within(bytes).cmp(b.within(bytes)));
    }

    /// How many names there are.
    pub(super) const fn len(&self) -> usize {
        self.names.len()
    }

    /// A name, without the slash.
    pub(super) fn name(&self, at: usize) -> Option<&Path> {
        let bytes = self.names.get(at)?.within(&self.bytes);
        Some(Path::new(OsStr::from_bytes(bytes.strip_suffix(b"/").unwrap_or(bytes))))
    }
}

impl Span {
    fn within(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        bytes.get(start..start + usize::from(self.length)).unwrap_or_default()
    }
}

fn is_folder(folder: impl AsFd, name: &std::ffi::CStr, flags: AtFlags) -> bool {
    rustix::fs::statat(folder, name, flags).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn a_folder_comes_where_the_paths_in_it_come() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a-b", "a.txt", "b", "\u{fc}", "a0"] {
            fs::write(root.path().join(name), "x").unwrap();
        }
        fs::create_dir(root.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.path().join("a+")).unwrap();
        let names = |follow| {
            let listing = Listing::read(File::open(root.path()).unwrap(), follow).unwrap();
            (0..listing.len()).map(|at| listing.name(at).unwrap().display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a+", "a-b", "a.txt", "a", "a0", "b", "\u{fc}"]);
        assert_eq!(names(true), ["a+", "a-b", "a.txt", "a", "a0", "b", "\u{fc}"]);
    }
}
