//! What the processor of a batch says of single jobs.
//!
//! An answer is a JSON object, `{"job": ID, "ok": true}` or `{"job": ID, "ok": false, "error": "…", "retry": false}`:
//! one on each line, or (from a server) an array of them. Whatever else stands there is no answer, and no mistake:
//! commands print what they like. Where a job is answered twice, the last word counts.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::Task;
use crate::job::{ErrorKind, JobError, JobId, Outcome};

/// The longest line that may be an answer, in bytes.
const LONGEST_LINE: usize = 64 << 10;
/// The most of an answer's words that is kept, in bytes.
const MESSAGE_LIMIT: usize = 300;

/// One answer, as it is written.
#[derive(Debug, Deserialize)]
struct Answer {
    job: i64,
    ok: bool,
    error: Option<Value>,
    retry: Option<bool>,
}

/// Gathers answers from what a processor says.
#[derive(Debug)]
pub struct Answers<'a> {
    tasks: &'a [&'a Task],
    asked: HashSet<JobId>,
    named: HashMap<JobId, Outcome>,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// It is too long to be an answer.
    overlong: bool,
    /// Answers about jobs that nobody asked for, and the first of these.
    strangers: usize,
    first_stranger: Option<i64>,
}

impl<'a> Answers<'a> {
    /// No answer yet about these tasks.
    pub fn about(tasks: &'a [&'a Task]) -> Self {
        Self {
            tasks,
            asked: tasks.iter().map(|task| task.job).collect(),
            named: HashMap::new(),
            line: Vec::new(),
            overlong: false,
            strangers: 0,
            first_stranger: None,
        }
    }

    /// Takes what was said, cut anywhere.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(&rest[..end]);
            self.end_line();
            rest = &rest[end + 1..];
        }
        self.extend(rest);
    }

    /// Takes all that a server answered: an array, or lines.
    pub fn push_body(&mut self, body: &[u8]) {
        match serde_json::from_slice::<Vec<Value>>(body) {
            Ok(values) => {
                for answer in values.into_iter().filter_map(|value| serde_json::from_value(value).ok()) {
                    self.take(answer);
                }
            }
            Err(_) => self.push(body),
        }
    }

    /// Every answer, by job.
    pub fn finish(mut self) -> HashMap<JobId, Outcome> {
        self.end_line();
        if let (Some(job), Some(task)) = (self.first_stranger, self.tasks.first()) {
            let (pipeline, answers) = (task.pipeline.as_str(), self.strangers);
            tracing::warn!(job.id = job, pipeline, answers, "answers about jobs that are not in the batch are ignored");
        }
        self.named
    }

    fn extend(&mut self, part: &[u8]) {
        self.overlong |= self.line.len() + part.len() > LONGEST_LINE;
        if !self.overlong {
            self.line.extend_from_slice(part);
        }
    }

    fn end_line(&mut self) {
        let is_object = self.line.trim_ascii_start().first() == Some(&b'{');
        if !self.overlong
            && is_object
            && let Ok(answer) = serde_json::from_slice(&self.line)
        {
            self.take(answer);
        }
        self.line.clear();
        self.overlong = false;
    }

    fn take(&mut self, answer: Answer) {
        let job = JobId(answer.job);
        if !self.asked.contains(&job) {
            self.strangers += 1;
            self.first_stranger.get_or_insert(answer.job);
            return;
        }
        let outcome = if answer.ok { Outcome::Done } else { Outcome::Failed(answer.into_error()) };
        self.named.insert(job, outcome);
    }
}

impl Answer {
    fn into_error(self) -> JobError {
        let said = match self.error {
            Some(Value::String(text)) if !text.trim().is_empty() => text,
            None | Some(Value::Null | Value::String(_)) => "the processor says that it failed, and not why".to_owned(),
            Some(other) => other.to_string(),
        };
        let mut message = said.replace(char::is_control, " ");
        message.truncate(message.floor_char_boundary(MESSAGE_LIMIT));
        JobError { kind: ErrorKind::Answer, message, permanent: self.retry == Some(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::tests::task;

    fn tasks() -> Vec<Task> {
        (1..=3).map(|job| Task { job: JobId(job), ..task("/a") }).collect()
    }

    fn heard(say: impl FnOnce(&mut Answers<'_>)) -> HashMap<JobId, Outcome> {
        let tasks = tasks();
        let tasks: Vec<&Task> = tasks.iter().collect();
        let mut answers = Answers::about(&tasks);
        say(&mut answers);
        answers.finish()
    }

    fn failed(message: &str, permanent: bool) -> Outcome {
        Outcome::Failed(JobError { kind: ErrorKind::Answer, message: message.to_owned(), permanent })
    }

    const SAID: &[u8] =
        b"working\n{\"job\": 1, \"ok\": true}\r\n{\"job\":\"2\",\"ok\":true}\n{\"job\": 9, \"ok\": true}\n\
        {\"ok\": false}\n\xff\n  {\"job\":3,\"ok\":false,\"error\":\"no\\nroom\",\"retry\":false,\"more\":[]}";

    #[test]
    fn answers_are_found_among_whatever_else_is_printed_however_it_is_cut() {
        let expected = HashMap::from([(JobId(1), Outcome::Done), (JobId(3), failed("no room", true))]);
        for step in [1, 2, 7, 1_000] {
            assert_eq!(heard(|answers| SAID.chunks(step).for_each(|chunk| answers.push(chunk))), expected, "{step}");
        }
    }

    #[test]
    fn a_failure_is_tried_again_unless_it_says_otherwise_and_the_last_word_counts() {
        let said = br#"{"job":1,"ok":false}
            {"job":2,"ok":false,"error":{"code":7},"retry":true}
            {"job":3,"ok":true}
            {"job":3,"ok":false,"error":"after all"}"#;
        let named = heard(|answers| answers.push(said));
        assert_eq!(named[&JobId(1)], failed("the processor says that it failed, and not why", false));
        assert_eq!(named[&JobId(2)], failed(r#"{"code":7}"#, false));
        assert_eq!(named[&JobId(3)], failed("after all", false));
    }

    #[test]
    fn a_line_that_is_too_long_is_no_answer_and_the_next_one_may_be() {
        let long =
            format!("{{\"job\":1,\"ok\":true,\"x\":\"{}\"}}\n{{\"job\":2,\"ok\":true}}\n", "x".repeat(LONGEST_LINE));
        let named = heard(|answers| long.as_bytes().chunks(1_000).for_each(|chunk| answers.push(chunk)));
        assert_eq!(named, HashMap::from([(JobId(2), Outcome::Done)]));
    }

    #[test]
    fn a_server_answers_with_an_array_or_with_lines() {
        let expected = HashMap::from([(JobId(1), Outcome::Done), (JobId(2), failed("x", false))]);
        let array = br#" [{"job":1,"ok":true}, 7, {"job":2,"ok":false,"error":"x"}]"#;
        assert_eq!(heard(|answers| answers.push_body(array)), expected);
        let lines = b"{\"job\":1,\"ok\":true}\n{\"job\":2,\"ok\":false,\"error\":\"x\"}\n";
        assert_eq!(heard(|answers| answers.push_body(lines)), expected);
        assert!(heard(|answers| answers.push_body(b"stored")).is_empty());
    }
}
