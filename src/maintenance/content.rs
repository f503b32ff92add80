//! Contents that lines of lists brought along and that no job needs any more: its job completed, was superseded, or was
//! pruned, or the lines were never taken. What a waiting, failed or cancelled job may need stays.
//!
//! All of the folder is looked through, page by page, because what is kept may be most of it.

use std::fs::ReadDir;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use super::duty::{Failure, off_thread};
use crate::clock::Timestamp;
use crate::intake::ContentFolder;
use crate::store::Upkeep;

/// A younger one may be of lines that are being taken.
pub(super) const KEEP: Duration = Duration::from_hours(1);
/// Contents asked for at once.
const PAGE: usize = 1_000;
/// Contents removed in one run; the rest waits for the next.
const LIMIT: u64 = 100_000;

/// Removes what no job needs and was written before the cutoff; answers how many.
pub(super) async fn sweep(contents: &ContentFolder, upkeep: &dyn Upkeep, cutoff: Timestamp) -> Result<u64, Failure> {
    let folder = contents.path().to_owned();
    let listed = off_thread(move || match std::fs::read_dir(&folder) {
        Ok(entries) => Ok(Some(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("list", &folder)(error)),
    });
    let (Some(mut places), mut removed) = (listed.await?, 0) else { return Ok(0) };
    let cutoff_ms = u64::try_from(cutoff.as_millis()).unwrap_or(0);
    while removed < LIMIT {
        let (rest, old) = off_thread(move || Ok(page(places, Duration::from_millis(cutoff_ms)))).await?;
        places = rest;
        if old.is_empty() {
            break;
        }
        let needed = upkeep.needed_contents(old.clone()).await?;
        let contents = contents.clone();
        let remove = move |path: &PathBuf| !needed.contains(path) && contents.remove(path);
        removed += off_thread(move || Ok(old.iter().filter(|path| remove(path)).count() as u64)).await?;
    }
    Ok(removed)
}

/// The next contents that are older than that, as times since the epoch go; none: there are no more. A place without a
/// file, which a crash left, counts as one by a name that no file has.
fn page(mut places: ReadDir, cutoff: Duration) -> (ReadDir, Vec<PathBuf>) {
    let mut old = Vec::new();
    while old.len() < PAGE
        && let Some(place) = places.next()
    {
        // What vanishes under our eyes is somebody else's success.
        let Ok(place) = place else { continue };
        let modified = place.metadata().ok().filter(std::fs::Metadata::is_dir).and_then(|meta| meta.modified().ok());
        if modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).is_some_and(|written| written < cutoff) {
            let content = std::fs::read_dir(place.path()).ok().and_then(|mut files| files.next()?.ok());
            old.push(content.map_or_else(|| place.path().join("none"), |content| content.path()));
        }
    }
    (places, old)
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;
    use crate::run::RunId;

    #[tokio::test]
    async fn contents_that_no_job_needs_go_once_nobody_can_be_about_to_take_their_lines() {
        let state = tempfile::tempdir().unwrap();
        let contents = ContentFolder::new(state.path().join("content/q.db"), 0o600);
        let (_context, store, _clock) = fake::context();
        let write = |line| contents.write(RunId(1), line, Some("a".as_ref()), b"x").unwrap().0;
        let (needed, free, empty) = (write(1), write(2), write(3));
        std::fs::remove_file(&empty).unwrap();
        store.state().needed = vec![needed.clone()];
        let written = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
        assert_eq!(sweep(&contents, &*store, written.minus(KEEP)).await.unwrap(), 0);
        let later = written.plus(Duration::from_mins(1));
        assert_eq!(sweep(&contents, &*store, later).await.unwrap(), 2);
        assert!(needed.exists() && !free.parent().unwrap().exists() && !empty.parent().unwrap().exists());
        let none = ContentFolder::new(state.path().join("none"), 0o600);
        assert_eq!(sweep(&none, &*store, later).await.unwrap(), 0);
    }
}
