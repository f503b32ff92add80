//! Asks SQLite and the counters whether the database is sound. What is found is a critical warning, for as long
//! as it is found.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::duty::{Context, Duty, Failure};
use crate::config;
use crate::store::{StoreError, Upkeep};
use crate::warnings::{Severity, Warnings};

/// The warning's key.
const KEY: &str = "database.check";
/// Findings that a warning quotes; the record counts them all.
const QUOTED: usize = 3;

pub(super) struct Check;

#[async_trait]
impl Duty for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn period(&self, _: &Context, settings: &config::Maintenance) -> Duration {
        settings.check_interval
    }

    fn recall(&self, context: &Context, figures: &Value) {
        // A restart repairs nothing: what was found stays said until a check finds it gone.
        let found = figures["findings"].as_u64().unwrap_or(0);
        let quoted = figures["first"].as_array().into_iter().flatten().filter_map(Value::as_str);
        report(&context.warnings, &quoted.collect::<Vec<_>>(), found);
    }

    async fn run(&self, context: &Context, _: &config::Maintenance) -> Result<Option<Value>, Failure> {
        let findings = check_now(context.upkeep.as_ref(), false).await?;
        let figures = figures(&findings);
        self.recall(context, &figures);
        Ok(Some(figures))
    }
}

/// What is wrong with the database; empty: nothing. A file too damaged to be checked is a finding too.
///
/// # Errors
/// The store's, where the check could not be made.
pub async fn check_now(upkeep: &dyn Upkeep, full: bool) -> Result<Vec<String>, Failure> {
    match upkeep.check(full).await {
        Err(StoreError::Corrupt(why)) => Ok(vec![why]),
        other => Ok(other?),
    }
}

/// The record of a check: how many findings, and the first of them.
pub(super) fn figures(findings: &[String]) -> Value {
    json!({ "findings": findings.len(), "first": findings.iter().take(QUOTED).collect::<Vec<_>>() })
}

fn report(warnings: &Warnings, quoted: &[&str], found: u64) {
    if found == 0 {
        return warnings.clear(KEY);
    }
    let more = match found.saturating_sub(quoted.len() as u64) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "the database is damaged: {}{more}. Stop the daemon, then `ingestd db restore --newest`, or \
         `ingestd db check --repair`",
        quoted.join("; ")
    );
    warnings.set(KEY, Severity::Critical, message);
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[tokio::test]
    async fn findings_are_a_critical_warning_until_they_are_gone() {
        let (context, store, _clock) = fake::context();
        let settings = config::Maintenance::default();
        store.state().findings = (1..=5).map(|n| format!("page {n} is never used")).collect();
        Check.run(&context, &settings).await.unwrap();
        let list = context.warnings.list();
        assert_eq!(list[0].severity, Severity::Critical);
        assert!(list[0].message.contains("page 3 is never used and 2 more"), "{}", list[0].message);
        store.state().findings.clear();
        Check.run(&context, &settings).await.unwrap();
        assert!(context.warnings.list().is_empty());
    }

    #[tokio::test]
    async fn a_file_too_damaged_to_be_checked_is_a_finding() {
        let (_context, store, _clock) = fake::context();
        store.state().fail_with = Some(StoreError::Corrupt("malformed".into()));
        assert_eq!(check_now(&*store, false).await.unwrap(), ["malformed"]);
    }
}
