//! What can happen to a queue, and how it is drawn.
//!
//! The world is small on purpose: six sources, two pipelines, four looks and three contents of a file, so that
//! actions meet. What refers to something that exists only at run time (a lease, a job) is a [`Pick`], a number that
//! is taken modulo what there is: so an action keeps a meaning while the sequence around it shrinks.

use std::fmt;

use ingestd::job::Priority;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Sources by the name that tells them apart: three watched files, two absolute paths, one caller's key.
pub const SOURCES: [&str; 6] = ["a", "b", "c", "/x", "/y", "key"];
/// How many of them, from the first, are under the watch.
pub const WATCHED: usize = 3;
/// The pipelines.
pub const PIPELINES: [&str; 2] = ["docs", "mail"];

/// Chooses among what there is when the action runs.
pub type Pick = u8;

/// How a file looks on disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Its modification.
    pub mtime: i64,
    /// Its status change, which a rename moves alone.
    pub ctime: i64,
}

/// A file that somebody saw.
#[derive(Clone)]
pub struct Sighting {
    pub source: &'static str,
    pub pipeline: &'static str,
    pub priority: Priority,
    /// Not before so many seconds from now.
    pub delay_s: Option<i64>,
    pub look: Look,
    pub content: u8,
    /// The digest is given with the first call, and not only when it is asked for.
    pub eager: bool,
    pub force: bool,
    pub note_only: bool,
    /// It may be the file that had this name until now.
    pub renamed: Option<Renaming>,
}

/// A watched file's name until now.
#[derive(Clone, Copy, Debug)]
pub struct Renaming {
    pub from: &'static str,
    pub told: bool,
}

/// Tells what is out of the ordinary.
impl fmt::Debug for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}, {}, looks {:?}", self.source, self.pipeline, self.priority, self.look)?;
        if let Some(delay_s) = self.delay_s {
            write!(f, ", due in {delay_s} s")?;
        }
        write!(f, ", content {}", self.content)?;
        let marks = [(self.eager, "digest given"), (self.force, "forced"), (self.note_only, "only noted")];
        marks.iter().filter(|(set, _)| *set).try_for_each(|(_, mark)| write!(f, ", {mark}"))?;
        self.renamed.map_or(Ok(()), |renamed| write!(f, ", {renamed:?}"))
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.mtime, self.ctime)
    }
}

/// A watched file that is gone.
#[derive(Clone, Debug)]
pub struct Loss {
    pub source: &'static str,
    pub pipeline: &'static str,
    pub wants_job: bool,
    pub priority: Priority,
}

/// What an execution came to.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Done,
    Failed,
    FailedForGood,
    /// With the least wait that the other side asked for, in seconds.
    Deferred(Option<u64>),
    Interrupted,
    Cancelled,
    Unchanged,
    Vanished,
    /// In favour of the newer version, where there is one.
    Superseded,
}

/// The end of the execution under a lease, which may be a stale one.
#[derive(Clone, Debug)]
pub struct End {
    pub lease: Pick,
    pub ending: Ending,
    /// What it worked on, where its digest was taken.
    pub content: Option<(Look, u8)>,
    /// Where in its range a jittered wait falls, in percent.
    pub chance: u8,
}

/// A request for work.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Pipelines with their free permits.
    pub wants: Vec<(&'static str, usize)>,
    pub limit: usize,
}

/// What a person does.
#[derive(Clone, Copy, Debug)]
pub enum Hand {
    Retry,
    Cancel,
    Prioritize(Priority),
}

/// What time removes.
#[derive(Clone, Copy, Debug)]
pub enum Old {
    Completed,
    Failed,
    Cancelled,
    Skipped,
    Attempts,
    Sources,
}

/// One step.
#[derive(Clone, Debug)]
pub enum Action {
    /// One call, which minds the room where it is an offer. Asked for digests, it is repeated with them where `answer`.
    Enqueue {
        sightings: Vec<Sighting>,
        answer: bool,
        offer: bool,
    },
    Vanish(Vec<Loss>),
    /// Files that a person added are not there any more.
    NoteAbsent(Vec<Pick>),
    Lease(Ask),
    /// Where nothing runs.
    LeaseSuspect,
    Settle(Vec<End>),
    /// Calls that share a transaction, beside one that can't be written.
    Together {
        sighting: Sighting,
        end: End,
        ask: Ask,
    },
    Renew(Vec<Pick>),
    /// Something works under the lease that can't be stopped; or nothing does any more, under any.
    Work(Pick),
    Rest,
    Reclaim,
    Intend(Pick),
    /// With the file back under its name, or without.
    Withdraw(Pick, Option<Look>),
    /// The daemon goes on, with a sign of life for every lease each 20 s.
    Live {
        pulses: u8,
    },
    /// Both clocks.
    Advance {
        seconds: u64,
    },
    /// The wall clock alone.
    Step {
        seconds: i64,
    },
    /// The daemon dies; the machine with it, or not.
    Crash {
        reboot: bool,
    },
    /// The daemon releases what runs, ends in order, and starts again.
    Restart,
    Steer {
        hand: Hand,
        jobs: Vec<Pick>,
    },
    Pause {
        pipeline: &'static str,
        paused: bool,
    },
    Prune {
        what: Old,
        age_s: u64,
    },
    /// `db check`.
    Check,
}

/// What prevails in a sequence, so that also what takes many steps in a row is reached.
#[derive(Clone, Copy)]
struct Mood {
    sources: &'static [&'static str],
    pipelines: &'static [&'static str],
    vanish: u32,
    settle: u32,
    crash: u32,
    suspect: u32,
    /// How likely a sighting is one of a file that may have had another name.
    renames: f64,
    /// How many modification times there are.
    times: i64,
}

/// Everything, evenly.
const EVEN: Mood = Mood {
    sources: &SOURCES,
    pipelines: &PIPELINES,
    vanish: 5,
    settle: 14,
    crash: 3,
    suspect: 3,
    renames: 0.2,
    times: 4,
};
/// One file that changes all the time.
const CROWDED: Mood = Mood { sources: &["a"], pipelines: &["docs"], ..EVEN };
/// The daemon dies again and again.
const STORMY: Mood = Mood { sources: &["a", "b", "/x"], settle: 3, crash: 20, suspect: 20, ..EVEN };
/// Files get other names again and again.
const WANDERING: Mood =
    Mood { sources: &["a", "b", "c"], pipelines: &["docs"], vanish: 14, renames: 0.7, times: 2, ..EVEN };

/// A sequence of at most so many steps.
pub fn sequences(longest: usize) -> impl Strategy<Value = Vec<Action>> {
    let in_mood = move |mood| vec(action(mood), 1..=longest);
    prop_oneof![3 => in_mood(EVEN), 2 => in_mood(CROWDED), 1 => in_mood(STORMY), 3 => in_mood(WANDERING)]
}

fn action(mood: Mood) -> impl Strategy<Value = Action> {
    prop_oneof![
        14 => (vec(sighting(mood), 1..4), prop::bool::weighted(0.8), prop::bool::weighted(0.3))
            .prop_map(|(sightings, answer, offer)| Action::Enqueue { sightings, answer, offer }),
        mood.vanish => vec(loss(mood), 1..3).prop_map(Action::Vanish),
        2 => vec(any::<Pick>(), 1..3).prop_map(Action::NoteAbsent),
        14 => ask().prop_map(Action::Lease),
        mood.suspect => Just(Action::LeaseSuspect),
        mood.settle => vec(end(), 1..4).prop_map(Action::Settle),
        3 => (sighting(mood), end(), ask())
            .prop_map(|(sighting, end, ask)| Action::Together { sighting, end, ask }),
        14 => occasionally(),
        6 => (hand(), vec(any::<Pick>(), 1..3)).prop_map(|(hand, jobs)| Action::Steer { hand, jobs }),
        6 => select(&[1, 20, 45, 700, 4_000][..]).prop_map(|seconds| Action::Advance { seconds }),
        mood.crash => any::<bool>().prop_map(|reboot| Action::Crash { reboot }),
    ]
}

fn occasionally() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => vec(any::<Pick>(), 1..4).prop_map(Action::Renew),
        2 => (1..6_u8).prop_map(|pulses| Action::Live { pulses }),
        1 => any::<Pick>().prop_map(Action::Work),
        2 => Just(Action::Rest),
        3 => Just(Action::Reclaim),
        4 => any::<Pick>().prop_map(Action::Intend),
        2 => (any::<Pick>(), prop::option::of(look())).prop_map(|(lease, back)| Action::Withdraw(lease, back)),
        1 => select(&[-5, 5, -4_000, 4_000][..]).prop_map(|seconds| Action::Step { seconds }),
        1 => Just(Action::Restart),
        1 => (pipeline(), prop::bool::weighted(0.3)).prop_map(|(pipeline, paused)| Action::Pause { pipeline, paused }),
        3 => (old(), select(&[0, 30, 1_000][..])).prop_map(|(what, age_s)| Action::Prune { what, age_s }),
        1 => Just(Action::Check),
    ]
}

fn sighting(mood: Mood) -> impl Strategy<Value = Sighting> {
    let marks = (prop::bool::weighted(0.3), prop::bool::weighted(0.05), prop::bool::weighted(0.05));
    let delay = prop::option::weighted(0.15, select(&[-30, 0, 10, 300][..]));
    let renamed = prop::option::weighted(mood.renames, (select(&SOURCES[..WATCHED]), any::<bool>()));
    (select(mood.sources), select(mood.pipelines), priority(), delay, look_of(mood.times), 0..3_u8, marks, renamed)
        .prop_map(|(source, pipeline, priority, delay_s, look, content, (eager, force, note_only), renamed)| Sighting {
            renamed: renamed
                .filter(|(from, _)| *from != source && SOURCES[..WATCHED].contains(&source))
                .map(|(from, told)| Renaming { from, told }),
            source,
            pipeline,
            priority,
            delay_s,
            look,
            content,
            eager,
            force,
            note_only,
        })
}

fn loss(mood: Mood) -> impl Strategy<Value = Loss> {
    let watched: Vec<_> = SOURCES[..WATCHED].iter().copied().filter(|name| mood.sources.contains(name)).collect();
    (select(watched), select(mood.pipelines), any::<bool>(), priority())
        .prop_map(|(source, pipeline, wants_job, priority)| Loss { source, pipeline, wants_job, priority })
}

fn end() -> impl Strategy<Value = End> {
    let ending = prop_oneof![
        6 => Just(Ending::Done),
        5 => Just(Ending::Failed),
        2 => Just(Ending::FailedForGood),
        2 => prop::option::of(select(&[0, 15, 100_000][..])).prop_map(Ending::Deferred),
        2 => Just(Ending::Interrupted),
        1 => Just(Ending::Cancelled),
        1 => Just(Ending::Unchanged),
        1 => Just(Ending::Vanished),
        1 => Just(Ending::Superseded),
    ];
    (any::<Pick>(), ending, prop::option::of((look(), 0..3_u8)), 0..100_u8)
        .prop_map(|(lease, ending, content, chance)| End { lease, ending, content, chance })
}

fn ask() -> impl Strategy<Value = Ask> {
    let wants = [1..4_usize, 0..4];
    (wants, 1..6_usize).prop_map(|(permits, limit)| {
        let wants = PIPELINES.into_iter().zip(permits).filter(|(_, permits)| *permits > 0).collect();
        Ask { wants, limit }
    })
}

fn hand() -> impl Strategy<Value = Hand> {
    prop_oneof![4 => Just(Hand::Retry), 3 => Just(Hand::Cancel), 2 => priority().prop_map(Hand::Prioritize)]
}

fn old() -> impl Strategy<Value = Old> {
    select(&[Old::Completed, Old::Failed, Old::Cancelled, Old::Skipped, Old::Attempts, Old::Sources][..])
}

fn pipeline() -> impl Strategy<Value = &'static str> {
    select(&PIPELINES[..])
}

fn priority() -> impl Strategy<Value = Priority> {
    select(&[Priority::Normal, Priority::Low, Priority::High, Priority::Urgent][..])
}

fn look() -> impl Strategy<Value = Look> {
    look_of(EVEN.times)
}

fn look_of(times: i64) -> impl Strategy<Value = Look> {
    (0..times, 0..2_i64).prop_map(|(mtime, ctime)| Look { mtime, ctime })
}
