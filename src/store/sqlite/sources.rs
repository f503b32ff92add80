//! What the scan compares with.

use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::super::error::Result;
use super::super::sources::{KnownFile, PresentFile, Sources};
use super::bulk::Bulk;
use super::catalog::watch_ids;
use super::{SqliteStore, wire};
use crate::job::FileIdentity;

/// ?1: the watch's name, ?2: paths in hexadecimal.
pub(super) const KNOWN: &str = "
    SELECT asked.key, s.dev, s.inode, s.size, s.mtime_ns, s.ctime_ns, s.presence = 'present'
    FROM json_each(?2) AS asked
    CROSS JOIN sources AS s
        ON s.scope = (SELECT id FROM watches WHERE name = ?1) AND s.identity = unhex(asked.value)";
/// ?1: the watch's name, ?2: after this path, ?3: before this path, ?4: at most so many.
pub(super) const PRESENT: &str = "
    SELECT identity, dev, inode, size, mtime_ns, ctime_ns FROM sources
    WHERE scope = (SELECT id FROM watches WHERE name = ?1) AND identity > ?2 AND identity < ?3
      AND presence = 'present'
    ORDER BY identity LIMIT ?4 + 0";

/// Linux opens no longer path, so that this many bytes of the highest value come after all of them.
const PATH_MAX: usize = 4_096;

/// The names under which these files (watch, device, inode, size, modification time) are known, with their places in the
/// question: a few of a file that has many.
pub(super) static KNOWN_AS: Bulk = Bulk::new(include_str!("sql/known_as.sql"), 6);

#[async_trait]
impl Sources for SqliteStore {
    async fn known(&self, watch: &str, relatives: Vec<PathBuf>) -> Result<Vec<Option<KnownFile>>> {
        let asked: Vec<String> = relatives.iter().map(|path| wire::hex_path(path)).collect();
        let rows = sqlx::query(KNOWN).bind(watch).bind(wire::rows(&asked)?).fetch_all(self.readers()).await?;
        let mut known = vec![None; relatives.len()];
        for row in rows {
            let at = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
            if let Some(slot) = known.get_mut(at) {
                let columns = [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?];
                *slot = Some(KnownFile { identity: wire::identity(columns), present: row.try_get(6)? });
            }
        }
        Ok(known)
    }

    async fn known_as(&self, watch: &str, files: Vec<FileIdentity>) -> Result<Vec<Vec<PathBuf>>> {
        let mut names = vec![Vec::new(); files.len()];
        let mut reader = self.readers().acquire().await?;
        let Some(scope) = watch_ids(&mut reader, [watch].into()).await?.remove(watch) else { return Ok(names) };
        let asked: Vec<_> = files.iter().enumerate().map(|(at, file)| (wire::count(at), file)).collect();
        let rows = KNOWN_AS
            .fetch(&mut reader, &asked, |values, (at, file)| {
                let [dev, inode, size, mtime, _] = wire::identity_columns(file);
                values.push(*at).push(scope).push(dev).push(inode).push(size).push(mtime);
            })
            .await?;
        for row in rows {
            let at = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
            if let Some(names) = names.get_mut(at) {
                names.push(wire::path(row.try_get(1)?));
            }
        }
        Ok(names)
    }

    async fn present(&self, watch: &str, folder: PathBuf, after: PathBuf, limit: usize) -> Result<Vec<PresentFile>> {
        let mut after = wire::path_bytes(&after).to_vec();
        let mut before = wire::path_bytes(&folder).to_vec();
        if before.is_empty() {
            before = vec![0xff; PATH_MAX];
        } else {
            let from = [before.as_slice(), b"/"].concat();
            after = after.max(from);
            // What comes after a slash in the order of bytes.
            before.push(b'/' + 1);
        }
        let rows = sqlx::query(PRESENT)
            .bind(watch)
            .bind(after)
            .bind(before)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(self.readers())
            .await?;
        let file = |row: &SqliteRow| {
            let columns = [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?];
            Ok(PresentFile { relative: wire::path(row.try_get(0)?), identity: wire::identity(columns) })
        };
        rows.iter().map(file).collect()
    }
}
