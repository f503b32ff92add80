//! What a restored copy needs before a daemon may work with it.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::super::error::Result;
use crate::clock::Clock;

/// Makes a copy that was put in the place of a database ready: jobs that were running when it was taken become
/// pending, with nothing spent and no crash counted; the incarnation is drawn anew, so that a version number that
/// was rolled back never meets an old idempotency key; counters are counted.
///
/// # Errors
/// The copy can't be opened or written.
pub async fn after_restore(path: &Path, clock: &dyn Clock) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(path).disable_statement_logging();
    let mut connection = options.connect().await?;
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let now = clock.now().as_millis();
    sqlx::query("UPDATE jobs SET state = 'pending', boot = NULL, lease_deadline = NULL WHERE state = 'running'")
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE jobs SET blocked_by = NULL WHERE blocked_by IS NOT NULL").execute(&mut *tx).await?;
    sqlx::query("UPDATE boots SET stopped_at = ? WHERE stopped_at IS NULL").bind(now).execute(&mut *tx).await?;
    sqlx::query("UPDATE kv SET value = lower(hex(randomblob(16))), updated_at = ? WHERE key = 'ingestd.incarnation'")
        .bind(now)
        .execute(&mut *tx)
        .await?;
    recount(&mut tx).await?;
    tx.commit().await?;
    connection.close().await?;
    Ok(())
}

/// Replaces the counters by what the jobs say.
pub(super) async fn recount(tx: &mut SqliteConnection) -> Result<()> {
    sqlx::query("DELETE FROM counters").execute(&mut *tx).await?;
    sqlx::query(
        "INSERT INTO counters (pipeline, state, priority, n)
         SELECT pipeline, state, priority, count(*) FROM jobs GROUP BY 1, 2, 3",
    )
    .execute(tx)
    .await?;
    Ok(())
}
