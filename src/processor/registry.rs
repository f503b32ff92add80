//! From a pipeline's configuration to its processor: the one place that knows every kind.

use std::fmt;
use std::sync::Arc;

use super::SharedProcessor;
use super::environment::ChildEnvironment;
use super::exec::ExecProcessor;
use super::http::HttpProcessor;
use super::noop::NoopProcessor;
use crate::config::{Pipeline, ProcessorKind};

/// Why a pipeline can't have a processor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct BuildError {
    /// The configuration's key, such as `pipeline.documents.command[2]`.
    pub key: String,
    /// What is wrong with its value, and what is allowed.
    pub why: String,
}

impl BuildError {
    pub(super) fn new(key: String, why: impl fmt::Display) -> Self {
        Self { key, why: why.to_string() }
    }
}

/// The processor of the pipeline `name`. Touches neither disk nor network, so it also serves to validate.
///
/// # Errors
/// The first thing that is wrong with the pipeline's own settings.
pub fn build(name: &str, pipeline: &Pipeline, environment: &ChildEnvironment) -> Result<SharedProcessor, BuildError> {
    let output_limit = usize::try_from(pipeline.output_bytes).unwrap_or(usize::MAX);
    Ok(match &pipeline.kind {
        ProcessorKind::Exec(exec) => Arc::new(ExecProcessor::new(name, exec, output_limit, environment)?),
        ProcessorKind::Http(http) => Arc::new(HttpProcessor::new(name, http, output_limit)?),
        ProcessorKind::Noop => Arc::new(NoopProcessor),
    })
}
