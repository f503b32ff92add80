//! What the processor of a batch says of single jobs.
//!
//! An answer is a JSON object, `{"job": ID, "ok": true}` or `{"job": ID, "ok": false, "error": "…", "retry": false}`:
//! one on each line, or (from a server) an array of them. A job's number may be written as a string. Whatever else
//! stands there is no answer, and no mistake: commands print what they like. But what looks like an answer and can't be
//! taken as one is warned of, once for each execution. Where a job is answered twice, the last word counts.

use std::collections::{HashMap, HashSet};

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::Task;
use crate::job::{ErrorKind, JobError, JobId, Outcome};

/// The longest line that may be an answer, in bytes.
const LONGEST_LINE: usize = 64 << 10;
/// The most of an answer's words that is kept, in bytes.
const MESSAGE_LIMIT: usize = 300;
/// The most of a line that can't be read which is shown, in bytes.
const SHOWN: usize = 120;

/// One answer, as it is written.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(deserialize_with = "number")]
    job: i64,
    ok: bool,
    error: Option<Value>,
    retry: Option<bool>,
}

/// A job's number, also where it is written as a string: shells and some languages have no others.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let value = Value::deserialize(from)?;
    let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
    number.ok_or_else(|| D::Error::custom("`job` is no job's number"))
}

/// What looks like answers and can't be taken.
#[derive(Debug)]
struct Unread {
    lines: usize,
    /// The beginning of the first one.
    first: String,
    /// What is wrong with that.
    why: String,
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
    unread: Option<Unread>,
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
            unread: None,
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
        match items(body) {
            Ok(items) => items.for_each(|item| self.read(item)),
            Err(error) => match body.trim_ascii_start().strip_prefix(b"[") {
                Some(inside) if begins_like_an_answer(inside) => self.ignore(body, error.to_string()),
                _ => self.push(body),
            },
        }
    }

    /// Every answer, by job.
    pub fn finish(mut self) -> HashMap<JobId, Outcome> {
        self.end_line();
        if let (Some(Unread { lines, first, why }), Some(task)) = (&self.unread, self.tasks.first()) {
            let pipeline = task.pipeline.as_str();
            tracing::warn!(pipeline, lines, first, why, "what looks like an answer about a job is ignored");
        }
        self.named
    }

    fn extend(&mut self, part: &[u8]) {
        let room = LONGEST_LINE - self.line.len();
        self.overlong |= part.len() > room;
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        if !self.overlong {
            self.read(&line);
        } else if begins_like_an_answer(&line) {
            self.ignore(&line, format!("a line of more than {LONGEST_LINE} bytes is no answer"));
        }
        line.clear();
        self.line = line;
        self.overlong = false;
    }

    /// Takes a line or an item if it is an answer.
    fn read(&mut self, line: &[u8]) {
        if line.trim_ascii_start().first() != Some(&b'{') {
            return;
        }
        match serde_json::from_slice::<Answer>(line) {
            Ok(answer) if self.asked.contains(&JobId(answer.job)) => {
                let job = JobId(answer.job);
                let outcome = if answer.ok { Outcome::Done } else { Outcome::Failed(answer.into_error()) };
                self.named.insert(job, outcome);
            }
            Ok(answer) => self.ignore(line, format!("job {} is not in the batch", answer.job)),
            Err(error) if looks_like_an_answer(line) => self.ignore(line, error.to_string()),
            Err(_) => {}
        }
    }

    fn ignore(&mut self, line: &[u8], why: String) {
        let first = || Unread { lines: 0, first: beginning(line), why };
        self.unread.get_or_insert_with(first).lines += 1;
    }
}

/// The items of an array as they are written: what stands twice in one of them, and which, is for the reader to judge.
fn items(array: &[u8]) -> Result<impl Iterator<Item = &[u8]>, serde_json::Error> {
    serde_json::from_slice::<Vec<IgnoredAny>>(array)?;
    // It is one. What is left is to find where each item ends.
    let mut rest = array.trim_ascii_start().strip_prefix(b"[").unwrap_or_default();
    Ok(std::iter::from_fn(move || {
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        let (item, after) = rest.split_at(values.byte_offset());
        rest = after.trim_ascii_start().strip_prefix(b",").unwrap_or_default();
        Some(item)
    }))
}

/// Whether someone meant it as an answer: a JSON object with one of its members, or the beginning of one.
fn looks_like_an_answer(line: &[u8]) -> bool {
    let members = |object: &Map<String, Value>| object.contains_key("job") || object.contains_key("ok");
    begins_like_an_answer(line) || serde_json::from_slice(line).is_ok_and(|object| members(&object))
}

fn begins_like_an_answer(line: &[u8]) -> bool {
    let inside = line.trim_ascii_start().strip_prefix(b"{").unwrap_or_default();
    inside.trim_ascii_start().starts_with(b"\"job\"")
}

/// As much of a line as is shown.
fn beginning(line: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).replace(char::is_control, " ");
    if line.len() > SHOWN {
        text.push('…');
    }
    text
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
        b"working\n{\"job\": \"1\", \"ok\": true}\r\n{\"job\":\"two\",\"ok\":true}\n{\"job\": 9, \"ok\": true}\n\
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
    fn what_looks_like_an_answer_and_is_none_is_kept_for_one_warning() {
        let unread = |said: &[u8], body: bool| {
            let tasks = tasks();
            let tasks: Vec<&Task> = tasks.iter().collect();
            let mut answers = Answers::about(&tasks);
            if body {
                answers.push_body(said)
            } else {
                answers.push(said)
            }
            answers.end_line();
            answers.unread.map(|unread| (unread.lines, unread.first, unread.why))
        };
        for other in [&b"{\"level\":\"info\"}\n{}\n{ cut\nok\n{\"job\":\"3\",\"ok\":true}"[..], b"[7, {\"id\": 1}]"] {
            assert_eq!(unread(other, true), None, "{}", String::from_utf8_lossy(other));
        }
        for (wrong, why) in [
            (&b"{\"job\":\"x\",\"ok\":true}"[..], "no job's number"),
            (b"{\"job\":1,\"ok\":\"yes\"}", "expected a boolean"),
            (b"{\"ok\":true}", "missing field `job`"),
            (b"{\"job\":1}", "missing field `ok`"),
            (b"{\"job\":9,\"ok\":true}", "job 9 is not in the batch"),
            (b" { \"job\":1,\"ok\":tr", "EOF"),
        ] {
            let array = [b"[", wrong, b", 5]"].concat();
            for (said, body) in [(wrong, false), (wrong, true), (&array[..], true)] {
                let (lines, first, told) = unread(said, body).unwrap();
                assert_eq!(lines, 1);
                assert!(first.contains("\"job\"") || first.contains("\"ok\""), "{first}");
                assert!(told.contains(why) || (said == array && why == "EOF"), "{told}: {why}");
            }
        }
        let long = format!("{{\"job\":1,\"ok\":true,\"x\":\"{}\"}}\n{{\"ok\":1}}\n", "x".repeat(LONGEST_LINE));
        let (lines, first, _) = unread(long.as_bytes(), false).unwrap();
        assert_eq!((lines, first.chars().count()), (2, SHOWN + 1));
    }

    #[test]
    fn a_server_answers_with_an_array_or_with_lines() {
        let expected = HashMap::from([(JobId(1), Outcome::Done), (JobId(2), failed("x", false))]);
        let array = br#" [{"job":1,"ok":true}, 7, {"job":2,"ok":false,"error":"x"}]"#;
        assert_eq!(heard(|answers| answers.push_body(array)), expected);
        let lines = b"{\"job\":1,\"ok\":true}\n{\"job\":2,\"ok\":false,\"error\":\"x\"}\n";
        assert_eq!(heard(|answers| answers.push_body(lines)), expected);
        assert!(heard(|answers| answers.push_body(b"stored")).is_empty());
        let twice = br#"[{"job":1,"ok":false,"ok":true}, {"job":3,"job":2,"ok":true}, {"job":3,"ok":true}]"#;
        assert_eq!(heard(|answers| answers.push_body(twice)), HashMap::from([(JobId(3), Outcome::Done)]));
    }
}
