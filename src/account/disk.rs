//! What lies on disk, for the audit: the walk with everything that it shows, and looks at single names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::file::OnDisk;
use crate::os::Writers;
use crate::watch::Rule;
use crate::watch::batches::Batches;
use crate::watch::scan::{self, Spotted, Visit};
use crate::watch::tree::{Look, Tree};

/// An entry that the walk met.
#[derive(Debug)]
pub(super) struct Met {
    /// Relative to the root.
    pub relative: PathBuf,
    /// What it is.
    pub seen: OnDisk,
    /// How many files it stands for: a folder that a rule leaves out, for all that lie in it.
    pub files: u64,
}

/// Gathers what a walk shows, in its order, and hands it over in batches.
pub(super) struct Collector<'a> {
    tree: &'a Tree,
    batches: Batches<Met>,
    folders: u64,
}

impl<'a> Collector<'a> {
    /// Walks the whole tree; answers how many folders it entered. Blocks. An error says that the root is not there.
    pub fn walk(tree: &'a Tree, batches: mpsc::Sender<Vec<Met>>) -> io::Result<u64> {
        let mut collector = Self { tree, batches: Batches::new(batches), folders: 0 };
        scan::walk(tree, &[PathBuf::new()], &mut collector)?;
        collector.batches.finish();
        Ok(collector.folders)
    }

    fn meet(&mut self, relative: &Path, seen: OnDisk, files: u64) {
        self.batches.push(Met { relative: relative.to_owned(), seen, files });
    }
}

impl Visit for Collector<'_> {
    fn folder(&mut self, _relative: &Path) {
        self.folders += 1;
    }

    fn file(&mut self, file: &Spotted<'_>) {
        self.meet(file.relative, OnDisk::File(file.identity, Writers::Unknown), 1);
    }

    fn excluded(&mut self, relative: &Path, rule: &Rule) {
        let path = self.tree.absolute(relative);
        let files = match rule {
            // Nothing in it is anybody's business, and a link is one entry, wherever it leads.
            Rule::StateDirectory => 0,
            _ if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) => files_below(path),
            _ => 1,
        };
        self.meet(relative, OnDisk::Excluded(rule.clone()), files);
    }

    fn unreadable(&mut self, relative: &Path, error: &io::Error) {
        self.meet(relative, OnDisk::Unreadable(error.to_string()), 1);
    }

    fn wanted(&self) -> bool {
        self.batches.wanted()
    }
}

/// How many entries that are no folders lie in a folder and below it, as far as it can be read. No link is followed.
fn files_below(folder: PathBuf) -> u64 {
    let (mut folders, mut files) = (vec![folder], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                files += 1;
            }
        }
    }
    files
}

/// Looks at names under the root as the watch would, and asks who writes the files. Blocks. An error says that the root
/// is not there.
pub(super) fn look(tree: &Tree, names: Vec<PathBuf>) -> io::Result<Vec<(PathBuf, OnDisk)>> {
    let looks = tree.examine_all(names)?;
    Ok(looks.into_iter().map(|(name, look)| on_disk(tree, name, look)).collect())
}

fn on_disk(tree: &Tree, name: PathBuf, look: Look) -> (PathBuf, OnDisk) {
    let seen = match look {
        // Who may not open it can't take its digest either, if the daemon is the same user.
        Look::File(_, Writers::Unknown) if !may_read(&tree.absolute(&name)) => {
            OnDisk::Unreadable("permission denied".to_owned())
        }
        Look::File(identity, writers) => OnDisk::File(identity, writers),
        Look::Excluded(rule) => OnDisk::Excluded(rule),
        Look::Unreadable(error) => OnDisk::Unreadable(error.to_string()),
        Look::Folder | Look::Gone => OnDisk::Gone,
    };
    (name, seen)
}

fn may_read(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK) != Err(rustix::io::Errno::ACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Watch;

    #[test]
    fn a_walk_shows_every_entry_once_and_a_folder_that_is_left_out_stands_for_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["a", "b/c", ".git/x", ".git/objects/y", ".git/objects/z", "b.tmp"] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        fs::create_dir(root.join(".empty")).unwrap();
        std::os::unix::fs::symlink(".git", root.join("link")).unwrap();
        let tree = Tree::new(&Watch::of(root.to_owned(), "p".to_owned()), "/nonexistent".into()).unwrap();
        let (sender, mut batches) = mpsc::channel(9);
        assert_eq!(Collector::walk(&tree, sender).unwrap(), 2);
        let mut met = Vec::new();
        while let Ok(batch) = batches.try_recv() {
            met.extend(batch);
        }
        let shown: Vec<(String, u64, bool)> = met
            .iter()
            .map(|met| (met.relative.display().to_string(), met.files, matches!(met.seen, OnDisk::File(..))))
            .collect();
        let expected = [
            (".empty", 0, false),
            (".git", 3, false),
            ("a", 1, true),
            ("b.tmp", 1, false),
            ("b/c", 1, true),
            ("link", 1, false),
        ];
        assert_eq!(shown, expected.map(|(name, files, taken)| (name.to_owned(), files, taken)));
    }
}
