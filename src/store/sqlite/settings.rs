//! Pauses, watches and key-value state.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use async_trait::async_trait;

use super::super::error::Result;
use super::super::settings::{KvEntry, Settings, WatchRow};
use super::{SqliteStore, row};
use crate::clock::Timestamp;

/// Rows that a list reads at most.
const MOST_ROWS: i64 = 100_000;

#[async_trait]
impl Settings for SqliteStore {
    async fn register_pipelines(&self, names: Vec<String>) -> Result<()> {
        let names = names_array(names);
        self.write(move |tx| {
            let names = names.clone();
            Box::pin(async move {
                sqlx::query("INSERT OR IGNORE INTO pipelines (name) SELECT value FROM json_each(?1)")
                    .bind(names)
                    .execute(tx)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    async fn pause_pipelines(&self, names: Vec<String>, paused: bool) -> Result<()> {
        let names = names_array(names);
        self.write(move |tx| {
            let names = names.clone();
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO pipelines (name, paused) SELECT value, ?2 FROM json_each(?1) WHERE true
                     ON CONFLICT (name) DO UPDATE SET paused = excluded.paused",
                )
                .bind(names)
                .bind(paused)
                .execute(tx)
                .await?;
                Ok(())
            })
        })
        .await?;
        // What waited for this may be leasable now.
        self.nudge();
        Ok(())
    }

    async fn paused_pipelines(&self) -> Result<BTreeSet<String>> {
        let names: Vec<String> = sqlx::query_scalar("SELECT name FROM pipelines WHERE paused = 1 LIMIT ?1")
            .bind(MOST_ROWS)
            .fetch_all(self.readers())
            .await?;
        Ok(names.into_iter().collect())
    }

    async fn put_watch(&self, name: &str, root: PathBuf, definition: Option<String>) -> Result<()> {
        let (name, now) = (name.to_owned(), self.clock.now().as_millis());
        self.write(move |tx| {
            let (name, root, definition) = (name.clone(), root.clone(), definition.clone());
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO watches (name, root, definition, created_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (name) DO UPDATE SET
                         root = excluded.root, definition = coalesce(excluded.definition, definition),
                         first_scanned_at = iif(root = excluded.root, first_scanned_at, NULL)",
                )
                .bind(name)
                .bind(root.as_os_str().as_bytes())
                .bind(definition)
                .bind(now)
                .execute(tx)
                .await?;
                Ok(())
            })
        })
        .await
    }

    async fn remove_watch(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.write(move |tx| {
            let name = name.clone();
            Box::pin(async move {
                let done =
                    sqlx::query("UPDATE watches SET definition = NULL WHERE name = ?1 AND definition IS NOT NULL")
                        .bind(name)
                        .execute(tx)
                        .await?;
                Ok(done.rows_affected() > 0)
            })
        })
        .await
    }

    async fn pause_watch(&self, name: &str, paused: bool) -> Result<bool> {
        let name = name.to_owned();
        self.write(move |tx| {
            let name = name.clone();
            Box::pin(async move {
                let done = sqlx::query("UPDATE watches SET paused = ?2 WHERE name = ?1")
                    .bind(name)
                    .bind(paused)
                    .execute(tx)
                    .await?;
                Ok(done.rows_affected() > 0)
            })
        })
        .await
    }

    async fn watches(&self) -> Result<Vec<WatchRow>> {
        let rows: Vec<(String, Vec<u8>, Option<String>, bool)> =
            sqlx::query_as("SELECT name, root, definition, paused FROM watches ORDER BY name LIMIT ?1")
                .bind(MOST_ROWS)
                .fetch_all(self.readers())
                .await?;
        Ok(rows
            .into_iter()
            .map(|(name, root, definition, paused)| WatchRow { name, root: row::path(root), definition, paused })
            .collect())
    }

    async fn kv_get(&self, key: &str) -> Result<Option<String>> {
        Ok(sqlx::query_scalar("SELECT value FROM kv WHERE key = ?1").bind(key).fetch_optional(self.readers()).await?)
    }

    async fn kv_set(&self, key: &str, value: &str) -> Result<()> {
        let (key, value, now) = (key.to_owned(), value.to_owned(), self.clock.now().as_millis());
        self.write(move |tx| {
            let (key, value) = (key.clone(), value.clone());
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO kv (key, value, updated_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                )
                .bind(key)
                .bind(value)
                .bind(now)
                .execute(tx)
                .await?;
                Ok(())
            })
        })
        .await
    }

    async fn kv_delete(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.write(move |tx| {
            let key = key.clone();
            Box::pin(async move {
                let done = sqlx::query("DELETE FROM kv WHERE key = ?1").bind(key).execute(tx).await?;
                Ok(done.rows_affected() > 0)
            })
        })
        .await
    }

    async fn kv_list(&self, prefix: &str) -> Result<Vec<KvEntry>> {
        // Keys that begin with the prefix lie between it and it with the highest of all characters appended.
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT key, value, updated_at FROM kv WHERE key >= ?1 AND key < ?1 || char(1114111)
             ORDER BY key LIMIT ?2",
        )
        .bind(prefix)
        .bind(MOST_ROWS)
        .fetch_all(self.readers())
        .await?;
        Ok(rows
            .into_iter()
            .map(|(key, value, updated_at)| KvEntry { key, value, updated_at: Timestamp::from_millis(updated_at) })
            .collect())
    }
}

/// Names as one bound parameter for `json_each`.
fn names_array(names: Vec<String>) -> String {
    serde_json::Value::from(names).to_string()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use tempfile::TempDir;

    use super::super::fixture;
    use super::*;

    #[tokio::test]
    async fn a_pause_is_kept_by_name_also_before_the_first_job() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        store.register_pipelines(vec!["documents".into(), "later".into()]).await.unwrap();
        assert!(store.paused_pipelines().await.unwrap().is_empty());
        store.pause_pipelines(vec!["later".into(), "unheard-of".into()], true).await.unwrap();
        store.register_pipelines(vec!["later".into()]).await.unwrap();
        let paused: Vec<_> = store.paused_pipelines().await.unwrap().into_iter().collect();
        assert_eq!(paused, ["later", "unheard-of"]);
        store.pause_pipelines(vec!["later".into()], false).await.unwrap();
        assert_eq!(store.paused_pipelines().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_watch_keeps_its_definition_when_only_its_root_changes_and_loses_it_when_removed() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        let root = PathBuf::from(OsStr::from_bytes(b"/srv/\xff"));
        store.put_watch("scans", root.clone(), Some(r#"{"settle":"2s"}"#.into())).await.unwrap();
        assert!(store.pause_watch("scans", true).await.unwrap());
        store.put_watch("scans", root.clone(), None).await.unwrap();
        let watches = store.watches().await.unwrap();
        let definition = Some(r#"{"settle":"2s"}"#.to_owned());
        assert_eq!(watches[1], WatchRow { name: "scans".into(), root: root.clone(), definition, paused: true });
        assert!(store.remove_watch("scans").await.unwrap());
        assert!(!store.remove_watch("scans").await.unwrap());
        assert!(!store.remove_watch("inbox").await.unwrap(), "it is the file's");
        assert!(!store.pause_watch("unheard-of", true).await.unwrap());
        assert_eq!(store.watches().await.unwrap().len(), 2);
        let not_json = store.put_watch("bad", root, Some("{".into())).await;
        assert!(not_json.is_err());
    }

    #[tokio::test]
    async fn values_are_set_replaced_listed_by_prefix_and_deleted() {
        let dir = TempDir::new().unwrap();
        let store = fixture::store(&dir).await;
        for key in ["a", "sys.x", "sys.ä", "sys", "sys/", "b%"] {
            store.kv_set(key, key).await.unwrap();
        }
        store.kv_set("a", "2").await.unwrap();
        assert_eq!(store.kv_get("a").await.unwrap().as_deref(), Some("2"));
        assert_eq!(store.kv_get("c").await.unwrap(), None);
        let keys: Vec<_> = store.kv_list("sys.").await.unwrap().into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, ["sys.x", "sys.ä"]);
        let all = store.kv_list("").await.unwrap();
        assert_eq!((all.len(), all[0].updated_at.as_millis()), (8, fixture::NOW));
        assert!(store.kv_delete("a").await.unwrap());
        assert!(!store.kv_delete("a").await.unwrap());
    }
}
