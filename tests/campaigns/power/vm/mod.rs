//! The same with a kernel's file system in between: a virtual machine whose disk has a volatile cache.
//!
//! 1. The machine is qemu's, with a kernel and an init of our own ([`guest`]). Its disk is nbdkit's, which keeps what
//!    is not flushed to itself, and loses it by chance when the power goes ([`disk`]).
//! 2. It mounts the disk, starts the daemon and works: files are put into a watched folder and moved from there, others
//!    are added. What it acknowledges goes out over a line of its own, and from there into the ledger ([`machine`]).
//! 3. The power goes at a drawn write or flush, counted from power-on: in the mount, in the start, at work. The next
//!    boot has to find what was acknowledged.
//! 4. The same with `durability = "normal"` has to lose something, and so has a disk that ignores flushes.
//!
//! Only at length, with `INGESTD_LONG=1`: a boot takes its time, and the kernel is another package.

mod disk;
mod guest;
mod machine;
mod running;

use crate::seed::Seed;
use crate::support::{has_tools, long};

use self::guest::Guest;
use self::machine::{Machine, Options};

/// Cuts of one machine.
const CUTS: usize = 10;

/// What boots, when it is asked for and everything is there; says aloud what is skipped where not.
fn guest(mkfs: &str) -> Option<Guest> {
    let tools = ["qemu-system-x86_64", "nbdkit", "setpriv", "strip", "ldd", mkfs];
    if long() && has_tools(&tools) { Guest::find() } else { None }
}

/// Takes the power away again and again, and asks for everything at the end.
fn attack(options: Options) {
    let Some(guest) = guest(options.mkfs[0]) else { return };
    let seed = Seed::of("power");
    let mut machine = Machine::new(&guest, seed.random(), options);
    for _ in 0..CUTS {
        machine.live().unwrap();
    }
    seed.report(machine.judge());
}

#[test]
fn ext4_over_a_volatile_disk_loses_nothing_acknowledged() {
    attack(Options::default());
}

#[test]
fn xfs_over_a_volatile_disk_loses_nothing_acknowledged() {
    attack(Options { kind: "xfs", mkfs: &["mkfs.xfs", "-q", "-f"], ..Options::default() });
}

/// Machines with these options have to lose something.
fn control(what: &str, options: Options) {
    let Some(guest) = guest(options.mkfs[0]) else { return };
    let seed = Seed::of("power");
    let mut machine = Machine::new(&guest, seed.random(), options);
    let lost = (0..CUTS).find_map(|cut| Some((cut, machine.live().err()?)));
    let (cut, lost) = lost.unwrap_or_else(|| panic!("{what}: something has to be lost"));
    seed.report(format!("{what}: {lost}, noticed after cut {cut}"));
}

#[test]
fn durability_normal_loses_what_was_acknowledged_in_a_machine() {
    control("durability normal", Options { durability: "normal", ..Options::default() });
}

#[test]
fn a_disk_that_ignores_flushes_loses_what_was_acknowledged() {
    control("flushes ignored", Options { cache: "unsafe", ..Options::default() });
}
