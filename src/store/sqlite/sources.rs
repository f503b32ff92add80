//! What the scan compares with.

use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::Row as _;

use super::super::error::Result;
use super::super::sources::{KnownFile, Sources};
use super::{SqliteStore, wire};

/// ?1: the watch's name, ?2: paths in hexadecimal.
pub(super) const KNOWN: &str = "
    SELECT asked.key, s.dev, s.inode, s.size, s.mtime_ns, s.ctime_ns, s.presence = 'present'
    FROM json_each(?2) AS asked
    CROSS JOIN sources AS s
        ON s.scope = (SELECT id FROM watches WHERE name = ?1) AND s.identity = unhex(asked.value)";
/// ?1: the watch's name, ?2: after this path, ?3: at most so many.
pub(super) const PRESENT: &str = "
    SELECT identity FROM sources
    WHERE scope = (SELECT id FROM watches WHERE name = ?1) AND identity > ?2 AND presence = 'present'
    ORDER BY identity LIMIT ?3 + 0";

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

    async fn present(&self, watch: &str, after: Option<PathBuf>, limit: usize) -> Result<Vec<PathBuf>> {
        let rows = sqlx::query(PRESENT)
            .bind(watch)
            .bind(after.as_deref().map(wire::path_bytes).unwrap_or_default())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| Ok(wire::path(row.try_get(0)?))).collect()
    }
}
