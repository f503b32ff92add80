//! The last run of each duty, kept in the database under `ingestd.maintenance.NAME` as one JSON object.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::store::{self, Settings};

/// What the keys of the records begin with.
pub const PREFIX: &str = "ingestd.maintenance.";

/// The last run of a duty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The next period counts from here: the last run, or, before the first one, when the duty was first seen.
    #[serde(deserialize_with = "rfc3339")]
    pub since: Timestamp,
    /// When it last ended, well or not; `None`: it never ran.
    #[serde(deserialize_with = "optional_rfc3339")]
    pub last_at: Option<Timestamp>,
    /// How long it took.
    pub duration_ms: i64,
    /// What it did, the last time that it went well.
    pub figures: Value,
    /// Why it failed, where the last run did.
    pub error: Option<String>,
}

impl Record {
    /// Of a duty that was never run.
    pub(super) const fn first_seen(now: Timestamp) -> Self {
        Self { since: now, last_at: None, duration_ms: 0, figures: Value::Null, error: None }
    }

    /// Of a run that ended now, well.
    pub(super) const fn ran(now: Timestamp, duration_ms: i64, figures: Value) -> Self {
        Self { since: now, last_at: Some(now), duration_ms, figures, error: None }
    }

    /// Of a run that ended now, and failed; the figures stay those of the one before.
    pub(super) fn failed(now: Timestamp, duration_ms: i64, before: Option<Self>, error: String) -> Self {
        let figures = before.map_or(Value::Null, |record| record.figures);
        Self { error: Some(error), ..Self::ran(now, duration_ms, figures) }
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
    let time = jiff::Timestamp::from_str(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}

fn optional_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    struct Written(#[serde(deserialize_with = "rfc3339")] Timestamp);
    Ok(Option::<Written>::deserialize(deserializer)?.map(|written| written.0))
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
            error: Some("busy".into()),
            ..Record::ran(Timestamp::from_millis(1_767_323_045_678), 12, serde_json::json!({ "completed": 3 }))
        };
        record.save(&*store, "prune").await.unwrap();
        assert!(store.state().kv["ingestd.maintenance.prune"].contains("2026-01-02T03:04:05.678Z"));
        assert_eq!(Record::load(&*store, "prune").await.unwrap(), Some(record));
        let unborn = Record::first_seen(Timestamp::default());
        unborn.save(&*store, "prune").await.unwrap();
        assert_eq!(Record::load(&*store, "prune").await.unwrap(), Some(unborn));
        store.state().kv.insert("ingestd.maintenance.prune".into(), "nonsense".into());
        assert_eq!(Record::load(&*store, "prune").await.unwrap(), None);
    }
}
