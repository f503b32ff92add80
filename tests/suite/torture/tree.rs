//! The tree as writers reach it: through a descriptor of the root, which follows it wherever it is renamed.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// A folder that is held, whatever its name.
pub struct Held {
    folder: File,
}

impl Held {
    /// Holds this folder.
    pub fn new(path: &Path) -> Self {
        Self { folder: File::open(path).unwrap() }
    }

    /// A path in it, valid while it is held.
    pub fn at(&self, relative: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(relative)
    }
}

/// Every file below a folder that no rule of the watch excludes, relative to it.
pub fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = entry.file_name().into_encoded_bytes();
            let hidden = name.starts_with(b".") || name.ends_with(b".part");
            match (hidden, kind.is_dir()) {
                (true, _) => {}
                (false, true) => folders.push(path),
                (false, false) => found.push(path.strip_prefix(root).unwrap().to_owned()),
            }
        }
    }
    found
}
