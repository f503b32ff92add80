//! What lies under a watch's root, one entry at a time: by `lstat`, without opening anything but what is asked.
//!
//! Everything about an entry that needs the disk is decided here, for the walk and for a single look alike: is it
//! a folder to descend into, a file to take, or excluded, and by which rule. A walk names entries within the open
//! folder, which spares the kernel the way from the root. The state directory is told by device
//! and inode before anything in it is opened, because closing a database's file drops SQLite's locks in the same
//! process. FIFOs, sockets and devices are never opened: that would block.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::Gitignore;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use super::filter::{BadGlob, Filter, Rule, Ruling};
use super::ignored::{self, IGNORE_FILES};
use crate::config;
use crate::job::FileIdentity;
use crate::os::{self, Writers};

/// How many symbolic links may lie on the way to a file: enough for real trees, and an end to folders that link to
/// each other crosswise.
const MAX_LINKS: u32 = 8;

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

    fn of_stat(stat: &Stat) -> Self {
        Self { dev: stat.st_dev, inode: stat.st_ino }
    }
}

/// Where an entry is found: by its name in an open folder, or by a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    folder: BorrowedFd<'a>,
    name: &'a Path,
}

impl<'a> Place<'a> {
    pub(super) fn absolute(path: &'a Path) -> Self {
        Self { folder: CWD, name: path }
    }

    pub(super) fn within(folder: &'a impl AsFd, name: &'a Path) -> Self {
        Self { folder: folder.as_fd(), name }
    }

    fn stat(&self, flags: AtFlags) -> io::Result<Stat> {
        Ok(rustix::fs::statat(self.folder, self.name, flags)?)
    }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "as the kernel counts them: sizes are not negative"
)]
fn identity_of(stat: &Stat) -> FileIdentity {
    let ns = |secs: i64, nsec: u64| secs.saturating_mul(1_000_000_000).saturating_add(nsec as i64);
    FileIdentity {
        dev: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size as u64,
        mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
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
    Unreadable(Arc<io::Error>),
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

    /// Whether this file's lines are obeyed.
    pub(super) fn is_ignore_file(&self, relative: &Path) -> bool {
        self.ignore_files && relative.file_name().is_some_and(|name| IGNORE_FILES.iter().any(|known| name == *known))
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

    /// The same for many; each is asked who writes it.
    pub fn examine_all(&self, names: Vec<PathBuf>) -> io::Result<Vec<(PathBuf, Look)>> {
        let probed = names.into_iter().map(|relative| (relative, true)).collect();
        Ok(self.view()?.look_at_all(probed))
    }

    /// Opens the root for a walk or for looks. Blocks; an error says that the root is missing or can't be read.
    pub(super) fn view(&self) -> io::Result<View<'_>> {
        let id = FolderId::readable(&self.root)?;
        let state = FolderId::at(&self.state_directory).ok();
        let target = if self.follow_symlinks { fs::canonicalize(&self.root)? } else { PathBuf::new() };
        let root = self.enter(None, Path::new(""), id, 0).map_err(Arc::new);
        Ok(View { tree: self, state, target, root_id: id, root })
    }

    /// An error says that the folder's ignore files can't be read, so that nobody knows what may be taken in it.
    fn enter(&self, above: Option<&Arc<Level>>, relative: &Path, id: FolderId, links: u32) -> io::Result<Arc<Level>> {
        let ignored = if self.ignore_files { ignored::read(&self.absolute(relative))? } else { None };
        Ok(Arc::new(Level { id, links, ignored, above: above.cloned() }))
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

    /// That an open folder is this one, and no other that got its name meanwhile: there a link may lead to the files of
    /// others, or to our own.
    ///
    /// # Errors
    /// `NotFound`: it is another one.
    pub(super) fn expect(&self, folder: &impl AsFd) -> io::Result<()> {
        let id = FolderId::of_stat(&rustix::fs::fstat(folder)?);
        if id == self.id { Ok(()) } else { Err(io::Error::from(ErrorKind::NotFound)) }
    }
}

/// A tree whose root was there a moment ago.
#[derive(Debug)]
pub(super) struct View<'a> {
    tree: &'a Tree,
    state: Option<FolderId>,
    /// The root with its links resolved, where links are followed.
    target: PathBuf,
    root_id: FolderId,
    root: Result<Arc<Level>, Arc<io::Error>>,
}

impl View<'_> {
    pub(super) fn absolute(&self, relative: &Path) -> PathBuf {
        self.tree.absolute(relative)
    }

    pub(super) const fn follows_symlinks(&self) -> bool {
        self.tree.follow_symlinks
    }

    pub(super) const fn root_id(&self) -> FolderId {
        self.root_id
    }

    pub(super) fn enter(
        &self,
        above: &Arc<Level>,
        relative: &Path,
        id: FolderId,
        links: u32,
    ) -> io::Result<Arc<Level>> {
        self.tree.enter(Some(above), relative, id, links)
    }

    /// Judges one entry of the folder `level`.
    pub(super) fn entry(&self, level: &Arc<Level>, relative: &Path, place: &Place<'_>) -> io::Result<Entry> {
        let mut stat = place.stat(AtFlags::SYMLINK_NOFOLLOW)?;
        let mut links = level.links;
        if kind_of(&stat) == FileType::Symlink {
            if !self.tree.follow_symlinks {
                return Ok(Entry::Excluded(Rule::Link));
            }
            if !fs::canonicalize(self.absolute(relative))?.starts_with(&self.target) {
                return Ok(Entry::Excluded(Rule::LinkOut));
            }
            stat = place.stat(AtFlags::empty())?;
            links += 1;
        }
        match kind_of(&stat) {
            FileType::Directory => return Ok(self.folder(level, relative, FolderId::of_stat(&stat), links)),
            FileType::RegularFile => (),
            _ => return Ok(Entry::Excluded(Rule::Special)),
        }
        if let Ruling::Excluded(rule) = self.tree.filter.file(relative) {
            return Ok(Entry::Excluded(rule));
        }
        #[expect(clippy::cast_sign_loss, reason = "a size is not negative")]
        if let Ruling::Excluded(rule) = self.tree.filter.size(stat.st_size as u64) {
            return Ok(Entry::Excluded(rule));
        }
        if let Some(rule) = self.ignored(level, relative, false).or_else(|| self.not_ready(place)) {
            return Ok(Entry::Excluded(rule));
        }
        Ok(Entry::File(identity_of(&stat)))
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
        match self.ignored(level, relative, true) {
            Some(rule) => Entry::Excluded(rule),
            None => Entry::Folder { id, links },
        }
    }

    fn ignored(&self, level: &Arc<Level>, relative: &Path, is_folder: bool) -> Option<Rule> {
        if !self.tree.ignore_files {
            return None;
        }
        let nearest_first = level.upwards().filter_map(|above| above.ignored.as_ref());
        ignored::rule(nearest_first, &self.absolute(relative), is_folder)
    }

    fn not_ready(&self, place: &Place<'_>) -> Option<Rule> {
        let suffix = self.tree.filter.ready_suffix()?;
        let mut companion = place.name.as_os_str().to_owned();
        companion.push(suffix);
        let there = rustix::fs::statat(place.folder, &companion, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        (!there).then(|| Rule::NotReady(suffix.to_owned()))
    }

    /// The folder at `relative` with all above it, if a walk from the root would come there.
    pub(super) fn descend(&self, relative: &Path) -> Result<Arc<Level>, Look> {
        let mut level = self.root.clone().map_err(Look::Unreadable)?;
        let mut here = PathBuf::new();
        for component in relative.components() {
            here.push(component);
            match self.entry(&level, &here, &Place::absolute(&self.absolute(&here))) {
                Ok(Entry::Folder { id, links }) => level = self.enter(&level, &here, id, links).map_err(missing)?,
                Ok(Entry::File(_)) => return Err(Look::Gone),
                Ok(Entry::Excluded(rule)) => return Err(Look::Excluded(rule)),
                Err(error) => return Err(missing(error)),
            }
        }
        Ok(level)
    }

    /// Looks at one path; `probe` asks whether somebody writes it.
    pub(super) fn look(&self, relative: &Path, probe: bool) -> Look {
        let above = relative.parent().unwrap_or_else(|| Path::new(""));
        match self.descend(above) {
            Ok(level) => self.look_in(&level, relative, probe),
            Err(look) => look,
        }
    }

    /// Looks at many; those in one folder share the way down to it.
    pub(super) fn look_at_all(&self, names: Vec<(PathBuf, bool)>) -> Vec<(PathBuf, Look)> {
        let mut folders: HashMap<PathBuf, Result<Arc<Level>, Look>> = HashMap::new();
        let look = |(relative, probe): (PathBuf, bool)| {
            let above = relative.parent().unwrap_or_else(|| Path::new("")).to_owned();
            let level = folders.entry(above).or_insert_with_key(|above| self.descend(above));
            let look = match level {
                Ok(level) => self.look_in(level, &relative, probe),
                Err(look) => look.clone(),
            };
            (relative, look)
        };
        names.into_iter().map(look).collect()
    }

    /// Looks at one entry of the folder `level`.
    pub(super) fn look_in(&self, level: &Arc<Level>, relative: &Path, probe: bool) -> Look {
        let (Some(above), Some(name)) = (relative.parent(), relative.file_name()) else { return Look::Folder };
        let folder = match self.folder_of(level, above) {
            Ok(folder) => folder,
            Err(error) => return missing(error),
        };
        let place = Place::within(&folder, Path::new(name));
        // The probe comes before the stat: who starts to write after it, changes what the next stat says.
        let writers = if probe { self.writers(&place) } else { Writers::Unknown };
        match self.entry(level, relative, &place) {
            Ok(Entry::File(identity)) => Look::File(identity, writers),
            Ok(Entry::Folder { .. }) => Look::Folder,
            Ok(Entry::Excluded(rule)) => Look::Excluded(rule),
            Err(error) => missing(error),
        }
    }

    /// The folder `level`, to look at names in it.
    fn folder_of(&self, level: &Level, relative: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, self.absolute(relative), flags, Mode::empty())?;
        level.expect(&folder)?;
        Ok(folder)
    }

    /// Whether somebody has the file open for writing. Opens nothing but regular files.
    pub(super) fn writers(&self, place: &Place<'_>) -> Writers {
        let follow = self.tree.follow_symlinks;
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        if !place.stat(flags).is_ok_and(|stat| kind_of(&stat) == FileType::RegularFile) {
            return Writers::Unknown;
        }
        let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY | nofollow;
        match rustix::fs::openat(place.folder, place.name, flags, Mode::empty()).map(File::from) {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.is_file()) => os::writers(&file),
            // Somebody holds a lease of their own on it (a file server, for its client).
            Err(rustix::io::Errno::WOULDBLOCK) => Writers::Some,
            _ => Writers::Unknown,
        }
    }

    /// Whether nothing that a walk could find has this name; a folder above that may not be read proves nothing.
    pub(super) fn is_gone(&self, relative: &Path) -> bool {
        let path = self.tree.absolute(relative);
        let meta = if self.tree.follow_symlinks { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        match meta {
            Ok(meta) => !meta.is_file(),
            Err(error) => matches!(missing(error), Look::Gone),
        }
    }
}

fn missing(error: io::Error) -> Look {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Look::Gone,
        _ => Look::Unreadable(Arc::new(error)),
    }
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

/// A folder's path with a slash at its end: what the names of everything in it begin with.
pub(super) fn prefix_of(folder: &Path) -> PathBuf {
    let mut prefix = folder.as_os_str().as_bytes().to_vec();
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    PathBuf::from(std::ffi::OsString::from_vec(prefix))
}
