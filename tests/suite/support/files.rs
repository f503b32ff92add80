//! Files and their digests.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::Digest as _;

/// The BLAKE3 of a file as jobs show it.
pub fn blake3_of(path: &Path) -> String {
    format!("blake3:{}", blake3::hash(&fs::read(path).unwrap()).to_hex())
}

/// The SHA-256 of bytes in hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    let digits: Vec<String> = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// Writes a file under another name and renames it, so that it is never seen half.
pub fn write_new(path: &Path, content: impl AsRef<[u8]>) {
    let hidden = path.with_file_name(format!(".{}.new", path.file_name().unwrap().to_str().unwrap()));
    fs::write(&hidden, content).unwrap();
    fs::rename(&hidden, path).unwrap();
}

/// Copies up to `limit` real files with their folders into `target`: the system's documentation, or made-up ones
/// where a machine has none. Answers the copies.
pub fn corpus(target: &Path, limit: usize) -> Vec<PathBuf> {
    let root = Path::new("/usr/share/doc");
    let mut found = Vec::new();
    collect(root, limit, &mut found);
    if found.len() < limit.min(200) {
        eprintln!("skipped: /usr/share/doc has only {} files; the corpus is made up", found.len());
        return invented(target, limit);
    }
    let copy = |source: &PathBuf| {
        let copy = target.join(source.strip_prefix(root).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        // Not `fs::copy`: some documentation is read-only, and the tests change files.
        fs::write(&copy, fs::read(source).unwrap()).unwrap();
        copy
    };
    found.iter().map(copy).collect()
}

fn collect(folder: &Path, limit: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(kind) = entry.file_type() else { continue };
        if found.len() >= limit || excluded(&name) {
            continue;
        }
        if kind.is_dir() {
            collect(&entry.path(), limit, found);
        } else if kind.is_file() && entry.metadata().is_ok_and(|data| data.len() < 1 << 20) {
            found.push(entry.path());
        }
    }
}

/// What a watch excludes unless told otherwise.
fn excluded(name: &str) -> bool {
    let endings = ["~", ".part", ".partial", ".crdownload", ".tmp", ".swp"];
    name.starts_with('.') || endings.iter().any(|ending| name.ends_with(ending))
}

fn invented(target: &Path, limit: usize) -> Vec<PathBuf> {
    let make = |number: usize| {
        let path = target.join(format!("folder-{}/file-{number}.txt", number % 20));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("content {number}\n").repeat(number % 50 + 1)).unwrap();
        path
    };
    (0..limit).map(make).collect()
}
