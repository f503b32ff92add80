//! What is broken: a system call, on a kind of file, with an error, once or until it is lifted.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::portion::Portion;
use crate::support::long;
use crate::tracer::{Call, Plan, Seen};

/// What a file is to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The database's main file.
    Database,
    /// Its write-ahead log.
    Wal,
    /// The log's index, shared by the connections.
    Index,
    /// The file that says who may write.
    Lock,
    /// Below `backups/`, or where else a backup is made.
    Backup,
    /// Below `spool/`: live output, and the records of process groups.
    Spool,
    /// Below `content/`: what lines of lists brought along.
    Content,
    /// Anything else in the state directory, and the directory itself.
    State,
    /// The watched folder and what is in it.
    Inbox,
    /// Where processed files go, on the same filesystem.
    Done,
    /// Where processed files go, on another one.
    Far,
    /// What `add` and `sync` name.
    Added,
    /// The daemon's own log.
    Messages,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "database",
            Self::Wal => "WAL",
            Self::Index => "WAL index",
            Self::Lock => "lock",
            Self::Backup => "backup",
            Self::Spool => "spool",
            Self::Content => "content",
            Self::State => "state directory",
            Self::Inbox => "inbox",
            Self::Done => "done folder",
            Self::Far => "done folder elsewhere",
            Self::Added => "added file",
            Self::Messages => "daemon's log",
        })
    }
}

/// Where the kinds of files are.
#[derive(Clone, Debug)]
pub struct Here {
    /// The place of the campaign.
    pub place: PathBuf,
    /// The target on another filesystem.
    pub far: PathBuf,
}

impl Here {
    /// What the file of a call is; `None`: nothing of ours.
    fn kind(&self, seen: &Seen) -> Option<Kind> {
        // A file on its way is where it goes.
        let target = seen.to.as_deref().and_then(|to| self.kind_of(to));
        target.or_else(|| self.kind_of(&seen.path))
    }

    fn kind_of(&self, path: &Path) -> Option<Kind> {
        if path.starts_with(&self.far) {
            return Some(Kind::Far);
        }
        let relative = path.strip_prefix(&self.place).ok()?;
        let mut parts = relative.iter().filter_map(|part| part.to_str());
        Some(match (parts.next()?, parts.next()) {
            ("inbox" | "far-inbox", _) => Kind::Inbox,
            ("done", _) => Kind::Done,
            ("files", _) => Kind::Added,
            ("state", Some("ingestd.db")) => Kind::Database,
            ("state", Some("ingestd.db-wal")) => Kind::Wal,
            ("state", Some("ingestd.db-shm")) => Kind::Index,
            ("state", Some("ingestd.db.lock")) => Kind::Lock,
            ("state", Some("backups")) | ("copies", _) => Kind::Backup,
            ("state", Some("spool")) => Kind::Spool,
            ("state", Some("content")) => Kind::Content,
            ("state", _) => Kind::State,
            (name, None) if name.starts_with("log-") => Kind::Messages,
            _ => return None,
        })
    }
}

/// What a call answers instead of happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// This error.
    Error(i32),
    /// Half of it is written.
    Short,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::Error(libc::EIO) => "EIO",
            Self::Error(libc::ENOSPC) => "ENOSPC",
            Self::Error(libc::EDQUOT) => "EDQUOT",
            Self::Error(libc::EACCES) => "EACCES",
            Self::Error(libc::EMFILE) => "EMFILE",
            Self::Error(_) => "error",
            Self::Short => "short",
        })
    }
}

/// The ways in which a call may fail.
pub fn ways(call: Call) -> Vec<How> {
    let errors: &[i32] = match call {
        Call::Read => &[libc::EIO],
        Call::Fsync | Call::Fdatasync => &[libc::EIO, libc::ENOSPC],
        Call::Pwrite | Call::Write | Call::Truncate | Call::Copy => &[libc::EIO, libc::ENOSPC, libc::EDQUOT],
        Call::Rename | Call::Mkdir | Call::Link => &[libc::EIO, libc::ENOSPC, libc::EACCES],
        Call::Open => &[libc::EIO, libc::ENOSPC, libc::EACCES, libc::EMFILE],
        _ => &[libc::EIO, libc::EACCES],
    };
    let short = matches!(call, Call::Pwrite | Call::Write).then_some(How::Short);
    errors.iter().map(|error| How::Error(*error)).chain(short).collect()
}

/// How often each call on each kind of file was seen.
pub type Survey = BTreeMap<(Call, Kind), usize>;

/// A plan that only counts, and where it counts.
pub fn survey(here: &Here) -> (Plan, Arc<Mutex<Survey>>) {
    let (here, found) = (here.clone(), Arc::new(Mutex::new(Survey::new())));
    let into = Arc::clone(&found);
    let plan = Plan::count(move |seen| {
        let kind = here.kind(seen);
        if let Some(kind) = kind {
            *into.lock().unwrap().entry((seen.call, kind)).or_default() += 1;
        }
        kind.is_some()
    });
    (plan.with_reads(), found)
}

/// A fault: the `number`-th of these calls fails, or all from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Which call.
    pub call: Call,
    /// On what.
    pub kind: Kind,
    /// With what.
    pub how: How,
    /// Whether it lasts until it is lifted.
    pub lasting: bool,
    /// From 1.
    pub number: usize,
}

impl Fault {
    /// What the tracer is told.
    pub fn plan(&self, here: &Here) -> Plan {
        let (here, Self { call, kind, number, .. }) = (here.clone(), *self);
        let counts = move |seen: &Seen| seen.call == call && here.kind(seen) == Some(kind);
        let plan = match self.how {
            How::Error(error) => Plan::fail(number, error, counts),
            How::Short => Plan::short(number, counts),
        };
        let plan = if self.call == Call::Read { plan.with_reads() } else { plan };
        if self.lasting { plan.lasting() } else { plan }
    }

    /// Whether the database has no room for as long as this lasts.
    pub fn is_no_room(&self) -> bool {
        self.lasting && self.how == How::Error(libc::ENOSPC) && (self.call, self.kind) == (Call::Pwrite, Kind::Wal)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasting = if self.lasting { " and on" } else { "" };
        write!(f, "{} from {} of the {}, at number {}{lasting}", self.how, self.call, self.kind, self.number)
    }
}

/// Plans nothing.
pub fn nothing() -> Plan {
    Plan::count(|_| false)
}

/// Faults at calls of a survey, at most so many: each with one error, once or lasting, at one number, by chance.
pub fn sample(survey: &Survey, most: usize, random: &mut fastrand::Rng) -> Vec<Fault> {
    let mut faults: Vec<Fault> = survey
        .iter()
        .map(|(&(call, kind), &seen)| {
            let how = random.choice(ways(call)).unwrap();
            Fault { call, kind, how, lasting: random.bool(), number: random.usize(1..=seen) }
        })
        .collect();
    random.shuffle(&mut faults);
    faults.truncate(most);
    faults
}

/// Every fault of a survey: each call, with each error, once; and lasting, from so many places on of all that there are.
pub fn every(survey: &Survey, lasting: usize) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (&(call, kind), &seen) in survey {
        for how in ways(call) {
            faults.extend((1..=seen).map(|number| Fault { call, kind, how, lasting: false, number }));
            let places = (1..=seen).step_by(seen.div_ceil(lasting));
            faults.extend(places.map(|number| Fault { call, kind, how, lasting: true, number }));
        }
    }
    faults
}

/// The faults that a command or a start meets: in the quick form at most so many.
pub fn some_or_all(survey: &Survey, quick: usize, random: &mut fastrand::Rng) -> Box<dyn Iterator<Item = Fault>> {
    if long() {
        Box::new(Portion::of("calls of starts and commands", every(survey, 1), random))
    } else {
        Box::new(sample(survey, quick, random).into_iter())
    }
}

/// What became of whoever met a fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// Went on.
    pub went_on: usize,
    /// Left with a failing exit.
    pub left: usize,
}

/// Fates by call, kind of file, error and duration.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<(Call, Kind, How, bool), Fate>);

impl Table {
    /// Notes what became of it.
    pub fn note(&mut self, fault: &Fault, left: bool) {
        let fate = self.0.entry((fault.call, fault.kind, fault.how, fault.lasting)).or_default();
        if left { fate.left += 1 } else { fate.went_on += 1 }
    }

    /// Faults that were met, by how they ended.
    pub fn fates(&self) -> Fate {
        let mut all = Fate::default();
        for fate in self.0.values() {
            all.went_on += fate.went_on;
            all.left += fate.left;
        }
        all
    }

    /// Faults that were met, by call.
    pub fn by_call(&self) -> String {
        let mut calls: BTreeMap<Call, usize> = BTreeMap::new();
        for ((call, ..), fate) in &self.0 {
            *calls.entry(*call).or_default() += fate.went_on + fate.left;
        }
        let words: Vec<String> = calls.iter().map(|(call, count)| format!("{call} {count}")).collect();
        words.join(", ")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((call, kind, how, lasting), Fate { went_on, left }) in &self.0 {
            let lasting = if *lasting { "lasting" } else { "once" };
            writeln!(f, "{call:<10} {kind:<22} {how:<7} {lasting:<8} went on {went_on:>3}, left {left:>3}")?;
        }
        Ok(())
    }
}
