//! The tree that is scanned, and `find` in it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::children_cpu;
use crate::report::{Took, Watch, grouped};

/// Files in a folder.
const IN_A_FOLDER: u64 = 1_000;
/// Folders in a folder.
const FOLDERS: u64 = 32;
/// For so long a file has to be quiet before the daemon takes it, at the default of `settle`.
const SETTLE: Duration = Duration::from_secs(2);

/// Small files, a thousand to a folder, on two levels.
pub struct Tree {
    folder: TempDir,
}

impl Tree {
    /// Makes one, and has `find` through it once, so that what is compared meets it in memory.
    pub fn make(files: u64) -> Self {
        eprintln!("  making {} files", grouped(files as f64));
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), files);
        std::thread::sleep(SETTLE);
        let tree = Self { folder };
        tree.find();
        tree
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `find` that asks for what a scan needs of each file.
    pub fn find(&self) -> Took {
        let (watch, cpu) = (Watch::start(), children_cpu());
        let find = Command::new("find")
            .arg(self.path())
            .args(["-type", "f", "-printf", "%s %T@ %i %p\\n"])
            .stdout(Stdio::null())
            .status();
        assert!(find.unwrap().success());
        Took { wall: watch.stop().wall, cpu: children_cpu().saturating_sub(cpu) }
    }
}

/// Writes this many small files, each with its own content.
pub fn fill(root: &Path, files: u64) {
    for folder in 0..files.div_ceil(IN_A_FOLDER) {
        let path = root.join(format!("part-{:03}/folder-{:02}", folder / FOLDERS, folder % FOLDERS));
        fs::create_dir_all(&path).unwrap();
        for file in folder * IN_A_FOLDER..files.min((folder + 1) * IN_A_FOLDER) {
            fs::write(path.join(format!("document-{file:07}.txt")), format!("document {file}\n")).unwrap();
        }
    }
}
