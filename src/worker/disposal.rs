//! Takes a processed file away: deletes it, or moves it to another folder, on this filesystem or another.
//!
//! The caller commits the intent, a [`Disposition`], before the first rename, and settles the job after the last.
//! In between the filesystem alone tells how far things are, so that [`carry_out`] may be interrupted anywhere and
//! called again:
//!
//! 1. *Take*: the file is renamed to a private name beside it, and its identity is checked before and after. From
//!    then on a writer who puts a new file under the old name can't be harmed. If it is another file by now, it
//!    is put back under its name, or beside it where the name has been taken again.
//! 2. *Deliver*: the file under the private name is renamed to its target, or removed. Across filesystems it is
//!    copied to a private name in the target's folder, synced, renamed, and only then removed here.
//! 3. The content is synced, since hardly anybody who copies files into a folder does so, and the folders are synced after
//!    the renames: a settled job's file is whole where it belongs after a power loss too. It is synced before the intent
//!    is committed ([`sync_processed`]): from then on nobody looks at it again, and what a power loss left of it
//!    would be delivered as what was processed.
//!
//! | found under the old name | under the private name | then |
//! |---|---|---|
//! | what was processed | nothing | take, deliver |
//! | anything | what was processed | deliver |
//! | another file | nothing | it is another file |
//! | anything | another file | put that one back; it is another file |
//! | nothing | nothing | all was done before |
//!
//! A target is never overwritten: where its name is taken, the file becomes `name (2).ext`, `name (3).ext` and so
//! on. A crash between a copy's appearance and the removal of the original is told from a taken name by comparing
//! the two: same size, same modification time, same bytes is the copy, and no second one is made.
//!
//! All of it happens in the folder that the [`Way`] to the file leads to, which stays open: a folder that somebody
//! replaces by a link meanwhile leads to nothing of ours, and the file is as good as gone. What is delivered is the open
//! file whose identity was checked: a link, a FIFO or another file that somebody gives the private name is not.
//!
//! A symbolic link (in a watch that follows them) stands for the content behind it: the link is taken away, and a
//! move delivers a copy of the content.

mod copy;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use self::copy::{copy_to, is_copy_of};
use crate::config::Disposal;
use crate::durable::{Renamed, is_same, parent, rename_exclusively, sync_folder, sync_name};
use crate::intake::{Reached, Way, open_same};
use crate::job::{ErrorKind, Fence, FileIdentity, JobError, JobId};
use crate::os;
use crate::store::Disposition;

/// The longest name that filesystems take, in bytes.
const NAME_MAX: usize = 255;

/// Names tried in a target's folder before giving up.
const MOST_NAMES: u32 = 10_000;

/// Where a file went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It is no more under the old name: deleted, or taken away (by an earlier call, or by somebody) to where no
    /// trace of it is left to see.
    Gone,
    /// It was moved.
    Moved {
        /// Its new path.
        to: PathBuf,
    },
    /// The file under the old name is not the one that was processed: it was left there.
    AnotherFile,
}

/// What is to happen to the file at `path` (`relative` to its watch's root) with this identity, once its processor
/// is done; `None` when it stays. The caller adds the error that the job ends with, if it does.
pub fn plan(
    job: JobId,
    fence: Fence,
    path: &Path,
    relative: &Path,
    disposal: &Disposal,
    identity: FileIdentity,
) -> Option<Disposition> {
    let target = match disposal {
        Disposal::Keep => return None,
        Disposal::Delete => None,
        Disposal::Move(folder) => Some(folder.join(below(relative, path))),
    };
    let private = path.with_file_name(format!(".ingestd-{job}-{fence}"));
    Some(Disposition { path: path.to_path_buf(), private, target, identity, error: None })
}

/// `relative` if it leads below the folder that it is joined to, else the bare name.
fn below(relative: &Path, path: &Path) -> PathBuf {
    if relative.components().all(|part| matches!(part, Component::Normal(_))) {
        relative.to_path_buf()
    } else {
        path.file_name().map(PathBuf::from).unwrap_or_default()
    }
}

/// Makes the content of a processed file that is to be moved last, before the intent to move it is committed. `None`: it
/// is not under its name; after a crash it may be on its way already. Blocks.
///
/// # Errors
/// It does not last, or nobody can say. It is for [`carry_out`] to tell, after the intent: the processor's work is done.
pub fn sync_processed(disposition: &Disposition, way: &Way) -> Option<io::Result<()>> {
    disposition.target.as_ref()?;
    match way.to_file().and_then(|file| open_same(file.path(), &disposition.identity)) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => None,
        opened => absent_is_none(opened.and_then(|file| file.sync_all())).transpose(),
    }
}

/// Brings the disposition of the file to which this way leads to its end, from wherever an earlier call left it. `synced`
/// is what [`sync_processed`] said; where that is nothing, the content is synced now. Blocks: a copy takes as long as it
/// takes.
///
/// # Errors
/// Of kind [`ErrorKind::Io`] where the system has nothing to give just now, which is no fault of the job's and spends
/// nothing; otherwise of kind [`ErrorKind::Disposition`]. Nearly all are transient, even missing rights and a read-only
/// disk: the processor's work is done, the next attempt goes on from here, and an operator can repair these meanwhile.
/// Only a name that the target can never take is permanent. When the job is given up, see [`give_back`].
pub fn carry_out(disposition: &Disposition, way: &Way, synced: Option<io::Result<()>>) -> Result<Carried, JobError> {
    // First of all, so that a target that can't be reached leaves the file under its own name.
    if let Some(target) = &disposition.target {
        let folder = parent(target);
        make_folders(folder).map_err(failed("make the target's folder", folder))?;
    }
    let taken = absent_is_none(way.to_name()).and_then(|reached| {
        let Some(reached) = reached else { return Ok((None, Taken::Nothing)) };
        let here = Here::new(disposition, reached);
        let taken = take(&here)?;
        Ok((Some(here), taken))
    });
    match taken.map_err(failed("rename the processed file in its folder:", &disposition.path))? {
        (Some(here), Taken::Ours) => deliver(&here, synced),
        (_, Taken::Another) => Ok(Carried::AnotherFile),
        (here, _) => already_done(disposition, here.as_ref()).map_err(failed("sync the folder of", &disposition.path)),
    }
}

/// A disposition in the open folder of its file.
struct Here<'a> {
    told: &'a Disposition,
    path: PathBuf,
    private: PathBuf,
    /// What both paths are good for.
    _folder: Reached,
}

impl<'a> Here<'a> {
    fn new(told: &'a Disposition, reached: Reached) -> Self {
        let private = reached.beside(told.private.file_name().unwrap_or_default());
        Self { told, path: reached.path().to_path_buf(), private, _folder: reached }
    }

    /// A name in the folder, as people know it.
    fn known_as(&self, name: &Path) -> PathBuf {
        self.told.path.with_file_name(name.file_name().unwrap_or_default())
    }
}

/// Puts the file back under its own name, if it has the private one: for a job that is given up while its file
/// was on its way. Where the name was taken meanwhile, the file goes beside it. Answers what has the name now, which may
/// be another file in either case.
///
/// # Errors
/// The folder can't be written.
pub fn give_back(disposition: &Disposition, way: &Way) -> io::Result<Option<FileIdentity>> {
    let Some(reached) = absent_is_none(way.to_name())? else { return Ok(None) };
    let here = Here::new(disposition, reached);
    if identity_at(&here.private)?.is_some() {
        put_back(&here)?;
    }
    identity_at(&here.path)
}

enum Taken {
    Ours,
    Another,
    Nothing,
}

fn take(here: &Here<'_>) -> io::Result<Taken> {
    let Here { path, private, told, .. } = here;
    let is_ours = |found: Option<FileIdentity>| found.is_some_and(|found| found.same_but_for_ctime(&told.identity));
    if !exists(private)? {
        if !exists(path)? {
            return Ok(Taken::Nothing);
        }
        // Looked at first, so that a file that is not ours keeps its name without a gap.
        if !is_ours(identity_at(path)?) {
            return Ok(Taken::Another);
        }
        match fs::rename(path, private) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::Nothing),
            Err(error) => return Err(error),
        }
    }
    // Looked at again: the file may have been replaced just before the rename, now or in a call that crashed.
    if is_ours(identity_at(private)?) {
        return Ok(Taken::Ours);
    }
    put_back(here)?;
    Ok(Taken::Another)
}

/// Gives the file under the private name its own name again, or, where a newer file has it, one beside it.
fn put_back(here: &Here<'_>) -> io::Result<()> {
    let Here { path, private, .. } = here;
    let ours = private.file_name().unwrap_or_default();
    let aside = path.with_file_name(fitting(path.file_name().unwrap_or_default(), ours));
    for name in std::iter::once(path.clone()).chain(names(&aside)) {
        if rename_exclusively(private, &name)? == Renamed::Yes {
            sync_name(path)?;
            let name = here.known_as(&name);
            if name != here.told.path {
                let (path, aside) = (here.told.path.display(), name.display());
                tracing::warn!(%path, %aside, "a file was replaced twice while it was being moved: the older is kept");
            }
            return Ok(());
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

/// Takes the file under the private name to its target, or away.
fn deliver(here: &Here<'_>, synced: Option<io::Result<()>>) -> Result<Carried, JobError> {
    let Here { private, told, .. } = here;
    let Some(target) = &told.target else {
        remove(private).map_err(failed("delete", &told.private))?;
        return Ok(Carried::Gone);
    };
    // From here on it is this open file: whoever writes in the folder may give its name to another one at any moment.
    let moved = open_same(private, &told.identity).and_then(|file| {
        synced.unwrap_or_else(|| file.sync_all())?;
        match move_within(here, &file, target) {
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => move_by_copy(here, &file, target),
            moved => moved,
        }
    });
    let to = moved.map_err(failed("move the processed file to", target))?;
    Ok(Carried::Moved { to })
}

/// Moves the file by a rename; `EXDEV` where that can't be.
fn move_within(here: &Here<'_>, file: &File, target: &Path) -> io::Result<PathBuf> {
    let (private, folder) = (&here.private, parent(target));
    // The folders' devices, as those of files differ within one filesystem that is made of several.
    if is_link(private)? || parent(private).metadata()?.dev() != folder.metadata()?.dev() {
        return Err(io::Error::from_raw_os_error(libc::EXDEV));
    }
    for name in names(target) {
        if rename_exclusively(private, &name)? == Renamed::Yes {
            if !is_same(&name.symlink_metadata()?, &file.metadata()?) {
                rename_exclusively(&name, private)?;
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another file has its name by now"));
            }
            sync_folder(folder).and_then(|()| sync_name(private))?;
            return Ok(name);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

fn move_by_copy(here: &Here<'_>, file: &File, target: &Path) -> io::Result<PathBuf> {
    let private = &here.private;
    let part = part_of(here.told, target);
    remove_if_there(&part)?;
    // A copy that an earlier call finished without coming to remove the original: the names before it are taken.
    for name in names(target).take_while(|name| name.symlink_metadata().is_ok()) {
        if is_copy_of(&name, file)? {
            remove(private)?;
            return Ok(name);
        }
    }
    if let Err(error) = copy_to(file, &part) {
        // A full disk should not stay full of halves.
        let _ = remove_if_there(&part);
        return Err(error);
    }
    for name in names(target) {
        if rename_exclusively(&part, &name)? == Renamed::Yes {
            sync_name(target)?;
            remove(private)?;
            return Ok(name);
        }
    }
    remove_if_there(&part)?;
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

/// The file has neither name any more: finds where an earlier call put it, and tidies up behind that call.
fn already_done(disposition: &Disposition, here: Option<&Here<'_>>) -> io::Result<Carried> {
    // That call may have crashed before it synced.
    if let Some(here) = here {
        absent_is_none(sync_name(&here.path))?;
    }
    let Some(target) = &disposition.target else { return Ok(Carried::Gone) };
    sync_name(target)?;
    // Only left where somebody removed the original during the copy.
    let _ = remove_if_there(&part_of(disposition, target));
    let wanted = disposition.identity;
    let delivered = names(target).take_while(|name| name.symlink_metadata().is_ok()).find(|name| {
        identity_at(name).ok().flatten().is_some_and(|found| {
            (found.size, found.mtime_ns) == (wanted.size, wanted.mtime_ns)
                && (found.dev != wanted.dev || found.inode == wanted.inode)
        })
    });
    Ok(delivered.map_or(Carried::Gone, |to| Carried::Moved { to }))
}

/// Where the copy is made before it gets its name: always the same for one disposition, so that none is forgotten.
fn part_of(disposition: &Disposition, target: &Path) -> PathBuf {
    let mut name = disposition.private.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    target.with_file_name(name)
}

/// The target's name, then those to fall back to.
fn names(target: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=MOST_NAMES).map(|n| numbered(target, n))
}

/// `stem (n).ext`; the path itself for the first. A stem that would make the name too long is cut.
fn numbered(path: &Path, n: u32) -> PathBuf {
    if n == 1 {
        return path.to_path_buf();
    }
    let mut ending = OsString::from(format!(" ({n})"));
    if let Some(extension) = path.extension() {
        ending.push(".");
        ending.push(extension);
    }
    path.with_file_name(fitting(path.file_stem().unwrap_or_default(), &ending))
}

/// `stem` with `ending`, the stem cut where that would be too long for a name.
fn fitting(stem: &OsStr, ending: &OsStr) -> OsString {
    let room = NAME_MAX.saturating_sub(ending.len());
    // Where the stem is text, it is not cut within a letter.
    let cut = match stem.to_str() {
        Some(text) => text.floor_char_boundary(room),
        None => room.min(stem.len()),
    };
    let mut name = OsStr::from_bytes(&stem.as_bytes()[..cut]).to_owned();
    name.push(ending);
    name
}

/// Makes the folder and those above it, each synced into its parent.
fn make_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.is_dir()).collect();
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made?,
        }
        sync_name(folder)?;
    }
    Ok(())
}

fn exists(path: &Path) -> io::Result<bool> {
    absent_is_none(path.symlink_metadata()).map(|meta| meta.is_some())
}

fn is_link(path: &Path) -> io::Result<bool> {
    path.symlink_metadata().map(|meta| meta.is_symlink())
}

/// The identity of the file at this path, behind a link if it is one; `None` where there is none.
fn identity_at(path: &Path) -> io::Result<Option<FileIdentity>> {
    absent_is_none(path.metadata()).map(|meta| meta.as_ref().map(FileIdentity::of))
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    remove_if_there(path)?;
    sync_name(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    absent_is_none(fs::remove_file(path)).map(drop)
}

/// Turns an error into the job's, with what was being done, where, and what helps.
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JobError {
    let path = path.to_path_buf();
    move |error| {
        let message = |hint: &str| format!("can't {doing} {} ({error}){hint}", path.display());
        if os::is_shortage(&error) {
            return JobError::transient(
                ErrorKind::Io,
                message("; the system has no file, thread or memory to give just now"),
            );
        }
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            // The same name meets the same answer for ever.
            Some(Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL) => {
                JobError::permanent(ErrorKind::Disposition, message("; that filesystem can't take such a name"))
            }
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => JobError::transient(
                ErrorKind::Disposition,
                message("; give the daemon's user the right to write there (under systemd also `ReadWritePaths=`)"),
            ),
            Some(Errno::NOSPC | Errno::DQUOT) => {
                JobError::transient(ErrorKind::Disposition, message("; make room there"))
            }
            _ => JobError::transient(ErrorKind::Disposition, message("")),
        }
    }
}

#[cfg(test)]
mod tests;
