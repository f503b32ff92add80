//! Which system calls are counted, and what they are about.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// System calls that change what is on a disk, or open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `fsync`
    Fsync,
    /// `fdatasync`
    Fdatasync,
    /// `pwrite64`: the database and its log.
    Pwrite,
    /// `write` to a file on a disk.
    Write,
    /// `read`, `pread64` of a file on a disk.
    Read,
    /// `rename`, `renameat`, `renameat2`
    Rename,
    /// `unlink`, `unlinkat`, `rmdir`
    Unlink,
    /// `open`, `openat`, `creat`
    Open,
    /// `ftruncate`, `truncate`, `fallocate`
    Truncate,
    /// `mkdir`, `mkdirat`
    Mkdir,
    /// `link`, `linkat`, `symlink`, `symlinkat`
    Link,
    /// `copy_file_range`, `sendfile`
    Copy,
    /// `fchmod`, `fchown`, `utimensat` and their like
    Attributes,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fsync => "fsync",
            Self::Fdatasync => "fdatasync",
            Self::Pwrite => "pwrite64",
            Self::Write => "write",
            Self::Read => "read",
            Self::Rename => "rename",
            Self::Unlink => "unlink",
            Self::Open => "open",
            Self::Truncate => "truncate",
            Self::Mkdir => "mkdir",
            Self::Link => "link",
            Self::Copy => "copy",
            Self::Attributes => "attributes",
        })
    }
}

/// A system call that is about to happen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub call: Call,
    /// The file: as it was named, made absolute, or what the descriptor leads to.
    pub path: PathBuf,
    /// The second name of a rename or link.
    pub to: Option<PathBuf>,
    /// Whether an `open` may change the file, or make it. False of a read, true of all other calls.
    pub writes: bool,
    /// How much a write is given, in bytes.
    pub bytes: u64,
}

impl Seen {
    /// Whether it is about something at or below one of these.
    pub fn is_under(&self, folders: &[PathBuf]) -> bool {
        let below = |path: &Path| folders.iter().any(|folder| path.starts_with(folder));
        below(&self.path) || self.to.as_deref().is_some_and(below)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.path.display())?;
        self.to.iter().try_for_each(|to| write!(f, " -> {}", to.display()))
    }
}

/// Where a call says which file it is about: arguments by number.
#[derive(Clone, Copy)]
enum About {
    /// A descriptor.
    Descriptor(usize),
    /// A path, relative to the working directory.
    Path(usize),
    /// A folder's descriptor and a path.
    At(usize, usize),
}

/// What a thread that enters this system call is about to do; `None` if it isn't counted.
pub fn seen(process: u32, number: i64, arguments: &[u64; 6]) -> Option<Seen> {
    let (call, first, second) = kind(number)?;
    let mut seen = Seen { call, path: path(process, arguments, first)?, to: None, writes: true, bytes: 0 };
    seen.to = second.and_then(|second| path(process, arguments, second));
    match call {
        Call::Write | Call::Pwrite => seen.bytes = arguments[2],
        Call::Read => seen.writes = false,
        Call::Open => {
            let flags = match number {
                libc::SYS_openat => arguments[2],
                _ => arguments[1],
            };
            let changing = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
            seen.writes = flags & u64::from(changing.cast_unsigned()) != 0;
        }
        _ => {}
    }
    // Sockets, pipes and devices are no disk; what is in memory under /dev/shm counts as one.
    let is_device = ["/dev", "/proc", "/sys"].iter().any(|no| seen.path.starts_with(no));
    let on_disk = seen.path.is_absolute() && (!is_device || seen.path.starts_with("/dev/shm"));
    on_disk.then_some(seen)
}

/// Whether this system call is a [`Call::Read`].
pub fn is_read(number: i64) -> bool {
    matches!(number, libc::SYS_read | libc::SYS_pread64)
}

fn kind(number: i64) -> Option<(Call, About, Option<About>)> {
    use About::{At, Descriptor, Path};
    #[cfg(target_arch = "x86_64")]
    match number {
        libc::SYS_open | libc::SYS_creat => return Some((Call::Open, Path(0), None)),
        libc::SYS_rename => return Some((Call::Rename, Path(0), Some(Path(1)))),
        libc::SYS_unlink | libc::SYS_rmdir => return Some((Call::Unlink, Path(0), None)),
        libc::SYS_mkdir => return Some((Call::Mkdir, Path(0), None)),
        libc::SYS_link | libc::SYS_symlink => return Some((Call::Link, Path(0), Some(Path(1)))),
        libc::SYS_chmod | libc::SYS_chown => return Some((Call::Attributes, Path(0), None)),
        _ => {}
    }
    Some(match number {
        libc::SYS_fsync => (Call::Fsync, Descriptor(0), None),
        libc::SYS_fdatasync => (Call::Fdatasync, Descriptor(0), None),
        libc::SYS_pwrite64 => (Call::Pwrite, Descriptor(0), None),
        libc::SYS_write => (Call::Write, Descriptor(0), None),
        libc::SYS_read | libc::SYS_pread64 => (Call::Read, Descriptor(0), None),
        libc::SYS_renameat | libc::SYS_renameat2 => (Call::Rename, At(0, 1), Some(At(2, 3))),
        libc::SYS_unlinkat => (Call::Unlink, At(0, 1), None),
        libc::SYS_openat => (Call::Open, At(0, 1), None),
        libc::SYS_ftruncate | libc::SYS_fallocate => (Call::Truncate, Descriptor(0), None),
        libc::SYS_truncate => (Call::Truncate, Path(0), None),
        libc::SYS_mkdirat => (Call::Mkdir, At(0, 1), None),
        libc::SYS_linkat => (Call::Link, At(0, 1), Some(At(2, 3))),
        libc::SYS_symlinkat => (Call::Link, Path(0), Some(At(1, 2))),
        libc::SYS_copy_file_range => (Call::Copy, Descriptor(2), None),
        libc::SYS_sendfile => (Call::Copy, Descriptor(0), None),
        libc::SYS_fchmod | libc::SYS_fchown => (Call::Attributes, Descriptor(0), None),
        libc::SYS_fchmodat | libc::SYS_fchownat | libc::SYS_utimensat => (Call::Attributes, At(0, 1), None),
        _ => return None,
    })
}

fn path(process: u32, arguments: &[u64; 6], file: About) -> Option<PathBuf> {
    // The kernel looks at the lower half.
    let descriptor = |at: usize| u32::try_from(arguments[at] & u64::from(u32::MAX)).unwrap().cast_signed();
    let link = |name: String| fs::read_link(format!("/proc/{process}/{name}")).ok();
    match file {
        About::Descriptor(at) => link(format!("fd/{}", descriptor(at))),
        About::Path(at) => Some(link("cwd".into())?.join(string(process, arguments[at])?)),
        About::At(folder, name) => {
            // No name is the descriptor itself (`utimensat`).
            let name = if arguments[name] == 0 { PathBuf::new() } else { string(process, arguments[name])? };
            let folder = match descriptor(folder) {
                _ if name.is_absolute() => return Some(name),
                libc::AT_FDCWD => link("cwd".into())?,
                number => link(format!("fd/{number}"))?,
            };
            Some(if name.as_os_str().is_empty() { folder } else { folder.join(name) })
        }
    }
}

/// The path that stands at this address of a process.
fn string(process: u32, address: u64) -> Option<PathBuf> {
    const PAGE: u64 = 4096;
    let memory = File::open(format!("/proc/{process}/mem")).ok()?;
    let (mut bytes, mut from) = (Vec::new(), address);
    // Page by page, as the next one may not be there.
    while bytes.len() < libc::PATH_MAX.cast_unsigned() as usize {
        let mut page = vec![0; usize::try_from(PAGE - from % PAGE).ok()?];
        memory.read_exact_at(&mut page, from).ok()?;
        from += page.len() as u64;
        if let Some(end) = page.iter().position(|byte| *byte == 0) {
            bytes.extend(&page[..end]);
            return Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)));
        }
        bytes.extend(page);
    }
    None
}
