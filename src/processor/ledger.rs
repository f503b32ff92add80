//! What a built-in processor says of steps that it takes once, and of stages that its job comes to. Commands say the same
//! by `ingestd effect` and `ingestd stage`.

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

use crate::job::{EffectId, ErrorKind, JobError, Outcome};

/// What follows from the intent to take a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Intended {
    /// The intent is committed: take the step.
    Run(EffectId),
    /// It was taken before, with this result: don't take it again.
    Done(Value),
    /// It was begun before, and nobody knows how it came out.
    Unknown(EffectId),
}

/// Why the ledger does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// There is no right to work on the job any more.
    #[error("the lease was lost")]
    LeaseLost,
    /// It can't be written, for the reason that the words say.
    #[error("the ledger of effects: {0}")]
    Refused(String),
}

impl From<LedgerError> for Outcome {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::LeaseLost => Self::Interrupted,
            LedgerError::Refused(_) => Self::Failed(JobError::transient(ErrorKind::Io, error.to_string())),
        }
    }
}

/// The ledger of one execution. A database that can't be written just now is waited for.
#[async_trait]
pub trait Ledger: Send + Sync + fmt::Debug {
    /// Commits the intent to take a step.
    async fn begin(&self, kind: &'static str, context: &Value) -> Result<Intended, LedgerError>;
    /// Commits what came of it.
    async fn commit(&self, id: EffectId, result: &Value) -> Result<(), LedgerError>;
    /// The step was not taken, or may be taken again: its intent is forgotten.
    async fn withdraw(&self, id: EffectId) -> Result<(), LedgerError>;
    /// The job came to a stage; being further already is no error.
    async fn reach(&self, stage: &str, external_id: Option<String>) -> Result<(), LedgerError>;
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A ledger in memory, of one step.
    #[derive(Debug, Default)]
    pub(crate) struct Memory {
        /// What was said, in order.
        pub(crate) said: Mutex<Vec<String>>,
        /// What the next intent is answered; `None`: run.
        pub(crate) answer: Mutex<Option<Intended>>,
    }

    impl Memory {
        fn say(&self, what: String) {
            self.said.lock().unwrap().push(what);
        }
    }

    #[async_trait]
    impl Ledger for Memory {
        async fn begin(&self, kind: &'static str, context: &Value) -> Result<Intended, LedgerError> {
            self.say(format!("begin {kind} {context}"));
            Ok(self.answer.lock().unwrap().take().unwrap_or(Intended::Run(EffectId(1))))
        }
        async fn commit(&self, id: EffectId, result: &Value) -> Result<(), LedgerError> {
            self.say(format!("commit {id} {result}"));
            Ok(())
        }
        async fn withdraw(&self, id: EffectId) -> Result<(), LedgerError> {
            self.say(format!("withdraw {id}"));
            Ok(())
        }
        async fn reach(&self, stage: &str, external_id: Option<String>) -> Result<(), LedgerError> {
            self.say(format!("reach {stage} {external_id:?}"));
            Ok(())
        }
    }
}
