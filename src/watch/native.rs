//! Native events, by notify: hints about where to look, never the truth.
//!
//! 1. Each folder has a watch of its own, set by the scan that comes by, *before* it reads the folder
//!    ([`Covering`]): what is in the folder then is seen by the scan, and what comes later has an event. So it is
//!    known of every folder whether events tell of it; where the system's limit is reached, the rest is polled.
//! 2. notify's own thread calls our handler, which turns each event into a [`Hint`] and puts it into a bounded
//!    channel without waiting. Where that is not possible, or where the kernel or notify lost track (overflow, a full
//!    channel, a watch error), nothing is kept but the fact that something was lost, and the task answers with a
//!    scan. Opening and closing without writing are not asked for: our own reads would come back as events.
//! 3. When a folder is moved or removed, notify takes its watch and those below away; the scan of where it went sets
//!    them again.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, Event, EventKind, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::settle::Sign;

/// How many hints may wait.
const CAPACITY: usize = 4_096;
/// With more folders without events than this, the whole tree is polled.
const MAX_UNCOVERED: usize = 1_024;

/// Something that happened, by its path relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Look at this file.
    File(PathBuf, Sign),
    /// A folder is new here, or was moved here: what was put into it meanwhile had no events.
    Folder(PathBuf),
    /// Something is gone from here.
    Gone(PathBuf),
    /// Something happened to the root itself.
    Root,
    /// Something was lost: scan.
    Lost,
    /// A limit of the system was reached, as these words say: some folders send no events.
    Limit(String),
}

/// The events of one tree, until dropped.
#[derive(Debug)]
pub struct Native {
    hints: mpsc::Receiver<Hint>,
    lost: Arc<AtomicU64>,
    root: PathBuf,
    watcher: Arc<Mutex<RecommendedWatcher>>,
}

impl Native {
    /// Listens to the root alone; the folders below are added by a scan. The error says what to do.
    pub fn start(root: &Path) -> Result<Self, String> {
        let (sender, hints) = mpsc::channel(CAPACITY);
        let lost = Arc::new(AtomicU64::new(0));
        let handler = Handler { root: root.to_owned(), sender, lost: lost.clone() };
        let kinds = EventKindMask::CORE | EventKindMask::ACCESS_CLOSE;
        let config = Config::default().with_event_kinds(kinds);
        let explain = |error: notify::Error| limit(&error).unwrap_or_else(|| error.to_string());
        let mut watcher = RecommendedWatcher::new(move |event| handler.handle(event), config).map_err(explain)?;
        watcher.watch(root, RecursiveMode::NonRecursive).map_err(explain)?;
        Ok(Self { hints, lost, root: root.to_owned(), watcher: Arc::new(Mutex::new(watcher)) })
    }

    /// What a scan sets watches with.
    pub(super) fn covering(&self) -> Covering {
        let (root, watcher) = (self.root.clone(), self.watcher.clone());
        Covering { root, watcher, covered: 0, uncovered: Vec::new(), why: None }
    }

    /// Waits for hints, and gives all that are there, at most `limit`. Loses none when dropped.
    pub async fn hints(&mut self, into: &mut Vec<Hint>, limit: usize) {
        if self.hints.recv_many(into, limit).await == 0 {
            // notify's thread is gone, and with it the sender: never in order, so look for ourselves from now on.
            into.push(Hint::Limit("the thread that reads events ended".to_owned()));
        }
    }

    /// How many events were lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::AcqRel)
    }
}

/// Sets the watches of the folders that a scan comes by.
pub(super) struct Covering {
    root: PathBuf,
    watcher: Arc<Mutex<RecommendedWatcher>>,
    covered: u64,
    uncovered: Vec<PathBuf>,
    why: Option<String>,
}

/// Which of the folders that a scan came by send events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Covered {
    /// How many do.
    pub folders: u64,
    /// Those that don't, without those below them; what is in them has to be polled.
    pub uncovered: Vec<PathBuf>,
    /// Why they don't.
    pub why: Option<String>,
}

impl Covering {
    /// Sets the watch of a folder, which is going to be read after this. Blocks for some twenty microseconds.
    pub fn cover(&mut self, folder: &Path) {
        // Every other folder would meet the same limit.
        if self.why.is_some() {
            return self.leave(folder);
        }
        let watched = {
            let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
            watcher.watch(&self.root.join(folder), RecursiveMode::NonRecursive)
        };
        match watched {
            Ok(()) => self.covered += 1,
            // What is gone or can't be read is told by the scan, and has nothing to tell.
            Err(error) if is_out_of_reach(&error) => (),
            Err(error) => {
                self.why = Some(limit(&error).unwrap_or_else(|| error.to_string()));
                self.leave(folder);
            }
        }
    }

    fn leave(&mut self, folder: &Path) {
        // A walk comes by what is below a folder right after it.
        if self.uncovered.last().is_some_and(|above| folder.starts_with(above)) {
            return;
        }
        if self.uncovered.len() >= MAX_UNCOVERED {
            self.uncovered = vec![PathBuf::new()];
        } else {
            self.uncovered.push(folder.to_owned());
        }
    }

    pub fn came_to(self) -> Covered {
        Covered { folders: self.covered, uncovered: self.uncovered, why: self.why }
    }
}

struct Handler {
    root: PathBuf,
    sender: mpsc::Sender<Hint>,
    lost: Arc<AtomicU64>,
}

impl Handler {
    fn handle(&self, event: notify::Result<Event>) {
        match event {
            // An overflow has no path: this question comes first.
            Ok(event) if event.need_rescan() => self.send(Hint::Lost),
            Ok(event) => self.translate(&event),
            Err(error) => match limit(&error) {
                Some(words) => self.send(Hint::Limit(words)),
                // The scan reports folders that can't be read; they have no events, and need none.
                None if is_permission(&error) => (),
                None => self.send(Hint::Lost),
            },
        }
    }

    fn translate(&self, event: &Event) {
        for path in &event.paths {
            let Ok(relative) = path.strip_prefix(&self.root) else { continue };
            if let Some(hint) = hint(event.kind, relative, path) {
                self.send(hint);
            }
        }
    }

    /// Never waits. With the channel full, a scan will find what this hint was about.
    fn send(&self, hint: Hint) {
        if self.sender.try_send(hint).is_err() {
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn hint(kind: EventKind, relative: &Path, path: &Path) -> Option<Hint> {
    let own = |hint: fn(PathBuf) -> Hint| Some(hint(relative.to_owned()));
    if relative.as_os_str().is_empty() {
        return match kind {
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => Some(Hint::Root),
            _ => None,
        };
    }
    match kind {
        EventKind::Create(CreateKind::Folder) => own(Hint::Folder),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => own(Hint::Gone),
        // The pair that follows says the same again.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        // Moved in; or its permissions changed, so that what is in it may be readable by now.
        EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_)) if is_folder(path) => own(Hint::Folder),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::File(relative.to_owned(), Sign::Closed)),
        EventKind::Access(_) => None,
        _ => Some(Hint::File(relative.to_owned(), Sign::Changed)),
    }
}

/// notify does not say whether what was moved in or changed is a folder.
fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn is_permission(error: &notify::Error) -> bool {
    matches!(&error.kind, ErrorKind::Io(error) if error.kind() == io::ErrorKind::PermissionDenied)
}

fn is_out_of_reach(error: &notify::Error) -> bool {
    let gone = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    is_permission(error)
        || matches!(&error.kind, ErrorKind::PathNotFound)
        || matches!(&error.kind, ErrorKind::Io(error) if gone(error))
}

/// What to do about a limit of the system, if that is what the error is about.
fn limit(error: &notify::Error) -> Option<String> {
    let code = match &error.kind {
        ErrorKind::MaxFilesWatch => Some(libc::ENOSPC),
        ErrorKind::Io(error) => error.raw_os_error(),
        _ => None,
    };
    let (what, sysctl) = match code? {
        libc::ENOSPC => ("the limit of watched folders is reached", OsStr::new("fs.inotify.max_user_watches")),
        libc::EMFILE => ("the limit of inotify instances is reached", OsStr::new("fs.inotify.max_user_instances")),
        _ => return None,
    };
    Some(format!("{what}: raise it with `sysctl {}=…`", sysctl.display()))
}

#[cfg(test)]
mod tests {
    use notify::event::{Flag, RemoveKind};

    use super::*;

    fn handler(capacity: usize) -> (Handler, mpsc::Receiver<Hint>, Arc<AtomicU64>) {
        let (sender, hints) = mpsc::channel(capacity);
        let lost = Arc::new(AtomicU64::new(0));
        (Handler { root: PathBuf::from("/w"), sender, lost: lost.clone() }, hints, lost)
    }

    #[test]
    fn an_overflow_without_a_path_and_a_full_channel_are_both_told() {
        let (handler, mut hints, lost) = handler(1);
        handler.handle(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        handler.handle(Ok(Event::new(EventKind::Create(CreateKind::File)).add_path(PathBuf::from("/w/a"))));
        assert_eq!(hints.try_recv(), Ok(Hint::Lost));
        assert!(hints.try_recv().is_err());
        assert_eq!(lost.load(Ordering::Acquire), 1);
    }

    #[test]
    fn events_become_hints_relative_to_the_root() {
        let (handler, mut hints, _lost) = handler(10);
        let event = |kind, path: &str| handler.handle(Ok(Event::new(kind).add_path(PathBuf::from(path))));
        event(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/w/x/a");
        event(EventKind::Create(CreateKind::Folder), "/w/x");
        event(EventKind::Modify(ModifyKind::Name(RenameMode::From)), "/w/b");
        event(EventKind::Remove(RemoveKind::Other), "/w");
        assert_eq!(hints.try_recv(), Ok(Hint::File(PathBuf::from("x/a"), Sign::Closed)));
        assert_eq!(hints.try_recv(), Ok(Hint::Folder(PathBuf::from("x"))));
        assert_eq!(hints.try_recv(), Ok(Hint::Gone(PathBuf::from("b"))));
        assert_eq!(hints.try_recv(), Ok(Hint::Root));
        assert!(hints.try_recv().is_err());
    }

    #[test]
    fn a_limit_names_its_sysctl() {
        let watches = limit(&notify::Error::new(ErrorKind::MaxFilesWatch)).unwrap();
        assert!(watches.contains("fs.inotify.max_user_watches"), "{watches}");
        let instances = limit(&notify::Error::io(io::Error::from_raw_os_error(libc::EMFILE))).unwrap();
        assert!(instances.contains("fs.inotify.max_user_instances"), "{instances}");
    }
}
