//! The digest of a file's content, together with the identity that the file had.
//!
//! The file is opened without following a link and without blocking, and only a regular file is read. What its
//! descriptor says before and after must be the same, else the content changed meanwhile and there is no digest.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::Digest as _;

use crate::job::{Digest, DigestAlgorithm, FileIdentity};
use crate::store::Content;

/// How much is read at once, and how often it is asked whether to go on.
const CHUNK: usize = 256 << 10;

/// Digests a file. Blocks. Errors by kind: `InvalidInput`: not a regular file (or a symbolic link);
/// `ResourceBusy`: it changed while it was read; else what the system said.
pub fn digest_file(path: &Path, algorithm: DigestAlgorithm) -> io::Result<Content> {
    digest_file_while(path, algorithm, || true)
}

/// Like [`digest_file`], and ends with `Interrupted` soon after `go_on` said no.
pub fn digest_file_while(path: &Path, algorithm: DigestAlgorithm, go_on: impl Fn() -> bool) -> io::Result<Content> {
    let mut file = open_regular(path)?;
    let before = FileIdentity::of(&file.metadata()?);
    let mut hash = Hash::new(algorithm);
    let mut chunk = vec![0; CHUNK];
    loop {
        if !go_on() {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => hash.update(chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    let after = FileIdentity::of(&file.metadata()?);
    if before != after {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the file changed while it was read"));
    }
    Ok(Content { identity: after, digest: Digest { algorithm, bytes: hash.finish() } })
}

/// The digest of a content that is in memory.
pub fn digest_bytes(bytes: &[u8], algorithm: DigestAlgorithm) -> Digest {
    let mut hash = Hash::new(algorithm);
    hash.update(bytes);
    Digest { algorithm, bytes: hash.finish() }
}

/// Opens a regular file for reading, and nothing else: no link, no FIFO that would block, no device.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let not_a_file = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    // Asked before it is opened, because opening a device can have effects, and once more on what was opened.
    if !path.symlink_metadata()?.is_file() {
        return Err(not_a_file());
    }
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(not_a_file());
    }
    Ok(file)
}

/// Opens the regular file that `path` leads to, if it has this identity. Nothing else is ever opened: it is looked at
/// first, and opened as the very thing that was looked at.
///
/// # Errors
/// `ResourceBusy`: another file has that name by now, or its content changed; else what the system said.
pub fn open_same(path: &Path, identity: &FileIdentity) -> io::Result<File> {
    let seen = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
    let meta = seen.metadata()?;
    if !meta.is_file() || !FileIdentity::of(&meta).same_but_for_ctime(identity) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another file has its name by now"));
    }
    File::options().read(true).custom_flags(libc::O_NOCTTY).open(format!("/proc/self/fd/{}", seen.as_raw_fd()))
}

enum Hash {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

impl Hash {
    fn new(algorithm: DigestAlgorithm) -> Self {
        match algorithm {
            DigestAlgorithm::Blake3 => Self::Blake3(Box::default()),
            DigestAlgorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hash) => {
                hash.update(bytes);
            }
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> [u8; 32] {
        match self {
            Self::Blake3(hash) => hash.finalize().into(),
            Self::Sha256(hash) => hash.finalize().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn both_digests_are_the_published_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let blake3 = digest_file(&path, DigestAlgorithm::Blake3).unwrap();
        let expected = "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(blake3.digest.to_string(), expected);
        assert_eq!(blake3.identity, FileIdentity::of(&path.metadata().unwrap()));
        let sha256 = digest_file(&path, DigestAlgorithm::Sha256).unwrap();
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256.digest.to_string(), expected);
        assert_eq!(digest_bytes(b"abc", DigestAlgorithm::Sha256), sha256.digest);
    }

    #[test]
    fn only_regular_files_are_read_and_a_fifo_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        for path in [fifo.as_path(), link.as_path(), folder.path()] {
            let error = digest_file(path, DigestAlgorithm::Blake3).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
        let gone = digest_file(&folder.path().join("gone"), DigestAlgorithm::Blake3).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let grow = || File::options().append(true).open(&path).unwrap().write_all(b"more").is_ok();
        let asked = std::cell::Cell::new(0);
        let error = digest_file_while(&path, DigestAlgorithm::Blake3, || {
            asked.set(asked.get() + 1);
            asked.get() != 1 || grow()
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        let error = digest_file_while(&path, DigestAlgorithm::Blake3, || false);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
