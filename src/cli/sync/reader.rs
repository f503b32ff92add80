//! From bytes to batches of lines that are understood, with bounded memory.
//!
//! 1. A line that does not end within the limit is trouble for that line alone: the rest of it is skipped, and it is
//!    handed over by itself.
//! 2. A batch ends after so many lines or bytes, and where lines trickle, a short time after its first one.
//! 3. With each batch goes the digest of everything up to its end; a batch that is too large for the queue at the moment
//!    can be cut, because its bytes and the digest before it are kept.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::beginning::Position;
use super::folders::Folders;
use super::source::Source;
use crate::config::show_size;
use crate::control::{Asks, Entry, Trouble};
use crate::run::InputRead;
use crate::run::line::{parse, shown};

/// Bytes of lines after which a batch is full: requests stay small.
const BATCH_BYTES: usize = 1 << 20;
/// How long lines are gathered where they trickle.
const LINGER: Duration = Duration::from_millis(200);
/// Bytes read at once.
const BUFFER: usize = 256 << 10;
/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// How much of a line over the limit is kept to show it.
const KEPT: usize = 1_024;

/// Reads a list.
pub struct Reader {
    input: BufReader<Source>,
    streams: bool,
    at: InputRead,
    hash: blake3::Hasher,
    folders: Folders,
    batch_lines: usize,
    line_limit: usize,
    /// The line that is being read.
    line: Vec<u8>,
    /// The last line had no end: what is written behind it from now on would make it another line.
    ended: bool,
    /// That line is over the limit: its beginning. Its bytes are counted and skipped.
    over: Option<Vec<u8>>,
}

/// What came of reading.
pub enum Got {
    /// Lines.
    Batch(Box<Batch>),
    /// There are no more.
    End,
    /// It was told to stop.
    Stopped,
}

/// Lines in a row.
pub struct Batch {
    /// Where it begins.
    before: Position,
    /// Where it ends.
    pub read: InputRead,
    /// Lines that say something.
    pub count: u64,
    /// What was understood.
    pub entries: Vec<Entry>,
    /// What was not.
    pub troubles: Vec<Trouble>,
    /// Fields that nobody knows.
    pub unknown: BTreeSet<String>,
    /// Its bytes, unless it is one line over the limit.
    raw: Vec<u8>,
}

impl Reader {
    /// Reads from a position. A relative path counts from `root`, which is absolute.
    pub fn new(source: Source, from: Position, root: PathBuf, batch_lines: usize, line_limit: usize) -> Self {
        Self {
            streams: source.is_stream(),
            input: BufReader::with_capacity(BUFFER, source),
            at: from.read,
            hash: from.hash,
            folders: Folders::new(root),
            batch_lines,
            line_limit,
            line: Vec::new(),
            ended: false,
            over: None,
        }
    }

    /// The next lines. Blocks the thread, but looks at `stop` every tenth of a second.
    pub fn next(&mut self, stop: &CancellationToken) -> io::Result<Got> {
        let before = Position { read: self.at, hash: self.hash.clone() };
        let mut batch = Batch::after(before);
        if self.over.is_some() {
            return self.skip_line(batch, stop);
        }
        let mut first = None;
        loop {
            if stop.is_cancelled() {
                return Ok(Got::Stopped);
            }
            match self.read_line() {
                Ok(Line::Whole) => {
                    first.get_or_insert_with(Instant::now);
                    self.take_line(&mut batch);
                }
                Ok(Line::Over) if batch.raw.is_empty() => return self.skip_line(batch, stop),
                Ok(Line::Over) => return Ok(self.close(batch)),
                Ok(Line::None) if batch.raw.is_empty() => return Ok(Got::End),
                Ok(Line::None) => return Ok(self.close(batch)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let lines = self.at.lines - batch.before.read.lines;
            let full = lines >= self.batch_lines as u64 || batch.raw.len() >= BATCH_BYTES;
            if full || self.streams && first.is_some_and(|first| first.elapsed() >= LINGER) {
                return Ok(self.close(batch));
            }
        }
    }

    /// Reads on in the line, until its end or the limit.
    fn read_line(&mut self) -> io::Result<Line> {
        if self.ended {
            return Ok(Line::None);
        }
        let left = (self.line_limit + 1).saturating_sub(self.line.len());
        (&mut self.input).take(left as u64).read_until(b'\n', &mut self.line)?;
        if self.line.last() == Some(&b'\n') {
            return Ok(Line::Whole);
        }
        if self.line.len() > self.line_limit {
            self.over = Some(Vec::new());
            return Ok(Line::Over);
        }
        // The input's end, and maybe a last line without an end.
        self.ended = true;
        Ok(if self.line.is_empty() { Line::None } else { Line::Whole })
    }

    fn take_line(&mut self, batch: &mut Batch) {
        let mut bytes = std::mem::take(&mut self.line);
        self.hash.update(&bytes);
        self.at.bytes += bytes.len() as u64;
        self.at.lines += 1;
        batch.raw.extend_from_slice(&bytes);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        // Some editors put a mark of their encoding before everything; it is no part of the first line.
        let marked = self.at.lines == 1 && bytes.starts_with(BYTE_ORDER_MARK);
        let said = if marked { &bytes[BYTE_ORDER_MARK.len()..] } else { &bytes[..] };
        if !said.is_empty() {
            batch.count += 1;
            self.understand(said, batch);
        }
        // Its room serves the next line, unless it was a long one.
        bytes.clear();
        if bytes.capacity() <= BUFFER {
            self.line = bytes;
        }
    }

    fn understand(&mut self, line: &[u8], batch: &mut Batch) {
        let number = self.at.lines;
        match parse(line, self.folders.root()) {
            Ok(mut understood) => {
                if let Asks::Work(work) = &mut understood.asks
                    && let Some(path) = &mut work.path
                {
                    self.folders.settle(path);
                }
                batch.unknown.extend(understood.unknown);
                batch.entries.push(Entry { line: number, text: shown(line), asks: understood.asks });
            }
            Err(message) => batch.troubles.push(Trouble { line: number, text: shown(line), message }),
        }
    }

    /// Skips the rest of a line over the limit; it becomes a batch of its own.
    fn skip_line(&mut self, mut batch: Batch, stop: &CancellationToken) -> io::Result<Got> {
        let mut beginning = self.over.take().unwrap_or_default();
        let read = std::mem::take(&mut self.line);
        self.hash.update(&read);
        self.at.bytes += read.len() as u64;
        beginning.extend_from_slice(&read[..read.len().min(KEPT)]);
        loop {
            if stop.is_cancelled() {
                return Ok(Got::Stopped);
            }
            let chunk = match self.input.fill_buf() {
                Ok([]) => break,
                Ok(chunk) => chunk,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(chunk.len(), |end| end + 1);
            self.hash.update(&chunk[..length]);
            self.at.bytes += length as u64;
            self.input.consume(length);
            if end.is_some() {
                break;
            }
        }
        self.at.lines += 1;
        batch.count = 1;
        batch.troubles.push(Trouble {
            line: self.at.lines,
            text: shown(&beginning),
            message: format!(
                "the line has more than {} (--line-limit); a large content goes into a file of its own: `content_ref`",
                show_size(self.line_limit as u64)
            ),
        });
        Ok(self.close(batch))
    }

    fn close(&self, mut batch: Batch) -> Got {
        batch.read = InputRead { digest: Some(*self.hash.finalize().as_bytes()), ..self.at };
        Got::Batch(Box::new(batch))
    }
}

enum Line {
    /// It lies in `line`.
    Whole,
    /// It is over the limit.
    Over,
    /// There is none any more.
    None,
}

impl Batch {
    fn after(before: Position) -> Self {
        Self {
            read: before.read,
            before,
            count: 0,
            entries: Vec::new(),
            troubles: Vec::new(),
            unknown: BTreeSet::new(),
            raw: Vec::new(),
        }
    }

    /// The line after which it stands.
    pub const fn after_line(&self) -> u64 {
        self.before.read.lines
    }

    /// Cuts it behind the line with which it has `jobs` entries; answers the rest. `None`: it can't be cut there.
    pub fn cut(&mut self, jobs: usize) -> Option<Self> {
        let last = self.entries.get(jobs.checked_sub(1)?)?.line;
        if last >= self.read.lines {
            return None;
        }
        let lines = usize::try_from(last - self.before.read.lines).ok()?;
        let ends = self.raw.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place + 1);
        let end = ends.take(lines).last()?;
        let head = &self.raw[..end];
        let mut hash = self.before.hash.clone();
        hash.update(head);
        let digest = Some(*hash.finalize().as_bytes());
        let at = InputRead { lines: last, bytes: self.before.read.bytes + end as u64, digest };
        let said = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
        let mut rest = Self::after(Position { read: at, hash });
        rest.read = self.read;
        rest.raw = self.raw.split_off(end);
        rest.count = said(&rest.raw);
        rest.entries = self.entries.split_off(jobs);
        let first = self.troubles.partition_point(|trouble| trouble.line <= last);
        rest.troubles = self.troubles.split_off(first);
        self.count = said(&self.raw);
        self.read = at;
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that is read of a list, batch by batch.
    fn batches(list: &[u8], lines: usize, limit: usize) -> Vec<Batch> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, list).unwrap();
        let source = Source::file(&path).unwrap();
        let mut reader = Reader::new(source, Position::default(), PathBuf::from("/root"), lines, limit);
        let mut batches = Vec::new();
        while let Got::Batch(batch) = reader.next(&CancellationToken::new()).unwrap() {
            batches.push(*batch);
        }
        batches
    }

    #[test]
    fn what_is_written_behind_a_last_line_without_an_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "a\nfi").unwrap();
        let source = Source::file(&path).unwrap();
        let mut reader = Reader::new(source, Position::default(), PathBuf::from("/root"), 2, 1_000);
        let stop = CancellationToken::new();
        let Got::Batch(batch) = reader.next(&stop).unwrap() else { panic!() };
        assert_eq!(batch.read.bytes, 4);
        std::fs::write(&path, "a\nfile\nb\n").unwrap();
        assert!(matches!(reader.next(&stop).unwrap(), Got::End));
    }

    /// The batches follow each other without a gap, each with the digest of all bytes up to its end.
    fn follow_each_other(list: &[u8], batches: &[Batch]) {
        let mut at = InputRead::default();
        for batch in batches {
            assert_eq!((batch.before.read.lines, batch.before.read.bytes), (at.lines, at.bytes));
            at = batch.read;
            let end = usize::try_from(at.bytes).unwrap();
            assert_eq!(at.digest, Some(*blake3::hash(&list[..end]).as_bytes()));
            assert_eq!(at.lines as usize, list[..end].split_inclusive(|byte| *byte == b'\n').count());
            let said = batch.entries.iter().map(|entry| entry.line).chain(batch.troubles.iter().map(|bad| bad.line));
            let mut said: Vec<u64> = said.collect();
            said.sort_unstable();
            assert_eq!(said.len() as u64, batch.count);
            assert!(said.iter().all(|line| (batch.after_line() + 1..=at.lines).contains(line)));
        }
        assert_eq!(at.bytes as usize, list.len());
    }

    fn any_list() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just(Vec::new()),
            Just(br#"{"path":"a"}"#.to_vec()),
            Just(b"{".to_vec()),
            prop::collection::vec(any::<u8>().prop_filter("a line", |byte| *byte != b'\n'), 0..40),
        ];
        (prop::collection::vec(line, 0..30), any::<bool>()).prop_map(|(lines, ended)| {
            let mut list = lines.join(&b'\n');
            list.extend(ended.then_some(b'\n'));
            list
        })
    }

    proptest! {
        #[test]
        fn every_line_is_read_once_whatever_the_batches(list in any_list(), lines in 1..8_usize, limit in 5..50_usize) {
            let batches = batches(&list, lines, limit);
            follow_each_other(&list, &batches);
            let numbers: Vec<u64> = batches.iter().flat_map(|batch| &batch.entries).map(|entry| entry.line).collect();
            prop_assert!(numbers.is_sorted_by(|left, right| left < right));
            let over = list.split(|byte| *byte == b'\n').filter(|line| line.len() > limit).count();
            let told = batches.iter().flat_map(|batch| &batch.troubles);
            prop_assert_eq!(told.filter(|bad| bad.message.contains("--line-limit")).count(), over);
        }

        #[test]
        fn a_batch_that_is_cut_stays_the_same_lines(list in any_list(), jobs in 1..8_usize) {
            let mut batches = batches(&list, 1_000, 1_000);
            if let Some(mut head) = batches.pop() {
                if let Some(rest) = head.cut(jobs) {
                    prop_assert_eq!(head.entries.len(), jobs);
                    batches.extend([head, rest]);
                } else {
                    batches.push(head);
                }
            }
            follow_each_other(&list, &batches);
        }
    }
}
