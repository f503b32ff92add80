//! What a command finds in its environment: the daemon's, without what is the daemon's alone, and the task.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Task;
use crate::job::IdempotencyKey;

/// What every command of a daemon shares.
#[derive(Clone, Debug, Default)]
pub struct ChildEnvironment {
    /// The daemon's state directory, absolute; commands work in its `work/` unless their pipeline says otherwise.
    pub state_directory: PathBuf,
    /// The daemon's database, absolute: what a command says of its effects and stages reaches the daemon beside it.
    pub database: PathBuf,
    /// Variables that no command inherits: those that the configuration reads as `${…}`.
    pub removed: Vec<String>,
}

impl ChildEnvironment {
    /// The daemon's environment without the service manager's variables (`NOTIFY_SOCKET`, `WATCHDOG_*`), the
    /// daemon's own configuration (`INGESTD__*`) and the removed ones; and the database's URL.
    pub fn inherited(&self) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<_> = std::env::vars_os().filter(|(name, _)| self.hands_on(name)).collect();
        let mut url = OsString::from("sqlite://");
        url.push(&self.database);
        variables.push((DATABASE_VARIABLE.into(), url));
        variables
    }

    fn hands_on(&self, name: &OsStr) -> bool {
        let bytes = name.as_bytes();
        bytes != b"NOTIFY_SOCKET"
            && !bytes.starts_with(b"WATCHDOG_")
            && !bytes.starts_with(b"INGESTD__")
            && !self.removed.iter().any(|removed| removed.as_bytes() == bytes)
    }
}

/// The variable that names the daemon's database, as `--database` takes it.
pub const DATABASE_VARIABLE: &str = "INGESTD_DATABASE";

/// The variable that says how many jobs an execution has; empty where it is one.
pub const BATCH_VARIABLE: &str = "INGESTD_BATCH";

/// The variable that tells one job's processes from all others, by a value that no other job has.
pub const KEY_VARIABLE: &str = "INGESTD_IDEMPOTENCY_KEY";

/// The variables that tell a command of its task. All are always set: what the job does not have is empty.
pub fn task_variables(task: &Task) -> [(&'static str, OsString); 15] {
    [
        ("INGESTD_PATH", task.path.clone().into()),
        ("INGESTD_RELATIVE", task.relative.clone().into()),
        ("INGESTD_OP", task.op.as_str().into()),
        ("INGESTD_MOVED_FROM", task.moved_from.clone().unwrap_or_default().into()),
        ("INGESTD_DIGEST", task.digest.map(|digest| digest.to_string()).unwrap_or_default().into()),
        ("INGESTD_SIZE", task.size.to_string().into()),
        ("INGESTD_JOB", task.job.to_string().into()),
        ("INGESTD_FENCE", task.fence.to_string().into()),
        ("INGESTD_ATTEMPT", task.attempt.to_string().into()),
        (KEY_VARIABLE, task.idempotency_key.to_string().into()),
        ("INGESTD_PIPELINE", task.pipeline.clone().into()),
        ("INGESTD_WATCH", task.watch.clone().unwrap_or_default().into()),
        ("INGESTD_METADATA", task.metadata.clone().unwrap_or_default().into()),
        ("INGESTD_STAGE", task.stage.clone().unwrap_or_default().into()),
        (BATCH_VARIABLE, OsString::new()),
    ]
}

/// The variables that tell a command of several tasks: what they share, and the key of all of them together. Those of
/// a single task are empty, so that none is taken from whoever started the daemon.
pub fn batch_variables(tasks: &[&Task], key: IdempotencyKey) -> Vec<(&'static str, OsString)> {
    let Some(first) = tasks.first() else { return Vec::new() };
    let shared = |name: &'static str, value: OsString| match name {
        "INGESTD_OP" | "INGESTD_PIPELINE" => (name, value),
        KEY_VARIABLE => (name, key.to_string().into()),
        BATCH_VARIABLE => (name, tasks.len().to_string().into()),
        _ => (name, OsString::new()),
    };
    task_variables(first).into_iter().map(|(name, value)| shared(name, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_daemons_alone_is_not_handed_on() {
        let environment = ChildEnvironment { removed: vec!["TOKEN".to_owned()], ..ChildEnvironment::default() };
        for kept in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INGESTD__QUEUE__LEASE", "TOKEN"] {
            assert!(!environment.hands_on(kept.as_ref()), "{kept}");
        }
        for handed in ["PATH", "HOME", "TOKENS", "WATCHDOG", "INGESTD_X", "TMPDIR"] {
            assert!(environment.hands_on(handed.as_ref()), "{handed}");
        }
    }
}
