//! What is broken by SIGKILL: everything that a daemon does with files and rows, within a second or two.
//!
//! Files arrive in four watched folders: they are moved within a filesystem, moved to another one (a copy, where there
//! is one), deleted, and kept, this one in a new version each time. Others come by `add`, one with a step that is
//! taken once, and by `sync`. Rows are pruned, the WAL is checkpointed, a backup is made, the daemon is told to stop.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::oracle::{Figures, Record, Word, contents};
use crate::scenario::Scenario;
use crate::support::{Daemon, Place, marked_processes, sha256_of, wait_until};
use crate::tracer::{Call, Counts, Plan, Seen, Traced};

/// How many executions a kill breaks off: the pipeline's concurrency.
const AT_ONCE: usize = 2;

/// Which call of the daemon, and on which side of it.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Which calls count; all of them for `None`.
    pub call: Option<Call>,
    /// The first is 1.
    pub number: usize,
    /// When the call has happened, not before.
    pub after: bool,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.after { "after" } else { "before" };
        let call = self.call.map_or_else(|| "call".to_owned(), |call| call.to_string());
        write!(f, "{side} {call} {}", self.number)
    }
}

/// A place in which daemons are killed, round after round.
pub struct Journey {
    scenario: Scenario,
    /// Another filesystem, if there is one.
    elsewhere: TempDir,
    round: usize,
    kills: usize,
}

impl Journey {
    /// An untouched place.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let mut elsewhere = tempfile::Builder::new();
        let elsewhere = elsewhere.prefix("ingestd-");
        let elsewhere = if memory.is_dir() { elsewhere.tempdir_in(memory) } else { elsewhere.tempdir() }.unwrap();
        let scenario = Scenario::doing(&step(), &settings(elsewhere.path()));
        for folder in ["far", "gone", "kept"] {
            fs::create_dir(scenario.place.at(folder)).unwrap();
        }
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        if device(elsewhere.path()) == device(&scenario.place.at("far")) {
            eprintln!("skipped: moves to another filesystem, because /dev/shm is none");
        }
        Self { scenario, elsewhere, round: 0, kills: 0 }
    }

    /// Where it happens.
    pub fn place(&self) -> &Place {
        &self.scenario.place
    }

    /// Starts a daemon that is killed at a point, gives it the work of a round, and lets it stop where the point never
    /// comes.
    pub fn strike(&mut self, point: Point) -> Counts {
        self.round += 1;
        self.arrive("inbox", "found");
        self.arrive("far", "far");
        self.arrive("gone", "gone");
        self.scenario.oracle.put(&self.kept(), self.version());
        let (mut daemon, traced) = self.start(point);
        self.arrive("inbox", "noticed");
        self.work();
        self.outlast(&mut daemon, &traced, point)
    }

    /// Starts a daemon on what a kill left, and kills it at a point of its recovery.
    pub fn strike_recovery(&mut self, point: Point) -> Counts {
        let (mut daemon, traced) = self.start(point);
        self.outlast(&mut daemon, &traced, point)
    }

    /// The last start: nothing is broken any more, and everything is as was promised.
    #[track_caller]
    pub fn recover(&mut self) -> Figures {
        let mut daemon = Daemon::start(self.place());
        let figures = self.drained();
        assert_eq!(daemon.stop(), 0, "{}", daemon.log());
        figures
    }

    /// What holds when nothing is left to do.
    #[track_caller]
    pub fn drained(&self) -> Figures {
        let (place, oracle) = (self.place(), &self.scenario.oracle);
        wait_until("the queue has drained", || self.is_drained());
        oracle.moved(&place.inbox(), &place.at("done"));
        oracle.moved(&place.at("far"), &self.elsewhere.path().join("done"));
        self.assert_steps();
        place.ok(&["db", "check"]);
        oracle.verdict(place, AT_ONCE * self.kills)
    }

    fn start(&self, point: Point) -> (Daemon, Traced) {
        let (mut daemon, traced) = Traced::daemon(self.place(), self.plan(point));
        wait_until("the daemon is ready, or killed", || daemon.exited() || daemon.said("READY=1") > 0);
        (daemon, traced)
    }

    /// Waits until the daemon is killed or has nothing left and stops.
    fn outlast(&mut self, daemon: &mut Daemon, traced: &Traced, point: Point) -> Counts {
        wait_until("the queue has drained, or the daemon is killed", || daemon.exited() || self.is_drained());
        let code = if daemon.exited() { daemon.exit_code() } else { daemon.stop() };
        let counts = traced.counts();
        match &counts.at {
            None => assert_eq!(code, 0, "a daemon that nobody touched ends well: {}", daemon.log()),
            Some(at) => {
                self.kills += 1;
                let mark = self.place().mark();
                wait_until("its processors ended with it", || marked_processes(&mark).is_empty());
                self.scenario.oracle.fault(&format!("{point}: {at}"));
            }
        }
        counts
    }

    fn work(&self) {
        let (place, oracle) = (self.place(), &self.scenario.oracle);
        for name in ["added", "step"] {
            let path = place.at("files").join(self.name(name));
            oracle.put(&path, self.name(name));
            // Killed in between, the daemon can't say; without it the command does the work itself.
            wait_until("a file is added", || matches!(oracle.add(place, &path, &[]), Word::Ok(_)));
        }
        let listed = ["one", "two", "three"].map(|name| place.at("files").join(self.name(name)));
        for path in &listed {
            oracle.put(path, path.as_os_str().as_encoded_bytes());
        }
        let list = place.at(self.name("list"));
        fs::write(&list, listed.map(|path| format!("{}\n", path.display())).concat()).unwrap();
        wait_until("a list is taken", || place.cli(&["sync", list.to_str().unwrap(), "--batch", "2"]).code == 0);
        for command in ["checkpoint", "prune", "backup"] {
            place.cli(&["db", command]);
        }
    }

    fn arrive(&self, folder: &str, name: &str) {
        let name = self.name(name);
        self.scenario.oracle.put(&self.place().at(folder).join(&name), name.repeat(200));
    }

    fn is_drained(&self) -> bool {
        let emptied = ["inbox", "far", "gone"].iter().all(|folder| contents(&self.place().at(folder)).is_empty());
        let (kept, newest) = (self.kept(), sha256_of(self.version().as_bytes()));
        let ended = |record: &Record| matches!(record, Record::End(run) if run.path == kept && run.sha256 == newest);
        emptied && self.scenario.oracle.records().iter().any(ended) && self.scenario.is_idle()
    }

    /// No step that was begun once is begun again, whoever was killed meanwhile.
    fn assert_steps(&self) {
        let steps = fs::read_to_string(self.place().at("steps")).unwrap_or_default();
        let mut keys: Vec<&str> = steps.lines().collect();
        keys.sort_unstable();
        let all = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), all, "a step was taken twice: {steps}");
    }

    fn plan(&self, point: Point) -> Plan {
        let (counts, Point { call, number, after }) = (self.changes(), point);
        let counts = move |seen: &Seen| call.is_none_or(|call| seen.call == call) && counts(seen);
        if after { Plan::kill_after(number, counts) } else { Plan::kill_before(number, counts) }
    }

    /// What changes the state directory, and whatever happens in the watched folders and their targets.
    fn changes(&self) -> impl Fn(&Seen) -> bool + Send + 'static {
        let mut folders: Vec<PathBuf> =
            ["inbox", "far", "gone", "kept", "done"].iter().map(|folder| self.place().at(folder)).collect();
        folders.push(self.elsewhere.path().to_owned());
        let state = vec![self.place().at("state")];
        move |seen| seen.is_under(&folders) || (seen.writes && seen.is_under(&state))
    }

    fn kept(&self) -> PathBuf {
        self.place().at("kept/file")
    }

    fn version(&self) -> String {
        format!("version {}", self.round)
    }

    fn name(&self, of: &str) -> String {
        format!("{of}-{}", self.round)
    }
}

/// A step that the processor of some files takes once; it notes when it is told to.
fn step() -> String {
    let program = env!("CARGO_BIN_EXE_ingestd");
    format!(
        "case \"$1\" in */step-*)\n\
         said=$({program} effect begin --kind step --context '{{}}') || exit 75\n\
         rest=${{said#* }}\n\
         case $said in run*) echo \"${{rest#* }}\" >> \"${{INGESTD_TEST_MARK}}/steps\";; esac\n\
         case $said in done*) ;; *) {program} effect commit \"${{rest%% *}}\" --result '{{}}' || exit 75;; esac\n\
         ;; esac"
    )
}

fn settings(elsewhere: &Path) -> String {
    format!(
        "[watch.far]\npath = \"@PLACE@/far\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
         on_success = {{ move = \"{}/done\" }}\n\
         [watch.gone]\npath = \"@PLACE@/gone\"\npipeline = \"record\"\nsettle = \"20ms\"\non_success = \"delete\"\n\
         [watch.kept]\npath = \"@PLACE@/kept\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
         [pipeline.record.env]\nINGESTD_TEST_MARK = \"@PLACE@\"\n\
         [queue]\nmax_crashes = 20\n\
         [maintenance]\nwal_checkpoint_interval = \"1s\"\nprune_interval = \"1s\"\n\
         [maintenance.retention]\ncompleted = \"1s\"\nskipped = \"1s\"\nattempts = \"1s\"\nruns = \"1s\"\n\
         [maintenance.backup]\nkeep = 2\n",
        elsewhere.display()
    )
}
