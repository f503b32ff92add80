//! A daemon without rights, beside files that are somebody else's.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

use super::{Daemon, Place};

/// The number of a user who owns nothing.
pub const NOBODY: u32 = 65_534;

/// Whether commands can be run as somebody without rights; says so where they can't.
pub fn nobody_can_run(place: &Place) -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return false;
    }
    fs::set_permissions(place.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    let can = place.program().arg("--version").uid(NOBODY).gid(NOBODY).output().is_ok_and(|out| out.status.success());
    if !can {
        eprintln!("skipped: the program is where other users may not run it");
    }
    can
}

/// The daemon of a place as nobody, to whom everything in the place is given. What the test writes from then on is
/// root's, so that a read lease on it is refused and only its quiet time can tell that it is whole.
pub fn daemon_as_nobody(place: &Place) -> Daemon {
    give_away(&place.at(""));
    daemon_again_as_nobody(place)
}

/// The next daemon of such a place, where files are whoever's they have become.
pub fn daemon_again_as_nobody(place: &Place) -> Daemon {
    let mut command = place.configured(&["run"]);
    command.uid(NOBODY).gid(NOBODY);
    let mut daemon = Daemon::spawn(place, command);
    // Its service manager listens on a socket that root made.
    fs::set_permissions(daemon.address(), fs::Permissions::from_mode(0o777)).unwrap();
    daemon.ready();
    daemon
}

/// Gives everything in a place to nobody.
fn give_away(folder: &Path) {
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            give_away(&entry.path());
        } else {
            chown(entry.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}
