//! What one line asks for, looked at on the machine.
//!
//! 1. A path is taken by its words; where its last part is a link, the file behind it is meant. Only a regular file that
//!    may be read is work, and none of the database's own: opening and closing one of these would drop SQLite's locks.
//! 2. A delete needs no file.
//! 3. A content of the line's own becomes a file, and its digest is known at once. A content in another file is that
//!    file, which stays where it is.
//! 4. What only a key names goes by the key.

use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::add::{AddError, absolute, by_words, explain};
use super::super::content::CONTENT_LIMIT;
use super::super::digest_bytes;
use super::{ListIntake, ListLine, Underway};
use crate::job::{Digest, FileIdentity, Op, SourceKey, WirePath};
use crate::run::RunId;
use crate::run::line::{ListedContent, ListedWork};
use crate::store::{LineProblem, Listed, NewJob};

/// What is known of a line's file and content.
#[derive(Default)]
struct Found {
    /// The file that the line is about, where it was looked at.
    path: Option<PathBuf>,
    identity: FileIdentity,
    digest: Option<Digest>,
    /// The file, where it is not the one that the line is about.
    content: Option<PathBuf>,
    /// Whether `content` was made here.
    made: bool,
}

/// Why a line is not underway.
enum Stopped {
    /// It can't be done.
    Line(String),
    /// Its content can't be kept.
    Machine(io::Error),
}

impl From<AddError> for Stopped {
    fn from(error: AddError) -> Self {
        Self::Line(error.to_string())
    }
}

impl ListIntake {
    /// Looks at a line; the outer error is the machine's, the inner one the line's.
    pub(super) fn look(&self, run: RunId, line: ListLine) -> io::Result<Result<Underway, LineProblem>> {
        match self.find(run, &line) {
            Ok((source, found)) => Ok(Ok(self.underway(run, line, source, found))),
            Err(Stopped::Line(message)) => Ok(Err(line.failed(message))),
            Err(Stopped::Machine(error)) => Err(error),
        }
    }

    fn find(&self, run: RunId, line: &ListLine) -> Result<(SourceKey, Found), Stopped> {
        let work = &line.work;
        check(work).map_err(Stopped::Line)?;
        let delete = work.op == Some(Op::Delete);
        let mut found = match (&work.content, &work.path) {
            (Some(ListedContent::Inline(text)), _) => self.keep(run, line, text)?,
            (Some(ListedContent::File(path)), _) => {
                let (path, meta) = self.file(&path.0, line)?;
                Found { identity: FileIdentity::of(&meta), content: Some(path), ..Found::default() }
            }
            (None, Some(path)) if !delete => {
                let (path, meta) = self.file(&path.0, line)?;
                Found { identity: FileIdentity::of(&meta), path: Some(path), ..Found::default() }
            }
            (None, _) => Found::default(),
        };
        if delete {
            found.identity = FileIdentity::default();
        }
        let named = || work.path.as_ref().map(|path| absolute(Path::new("/"), &path.0));
        let path = found.path.take().or_else(named);
        let source = match (work.key.clone(), path) {
            (None, path) => SourceKey::Path(path.unwrap_or_default()),
            (Some(key), Some(path)) => SourceKey::Keyed { key, path },
            (Some(key), None) => SourceKey::Keyed { path: PathBuf::from(&key), key },
        };
        Ok((source, found))
    }

    /// The regular file that is meant by this path, if we may read it.
    fn file(&self, path: &Path, line: &ListLine) -> Result<(PathBuf, Metadata), Stopped> {
        if path.starts_with(self.contents.path()) {
            // It goes with the job that it was made for.
            return Err(Stopped::Line(
                "it is the content of another line, which goes with its job; copy it".to_owned(),
            ));
        }
        let seen = |path: &Path| path.symlink_metadata().map_err(|error| explain(&error));
        let mut path = by_words(Path::new("/"), path);
        let mut meta = seen(&path).map_err(|error| hinted(error, &path, line))?;
        if meta.is_symlink() {
            path = path.canonicalize().map_err(|error| explain(&error))?;
            meta = seen(&path)?;
        }
        if !meta.is_file() {
            return Err(AddError::NotAFile.into());
        }
        if self.own.contains(&(meta.dev(), meta.ino())) {
            return Err(Stopped::Line("it belongs to the queue's own database".to_owned()));
        }
        may_read(&path, &meta)?;
        Ok((path, meta))
    }

    /// Keeps the content that the line brings along.
    fn keep(&self, run: RunId, line: &ListLine, text: &str) -> Result<Found, Stopped> {
        let too_long = || {
            Stopped::Line(format!(
                "its content has more than {} MiB; put it into a file and name that with `content_ref`",
                CONTENT_LIMIT >> 20
            ))
        };
        if text.len() / 4 * 3 > CONTENT_LIMIT + 2 {
            return Err(too_long());
        }
        let decoded = STANDARD.decode(text);
        let bytes = decoded.map_err(|error| Stopped::Line(format!("its content is not base64: {error}")))?;
        if bytes.len() > CONTENT_LIMIT {
            return Err(too_long());
        }
        let digest = Some(digest_bytes(&bytes, self.algorithm));
        if self.dry_run {
            let identity = FileIdentity { size: bytes.len() as u64, ..FileIdentity::default() };
            return Ok(Found { identity, digest, ..Found::default() });
        }
        let name = line.work.path.as_ref().and_then(|path| path.0.file_name());
        let (path, identity) = self.contents.write(run, line.line, name, &bytes).map_err(Stopped::Machine)?;
        Ok(Found { identity, digest, content: Some(path), made: true, path: None })
    }

    fn underway(&self, run: RunId, line: ListLine, source: SourceKey, found: Found) -> Underway {
        let made = found.content.clone().filter(|_| found.made);
        let ListLine { line, text, work } = line;
        let listed =
            Listed { run, line: work.number.unwrap_or(line), repo: work.repo, op: work.op, content: found.content };
        let job = NewJob {
            source,
            pipeline: self.pipeline.clone(),
            priority: work.priority.unwrap_or_default(),
            run_at: None,
            identity: found.identity,
            digest: found.digest,
            metadata: work.metadata,
            force: false,
            note_only: work.skip,
            renamed: None,
            listed: Some(Box::new(listed)),
        };
        Underway { job, line, text, made }
    }
}

/// What is most likely wrong with a line that names no file.
fn hinted(error: AddError, path: &Path, line: &ListLine) -> Stopped {
    match error {
        AddError::Missing if path.as_os_str().as_bytes().ends_with(b"\r") => Stopped::Line(format!(
            "{error}: the line ends with a carriage return; `tr -d '\\r'` takes these out of a list"
        )),
        AddError::Missing | AddError::Unreadable(_) if line.text.starts_with('[') => {
            Stopped::Line(format!("{error}: the line begins with `[`; a JSON array? write one object per line"))
        }
        error => error.into(),
    }
}

/// What can be said without looking at any file.
fn check(work: &ListedWork) -> Result<(), String> {
    let holds_nul = |path: &WirePath| path.0.as_os_str().as_bytes().contains(&0);
    if work.path.as_ref().is_some_and(holds_nul) {
        return Err("a path can't hold a NUL byte".to_owned());
    }
    match (&work.path, &work.key) {
        (_, Some(key)) if key.is_empty() => return Err("the key is empty".to_owned()),
        (None, None) => return Err("it names neither a path nor a key".to_owned()),
        (None, Some(_)) if work.content.is_none() && work.op != Some(Op::Delete) => {
            return Err("it names neither a path nor a content, so there is nothing to process".to_owned());
        }
        _ => {}
    }
    match work.metadata.as_deref().map(serde_json::from_str::<serde::de::IgnoredAny>) {
        Some(Err(error)) => Err(format!("the metadata is not JSON: {error}")),
        _ => Ok(()),
    }
}

impl ListLine {
    fn failed(self, message: String) -> LineProblem {
        let ListedWork { path, key, op, repo, .. } = *self.work;
        let path = path.map(|path| path.0).or_else(|| key.map(PathBuf::from));
        LineProblem { line: self.line, bad: false, path, op, repo, text: self.text.into_bytes(), message }
    }
}

/// Whether we may read a file. What everybody may read needs no second question.
fn may_read(path: &Path, meta: &Metadata) -> Result<(), AddError> {
    if meta.mode() & 0o444 == 0o444 {
        return Ok(());
    }
    rustix::fs::access(path, rustix::fs::Access::READ_OK).map_err(|error| AddError::Unreadable(error.to_string()))
}
