//! Copies of the database while work goes on.
//!
//! The copy is written into a private folder, opened and checked there, synced, renamed into place, and the
//! folder synced: a file with a backup's name is always whole and good. Only then do old ones go.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::duty::{Context, Duty, Failure, off_thread};
use super::rotation::{Partial, name_at, remove_leftovers, rotate};
use super::space::free_bytes;
use crate::clock::Timestamp;
use crate::config;
use crate::durable::{make_folder, parent};
use crate::store::{self, Upkeep};

/// Opens the file as a database, checks it, and closes it again before it answers.
pub type Verify = fn(PathBuf) -> Pin<Box<dyn Future<Output = store::Result<()>> + Send>>;

pub(super) struct Backup;

#[async_trait]
impl Duty for Backup {
    fn name(&self) -> &'static str {
        "backup"
    }

    fn period(&self, _: &Context, settings: &config::Maintenance) -> Duration {
        settings.backup.interval
    }

    async fn run(&self, context: &Context, settings: &config::Maintenance) -> Result<Option<Value>, Failure> {
        let figures = backup_now(context.upkeep.as_ref(), context.verify, settings, context.clock.wall()).await?;
        tracing::info!(path = figures.path, bytes = figures.size_bytes, "made a backup");
        Ok(Some(json!(figures)))
    }
}

/// What a backup did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupFigures {
    /// Where the copy is.
    pub path: String,
    /// How large it is.
    pub size_bytes: u64,
    /// Old ones removed.
    pub removed: u64,
}

/// The folder of the scheduled backups: as configured, else `backups/` beside the database.
pub fn directory(database: &Path, settings: &config::Backup) -> PathBuf {
    let beside = || parent(database).join("backups");
    settings.directory.clone().unwrap_or_else(beside)
}

/// Makes a backup in the folder of the scheduled ones, and removes the oldest beyond `keep`. A second one
/// within a second takes the place of the first.
///
/// # Errors
/// When there is not room enough (it is not tried then), or when writing, checking or naming failed. The
/// older backups are untouched then.
pub async fn backup_now(
    upkeep: &dyn Upkeep,
    verify: Verify,
    settings: &config::Maintenance,
    now: Timestamp,
) -> Result<BackupFigures, Failure> {
    let folder = directory(&upkeep.path(), &settings.backup);
    let target = folder.join(name_at(now));
    let made = folder.clone();
    off_thread(move || make_folder(&made, 0o600).map_err(Failure::file("make the folder", &made))).await?;
    let size_bytes = copy(upkeep, verify, &target, settings.min_free_space_bytes, now, true).await?;
    let (keep, fresh) = (settings.backup.keep, target.clone());
    let removed = off_thread(move || rotate(&folder, keep, &fresh)).await?;
    Ok(BackupFigures { path: target.display().to_string(), size_bytes, removed })
}

/// Makes a backup under this name, which must not exist, in a folder that does.
///
/// # Errors
/// As for [`backup_now`], and when there is a file of this name.
pub async fn backup_to(
    upkeep: &dyn Upkeep,
    verify: Verify,
    target: &Path,
    now: Timestamp,
) -> Result<BackupFigures, Failure> {
    if target.symlink_metadata().is_ok() {
        return Err(Failure::Refused(format!("{}: there is a file of this name already", target.display())));
    }
    let size_bytes = copy(upkeep, verify, target, 0, now, false).await?;
    Ok(BackupFigures { path: target.display().to_string(), size_bytes, removed: 0 })
}

async fn copy(
    upkeep: &dyn Upkeep,
    verify: Verify,
    target: &Path,
    spare_bytes: u64,
    now: Timestamp,
    replace: bool,
) -> Result<u64, Failure> {
    let folder = parent(target).to_owned();
    let sizes = upkeep.sizes().await?;
    // The log's pages may all be new ones; free pages are not copied.
    let needed = (sizes.size_bytes + sizes.wal_bytes).saturating_sub(sizes.free_pages * sizes.page_bytes);
    let partial = off_thread(move || {
        remove_leftovers(&folder)?;
        ensure_room(&folder, needed, spare_bytes)?;
        Partial::create(&folder, now)
    })
    .await?;
    upkeep.backup_to(&partial.copy()).await?;
    verify(partial.copy()).await.map_err(|why| Failure::Refused(format!("the copy is not good: {why}")))?;
    let target = target.to_owned();
    off_thread(move || partial.publish(&target, replace)).await
}

fn ensure_room(folder: &Path, needed: u64, spare: u64) -> Result<(), Failure> {
    let free = free_bytes(folder).map_err(Failure::file("ask for free space at", folder))?;
    if free >= needed.saturating_add(spare) {
        return Ok(());
    }
    // Rounded, so that the warning made of it stays the same while the figures move a little.
    let mib = |bytes: u64| bytes.div_ceil(16 << 20) * 16;
    Err(Failure::Refused(format!(
        "not enough room for a backup at {}: about {} MiB are needed, {} MiB of them to stay free; make room, or set \
         maintenance.backup.directory to another disk",
        folder.display(),
        mib(needed.saturating_add(spare)),
        mib(spare),
    )))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::fake;
    use super::*;
    use crate::maintenance::list_backups;

    fn settings(folder: &Path, keep: usize) -> config::Maintenance {
        let backup = config::Backup { interval: Duration::from_secs(1), directory: Some(folder.join("b")), keep };
        config::Maintenance { backup, min_free_space_bytes: 0, ..config::Maintenance::default() }
    }

    #[tokio::test]
    async fn a_backup_is_private_checked_and_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let (context, store, clock) = fake::context();
        let settings = settings(folder.path(), 2);
        for _ in 0..4 {
            clock.advance(Duration::from_secs(1));
            Backup.run(&context, &settings).await.unwrap();
        }
        let backups = list_backups(&folder.path().join("b")).unwrap();
        assert_eq!(backups.len(), 2);
        assert_eq!(backups[0].made_at, context.clock.wall());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.path().join("b")), mode(&backups[0].path)), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(folder.path().join("b")).unwrap().count(), 2);
        assert_eq!(store.state().backups, 4);
    }

    #[tokio::test]
    async fn a_copy_that_is_not_good_costs_no_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut context, _store, clock) = fake::context();
        let settings = settings(folder.path(), 1);
        Backup.run(&context, &settings).await.unwrap();
        clock.advance(Duration::from_secs(1));
        context.verify = |_| Box::pin(async { Err(store::StoreError::Corrupt("page 3 is torn".into())) });
        let why = Backup.run(&context, &settings).await.unwrap_err();
        assert!(why.to_string().contains("page 3 is torn"));
        let left: Vec<_> = std::fs::read_dir(folder.path().join("b")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
    }

    #[tokio::test]
    async fn without_room_it_is_not_tried() {
        let folder = tempfile::tempdir().unwrap();
        let (context, store, _clock) = fake::context();
        let mut settings = settings(folder.path(), 1);
        settings.min_free_space_bytes = u64::MAX;
        let why = Backup.run(&context, &settings).await.unwrap_err();
        assert!(why.to_string().contains("not enough room"), "{why}");
        assert_eq!(store.state().backups, 0);
    }

    #[tokio::test]
    async fn a_named_backup_never_replaces_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let (context, store, _clock) = fake::context();
        let target = folder.path().join("mine.db");
        backup_to(&*store, context.verify, &target, context.clock.wall()).await.unwrap();
        backup_to(&*store, context.verify, &target, context.clock.wall()).await.unwrap_err();
        assert_eq!(store.state().backups, 1);
    }
}
