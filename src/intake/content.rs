//! Contents that lines of a list bring along, as files that a processor can be given.
//!
//! 1. **A folder for each**: `RUN-LINE.MARK/NAME`, where the name is the last part of the path that the line names. The
//!    mark is drawn for each file, so that whoever hands the same line over twice at a time can't remove what the other
//!    one wrote.
//! 2. **Written, then synced**: the file, its folder, the folder of all. Only then may a job name it.
//! 3. **Removed** by whoever wrote it if no job came of it, when its job is over and nobody can try it again, and by a
//!    sweep after a crash. What is not in here, such as a file of somebody's own that a line refers to, is never touched.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::durable::{folder_mode, make_folder, sync_folder, sync_name};
use crate::job::FileIdentity;
use crate::run::RunId;

/// The most bytes that a content in a line may have: 32 MiB. Whoever has more names a file (`content_ref`).
pub const CONTENT_LIMIT: usize = 32 << 20;

/// The name of a content whose line names no path.
const NAMELESS: &str = "content";
/// The longest name that filesystems take.
const NAME_MAX: usize = 255;

/// The folder of contents.
#[derive(Clone, Debug)]
pub struct ContentFolder {
    folder: PathBuf,
    /// Of the files in it; folders can be entered by those who may read.
    mode: u32,
}

impl ContentFolder {
    /// The folder at this path, whose files have this mode. It is made when it is needed.
    pub const fn new(folder: PathBuf, mode: u32) -> Self {
        Self { folder, mode }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes a content. It does not survive a power cut before [`Self::sync`]. Blocks.
    ///
    /// # Errors
    /// The machine's; nothing is left behind then.
    pub fn write(
        &self,
        run: RunId,
        line: u64,
        name: Option<&OsStr>,
        bytes: &[u8],
    ) -> io::Result<(PathBuf, FileIdentity)> {
        let folder = self.make_place(run, line)?;
        let name = name.filter(|name| name.len() <= NAME_MAX).unwrap_or(OsStr::new(NAMELESS));
        let path = folder.join(name);
        match self.fill(&path, bytes) {
            Ok(identity) => Ok((path, identity)),
            Err(error) => {
                self.remove(&path);
                Err(error)
            }
        }
    }

    fn fill(&self, path: &Path, bytes: &[u8]) -> io::Result<FileIdentity> {
        let mode = self.mode & 0o666;
        let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        // The umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        Ok(FileIdentity::of(&file.metadata()?))
    }

    /// A new folder for one file.
    fn make_place(&self, run: RunId, line: u64) -> io::Result<PathBuf> {
        make_folder(&self.folder, self.mode)?;
        loop {
            let place = self.folder.join(format!("{run}-{line}.{:08x}", fastrand::u32(..)));
            match self.make(&place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| place),
            }
        }
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        let mode = folder_mode(self.mode);
        DirBuilder::new().mode(mode).create(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(mode))
    }

    /// Makes what was written survive a power cut. Blocks.
    ///
    /// # Errors
    /// The machine's; what was written may be gone after a power cut.
    pub fn sync(&self, written: &[PathBuf]) -> io::Result<()> {
        if written.is_empty() {
            return Ok(());
        }
        for path in written {
            File::open(path)?.sync_all()?;
            sync_name(path)?;
        }
        // Up to the state directory, in which the first of these folders may be new as well.
        self.folder.ancestors().take(3).try_for_each(sync_folder)
    }

    /// Whether this is the path of a content in here.
    pub fn holds(&self, path: &Path) -> bool {
        let place = path.parent().filter(|place| place.parent() == Some(&self.folder));
        path.file_name().is_some() && place.is_some_and(|place| place.file_name().is_some())
    }

    /// Removes a content, if it lies in here; whether there was one. What can't be removed is swept up later. Blocks.
    pub fn remove(&self, content: &Path) -> bool {
        if !self.holds(content) {
            return false;
        }
        let Some(place) = content.parent() else { return false };
        let removed = fs::remove_file(content);
        let emptied = fs::remove_dir(place);
        for error in [removed.as_ref().err(), emptied.as_ref().err()].into_iter().flatten() {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(path = %content.display(), %error, "a content stays behind");
            }
        }
        removed.is_ok() || emptied.is_ok()
    }

    /// Removes contents as [`Self::remove`] does. Blocks.
    pub fn remove_all(&self, contents: &[PathBuf]) {
        for content in contents {
            self.remove(content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_content_is_a_file_with_the_name_that_its_line_gives_and_nobody_else_reads_it() {
        let state = tempfile::tempdir().unwrap();
        let contents = ContentFolder::new(state.path().join("content/q.db"), 0o600);
        let (path, identity) = contents.write(RunId(3), 7, Some("a.pdf".as_ref()), b"abc").unwrap();
        contents.sync(std::slice::from_ref(&path)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(path.file_name(), Some("a.pdf".as_ref()));
        assert_eq!(identity, FileIdentity::of(&path.metadata().unwrap()));
        let place = path.parent().unwrap();
        assert!(place.file_name().unwrap().to_str().unwrap().starts_with("3-7."));
        assert_eq!((mode(&path), mode(place), mode(place.parent().unwrap())), (0o600, 0o700, 0o700));
        let long = "x".repeat(NAME_MAX + 1);
        for name in [None, Some(OsStr::new(&long))] {
            let (path, _) = contents.write(RunId(3), 8, name, b"").unwrap();
            assert_eq!(path.file_name(), Some(NAMELESS.as_ref()));
        }
    }

    #[test]
    fn the_same_line_written_twice_is_two_files_of_which_each_is_removed_by_itself() {
        let state = tempfile::tempdir().unwrap();
        let contents = ContentFolder::new(state.path().join("content/q.db"), 0o600);
        let write = || contents.write(RunId(1), 1, Some("a".as_ref()), b"abc").unwrap().0;
        let (first, second) = (write(), write());
        assert!(contents.remove(&first));
        assert!(!contents.remove(&first));
        assert!(!first.parent().unwrap().exists());
        assert_eq!(fs::read(&second).unwrap(), b"abc");
    }

    #[test]
    fn files_outside_are_never_removed() {
        let state = tempfile::tempdir().unwrap();
        let contents = ContentFolder::new(state.path().join("content/q.db"), 0o600);
        let own = state.path().join("own");
        fs::write(&own, "x").unwrap();
        assert!(!contents.remove(&own));
        assert!(!contents.remove(&state.path().join("content/q.db/1-1.0/../../../own")));
        fs::create_dir_all(state.path().join("content/q.db")).unwrap();
        fs::write(state.path().join("content/other"), "x").unwrap();
        assert!(!contents.remove(&state.path().join("content/q.db/../other")));
        assert!(own.exists());
    }
}
