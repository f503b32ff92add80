//! Ignore files: lines in a folder that say what in it is left alone.
//!
//! 1. Whoever may write in the folder wrote them, so they are opened as its files are (no link, no FIFO), are of bounded
//!    length, and a line that would take too much to parse is passed over, as is one that can't be understood.
//! 2. What can't be read is an error, never *no rules*: else a file that was to be left alone could be taken, and deleted.
//! 3. The nearest file with a word to say decides; in one folder, ours after git's.

use std::io::{self, ErrorKind, Read};
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::filter::Rule;
use crate::config;
use crate::intake::open_regular;

/// The ignore files of a folder, the later one wins.
pub(super) const IGNORE_FILES: [&str; 2] = [".gitignore", ".ingestdignore"];
/// The longest ignore file.
const MAX_BYTES: u64 = 1 << 20;

/// The rules of the ignore files in this folder; `None`: it has none. Blocks.
///
/// # Errors
/// One of them is there and can't be read, is longer than 1 MiB, or is too large to be matched.
pub(super) fn read(folder: &Path) -> io::Result<Option<Gitignore>> {
    let mut builder = GitignoreBuilder::new(folder);
    let mut found = false;
    for name in IGNORE_FILES {
        let path = folder.join(name);
        let Some(bytes) = content(&path).map_err(|error| named(name, error))? else { continue };
        for line in lines(&bytes).filter(|line| config::check_glob_bounds(line).is_ok()) {
            // What can't be understood is passed over, as git does.
            let _ = builder.add_line(Some(path.clone()), &line);
        }
        found = true;
    }
    let rules = found.then(|| builder.build().map_err(io::Error::other));
    rules.transpose()
}

/// The rule of the first of these that has a word to say.
pub(super) fn rule<'a>(
    nearest_first: impl Iterator<Item = &'a Gitignore>,
    path: &Path,
    is_folder: bool,
) -> Option<Rule> {
    for ignored in nearest_first {
        let verdict = ignored.matched(path, is_folder);
        if verdict.is_whitelist() {
            return None;
        }
        if let ignore::Match::Ignore(line) = verdict {
            let file = line.from().map(Path::to_owned).unwrap_or_default();
            return Some(Rule::IgnoreFile { file, pattern: line.original().to_owned() });
        }
    }
    None
}

/// What is in an ignore file; `None`: there is none, or the name is not a file's.
fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "an ignore file has 1 MiB at most"));
    }
    Ok(Some(bytes))
}

/// Its lines as text. A byte that is none is any byte to the glob: too much is left alone rather than too little.
fn lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.split(|byte| *byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut text = String::with_capacity(line.len());
        for chunk in line.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| '?'));
        }
        text
    })
}

/// The error with the file's name; what it is, and whether it passes, stays as it was.
fn named(name: &str, error: io::Error) -> io::Error {
    if crate::os::is_shortage(&error) {
        return error;
    }
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(name: &str, content: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), content).unwrap();
        folder
    }

    fn leaves_alone(folder: &Path, name: &str) -> bool {
        rule(read(folder).unwrap().iter(), &folder.join(name), false).is_some()
    }

    #[test]
    fn every_line_counts_also_after_one_that_is_no_text_or_would_take_all_the_stack() {
        let mut lines = b"\xef\xbb\xbffirst\r\nEntw\xfcrfe\n".to_vec();
        lines.extend(["{".repeat(100_000), "a".repeat(5_000), "[".to_owned(), "last".to_owned()].join("\n").bytes());
        let folder = folder(".gitignore", &lines);
        for (name, alone) in [("first", true), ("last", true), ("Entwurfe", true), ("other", false)] {
            assert_eq!(leaves_alone(folder.path(), name), alone, "{name}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_an_error_and_what_is_no_file_is_no_ignore_file() {
        let folder = folder(".ingestdignore", &vec![b'\n'; 1 << 20]);
        assert!(read(folder.path()).unwrap().is_some());
        fs::write(folder.path().join(".gitignore"), vec![b'\n'; (1 << 20) + 1]).unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains(".gitignore: an ignore file has 1 MiB"));
        fs::remove_file(folder.path().join(".gitignore")).unwrap();
        let fifo = folder.path().join(".gitignore");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::remove_file(folder.path().join(".ingestdignore")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join(".ingestdignore")).unwrap();
        assert!(read(folder.path()).unwrap().is_none());
    }
}
