//! What the processor of a batch says of its jobs.

use std::collections::HashMap;
use std::fmt;

use ingestd::job::{JobId, Outcome};
use ingestd::processor::{Answers, Task};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::template::task;

/// A longer line is no answer.
const LONGEST_LINE: usize = 64 << 10;

/// However it is cut, the same jobs are named; only jobs of the batch; and one is done only if the last line that is
/// an answer about it says so.
pub fn answers(said: &[u8], cuts: &[usize]) {
    let tasks: Vec<Task> = (1..=4).map(|job| Task { job: JobId(job), ..task(b"/a") }).collect();
    let tasks: Vec<&Task> = tasks.iter().collect();
    let mut whole = Answers::about(&tasks);
    whole.push(said);
    let whole = whole.finish();

    let mut pieces = Answers::about(&tasks);
    let mut rest = said;
    for cut in cuts.iter().chain(&[usize::MAX]) {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    assert_eq!(pieces.finish(), whole, "cut otherwise");

    let expected: HashMap<JobId, bool> = said.split(|byte| *byte == b'\n').filter_map(answer).collect();
    let done = |outcome: &Outcome| *outcome == Outcome::Done;
    let heard: HashMap<JobId, bool> = whole.iter().map(|(job, outcome)| (*job, done(outcome))).collect();
    assert_eq!(heard, expected);
    for outcome in whole.values() {
        if let Outcome::Failed(error) = outcome {
            assert!(error.message.len() <= 300 && !error.message.contains(char::is_control), "{error:?}");
        }
    }

    // A server's answer may be an array; otherwise it is lines.
    let mut body = Answers::about(&tasks);
    body.push_body(said);
    let body = body.finish();
    assert!(body.keys().all(|job| (1..=4).contains(&job.0)));
    if serde_json::from_slice::<Vec<IgnoredAny>>(said).is_err() {
        assert!(body == whole || body.is_empty(), "a body that is no array: {body:?}, {whole:?}");
    } else if let Ok(items) = serde_json::from_slice::<Vec<Members>>(said) {
        let expected: HashMap<JobId, bool> = items.iter().filter_map(Members::answer).collect();
        assert_eq!(body.iter().map(|(job, outcome)| (*job, done(outcome))).collect::<HashMap<_, _>>(), expected);
    }
}

/// The job that a line is about, and whether it says that it is done.
fn answer(line: &[u8]) -> Option<(JobId, bool)> {
    if line.len() > LONGEST_LINE {
        return None;
    }
    serde_json::from_slice::<Members>(line).ok()?.answer()
}

/// The members of an object that mean something, in their order; none of anything else.
#[derive(Default)]
struct Members(Vec<(String, Value)>);

impl Members {
    fn answer(&self) -> Option<(JobId, bool)> {
        let one = |name: &str| {
            let mut found = self.0.iter().filter(|(other, _)| other == name).map(|(_, value)| value);
            // A word that stands twice may mean either.
            found.next().filter(|_| found.next().is_none())
        };
        let job = one("job")?;
        let job = job.as_i64().or_else(|| job.as_str()?.trim().parse().ok())?;
        let ok = one("ok")?.as_bool()?;
        let at_most_one = |name: &str| one(name).is_some() || self.0.iter().all(|(other, _)| other != name);
        let fits = one("retry").is_none_or(|retry| retry.is_boolean() || retry.is_null());
        let fits = fits && at_most_one("error") && at_most_one("retry");
        ((1..=4).contains(&job) && fits).then_some((JobId(job), ok))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Gather)
    }
}

struct Gather;

impl<'de> Visitor<'de> for Gather {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if ["job", "ok", "error", "retry"].contains(&name.as_str()) {
                members.push((name, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Members(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Members, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Members::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Members, E> {
        Ok(Members::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Members, E> {
        Ok(Members::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Members, E> {
        Ok(Members::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Members, E> {
        Ok(Members::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Members, E> {
        Ok(Members::default())
    }

    fn visit_unit<E>(self) -> Result<Members, E> {
        Ok(Members::default())
    }
}
