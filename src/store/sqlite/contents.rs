//! Contents that were completed, found by their digests.

use async_trait::async_trait;
use sqlx::Row as _;

use super::super::contents::{Completed, Contents};
use super::super::error::Result;
use super::super::lease::Lease;
use super::row::Origin;
use super::{SqliteStore, wire};
use crate::job::{Digest, JobId};

/// ?1: the pipeline, ?2: the digest, ?3: the source that asks.
pub(super) const ELSEWHERE: &str = "
    SELECT k.job, s.scope, s.identity, s.path, w.name, w.root
    FROM contents AS k
        CROSS JOIN sources AS s ON s.id = k.source
        LEFT JOIN watches AS w ON w.id = s.scope
    WHERE k.pipeline = ?1 AND k.digest = ?2 AND k.source <> ?3";

#[async_trait]
impl Contents for SqliteStore {
    async fn completed_elsewhere(&self, lease: &Lease, digest: Digest) -> Result<Option<Completed>> {
        let place = lease.place();
        let row = sqlx::query(ELSEWHERE)
            .bind(place.pipeline)
            .bind(wire::digest_column(Some(digest)))
            .bind(place.source)
            .fetch_optional(self.readers())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let origin = Origin {
            scope: row.try_get(1)?,
            identity: row.try_get(2)?,
            own_path: row.try_get(3)?,
            watch: row.try_get(4)?,
            root: row.try_get(5)?,
        };
        Ok(Some(Completed { job: JobId(row.try_get(0)?), path: origin.locate_file()? }))
    }
}
