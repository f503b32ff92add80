//! The last run of each duty, kept in the database under `ingestd.maintenance.NAME` as one JSON object.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::store::{self, Settings};

/// What the keys of the records begin with.
pub const PREFIX: &str = "ingestd.maintenance.";

/// The last run of a duty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it last ended, well or not; before its first run, when the duty was first seen.
    #[serde(deserialize_with = "rfc3339")]
    pub last_at: Timestamp,
    /// How long it took.
    pub duration_ms: i64,
    /// What it did, the last time that it went well.
    pub figures: Value,
    /// Why it failed, where the last run did.
    pub error: Option<String>,
}

impl Record {
    /// Of a duty that was never run: its first period counts from here.
    pub(super) const fn first_seen(now: Timestamp) -> Self {
        Self { last_at: now, duration_ms: 0, figures: Value::Null, error: None }
    }

    /// Reads the duty's record; one that makes no sense counts as none.
    pub(super) async fn load(settings: &dyn Settings, duty: &str) -> store::Result<Option<Self>> {
        let text = settings.kv_get(&format!("{PREFIX}{duty}")).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Writes it.
    pub(super) async fn save(&self, settings: &dyn Settings, duty: &str) -> store::Result<()> {
        let text = serde_json::to_string(self).unwrap_or_default();
        settings.kv_set(&format!("{PREFIX}{duty}"), &text).await
    }
}

/// Times are written for people, and read back here.
fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[tokio::test]
    async fn a_record_comes_back_as_it_was_kept() {
        let (_context, store, _clock) = fake::context();
        assert_eq!(Record::load(&*store, "prune").await.unwrap(), None);
        let record = Record {
            last_at: Timestamp::from_millis(1_767_323_045_678),
            duration_ms: 12,
            figures: serde_json::json!({ "completed": 3 }),
            error: Some("busy".into()),
        };
        record.save(&*store, "prune").await.unwrap();
        assert!(store.state().kv["ingestd.maintenance.prune"].contains("2026-01-02T03:04:05.678Z"));
        assert_eq!(Record::load(&*store, "prune").await.unwrap(), Some(record));
        store.state().kv.insert("ingestd.maintenance.prune".into(), "nonsense".into());
        assert_eq!(Record::load(&*store, "prune").await.unwrap(), None);
    }
}
