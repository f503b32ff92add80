//! The walk: the truth about a folder.
//!
//! It reads folders and `lstat`s what is in them, never a content, and hands files over in batches while it goes
//! on, so that its memory does not grow with the tree (only with the folders that still wait beside the current
//! path). What can't be read is reported and never taken for gone.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::filter::Rule;
use super::tree::{Entry, FolderId, Level, Look, Tree, View};
use crate::job::FileIdentity;

/// How many files are handed over at once.
pub const BATCH: usize = 1_000;
/// How many errors a walk keeps in words; all are counted.
const MAX_ERRORS: usize = 20;

/// A file that a walk found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Relative to the root.
    pub relative: PathBuf,
    /// What `lstat` said (or `stat`, for a link that is followed).
    pub identity: FileIdentity,
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
    /// Files handed over.
    pub files: u64,
    /// Folders read.
    pub folders: u64,
    /// Entries left alone by a rule.
    pub excluded: u64,
    /// Of them FIFOs, sockets and devices.
    pub special: u64,
    /// Files whose companion is not there yet.
    pub not_ready: u64,
    /// Entries that could not be read.
    pub errors: u64,
    /// The first of these errors, with the path relative to the root.
    pub first_errors: Vec<(PathBuf, String)>,
}

impl Walked {
    fn error(&mut self, relative: &Path, error: String) {
        self.errors += 1;
        if self.first_errors.len() < MAX_ERRORS {
            self.first_errors.push((relative.to_owned(), error));
        }
    }

    fn exclude(&mut self, rule: &Rule) {
        self.excluded += 1;
        match rule {
            Rule::Special => self.special += 1,
            Rule::NotReady(_) => self.not_ready += 1,
            _ => (),
        }
    }
}

/// Walks the folders `starts`, relative to the root (the empty path is the root), and hands the files found in
/// batches to `take`, for as long as `wanted` says so. Blocks. An error says that the root is not there.
pub fn walk(
    tree: &Tree,
    starts: &[PathBuf],
    wanted: impl Fn() -> bool,
    take: impl FnMut(Vec<Found>),
) -> io::Result<Walked> {
    let view = tree.view()?;
    let mut walk = Walk {
        wanted,
        waiting: Vec::new(),
        batch: Vec::with_capacity(BATCH),
        take,
        seen: Walked { root: Some(view.root_id()), ..Walked::default() },
        view,
    };
    for start in starts {
        match walk.view.descend(start) {
            Ok(level) => walk.waiting.push((start.clone(), level)),
            Err(Look::Excluded(rule)) => walk.seen.exclude(&rule),
            Err(Look::Unreadable(error)) => walk.seen.error(start, error),
            Err(_) => (),
        }
        walk.run();
    }
    walk.flush();
    Ok(walk.seen)
}

struct Walk<'a, W, T> {
    wanted: W,
    view: View<'a>,
    /// Folders to read, the deepest last.
    waiting: Vec<(PathBuf, Arc<Level>)>,
    batch: Vec<Found>,
    take: T,
    seen: Walked,
}

impl<W: Fn() -> bool, T: FnMut(Vec<Found>)> Walk<'_, W, T> {
    fn run(&mut self) {
        while let Some((folder, level)) = self.waiting.pop() {
            self.seen.cut = self.seen.cut || !(self.wanted)();
            if self.seen.cut {
                return;
            }
            if let Err(error) = self.read(&folder, &level) {
                // Removed since its parent was read: the next event or scan knows.
                if error.kind() != io::ErrorKind::NotFound || folder.as_os_str().is_empty() {
                    self.seen.error(&folder, error.to_string());
                }
            }
        }
    }

    fn read(&mut self, folder: &Path, level: &Arc<Level>) -> io::Result<()> {
        let path = if Arc::ptr_eq(level, self.view.root()) { PathBuf::new() } else { folder.to_owned() };
        let mut nothing = true;
        for entry in fs::read_dir(self.view.absolute(&path))? {
            nothing = false;
            let name = entry?.file_name();
            self.consider(&path, name, level);
            if self.batch.len() >= BATCH {
                self.flush();
            }
            if self.seen.cut {
                return Ok(());
            }
        }
        self.seen.folders += 1;
        if path.as_os_str().is_empty() {
            self.seen.empty = nothing;
        }
        Ok(())
    }

    fn consider(&mut self, folder: &Path, name: OsString, level: &Arc<Level>) {
        let relative = folder.join(name);
        match self.view.entry(level, &relative) {
            Ok(Entry::File(identity)) => {
                self.seen.files += 1;
                self.batch.push(Found { relative, identity });
            }
            Ok(Entry::Folder { id, links }) => {
                let level = self.view.enter(level, &relative, id, links);
                self.waiting.push((relative, level));
            }
            Ok(Entry::Excluded(rule)) => self.seen.exclude(&rule),
            // Gone between the reading of the folder and the look at it, or a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => self.seen.error(&relative, error.to_string()),
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() && !self.seen.cut {
            let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
            (self.take)(batch);
            self.seen.cut = !(self.wanted)();
        }
    }
}
