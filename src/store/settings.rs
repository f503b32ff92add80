//! What is kept beside the queue: pauses, the watches that were made by command, key-value state.

use std::collections::BTreeSet;
use std::path::PathBuf;

use async_trait::async_trait;

use super::error::Result;
use crate::clock::Timestamp;

/// A watch as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRow {
    /// Its name.
    pub name: String,
    /// Its root.
    pub root: PathBuf,
    /// For those made with `watch add`: a JSON object with the keys of the configuration file.
    pub definition: Option<String>,
    /// Whether a person paused it.
    pub paused: bool,
}

/// An entry of the key-value store.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KvEntry {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// When it was set.
    pub updated_at: Timestamp,
}

/// Reads and writes the settings.
#[async_trait]
pub trait Settings: Send + Sync {
    /// Makes pipelines known by name, so that they can be paused before their first job.
    async fn register_pipelines(&self, names: Vec<String>) -> Result<()>;
    /// Pauses or resumes pipelines by name; makes unknown names known.
    async fn pause_pipelines(&self, names: Vec<String>, paused: bool) -> Result<()>;
    /// The paused ones.
    async fn paused_pipelines(&self) -> Result<BTreeSet<String>>;
    /// Makes a watch known with its root, or changes its root; a definition, where given, replaces the old one.
    async fn put_watch(&self, name: &str, root: PathBuf, definition: Option<String>) -> Result<()>;
    /// Forgets the definition of a watch made by command, keeping what is known of its files; `false`: no such.
    async fn remove_watch(&self, name: &str) -> Result<bool>;
    /// Pauses or resumes a watch; `false`: no such.
    async fn pause_watch(&self, name: &str, paused: bool) -> Result<bool>;
    /// Every watch that is known.
    async fn watches(&self) -> Result<Vec<WatchRow>>;
    /// One value.
    async fn kv_get(&self, key: &str) -> Result<Option<String>>;
    /// Sets a value.
    async fn kv_set(&self, key: &str, value: &str) -> Result<()>;
    /// Removes a value; `false`: there was none.
    async fn kv_delete(&self, key: &str) -> Result<bool>;
    /// Every entry whose key begins with `prefix`.
    async fn kv_list(&self, prefix: &str) -> Result<Vec<KvEntry>>;
}
