//! One file has one name, however a list spells it: its folder without links and dots, as `add` has it.
//!
//! Lists name the files of a folder one after the other, so folders that were looked at are remembered for a while.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::control::WirePath;

/// Folders that are remembered.
const REMEMBERED: usize = 1_024;

/// Folders by the names that a list gives them.
pub struct Folders {
    root: PathBuf,
    /// `None`: it is not there, and its files keep the names that they were given.
    real: HashMap<PathBuf, Option<PathBuf>>,
}

impl Folders {
    /// Relative paths count from `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root, real: HashMap::new() }
    }

    /// See [`Self::new`].
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Gives a file the one name that it has.
    pub fn settle(&mut self, path: &mut WirePath) {
        // A path that ends in a slash or a dot names a folder, whatever lies there.
        let plain = path.0.components().next_back().is_some_and(|last| matches!(last, Component::Normal(_)));
        let bytes = path.0.as_os_str().as_bytes();
        if !plain || bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
            return;
        }
        let Some(cut) = bytes.iter().rposition(|byte| *byte == b'/') else { return };
        let (folder, name) = (Path::new(OsStr::from_bytes(&bytes[..cut.max(1)])), OsStr::from_bytes(&bytes[cut + 1..]));
        if let Some(folder) = self.real(folder) {
            path.0 = folder.join(name);
        }
    }

    fn real(&mut self, folder: &Path) -> Option<&Path> {
        if !self.real.contains_key(folder) {
            if self.real.len() >= REMEMBERED {
                self.real.clear();
            }
            self.real.insert(folder.to_path_buf(), std::fs::canonicalize(folder).ok());
        }
        self.real.get(folder)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_spelt_a_file_has_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::os::unix::fs::symlink(root.join("sub"), root.join("link")).unwrap();
        let mut folders = Folders::new(root.clone());
        let mut settled = |name: &str| {
            let mut path = WirePath(root.join(name));
            folders.settle(&mut path);
            path.0
        };
        for name in ["sub/a", "./sub/a", "link/a", "sub/../link//a"] {
            assert_eq!(settled(name), root.join("sub/a"), "{name}");
        }
        assert_eq!(settled("link"), root.join("link"));
        assert_eq!(settled("none/../a"), root.join("none/../a"));
        assert_eq!(settled("sub/").as_os_str().as_bytes().last(), Some(&b'/'));
    }
}
