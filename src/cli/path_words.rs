//! The words for what [`crate::account::file`] finds about one path.

use std::path::Path;

use super::explain::Reason;
use super::explain_path::{next_scan, place_of, place_of_key};
use super::time;
use super::view::lossy;
use super::watch_view::Known;
use crate::account::file::{Circumstances, Lost, OnDisk, Reason as Why, Taking};
use crate::clock::Timestamp;
use crate::config::{Loaded, Place, Watch};
use crate::control::LiveFile;
use crate::gate::Shut;
use crate::job::{FileIdentity, Job, JobId, SkipReason, StateName};
use crate::store::{Account, Presence};
use crate::watch::{Rule, WaitsFor};

/// Finds words for one watch.
pub struct Words<'a> {
    /// The watch's name.
    pub name: &'a str,
    /// Its definition.
    pub watch: &'a Watch,
    /// What else is known of it.
    pub known: &'a Known,
    /// The configuration with its origins.
    pub loaded: &'a Loaded,
    /// The time.
    pub now: Timestamp,
}

/// What is spoken of.
pub struct Subject<'a> {
    /// The path below the root.
    pub relative: &'a Path,
    /// The folder above it that decided, where one did.
    pub decided: Option<&'a Path>,
    /// What lies there.
    pub on_disk: &'a OnDisk,
    /// What is known of it.
    pub account: Option<&'a Account>,
    /// Its newest job.
    pub job: Option<&'a Job>,
    /// The daemon's word.
    pub told: Option<&'a LiveFile>,
    /// How things stand with the watch.
    pub circumstances: &'a Circumstances,
}

impl Words<'_> {
    /// The root can't be opened.
    pub fn no_root(&self, error: &std::io::Error) -> Reason {
        let root = self.watch.path.display();
        let text =
            format!("the folder {root} is missing or can't be read ({error}); what is in it is found once it is back");
        Reason::new("root-missing", text)
    }

    /// A folder that is entered.
    pub fn folder(&self, circumstances: &Circumstances, told: Option<&LiveFile>) -> Reason {
        let next = next_scan(told);
        let at = next.map_or_else(String::new, |at| format!(", and scanned {}", self.when(at)));
        let (kind, how) = match (&circumstances.taking, told) {
            (Taking::Paused, _) => ("watch-paused", "; the watch is paused".to_owned()),
            (Taking::NoDaemon, _) => ("no-daemon", "; no daemon runs, and the next start scans it".to_owned()),
            (Taking::NotWatched, _) | (_, None) => ("not-watched", "; the daemon does not run this watch".to_owned()),
            (_, Some(told)) if told.native => ("folder-native", format!(", sends events{at}")),
            (_, Some(_)) => ("folder-polled", format!(", sends no events, so it is polled{at}")),
        };
        Reason::new(kind, format!("this folder is entered{how}")).until(next)
    }

    /// A file, or what is in its place.
    pub fn file(&self, why: Option<&Why>, subject: &Subject<'_>) -> Reason {
        let Some(why) = why else { return self.nothing(subject) };
        let reason = match why {
            Why::Job(state) => self.job(*state, subject),
            Why::Skipped(skipped) => self.skipped(*skipped, subject),
            Why::Known => known(subject),
            Why::Excluded(_) | Why::NotReady(_) | Why::Unasked => self.left_out(why, subject),
            Why::Unreadable(error) => {
                let folder = subject.decided.map(|folder| format!("its folder {}", lossy(folder)));
                let what = folder.unwrap_or_else(|| "it".to_owned());
                Reason::new("unreadable", format!("{what} can't be read: {error}"))
            }
            Why::Paused => Reason::new("watch-paused", "the watch is paused")
                .advice(format!("`ingestd watch resume {}` goes on", self.name)),
            Why::Shut(shut) => self.shut(shut),
            Why::Scanning => Reason::new("scanning", "a scan that is under way or due comes to it"),
            Why::Settling(waits_for) => self.settling(*waits_for, subject),
            Why::Reading => Reason::new("reading", "it is being read, for its digest"),
            Why::Touched => Reason::new(
                "touched",
                "it looks as it was taken, but for links to it, its owner or its mode; the next scan compares its content",
            ),
            Why::Gone => Reason::new("gone", "it is gone, which is noted soon"),
            Why::HeldBack => {
                Reason::new("held-back", "it is gone, with many others, and held back from counting as deleted")
                    .at(self.place("delete_brake"))
                    .advice(format!("`ingestd watch confirm {}` says that it is meant", self.name))
            }
            Why::Unexplained(lost) => self.unexplained(*lost, subject),
        };
        self.with_history(reason, why, subject)
    }

    /// No file, and none that is missed; but there may have been one.
    fn nothing(&self, subject: &Subject<'_>) -> Reason {
        let (Some(account), Some(job)) = (subject.account, subject.job) else {
            return Reason::new("nothing", "there is nothing here, and nothing was here when last looked at");
        };
        let how = match account.presence {
            Presence::Consumed => "which took the file away (`on_success`, `on_failure`)",
            _ => "and somebody took the file away",
        };
        let at = job.finished_at.map_or_else(String::new, |at| format!(" {}", time::relative(at, self.now)));
        let text = format!("there is nothing here any more: it was job {}, {}{at}, {how}", job.id, job.state.name());
        Reason { jobs: vec![job.id], ..Reason::new("nothing", text) }
    }

    fn left_out(&self, why: &Why, subject: &Subject<'_>) -> Reason {
        match why {
            Why::NotReady(suffix) => {
                let name = lossy(Path::new(subject.relative.file_name().unwrap_or_default()));
                Reason::new("not-ready", format!("it waits for {name}{suffix} beside it"))
                    .at(self.place("ready_suffix"))
            }
            Why::Excluded(rule) => self.excluded(rule, subject),
            _ => Reason::new("unasked", "it changed, and the watch does not ask for changes").at(self.place("events")),
        }
    }

    /// A file that is to be taken anew was something before.
    fn with_history(&self, reason: Reason, why: &Why, subject: &Subject<'_>) -> Reason {
        let arrives =
            !matches!(why, Why::Job(_) | Why::Skipped(_) | Why::Known | Why::Excluded(_) | Why::Gone | Why::HeldBack);
        let Some(job) = subject.job.filter(|_| arrives) else { return reason };
        let at = job.finished_at.map_or_else(String::new, |at| format!(" {}", time::relative(at, self.now)));
        let text = format!(
            "it was job {} (version {}, {}{at}), and changed since: {}",
            job.id,
            job.version,
            job.state.name(),
            reason.text
        );
        Reason { text, jobs: vec![job.id], ..reason }
    }

    fn when(&self, at: Timestamp) -> String {
        format!("{} ({at})", time::relative(at, self.now))
    }

    fn place(&self, key: &str) -> Place {
        place_of_key(key, None, self.name, self.watch, self.known, self.loaded)
    }

    fn job(&self, state: StateName, subject: &Subject<'_>) -> Reason {
        let Some(job) = subject.job else { return Reason::new("job", format!("its job is {state}")) };
        let since = match state {
            StateName::Running => job.started_at.map(|at| format!(" since {}", self.when(at))),
            _ => job.finished_at.map(|at| format!(" {}", self.when(at))),
        };
        let text = format!("it is job {}, version {}: {state}{}", job.id, job.version, since.unwrap_or_default());
        let reason = Reason::new("job", text).jobs(vec![job.id]);
        match state {
            StateName::Completed | StateName::Cancelled => reason,
            _ => reason.advice(format!("`ingestd explain {}` says why", job.id)),
        }
    }

    fn skipped(&self, skipped: SkipReason, subject: &Subject<'_>) -> Reason {
        let Some(job) = subject.job else { return Reason::new("skipped", format!("its job was skipped: {skipped}")) };
        let at = job.finished_at.map_or_else(String::new, |at| format!(" {}", self.when(at)));
        Reason::new("skipped", format!("its job {} was skipped{at}: {skipped}", job.id))
            .jobs(vec![job.id])
            .advice(format!("`ingestd explain {}` says more", job.id))
    }

    fn excluded(&self, rule: &Rule, subject: &Subject<'_>) -> Reason {
        let text = match subject.decided {
            Some(folder) => format!("its folder {} is left out: {rule}", lossy(folder)),
            None => format!("it is left out: {rule}"),
        };
        let reason = Reason::new("excluded", text);
        match place_of(rule, self.name, self.watch, self.known, self.loaded) {
            Some(place) => reason.at(place),
            None => reason,
        }
    }

    fn shut(&self, shut: &[Shut]) -> Reason {
        let (text, key): (&str, Option<[&str; 2]>) = match shut.first() {
            Some(Shut::LowSpace) => (
                "nothing is taken in: too little room is left on the database's disk",
                Some(["maintenance", "min_free_space"]),
            ),
            Some(Shut::TooManyWaiting) => (
                "nothing is taken in: as many jobs wait as may, until a tenth of them is done",
                Some(["queue", "max_pending"]),
            ),
            Some(Shut::DatabaseFull) | None => ("nothing is taken in: no room is left for the database", None),
        };
        let reason = Reason::new("intake-closed", text);
        match key {
            Some(key) => reason.at(self.loaded.place(&key, None)),
            None => reason,
        }
    }

    fn settling(&self, waits_for: WaitsFor, subject: &Subject<'_>) -> Reason {
        let OnDisk::File(identity, _) = subject.on_disk else { return Reason::new("settling", "it is not whole yet") };
        let look = subject.told.and_then(|told| told.next_look_at_ms).map(Timestamp::from_millis);
        match waits_for {
            WaitsFor::Close => {
                let again = look.map_or_else(String::new, |at| format!(", and is looked at again {}", self.when(at)));
                let path = self.watch.path.join(subject.relative);
                Reason::new("open", format!("somebody has it open for writing{again}"))
                    .until(look)
                    .advice(format!("`fuser {}` names who", path.display()))
            }
            WaitsFor::Age => {
                let until = changed(identity.mtime_ns).plus(self.watch.min_age);
                let text = format!("it is too young, until {}", self.when(until));
                Reason::new("too-young", text).until(Some(until)).at(self.place("min_age"))
            }
            WaitsFor::OlderVersion => Reason::new("older-version", "its older version is in hand, and goes first"),
            WaitsFor::SecondLook => {
                let text = "nobody can tell whether it is still written: a second look has to find it as it was";
                Reason::new("settling", text).until(look)
            }
            WaitsFor::Quiet => self.quiet(identity, subject),
        }
    }

    fn quiet(&self, identity: &FileIdentity, subject: &Subject<'_>) -> Reason {
        let told = subject.told;
        let heard = told.and_then(|told| told.quiet_since_ms).map(Timestamp::from_millis);
        let polled = told.filter(|told| heard.is_none() && !told.native);
        if let Some(next) = polled.and_then(|told| next_scan(Some(told))) {
            let text = format!("no events tell of it: the scan that comes {} at the latest finds it", self.when(next));
            return Reason::new("polled", text).until(Some(next)).at(self.place("poll_interval"));
        }
        let since = heard.unwrap_or_else(|| changed(identity.mtime_ns.max(identity.ctime_ns)));
        let until = since.plus(self.watch.settle);
        let settle = humantime::format_duration(self.watch.settle);
        let text = format!("quiet since {since}, and taken once that was so for {settle}: {}", self.when(until));
        Reason::new("settling", text).until(Some(until)).at(self.place("settle"))
    }

    fn unexplained(&self, lost: Lost, subject: &Subject<'_>) -> Reason {
        let what = match lost {
            Lost::New => "it is new",
            Lost::Changed => "it is not as it was when it was taken",
            Lost::Delete => "it is gone, and its delete is not a job yet",
            Lost::Back => "it is there as it was when its job found it gone",
        };
        match &subject.circumstances.taking {
            Taking::NoDaemon => Reason::new("no-daemon", format!("{what}, and no daemon runs"))
                .advice("its next start takes it (`ingestd run`)"),
            Taking::NotWatched => Reason::new("not-watched", format!("{what}, and the daemon does not run this watch"))
                .advice("`ingestd status` says why, or the daemon has to be reloaded"),
            _ => {
                let next = next_scan(subject.told);
                let at = next.map_or_else(|| "soon".to_owned(), |at| format!("{} at the latest", self.when(at)));
                Reason::new("unexplained", format!("{what}; a scan finds it {at}"))
                    .until(next)
                    .advice(format!("`ingestd watch scan {}` scans at once", self.name))
            }
        }
    }
}

/// A file that is known and has no job.
fn known(subject: &Subject<'_>) -> Reason {
    let text = match subject.account.and_then(|account| Some((account, account.taken?))) {
        Some((account, taken)) if taken.version < account.version => {
            "known and unchanged; its newest version went through another pipeline".to_owned()
        }
        Some((_, taken)) if taken.job == JobId(0) => {
            "it was only noted, and never was a job: it lay there when the watch was added with `--existing skip`, or \
             `events` has no \"add\"; `ingestd watch scan NAME --force` takes all files again"
                .to_owned()
        }
        Some((_, taken)) => format!("known and unchanged; its job {} ended and was pruned since", taken.job),
        None => "known and unchanged, and never a job of this pipeline; it was there before the watch".to_owned(),
    };
    Reason::new("known", text)
}

fn changed(at_ns: i64) -> Timestamp {
    Timestamp::from_millis(at_ns / 1_000_000)
}
