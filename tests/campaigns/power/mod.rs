//! Power loss: everything lies on disks with a volatile cache, and the power goes.
//!
//! 1. A [`Disk`](disk::Disk) promises what `fsync` promises and no more, and when its power goes, chance decides of
//!    everything else. [`Outlet`] mounts it through `/dev/fuse`: state directory, inbox, target are on it, the ledger
//!    of the oracle is not.
//! 2. The daemon works at full speed, files arrive, are added, looked at, backed up. The power goes at a drawn change or
//!    sync, counted from the moment at which it came on, so also within the start, the making of the database, the
//!    recovery from the cut before. The daemon is killed, the disks are mounted as they are now, a daemon starts.
//! 3. After each cut: it is READY by itself, what was acknowledged is there, what was shown as final still is, and a
//!    file is gone only if its processor was done with it. After the last one the queue drains, and the oracle judges.
//! 4. The same with `durability = "normal"` has to lose something: the disk bites.

mod disk;
mod fuse;
mod outlet;
mod rounds;
mod vm;

use rounds::{Machine, Options};

use crate::scenario::Scenario;
use crate::seed::Seed;
use crate::support::{Daemon, long, wait_until};
use crate::tracer::{Call, Plan, Seen, Traced};

pub use self::outlet::Outlet;

/// Cuts of one machine.
const CUTS: usize = 12;

/// Machines with these options lose their power again and again, recover, and `have_kept` the promise.
fn attack(options: Options, work: fn(&mut Machine), have_kept: impl Fn(&Machine)) {
    if !Outlet::is_possible() {
        return;
    }
    let seed = Seed::of("power");
    let mut random = seed.random();
    for _ in 0..if long() { 10 } else { 1 } {
        let mut machine = Machine::new(random.fork(), options);
        for _ in 0..CUTS {
            machine.live(work).unwrap();
        }
        let figures = machine.recover();
        have_kept(&machine);
        seed.report(figures);
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_moved_files_exist_once() {
    let options = Options { success: "{ move = \"@PLACE@/disk/done\" }", ..Options::default() };
    attack(options, Machine::work, |machine| machine.has_moved_all_to("disk/done"));
}

#[test]
fn files_moved_to_another_filesystem_exist_once() {
    let options = Options { success: "{ move = \"@PLACE@/other/done\" }", ..Options::default() };
    attack(options, Machine::work, |machine| machine.has_moved_all_to("other/done"));
}

#[test]
fn a_file_is_deleted_only_when_its_processor_is_done() {
    let options = Options { success: "\"delete\"", ..Options::default() };
    attack(options, Machine::work, Machine::has_emptied_the_inbox);
}

#[test]
fn contents_of_lists_are_whole_and_none_is_lost() {
    attack(Options::default(), Machine::work_on_lists, |_| {});
}

/// A cut between the intent to move a file and the sync of its content would have what is left of it moved as what was
/// processed. The tracer shows the order, which a cut meets by rare chance.
#[test]
fn what_was_processed_is_synced_before_the_intent_to_move_it() {
    if !Traced::is_possible() {
        return;
    }
    let scenario = Scenario::new("");
    let place = &scenario.place;
    let file = place.inbox().canonicalize().unwrap().join("file");
    let touched = move |seen: &Seen| matches!(seen.call, Call::Fsync | Call::Rename) && seen.path == file;
    let (mut daemon, traced) = Traced::daemon(place, Plan::kill_before(1, touched));
    daemon.ready();
    scenario.arrive("file");
    wait_until("the file is touched", || daemon.exited());
    scenario.oracle.fault("killed");
    let at = traced.counts().at.unwrap();
    assert!(at.contains("fsync"), "it goes its way before it is synced: {at}");
    let intents = place.ok(&["db", "query", "SELECT count(*) AS n FROM dispositions", "--json"]);
    assert_eq!(intents.json_lines()[0]["n"], 0, "it is meant to be moved, and not synced: {intents:?}");
    let mut daemon = Daemon::start(place);
    scenario.wait_drained();
    scenario.oracle.moved(&place.inbox(), &place.at("done"));
    scenario.oracle.verdict(place, 1);
    assert_eq!(daemon.stop(), 0);
}

/// The control: what survives only a crash of the program is lost with the power, and this campaign sees it.
#[test]
fn durability_normal_loses_what_was_acknowledged() {
    if !Outlet::is_possible() {
        return;
    }
    let seed = Seed::of("power");
    let mut machine = Machine::new(seed.random(), Options { durability: "normal", ..Options::default() });
    let lost = (1..=60).find_map(|cut| Some((cut, machine.live(Machine::work).err()?)));
    let (cut, lost) = lost.expect("with durability normal something has to be lost");
    seed.report(format!("durability normal: {lost}, noticed after cut {}", cut - 1));
}
