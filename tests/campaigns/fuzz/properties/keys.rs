//! Idempotency keys, and paths on their way through JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ingestd::job::{IdempotencyKey, Incarnation, Op, SourceKey, WirePath};

/// What a key is derived from.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The life of the database.
    pub incarnation: [u8; 16],
    /// The pipeline's name.
    pub pipeline: String,
    /// The watch's name; `None`: a path, or the caller's own identity.
    pub watch: Option<String>,
    /// Whether `source` is the caller's own identity.
    pub keyed: bool,
    /// The path or identity.
    pub source: Vec<u8>,
    /// The version.
    pub version: i64,
    /// What happened.
    pub op: Op,
}

/// The same work has the same key, other work another one; and a path survives JSON.
pub fn keys(one: &Work, other: &Work) {
    assert_eq!(key(one), key(one));
    assert_eq!(key(one) == key(other), identity(one) == identity(other), "{one:?}, {other:?}");

    let path = WirePath(PathBuf::from(OsStr::from_bytes(&one.source)));
    let frame = serde_json::to_string(&path).unwrap();
    assert!(!frame.contains('\n'));
    assert_eq!(serde_json::from_str::<WirePath>(&frame).unwrap(), path);
}

fn key(work: &Work) -> IdempotencyKey {
    let path = PathBuf::from(OsStr::from_bytes(&work.source));
    let source = match &work.watch {
        Some(watch) => SourceKey::Watched { watch: watch.clone(), relative: path },
        None if work.keyed => SourceKey::Keyed { key: identity(work).3, path },
        None => SourceKey::Path(path),
    };
    IdempotencyKey::derive(&Incarnation(work.incarnation), &work.pipeline, &source, work.version, work.op)
}

/// What tells work from other work, without any encoding.
fn identity(work: &Work) -> (&[u8; 16], &str, (Option<&String>, bool), String, Vec<u8>, i64, Op) {
    let keyed = work.keyed && work.watch.is_none();
    let key = if keyed { String::from_utf8_lossy(&work.source).into_owned() } else { String::new() };
    let path = if keyed { Vec::new() } else { work.source.clone() };
    (&work.incarnation, &work.pipeline, (work.watch.as_ref(), keyed), key, path, work.version, work.op)
}
