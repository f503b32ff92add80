//! Why a file is or is not a job: one reason for what lies on disk beside what is known of it.
//!
//! The rules of the watch come first, because what they leave out is nobody's business. What is known as it is, is told
//! by its newest job. What is new or changed has to become a job: either something keeps it from that which can be named
//! (the watch is paused, it settles, its digest is taken), or it was lost. Then, and only then, it is *unexplained*.

use std::time::Duration;

use crate::clock::{Timestamp, millis};
use crate::config::{Watch, WatchEvents};
use crate::control::{LiveFile, LiveStatus, WatchCondition};
use crate::gate::Shut;
use crate::job::{FileIdentity, SkipReason, StateName};
use crate::os::Writers;
use crate::store::{Account, Presence};
use crate::watch::settle::young_for;
use crate::watch::{Rule, WaitsFor};

/// What the disk says of a name.
#[derive(Clone, Debug, PartialEq)]
pub enum OnDisk {
    /// A file that the rules let pass, and whether somebody has it open for writing.
    File(FileIdentity, Writers),
    /// A rule leaves it out.
    Excluded(Rule),
    /// It, or a folder above it, can't be read.
    Unreadable(String),
    /// Nothing.
    Gone,
}

/// Whether new and changed files of a watch become jobs.
#[derive(Clone, Debug, PartialEq)]
pub enum Taking {
    /// They do.
    Yes,
    /// No daemon runs: the next start finds them.
    NoDaemon,
    /// The daemon does not run this watch.
    NotWatched,
    /// A person paused the watch.
    Paused,
    /// Nothing is taken in, for these reasons.
    Shut(Vec<Shut>),
    /// The watch's first scan is under way, and comes to them.
    FirstScan,
}

/// How things stand with a watch.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// The time.
    pub now: Timestamp,
    /// Whether files become jobs.
    pub taking: Taking,
    /// Which changes the watch asks for.
    pub events: WatchEvents,
    /// How long a file may have been as it is before it has to be a job: `settle`, and the time after which the watch
    /// notices a new file at the latest.
    pub patience: Duration,
    /// `min_age`
    pub min_age: Duration,
    /// Whether files that are gone are held back from counting as deleted.
    pub held_back: bool,
}

impl Circumstances {
    /// How things stand with this watch, by the daemon's word where one runs.
    pub fn of(name: &str, watch: &Watch, paused: bool, live: Option<&LiveStatus>, now: Timestamp) -> Self {
        let told = live.and_then(|live| live.watches.iter().find(|told| told.name == name));
        let taking = match (live, told) {
            _ if paused => Taking::Paused,
            (None, _) => Taking::NoDaemon,
            (Some(live), _) if !live.shut.is_empty() => Taking::Shut(live.shut.clone()),
            (Some(_), None) => Taking::NotWatched,
            (Some(_), Some(told)) if told.condition == WatchCondition::Scanning => Taking::FirstScan,
            (Some(_), Some(_)) => Taking::Yes,
        };
        let delay = told.and_then(|told| u64::try_from(told.delay_ms).ok()).map(Duration::from_millis);
        // A root that the daemon misses is looked for this often.
        let missing = told.is_some_and(|told| told.condition == WatchCondition::Missing);
        let search = if missing { watch.poll_interval } else { Duration::ZERO };
        Self {
            now,
            taking,
            events: watch.events,
            patience: delay.unwrap_or_default().max(watch.settle) + search,
            min_age: watch.min_age,
            held_back: told.is_some_and(|told| told.held_back),
        }
    }
}

/// Why a file is, or is not, a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Its newest version is a job that stands there, or ended so; never `Skipped`.
    Job(StateName),
    /// The job of its newest version turned out to be moot.
    Skipped(SkipReason),
    /// It is known and has no job: it was there before the watch, or its job was pruned, or another pipeline had it.
    Known,
    /// A rule leaves it out.
    Excluded(Rule),
    /// It waits for its companion with this suffix.
    NotReady(String),
    /// It changed, and the watch's `events` do not ask for changes.
    Unasked,
    /// Only the time of its last status change is another one (a link to it, its owner, its mode): the next scan compares
    /// its content.
    Touched,
    /// It, or a folder above it, can't be read.
    Unreadable(String),
    /// A person paused the watch.
    Paused,
    /// Nothing is taken in, for these reasons.
    Shut(Vec<Shut>),
    /// A scan that is under way, or due, comes to it.
    Scanning,
    /// It is not whole yet.
    Settling(WaitsFor),
    /// Its digest is being taken.
    Reading,
    /// It is gone, and that is not noted yet.
    Gone,
    /// It is gone, and held back from counting as deleted.
    HeldBack,
    /// Nothing explains it.
    Unexplained(Lost),
}

/// What nothing explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A file that nobody has heard of.
    New,
    /// A file that is another one than the one that was taken.
    Changed,
    /// A file that is gone, whose watch asks for deletes.
    Delete,
    /// A file whose job was skipped because it was gone, and that is there as it was.
    Back,
}

/// The reason for a file, given what is known of it and what the daemon says of it. `None`: there is no file, and none was
/// known.
pub fn reason(
    disk: &OnDisk,
    account: Option<&Account>,
    live: Option<&LiveFile>,
    circumstances: &Circumstances,
) -> Option<Reason> {
    let present = account.filter(|account| account.presence == Presence::Present);
    Some(match disk {
        OnDisk::Excluded(Rule::NotReady(suffix)) => Reason::NotReady(suffix.clone()),
        OnDisk::Excluded(rule) => Reason::Excluded(rule.clone()),
        OnDisk::Unreadable(why) => Reason::Unreadable(why.clone()),
        OnDisk::Gone => present.map(|_| gone(live, circumstances))?,
        OnDisk::File(identity, writers) => match present {
            Some(account) if account.identity == *identity => settled(account),
            Some(_) if !circumstances.events.modify => Reason::Unasked,
            Some(account) => match arriving(identity, *writers, Lost::Changed, live, circumstances) {
                Reason::Unexplained(_) if is_touched(account, identity) => Reason::Touched,
                reason => reason,
            },
            None => arriving(identity, *writers, Lost::New, live, circumstances),
        },
    })
}

/// Whether nothing but the status change tells a file from the one that was taken. One that a job missed counts as
/// changed, whatever it looks like.
fn is_touched(account: &Account, identity: &FileIdentity) -> bool {
    account.identity.same_but_for_ctime(identity) && account.identity.ctime_ns != 0
}

/// A file that is as it was when it was taken.
fn settled(account: &Account) -> Reason {
    let Some(taken) = account.taken else { return Reason::Known };
    match (taken.state, taken.reason) {
        // The newest version went through another pipeline.
        _ if taken.version < account.version => Reason::Known,
        (None, _) => Reason::Known,
        (Some(StateName::Skipped), Some(SkipReason::Vanished)) => Reason::Unexplained(Lost::Back),
        (Some(_), Some(reason)) => Reason::Skipped(reason),
        (Some(state), None) => Reason::Job(state),
    }
}

/// A file that is new or changed.
fn arriving(
    identity: &FileIdentity,
    writers: Writers,
    lost: Lost,
    live: Option<&LiveFile>,
    circumstances: &Circumstances,
) -> Reason {
    match &circumstances.taking {
        Taking::Paused => return Reason::Paused,
        Taking::Shut(reasons) => return Reason::Shut(reasons.clone()),
        Taking::NoDaemon | Taking::NotWatched => return Reason::Unexplained(lost),
        Taking::FirstScan | Taking::Yes => (),
    }
    if let Some(reason) = live.and_then(heard) {
        return reason;
    }
    // The status change tells, because nobody can set it to a time that is not true.
    let age_ms = circumstances.now.as_millis().saturating_sub(identity.ctime_ns / 1_000_000);
    if writers == Writers::Some {
        Reason::Settling(WaitsFor::Close)
    } else if !young_for(circumstances.min_age, identity, circumstances.now).is_zero() {
        Reason::Settling(WaitsFor::Age)
    } else if age_ms < millis(circumstances.patience) {
        Reason::Settling(WaitsFor::Quiet)
    } else if circumstances.taking == Taking::FirstScan {
        Reason::Scanning
    } else {
        Reason::Unexplained(lost)
    }
}

/// What the daemon's word explains.
fn heard(live: &LiveFile) -> Option<Reason> {
    match live {
        LiveFile { waits_for: Some(waits_for), .. } => Some(Reason::Settling(*waits_for)),
        LiveFile { reading: true, .. } => Some(Reason::Reading),
        LiveFile { error: Some(error), .. } => Some(Reason::Unreadable(error.clone())),
        LiveFile { scan_due: true, .. } => Some(Reason::Scanning),
        _ => None,
    }
}

/// A known file that is gone.
fn gone(live: Option<&LiveFile>, circumstances: &Circumstances) -> Reason {
    let in_hand = live.is_some_and(|live| live.leaving || heard(live).is_some());
    match circumstances.taking {
        _ if circumstances.held_back => Reason::HeldBack,
        Taking::Yes if circumstances.events.delete && !in_hand => Reason::Unexplained(Lost::Delete),
        _ => Reason::Gone,
    }
}

#[cfg(test)]
mod tests;
