//! Finds steps that were begun and that nobody will commit any more, because their execution is over: from then on it is
//! unknown whether they were taken. Those of failed jobs wait for a person, who is told. A step whose execution lives is
//! left alone however long it takes, and told once it takes long.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::duty::{Context, Duty, Failure, First};
use crate::config;
use crate::store::AbandonedEffects;
use crate::warnings::Severity;

/// From one look to the next. Whoever begins such a step again is told by the ledger itself; this is for the eye.
const PERIOD: Duration = Duration::from_mins(1);

/// A step that takes longer is told.
const LONG: Duration = Duration::from_hours(1);

const WAITING: &str = "effects.unknown";
const OVERDUE: &str = "effects.overdue";

pub(super) struct Abandon;

#[async_trait]
impl Duty for Abandon {
    fn name(&self) -> &'static str {
        "effects"
    }

    fn period(&self, _: &Context, _: &config::Maintenance) -> Duration {
        PERIOD
    }

    fn first(&self) -> First {
        First::AtOnce
    }

    async fn run(&self, context: &Context, _: &config::Maintenance) -> Result<Option<Value>, Failure> {
        let look = context.effects.abandon_effects(context.clock.now().minus(LONG)).await?;
        tell(look, context);
        if look.found == 0 {
            return Ok(None);
        }
        tracing::warn!(
            effects = look.found,
            "steps were begun by attempts that ended before they said how they came out"
        );
        Ok(Some(json!({ "unknown": look.found })))
    }
}

fn tell(look: AbandonedEffects, context: &Context) {
    let example = look.example.map(|job| format!(" (`ingestd show {job}`)")).unwrap_or_default();
    let conditions = [
        (
            WAITING,
            look.waiting,
            format!(
                "{} of failed jobs may have been taken or not{example}; find out, and say so with `ingestd effect resolve`",
                steps(look.waiting)
            ),
        ),
        (OVERDUE, look.overdue, format!("{} under way for more than an hour{example}", steps(look.overdue))),
    ];
    for (key, count, message) in conditions {
        if count > 0 {
            context.warnings.set(key, Severity::Warning, message);
        } else {
            context.warnings.clear(key);
        }
    }
}

fn steps(count: u64) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;
    use crate::job::JobId;

    #[tokio::test]
    async fn steps_that_wait_for_a_person_are_told_until_they_are_resolved() {
        let (context, store, _clock) = fake::context();
        let settings = config::Maintenance::default();
        assert_eq!(Abandon.run(&context, &settings).await.unwrap(), None);
        assert!(context.warnings.list().is_empty());
        store.state().abandoned = AbandonedEffects { found: 2, waiting: 1, overdue: 0, example: Some(JobId(7)) };
        assert_eq!(Abandon.run(&context, &settings).await.unwrap(), Some(json!({ "unknown": 2 })));
        let [warning] = &context.warnings.list()[..] else { panic!("one warning") };
        assert!(warning.message.contains("ingestd show 7"), "{}", warning.message);
        store.state().abandoned = AbandonedEffects::default();
        Abandon.run(&context, &settings).await.unwrap();
        assert!(context.warnings.list().is_empty());
    }
}
