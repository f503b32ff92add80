//! Values as the tables hold them. Where a statement takes a few rows and is not hot, they travel as one JSON array of
//! arrays that `json_each` unrolls; JSON carries no raw bytes, so paths and digests go as hexadecimal and come back
//! through `unhex`.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::super::error::{Result, StoreError};
use crate::job::{Digest, FileIdentity};

/// The rows as one bound parameter.
pub(super) fn rows<T: Serialize>(rows: &[T]) -> Result<String> {
    Ok(serde_json::to_string(rows)?)
}

/// Bytes for `unhex`.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// The bytes that [`hex`] wrote; `None` for anything else.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// A path for `unhex`.
pub(super) fn hex_path(path: &Path) -> String {
    hex(path.as_os_str().as_bytes())
}

/// A path as a BLOB to bind.
pub(super) fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A path from a BLOB.
pub(super) fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// A digest from its column.
pub(super) fn digest(bytes: Option<Vec<u8>>) -> Result<Option<Digest>> {
    match bytes {
        None => Ok(None),
        Some(bytes) => Digest::from_bytes(&bytes)
            .map(Some)
            .ok_or_else(|| StoreError::Corrupt("a digest in the database has an unknown form".to_owned())),
    }
}

/// A digest for its column.
pub(super) fn digest_column(digest: Option<Digest>) -> Option<Vec<u8>> {
    digest.map(|digest| digest.to_bytes().to_vec())
}

/// A number of rows for SQLite.
pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A number of anything for SQLite, which knows no unsigned ones.
pub(super) fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The columns `dev, inode, size, mtime_ns, ctime_ns`. Device, inode and size are unsigned on disk; the table
/// holds their bits.
pub(super) fn identity_columns(identity: &FileIdentity) -> [i64; 5] {
    [
        identity.dev.cast_signed(),
        identity.inode.cast_signed(),
        identity.size.cast_signed(),
        identity.mtime_ns,
        identity.ctime_ns,
    ]
}

/// The identity in a row that has [`identity_columns`] under their own names.
pub(super) fn identity_of(row: &SqliteRow) -> Result<FileIdentity> {
    let column = |name| row.try_get::<i64, _>(name);
    Ok(identity([column("dev")?, column("inode")?, column("size")?, column("mtime_ns")?, column("ctime_ns")?]))
}

/// Reads [`identity_columns`] back.
pub(super) fn identity([dev, inode, size, mtime_ns, ctime_ns]: [i64; 5]) -> FileIdentity {
    FileIdentity {
        dev: dev.cast_unsigned(),
        inode: inode.cast_unsigned(),
        size: size.cast_unsigned(),
        mtime_ns,
        ctime_ns,
    }
}
