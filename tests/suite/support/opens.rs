//! Who opens what: the kernel's own count of the times that files and folders were opened.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// Counts the opens of one file or folder (not of what is in it), by anybody, the test included.
pub struct Opens {
    inotify: OwnedFd,
    counted: usize,
}

impl Opens {
    /// Counts from now on.
    pub fn of(path: &Path) -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&inotify, path, WatchFlags::OPEN).unwrap();
        Self { inotify, counted: 0 }
    }

    /// How often so far. Opens that follow each other before anybody asks may count as one.
    pub fn count(&mut self) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            // In a watched folder, the opens of what is in it come with a name.
            self.counted += usize::from(event.file_name().is_none());
        }
        self.counted
    }
}
