//! `stage` and `external_id` of an `http` pipeline: where a success takes the job, and which part of the answer is the
//! other side's name for it. Neither has a default: without them a call moves no job.

use super::section::Section;
use super::values::{Form, quote, text};

/// Where a success takes a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerStage {
    /// One of the pipeline's `stages`.
    pub stage: String,
    /// A JSON pointer (RFC 6901) into the answer; `None`: the other side gives no name.
    pub external_id: Option<String>,
}

/// Reads both keys, beside the pipeline's stages.
pub(super) fn read(section: &mut Section<'_, '_, '_>, stages: &[String], batch_size: usize) -> Option<AnswerStage> {
    let pointer: Form<String> = text("a JSON pointer, such as \"/id\"", |pointer| pointer.starts_with('/'));
    let (stage, external_id) = (section.value("stage"), section.value("external_id"));
    let Some(value) = stage else {
        if let Some(value) = external_id {
            section.refuse("external_id", value, Some("means nothing without stage".to_owned()), Some(pointer.allowed));
        }
        return None;
    };
    let declared = stages.to_vec();
    let names: Vec<String> = stages.iter().map(|stage| quote(stage)).collect();
    let allowed = match names.as_slice() {
        [] => "a stage that the key stages declares".to_owned(),
        names => format!("one of stages: {}", names.join(", ")),
    };
    let form = text(allowed, move |stage| declared.iter().any(|declared| declared == stage));
    if batch_size > 1 {
        let message = "does not fit batch_size > 1: the answer to a batch is about many jobs";
        section.refuse("stage", value, Some(message.to_owned()), Some("no such key".to_owned()));
    }
    let external_id = external_id.and_then(|_| section.require("external_id", &pointer));
    section.require("stage", &form).map(|stage| AnswerStage { stage, external_id })
}
