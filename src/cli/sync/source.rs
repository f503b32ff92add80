//! The bytes of a list: a file, or whatever comes down a pipe.
//!
//! A pipe may be silent for as long as it likes. So it is asked first whether it has something, for a short time, and
//! silence is an answer ([`io::ErrorKind::WouldBlock`]): nobody hangs in a read that nothing can interrupt.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::failure::Failure;
use super::super::screen::clean;
use super::super::view::lossy;

/// How long a silent pipe is listened to.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A list that is open.
#[derive(Debug)]
pub struct Source {
    file: File,
    /// A regular file: it can be read again, and its end is known.
    path: Option<PathBuf>,
    size_bytes: Option<u64>,
    /// What was read of a pipe already, and has to be read again first.
    again: Option<File>,
}

impl Source {
    /// Opens a file. What is no regular file (a FIFO, a `<(…)` of a shell) is read as a standard input would be.
    pub fn file(path: &Path) -> Result<Self, Failure> {
        let wrong = |error: io::Error| Failure::failed(format!("the list {}: {error}", clean(&lossy(path))));
        let file = File::open(path).map_err(wrong)?;
        let meta = file.metadata().map_err(wrong)?;
        if meta.is_dir() {
            return Err(Failure::usage(format!(
                "{} is a folder; sync takes a file with one path a line (find {0} -type f | ingestd sync -)",
                clean(&lossy(path))
            )));
        }
        let regular = meta.is_file();
        Ok(Self {
            file,
            path: regular.then(|| path.to_path_buf()),
            size_bytes: regular.then_some(meta.len()),
            again: None,
        })
    }

    /// The standard input.
    pub fn stdin() -> Result<Self, Failure> {
        let unreadable = |error| Failure::failed(format!("the standard input can't be read: {error}"));
        let file = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?);
        Ok(Self { file, path: None, size_bytes: None, again: None })
    }

    /// The regular file that it is.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// How long it is, where that is known.
    pub const fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    /// Whether lines come when they please.
    pub const fn is_stream(&self) -> bool {
        self.path.is_none()
    }

    /// Goes back so that the next byte is the one at `bytes`: what was read of a pipe lies in `spool`.
    pub fn go_back(&mut self, bytes: u64, spool: Option<File>) -> io::Result<()> {
        match spool {
            Some(mut spool) => {
                spool.seek(SeekFrom::Start(bytes))?;
                self.again = Some(spool);
            }
            None => {
                self.file.seek(SeekFrom::Start(bytes))?;
            }
        }
        Ok(())
    }

    fn has_something(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut fds, Some(&PATIENCE)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(again) = &mut self.again {
            match again.read(buffer)? {
                0 => self.again = None,
                read => return Ok(read),
            }
        }
        if self.is_stream() && !self.has_something()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.file.read(buffer)
    }
}

/// A file without a name, for what was read of a pipe to find out whether it is known.
pub fn spool(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("{:016x}.beginning", fastrand::u64(..)));
    let options =
        std::os::unix::fs::OpenOptionsExt::mode(File::options().read(true).write(true).create_new(true), 0o600)
            .open(&path);
    let file = options?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Writes what was read to the spool.
pub fn keep(spool: Option<&mut File>, bytes: &[u8]) -> io::Result<()> {
    spool.map_or(Ok(()), |spool| spool.write_all(bytes))
}
