//! Notes which files that a person added are no longer there, so that what is known of them is forgotten in time.
//! Files of watches are the scan's; nobody scans for these. Each is asked for by its name, a thousand at a time.

use std::path::PathBuf;

use super::duty::{Failure, off_thread};
use crate::store::{AddedFile, Upkeep};

/// Files asked for at once.
const PAGE: usize = 1_000;

/// Goes through all of them; answers how many were found absent.
pub(super) async fn note(upkeep: &dyn Upkeep) -> Result<u64, Failure> {
    let (mut after, mut noted) = (0, 0);
    loop {
        let page = upkeep.added_files(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(noted) };
        after = last.source;
        let absent = off_thread(move || Ok(absent(page))).await?;
        if !absent.is_empty() {
            noted += upkeep.note_absent(absent).await?;
        }
    }
}

/// Those whose name leads nowhere. A folder that can't be read says nothing about its files.
fn absent(files: Vec<AddedFile>) -> Vec<i64> {
    let gone = |path: &PathBuf| {
        let looked = std::fs::symlink_metadata(path);
        looked.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    files.into_iter().filter(|file| gone(&file.path)).map(|file| file.source).collect()
}
