//! What work is about: a source, its identity on disk, and the digest of its content.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::state::UnknownName;

/// What happened to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It is new.
    #[default]
    Add,
    /// It has new content.
    Modify,
    /// It is gone.
    Delete,
}

impl Op {
    /// The name that tables and people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Modify => "modify",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Op {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::Add, Self::Modify, Self::Delete]
            .into_iter()
            .find(|op| op.as_str() == text)
            .ok_or_else(|| UnknownName::new(text, "add, modify, delete"))
    }
}

/// What tells one source from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceKey {
    /// A file under a watch, by its path relative to the watch's root.
    Watched {
        /// The watch's name.
        watch: String,
        /// Relative to the root; any bytes.
        relative: PathBuf,
    },
    /// A file that a person or a list named by its absolute path.
    Path(PathBuf),
    /// A file under an identity of the caller's own.
    Keyed {
        /// The caller's identity (`--idempotency-key`, or a line's `key`).
        key: String,
        /// The file, absolute.
        path: PathBuf,
    },
}

/// What the filesystem says about a file. Another value says *look*; the digest decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct FileIdentity {
    /// The device.
    pub dev: u64,
    /// The inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Modification, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Status change, nanoseconds since the epoch.
    pub ctime_ns: i64,
}

impl FileIdentity {
    /// The identity in a `stat` of the file.
    pub fn of(meta: &std::fs::Metadata) -> Self {
        let ns = |secs: i64, nsec: i64| secs.saturating_mul(1_000_000_000).saturating_add(nsec);
        Self {
            dev: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether both are one file with one content as far as the filesystem can tell after a rename, which
    /// changes `ctime` and nothing else.
    pub fn same_but_for_ctime(&self, other: &Self) -> bool {
        Self { ctime_ns: other.ctime_ns, ..*self } == *other
    }
}

/// Which digest is taken of contents (`queue.digest`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DigestAlgorithm {
    /// BLAKE3 with 256 bits.
    #[default]
    Blake3,
    /// SHA-256.
    Sha256,
}

impl DigestAlgorithm {
    /// The name that people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
        }
    }
}

/// The digest of a content, with its algorithm: written `blake3:6437…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    /// How it was taken.
    pub algorithm: DigestAlgorithm,
    /// The digest itself.
    pub bytes: [u8; 32],
}

impl Digest {
    /// The form that tables hold: one byte for the algorithm (1 BLAKE3, 2 SHA-256), then the digest.
    pub fn to_bytes(self) -> [u8; 33] {
        let mut out = [0; 33];
        out[0] = match self.algorithm {
            DigestAlgorithm::Blake3 => 1,
            DigestAlgorithm::Sha256 => 2,
        };
        out[1..].copy_from_slice(&self.bytes);
        out
    }

    /// Reads [`Self::to_bytes`] back; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let algorithm = match tag {
            1 => DigestAlgorithm::Blake3,
            2 => DigestAlgorithm::Sha256,
            _ => return None,
        };
        Some(Self { algorithm, bytes: rest.try_into().ok()? })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm.as_str())?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SourceKey {
    /// The path that a person would name it by.
    pub fn display_path(&self) -> &Path {
        match self {
            Self::Watched { relative, .. } => relative,
            Self::Path(path) | Self::Keyed { path, .. } => path,
        }
    }
}
