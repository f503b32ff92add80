//! The intents of files on their way. They are written under the attempt's fence.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::super::disposition::{Disposition, Dispositions, Intent};
use super::super::effects::EffectBegun;
use super::super::error::Result;
use super::super::lease::Claim;
use super::effects::{self, stands};
use super::{SqliteStore, wire};
use crate::clock::Timestamp;
use crate::job::{FileIdentity, IdempotencyKey};

#[async_trait]
impl Dispositions for SqliteStore {
    async fn intend(&self, claim: Claim, disposition: Disposition, key: IdempotencyKey) -> Result<Intent> {
        let clock = self.clock.clone();
        self.write(move |tx| {
            let (disposition, now) = (disposition.clone(), clock.now());
            Box::pin(async move { intend(tx, claim, &disposition, &key, now).await })
        })
        .await
    }

    async fn withdraw(&self, claim: Claim, back: Option<FileIdentity>) -> Result<bool> {
        self.write(move |tx| Box::pin(withdraw(tx, claim, back))).await
    }
}

async fn intend(
    tx: &mut SqliteConnection,
    claim: Claim,
    to: &Disposition,
    key: &IdempotencyKey,
    now: Timestamp,
) -> Result<Intent> {
    if !stands(tx, claim).await? {
        return Ok(Intent::LeaseLost);
    }
    if has_newer(tx, claim).await? {
        return Ok(Intent::Newer);
    }
    let effect = match effects::begin(tx, claim, &to.step(key), i64::MAX, now).await? {
        EffectBegun::Run { id, .. } | EffectBegun::Unknown { id, .. } | EffectBegun::Done { id, .. } => id,
        EffectBegun::LeaseLost | EffectBegun::TooMany { .. } => return Ok(Intent::LeaseLost),
    };
    let [dev, inode, size, mtime, ctime] = wire::identity_columns(&to.identity);
    sqlx::query(
        "INSERT INTO dispositions (job, path, private, target, verdict, error_kind, error_message, dev, inode, size, mtime_ns, ctime_ns, effect)
         VALUES (?1, ?2, ?3, ?4, iif(?5 IS NULL, 'completed', 'failed'), ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (job) DO UPDATE SET dev = excluded.dev, inode = excluded.inode, size = excluded.size,
            mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns",
    )
    .bind(claim.job.0)
    .bind(wire::path_bytes(&to.path))
    .bind(wire::path_bytes(&to.private))
    .bind(to.target.as_deref().map(wire::path_bytes))
    .bind(to.error.as_ref().map(|error| error.kind.as_str()))
    .bind(to.error.as_ref().map(|error| error.message.as_str()))
    .bind(dev)
    .bind(inode)
    .bind(size)
    .bind(mtime)
    .bind(ctime)
    .bind(effect.0)
    .execute(&mut *tx)
    .await?;
    // From here on its absence is our doing and no delete.
    sqlx::query(
        "UPDATE sources SET presence = 'consumed', gone_at = ?2 FROM jobs AS j
         WHERE j.id = ?1 AND sources.id = j.source AND sources.version = j.version",
    )
    .bind(claim.job.0)
    .bind(now.as_millis())
    .execute(tx)
    .await?;
    Ok(Intent::Committed)
}

/// ?1: the job.
pub(super) const NEWER: &str = "
    SELECT 1 FROM jobs AS j JOIN sources AS s ON s.id = j.source
    WHERE j.id = ?1 AND s.version > j.version AND NOT EXISTS (SELECT 1 FROM dispositions WHERE job = ?1)";

/// Whether the source is at a newer version than the job, and nothing of this job is on its way yet.
async fn has_newer(tx: &mut SqliteConnection, claim: Claim) -> Result<bool> {
    let row = sqlx::query(NEWER).bind(claim.job.0).fetch_optional(tx).await?;
    Ok(row.is_some())
}

async fn withdraw(tx: &mut SqliteConnection, claim: Claim, back: Option<FileIdentity>) -> Result<bool> {
    if !stands(tx, claim).await? {
        return Ok(false);
    }
    sqlx::query("DELETE FROM effects WHERE id = (SELECT effect FROM dispositions WHERE job = ?)")
        .bind(claim.job.0)
        .execute(&mut *tx)
        .await?;
    sqlx::query("DELETE FROM dispositions WHERE job = ?").bind(claim.job.0).execute(&mut *tx).await?;
    // Without the old file the mark stays: what is under the name now arrived anew, whatever its content.
    if let Some(back) = back {
        let [dev, inode, size, mtime, ctime] = wire::identity_columns(&back);
        sqlx::query(
            "UPDATE sources SET presence = 'present', gone_at = NULL,
                    dev = ?2, inode = ?3, size = ?4, mtime_ns = ?5, ctime_ns = ?6
             FROM jobs AS j WHERE j.id = ?1 AND sources.id = j.source AND sources.version = j.version",
        )
        .bind(claim.job.0)
        .bind(dev)
        .bind(inode)
        .bind(size)
        .bind(mtime)
        .bind(ctime)
        .execute(tx)
        .await?;
    }
    Ok(true)
}
