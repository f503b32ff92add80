//! What is said over the socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effects::{Execution, ReachStage, Resolve};
use super::live_watch::LiveWatch;
use super::runs::RunHand;
use super::sync::{SyncBegin, SyncLines};
use super::throttle::LiveThrottle;
use crate::gate::Shut;
use crate::job::{EffectId, EffectKind, JobId, Priority, StateName, WirePath};
use crate::run::RunId;
use crate::store::Holder;

/// Something that a command asks for: everything that writes, or that needs a daemon's memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Is somebody there? Answered with [`Pong`].
    Ping,
    /// What only the daemon knows. Answered with [`LiveStatus`].
    Status,
    /// From now on, one answer for each change of the queue, a tenth of a second apart at least.
    Changes,
    /// Enqueue files. Answered with one [`Added`] for each path.
    Add(Add),
    /// Try jobs again. Answered with one [`SteerAnswer`] for each, as the next two.
    Retry {
        /// Which ones.
        ids: Vec<JobId>,
    },
    /// Stop jobs; the answer waits until running ones have ended.
    Cancel {
        /// Which ones.
        ids: Vec<JobId>,
    },
    /// Change the level of waiting jobs.
    Prioritize {
        /// Which ones.
        ids: Vec<JobId>,
        /// To what.
        level: Priority,
    },
    /// Stop leasing. Answered with the names.
    PausePipelines {
        /// Which ones; empty: all.
        names: Vec<String>,
        /// Also put back what runs.
        now: bool,
    },
    /// Lease again. Answered with the names.
    ResumePipelines {
        /// Which ones; empty: all.
        names: Vec<String>,
    },
    /// Make a watch.
    WatchAdd {
        /// Its name.
        name: String,
        /// An object with the keys of a `[watch]` section.
        definition: Value,
    },
    /// Forget a watch made by command.
    WatchRemove {
        /// Its name.
        name: String,
    },
    /// Stop taking files.
    WatchPause {
        /// Its name.
        name: String,
    },
    /// Take files again.
    WatchResume {
        /// Its name.
        name: String,
    },
    /// Compare a folder with what is known of it. Answered with [`Scanned`].
    WatchScan {
        /// Its name.
        name: String,
        /// Process again what is known.
        force: bool,
    },
    /// What the daemon knows of files and folders of a watch, by their names below its root. Answered with a list of
    /// [`LiveFile`](super::LiveFile), in their order.
    WatchFiles {
        /// The watch.
        name: String,
        /// The names.
        files: Vec<WirePath>,
    },
    /// The files of a watch that the brake on mass deletion holds back are gone indeed. Answered with [`Confirmed`].
    WatchConfirm {
        /// Its name.
        name: String,
    },
    /// Set a value of the key-value store.
    KvSet {
        /// Its name.
        key: String,
        /// The value.
        value: String,
    },
    /// Remove a value of the key-value store.
    KvDelete {
        /// Its name.
        key: String,
    },
    /// Begin a run over a list. Answered with [`SyncBegun`](super::SyncBegun).
    SyncBegin(SyncBegin),
    /// Go on reading a run that another one held. Answered with whether that was possible.
    SyncTakeOver {
        /// The run.
        run: RunId,
        /// Who held it.
        from: Holder,
        /// Who reads from now on.
        to: Holder,
    },
    /// Take lines. Answered with [`SyncTaken`](super::SyncTaken).
    SyncLines(SyncLines),
    /// Make deletes of what the list no longer names, a thousand at a time. Answered with
    /// [`SyncMissing`](super::SyncMissing).
    SyncMissing {
        /// The run.
        run: RunId,
        /// Who reads it.
        holder: Holder,
    },
    /// The input is read to its end. Answered with whether the run was running under this holder.
    SyncEnd {
        /// The run.
        run: RunId,
        /// Who reads it.
        holder: Holder,
    },
    /// Steer a run.
    RunSteer {
        /// The run.
        run: RunId,
        /// What to do.
        hand: RunHand,
    },
    /// Begin a step that is taken once. Answered with [`EffectAnswer`](super::EffectAnswer).
    EffectBegin {
        /// The execution that takes it.
        execution: Execution,
        /// What sort of step.
        kind: EffectKind,
        /// What it is about, a JSON document.
        context: String,
    },
    /// Say what came of a step.
    EffectCommit {
        /// The execution that took it.
        execution: Execution,
        /// Which.
        id: EffectId,
        /// A JSON document.
        result: Option<String>,
    },
    /// Give back a step that was certainly not taken.
    EffectAbort {
        /// The execution that began it.
        execution: Execution,
        /// Which.
        id: EffectId,
    },
    /// Say as a person what came of a step.
    EffectResolve {
        /// Which.
        id: EffectId,
        /// What.
        resolve: Resolve,
    },
    /// A job came to a stage. Answered with [`StageAnswer`](super::StageAnswer).
    Stage(ReachStage),
    /// Look after the database now. Answered with the duty's figures.
    Maintenance {
        /// What to do.
        duty: Duty,
    },
}

/// Files to enqueue, all alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Add {
    /// Absolute.
    pub paths: Vec<WirePath>,
    /// `None`: the only one.
    pub pipeline: Option<String>,
    /// The level.
    pub priority: Priority,
    /// Not before, in milliseconds since the epoch.
    pub run_at_ms: Option<i64>,
    /// The caller's identity for the one path.
    pub key: Option<String>,
    /// A JSON document for the processor.
    pub metadata: Option<String>,
    /// Process again what is known.
    pub force: bool,
}

/// What became of one path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// The path as asked.
    pub path: WirePath,
    /// What it became.
    #[serde(flatten)]
    pub became: AddedAs,
}

/// See [`Added`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum AddedAs {
    /// A new job.
    New {
        /// Its number.
        id: JobId,
        /// Which version of the file it is.
        version: i64,
    },
    /// This version is a job already, and did not complete yet.
    Known {
        /// That job.
        id: JobId,
        /// Where it stands.
        state: StateName,
    },
    /// Nothing, because this version was processed before.
    Skipped {
        /// The job that completed; `None`: it was pruned since.
        id: Option<JobId>,
    },
    /// Nothing yet: as many jobs wait as `queue.max_pending` allows. Ask again when some are done.
    Full,
    /// Nothing, and why.
    Refused {
        /// For people.
        message: String,
    },
}

/// What became of one job that a command named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SteerAnswer {
    /// The job.
    pub id: JobId,
    /// What became of it.
    #[serde(flatten)]
    pub result: SteerResult,
}

/// See [`SteerAnswer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum SteerResult {
    /// Done.
    Done,
    /// Not done, and why.
    Refused {
        /// For people.
        message: String,
    },
    /// No such job.
    Unknown,
}

/// A duty of maintenance, asked for by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "duty", rename_all = "kebab-case")]
pub enum Duty {
    /// Move the whole WAL into the database.
    Checkpoint,
    /// Give free pages back.
    Vacuum,
    /// Remove old rows.
    Prune {
        /// Only count them.
        dry_run: bool,
    },
    /// Copy the database.
    Backup {
        /// The copy; `None`: a new one among the scheduled ones.
        target: Option<WirePath>,
    },
    /// Look for damage.
    Check,
}

/// The answer to [`Request::Ping`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// The daemon's process.
    pub pid: u32,
    /// The daemon's version.
    pub version: String,
}

/// What only a running daemon knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveStatus {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Its start, in milliseconds since the epoch.
    pub started_at_ms: i64,
    /// It stops, and waits for what still runs.
    #[serde(default)]
    pub stopping: bool,
    /// Every watch that it runs.
    pub watches: Vec<LiveWatch>,
    /// What a person should look at, the worst first.
    pub warnings: Vec<LiveWarning>,
    /// What runs now.
    pub running: Vec<RunningJob>,
    /// What holds pipelines back, by name.
    #[serde(default)]
    pub throttles: BTreeMap<String, LiveThrottle>,
    /// Why nothing is taken in; empty: it is.
    #[serde(default)]
    pub shut: Vec<Shut>,
    /// Another process holds the database's lock, so that nothing can be written.
    #[serde(default)]
    pub locked: bool,
}

/// A condition that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveWarning {
    /// Work or data is in danger.
    pub critical: bool,
    /// What is wrong, where, and what to do.
    pub message: String,
}

/// A job in a worker's hands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningJob {
    /// Its number.
    pub id: JobId,
    /// Its pipeline.
    pub pipeline: String,
    /// Whether it crashed twice in a row and therefore runs alone.
    #[serde(default)]
    pub suspect: bool,
    /// Its file.
    pub path: WirePath,
    /// When this execution began, in milliseconds since the epoch.
    pub started_at_ms: i64,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// Files looked at.
    pub files: u64,
    /// Jobs made.
    pub enqueued: u64,
}

/// What was held back when a person confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Files that count as deleted now.
    pub files: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// What was asked for.
    Ok(Value),
    /// Why not.
    Err {
        /// What the command's exit code says.
        code: Code,
        /// For people: what was wrong, and what to do.
        message: String,
    },
}

/// What kind of failure it was, by the exit code that a command gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// 1: it failed.
    Failed,
    /// 2: it was asked for in a way that can't be.
    Usage,
    /// 3: no such job, watch, pipeline or run.
    NotFound,
    /// 4: another process holds the database.
    Held,
}

impl Code {
    /// The exit code.
    pub const fn exit(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Held => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_kind_of_request_survives_its_line() {
        let requests = [
            Request::Ping,
            Request::Add(Add {
                paths: vec![WirePath(PathBuf::from("/a"))],
                pipeline: None,
                priority: Priority::High,
                run_at_ms: Some(5),
                key: None,
                metadata: Some("{}".to_owned()),
                force: true,
            }),
            Request::Cancel { ids: vec![JobId(1), JobId(2)] },
            Request::Maintenance { duty: Duty::Prune { dry_run: true } },
            Request::Maintenance { duty: Duty::Backup { target: None } },
            Request::WatchAdd { name: "inbox".to_owned(), definition: serde_json::json!({"path": "/srv"}) },
        ];
        for request in requests {
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
    }

    #[test]
    fn answers_are_one_object_with_the_result_named() {
        let added = Added { path: WirePath(PathBuf::from("/a")), became: AddedAs::New { id: JobId(7), version: 1 } };
        assert_eq!(serde_json::to_string(&added).unwrap(), r#"{"path":"/a","result":"new","id":7,"version":1}"#);
        let refused = Response::Err { code: Code::NotFound, message: "no job 7".to_owned() };
        assert_eq!(serde_json::to_string(&refused).unwrap(), r#"{"err":{"code":"not-found","message":"no job 7"}}"#);
    }
}
