//! The idempotency key: what the other side may remember, to recognise the same work done again.
//!
//! `SHA-256(encoding)`, in lowercase hexadecimal. The encoding is the byte string `ingestd-key-v1`, then six
//! fields, each as its length in bytes (8 bytes, big-endian) followed by its bytes:
//!
//! 1. the database's incarnation (16 bytes),
//! 2. the pipeline's name,
//! 3. the source's scope: `watch:NAME`, `path`, or `key`,
//! 4. the source: the path relative to the watch's root, the absolute path, or the caller's key,
//! 5. the version, in decimal,
//! 6. the operation: `add`, `modify` or `delete`.
//!
//! Lengths make the encoding injective: no two different sextuples share one. The incarnation is drawn when a
//! database is made and again by a restore, so a version number that was rolled back never meets an old key.

use std::fmt;
use std::os::unix::ffi::OsStrExt;

use sha2::{Digest as _, Sha256};

use super::{Op, SourceKey};

/// A random value that tells one life of a database from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation(pub [u8; 16]);

/// A job's idempotency key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub [u8; 32]);

impl IdempotencyKey {
    /// The key of one version of a source, through a pipeline.
    pub fn derive(incarnation: &Incarnation, pipeline: &str, source: &SourceKey, version: i64, op: Op) -> Self {
        let (scope, identity) = match source {
            SourceKey::Watched { watch, relative } => (format!("watch:{watch}"), relative.as_os_str().as_bytes()),
            SourceKey::Path(path) => ("path".to_owned(), path.as_os_str().as_bytes()),
            SourceKey::Keyed { key, .. } => ("key".to_owned(), key.as_bytes()),
        };
        let version = version.to_string();
        let fields: [&[u8]; 6] = [
            &incarnation.0,
            pipeline.as_bytes(),
            scope.as_bytes(),
            identity,
            version.as_bytes(),
            op.as_str().as_bytes(),
        ];
        let mut hash = Sha256::new();
        hash.update(b"ingestd-key-v1");
        for field in fields {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_key_of_a_watched_file_is_the_documented_one() {
        let incarnation = Incarnation(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let source = SourceKey::Watched { watch: "inbox".to_owned(), relative: PathBuf::from("2026/a.pdf") };
        let key = IdempotencyKey::derive(&incarnation, "documents", &source, 1, Op::Add);
        assert_eq!(key.to_string(), "8131ecd4ede5d4414bf7ffc72b55012546b8dee394c2a83f9339d99359299761");
    }

    #[test]
    fn the_key_of_a_path_of_any_bytes_is_the_documented_one() {
        let path = PathBuf::from(OsStr::from_bytes(b"/srv/in/caf\xe9 \xff\n.txt"));
        let key = IdempotencyKey::derive(&Incarnation([0xff; 16]), "hook", &SourceKey::Path(path), 12, Op::Delete);
        assert_eq!(key.to_string(), "4fa57bee8b5ad7eb0a45ad1d5e5ffd67117ab1f5855f470bc08916aecf372bf1");
    }

    #[test]
    fn the_key_of_a_callers_identity_depends_on_that_and_not_on_the_path() {
        let derive = |path: &str| {
            let source = SourceKey::Keyed { key: "order-42".to_owned(), path: PathBuf::from(path) };
            IdempotencyKey::derive(&Incarnation([0; 16]), "hook", &source, 3, Op::Modify)
        };
        assert_eq!(derive("/a").to_string(), "99a38d144c8f51c716076d81efae133d7247877f2f782d5b0f541d95cc4322d2");
        assert_eq!(derive("/a"), derive("/b"));
    }

    #[test]
    fn bytes_that_move_from_one_field_to_the_next_make_another_key() {
        let derive = |pipeline: &str, watch: &str, relative: &str| {
            let source = SourceKey::Watched { watch: watch.to_owned(), relative: PathBuf::from(relative) };
            IdempotencyKey::derive(&Incarnation([0; 16]), pipeline, &source, 1, Op::Add)
        };
        let keys = [derive("p", "w", "a"), derive("pw", "", "a"), derive("p", "wa", ""), derive("", "pw", "a")];
        let distinct: std::collections::HashSet<_> = keys.into_iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
