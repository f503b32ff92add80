//! The scenario: a file's whole journey, several times, in a few seconds.
//!
//! Files arrive in a watched folder and by `add`; they are leased, executed, moved to a folder when done, settled;
//! finished jobs are pruned, the WAL is checkpointed, a backup is made. Campaigns break it where they like.

use std::path::PathBuf;

use crate::base::Base;
use crate::oracle::{Figures, Oracle};
use crate::seed::Seed;
use crate::support::{Daemon, Place, wait_until};

/// A place for the scenario with its oracle.
pub struct Scenario {
    /// Where it happens.
    pub place: Place,
    /// Who judges.
    pub oracle: Oracle,
}

impl Scenario {
    /// The watch `inbox`, whose files go through the pipeline `record` and are moved to `done`; `add` takes files of
    /// `files`, which stay. `more` is added to the configuration.
    pub fn new(more: &str) -> Self {
        Self::doing("", more)
    }

    /// The same, whose processor does this (shell) before it is done with a file.
    pub fn doing(then: &str, more: &str) -> Self {
        let place = Place::new();
        let oracle = Oracle::new(&place.at(""), then);
        place.configure(&format!(
            "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 2\n\
             retry = {{ base = \"20ms\", max = \"200ms\" }}\n\
             [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
             on_success = {{ move = \"@PLACE@/done\" }}\n{more}",
            oracle.command
        ));
        std::fs::create_dir(place.at("done")).unwrap();
        Self { place, oracle }
    }

    /// A daemon that has made its folders and done a first file, and what it takes in that state.
    #[track_caller]
    pub fn at_work(&self) -> (Daemon, Base) {
        let daemon = Daemon::start(&self.place);
        self.arrive("first");
        self.wait_drained();
        let base = Base::of(&daemon, &self.place);
        (daemon, base)
    }

    /// Puts a file into the watched folder.
    pub fn arrive(&self, name: &str) -> PathBuf {
        let path = self.place.inbox().join(name);
        self.oracle.put(&path, name);
        path
    }

    /// Makes a file and adds it by command.
    pub fn add(&self, name: &str) -> PathBuf {
        let path = self.place.at("files").join(name);
        self.oracle.put(&path, name);
        self.oracle.add(&self.place, &path, &[]);
        path
    }

    /// Waits until nothing waits or runs any more, and every file that was put into the inbox has left it.
    #[track_caller]
    pub fn wait_drained(&self) {
        let drained = || crate::oracle::contents(&self.place.inbox()).is_empty() && self.is_idle();
        while !drained() {
            // A long queue on a busy machine takes its time; one that stands still has not.
            let ended = self.oracle.ended();
            wait_until("the queue has drained, or goes on", || drained() || self.oracle.ended() > ended);
        }
    }

    /// Whether nothing waits or runs.
    pub fn is_idle(&self) -> bool {
        let status = self.place.cli(&["status", "--json"]);
        let open = |state: &str| status.json()["jobs"][state].as_i64().unwrap_or(0);
        status.code == 0 && ["pending", "running", "retrying"].iter().all(|state| open(state) == 0)
    }

    /// The end of what may have cost no repetition: all is processed, moved whole, and the daemon stops in order.
    #[track_caller]
    pub fn end(&self, daemon: &mut Daemon) -> Figures {
        let figures = self.oracle.verdict(&self.place, 0);
        self.oracle.moved(&self.place.inbox(), &self.place.at("done"));
        assert_eq!(daemon.stop(), 0, "{}", daemon.log());
        figures
    }
}

#[test]
fn an_untouched_scenario_keeps_the_promise_without_a_repetition() {
    let seed = Seed::of("scenario");
    let scenario = Scenario::new("");
    let (mut daemon, base) = scenario.at_work();
    for number in 0..20 {
        scenario.arrive(&format!("folder/file-{number}"));
        scenario.add(&format!("added-{number}"));
    }
    scenario.wait_drained();
    base.wait_back(&daemon, &scenario.place);
    let figures = scenario.end(&mut daemon);
    assert_eq!((figures.files, figures.acknowledged, figures.executions), (41, 20, 41));
    seed.report(figures);
}
