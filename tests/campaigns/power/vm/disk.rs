//! A block device with a volatile cache: nbdkit, whose `cache` filter carries writes to the image when they are flushed.
//!
//! 1. The image holds what was flushed, the filter's file what was written: nbdkit is the one who knows the difference,
//!    and a flush is answered when there is none.
//! 2. The filter `log` below the kernel's requests says which ranges were written since the last flush. When the power
//!    goes, nbdkit stands still, and chance decides of each of their pages whether the disk had just written it:
//!    some are carried over from the filter's file to the image, some of them torn into sectors.
//! 3. Then it is killed, and with it goes everything else.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{run, wait_until};

/// XFS wants 300 MB, and the daemon takes nothing in where less than 256 MiB are free. The image has holes.
const SIZE: u64 = 1 << 30;
const PAGE: u64 = 4096;
const SECTOR: usize = 512;

/// A disk, which has power or not.
pub struct Disk {
    folder: PathBuf,
    random: fastrand::Rng,
    /// nbdkit's word for what the cache does: `writeback`, or `unsafe`, which ignores flushes.
    cache: &'static str,
    server: Option<Server>,
}

/// What a cut has cost, in sectors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Differed from what was flushed when the power went.
    pub unflushed: u64,
    /// Of these, lost.
    pub dropped: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.unflushed += other.unflushed;
        self.dropped += other.dropped;
    }
}

/// nbdkit at work.
struct Server {
    process: Child,
    log: Log,
}

/// What was asked of it since the power came on.
struct Log {
    file: File,
    /// The beginning of a line whose end is not there yet.
    rest: String,
    /// Writes and flushes.
    requests: u64,
    /// Ranges that were written since the last flush.
    unflushed: Vec<std::ops::Range<u64>>,
}

impl Disk {
    /// A disk with a new file system, made by `mkfs` with the image as its last argument.
    pub fn new(folder: &Path, mkfs: &[&str], cache: &'static str, random: fastrand::Rng) -> Self {
        let disk = Self { folder: folder.to_owned(), random, cache, server: None };
        File::create(disk.image()).unwrap().set_len(SIZE).unwrap();
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(disk.image()));
        disk
    }

    fn image(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// Gives power; answers the socket at which the disk is.
    pub fn on(&mut self) -> PathBuf {
        let (socket, log) = (self.folder.join("disk.sock"), self.folder.join("disk.log"));
        let _ = fs::remove_file(&socket);
        let file = File::options().read(true).append(true).create(true).open(&log).unwrap();
        file.set_len(0).unwrap();
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--exit-with-parent", "--filter=log", "--filter=cache", "-U"]).arg(&socket);
        command.arg("file").arg(self.image()).arg(format!("cache={}", self.cache)).arg("logappend=true");
        command.arg(format!("logfile={}", log.display())).env("TMPDIR", &self.folder).stdin(Stdio::null());
        let process = command.spawn().unwrap();
        self.server =
            Some(Server { process, log: Log { file, rest: String::new(), requests: 0, unflushed: Vec::new() } });
        wait_until("nbdkit listens", || socket.exists());
        socket
    }

    /// How many writes and flushes there were since the power came on.
    pub fn requests(&mut self) -> u64 {
        let log = &mut self.server.as_mut().unwrap().log;
        log.read();
        log.requests
    }

    /// Whether anything was written since the last flush, as far as [`Self::requests`] has seen.
    pub fn is_dirty(&self) -> bool {
        !self.server.as_ref().unwrap().log.unflushed.is_empty()
    }

    /// From now on, the disk answers nothing.
    pub fn stop(&mut self) {
        let server = self.server.as_ref().unwrap();
        kill_process(Pid::from_child(&server.process), Signal::STOP).unwrap();
    }

    /// The power has gone: the disk has [stopped](Self::stop), and whoever used it is gone. `luck` is the chance of each
    /// page that was not flushed.
    pub fn cut(&mut self, luck: f64) -> Cost {
        let mut server = self.server.take().unwrap();
        server.log.read();
        let written = server.cache();
        let image = File::options().read(true).write(true).open(self.image()).unwrap();
        let pages: std::collections::BTreeSet<u64> =
            server.log.unflushed.iter().flat_map(|range| range.start / PAGE..range.end.div_ceil(PAGE)).collect();
        let mut cost = Cost::default();
        for page in pages {
            let torn = self.random.u8(..4) == 0;
            let mut survives = self.random.f64() < luck;
            for at in (page * PAGE..(page + 1) * PAGE).step_by(SECTOR) {
                if torn {
                    survives = self.random.f64() < luck;
                }
                cost += settle(&written, &image, at, survives);
            }
        }
        cost
    }
}

/// Carries a sector over, if it survives and there is a difference.
fn settle(written: &File, image: &File, at: u64, survives: bool) -> Cost {
    let [mut new, mut old] = [[0; SECTOR]; 2];
    written.read_exact_at(&mut new, at).unwrap();
    image.read_exact_at(&mut old, at).unwrap();
    if new == old {
        return Cost::default();
    }
    if survives {
        image.write_all_at(&new, at).unwrap();
    }
    Cost { unflushed: 1, dropped: u64::from(!survives) }
}

impl Server {
    /// The file in which the filter keeps what was written, each block at its place. It has no name.
    fn cache(&self) -> File {
        let handles = fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap();
        let mut nameless = handles
            .map(|handle| handle.unwrap().path())
            .filter(|handle| fs::read_link(handle).is_ok_and(|file| file.to_string_lossy().ends_with(" (deleted)")));
        File::open(nameless.next().expect("nbdkit's cache is a file without a name")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Log {
    fn read(&mut self) {
        self.file.read_to_string(&mut self.rest).unwrap();
        let complete = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let rest = self.rest.split_off(complete);
        for line in std::mem::replace(&mut self.rest, rest).lines() {
            self.take(line);
        }
    }

    /// A line is `DATE TIME connection=N Write id=N offset=0xN count=0xN …`, or `… ...Flush id=N return=0` at its end.
    fn take(&mut self, line: &str) {
        let mut words = line.split(' ').skip(3);
        let word = words.next().unwrap_or_default();
        let mut number = |name: &str| {
            let value = words.find_map(|word| word.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {line}"));
            u64::from_str_radix(value, 16).unwrap()
        };
        match word {
            "Write" | "Zero" => {
                let offset = number("offset=0x");
                self.unflushed.push(offset..offset + number("count=0x"));
                self.requests += 1;
            }
            "Flush" => self.requests += 1,
            "...Flush" => self.unflushed.clear(),
            _ => {}
        }
    }
}
