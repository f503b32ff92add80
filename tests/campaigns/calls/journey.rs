//! A daemon at work, round after round, and what it comes to under a fault.

use std::fs::File;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::fault::{Fault, Here, Table, nothing};
use crate::base::Base;
use crate::oracle::{Figures, Oracle, Record, Word, contents};
use crate::support::{Daemon, Output, Place, text, wait_until};
use crate::tracer::Traced;

/// Executions that may run when a fault ends the daemon, or is in their way.
const AT_ONCE: usize = 4;

/// A place, the daemon in it, and the judge.
pub struct Journey {
    pub place: Place,
    pub oracle: Oracle,
    pub here: Here,
    pub table: Table,
    far: TempDir,
    daemon: Option<(Daemon, Traced)>,
    base: Option<Base>,
    rounds: usize,
    repeats: usize,
    /// Daemons that were told to stop while a fault lasted.
    stopped: usize,
}

/// What of a round was begun, and has to be seen to its end.
#[derive(Default)]
struct Round {
    /// Added, and not acknowledged: with the word that was given.
    open: Vec<(std::path::PathBuf, Word)>,
    list: Option<(String, Child)>,
}

impl Journey {
    /// Two watches whose files are moved when done, one of them to another filesystem where there is one; processors
    /// that say something and take an effect.
    pub fn new() -> Self {
        let place = Place::new();
        let far =
            tempfile::Builder::new().prefix("ingestd-").tempdir_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let effect = "echo at work\nid=$(INGESTD effect begin --kind step 2>/dev/null | cut -d ' ' -f 2)\n\
             [ -z \"$id\" ] || INGESTD effect commit \"$id\" >/dev/null 2>&1 || :";
        let oracle = Oracle::new(&place.at(""), &effect.replace("INGESTD", env!("CARGO_BIN_EXE_ingestd")));
        place.configure(&format!(
            "[queue]\nconcurrency = 3\nmax_crashes = 1000\n[shutdown]\ngrace = \"2s\"\n[maintenance.retention]\ncompleted = \"1s\"\n\
             [pipeline.record]\nkind = \"exec\"\ncommand = {}\n\
             retry = {{ max_attempts = 100000, base = \"20ms\", max = \"200ms\" }}\n\
             [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
             on_success = {{ move = \"@PLACE@/done\" }}\n\
             [watch.far]\npath = \"@PLACE@/far-inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
             on_success = {{ move = \"{}\" }}\n",
            oracle.command,
            far.path().display()
        ));
        for folder in ["done", "far-inbox", "files"] {
            std::fs::create_dir(place.at(folder)).unwrap();
        }
        let here = Here { place: place.at("").canonicalize().unwrap(), far: far.path().canonicalize().unwrap() };
        let (table, daemon, base) = (Table::default(), None, None);
        Self { place, oracle, here, table, far, daemon, base, rounds: 0, repeats: 0, stopped: 0 }
    }

    /// Starts the daemon, with nothing broken, and waits until it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        let (mut daemon, traced) = Traced::daemon(&self.place, nothing());
        daemon.ready();
        self.daemon = Some((daemon, traced));
    }

    /// The tracer of the daemon that runs.
    pub fn traced(&self) -> &Traced {
        &self.daemon.as_ref().expect("a daemon runs").1
    }

    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon.as_mut().expect("a daemon runs").0
    }

    /// A round in which nothing is broken; the first one shows the base.
    #[track_caller]
    pub fn undisturbed(&mut self) {
        let mut round = Round::default();
        self.begin(&mut round);
        self.wait_idle(|_| false);
        self.upkeep();
        self.finish(round, None);
        let (daemon, _) = self.daemon.as_ref().unwrap();
        self.base.get_or_insert_with(|| Base::of(daemon, &self.place));
    }

    /// Kills the daemon at work.
    #[track_caller]
    pub fn crash(&mut self) {
        let mut round = Round::default();
        self.begin(&mut round);
        wait_until("an execution has begun", || {
            self.oracle.records().iter().any(|record| matches!(record, Record::Begin(_)))
        });
        if let Some((_, mut child)) = round.list.take() {
            assert!(child.wait().unwrap().success());
        }
        self.daemon().kill();
        self.crashed();
    }

    /// A file is put where it is watched for.
    pub fn arrive(&mut self) {
        self.rounds += 1;
        self.oracle.put(&self.place.inbox().join(self.rounds.to_string()), self.rounds.to_string());
    }

    /// A daemon was killed.
    pub fn crashed(&mut self) {
        self.oracle.fault("kill -9");
        self.repeats += AT_ONCE;
    }

    /// A round under a fault; answers whether the fault was met.
    #[track_caller]
    pub fn suffer(&mut self, fault: &Fault, stop: bool) -> bool {
        let reliefs = self.reliefs();
        self.traced().set(fault.plan(&self.here));
        let mut round = Round::default();
        self.begin(&mut round);
        let met = |traced: &Traced| fault.lasting && traced.counts().acted > 0;
        self.wait_idle(met);
        self.upkeep();
        self.wait_idle(met);
        let acted = self.traced().counts().acted;
        self.oracle.fault(&fault.to_string());
        if acted > 0 && fault.is_no_room() && !self.daemon().exited() {
            self.no_room_is_told(reliefs);
        }
        let stopped = fault.lasting && stop && acted > 0;
        if stopped && !self.daemon().exited() {
            let code = self.daemon().stop();
            assert!(matches!(code, 0 | 1), "exit {code} after SIGTERM");
        }
        self.traced().set(nothing());
        let left = self.finish(round, Some(fault).filter(|_| !stopped));
        if acted > 0 {
            self.repeats += 2 * AT_ONCE;
            self.stopped += usize::from(stopped);
            if !stopped {
                self.table.note(fault, left);
            }
        }
        self.judge();
        acted > 0
    }

    /// Files arrive and are added, a list is handed over.
    fn begin(&mut self, round: &mut Round) {
        self.rounds += 1;
        let number = self.rounds;
        self.oracle.put(&self.place.inbox().join(format!("{number}")), format!("in {number}"));
        self.oracle.put(&self.place.inbox().join(format!("folder-{number}/file")), format!("deep {number}"));
        self.oracle.put(&self.place.at(format!("far-inbox/{number}")), format!("far {number}"));
        let (listed, list) = (self.place.at(format!("files/listed-{number}")), format!("list-{number}"));
        self.oracle.put(&listed, format!("listed {number}"));
        std::fs::write(self.place.at(&list), listed.to_str().unwrap()).unwrap();
        round.list = Some((list.clone(), self.hand_over(&list)));
        let added = self.place.at(format!("files/added-{number}"));
        self.oracle.put(&added, format!("added {number}"));
        self.add(round, added);
    }

    fn add(&self, round: &mut Round, path: std::path::PathBuf) {
        match self.oracle.add(&self.place, &path, &["--pipeline", "record"]) {
            Word::Ok(_) => {}
            word => round.open.push((path, word)),
        }
    }

    fn hand_over(&self, list: &str) -> Child {
        let mut command = self.place.configured(&["sync", list, "--pipeline", "record", "--quiet"]);
        let errors = File::create(self.place.at(format!("{list}.errors"))).unwrap();
        command.stdout(Stdio::null()).stderr(errors).spawn().unwrap()
    }

    /// What is done from time to time. It may be refused, in words.
    fn upkeep(&self) {
        for words in [&["db", "checkpoint"][..], &["db", "prune"], &["db", "backup"], &["kv", "set", "a", "b"]] {
            decent(&self.place.cli(words));
        }
    }

    /// Waits until the queue is empty, or the daemon has left, or something holds.
    #[track_caller]
    fn wait_idle(&mut self, holds: impl Fn(&Traced) -> bool) {
        wait_until("the queue has drained, or the daemon has left", || {
            self.daemon().exited() || holds(self.traced()) || self.is_drained()
        });
    }

    /// Works off what many killed starts have left, with nothing broken: however long it takes, it never stands still.
    #[track_caller]
    pub fn work_off(&self) {
        while !self.is_drained() {
            let before = self.oracle.ended();
            wait_until("there is progress", || self.oracle.ended() > before || self.is_drained());
        }
    }

    fn is_drained(&self) -> bool {
        let status = self.place.cli(&["status", "--json"]);
        let open = |state: &str| status.json()["jobs"][state].as_i64().unwrap_or(0);
        let empty = |folder: &str| contents(&self.place.at(folder)).is_empty();
        status.code == 0
            && empty("inbox")
            && empty("far-inbox")
            && ["pending", "running", "retrying"].iter().all(|state| open(state) == 0)
    }

    /// A database without room is a critical warning, and `health` says so, for as long as it lasts: also when it is
    /// tried again, and when somebody has nothing to write.
    #[track_caller]
    fn no_room_is_told(&mut self, reliefs: usize) {
        let tries = |journey: &Self| journey.traced().counts().acted;
        let told = |journey: &Self| {
            let health = journey.place.cli(&["health"]);
            health.code == 2 && health.stdout.contains("no room")
        };
        wait_until("`health` says that there is no room", || self.daemon().exited() || told(self));
        self.place.cli(&["kv", "delete", "nothing"]);
        let before = tries(self);
        wait_until("it is tried again", || self.daemon().exited() || tries(self) > before + 2);
        if !self.daemon().exited() {
            assert!(told(self), "{}", self.daemon().log());
            assert_eq!(self.reliefs(), reliefs, "the warning flaps: {}", self.daemon().log());
        }
    }

    /// How often the daemon has said that there is room again.
    fn reliefs(&mut self) -> usize {
        self.daemon().log().matches("over: no room").count()
    }

    /// The fault is gone: what was begun comes to its end, by itself. Answers whether the daemon had left.
    #[track_caller]
    fn finish(&mut self, mut round: Round, fault: Option<&Fault>) -> bool {
        let mut left = false;
        loop {
            if self.daemon().exited() {
                left = true;
                self.left(fault);
                self.start();
            }
            for (path, word) in std::mem::take(&mut round.open) {
                self.assert_not_taken(&path, word);
                self.add(&mut round, path);
            }
            if let Some((list, mut child)) = round.list.take() {
                wait_until("the list has been handed over, or the daemon has left", || {
                    child.try_wait().unwrap().is_some() || self.daemon().exited()
                });
                round.list = match child.try_wait().unwrap() {
                    None => Some((list, child)),
                    Some(status) if status.success() => None,
                    Some(_) => {
                        let child = self.hand_over(&list);
                        Some((list, child))
                    }
                };
            }
            self.wait_idle(|_| false);
            if !self.daemon().exited() && round.open.is_empty() && round.list.is_none() && self.is_drained() {
                return left;
            }
        }
    }

    /// A daemon that left by itself has said why, with a failing exit.
    #[track_caller]
    fn left(&mut self, fault: Option<&Fault>) {
        let (code, log) = (self.daemon().exit_code(), self.daemon().log());
        assert!(!log.contains("panicked"), "a panic");
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if let Some(fault) = fault {
            assert_eq!(code, 1, "the exit code after {fault}");
            if fault.kind != super::fault::Kind::Messages {
                assert!(last.starts_with("ingestd: "), "no last word after {fault}: {last}");
            }
            eprintln!("  left: {last}");
        }
        self.oracle.fault("the daemon left");
        let check = self.place.cli(&["db", "check"]);
        assert_eq!(check.code, 0, "{check:?}");
    }

    /// What was refused was not taken.
    #[track_caller]
    fn assert_not_taken(&self, path: &std::path::Path, word: Word) {
        if word == Word::Failed {
            let taken = self.place.jobs().into_iter().find(|job| text(job, "path") == path.to_str().unwrap());
            assert!(taken.is_none(), "refused, and taken: {taken:?}");
        }
    }

    /// Everything so far is processed, once, and where it belongs.
    #[track_caller]
    pub fn judge(&self) -> Figures {
        self.oracle.moved(&self.place.inbox(), &self.place.at("done"));
        self.oracle.moved(&self.place.at("far-inbox"), self.far.path());
        self.oracle.verdict(&self.place, self.repeats)
    }

    /// The end: back at the base, sound, and stopped in order.
    #[track_caller]
    pub fn end(mut self) -> (Figures, Table, usize) {
        let (mut daemon, _) = self.daemon.take().unwrap();
        self.base.take().unwrap().wait_back(&daemon, &self.place);
        self.place.ok(&["db", "check"]);
        assert_eq!(daemon.stop(), 0);
        assert!(!daemon.log().contains("panicked"), "a panic");
        (self.judge(), self.table, self.stopped)
    }
}

/// A command ends with 0, or with 1 and words.
#[track_caller]
pub fn decent(output: &Output) {
    let said = output.code == 1 && output.stderr.contains("ingestd: ");
    assert!((output.code == 0 || said) && !output.stderr.contains("panicked"), "{output:?}");
}
