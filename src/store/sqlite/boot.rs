//! A daemon's start and end: its own row, and what it finds of those before it.

use sqlx::Row as _;

use super::super::error::Result;
use super::super::queue::Recovery;
use super::recover::{self, Whose};
use super::{SqliteStore, effects, lists};

impl SqliteStore {
    /// Notes this daemon's start, takes back the leases of the dead ones, and keeps what it did for `status`.
    /// From here on this store may lease.
    ///
    /// # Errors
    /// As of any write.
    pub async fn begin_boot(&self, pid: u32, version: &'static str) -> Result<Recovery> {
        let (clock, max_crashes) = (self.clock.clone(), self.rules().max_crashes);
        let (boot, recovery) = self
            .write_counted(move |tx, tally| {
                let now = clock.now();
                Box::pin(async move {
                    let row = sqlx::query(
                        "INSERT INTO boots (token, pid, version, started_at) VALUES (randomblob(16), ?, ?, ?) RETURNING id",
                    )
                    .bind(pid)
                    .bind(version)
                    .bind(now.as_millis())
                    .fetch_all(&mut *tx)
                    .await?;
                    let boot: i64 = row.first().map_or(Ok(0), |row| row.try_get(0))?;
                    let whose = Whose::DeadBoots { but: boot };
                    let mut recovery = recover::take_back(tx, whose, max_crashes, now, tally).await?;
                    recovery.effects = effects::abandon(&mut *tx, now).await?;
                    recovery.dead_boots =
                        sqlx::query("UPDATE boots SET stopped_at = ?2 WHERE stopped_at IS NULL AND id <> ?1")
                            .bind(boot)
                            .bind(now.as_millis())
                            .execute(&mut *tx)
                            .await?
                            .rows_affected();
                    if recovery.dead_boots > 0 {
                        sqlx::query(
                            "INSERT INTO kv (key, value, updated_at) VALUES ('ingestd.recovery', ?, ?)
                             ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                        )
                        .bind(serde_json::to_string(&recovery)?)
                        .bind(now.as_millis())
                        .execute(tx)
                        .await?;
                    }
                    Ok((boot, recovery))
                })
            })
            .await?;
        // A second start of one store would be a mistake of the program; the first row then stays the owner.
        let _ = self.boot.set(boot);
        lists::repair(self).await?;
        Ok(recovery)
    }

    /// Notes that this daemon stopped in order.
    ///
    /// # Errors
    /// As of any write.
    pub async fn end_boot(&self) -> Result<()> {
        let (boot, clock) = (self.boot()?, self.clock.clone());
        self.write(move |tx| {
            let now = clock.now();
            Box::pin(async move {
                sqlx::query("UPDATE boots SET stopped_at = ?2 WHERE id = ?1")
                    .bind(boot)
                    .bind(now.as_millis())
                    .execute(tx)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}
