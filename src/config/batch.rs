//! What does not fit an execution that takes many jobs: placeholders that stand for one of them.

use std::collections::BTreeMap;

use super::layers::join;
use super::placeholders;
use super::report::Problem;
use super::section::Section;
use super::sections::ProcessorKind;

/// Refuses each placeholder of a single job in the strings of a pipeline that works in batches.
pub(super) fn refuse_placeholders(kind: &ProcessorKind, section: &mut Section<'_, '_, '_>) {
    let below = |table: &str, texts: &BTreeMap<String, String>| -> Vec<(String, String)> {
        texts.iter().map(|(name, text)| (join(&section.key(table), name), text.clone())).collect()
    };
    let texts: Vec<(String, String)> = match kind {
        ProcessorKind::Exec(exec) => {
            let command = exec.command.iter().enumerate();
            let command = command.map(|(at, text)| (format!("{}[{at}]", section.key("command")), text.clone()));
            command.chain(below("env", &exec.env)).collect()
        }
        ProcessorKind::Http(http) => {
            let url = std::iter::once((section.key("url"), http.url.clone()));
            url.chain(below("headers", &http.headers)).collect()
        }
        ProcessorKind::Noop => Vec::new(),
    };
    let told = match kind {
        ProcessorKind::Http(_) => "the body",
        _ => "standard input",
    };
    for (path, text) in texts {
        let Some(name) = placeholders::per_job(&text) else { continue };
        let message = format!(
            "{{{name}}} stands for one job, but with batch_size > 1 an execution has many; {told} tells of each of them"
        );
        let origin = section.found.origin_around(&path);
        // What was written is not shown: beside the placeholder there may be a secret.
        section.found.problems.push(Problem::new(path, message).allowed("{pipeline} alone").at(origin));
    }
}
