//! A writer: it owns its files and folders in the tree, does one thing after another to them, and remembers when it had
//! which file open.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FallocateFlags;

use super::content::record;
use super::tree::Held;
use crate::support::*;

/// More files than this are not made, so that each is done something to.
const FILES: usize = 60;
/// Longer than the quiet time of the watch: who stops this long with a file open is not to be believed at rest.
const LONG_REST: Duration = Duration::from_millis(500);

/// A rest this long is surely shorter than the quiet time of the watch.
const SHORT_REST: Duration = Duration::from_millis(60);
/// A rest that came out longer than this may have been quiet for long enough, on a busy machine.
const DOUBTFUL_REST: Duration = Duration::from_millis(200);

/// A time from which on a file was half-written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where it was, relative to the root.
    pub relative: PathBuf,
    /// Milliseconds of the wall clock.
    pub begun_ms: i64,
    /// A half that lay there closed for so long that it may have been taken, by right: its SHA-256.
    pub rested: Option<String>,
}

/// What a writer may do to a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// Everything.
    Everything,
    /// Nothing in place: another name has the same content.
    Move,
}

/// One writer.
pub struct Writer {
    id: u64,
    random: fastrand::Rng,
    root: Held,
    outside: PathBuf,
    files: BTreeMap<PathBuf, May>,
    folders: Vec<PathBuf>,
    serial: u64,
    written: Vec<Written>,
}

impl Writer {
    /// A writer with decisions of its own.
    pub fn new(id: u64, seed: u64, place: &Place) -> Self {
        Self {
            id,
            random: fastrand::Rng::with_seed(seed.wrapping_mul(31).wrapping_add(id)),
            root: Held::new(&place.inbox()),
            outside: place.at("outside"),
            files: BTreeMap::new(),
            folders: vec![PathBuf::new()],
            serial: 0,
            written: Vec::new(),
        }
    }

    /// Works until it is over; answers what it had half-written when.
    pub fn work(mut self, over: &AtomicBool) -> Vec<Written> {
        while !over.load(Ordering::Relaxed) {
            self.act();
            sleep(Duration::from_millis(self.random.u64(5..70)));
        }
        self.written
    }

    fn act(&mut self) {
        let Some(file) = self.a_file() else { return self.create() };
        match self.random.u32(..24) {
            0..=4 if self.files.len() < FILES => self.create(),
            5 if self.files.len() < FILES => self.preallocate(),
            6 => self.append(&file),
            7 => self.append_in_two_openings(&file),
            8..=10 => self.rewrite(&file),
            11 | 12 => self.replace(&file),
            13 => self.replace_in_disguise(&file),
            14 | 15 => self.rename(&file),
            16 => self.delete(&file),
            17 => self.delete_and_create(&file),
            18 => self.touch(&file),
            19 => self.link(&file),
            20 => self.new_folders(),
            21 => self.move_folder(),
            22 => self.bring_folder(),
            23 => self.delete_folder(),
            _ => self.touch(&file),
        }
    }

    // Files.

    fn create(&mut self) {
        let name = self.new_name();
        let content = self.content();
        let file = File::create(self.root.at(&name)).unwrap();
        self.fill(file, &name, &content);
        self.files.insert(name, May::Everything);
    }

    fn preallocate(&mut self) {
        let name = self.new_name();
        let content = self.content();
        let file = File::create(self.root.at(&name)).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, content.len() as u64).unwrap();
        self.fill(file, &name, &content);
        self.files.insert(name, May::Everything);
    }

    fn append(&mut self, name: &Path) {
        if self.files[name] == May::Move {
            return;
        }
        let content = self.content();
        let mut file = self.open(name);
        file.seek(std::io::SeekFrom::End(0)).unwrap();
        self.fill(file, name, &content);
    }

    /// Closed half-way, and back before it was quiet for long enough: nobody has it open, only `settle` speaks for it.
    fn append_in_two_openings(&mut self, name: &Path) {
        if self.files[name] == May::Move {
            return;
        }
        let content = self.content();
        let (one, two) = content.split_at(content.len() / 2);
        self.note_written(name);
        let append = |half: &[u8]| {
            File::options().append(true).open(self.root.at(name)).unwrap().write_all(half).unwrap();
        };
        append(one);
        let (half, closed) = (fs::read(self.root.at(name)).unwrap(), Instant::now());
        sleep(SHORT_REST);
        append(two);
        if closed.elapsed() > DOUBTFUL_REST {
            self.written.last_mut().unwrap().rested = Some(sha256_of(&half));
        }
    }

    fn rewrite(&mut self, name: &Path) {
        if self.files[name] == May::Move {
            return;
        }
        let content = self.content();
        let file = self.open(name);
        self.note_written(name);
        file.set_len(0).unwrap();
        self.fill(file, name, &content);
    }

    /// Atomically, as editors and downloads do.
    fn replace(&mut self, name: &Path) {
        let aside = aside(name);
        let content = self.content();
        fs::write(self.root.at(&aside), content).unwrap();
        fs::rename(self.root.at(&aside), self.root.at(name)).unwrap();
        self.files.insert(name.to_owned(), May::Everything);
    }

    /// Other content of the same size and modification time.
    fn replace_in_disguise(&mut self, name: &Path) {
        let before = fs::metadata(self.root.at(name)).unwrap();
        let size = usize::try_from(before.len()).unwrap();
        let header = self.header_length();
        if size < header + 100 {
            return;
        }
        // A record of exactly that size: the digits of its length are as many for a hundred bytes more or less.
        let fits = (size - header - 12..size).find_map(|length| {
            let content = record(&self.name_of_content(), length);
            (content.len() == size).then_some(content)
        });
        let Some(content) = fits else { return };
        self.serial += 1;
        let aside = aside(name);
        fs::write(self.root.at(&aside), content).unwrap();
        let file = File::options().append(true).open(self.root.at(&aside)).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        drop(file);
        fs::rename(self.root.at(&aside), self.root.at(name)).unwrap();
        self.files.insert(name.to_owned(), May::Everything);
    }

    fn rename(&mut self, name: &Path) {
        let new = self.new_name();
        fs::rename(self.root.at(name), self.root.at(&new)).unwrap();
        let may = self.files.remove(name).unwrap();
        self.files.insert(new, may);
    }

    fn delete(&mut self, name: &Path) {
        fs::remove_file(self.root.at(name)).unwrap();
        self.files.remove(name);
    }

    fn delete_and_create(&mut self, name: &Path) {
        fs::remove_file(self.root.at(name)).unwrap();
        sleep(Duration::from_millis(self.random.u64(..400)));
        let content = self.content();
        let file = File::create(self.root.at(name)).unwrap();
        self.fill(file, name, &content);
        self.files.insert(name.to_owned(), May::Everything);
    }

    fn touch(&mut self, name: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.root.at(name);
        if self.random.bool() {
            File::options().append(true).open(path).unwrap().set_modified(SystemTime::now()).unwrap();
        } else {
            let mode = if self.random.bool() { 0o600 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    /// From then on neither name is written in place: no event would tell of the other.
    fn link(&mut self, name: &Path) {
        let new = self.new_name();
        fs::hard_link(self.root.at(name), self.root.at(&new)).unwrap();
        self.files.insert(new, May::Move);
        self.files.insert(name.to_owned(), May::Move);
    }

    // Folders.

    /// Made and filled at once.
    fn new_folders(&mut self) {
        let mut folder = self.a_folder();
        for _ in 0..self.random.usize(1..4) {
            folder = folder.join(self.new_part("folder"));
            fs::create_dir(self.root.at(&folder)).unwrap();
            self.folders.push(folder.clone());
            let name = folder.join(self.new_part("file"));
            let content = self.content();
            fs::write(self.root.at(&name), content).unwrap();
            self.files.insert(name, May::Everything);
        }
    }

    fn move_folder(&mut self) {
        let from = self.a_folder();
        let to = self.a_folder().join(self.new_part("moved"));
        if from.as_os_str().is_empty() || to.starts_with(&from) {
            return;
        }
        fs::rename(self.root.at(&from), self.root.at(&to)).unwrap();
        let moved = |path: &Path| path.strip_prefix(&from).map_or_else(|_| path.to_owned(), |below| join(&to, below));
        self.folders = self.folders.iter().map(|folder| moved(folder)).collect();
        self.files = self.files.iter().map(|(name, may)| (moved(name), *may)).collect();
    }

    /// A full folder from outside.
    fn bring_folder(&mut self) {
        let part = self.new_part("brought");
        let (outside, inside) = (self.outside.join(&part), self.a_folder().join(&part));
        fs::create_dir_all(outside.join("below")).unwrap();
        for below in ["one", "below/two", "below/three"] {
            let content = self.content();
            fs::write(outside.join(below), content).unwrap();
            self.files.insert(inside.join(below), May::Everything);
        }
        fs::rename(outside, self.root.at(&inside)).unwrap();
        self.folders.extend([inside.join("below"), inside]);
    }

    fn delete_folder(&mut self) {
        let folder = self.a_folder();
        if folder.as_os_str().is_empty() {
            return;
        }
        fs::remove_dir_all(self.root.at(&folder)).unwrap();
        self.folders.retain(|other| !other.starts_with(&folder));
        self.files.retain(|name, _| !name.starts_with(&folder));
    }

    // What all need.

    /// Writes in pieces, with the file open all the while; the rests are at times longer than the quiet time.
    fn fill(&mut self, mut file: File, name: &Path, content: &[u8]) {
        self.note_written(name);
        let pieces = self.random.usize(1..4);
        for piece in content.chunks(content.len().div_ceil(pieces)) {
            file.write_all(piece).unwrap();
            if pieces > 1 {
                let rest = Duration::from_millis(self.random.u64(..30));
                sleep(if self.random.u32(..4) == 0 { LONG_REST } else { rest });
            }
        }
    }

    fn note_written(&mut self, name: &Path) {
        let begun_ms = jiff::Timestamp::now().as_millisecond();
        self.written.push(Written { relative: name.to_owned(), begun_ms, rested: None });
    }

    fn open(&self, name: &Path) -> File {
        File::options().write(true).open(self.root.at(name)).unwrap()
    }

    fn a_file(&mut self) -> Option<PathBuf> {
        let count = self.files.len();
        (count > 0).then(|| self.files.keys().nth(self.random.usize(..count)).unwrap().clone())
    }

    fn a_folder(&mut self) -> PathBuf {
        self.folders[self.random.usize(..self.folders.len())].clone()
    }

    fn new_name(&mut self) -> PathBuf {
        self.a_folder().join(self.new_part("file"))
    }

    /// A name that nobody has had; names of folders and files share one count.
    fn new_part(&mut self, kind: &str) -> String {
        self.serial += 1;
        format!("{kind}-{}-{}", self.id, self.serial)
    }

    fn content(&mut self) -> Vec<u8> {
        self.serial += 1;
        let length = match self.random.u32(..10) {
            0 => 0,
            1 => 200_000,
            _ => self.random.usize(..8_000),
        };
        record(&self.name_of_content(), length)
    }

    fn name_of_content(&self) -> String {
        format!("{}-{}", self.id, self.serial)
    }

    fn header_length(&self) -> usize {
        record(&self.name_of_content(), 0).len()
    }
}

/// Without the slash that joining nothing leaves.
fn join(folder: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { folder.to_owned() } else { folder.join(below) }
}

/// Beside it, under a name that is excluded.
fn aside(name: &Path) -> PathBuf {
    let mut part = name.file_name().unwrap().to_owned();
    part.push(".part");
    name.with_file_name(part)
}
