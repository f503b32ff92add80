//! What lies under a watch's root, one entry at a time: by `lstat`, without opening anything but what is asked.
//!
//! Everything about an entry that needs the disk is decided here, for the walk and for a single look alike: is it
//! a folder to descend into, a file to take, or excluded, and by which rule. The state directory is told by device
//! and inode before anything in it is opened, because closing a database's file drops SQLite's locks in the same
//! process. FIFOs, sockets and devices are never opened: that would block.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::filter::{BadGlob, Filter, Rule, Ruling};
use crate::config;
use crate::job::FileIdentity;
use crate::os::{self, Writers};

/// How many symbolic links may lie on the way to a file: enough for real trees, and an end to folders that link to
/// each other crosswise.
const MAX_LINKS: u32 = 8;
/// A bigger ignore file is not read.
const MAX_IGNORE_FILE_BYTES: u64 = 1 << 20;

/// Tells a folder from another that has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderId {
    /// The device.
    pub dev: u64,
    /// The inode.
    pub inode: u64,
}

impl FolderId {
    /// The folder that this path leads to, through links.
    pub fn at(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        if meta.is_dir() { Ok(Self::of(&meta)) } else { Err(io::Error::from(ErrorKind::NotADirectory)) }
    }

    /// The same, for a folder whose names can be listed.
    pub fn readable(path: &Path) -> io::Result<Self> {
        let id = Self::at(path)?;
        fs::read_dir(path).map(|_| id)
    }

    fn of(meta: &Metadata) -> Self {
        Self { dev: meta.dev(), inode: meta.ino() }
    }
}

/// What a look at one path found.
#[derive(Clone, Debug)]
pub enum Look {
    /// A file to take; and whether somebody writes it, where that was asked.
    File(FileIdentity, Writers),
    /// A folder.
    Folder,
    /// Left alone.
    Excluded(Rule),
    /// Nothing there.
    Gone,
    /// It can't be told.
    Unreadable(String),
}

/// An entry of a folder.
#[derive(Debug)]
pub(super) enum Entry {
    Folder { id: FolderId, links: u32 },
    File(FileIdentity),
    Excluded(Rule),
}

/// The tree of a watch: where it is, and its rules.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    state_directory: PathBuf,
    filter: Filter,
    follow_symlinks: bool,
    ignore_files: bool,
}

impl Tree {
    /// The tree of this watch; `state_directory` is never entered.
    pub fn new(watch: &config::Watch, state_directory: PathBuf) -> Result<Self, BadGlob> {
        Ok(Self {
            root: watch.path.clone(),
            state_directory,
            filter: Filter::new(watch)?,
            follow_symlinks: watch.follow_symlinks,
            ignore_files: watch.ignore_files,
        })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The rules that need nothing but a name.
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// A file as processors and digests open it.
    pub fn absolute(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    /// Looks at one path, as the watch would. Blocks. An error says that the root is not there.
    pub fn examine(&self, relative: &Path) -> io::Result<Look> {
        Ok(self.view()?.look(relative, true))
    }

    /// Opens the root for a walk or for looks. Blocks; an error says that the root is missing or can't be read.
    pub(super) fn view(&self) -> io::Result<View<'_>> {
        let id = FolderId::readable(&self.root)?;
        let state = FolderId::at(&self.state_directory).ok();
        let target = if self.follow_symlinks { fs::canonicalize(&self.root)? } else { PathBuf::new() };
        let root = self.enter(None, Path::new(""), id, 0);
        Ok(View { tree: self, state, target, root })
    }

    fn enter(&self, above: Option<&Arc<Level>>, relative: &Path, id: FolderId, links: u32) -> Arc<Level> {
        let ignored = if self.ignore_files { read_ignore_files(&self.absolute(relative)) } else { None };
        Arc::new(Level { id, links, ignored, above: above.cloned() })
    }
}

/// A folder on the way down, with those above it.
#[derive(Debug)]
pub(super) struct Level {
    id: FolderId,
    links: u32,
    ignored: Option<Gitignore>,
    above: Option<Arc<Level>>,
}

impl Level {
    fn upwards(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |level| level.above.as_deref())
    }
}

/// A tree whose root was there a moment ago.
#[derive(Debug)]
pub(super) struct View<'a> {
    tree: &'a Tree,
    state: Option<FolderId>,
    /// The root with its links resolved, where links are followed.
    target: PathBuf,
    root: Arc<Level>,
}

impl View<'_> {
    pub(super) fn root(&self) -> &Arc<Level> {
        &self.root
    }

    pub(super) fn absolute(&self, relative: &Path) -> PathBuf {
        self.tree.absolute(relative)
    }

    pub(super) fn root_id(&self) -> FolderId {
        self.root.id
    }

    pub(super) fn enter(&self, above: &Arc<Level>, relative: &Path, id: FolderId, links: u32) -> Arc<Level> {
        self.tree.enter(Some(above), relative, id, links)
    }

    /// Judges one entry of the folder `level`.
    pub(super) fn entry(&self, level: &Arc<Level>, relative: &Path) -> io::Result<Entry> {
        let path = self.tree.absolute(relative);
        let mut meta = fs::symlink_metadata(&path)?;
        let mut links = level.links;
        if meta.is_symlink() {
            if !self.tree.follow_symlinks {
                return Ok(Entry::Excluded(Rule::Link));
            }
            if !fs::canonicalize(&path)?.starts_with(&self.target) {
                return Ok(Entry::Excluded(Rule::LinkOut));
            }
            meta = fs::metadata(&path)?;
            links += 1;
        }
        if meta.is_dir() {
            return Ok(self.folder(level, relative, FolderId::of(&meta), links));
        }
        if !meta.is_file() {
            return Ok(Entry::Excluded(Rule::Special));
        }
        if let Ruling::Excluded(rule) = self.tree.filter.file(relative) {
            return Ok(Entry::Excluded(rule));
        }
        if let Ruling::Excluded(rule) = self.tree.filter.size(meta.len()) {
            return Ok(Entry::Excluded(rule));
        }
        if let Some(rule) = ignored_by(level, &path, false).or_else(|| self.not_ready(&path)) {
            return Ok(Entry::Excluded(rule));
        }
        Ok(Entry::File(FileIdentity::of(&meta)))
    }

    fn folder(&self, level: &Arc<Level>, relative: &Path, id: FolderId, links: u32) -> Entry {
        if self.state == Some(id) {
            return Entry::Excluded(Rule::StateDirectory);
        }
        if let Ruling::Excluded(rule) = self.tree.filter.folder(relative) {
            return Entry::Excluded(rule);
        }
        if links > MAX_LINKS || level.upwards().any(|above| above.id == id) {
            return Entry::Excluded(Rule::LinkLoop);
        }
        match ignored_by(level, &self.tree.absolute(relative), true) {
            Some(rule) => Entry::Excluded(rule),
            None => Entry::Folder { id, links },
        }
    }

    fn not_ready(&self, path: &Path) -> Option<Rule> {
        let suffix = self.tree.filter.ready_suffix()?;
        let mut companion = path.as_os_str().to_owned();
        companion.push(suffix);
        fs::symlink_metadata(companion).is_err().then(|| Rule::NotReady(suffix.to_owned()))
    }

    /// The folder at `relative` with all above it, if a walk from the root would come there.
    pub(super) fn descend(&self, relative: &Path) -> Result<Arc<Level>, Look> {
        let mut level = self.root.clone();
        let mut here = PathBuf::new();
        for component in relative.components() {
            here.push(component);
            match self.entry(&level, &here) {
                Ok(Entry::Folder { id, links }) => level = self.enter(&level, &here, id, links),
                Ok(Entry::File(_)) => return Err(Look::Gone),
                Ok(Entry::Excluded(rule)) => return Err(Look::Excluded(rule)),
                Err(error) => return Err(missing(&error)),
            }
        }
        Ok(level)
    }

    /// Looks at one path; `probe` asks whether somebody writes it.
    pub(super) fn look(&self, relative: &Path, probe: bool) -> Look {
        let above = relative.parent().unwrap_or_else(|| Path::new(""));
        let level = match self.descend(above) {
            Ok(level) => level,
            Err(look) => return look,
        };
        // The probe comes before the stat: who starts to write after it, changes what the next stat says.
        let writers = if probe { self.writers(relative) } else { Writers::Unknown };
        match self.entry(&level, relative) {
            Ok(Entry::File(identity)) => Look::File(identity, writers),
            Ok(Entry::Folder { .. }) => Look::Folder,
            Ok(Entry::Excluded(rule)) => Look::Excluded(rule),
            Err(error) => missing(&error),
        }
    }

    fn writers(&self, relative: &Path) -> Writers {
        let path = self.tree.absolute(relative);
        if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() || meta.is_symlink()) {
            return Writers::Unknown;
        }
        let nofollow = if self.tree.follow_symlinks { 0 } else { libc::O_NOFOLLOW };
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | nofollow).open(&path);
        match file {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.is_file()) => os::writers(&file),
            // Somebody holds a lease of their own on it (a file server, for its client).
            Err(error) if error.kind() == ErrorKind::WouldBlock => Writers::Some,
            _ => Writers::Unknown,
        }
    }

    /// Whether nothing that a walk could find has this name; a folder above that may not be read proves nothing.
    pub(super) fn is_gone(&self, relative: &Path) -> bool {
        let path = self.tree.absolute(relative);
        let meta = if self.tree.follow_symlinks { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        match meta {
            Ok(meta) => !meta.is_file(),
            Err(error) => matches!(missing(&error), Look::Gone),
        }
    }
}

fn missing(error: &io::Error) -> Look {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Look::Gone,
        _ => Look::Unreadable(error.to_string()),
    }
}

/// The rule of the nearest ignore file that has a word to say.
fn ignored_by(level: &Arc<Level>, path: &Path, is_folder: bool) -> Option<Rule> {
    for ignored in level.upwards().filter_map(|above| above.ignored.as_ref()) {
        let verdict = ignored.matched(path, is_folder);
        if verdict.is_whitelist() {
            return None;
        }
        if let ignore::Match::Ignore(line) = verdict {
            let file = line.from().map(Path::to_owned).unwrap_or_default();
            return Some(Rule::IgnoreFile { file, pattern: line.original().to_owned() });
        }
    }
    None
}

/// The ignore files in this folder, ours after git's so that it wins. Lines that can't be understood are passed over.
fn read_ignore_files(folder: &Path) -> Option<Gitignore> {
    let mut builder = GitignoreBuilder::new(folder);
    let mut found = false;
    for name in [".gitignore", ".ingestdignore"] {
        let path = folder.join(name);
        let fits = |meta: Metadata| meta.is_file() && meta.len() <= MAX_IGNORE_FILE_BYTES;
        if fs::symlink_metadata(&path).is_ok_and(fits) {
            builder.add(&path);
            found = true;
        }
    }
    if found { builder.build().ok() } else { None }
}

/// Whether this filesystem's changes may be made by other machines, which send us no events.
pub fn is_remote(path: &Path) -> bool {
    const NFS: u32 = 0x6969;
    const SMB: u32 = 0x517B;
    const SMB2: u32 = 0xFE53_4D42;
    const CIFS: u32 = 0xFF53_4D42;
    const FUSE: u32 = 0x6573_5546;
    const NINE_P: u32 = 0x0102_1997;
    const CEPH: u32 = 0x00C3_6400;
    const AFS: u32 = 0x5346_414F;
    const KAFS: u32 = 0x6B41_4653;
    const CODA: u32 = 0x7375_7245;
    const NCP: u32 = 0x564C;
    const LUSTRE: u32 = 0x0BD0_0BD0;
    const GFS2: u32 = 0x0116_1970;
    const OCFS2: u32 = 0x7461_636F;
    const REMOTE: [u32; 14] = [NFS, SMB, SMB2, CIFS, FUSE, NINE_P, CEPH, AFS, KAFS, CODA, NCP, LUSTRE, GFS2, OCFS2];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "magic numbers have 32 bits")]
    rustix::fs::statfs(path).is_ok_and(|fs| REMOTE.contains(&(fs.f_type as u32)))
}

/// The bytes of a folder's path with a slash at its end: what the names of everything in it begin with.
pub(super) fn prefix_of(folder: &Path) -> Vec<u8> {
    let mut prefix = folder.as_os_str().as_bytes().to_vec();
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    prefix
}
