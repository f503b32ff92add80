//! What a watch would take, for `watch test`: a walk of its own, because the watch's walk only counts what a rule
//! leaves alone, and here every entry is told with its rule.

use std::io;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::config::Watch;
use crate::watch::tree::{Look, Tree};

/// An entry under a watch.
#[derive(Debug)]
pub struct Previewed {
    /// Relative to the root.
    pub relative: PathBuf,
    /// `None`: it would be taken; else the rule that excludes it.
    pub excluded_by: Option<String>,
}

/// Walks the folder of a watch without taking anything; stops when `each` says `false`.
pub fn preview(
    watch: &Watch,
    state: &Path,
    each: &mut dyn FnMut(Previewed) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let root = watch.path.display();
    let missing = |error: io::Error| Failure::failed(format!("the folder {root} can't be read: {error}"));
    let tree = Tree::new(watch, state.to_path_buf()).map_err(|error| Failure::usage(error.to_string()))?;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for relative in names(&watch.path, &folder).map_err(missing)? {
            let excluded_by = match tree.examine(&relative).map_err(missing)? {
                Look::File(..) => None,
                Look::Excluded(rule) => Some(rule.to_string()),
                Look::Unreadable(why) => Some(format!("it can't be read: {why}")),
                Look::Folder => {
                    folders.push(relative);
                    continue;
                }
                Look::Gone => continue,
            };
            if !each(Previewed { relative, excluded_by })? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What a folder holds, in order. One below the root that can't be read holds nothing: the look at it said so.
fn names(root: &Path, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) if folder.as_os_str().is_empty() => return Err(error),
        Err(_) => return Ok(Vec::new()),
    };
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| folder.join(entry.file_name())).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_told_with_its_rule() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        for name in ["a.pdf", "b.txt", ".hidden", "sub/c.pdf"] {
            std::fs::write(root.join(name), "x").unwrap();
        }
        let mut watch = Watch::of(root.to_path_buf(), "p".to_owned());
        watch.include = vec!["**/*.pdf".to_owned()];
        let mut found = Vec::new();
        preview(&watch, Path::new("/nonexistent"), &mut |file| {
            found.push((file.relative.to_string_lossy().into_owned(), file.excluded_by.is_none()));
            Ok(true)
        })
        .unwrap();
        let expected = [(".hidden", false), ("a.pdf", true), ("b.txt", false), ("sub/c.pdf", true)];
        assert_eq!(found, expected.map(|(name, taken)| (name.to_owned(), taken)));
    }
}
