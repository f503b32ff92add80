//! Which jobs a command acts on: ids, ids from stdin, or all that match; and what it says about them.

use std::io::{BufRead, Read, Write};

use serde_json::json;

use super::context::Context;
use super::failure::{Done, Failure};
use super::filter::{Filter, Pages};
use super::{note, screen};
use crate::control::{Code, Request, SteerAnswer, SteerResult};
use crate::job::{JobId, StateName};

/// Jobs asked for at once: short writes, and a bounded line on the socket.
const CHUNK: usize = 500;

/// The most ids that are read from stdin.
const IDS_LIMIT: u64 = 64 << 20;

/// A job by its number, or `-` for numbers from stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdArg {
    /// This one.
    Id(JobId),
    /// Those on stdin.
    Stdin,
}

impl std::str::FromStr for IdArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        text.parse().map(Self::Id).map_err(|_| "a job's number, or `-` for numbers from stdin".to_owned())
    }
}

/// The words in which a verb speaks of jobs.
pub struct Words {
    /// `would retry`
    pub would: &'static str,
    /// `retried`
    pub did: &'static str,
}

/// What is acted on.
pub enum Selection {
    /// These.
    Ids(Vec<JobId>),
    /// All that match.
    Matching {
        /// In these states.
        states: Vec<StateName>,
        /// And with these properties.
        filter: Filter,
    },
}

impl Selection {
    /// Of ids as they were given, with which filters make no sense.
    pub fn of_ids_alone(given: &[IdArg], filter: &Filter, instead: &str) -> Result<Self, Failure> {
        if filter.is_empty() {
            return Self::of_ids(given);
        }
        Err(Failure::usage(format!("filters go with {instead}, not with ids")))
    }

    /// Of ids as they were given.
    pub fn of_ids(given: &[IdArg]) -> Result<Self, Failure> {
        let mut ids = Vec::new();
        for id in given {
            match id {
                IdArg::Id(id) => ids.push(*id),
                IdArg::Stdin => ids.extend(from_stdin()?),
            }
        }
        Ok(Self::Ids(ids))
    }
}

fn from_stdin() -> Result<Vec<JobId>, Failure> {
    read_ids(std::io::stdin().lock())
}

fn read_ids(input: impl BufRead) -> Result<Vec<JobId>, Failure> {
    let mut text = String::new();
    input
        .take(IDS_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("the ids on stdin can't be read: {error}")))?;
    text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| {
        Failure::usage("stdin has something that is no job's number; `ingestd list -q` prints numbers only")
    })
}

/// Acts on the selection in chunks, or only counts it; says what came of it.
pub async fn act(
    selection: Selection,
    dry_run: bool,
    json: bool,
    words: &Words,
    context: &mut Context,
    request: impl Fn(Vec<JobId>) -> Request,
) -> Done {
    let (ids, bulk) = match selection {
        Selection::Ids(ids) => (ids, false),
        Selection::Matching { states, filter } => (matching(states, &filter, context).await?, true),
    };
    let mut tally = Tally { matched: ids.len() as u64, ..Tally::default() };
    if dry_run && !bulk {
        tally.known(&ids, context).await?;
    } else if !dry_run && !ids.is_empty() {
        let mut link = context.link().await?;
        for chunk in ids.chunks(CHUNK) {
            let answers: Vec<SteerAnswer> = link.ask(request(chunk.to_vec())).await?;
            for answer in answers {
                tally.count(answer, bulk);
            }
        }
    }
    tally.say(dry_run, json, words, context)?;
    Ok(tally.code(bulk))
}

async fn matching(states: Vec<StateName>, filter: &Filter, context: &Context) -> Result<Vec<JobId>, Failure> {
    let stores = context.read().await?;
    let filter = filter.resolve(states, context, &stores).await?;
    let mut pages = Pages::new(stores.browse.as_ref(), &filter, 0);
    let mut ids = Vec::new();
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            return Ok(ids);
        }
        ids.extend(page.iter().map(|job| job.id));
    }
}

/// What came of the jobs.
#[derive(Default)]
struct Tally {
    matched: u64,
    done: u64,
    refused: u64,
    unknown: u64,
}

impl Tally {
    /// Counts one answer; what was not done to a job that was named is said at once.
    fn count(&mut self, answer: SteerAnswer, bulk: bool) {
        match answer.result {
            SteerResult::Done => self.done += 1,
            SteerResult::Refused { message } => {
                self.refused += 1;
                note(&format!("job {}: {message}", answer.id));
            }
            // A job that was pruned between the question and the answer is nobody's concern.
            SteerResult::Unknown if bulk => {}
            SteerResult::Unknown => {
                self.unknown += 1;
                note(&format!("no job {}; `ingestd list` shows those that are there", answer.id));
            }
        }
    }

    async fn known(&mut self, ids: &[JobId], context: &Context) -> Result<(), Failure> {
        let stores = context.read().await?;
        for id in ids {
            if stores.browse.job(*id).await?.is_none() {
                self.matched -= 1;
                self.count(SteerAnswer { id: *id, result: SteerResult::Unknown }, false);
            }
        }
        Ok(())
    }

    fn say(&self, dry_run: bool, json: bool, words: &Words, context: &mut Context) -> Result<(), Failure> {
        let rows = if dry_run { self.matched } else { self.done };
        if json {
            return context.screen.json(&json!({
                "dry_run": dry_run,
                "rows": rows,
                "refused": self.refused,
                "unknown": self.unknown,
            }));
        }
        if context.global.quiet {
            return Ok(());
        }
        let verb = if dry_run { words.would } else { words.did };
        Ok(writeln!(context.screen, "{verb} {}", screen::plural(rows, "job", "jobs"))?)
    }

    fn code(&self, bulk: bool) -> u8 {
        match (self.unknown, self.refused) {
            (1.., _) => Code::NotFound.exit(),
            // In bulk some jobs have always moved on meanwhile; only nothing at all is a failure.
            (0, 1..) if !bulk || self.done == 0 => Code::Failed.exit(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_any_blanks_and_nothing_else() {
        assert_eq!(read_ids(&b"1\n2 3\n\n"[..]).unwrap(), [JobId(1), JobId(2), JobId(3)]);
        assert_eq!(read_ids(&b"1\nall\n"[..]).unwrap_err().code, 2);
    }

    #[test]
    fn the_exit_code_tells_the_worst() {
        let tally = |done, refused, unknown| Tally { matched: 9, done, refused, unknown };
        assert_eq!(tally(1, 0, 0).code(false), 0);
        assert_eq!(tally(1, 1, 0).code(false), 1);
        assert_eq!(tally(1, 1, 1).code(false), 3);
        assert_eq!(tally(5, 1, 0).code(true), 0);
        assert_eq!(tally(0, 1, 0).code(true), 1);
    }
}
