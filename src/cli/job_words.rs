//! The words for what [`crate::account::job`] finds about a job.

use super::explain::Reason;
use super::screen::{count, plural};
use super::throttle::{BreakerView, RateView};
use super::time;
use super::view::lossy;
use crate::account::job::{Facts, GivenUp, Hold, Why};
use crate::clock::Timestamp;
use crate::config::Loaded;
use crate::control::{LiveBreaker, LiveRate};
use crate::job::{JobId, SkipReason, State};
use crate::store::{Ahead, Succession};

/// Jobs that are named in words.
const NAMED: usize = 8;

/// Finds words.
pub struct Words<'a> {
    /// What is known of the job.
    pub facts: Facts<'a>,
    /// The process that works on it, where one does.
    pub process: Option<u32>,
    /// What came after it.
    pub succession: Succession,
    /// The configuration with its origins.
    pub loaded: &'a Loaded,
}

impl Words<'_> {
    /// Why it does not run, or how it ended.
    pub fn reasons(&self) -> Vec<Reason> {
        let (job, id) = (self.facts.job, self.facts.job.id);
        match &job.state {
            State::Pending { .. } | State::Retrying { .. } => {
                let holds: Vec<Reason> = self.facts.holds().iter().map(|hold| self.hold(hold)).collect();
                let next = || vec![Reason::new("next", "nothing holds it: it starts with the dispatcher's next turn")];
                if holds.is_empty() { next() } else { holds }
            }
            State::Running { started_at } => vec![self.running(*started_at)],
            State::Completed { finished_at } => {
                let text = format!("it was done {}, after {}", self.when(*finished_at), attempts(job.attempt));
                vec![Reason::new("completed", text)]
            }
            State::Cancelled { finished_at } => {
                let reason = Reason::new("cancelled", format!("a person cancelled it {}", self.when(*finished_at)));
                vec![self.reopened(reason, &format!("`ingestd retry {id}` takes it up again"))]
            }
            State::Skipped { finished_at, reason } => vec![self.skipped(*finished_at, *reason)],
            State::Failed { finished_at, error } => {
                let text = format!("it failed {}: {error}", self.when(*finished_at));
                let rule = self.given_up(self.facts.given_up(error));
                let advice = format!("`ingestd retry {id}` tries again all the same");
                vec![Reason::new("error", text), self.reopened(rule, &advice)]
            }
        }
    }

    /// The advice to retry it, unless that would be refused.
    fn reopened(&self, reason: Reason, retry: &str) -> Reason {
        match self.succession {
            Succession::Newest => reason.advice(retry),
            Succession::Job(newer) => reason
                .advice(format!("a newer version of its file is job {newer}, so this one stays as it is"))
                .jobs(vec![newer]),
            Succession::AnotherFile => {
                reason.advice("another file has its name by now, so it stays as it is; `ingestd add` takes up that one")
            }
        }
    }

    fn when(&self, at: Timestamp) -> String {
        format!("{} ({at})", time::relative(at, self.facts.now))
    }

    /// ` of 10`, where the budget is known.
    fn budget(&self) -> String {
        self.facts.pipeline.map_or_else(String::new, |pipeline| format!(" of {}", pipeline.retry.max_attempts))
    }

    fn at_key(&self, reason: Reason, key: &[&str]) -> Reason {
        let path: Vec<&str> = ["pipeline", &self.facts.job.pipeline].iter().chain(key).copied().collect();
        reason.at(self.loaded.place(&path, None))
    }

    fn hold(&self, hold: &Hold) -> Reason {
        match hold {
            Hold::NoDaemon | Hold::Stopping | Hold::Locked | Hold::NoRoom => self.daemon(hold),
            Hold::Undefined | Hold::Paused => self.pipeline(hold),
            Hold::RunPaused(run) => Reason::new("run-paused", format!("a person paused run {run}, which it is of"))
                .advice(format!("`ingestd runs resume {run}` goes on")),
            Hold::Blocked(by) => {
                let text = format!("job {by}, of an older version of its file, has to end first");
                Reason::new("blocked", text).jobs(vec![*by])
            }
            Hold::NotDue(until, why) => self.not_due(*until, why),
            Hold::Alone(others) => self.alone(others),
            Hold::Quiet(suspect) => {
                let text = format!("job {suspect} crashed twice in a row and runs alone: it has to end first");
                Reason::new("suspect-due", text).jobs(vec![*suspect])
            }
            Hold::Breaker(live) => self.breaker(live),
            Hold::Rate(live) => self.rate(live),
            Hold::Concurrency(limit, running) => {
                let pipeline = &self.facts.job.pipeline;
                let text = format!("all {} of pipeline {pipeline} are in use, by {}", permits(*limit), jobs(running));
                self.at_key(Reason::new("concurrency", text).jobs(running.clone()), &["concurrency"])
            }
            Hold::QueueConcurrency(limit, running) => {
                let text = format!("all {} of queue.concurrency are in use, by {}", permits(*limit), jobs(running));
                let place = self.loaded.place(&["queue", "concurrency"], None);
                Reason::new("queue-concurrency", text).jobs(running.clone()).at(place)
            }
            Hold::Behind(ahead, eta) => self.behind(ahead, *eta),
        }
    }

    /// What stops everything.
    fn daemon(&self, hold: &Hold) -> Reason {
        match hold {
            Hold::Stopping => Reason::new("stopping", "the daemon stops, and starts nothing any more"),
            Hold::Locked => {
                let database = self.loaded.config.database.path.display();
                Reason::new("locked", "another process holds the database's lock, so nothing can be leased")
                    .advice(format!("`fuser {database}` names it"))
            }
            Hold::NoRoom => Reason::new("no-room", "no room is left for the database, so nothing can be leased")
                .advice("make room on its disk"),
            _ => Reason::new("no-daemon", "no daemon runs on this database").advice("`ingestd run` starts one"),
        }
    }

    /// What stops its pipeline as a whole.
    fn pipeline(&self, hold: &Hold) -> Reason {
        let pipeline = &self.facts.job.pipeline;
        match hold {
            Hold::Paused => Reason::new("paused", format!("a person paused pipeline {pipeline}"))
                .advice(format!("`ingestd resume {pipeline}` goes on")),
            _ => Reason::new("undefined", format!("the configuration does not define pipeline {pipeline}"))
                .advice(format!("add [pipeline.{pipeline}] and reload, or `ingestd cancel {}`", self.facts.job.id)),
        }
    }

    fn not_due(&self, until: Timestamp, why: &Why) -> Reason {
        let (due, spent) = (self.when(until), self.facts.job.attempt);
        let reason = match why {
            Why::Asked => Reason::new("scheduled", format!("it was enqueued for later: {due}")),
            Why::Retry(error) => {
                let text = format!("attempt {spent}{} failed ({error}), and the next one is due {due}", self.budget());
                Reason::new("retry", text).advice(format!("`ingestd retry {}` tries at once", self.facts.job.id))
            }
            Why::Deferred(error) => {
                let error = error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
                Reason::new("deferred", format!("it was put off{error}, unspent, and is due {due}"))
            }
        };
        reason.until(Some(until))
    }

    fn alone(&self, others: &[JobId]) -> Reason {
        let after =
            if others.is_empty() { "and nothing else runs".to_owned() } else { format!("after {}", jobs(others)) };
        let text = format!("it crashed {} times in a row, so it runs alone, {after}", self.facts.job.crashes);
        Reason::new("suspect", text).jobs(others.to_vec())
    }

    fn breaker(&self, live: &LiveBreaker) -> Reason {
        let (view, pipeline) = (BreakerView::of(live), &self.facts.job.pipeline);
        let text = format!("the breaker of pipeline {pipeline} is {}", view.text(self.facts.now));
        self.at_key(Reason::new("breaker", text).until(view.next_probe_at), &["breaker", "failures"])
    }

    fn rate(&self, live: &LiveRate) -> Reason {
        let (view, pipeline) = (RateView::of(live), &self.facts.job.pipeline);
        let text = format!("the rate of pipeline {pipeline} is used up: {}", view.text(self.facts.now));
        self.at_key(Reason::new("rate", text).until(view.next_at), &["rate"])
    }

    fn behind(&self, ahead: &Ahead, eta: Option<std::time::Duration>) -> Reason {
        let more = if ahead.more { "more than " } else { "" };
        let estimate = eta.map_or_else(String::new, |eta| format!(", for about {} at today's pace", time::short(eta)));
        let first = plural(ahead.in_all, "job of its pipeline comes", "jobs of its pipeline come");
        let level = self.facts.job.priority;
        let text = format!("{more}{first} first, {} of them of level {level}{estimate}", count(ahead.in_level));
        Reason::new("behind", text).until(eta.map(|eta| self.facts.now.plus(eta)))
    }

    fn running(&self, since: Timestamp) -> Reason {
        let (job, since) = (self.facts.job, self.when(since));
        if self.facts.daemon.is_none() {
            return Reason::new("no-daemon", format!("it ran when the daemon died; it was started {since}"))
                .advice("the daemon's next start puts it back, unspent");
        }
        let process = self.process.map_or_else(String::new, |id| format!(", as process {id}"));
        let alone = if job.crashes >= 2 { ", alone, because it crashed twice in a row" } else { "" };
        let attempt = job.attempt.saturating_add(1);
        Reason::new("running", format!("it was started {since}, attempt {attempt}{}{process}{alone}", self.budget()))
    }

    fn skipped(&self, at: Timestamp, reason: SkipReason) -> Reason {
        let at = self.when(at);
        match reason {
            SkipReason::Superseded { by } => {
                Reason::new("superseded", format!("a newer version of its file took its place {at}: job {by}"))
                    .jobs(vec![by])
            }
            SkipReason::Unchanged => {
                Reason::new("unchanged", format!("its content is what the version before it completed with ({at})"))
            }
            SkipReason::Duplicate { of } => {
                let original = self.facts.job.original.as_ref();
                let name = original.map_or_else(String::new, |path| format!(", {}", lossy(path)));
                let text = format!("its content was completed under another name before{name}, by job {of} ({at})");
                Reason::new("duplicate", text).jobs(vec![of])
            }
            SkipReason::Vanished => {
                Reason::new("vanished", format!("its file was gone before it was first started ({at})"))
            }
        }
    }

    fn given_up(&self, rule: GivenUp) -> Reason {
        let job = self.facts.job;
        match rule {
            GivenUp::ExitCode(code, Some(item)) => {
                let path = ["pipeline", &job.pipeline, "permanent_exit_codes"];
                Reason::new("permanent-exit-code", format!("exit code {code} is in permanent_exit_codes"))
                    .at(self.loaded.place(&path, Some(item)))
            }
            GivenUp::ExitCode(code, None) => {
                let text = format!("exit code {code} was in permanent_exit_codes then, and is not now");
                self.at_key(Reason::new("permanent-exit-code", text), &["permanent_exit_codes"])
            }
            GivenUp::Status(code) => {
                let code = code.map_or_else(String::new, |code| format!(" {code}"));
                Reason::new(
                    "permanent-status",
                    format!("status{code} means that the same request would be refused again"),
                )
            }
            GivenUp::Crashes => {
                Reason::new("max-crashes", "it took the daemon down max_crashes times while it ran alone")
                    .at(self.loaded.place(&["queue", "max_crashes"], None))
            }
            GivenUp::Permanent(kind) => {
                Reason::new("permanent", format!("an error of kind {kind} is met by every attempt"))
            }
            GivenUp::Attempts => {
                let text = format!("it had {}, as many as max_attempts allows", attempts(job.attempt));
                self.at_key(Reason::new("max-attempts", text), &["retry", "max_attempts"])
            }
            GivenUp::Elapsed => {
                let text = "it was tried for as long as max_elapsed allows";
                self.at_key(Reason::new("max-elapsed", text), &["retry", "max_elapsed"])
            }
        }
    }
}

fn attempts(n: u32) -> String {
    plural(u64::from(n), "attempt", "attempts")
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
