//! The files that the jobs are about: their names, and, where something reads them, the files themselves.

use std::fs;
use std::path::{Path, PathBuf};

use ingestd::job::FileIdentity;

/// The path of file `i` relative to its watch: 60 bytes, and in the order of the numbers.
pub fn relative(i: i64) -> String {
    format!("archive/2026/11/21/incoming/scan-{:05}/document-{i:08}.pdf", i / 1_000)
}

/// [`relative`] in SQL, of a column `i`.
pub const RELATIVE_SQL: &str =
    "CAST(printf('archive/2026/11/21/incoming/scan-%05d/document-%08d.pdf', i / 1000, i) AS BLOB)";

/// What the filesystem would say about file `i`, where nobody looks at it.
pub fn identity(i: i64) -> FileIdentity {
    let changed = 1_790_000_000_000_000_000 + i * 1_000_000;
    FileIdentity { dev: 65_024, inode: i.unsigned_abs(), size: 48_000, mtime_ns: changed, ctime_ns: changed }
}

/// Makes the files 1 to `n`, small and each with its own content.
pub fn make(root: &Path, n: i64) -> Vec<(PathBuf, FileIdentity)> {
    let make = |i: i64| {
        let relative = PathBuf::from(relative(i));
        let path = root.join(&relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("document {i}\n")).unwrap();
        (relative, FileIdentity::of(&fs::symlink_metadata(&path).unwrap()))
    };
    (1..=n).map(make).collect()
}
