//! `ingestd explain ID`: the words for what [`crate::account::job`] finds.

use std::io::Write;

use serde::Serialize;

use super::context::Context;
use super::explain::{self, Reason};
use super::failure::{Done, Failure};
use super::logs::newest;
use super::screen::{clean, count, plural};
use super::show::no_job;
use super::throttle::{BreakerView, RateView};
use super::view::{JobView, lossy};
use super::{Format, time, watch};
use crate::account::job::{Facts, GivenUp, Hold, Why};
use crate::clock::Timestamp;
use crate::config::Loaded;
use crate::control::{LiveStatus, Stores};
use crate::job::{Job, JobError, JobId, SkipReason, State};
use crate::store::{Ahead, Attempt, Overview};

/// Jobs that are named in words.
const NAMED: usize = 8;

/// What is said of a job.
#[derive(Serialize)]
struct Explanation<'a> {
    job: JobView<'a>,
    reasons: Vec<Reason>,
}

pub async fn run(id: JobId, format: Format, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let job = stores.browse.job(id).await?.ok_or_else(|| no_job(id))?;
    let known = Known::gather(&job, &stores, context).await?;
    let loaded = context.loaded()?;
    let reasons = Teller { facts: known.facts(&job, loaded, context.screen.now), loaded }.reasons();
    if format.json {
        let view = JobView::of(&job, context.config()?);
        let explanation = serde_json::to_value(Explanation { job: view, reasons })?;
        context.screen.json(&explanation)?;
        return Ok(0);
    }
    writeln!(context.screen, "{}", clean(&format!("job {id} is {}: {}", job.state.name(), lossy(&job.path))))?;
    explain::write(&reasons, &mut context.screen)?;
    Ok(0)
}

/// What is known about a job, beside the job itself.
struct Known {
    last: Option<Attempt>,
    overview: Overview,
    live: Option<LiveStatus>,
    ahead: Ahead,
    due_suspect: Option<JobId>,
    process: Option<u32>,
}

impl Known {
    async fn gather(job: &Job, stores: &Stores, context: &Context) -> Result<Self, Failure> {
        let config = context.config()?;
        let (now, aging) = (context.screen.now, config.queue.priority_aging);
        let waits = job.state.name().is_waiting();
        let spool = config.state_directory().join("spool");
        Ok(Self {
            last: stores.browse.attempts(job.id).await?.pop(),
            overview: stores.browse.overview().await?,
            live: watch::live(context).await?,
            ahead: if waits { stores.accounts.ahead(job.id, aging, now).await? } else { Ahead::default() },
            due_suspect: stores.accounts.due_suspect(config.pipelines.keys().cloned().collect(), now).await?,
            // The record of a running command's group names its first process second.
            process: newest(job.id, &spool, ".group")
                .and_then(|record| std::fs::read_to_string(record).ok()?.split(' ').nth(1)?.parse().ok()),
        })
    }

    fn facts<'a>(&'a self, job: &'a Job, loaded: &'a Loaded, now: Timestamp) -> (Facts<'a>, Option<u32>) {
        let counts = self.overview.pipelines.get(&job.pipeline);
        let facts = Facts {
            job,
            last: self.last.as_ref(),
            now,
            pipeline: loaded.config.pipelines.get(&job.pipeline),
            paused: counts.is_some_and(|(_, paused)| *paused),
            concurrency: loaded.config.queue.concurrency,
            daemon: self.live.as_ref(),
            ahead: self.ahead,
            due_suspect: self.due_suspect,
            rate_per_s: counts.map_or(0.0, |(counts, _)| counts.rate_per_s[1]),
        };
        (facts, self.process)
    }
}

/// Finds words.
struct Teller<'a> {
    facts: (Facts<'a>, Option<u32>),
    loaded: &'a Loaded,
}

impl Teller<'_> {
    fn reasons(&self) -> Vec<Reason> {
        let (facts, _) = &self.facts;
        let id = facts.job.id;
        match &facts.job.state {
            State::Pending { .. } | State::Retrying { .. } => {
                let holds: Vec<Reason> = facts.holds().iter().map(|hold| self.hold(hold)).collect();
                let next = || vec![Reason::new("next", "nothing holds it: it starts with the dispatcher's next turn")];
                if holds.is_empty() { next() } else { holds }
            }
            State::Running { started_at } => vec![self.running(*started_at)],
            State::Completed { finished_at } => {
                let attempts = plural(u64::from(facts.job.attempt), "attempt", "attempts");
                vec![Reason::new("completed", format!("completed {} after {attempts}", self.when(*finished_at)))]
            }
            State::Cancelled { finished_at } => {
                let text = format!(
                    "a person cancelled it {}; `ingestd retry {id}` takes it up again",
                    self.when(*finished_at)
                );
                vec![Reason::new("cancelled", text)]
            }
            State::Skipped { finished_at, reason } => vec![self.skipped(*finished_at, *reason)],
            State::Failed { finished_at, error } => self.failed(*finished_at, error),
        }
    }

    fn when(&self, at: Timestamp) -> String {
        format!("{} ({at})", time::relative(at, self.facts.0.now))
    }

    fn pipeline_key(&self, reason: Reason, key: &[&str]) -> Reason {
        let path: Vec<&str> = ["pipeline", &self.facts.0.job.pipeline].iter().chain(key).copied().collect();
        reason.at(self.loaded.place(&path, None))
    }

    fn hold(&self, hold: &Hold) -> Reason {
        let (job, now) = (self.facts.0.job, self.facts.0.now);
        let pipeline = &job.pipeline;
        match hold {
            Hold::NoDaemon => Reason::new("no-daemon", "no daemon runs on this database; `ingestd run` starts one"),
            Hold::Stopping => Reason::new(
                "stopping",
                "the daemon stops and starts nothing any more; its next start takes this job up",
            ),
            Hold::Locked => {
                let database = self.loaded.config.database.path.display();
                let text = format!(
                    "another process holds the database's lock, so nothing can be leased; `fuser {database}` names it"
                );
                Reason::new("locked", text)
            }
            Hold::NoRoom => Reason::new(
                "no-room",
                "no room is left for the database, so nothing can be leased; make room on its disk",
            ),
            Hold::Undefined => {
                let text = format!(
                    "the configuration defines no pipeline `{pipeline}`; add [pipeline.{pipeline}] and reload, or cancel the job"
                );
                Reason::new("undefined", text)
            }
            Hold::Paused => {
                let text = format!("pipeline {pipeline} is paused; `ingestd resume {pipeline}` starts it again");
                Reason::new("paused", text)
            }
            Hold::Blocked(by) => {
                let text = format!("job {by}, of an older version of its file, has to end first");
                Reason::new("blocked", text).jobs(vec![*by])
            }
            Hold::NotDue(until, why) => self.not_due(*until, why),
            Hold::Alone(others) => {
                let after = if others.is_empty() {
                    "and nothing else runs".to_owned()
                } else {
                    format!("after {}", jobs(others))
                };
                let text = format!("it crashed {} times in a row, so it runs alone, {after}", job.crashes);
                Reason::new("suspect", text).jobs(others.clone())
            }
            Hold::Quiet(suspect) => {
                let text = format!(
                    "job {suspect} crashed twice in a row and runs alone: nothing else starts before it has ended"
                );
                Reason::new("suspect-due", text).jobs(vec![*suspect])
            }
            Hold::Breaker(live) => {
                let view = BreakerView::of(live);
                let text = format!("the breaker of pipeline {pipeline} is {}", view.text(now));
                self.pipeline_key(Reason::new("breaker", text).until(view.next_probe_at), &["breaker", "cooldown"])
            }
            Hold::Rate(live) => {
                let view = RateView::of(live);
                let text = format!("the rate of pipeline {pipeline} is used up: {}", view.text(now));
                self.pipeline_key(Reason::new("rate", text).until(view.next_at), &["rate"])
            }
            Hold::Concurrency(limit, running) => {
                let text = format!("all {} of pipeline {pipeline} are in use, by {}", permits(*limit), jobs(running));
                self.pipeline_key(Reason::new("concurrency", text).jobs(running.clone()), &["concurrency"])
            }
            Hold::QueueConcurrency(limit, running) => {
                let text = format!("all {} of queue.concurrency are in use, by {}", permits(*limit), jobs(running));
                let place = self.loaded.place(&["queue", "concurrency"], None);
                Reason::new("queue-concurrency", text).jobs(running.clone()).at(place)
            }
            Hold::Behind(ahead, eta) => {
                let more = if ahead.more { "more than " } else { "" };
                let estimate = eta.map_or_else(String::new, |eta| {
                    format!(", about {} at the pace of the last 5 minutes", time::short(eta))
                });
                let first = plural(ahead.in_all, "job of its pipeline comes", "jobs of its pipeline come");
                let text = format!(
                    "{more}{first} first, {} of them of level {}{estimate}",
                    count(ahead.in_level),
                    job.priority
                );
                Reason::new("behind", text).until(eta.map(|eta| now.plus(eta)))
            }
        }
    }

    fn not_due(&self, until: Timestamp, why: &Why) -> Reason {
        let (facts, _) = &self.facts;
        let due = self.when(until);
        let text = match why {
            Why::Asked => format!("it was asked for not before then: {due}"),
            Why::Retry(error) => {
                let budget =
                    facts.pipeline.map_or_else(String::new, |pipeline| format!(" of {}", pipeline.retry.max_attempts));
                format!("attempt {}{budget} failed ({error}), and the next one is due {due}", facts.job.attempt)
            }
            Why::Deferred(error) => {
                let error = error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
                format!("it was put off{error}, at no cost to its attempts, and is due {due}")
            }
        };
        let kind = match why {
            Why::Asked => "scheduled",
            Why::Retry(_) => "retry",
            Why::Deferred(_) => "deferred",
        };
        Reason::new(kind, text).until(Some(until))
    }

    fn running(&self, since: Timestamp) -> Reason {
        let (facts, process) = &self.facts;
        let job = facts.job;
        if facts.daemon.is_none() {
            let text = format!(
                "it ran when the daemon died (since {}); the next start of the daemon puts it back, at no cost to its attempts",
                self.when(since)
            );
            return Reason::new("no-daemon", text);
        }
        let budget = facts.pipeline.map_or_else(String::new, |pipeline| format!(" of {}", pipeline.retry.max_attempts));
        let process = process.map_or_else(String::new, |id| format!(", as process {id}"));
        let alone = if job.crashes >= 2 { ", alone, because it crashed twice in a row" } else { "" };
        let attempt = job.attempt.saturating_add(1);
        let text = format!("it runs since {}, attempt {attempt}{budget}{process}{alone}", self.when(since));
        Reason::new("running", text)
    }

    fn skipped(&self, at: Timestamp, reason: SkipReason) -> Reason {
        let at = self.when(at);
        match reason {
            SkipReason::Superseded { by } => {
                Reason::new("superseded", format!("a newer version of its file took its place {at}: job {by}"))
                    .jobs(vec![by])
            }
            SkipReason::Unchanged => {
                let text =
                    format!("its content turned out to be the one that the version before it completed with, {at}");
                Reason::new("unchanged", text)
            }
            SkipReason::Duplicate { of } => {
                let original = self.facts.0.job.original.as_ref();
                let name = original.map_or_else(String::new, |path| format!(", {}", lossy(path)));
                let text =
                    format!("its content was completed under another name before{name}, by job {of} (seen {at})");
                Reason::new("duplicate", text).jobs(vec![of])
            }
            SkipReason::Vanished => {
                Reason::new("vanished", format!("its file was gone before it was first started, {at}"))
            }
        }
    }

    fn failed(&self, at: Timestamp, error: &JobError) -> Vec<Reason> {
        let (facts, _) = &self.facts;
        let told = Reason::new("error", format!("it failed {}: {error}", self.when(at)));
        vec![told, self.given_up(facts.given_up(error))]
    }

    fn given_up(&self, rule: GivenUp) -> Reason {
        let (facts, _) = &self.facts;
        let (job, retry) = (facts.job, format!("`ingestd retry {}` tries again all the same", facts.job.id));
        match rule {
            GivenUp::ExitCode(code, Some(item)) => {
                let text = format!("exit code {code} is in permanent_exit_codes, so trying again can't help; {retry}");
                let path = ["pipeline", &job.pipeline, "permanent_exit_codes"];
                Reason::new("permanent-exit-code", text).at(self.loaded.place(&path, Some(item)))
            }
            GivenUp::ExitCode(code, None) => {
                let text = format!("exit code {code} was in permanent_exit_codes then, and is not now; {retry}");
                self.pipeline_key(Reason::new("permanent-exit-code", text), &["permanent_exit_codes"])
            }
            GivenUp::Status(code) => {
                let code = code.map_or_else(String::new, |code| format!(" {code}"));
                let text = format!("status{code} says that the same request would be refused again; {retry}");
                Reason::new("permanent-status", text)
            }
            GivenUp::Crashes => {
                let text = format!("it took the daemon down max_crashes times while it ran alone; {retry}");
                Reason::new("max-crashes", text).at(self.loaded.place(&["queue", "max_crashes"], None))
            }
            GivenUp::Permanent(kind) => {
                Reason::new("permanent", format!("an error of kind {kind} would be met by every attempt; {retry}"))
            }
            GivenUp::Attempts => {
                let text = format!(
                    "it had {}, as many as max_attempts allows; {retry}",
                    plural(u64::from(job.attempt), "attempt", "attempts")
                );
                self.pipeline_key(Reason::new("max-attempts", text), &["retry", "max_attempts"])
            }
            GivenUp::Elapsed => {
                let text = format!("it was tried for as long as max_elapsed allows; {retry}");
                self.pipeline_key(Reason::new("max-elapsed", text), &["retry", "max_elapsed"])
            }
        }
    }
}

fn permits(limit: usize) -> String {
    plural(limit as u64, "permit", "permits")
}

/// `job 3`, `jobs 3, 4 and 5`, `jobs 1, …, 8 and 12 more`.
fn jobs(ids: &[JobId]) -> String {
    let names: Vec<String> = ids.iter().take(NAMED).map(ToString::to_string).collect();
    match (names.as_slice(), ids.len().saturating_sub(NAMED)) {
        ([], _) => "none".to_owned(),
        ([one], _) => format!("job {one}"),
        ([most @ .., last], 0) => format!("jobs {} and {last}", most.join(", ")),
        (all, more) => format!("jobs {} and {more} more", all.join(", ")),
    }
}
