//! The walk: the truth about a folder.
//!
//! It goes through the tree in the order of the paths' bytes ([`super::listing`]), depth first, and shows every entry
//! to a [`Visit`]: files with what `lstat` says, what a rule excludes, what can't be read. It never reads a content,
//! and its memory is the names of the folders on the way down to the current one. What can't be read is reported and
//! never taken for gone.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};

use super::filter::Rule;
use super::listing::Listing;
use super::rule_counts::RuleCounts;
use super::tree::{Entry, FolderId, Level, Look, Place, Tree, View};
use crate::job::FileIdentity;
use crate::os::Writers;

/// How many errors, and files without their companion, a walk names; all are counted.
const MAX_NAMED: usize = 20;
/// How many folders on the way down are kept open; one above these is opened again when the walk comes back to it.
const MAX_OPEN: usize = 64;

/// What a walk shows its entries to.
pub trait Visit {
    /// The walk of one of the starts begins.
    fn begin(&mut self, _start: &Path) {}
    /// It ended.
    fn end(&mut self) {}
    /// A folder is about to be read.
    fn folder(&mut self, _relative: &Path) {}
    /// A file that the rules let pass.
    fn file(&mut self, file: &Spotted<'_>);
    /// An entry that a rule excludes; of a folder nothing below is shown.
    fn excluded(&mut self, _relative: &Path, _rule: &Rule) {}
    /// A folder or an entry that can't be read.
    fn unreadable(&mut self, _relative: &Path, _error: &io::Error) {}
    /// Whether to go on.
    fn wanted(&self) -> bool {
        true
    }
}

/// A file that a walk stands before.
#[derive(Debug)]
pub struct Spotted<'a> {
    /// Relative to the root.
    pub relative: &'a Path,
    /// What `lstat` said (or `stat`, for a link that is followed).
    pub identity: FileIdentity,
    view: &'a View<'a>,
    level: &'a Arc<Level>,
    place: Place<'a>,
}

impl Spotted<'_> {
    /// Whether somebody has it open for writing, and its identity as it was after that was asked; `None`: it is no
    /// file to take any more.
    pub fn probe(&self) -> Option<(Writers, FileIdentity)> {
        let writers = self.view.writers(&self.place);
        match self.view.entry(self.level, self.relative, &self.place) {
            Ok(Entry::File(identity)) => Some((writers, identity)),
            _ => None,
        }
    }
}

/// What a walk saw, beside the files.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// The root as it was when the walk began.
    pub root: Option<FolderId>,
    /// Whether the root holds nothing at all.
    pub empty: bool,
    /// Whether it ended early, because nobody wanted its files any more.
    pub cut: bool,
    /// Files shown.
    pub files: u64,
    /// Folders read.
    pub folders: u64,
    /// Entries left alone by a rule.
    pub excluded: u64,
    /// Of them FIFOs, sockets and devices.
    pub special: u64,
    /// The same, by rule.
    pub excluded_by: RuleCounts,
    /// Files whose companion is not there yet.
    pub not_ready: u64,
    /// The first of these.
    pub first_not_ready: Vec<PathBuf>,
    /// Entries that could not be read.
    pub errors: u64,
    /// Whether some of them could not because files, memory or threads had run out, which passes.
    pub short: bool,
    /// The first of these errors, with the path relative to the root.
    pub first_errors: Vec<(PathBuf, String)>,
}

/// Walks the folders `starts`, relative to the root (the empty path is the root), none below another. Blocks. An
/// error says that the root is not there.
pub fn walk(tree: &Tree, starts: &[PathBuf], visit: &mut impl Visit) -> io::Result<Walked> {
    let view = tree.view()?;
    let seen = Walked { root: Some(view.root_id()), ..Walked::default() };
    let mut walk = Walk { view: &view, way: Vec::new(), path: Vec::new(), visit, seen };
    for start in starts {
        walk.from(start);
    }
    Ok(walk.seen)
}

struct Walk<'a, V> {
    view: &'a View<'a>,
    /// The folders from the start down to the current one.
    way: Vec<Folder>,
    /// The current folder's path with a slash, or nothing for the root; then the name that is looked at.
    path: Vec<u8>,
    visit: &'a mut V,
    seen: Walked,
}

/// A folder that is being read.
struct Folder {
    level: Arc<Level>,
    listing: Listing,
    next: usize,
    /// How much of [`Walk::path`] is this folder's, with its slash.
    prefix: usize,
    open: Option<OwnedFd>,
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

impl<V: Visit> Walk<'_, V> {
    fn from(&mut self, start: &Path) {
        self.visit.begin(start);
        self.path = start.as_os_str().as_bytes().to_vec();
        match self.view.descend(start) {
            Ok(level) => {
                self.enter(level, None);
                self.run();
            }
            Err(Look::Excluded(rule)) => self.exclude(&rule),
            Err(Look::Unreadable(error)) => self.unreadable(&error),
            Err(_) => (),
        }
        self.visit.end();
    }

    fn run(&mut self) {
        while let Some(folder) = self.way.last_mut() {
            self.path.truncate(folder.prefix);
            let at = folder.next;
            self.seen.cut = self.seen.cut || (at % 256 == 0 && !self.visit.wanted());
            if self.seen.cut || at >= folder.listing.len() {
                self.way.pop();
                continue;
            }
            if folder.open.is_none() {
                self.open_again();
                continue;
            }
            folder.next += 1;
            if let Some((level, name)) = self.consider(at) {
                self.enter(level, Some(&name));
            }
        }
    }

    /// Opens the current folder, which was closed because the way down was long, or leaves it.
    fn open_again(&mut self) {
        let Some(folder) = self.way.last_mut() else { return };
        let again = open(CWD, &self.view.absolute(path_of(&self.path)), true);
        match again.and_then(|open| folder.level.expect(&open).map(|()| open)) {
            Ok(open) => folder.open = Some(open),
            Err(error) => {
                self.way.pop();
                // Removed or replaced: the next event or scan knows.
                if error.kind() != io::ErrorKind::NotFound {
                    self.path.pop();
                    self.unreadable(&error);
                }
            }
        }
    }

    /// Shows an entry of the current folder; answers it if it is a folder to enter.
    fn consider(&mut self, at: usize) -> Option<(Arc<Level>, PathBuf)> {
        let folder = self.way.last()?;
        let (name, open) = (folder.listing.name(at)?, folder.open.as_ref()?);
        self.path.extend_from_slice(name.as_os_str().as_bytes());
        let (relative, place) = (path_of(&self.path), Place::within(open, name));
        match self.view.entry(&folder.level, relative, &place) {
            Ok(Entry::File(identity)) => {
                self.seen.files += 1;
                self.visit.file(&Spotted { relative, identity, view: self.view, level: &folder.level, place });
            }
            Ok(Entry::Folder { id, links }) => {
                let name = name.to_owned();
                match self.view.enter(&folder.level, relative, id, links) {
                    Ok(level) => return Some((level, name)),
                    Err(error) => self.unreadable(&error),
                }
            }
            Ok(Entry::Excluded(rule)) => self.exclude(&rule),
            // Gone between the reading of the folder and the look at it, or a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => self.unreadable(&error),
        }
        None
    }

    /// Begins to read the folder whose path is the current one; `name` is its name in the folder above.
    fn enter(&mut self, level: Arc<Level>, name: Option<&Path>) {
        let relative = PathBuf::from(std::ffi::OsString::from_vec(self.path.clone()));
        self.visit.folder(&relative);
        match self.read(&relative, level, name) {
            Ok(folder) => {
                self.seen.folders += 1;
                if relative.as_os_str().is_empty() {
                    self.seen.empty = folder.listing.len() == 0;
                }
                if let Some(at) = self.way.len().checked_sub(MAX_OPEN)
                    && let Some(far) = self.way.get_mut(at)
                {
                    far.open = None;
                }
                self.way.push(folder);
            }
            // Removed since its parent was read: the next event or scan knows.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.is_some() => (),
            Err(error) => self.unreadable(&error),
        }
    }

    fn read(&mut self, relative: &Path, level: Arc<Level>, name: Option<&Path>) -> io::Result<Folder> {
        let follow = self.view.follows_symlinks();
        let above = self.way.last().and_then(|folder| folder.open.as_ref());
        let open = match (above, name) {
            (Some(above), Some(name)) if !follow => open(above, name, false)?,
            // By a link, or by its path: it has to be the folder that was judged. The root may be a link in any case.
            _ => {
                let open = open(CWD, &self.view.absolute(relative), follow || relative.as_os_str().is_empty())?;
                level.expect(&open)?;
                open
            }
        };
        let listing = Listing::read(&open, follow)?;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        Ok(Folder { level, listing, next: 0, prefix: self.path.len(), open: Some(open) })
    }

    /// The current path is excluded.
    fn exclude(&mut self, rule: &Rule) {
        let relative = path_of(&self.path);
        self.seen.excluded += 1;
        self.seen.excluded_by.add(rule);
        match rule {
            Rule::Special => self.seen.special += 1,
            Rule::NotReady(_) => {
                self.seen.not_ready += 1;
                if self.seen.first_not_ready.len() < MAX_NAMED {
                    self.seen.first_not_ready.push(relative.to_owned());
                }
            }
            _ => (),
        }
        self.visit.excluded(relative, rule);
    }

    /// The current path can't be read.
    fn unreadable(&mut self, error: &io::Error) {
        let relative = path_of(&self.path);
        self.seen.errors += 1;
        self.seen.short |= crate::os::is_shortage(error);
        if self.seen.first_errors.len() < MAX_NAMED {
            self.seen.first_errors.push((relative.to_owned(), error.to_string()));
        }
        self.visit.unreadable(relative, error);
    }
}

fn open(above: impl std::os::fd::AsFd, name: &Path, follow: bool) -> io::Result<OwnedFd> {
    let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | nofollow;
    Ok(OwnedFd::from(File::from(rustix::fs::openat(above, name, flags, Mode::empty())?)))
}
