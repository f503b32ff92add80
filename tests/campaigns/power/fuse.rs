//! The kernel's side of the disk: requests of `/dev/fuse` (`linux/fuse.h`, protocol 7.31), answered from a [`Disk`].
//!
//! It speaks the protocol itself, because libraries for it work with paths, hide files that are removed while they are
//! open under names of their own, and know no rename that never overwrites. Locks and caches are the kernel's: it sees
//! everybody who uses the disk.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::disk::{Content, Disk, Ino, Node};

/// The longest request: what is written at once, and its header.
pub const LONGEST_REQUEST: usize = LONGEST_WRITE as usize + 4096;
const LONGEST_WRITE: u32 = 128 << 10;
/// For so many seconds the kernel may remember names and attributes. Nobody changes them behind its back.
const REMEMBERED: u64 = 3600;

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// What is asked; the numbers are the protocol's.
mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
    pub const RENAME2: u32 = 45;
}

/// A request, and where it is being read.
pub struct Request<'a> {
    opcode: u32,
    unique: u64,
    node: Ino,
    uid: u32,
    gid: u32,
    body: &'a [u8],
}

type Answer = Result<Vec<u8>, Errno>;

impl<'a> Request<'a> {
    /// A request as the kernel hands it over.
    pub fn parse(bytes: &'a [u8]) -> Self {
        let body = &bytes[40..];
        let (opcode, unique, node) = (u32_at(bytes, 4), u64_at(bytes, 8), u64_at(bytes, 16));
        Self { opcode, unique, node, uid: u32_at(bytes, 24), gid: u32_at(bytes, 28), body }
    }

    /// Whether it changes or syncs something: a moment at which the power may go.
    pub fn counts(&self) -> bool {
        use opcode::{CREATE, FSYNC, FSYNCDIR, LINK, MKDIR, MKNOD, RENAME, RENAME2, RMDIR, SETATTR, SYMLINK, UNLINK};
        let names = [CREATE, LINK, MKDIR, MKNOD, RENAME, RENAME2, RMDIR, SYMLINK, UNLINK];
        names.contains(&self.opcode) || [FSYNC, FSYNCDIR, SETATTR, opcode::WRITE].contains(&self.opcode)
    }

    fn u32(&self, at: usize) -> u32 {
        u32_at(self.body, at)
    }

    fn u64(&self, at: usize) -> u64 {
        u64_at(self.body, at)
    }

    fn usize(&self, at: usize) -> usize {
        usize::try_from(self.u64(at)).unwrap()
    }

    /// The names that follow `at`, each with a NUL at its end.
    fn names(&self, at: usize) -> (Vec<u8>, Vec<u8>) {
        let mut names = self.body[at..].split(|byte| *byte == 0).map(<[u8]>::to_vec);
        (names.next().unwrap_or_default(), names.next().unwrap_or_default())
    }
}

/// One mount of a disk, from the kernel's side.
#[derive(Default)]
pub struct Session {
    /// Folders that are being read, as they were when they were opened.
    listings: HashMap<u64, Vec<(Vec<u8>, Ino, u32)>>,
    last: u64,
}

impl Session {
    /// Carries out a request; answers what goes back to the kernel: nothing where it wants no answer.
    pub fn answer(&mut self, disk: &mut Disk, request: &Request<'_>) -> Vec<u8> {
        if [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT].contains(&request.opcode) {
            return Vec::new();
        }
        let (error, body) = match self.carry_out(disk, request) {
            Ok(body) => (0, body),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let mut reply = Fields::default();
        reply.u32(u32::try_from(16 + body.len()).unwrap()).i32(error).u64(request.unique).bytes(&body);
        reply.0
    }

    fn carry_out(&mut self, disk: &mut Disk, request: &Request<'_>) -> Answer {
        let node = request.node;
        match request.opcode {
            opcode::INIT => Ok(hello()),
            opcode::STATFS => Ok(room()),
            opcode::LOOKUP => {
                disk.look_up(node, &request.names(0).0).ok_or(Errno::NOENT).and_then(|ino| entry(disk, ino))
            }
            opcode::GETATTR => attributes(disk, node),
            opcode::SETATTR => set_attributes(disk, request),
            opcode::READLINK | opcode::READ => read(disk, request),
            opcode::SYMLINK | opcode::MKNOD | opcode::MKDIR => make(disk, request).and_then(|ino| entry(disk, ino)),
            opcode::CREATE => {
                let entry = make(disk, request).and_then(|ino| entry(disk, ino))?;
                Ok([entry, opened(0)].concat())
            }
            opcode::UNLINK | opcode::RMDIR => remove(disk, request),
            opcode::RENAME => rename(disk, request, 8, 0),
            opcode::RENAME2 => rename(disk, request, 16, request.u32(8)),
            opcode::LINK => {
                name(disk, node, request.names(8).0, request.u64(0))?;
                entry(disk, request.u64(0))
            }
            opcode::OPEN => Ok(opened(0)),
            opcode::WRITE => {
                disk.write(node, request.usize(8), &request.body[40..40 + request.u32(16) as usize]);
                let mut reply = Fields::default();
                reply.u32(request.u32(16)).u32(0);
                Ok(reply.0)
            }
            opcode::FSYNC => {
                disk.sync_file(node);
                Ok(Vec::new())
            }
            opcode::FSYNCDIR => {
                disk.sync_folder(node);
                Ok(Vec::new())
            }
            opcode::OPENDIR => Ok(opened(self.list(disk, node)?)),
            opcode::READDIR => {
                let listing = self.listings.get(&request.u64(0)).ok_or(Errno::BADF)?;
                Ok(page_of(listing, request.usize(8), request.u32(16) as usize))
            }
            opcode::RELEASEDIR => {
                self.listings.remove(&request.u64(0));
                Ok(Vec::new())
            }
            opcode::RELEASE => Ok(Vec::new()),
            _ => Err(Errno::NOSYS),
        }
    }

    fn list(&mut self, disk: &Disk, folder: Ino) -> Result<u64, Errno> {
        let names = disk.names(folder).ok_or(Errno::NOTDIR)?;
        let kind = |ino: Ino| disk.node(ino).map_or(0, |node| (node.mode & S_IFMT) >> 12);
        let own = [(b".".to_vec(), folder, S_IFDIR >> 12), (b"..".to_vec(), folder, S_IFDIR >> 12)];
        let listing = own.into_iter().chain(names.iter().map(|(name, ino)| (name.clone(), *ino, kind(*ino))));
        self.last += 1;
        self.listings.insert(self.last, listing.collect());
        Ok(self.last)
    }
}

fn read(disk: &Disk, request: &Request<'_>) -> Answer {
    match &disk.node(request.node).ok_or(Errno::NOENT)?.content {
        Content::Symlink(target) => Ok(target.clone()),
        Content::File(data) => {
            let (from, length) = (request.usize(8), request.u32(16) as usize);
            Ok(data[from.min(data.len())..(from + length).min(data.len())].to_vec())
        }
        _ => Err(Errno::INVAL),
    }
}

/// Makes what the request asks for, with its name.
fn make(disk: &mut Disk, request: &Request<'_>) -> Result<Ino, Errno> {
    let file = || Content::File(Vec::new());
    let (mode, content, at) = match request.opcode {
        opcode::SYMLINK => (S_IFLNK | 0o777, Content::Symlink(request.names(0).1), 0),
        opcode::MKDIR => (request.u32(0) | S_IFDIR, Content::Folder(BTreeMap::new()), 8),
        opcode::MKNOD if request.u32(0) & S_IFMT != S_IFREG => (request.u32(0), Content::Special, 16),
        opcode::MKNOD => (request.u32(0), file(), 16),
        _ => (request.u32(4), file(), 16),
    };
    let ino = disk.create(Node::new(mode, request.uid, request.gid, content));
    name(disk, request.node, request.names(at).0, ino)?;
    Ok(ino)
}

/// Gives a file a name that is free.
fn name(disk: &mut Disk, folder: Ino, name: Vec<u8>, ino: Ino) -> Result<(), Errno> {
    if disk.look_up(folder, &name).is_some() {
        return Err(Errno::EXIST);
    }
    disk.rename(vec![(folder, name, Some(ino))]);
    Ok(())
}

fn remove(disk: &mut Disk, request: &Request<'_>) -> Answer {
    let (name, _) = request.names(0);
    let ino = disk.look_up(request.node, &name).ok_or(Errno::NOENT)?;
    if disk.names(ino).is_some_and(|names| !names.is_empty()) {
        return Err(Errno::NOTEMPTY);
    }
    disk.rename(vec![(request.node, name, None)]);
    Ok(Vec::new())
}

fn rename(disk: &mut Disk, request: &Request<'_>, names_at: usize, flags: u32) -> Answer {
    const NOREPLACE: u32 = 1;
    let (folder, target) = (request.node, request.u64(0));
    let (from, to) = request.names(names_at);
    let ino = disk.look_up(folder, &from).ok_or(Errno::NOENT)?;
    let there = disk.look_up(target, &to);
    if flags & !NOREPLACE != 0 {
        return Err(Errno::INVAL);
    }
    if flags == NOREPLACE && there.is_some() {
        return Err(Errno::EXIST);
    }
    if there.and_then(|ino| disk.names(ino)).is_some_and(|names| !names.is_empty()) {
        return Err(Errno::NOTEMPTY);
    }
    // Two names of one file: POSIX leaves both.
    if there != Some(ino) {
        disk.rename(vec![(folder, from, None), (target, to, Some(ino))]);
    }
    Ok(Vec::new())
}

fn set_attributes(disk: &mut Disk, request: &Request<'_>) -> Answer {
    let valid = |bit: u32| request.u32(0) & bit != 0;
    let ino = request.node;
    if valid(1 << 3) {
        disk.resize(ino, request.usize(16));
    }
    let node = disk.change(ino).ok_or(Errno::NOENT)?;
    if valid(1) {
        node.mode = node.mode & S_IFMT | request.u32(68) & !S_IFMT;
    }
    if valid(1 << 1) {
        node.uid = request.u32(76);
    }
    if valid(1 << 2) {
        node.gid = request.u32(80);
    }
    if valid(1 << 8) {
        node.modified = SystemTime::now();
    } else if valid(1 << 5) {
        node.modified = UNIX_EPOCH + Duration::new(request.u64(40), request.u32(60));
    }
    node.changed = SystemTime::now();
    attributes(disk, ino)
}

/// Fields of an answer, one after the other.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }
}

/// `fuse_init_out`: large writes, and nothing that would let the kernel keep what was written to itself.
fn hello() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    let mut reply = Fields::default();
    reply.u32(7).u32(31).u32(LONGEST_WRITE).u32(BIG_WRITES).u32(0).u32(LONGEST_WRITE).u32(1).u32(0);
    reply.bytes(&[0; 32]);
    reply.0
}

/// `fuse_open_out`. Pages stay in the kernel's cache from one open to the next, which SQLite's shared memory needs.
fn opened(handle: u64) -> Vec<u8> {
    const KEEP_CACHE: u32 = 1 << 1;
    let mut reply = Fields::default();
    reply.u64(handle).u32(KEEP_CACHE).u32(0);
    reply.0
}

/// `fuse_statfs_out`: room enough.
fn room() -> Vec<u8> {
    const BLOCKS: u64 = 1 << 24;
    let mut reply = Fields::default();
    for _ in 0..5 {
        reply.u64(BLOCKS);
    }
    reply.u32(4096).u32(255).u32(4096).bytes(&[0; 28]);
    reply.0
}

/// `fuse_attr_out`.
fn attributes(disk: &Disk, ino: Ino) -> Answer {
    let mut reply = Fields::default();
    reply.u64(REMEMBERED).u64(0).bytes(&attr(disk, ino)?);
    Ok(reply.0)
}

/// `fuse_entry_out`.
fn entry(disk: &Disk, ino: Ino) -> Answer {
    let mut reply = Fields::default();
    reply.u64(ino).u64(0).u64(REMEMBERED).u64(REMEMBERED).u64(0).bytes(&attr(disk, ino)?);
    Ok(reply.0)
}

/// `fuse_attr`.
fn attr(disk: &Disk, ino: Ino) -> Answer {
    let node = disk.node(ino).ok_or(Errno::NOENT)?;
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (modified, changed) = (since(node.modified), since(node.changed));
    let size = node.size() as u64;
    let mut reply = Fields::default();
    reply.u64(ino).u64(size).u64(size.div_ceil(512));
    reply.u64(modified.as_secs()).u64(modified.as_secs()).u64(changed.as_secs());
    reply.u32(modified.subsec_nanos()).u32(modified.subsec_nanos()).u32(changed.subsec_nanos());
    reply.u32(node.mode).u32(node.links).u32(node.uid).u32(node.gid).u32(0).u32(4096).u32(0);
    Ok(reply.0)
}

/// As many `fuse_dirent` from the `from`-th on as fit.
fn page_of(listing: &[(Vec<u8>, Ino, u32)], from: usize, room: usize) -> Vec<u8> {
    let mut page = Fields::default();
    for (index, (name, ino, kind)) in listing.iter().enumerate().skip(from) {
        let padded = name.len().next_multiple_of(8);
        if page.0.len() + 24 + padded > room {
            break;
        }
        page.u64(*ino).u64(index as u64 + 1).u32(u32::try_from(name.len()).unwrap()).u32(*kind).bytes(name);
        page.0.resize(page.0.len() + padded - name.len(), 0);
    }
    page.0
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
