//! What an execution prints: a bounded tail in memory, and a bounded file in which people watch it live.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

/// The newest bytes of a stream, at most `limit`.
#[derive(Debug)]
pub struct Tail {
    limit: usize,
    // Holds up to twice the limit, so that moving bytes to the front costs less than one move per byte received.
    bytes: Vec<u8>,
}

impl Tail {
    /// An empty tail that keeps at most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self { limit, bytes: Vec::new() }
    }

    /// Appends what came, and forgets what is too old.
    pub fn push(&mut self, chunk: &[u8]) {
        let chunk = &chunk[chunk.len().saturating_sub(self.limit)..];
        self.bytes.extend_from_slice(chunk);
        if self.bytes.len() > self.limit.saturating_mul(2) {
            self.bytes.drain(..self.bytes.len() - self.limit);
        }
    }

    fn newest(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(self.limit)..]
    }

    /// The tail.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let surplus = self.bytes.len().saturating_sub(self.limit);
        self.bytes.drain(..surplus);
        self.bytes.shrink_to_fit();
        self.bytes
    }
}

/// The least size at which a spool file begins anew, in bytes.
const LEAST_SPOOL: u64 = 64 << 10;

/// Output that is kept as a [`Tail`] and can be watched in a file while it grows.
///
/// The file appears with the first byte. When it grows beyond `max(64 KiB, 4 × limit)` it is truncated and begins
/// anew with the tail, so a reader that follows it has to look for a file that became shorter. It is a view and no
/// record: if it can't be written, that is logged once and the execution goes on. Whoever settles the attempt
/// removes it.
#[derive(Debug)]
pub struct Output<'a> {
    tail: Tail,
    spool: &'a Path,
    /// Other names under which the file is seen.
    also: Vec<&'a Path>,
    file: Option<File>,
    file_bytes: u64,
    spooling: bool,
}

impl<'a> Output<'a> {
    /// Keeps at most `limit` bytes, and shows them live in `spool`.
    pub const fn new(limit: usize, spool: &'a Path) -> Self {
        Self { tail: Tail::new(limit), spool, also: Vec::new(), file: None, file_bytes: 0, spooling: true }
    }

    /// Shows the file under these names too: one file, as it is one execution that prints for many jobs.
    pub fn also(mut self, names: impl IntoIterator<Item = &'a Path>) -> Self {
        self.also.extend(names);
        self
    }

    /// Takes what was printed. Writes to the page cache on the calling thread: the file is small and never synced.
    pub fn push(&mut self, chunk: &[u8]) {
        self.tail.push(chunk);
        if self.spooling
            && let Err(error) = self.write(chunk)
        {
            self.spooling = false;
            tracing::warn!(path = %self.spool.display(), %error, "live output can't be shown");
        }
    }

    fn write(&mut self, chunk: &[u8]) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = self.file.insert(File::create(self.spool)?);
                for name in self.also.drain(..) {
                    match std::fs::hard_link(self.spool, name) {
                        // An earlier part of the same execution showed it there, and it is the same file still.
                        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                        _ => {}
                    }
                }
                file
            }
        };
        if self.file_bytes + chunk.len() as u64 > LEAST_SPOOL.max(4 * self.tail.limit as u64) {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(self.tail.newest())?;
            self.file_bytes = self.tail.newest().len() as u64;
        } else {
            file.write_all(chunk)?;
            self.file_bytes += chunk.len() as u64;
        }
        Ok(())
    }

    /// The tail.
    pub fn into_bytes(self) -> Vec<u8> {
        self.tail.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_newest_bytes_however_they_came() {
        let all: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        for (limit, step) in [(0, 7), (1, 1), (10, 3), (10, 1_000), (100, 64), (4_999, 5_000), (6_000, 13)] {
            let mut tail = Tail::new(limit);
            for chunk in all.chunks(step) {
                tail.push(chunk);
                assert!(tail.bytes.len() <= 2 * limit);
            }
            assert_eq!(tail.into_bytes(), &all[all.len() - limit.min(all.len())..], "limit {limit}, step {step}");
        }
    }

    #[test]
    fn the_spool_file_stays_bounded_and_ends_as_the_output_does() {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("1");
        let mut output = Output::new(100, &spool);
        assert!(!spool.exists());
        for line in 0..20_000 {
            output.push(format!("line {line}\n").as_bytes());
            if line % 1_000 == 0 {
                assert!(std::fs::metadata(&spool).unwrap().len() <= LEAST_SPOOL);
            }
        }
        let live = std::fs::read(&spool).unwrap();
        let kept = output.into_bytes();
        assert_eq!(kept.len(), 100);
        assert!(live.ends_with(&kept));
    }

    #[test]
    fn one_file_is_seen_under_the_names_of_all_its_jobs() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["1", "2", "3"].map(|name| folder.path().join(name));
        let also = || names[1..].iter().map(std::path::PathBuf::as_path);
        let mut output = Output::new(10, &names[0]).also(also());
        output.push(b"first");
        assert!(names.iter().all(|name| std::fs::read(name).unwrap() == b"first"));
        // The second part of an execution begins with another of its jobs.
        let mut output = Output::new(10, &names[1]).also([names[2].as_path()]);
        output.push(b"next");
        assert!(names.iter().all(|name| std::fs::read(name).unwrap() == b"next"));
    }

    #[test]
    fn output_is_kept_where_no_spool_file_can_be() {
        let mut output = Output::new(10, Path::new("/proc/no/such/folder/1"));
        output.push(b"kept");
        output.push(b" on");
        assert_eq!(output.into_bytes(), b"kept on");
    }
}
