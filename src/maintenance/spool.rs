//! Files of the output of attempts whose daemon died: `spool/DATABASE/NUMBER…`, where the number is the job's. A file goes
//! when it has been left alone for a day and its job does not run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::duty::{Failure, off_thread};
use crate::clock::Timestamp;
use crate::job::{JobId, StateName};
use crate::store::Browse;

/// So long a file is left alone.
pub(super) const KEEP: Duration = Duration::from_hours(24);
/// Files looked at in one run; the rest waits for the next.
const LIMIT: usize = 10_000;

/// Removes files from the folder that were written before the cutoff; answers how many.
pub(super) async fn sweep(folder: &Path, browse: &dyn Browse, cutoff: Timestamp) -> Result<u64, Failure> {
    let folder = folder.to_owned();
    let stale = off_thread(move || stale(&folder, cutoff)).await?;
    let mut removed = 0;
    for path in stale {
        if let Some(job) = owner(&path)
            && browse.job(job).await?.is_some_and(|job| job.state.name() == StateName::Running)
        {
            continue;
        }
        match std::fs::remove_file(&path) {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file("remove", &path)(error)),
        }
    }
    Ok(removed)
}

fn stale(folder: &Path, cutoff: Timestamp) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::file("list", folder)(error)),
    };
    let cutoff_ms = u64::try_from(cutoff.as_millis()).unwrap_or(0);
    let is_stale = |entry: &std::fs::DirEntry| {
        // A file that vanishes under our eyes is somebody else's success.
        let modified = entry.metadata().ok().filter(std::fs::Metadata::is_file).and_then(|meta| meta.modified().ok());
        let age = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        age.is_some_and(|since_epoch| since_epoch < Duration::from_millis(cutoff_ms))
    };
    Ok(entries.flatten().filter(is_stale).take(LIMIT).map(|entry| entry.path()).collect())
}

/// The job whose number the file's name begins with.
fn owner(path: &Path) -> Option<JobId> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    let digits = name.find(|c: char| !c.is_ascii_digit()).map_or(name, |end| &name[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[tokio::test]
    async fn only_old_files_of_jobs_that_do_not_run_go() {
        let folder = tempfile::tempdir().unwrap();
        let (_context, store, _clock) = fake::context();
        store.state().running = vec![JobId(7)];
        for name in ["7-1", "8-1", "stray"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let written = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
        assert_eq!(sweep(folder.path(), &*store, written.minus(KEEP)).await.unwrap(), 0);
        let later = written.plus(Duration::from_mins(1));
        assert_eq!(sweep(folder.path(), &*store, later).await.unwrap(), 2);
        assert!(folder.path().join("7-1").exists());
        assert_eq!(sweep(&folder.path().join("none"), &*store, later).await.unwrap(), 0);
    }

    #[test]
    fn the_owner_is_the_number_that_the_name_begins_with() {
        assert_eq!(owner(Path::new("/s/12-3.out")), Some(JobId(12)));
        assert_eq!(owner(Path::new("/s/12")), Some(JobId(12)));
        assert_eq!(owner(Path::new("/s/x12")), None);
    }
}
