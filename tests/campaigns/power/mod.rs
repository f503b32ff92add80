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

use rounds::{Machine, Options};

use crate::seed::Seed;
use crate::support::long;

use self::outlet::Outlet;

/// Cuts of one machine.
fn cuts() -> usize {
    if long() { 40 } else { 8 }
}

#[test]
fn nothing_acknowledged_is_lost_and_moved_files_exist_once() {
    if !Outlet::is_possible() {
        return;
    }
    let seed = Seed::of("power");
    let mut machine =
        Machine::new(&seed, Options { success: "{ move = \"@PLACE@/disk/done\" }", ..Options::default() });
    for _ in 0..cuts() {
        machine.live_until_the_power_goes();
    }
    let figures = machine.recover();
    machine.has_moved_all_to("disk/done");
    seed.report(figures);
}
