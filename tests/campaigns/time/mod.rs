//! Time: clocks that are stepped, processes that stand still, files from the future.
//!
//! What has to hold: a step runs nothing twice, expires no lease, prunes no row, and delays nothing that waits for a
//! *while*; only what waits for a *date* follows the clock. A process that stood still for longer than its lease has
//! lost it, and its work is over before anybody else begins.

mod clock;
mod files;
mod outlived;
mod restarts;
mod steps;
mod suspended;

use clock::{DAY, Steppable, outlast_leases};

use crate::oracle::Oracle;
use crate::support::{Place, wait_until};

/// A watched folder whose processor records. Files named `slow…` wait for [`Timed::let_go`]; files named `again…` fail
/// once, before they are recorded.
struct Timed {
    place: Place,
    oracle: Oracle,
}

impl Timed {
    /// `more` goes into `[watch.inbox]`.
    fn new(more: &str) -> Self {
        let place = Place::new();
        let oracle = Oracle::new(&place.at(""), "");
        let script = "case \"${1##*/}\" in\n\
             again*) [ -e \"HERE/failed-$INGESTD_JOB\" ] || { : > \"HERE/failed-$INGESTD_JOB\"; exit 1; } ;;\n\
             slow*) until [ -e \"HERE/go-${1##*-}\" ]; do sleep 0.05; done ;;\nesac\n\
             exec /bin/sh \"HERE/oracle.sh\" \"$1\"\n";
        std::fs::write(
            place.at("gate.sh"),
            script.replace("HERE", place.at("").to_str().unwrap().trim_end_matches('/')),
        )
        .unwrap();
        place.configure(&format!(
            "[queue]\nlease = \"1s\"\n[maintenance]\nprune_interval = \"1s\"\n\
             [pipeline.record]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"@PLACE@/gate.sh\", \"{{path}}\"]\n\
             concurrency = 2\nenv = {{ LD_PRELOAD = \"\" }}\n\
             retry = {{ base = \"2s\", max = \"2s\", jitter = \"none\", max_elapsed = \"1h\" }}\n\
             [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n{more}"
        ));
        Self { place, oracle }
    }

    fn arrive(&self, name: &str) {
        self.oracle.put(&self.place.inbox().join(name), name);
    }

    /// One job waits for its second attempt, two run until they are let go, five wait behind them.
    #[track_caller]
    fn gets_busy(&self, round: usize) {
        self.arrive(&format!("again-{round}"));
        wait_until("one waits for its second attempt", || self.place.in_state("retrying") == 1);
        (0..2).for_each(|number| self.arrive(&format!("slow-{number}-{round}")));
        self.place.wait_count("running", 2);
        (0..5).for_each(|number| self.arrive(&format!("waits-{number}-{round}")));
        wait_until("the others wait", || self.place.in_state("pending") >= 5);
    }

    /// Lets files end whose name ends in `-WORD`.
    fn let_go(&self, word: &str) {
        std::fs::write(self.place.at(format!("go-{word}")), "").unwrap();
    }

    #[track_caller]
    fn wait_drained(&self) {
        wait_until("the queue has drained", || {
            let status = self.place.cli(&["status", "--json"]);
            let open = |state: &str| status.json()["jobs"][state].as_i64().unwrap_or(0);
            let files = crate::oracle::contents(&self.place.inbox()).len();
            status.code == 0
                && ["pending", "running", "retrying"].iter().all(|state| open(state) == 0)
                && usize::try_from(open("completed")).is_ok_and(|completed| completed >= files)
        });
    }
}
