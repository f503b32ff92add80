//! Whether an input begins with what a run has read: so many bytes with that digest.
//!
//! A file is read, and read again from where the run stands. What is read of a pipe lies in a file without a name, so
//! that nothing is lost where it turns out to be another list.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::source::{Source, keep, spool};
use crate::run::InputRead;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// Where reading goes on.
pub struct Position {
    /// Lines and bytes that are behind.
    pub read: InputRead,
    /// The running digest over them.
    pub hash: blake3::Hasher,
}

impl Default for Position {
    fn default() -> Self {
        Self { read: InputRead::default(), hash: blake3::Hasher::new() }
    }
}

/// An input whose beginning was looked at.
pub struct Looked {
    /// To be read from the position.
    pub source: Source,
    /// Which of the candidates it begins with: the longest of those; and where that ends.
    pub found: Option<(usize, Position)>,
}

/// Looks with which of the candidates the input begins. `None`: it was stopped before that was known. Blocks the thread.
pub fn look(
    source: Source,
    candidates: &[InputRead],
    folder: &Path,
    stop: &CancellationToken,
) -> io::Result<Option<Looked>> {
    let spool =
        if source.is_stream() && candidates.iter().any(|read| read.bytes > 0) { Some(spool(folder)?) } else { None };
    let mut probe = Probe { source, spool, hash: blake3::Hasher::new(), bytes: 0, last: b'\n', stop };
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|place| candidates[*place].bytes);
    let mut found = None;
    for place in order {
        let read = candidates[place];
        match probe.advance(read.bytes)? {
            Reached::Stopped => return Ok(None),
            Reached::End => break,
            Reached::There => {}
        }
        let digest = *probe.hash.finalize().as_bytes();
        if read.bytes > 0 && read.digest != Some(digest) {
            continue;
        }
        let position = Position { read, hash: probe.hash.clone() };
        // A last line without a line break that has grown since is another line.
        if probe.last == b'\n' || matches!(probe.advance(read.bytes + 1)?, Reached::End) {
            found = Some((place, position));
        }
    }
    let Probe { mut source, spool, .. } = probe;
    let begins = found.as_ref().map_or(0, |(_, position)| position.read.bytes);
    source.go_back_if_needed(begins, spool)?;
    Ok(Some(Looked { source, found }))
}

/// What came of [`catch_up`].
pub enum CaughtUp {
    /// The input goes on as the run has read it, up to here.
    There(Box<Position>),
    /// It goes on otherwise.
    AnotherList,
    /// It was stopped.
    Stopped,
}

/// Reads on from a position to where the run stands by now. Blocks the thread.
pub fn catch_up(source: &mut Source, from: Position, to: InputRead, stop: &CancellationToken) -> io::Result<CaughtUp> {
    let Position { read, mut hash } = from;
    let (mut chunk, mut at) = (vec![0; CHUNK], read.bytes);
    while at < to.bytes {
        let want = usize::try_from(to.bytes - at).unwrap_or(CHUNK).min(CHUNK);
        match source.read(&mut chunk[..want]) {
            Ok(0) => return Ok(CaughtUp::AnotherList),
            Ok(read) => {
                hash.update(&chunk[..read]);
                at += read as u64;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if stop.is_cancelled() {
            return Ok(CaughtUp::Stopped);
        }
    }
    let same = to.digest == Some(*hash.finalize().as_bytes());
    Ok(if same { CaughtUp::There(Box::new(Position { read: to, hash })) } else { CaughtUp::AnotherList })
}

impl Source {
    /// A pipe of which nothing was read has nowhere to go back to.
    fn go_back_if_needed(&mut self, bytes: u64, spool: Option<File>) -> io::Result<()> {
        if self.is_stream() && spool.is_none() { Ok(()) } else { self.go_back(bytes, spool) }
    }
}

enum Reached {
    There,
    End,
    Stopped,
}

struct Probe<'a> {
    source: Source,
    spool: Option<File>,
    hash: blake3::Hasher,
    bytes: u64,
    last: u8,
    stop: &'a CancellationToken,
}

impl Probe<'_> {
    /// Reads on until so many bytes were read.
    fn advance(&mut self, to: u64) -> io::Result<Reached> {
        let mut chunk = vec![0; CHUNK];
        while self.bytes < to {
            let want = usize::try_from(to - self.bytes).unwrap_or(CHUNK).min(CHUNK);
            match self.source.read(&mut chunk[..want]) {
                Ok(0) => return Ok(Reached::End),
                Ok(read) => {
                    keep(self.spool.as_mut(), &chunk[..read])?;
                    self.hash.update(&chunk[..read]);
                    self.bytes += read as u64;
                    self.last = chunk[read - 1];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.stop.is_cancelled() {
                return Ok(Reached::Stopped);
            }
        }
        Ok(Reached::There)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> InputRead {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').count() as u64;
        InputRead { lines, bytes: bytes.len() as u64, digest: Some(*blake3::hash(bytes).as_bytes()) }
    }

    fn found(list: &[u8], candidates: &[InputRead], piped: bool) -> (Option<usize>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, list).unwrap();
        let source = if piped {
            let fifo = folder.path().join("fifo");
            rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
            let (list, to) = (list.to_vec(), fifo.clone());
            std::thread::spawn(move || {
                let _ = File::options().write(true).open(to).unwrap().write_all(&list);
            });
            Source::file(&fifo).unwrap()
        } else {
            Source::file(&path).unwrap()
        };
        let looked = look(source, candidates, folder.path(), &CancellationToken::new()).unwrap().unwrap();
        let (mut source, mut rest, mut chunk) = (looked.source, Vec::new(), [0; 1 << 16]);
        loop {
            match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => rest.extend_from_slice(&chunk[..n]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        (looked.found.map(|(place, _)| place), rest)
    }

    #[test]
    fn the_longest_known_beginning_is_found_and_nothing_of_the_rest_is_lost() {
        for piped in [false, true] {
            let known = [read(b"a\n"), read(b"a\nb\n"), read(b"a\nx\n"), read(b"a\nb\nc\nd\n")];
            assert_eq!(found(b"a\nb\nc\n", &known, piped), (Some(1), b"c\n".to_vec()), "piped: {piped}");
            assert_eq!(found(b"z\nb\nc\n", &known, piped), (None, b"z\nb\nc\n".to_vec()), "piped: {piped}");
            assert_eq!(found(b"", &known, piped), (None, Vec::new()), "piped: {piped}");
            assert_eq!(found(b"a\n", &[], piped), (None, b"a\n".to_vec()), "piped: {piped}");
            assert_eq!(found(b"a\n", &[InputRead::default()], piped), (Some(0), b"a\n".to_vec()), "piped: {piped}");
        }
    }

    #[test]
    fn a_reader_that_takes_over_goes_to_where_the_run_stands_by_now() {
        let (folder, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let path = folder.path().join("list");
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        let there = |now: &[u8]| {
            let looked = look(Source::file(&path).unwrap(), &[read(b"a\n")], folder.path(), &stop).unwrap().unwrap();
            let (mut source, (_, position)) = (looked.source, looked.found.unwrap());
            let reached = catch_up(&mut source, position, read(now), &stop).unwrap();
            let mut rest = String::new();
            source.read_to_string(&mut rest).unwrap();
            match reached {
                CaughtUp::There(position) => Some((position.read, rest)),
                _ => None,
            }
        };
        assert_eq!(there(b"a\nb\n"), Some((read(b"a\nb\n"), "c\n".to_owned())));
        assert_eq!(there(b"a\nx\n"), None);
        assert_eq!(there(b"a\nb\nc\nd\n"), None);
    }

    #[test]
    fn a_last_line_that_has_grown_since_is_another_one() {
        for piped in [false, true] {
            assert_eq!(found(b"a\nbc\n", &[read(b"a\nb")], piped), (None, b"a\nbc\n".to_vec()));
            assert_eq!(found(b"a\nb", &[read(b"a\nb")], piped), (Some(0), Vec::new()));
        }
    }
}
