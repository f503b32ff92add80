//! What happens to the files of a database, each by chance from the seed.

use std::fmt;
use std::fs;
use std::path::Path;

use fastrand::Rng;

use super::history::{End, History, beside};

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// One bit of the database, in a page of a kind that is chosen first, so that rare kinds are met as well.
    Bit,
    /// Some bits of one page.
    Bits,
    /// The first half of a page is of an earlier time, or the second.
    Torn,
    /// A whole page is of an earlier time: a write that never reached the disk.
    Stale,
    /// Two pages have changed places.
    Swapped,
    /// A page is zeroes.
    Zeroed,
    /// Some pages in a row are noise.
    Noise,
    /// The file ends too early.
    Cut,
    /// The log ends too early.
    LogCut,
    /// A bit of the log.
    LogBit,
    /// Noise follows the log.
    LogNoise,
    /// The log is gone.
    LogGone,
    /// The log is one of another database of the same program.
    LogForeign,
    /// The log's index is noise.
    IndexNoise,
    /// The file is noise.
    Garbage,
    /// The file is empty.
    Empty,
    /// The file is a text.
    Text,
    /// The file is a folder.
    Folder,
    /// The file is a database of another program.
    Stranger,
}

use Damage::{
    Bit, Bits, Cut, Empty, Folder, Garbage, IndexNoise, LogBit, LogCut, LogForeign, LogGone, LogNoise, Noise, Stale,
    Stranger, Swapped, Text, Torn, Zeroed,
};

/// Every kind.
pub const ALL: [Damage; 19] = [
    Bit, Bits, Torn, Stale, Swapped, Zeroed, Noise, Cut, LogCut, LogBit, LogNoise, LogGone, LogForeign, IndexNoise,
    Garbage, Empty, Text, Folder, Stranger,
];

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Damage {
    /// The end of the history that it needs.
    pub fn end(self, random: &mut Rng) -> End {
        match self {
            LogCut | LogBit | LogNoise | LogGone | LogForeign | IndexNoise => End::Killed,
            // What the log has is read from there, so its file may be damaged without anybody noticing.
            _ if random.u8(0..4) == 0 => End::Killed,
            _ => End::Stopped,
        }
    }

    /// Whether nothing of the file is left.
    pub const fn is_total(self) -> bool {
        matches!(self, Garbage | Empty | Text | Folder | Stranger)
    }

    /// Does it; says what exactly.
    pub fn inflict(self, history: &History, random: &mut Rng) -> String {
        let database = history.place.database();
        let log = beside(&database, "-wal");
        let within = |path: &Path, change: &mut dyn FnMut(&mut Vec<u8>) -> String| {
            let mut bytes = fs::read(path).unwrap();
            let said = change(&mut bytes);
            fs::write(path, bytes).unwrap();
            said
        };
        match self {
            Bit => within(&database, &mut |bytes| flip(bytes, 1, random)),
            Bits => within(&database, &mut |bytes| flip(bytes, 1 + random.usize(1..8), random)),
            Torn | Stale => {
                let earlier = fs::read(history.place.at("earlier.db")).unwrap();
                within(&database, &mut |bytes| stale(bytes, &earlier, self == Torn, random))
            }
            Swapped => within(&database, &mut |bytes| swap(bytes, random)),
            Zeroed => within(&database, &mut |bytes| fill(bytes, 1, &mut |_| 0, random)),
            Noise => {
                let mut noise = random.fork();
                within(&database, &mut |bytes| fill(bytes, 1 + random.usize(0..4), &mut |_| noise.u8(..), random))
            }
            Cut => within(&database, &mut |bytes| cut(bytes, 512, random)),
            LogCut => within(&log, &mut |bytes| cut(bytes, 0, random)),
            LogBit => within(&log, &mut |bytes| {
                let at = random.usize(0..bytes.len());
                bytes[at] ^= 1 << random.u8(0..8);
                format!("byte {at} of {}", bytes.len())
            }),
            LogNoise => within(&log, &mut |bytes| {
                let more = random.usize(1..20_000);
                bytes.extend((0..more).map(|_| random.u8(..)));
                format!("{more} bytes")
            }),
            LogGone => {
                fs::remove_file(&log).unwrap();
                String::new()
            }
            LogForeign => {
                fs::copy(history.place.at("foreign-wal"), &log).unwrap();
                String::new()
            }
            IndexNoise => within(&beside(&database, "-shm"), &mut |bytes| {
                bytes.fill_with(|| random.u8(..));
                String::new()
            }),
            Garbage => replace(&database, &(0..random.usize(1..60_000)).map(|_| random.u8(..)).collect::<Vec<_>>()),
            Empty => replace(&database, b""),
            Text => replace(&database, b"Dear database,\nthis is a letter and no table.\n"),
            Stranger => {
                replace(&database, b"");
                fs::remove_file(&database).unwrap();
                let stranger = rusqlite::Connection::open(&database).unwrap();
                stranger.execute_batch("CREATE TABLE songs (title TEXT); INSERT INTO songs VALUES ('a')").unwrap();
                stranger.close().unwrap();
                String::new()
            }
            Folder => {
                replace(&database, b"");
                fs::remove_file(&database).unwrap();
                fs::create_dir(&database).unwrap();
                String::new()
            }
        }
    }
}

/// Another file in the place of the database. Its log stays, as it does when somebody copies a file over another.
fn replace(database: &Path, content: &[u8]) -> String {
    fs::write(database, content).unwrap();
    format!("{} bytes", content.len())
}

fn page_size(bytes: &[u8]) -> usize {
    match usize::from(u16::from_be_bytes([bytes[16], bytes[17]])) {
        1 => 65_536,
        size => size,
    }
}

/// The kind of a page by its first byte (<https://www.sqlite.org/fileformat2.html#b_tree_pages>); 0: what is no tree's.
fn kind(bytes: &[u8], page: usize) -> u8 {
    let at = page * page_size(bytes) + if page == 0 { 100 } else { 0 };
    if [2, 5, 10, 13].contains(&bytes[at]) { bytes[at] } else { 0 }
}

/// A page: its kind is chosen first, so that those of which there are few are met too.
fn page(bytes: &[u8], random: &mut Rng) -> usize {
    let pages = bytes.len() / page_size(bytes);
    if random.u8(0..8) == 0 {
        return 0;
    }
    let wanted = *random.choice([0, 2, 5, 10, 13].iter()).unwrap();
    let such: Vec<usize> = (0..pages).filter(|page| kind(bytes, *page) == wanted).collect();
    random.choice(such).unwrap_or_else(|| random.usize(0..pages))
}

/// The leaves of a table, in order, by the number of its root
/// (<https://www.sqlite.org/fileformat2.html#b_tree_pages>).
pub fn leaves(bytes: &[u8], root: usize) -> Vec<usize> {
    let start = (root - 1) * page_size(bytes);
    let child = |at: usize| u32::from_be_bytes(bytes[start + at..start + at + 4].try_into().unwrap()) as usize;
    let short = |at: usize| usize::from(u16::from_be_bytes([bytes[start + at], bytes[start + at + 1]]));
    match kind(bytes, root - 1) {
        5 => {
            let children = (0..short(3)).map(|cell| child(short(12 + 2 * cell))).chain([child(8)]);
            children.flat_map(|child| leaves(bytes, child)).collect()
        }
        13 => vec![root],
        other => panic!("page {root} is of kind {other}, and no table's"),
    }
}

/// Makes noise of pages.
pub fn spoil(bytes: &mut [u8], pages: &[usize]) {
    let size = page_size(bytes);
    for page in pages {
        bytes[(page - 1) * size..page * size].fill(0xa5);
    }
}

fn flip(bytes: &mut [u8], bits: usize, random: &mut Rng) -> String {
    let (page, size) = (page(bytes, random), page_size(bytes));
    let places: Vec<usize> = (0..bits)
        .map(|_| {
            // Where the structure is, as often as anywhere.
            let within = if random.bool() { random.usize(0..size.min(120)) } else { random.usize(0..size) };
            let at = page * size + within;
            bytes[at] ^= 1 << random.u8(0..8);
            at
        })
        .collect();
    format!("bytes {places:?} in page {} (kind {})", page + 1, kind(bytes, page))
}

fn stale(bytes: &mut [u8], earlier: &[u8], torn: bool, random: &mut Rng) -> String {
    let size = page_size(bytes);
    let pages = bytes.len().min(earlier.len()) / size;
    let differs = |page: &usize| bytes[page * size..(page + 1) * size] != earlier[page * size..(page + 1) * size];
    let changed: Vec<usize> = (0..pages).filter(differs).collect();
    let Some(page) = random.choice(changed) else { return "no page".to_owned() };
    let (start, end) = (page * size, (page + 1) * size);
    let range = match (torn, random.bool()) {
        (false, _) => start..end,
        (true, true) => start..start + size / 2,
        (true, false) => start + size / 2..end,
    };
    bytes[range.clone()].copy_from_slice(&earlier[range.clone()]);
    format!("bytes {range:?} in page {}", page + 1)
}

fn swap(bytes: &mut [u8], random: &mut Rng) -> String {
    let (size, left, right) = (page_size(bytes), page(bytes, random), page(bytes, random));
    for offset in 0..size {
        bytes.swap(left * size + offset, right * size + offset);
    }
    format!("pages {} and {}", left + 1, right + 1)
}

fn fill(bytes: &mut [u8], pages: usize, with: &mut dyn FnMut(usize) -> u8, random: &mut Rng) -> String {
    let (size, page) = (page_size(bytes), page(bytes, random));
    let end = bytes.len().min((page + pages) * size);
    for (at, byte) in bytes[page * size..end].iter_mut().enumerate() {
        *byte = with(at);
    }
    format!("{} bytes from page {}", end - page * size, page + 1)
}

fn cut(bytes: &mut Vec<u8>, least: usize, random: &mut Rng) -> String {
    let size = if bytes.len() > 100 && bytes.starts_with(b"SQLite") { page_size(bytes) } else { 4_120 };
    let at = random.usize(least..bytes.len());
    let at = if random.bool() { at / size * size } else { at };
    let whole = bytes.len();
    bytes.truncate(at);
    format!("{at} of {whole} bytes")
}
