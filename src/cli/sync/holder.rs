//! Who reads a run: a file with a random name, locked for as long as its process lives.
//!
//! The kernel lets go of the lock however the process ends. So a run whose file is unlocked or gone has no reader, and
//! a run whose file is locked has one that lives.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::super::failure::Failure;
use crate::config::Config;
use crate::control::lock::give_to_owner;
use crate::durable;
use crate::store::Holder;

/// Our own file, held; dropping it removes it and lets go.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    name: Holder,
    _file: File,
}

impl Held {
    /// Makes a file that is ours, in the folder of this database's readers; removes files that dead ones left.
    pub fn take(config: &Config) -> Result<Self, Failure> {
        let folder = config.readers();
        let wrong = |error: io::Error| {
            Failure::failed(format!("{}: {error}; this folder tells others who reads a list", folder.display()))
        };
        let database = &config.database;
        durable::make_folder(&folder, database.mode).map_err(wrong)?;
        if let Ok(opened) = File::open(&folder) {
            give_to_owner(&opened, &database.path);
        }
        sweep(&folder);
        loop {
            let name = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
            let path = folder.join(&name);
            let file =
                OpenOptions::new().write(true).create_new(true).mode(database.mode).open(&path).map_err(wrong)?;
            give_to_owner(&file, &database.path);
            // Another one's sweep may have been faster than our lock.
            if lock(&file).map_err(wrong)? && file.metadata().map_err(wrong)?.nlink() > 0 {
                return Ok(Self { path, name: Holder(name), _file: file });
            }
        }
    }

    /// Its name.
    pub const fn name(&self) -> &Holder {
        &self.name
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether whoever has this name lives.
pub fn lives(config: &Config, holder: &Holder) -> bool {
    // A name is never a way out of the folder.
    if holder.0.is_empty() || holder.0.contains('/') || holder.0.starts_with('.') {
        return false;
    }
    match File::open(config.readers().join(&holder.0)) {
        Ok(file) => !lock(&file).unwrap_or(false),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn lock(file: &File) -> io::Result<bool> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes what nobody holds. What can't be removed stays: it is in nobody's way.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Ok(file) = File::open(entry.path())
            && lock(&file).unwrap_or(false)
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_lives_as_long_as_it_is_held_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::control::fake::config();
        config.database.path = folder.path().join("ingestd.db");
        let held = Held::take(&config).unwrap();
        let other = Held::take(&config).unwrap();
        assert!(lives(&config, held.name()) && lives(&config, other.name()));
        let (name, path) = (held.name().clone(), held.path.clone());
        drop(held);
        assert!(!lives(&config, &name) && !path.exists());
        std::fs::write(&path, "").unwrap();
        assert!(!lives(&config, &name), "left by a process that died");
        drop(Held::take(&config).unwrap());
        assert!(!path.exists() && lives(&config, other.name()));
        assert!(!lives(&config, &Holder("../ingestd.db".to_owned())));
    }
}
