//! A disk with a volatile cache: what is not synced is only promised to those who look now.
//!
//! 1. There are two pictures of it. The *live* one is what programs see. The *stable* one is what the platter holds.
//!    A sync carries over what POSIX says that it does, and nothing else:
//!    - `fsync` of a file: its content, size, mode and times. **Not its name.**
//!    - `fsync` of a folder: the names in it, as they are. Not the contents of what they stand for, and not the
//!      folder's own name in its parent.
//! 2. Each change of names (create, link, unlink, rename also across folders) reaches the platter whole or not at all,
//!    as on every file system with a journal. In which order they do is nobody's promise, but that changes of one and
//!    the same name keep theirs.
//! 3. When the power goes, chance decides of every change that was not synced whether it made it: of names one by one,
//!    of contents by pages of 4 KiB, some of them torn into sectors of 512 bytes, of sizes by themselves. How lucky
//!    it is, is drawn for each cut, from nothing at all to nearly everything. So what was written later may be there
//!    without what was written before.
//!
//! This is stricter than ext4, XFS or btrfs, which sync a new file's name with the file and keep most orders, because
//! this is all that `fsync(2)` promises: *"Calling `fsync()` does not necessarily ensure that the entry in the directory
//! containing the file has also reached disk. For that an explicit `fsync()` on a file descriptor for the directory is
//! also needed."*

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// The number of a file or folder, which it keeps through power cuts.
pub type Ino = u64;
/// The number of the topmost folder, as the kernel wants it.
pub const ROOT: Ino = 1;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// A file or folder.
#[derive(Clone, Debug)]
pub struct Node {
    /// Kind and rights, as `stat` has them.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: SystemTime,
    pub changed: SystemTime,
    /// How many names it has.
    pub links: u32,
    pub content: Content,
}

/// What is in it.
#[derive(Clone, Debug)]
pub enum Content {
    File(Vec<u8>),
    Folder(BTreeMap<Vec<u8>, Ino>),
    Symlink(Vec<u8>),
    /// A socket or a pipe, whose content is the kernel's.
    Special,
}

/// One change of names, which is made as a whole: what each of them stands for from now on.
type Renaming = Vec<(Ino, Vec<u8>, Option<Ino>)>;

/// The disk.
pub struct Disk {
    live: BTreeMap<Ino, Node>,
    stable: BTreeMap<Ino, Node>,
    /// Pages that were written since the last sync; an entry without any is a change of size, mode or times.
    unsynced: BTreeMap<Ino, BTreeSet<usize>>,
    /// Changes of names since they were last synced, in order.
    renamings: Vec<Renaming>,
    next: Ino,
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        let root = Node { links: 1, ..Node::new(0o40_755, 0, 0, Content::Folder(BTreeMap::new())) };
        let live = BTreeMap::from([(ROOT, root)]);
        Self { stable: live.clone(), live, unsynced: BTreeMap::new(), renamings: Vec::new(), next: ROOT + 1 }
    }

    /// What is seen now under this number. Files without a name stay until the power goes: somebody has them open.
    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.live.get(&ino)
    }

    /// The same, to change mode, owner or times.
    pub fn change(&mut self, ino: Ino) -> Option<&mut Node> {
        self.unsynced.entry(ino).or_default();
        self.live.get_mut(&ino)
    }

    /// The names in a folder.
    pub fn names(&self, folder: Ino) -> Option<&BTreeMap<Vec<u8>, Ino>> {
        self.live.get(&folder).and_then(Node::names)
    }

    /// What a name stands for.
    pub fn look_up(&self, folder: Ino, name: &[u8]) -> Option<Ino> {
        self.names(folder)?.get(name).copied()
    }

    /// A new node, without a name yet.
    pub fn create(&mut self, node: Node) -> Ino {
        let ino = self.next;
        self.next += 1;
        self.live.insert(ino, node);
        ino
    }

    /// Changes names, all of them or, where the power goes, none.
    pub fn rename(&mut self, renaming: Renaming) {
        put_names(&mut self.live, &renaming);
        self.renamings.push(renaming);
    }

    /// Writes into a file.
    pub fn write(&mut self, ino: Ino, offset: usize, bytes: &[u8]) {
        let Some(Node { content: Content::File(data), modified, changed, .. }) = self.live.get_mut(&ino) else {
            return;
        };
        let end = offset + bytes.len();
        if data.len() < end {
            data.resize(end, 0);
        }
        data[offset..end].copy_from_slice(bytes);
        (*modified, *changed) = (SystemTime::now(), SystemTime::now());
        self.unsynced.entry(ino).or_default().extend(offset / PAGE..end.div_ceil(PAGE));
    }

    /// Cuts or extends a file.
    pub fn resize(&mut self, ino: Ino, size: usize) {
        let Some(Node { content: Content::File(data), modified, changed, .. }) = self.live.get_mut(&ino) else {
            return;
        };
        data.resize(size, 0);
        (*modified, *changed) = (SystemTime::now(), SystemTime::now());
        self.unsynced.entry(ino).or_default();
    }

    /// `fsync` of a file.
    pub fn sync_file(&mut self, ino: Ino) {
        let (Some(pages), Some(live)) = (self.unsynced.remove(&ino), self.live.get(&ino)) else { return };
        let stable = self.stable.entry(ino).or_insert_with(|| live.emptied());
        stable.take_attributes(live);
        stable.take_size(live);
        for page in pages {
            stable.take_bytes(live, page * PAGE, PAGE);
        }
    }

    /// `fsync` of a folder: the changes in it, and those before them that are about the same names.
    pub fn sync_folder(&mut self, folder: Ino) {
        let mut names = BTreeSet::new();
        let mut synced = Vec::new();
        for index in (0..self.renamings.len()).rev() {
            let touched = |(in_folder, name, _): &(Ino, Vec<u8>, Option<Ino>)| {
                *in_folder == folder || names.contains(&(*in_folder, name.clone()))
            };
            if self.renamings[index].iter().any(touched) {
                let renaming = self.renamings.remove(index);
                names.extend(renaming.iter().map(|(folder, name, _)| (*folder, name.clone())));
                synced.push(renaming);
            }
        }
        for renaming in synced.into_iter().rev() {
            self.make_stable(&renaming);
        }
        if let Some(live) = self.live.get(&folder) {
            self.unsynced.remove(&folder);
            self.stable.entry(folder).or_insert_with(|| live.emptied()).take_attributes(live);
        }
    }

    /// Everything reaches the platter: the machine was shut down in order.
    pub fn settle(&mut self) {
        self.live.retain(|_, node| node.links > 0);
        (self.unsynced, self.renamings) = (BTreeMap::new(), Vec::new());
        self.stable = self.live.clone();
    }

    /// The power goes. Of what was not synced, each piece has this chance of having reached the platter.
    pub fn lose_power(&mut self, luck: f64, random: &mut fastrand::Rng) {
        let mut lost = BTreeSet::new();
        for renaming in std::mem::take(&mut self.renamings) {
            let names: Vec<_> = renaming.iter().map(|(folder, name, _)| (*folder, name.clone())).collect();
            if random.f64() < luck && !names.iter().any(|name| lost.contains(name)) {
                self.make_stable(&renaming);
            } else {
                lost.extend(names);
            }
        }
        for (ino, pages) in std::mem::take(&mut self.unsynced) {
            let (Some(stable), Some(live)) = (self.stable.get_mut(&ino), self.live.get(&ino)) else { continue };
            if random.f64() < luck {
                stable.take_attributes(live);
            }
            if random.f64() < luck {
                stable.take_size(live);
            }
            for page in pages {
                let torn = random.u8(..4) == 0;
                for sector in (page * PAGE..(page + 1) * PAGE).step_by(if torn { SECTOR } else { PAGE }) {
                    if random.f64() < luck {
                        stable.take_bytes(live, sector, if torn { SECTOR } else { PAGE });
                    }
                }
            }
        }
        self.live = reachable(&self.stable);
        self.stable = self.live.clone();
    }

    fn make_stable(&mut self, renaming: &Renaming) {
        for (folder, _, ino) in renaming {
            for ino in std::iter::once(*folder).chain(*ino) {
                // What was never synced is there without content.
                if let Some(live) = self.live.get(&ino) {
                    self.stable.entry(ino).or_insert_with(|| live.emptied());
                }
            }
        }
        put_names(&mut self.stable, renaming);
    }
}

impl Node {
    /// A new one, from now.
    pub fn new(mode: u32, uid: u32, gid: u32, content: Content) -> Self {
        let now = SystemTime::now();
        Self { mode, uid, gid, modified: now, changed: now, links: 0, content }
    }

    /// What `stat` calls its size.
    pub fn size(&self) -> usize {
        match &self.content {
            Content::File(data) => data.len(),
            Content::Symlink(target) => target.len(),
            Content::Folder(_) | Content::Special => 0,
        }
    }

    fn names(&self) -> Option<&BTreeMap<Vec<u8>, Ino>> {
        if let Content::Folder(names) = &self.content { Some(names) } else { None }
    }

    fn emptied(&self) -> Self {
        let content = match &self.content {
            Content::File(_) => Content::File(Vec::new()),
            Content::Folder(_) => Content::Folder(BTreeMap::new()),
            other => other.clone(),
        };
        Self { content, ..self.clone() }
    }

    fn take_attributes(&mut self, live: &Self) {
        (self.mode, self.uid, self.gid) = (live.mode, live.uid, live.gid);
        (self.modified, self.changed) = (live.modified, live.changed);
    }

    fn take_size(&mut self, live: &Self) {
        if let (Content::File(data), Content::File(_)) = (&mut self.content, &live.content) {
            data.resize(live.size(), 0);
        }
    }

    fn take_bytes(&mut self, live: &Self, from: usize, length: usize) {
        if let (Content::File(data), Content::File(wanted)) = (&mut self.content, &live.content) {
            let to = wanted.len().min(from + length);
            if from < to {
                data.resize(data.len().max(to), 0);
                data[from..to].copy_from_slice(&wanted[from..to]);
            }
        }
    }
}

fn put_names(nodes: &mut BTreeMap<Ino, Node>, renaming: &Renaming) {
    for (folder, name, ino) in renaming {
        let Some(Node { content: Content::Folder(names), modified, changed, .. }) = nodes.get_mut(folder) else {
            continue;
        };
        (*modified, *changed) = (SystemTime::now(), SystemTime::now());
        let before = match ino {
            Some(ino) => names.insert(name.clone(), *ino),
            None => names.remove(name),
        };
        if let Some(node) = before.and_then(|ino| nodes.get_mut(&ino)) {
            node.links = node.links.saturating_sub(1);
            node.changed = SystemTime::now();
        }
        if let Some(node) = ino.and_then(|ino| nodes.get_mut(&ino)) {
            node.links += 1;
            node.changed = SystemTime::now();
        }
    }
}

/// What a way leads to from the topmost folder, with its links counted.
fn reachable(nodes: &BTreeMap<Ino, Node>) -> BTreeMap<Ino, Node> {
    let mut found: BTreeMap<Ino, Node> = BTreeMap::new();
    let mut ways = vec![ROOT];
    while let Some(ino) = ways.pop() {
        if let Some(node) = found.get_mut(&ino) {
            node.links += 1;
        } else if let Some(node) = nodes.get(&ino) {
            ways.extend(node.names().into_iter().flat_map(BTreeMap::values));
            found.insert(ino, Node { links: 1, ..node.clone() });
        }
    }
    found
}
