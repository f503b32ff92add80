//! The way to a file, so that whoever writes in a watched folder can't lead it anywhere else.
//!
//! 1. Between the moment at which a file was seen and the one at which it is read or moved, a folder on the way to it
//!    may be replaced by a symbolic link, to a place that the daemon may read and its owner may not. A path is
//!    resolved anew each time it is used, so a look at it beforehand proves nothing.
//! 2. Therefore the folders below the watch's root are opened one within the other, and a link among them is no
//!    folder. The root is the configuration's, and may lie behind links.
//! 3. Where a watch follows links, the way is resolved first, has to end below the root, and is then gone in the
//!    same manner.
//! 4. What was reached is named within the open folder (`/proc/self/fd/N/NAME`), which stays the one that it is
//!    whatever is done to its path. Every call that takes a path works on that name.
//!
//! A file that a person named is reached by its path: who may name files may read what the daemon reads.

use std::ffi::{OsStr, OsString};
use std::fs::canonicalize;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How a file is reached.
#[derive(Clone, Debug)]
pub struct Way {
    /// `None`: there is none that it may not leave.
    root: Option<PathBuf>,
    below: PathBuf,
    follow: bool,
}

/// A file or name that was reached; good for as long as it is kept.
#[derive(Debug)]
pub struct Reached {
    /// `None`: it lies in the root itself, to which the path leads.
    _folder: Option<OwnedFd>,
    path: PathBuf,
}

impl Way {
    /// To the file of a watch at `path`, which is at `relative` below its root.
    pub fn watched(path: &Path, relative: &Path, follow: bool) -> Self {
        let root = path.ancestors().nth(relative.components().count());
        match root {
            Some(root) if path.ends_with(relative) => Self { root: Some(root.into()), below: relative.into(), follow },
            // Nobody knows where its root was: the name alone.
            _ => {
                let below = path.file_name().map(PathBuf::from).unwrap_or_default();
                Self { root: path.parent().map(Path::to_owned), below, follow }
            }
        }
    }

    /// To a file that a person named, through whatever links.
    pub fn named(path: &Path) -> Self {
        Self { root: None, below: path.to_owned(), follow: true }
    }

    /// Reaches the file itself: behind a link, where links are followed. Blocks.
    ///
    /// # Errors
    /// As of opening a path. `NotADirectory`: a link is on the way and may not be followed, or leads out of the root.
    pub fn to_file(&self) -> io::Result<Reached> {
        let Some(root) = &self.root else { return Ok(Reached { _folder: None, path: canonicalize(&self.below)? }) };
        if !self.follow {
            return walk(root, &self.below);
        }
        let (file, root) = (canonicalize(root.join(&self.below))?, canonicalize(root)?);
        walk(&root, file.strip_prefix(&root).map_err(|_| leads_out())?)
    }

    /// Reaches the name, whatever is behind it. Blocks.
    ///
    /// # Errors
    /// As of [`Self::to_file`].
    pub fn to_name(&self) -> io::Result<Reached> {
        let Some(root) = &self.root else { return Ok(Reached { _folder: None, path: self.below.clone() }) };
        if !self.follow {
            return walk(root, &self.below);
        }
        let (Some(above), Some(name)) = (self.below.parent(), self.below.file_name()) else { return Err(leads_out()) };
        let (folder, root) = (canonicalize(root.join(above))?, canonicalize(root)?);
        walk(&root, &folder.strip_prefix(&root).map_err(|_| leads_out())?.join(name))
    }
}

impl Reached {
    /// A path to it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to another name in its folder.
    pub fn beside(&self, name: &OsStr) -> PathBuf {
        self.path.with_file_name(name)
    }
}

fn walk(root: &Path, below: &Path) -> io::Result<Reached> {
    let mut names: Vec<&OsStr> = Vec::new();
    for part in below.components() {
        let Component::Normal(name) = part else { return Err(leads_out()) };
        names.push(name);
    }
    let Some((name, folders)) = names.split_last() else { return Err(leads_out()) };
    if folders.is_empty() {
        return Ok(Reached { _folder: None, path: root.join(name) });
    }
    let mut folder = openat(CWD, root, FOLDER, Mode::empty())?;
    for name in folders {
        folder = openat(&folder, *name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
    }
    let mut path = OsString::from(format!("/proc/self/fd/{}/", folder.as_raw_fd()));
    path.push(name);
    Ok(Reached { _folder: Some(folder), path: path.into() })
}

fn leads_out() -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, "the way to it leads out of the watched folder")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// `root/sub/a`, and `outside/a` beside it.
    fn scene() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        for (folder, content) in [(root.join("sub"), "inside"), (outside.clone(), "outside")] {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("a"), content).unwrap();
        }
        (folder, root, outside)
    }

    fn swap(root: &Path, outside: &Path) {
        fs::rename(root.join("sub"), root.join("aside")).unwrap();
        symlink(outside, root.join("sub")).unwrap();
    }

    #[test]
    fn a_folder_that_became_a_link_is_not_entered() {
        let (_folder, root, outside) = scene();
        for follow in [false, true] {
            let way = Way::watched(&root.join("sub/a"), Path::new("sub/a"), follow);
            let reached = way.to_file().unwrap();
            assert_eq!(fs::read_to_string(reached.path()).unwrap(), "inside");
        }
        swap(&root, &outside);
        for follow in [false, true] {
            let way = Way::watched(&root.join("sub/a"), Path::new("sub/a"), follow);
            for reached in [way.to_file(), way.to_name()] {
                assert_eq!(reached.unwrap_err().kind(), io::ErrorKind::NotADirectory);
            }
        }
    }

    #[test]
    fn what_was_reached_stays_what_it_is() {
        let (_folder, root, outside) = scene();
        let reached = Way::watched(&root.join("sub/a"), Path::new("sub/a"), false).to_name().unwrap();
        swap(&root, &outside);
        fs::rename(reached.path(), reached.beside("b".as_ref())).unwrap();
        assert_eq!(fs::read_to_string(root.join("aside/b")).unwrap(), "inside");
        assert!(outside.join("a").exists());
    }

    #[test]
    fn links_are_followed_where_that_is_asked_for_and_never_out() {
        let (_folder, root, outside) = scene();
        symlink("sub", root.join("link")).unwrap();
        symlink("link/a", root.join("file")).unwrap();
        symlink(outside.join("a"), root.join("out")).unwrap();
        let way = |relative: &str, follow| Way::watched(&root.join(relative), Path::new(relative), follow);
        for relative in ["link/a", "file"] {
            let reached = way(relative, true).to_file().unwrap();
            assert_eq!(fs::read_to_string(reached.path()).unwrap(), "inside", "{relative}");
        }
        assert!(way("link/a", false).to_file().is_err());
        assert!(way("out", true).to_file().is_err());
        // The name can be taken away, whatever is behind it.
        let name = way("file", true).to_name().unwrap();
        assert!(fs::symlink_metadata(name.path()).unwrap().is_symlink());
        let named = Way::named(&root.join("out")).to_file().unwrap();
        assert_eq!(fs::read_to_string(named.path()).unwrap(), "outside");
    }

    #[test]
    fn the_root_may_lie_behind_a_link_and_dots_lead_nowhere() {
        let (folder, root, _) = scene();
        let alias = folder.path().join("alias");
        symlink(&root, &alias).unwrap();
        let reached = Way::watched(&alias.join("sub/a"), Path::new("sub/a"), false).to_file().unwrap();
        assert_eq!(fs::read_to_string(reached.path()).unwrap(), "inside");
        let dots = Way::watched(&root.join("sub/../sub/a"), Path::new("sub/../sub/a"), false);
        assert!(dots.to_file().is_err());
    }
}
