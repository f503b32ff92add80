//! A database with a history, made by the real program once and put back before each damage.
//!
//! It holds what a live one holds: finished and waiting jobs, two versions of a file, a job that runs and a newer
//! version that waits for it, free pages, rows that overflow their pages, and two backups of different age. There are
//! two ends to choose from: the daemon was killed (its log holds what no checkpoint moved yet), or it stopped in order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::oracle::Oracle;
use crate::support::{Daemon, Output, Place, finish, run, wait_until};

/// How the last daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By SIGKILL: there is a write-ahead log.
    Killed,
    /// In order: there is none.
    Stopped,
}

/// See the module.
pub struct History {
    /// Where it happens.
    pub place: Place,
    /// Who judges.
    pub oracle: Oracle,
}

/// Longer than any command may take here.
const PATIENCE_S: &str = "120";

impl History {
    /// Makes one.
    pub fn new() -> Self {
        let place = Place::new();
        let gate = place.at("gate");
        let held = format!("case \"$1\" in *slow*) while [ -e {} ]; do sleep 0.02; done;; esac", gate.display());
        let oracle = Oracle::new(&place.at(""), &held);
        place.configure(&configuration(&oracle.command));
        fs::create_dir(place.at("later")).unwrap();
        let history = Self { place, oracle };
        let mut daemon = Daemon::start(&history.place);
        history.work();
        fs::write(&gate, "").unwrap();
        history.leave_work(&daemon);
        daemon.kill();
        history.oracle.fault("killed, and damaged");
        fs::remove_file(&gate).unwrap();
        history.keep("killed");
        let mut daemon = Daemon::start(&history.place);
        history.wait_idle();
        assert_eq!(daemon.stop(), 0);
        history.oracle.fault("stopped, and damaged");
        history.keep("stopped");
        history
    }

    /// What is over, with a backup in between.
    fn work(&self) {
        let Self { place, oracle } = self;
        for number in 0..48 {
            oracle.put(&place.inbox().join(format!("folder-{}/file-{number}", number % 4)), format!("{number}"));
        }
        for number in 0..8 {
            let path = place.at(format!("files/added-{number}"));
            oracle.put(&path, format!("added {number}"));
            // Longer than a page.
            let metadata = format!("{{\"note\":\"{}\"}}", "n".repeat(5_000 + 1_000 * number));
            oracle.add(place, &path, &["--pipeline", "record", "--metadata", &metadata]);
        }
        place.wait_count("completed", 56);
        place.ok(&["db", "backup"]);
        place.ok(&["db", "checkpoint"]);
        fs::copy(place.database(), place.at("earlier.db")).unwrap();
        // Pages that were used and are free.
        let many: Vec<u8> = (0..150)
            .flat_map(|number| {
                let path = place.file(&format!("cancelled-{number}"), "");
                [path.to_str().unwrap().as_bytes(), b"\0"].concat()
            })
            .collect();
        place.ok(&["pause", "later"]);
        assert_eq!(place.feed(&["add", "-0", "--pipeline", "later", "-"], &many).code, 0);
        place.ok(&["cancel", "--state", "pending"]);
        place.ok(&["db", "prune"]);
        for number in 0..8 {
            oracle.put(&place.inbox().join(format!("folder-{}/file-{number}", number % 4)), "changed");
        }
        place.wait_count("completed", 64);
        // Names tell backups apart by the second.
        wait_until("there are two backups", || {
            place.ok(&["db", "backup"]);
            place.ok(&["db", "backups", "--json"]).json_lines().len() == 2
        });
    }

    /// What is not.
    fn leave_work(&self, daemon: &Daemon) {
        let Self { place, oracle } = self;
        for number in 0..12 {
            oracle.put(&place.at(format!("later/file-{number}")), format!("later {number}"));
        }
        for name in ["slow-1", "slow-2"] {
            oracle.put(&place.inbox().join(name), name);
        }
        place.wait_count("running", 2);
        oracle.put(&place.inbox().join("slow-1"), "slow, and changed");
        place.wait_count("pending", 13);
        assert!(daemon.said("READY=1") > 0);
    }

    fn keep(&self, name: &str) {
        let folder = self.place.at(name);
        fs::create_dir(&folder).unwrap();
        copy(&self.place.at("state"), &folder.join("state"));
        fs::copy(self.place.at("oracle"), folder.join("oracle")).unwrap();
    }

    /// Puts everything back to one of the ends.
    pub fn put_back(&self, end: End) {
        let kept = self.place.at(if end == End::Killed { "killed" } else { "stopped" });
        fs::remove_dir_all(self.place.at("state")).unwrap();
        copy(&kept.join("state"), &self.place.at("state"));
        fs::copy(kept.join("oracle"), self.place.at("oracle")).unwrap();
    }

    /// Runs a command, which may not hang.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let plain = self.place.configured(arguments);
        let mut bounded = Command::new("timeout");
        bounded.arg(PATIENCE_S).arg(plain.get_program()).args(plain.get_args()).env_clear();
        for (name, value) in plain.get_envs() {
            value.map(|value| bounded.env(name, value));
        }
        let output = finish(bounded.current_dir(self.place.at("")).stdin(std::process::Stdio::null()));
        assert_ne!(output.code, 124, "ingestd {arguments:?} hangs: {output:?}");
        assert!((0..=4).contains(&output.code), "ingestd {arguments:?}: {output:?}");
        assert!(!output.stderr.contains("panicked"), "ingestd {arguments:?}: {output:?}");
        output
    }

    /// Waits until nothing waits or runs but what is paused.
    fn wait_idle(&self) {
        wait_until("nothing runs", || {
            let status = self.place.status();
            ["running", "retrying"].iter().all(|state| status["jobs"][*state].as_i64().unwrap_or(0) == 0)
                && status["jobs"]["pending"] == 12
        });
    }

    /// Waits until each file is accounted for by a job that is over.
    pub fn wait_whole(&self) {
        self.place.ok(&["resume", "later"]);
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let audit = self.cli(&["audit", "--json"]);
            let status = self.place.status()["jobs"].clone();
            let open = ["pending", "running", "retrying"].iter().any(|state| status[*state].as_i64().unwrap_or(0) > 0);
            // A file that a scan or a digest is on its way to is accounted for, too, and has no job yet.
            let files: Value = serde_json::from_str(&audit.stdout).unwrap_or_default();
            let over = ["inbox", "later"].iter().all(|watch| {
                let counts = files["watches"][watch]["counts"].as_object();
                counts.is_some_and(|counts| {
                    counts.iter().all(|(kind, n)| n == 0 || ["completed", "skipped", "known"].contains(&kind.as_str()))
                })
            });
            if audit.code == 0 && over && !open {
                return;
            }
            let jobs = || self.cli(&["list", "--limit", "30"]).stdout;
            assert!(Instant::now() < deadline, "not whole after a minute: {status} {audit:?}\n{}", jobs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The database's files that may not be changed by whoever finds them damaged.
    pub fn evidence(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let database = self.place.database();
        [database.clone(), beside(&database, "-wal")]
            .into_iter()
            .map(|path| {
                // An empty log is none.
                let content = fs::read(&path).ok().filter(|bytes| !bytes.is_empty());
                (path, content)
            })
            .collect()
    }
}

/// A file beside the database.
pub fn beside(database: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", database.display()))
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

fn configuration(command: &str) -> String {
    format!(
        "[maintenance]\nbackup = {{ interval = \"0s\" }}\nmin_free_space = \"0B\"\n\
         retention = {{ cancelled = \"0s\" }}\n\
         [pipeline.record]\nkind = \"exec\"\ncommand = {command}\nconcurrency = 2\n\
         [pipeline.later]\nkind = \"exec\"\ncommand = {command}\nconcurrency = 2\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
         [watch.later]\npath = \"@PLACE@/later\"\npipeline = \"later\"\nsettle = \"20ms\"\n"
    )
}
