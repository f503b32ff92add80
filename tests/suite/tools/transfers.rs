//! Transfers that write under a temporary name, in place, or resume: rsync, sftp, scp.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{Inbox, noise};
use crate::support::*;

/// Where Debian keeps the server, which is spoken to directly: no network, no daemon of SSH's.
const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

#[test]
fn rsync_is_taken_under_the_final_name_only_also_where_no_name_is_excluded() {
    if !has_tools(&["rsync"]) {
        return;
    }
    // Its temporary name begins with a dot; without the exclusions, only the open file speaks against it.
    for keys in ["", "exclude = []"] {
        let inbox = Inbox::with("300ms", keys);
        let (large, small) = (noise(1, 2_000_000), noise(2, 3_000));
        fs::create_dir(inbox.outside("from")).unwrap();
        fs::write(inbox.outside("from/large"), &large).unwrap();
        fs::write(inbox.outside("from/small"), &small).unwrap();
        let (from, to) = (format!("{}/", inbox.outside("from").display()), inbox.at(""));
        run(Command::new("rsync").args(["-a", "--bwlimit=1500", &from]).arg(to));
        inbox.holds(&[("large", &large), ("small", &small)]);
    }
}

#[test]
fn rsync_in_place_is_taken_when_it_is_through() {
    if !has_tools(&["rsync"]) {
        return;
    }
    let inbox = Inbox::new("300ms");
    let (before, after) = (noise(1, 1_500_000), noise(2, 1_600_000));
    fs::write(inbox.at("file"), &before).unwrap();
    inbox.holds(&[("file", &before)]);
    fs::write(inbox.outside("file"), &after).unwrap();
    let mut rsync = Command::new("rsync");
    rsync.args(["--inplace", "--bwlimit=1000"]).arg(inbox.outside("file")).arg(inbox.at(""));
    run(&mut rsync);
    inbox.holds(&[("file", &before), ("file", &after)]);
}

#[test]
fn sftp_with_a_resumed_upload_is_taken_at_rests_only() {
    if !has_tools(&["sftp", SFTP_SERVER]) {
        return;
    }
    let inbox = Inbox::new("500ms");
    let whole = noise(1, 900_000);
    let half = &whole[..400_000];
    fs::write(inbox.outside("half"), half).unwrap();
    fs::write(inbox.outside("whole"), &whole).unwrap();
    // The first session breaks off, and the second goes on where it ended.
    for (verb, source) in [("put", "half"), ("reput", "whole")] {
        let batch = inbox.outside("batch");
        let line = format!("{verb} {} {}\n", inbox.outside(source).display(), inbox.at("file").display());
        fs::write(&batch, line).unwrap();
        run(Command::new("sftp").args(["-q", "-l", "4000", "-D", SFTP_SERVER, "-b"]).arg(batch));
    }
    inbox.passed("file", &[half, &whole]);
}

#[test]
fn scp_is_taken_once_and_whole() {
    if !has_tools(&["scp", SFTP_SERVER]) {
        return;
    }
    for inbox in Inbox::both("500ms") {
        let content = noise(1, 900_000);
        fs::write(inbox.outside("source"), &content).unwrap();
        let ssh = in_place_of_ssh(&inbox.outside("ssh"));
        let target = format!("nowhere:{}", inbox.at("file").display());
        run(Command::new("scp").args(["-q", "-l", "8000", "-S", &ssh]).arg(inbox.outside("source")).arg(target));
        inbox.holds(&[("file", &content)]);
    }
}

/// A program that stands where ssh would, and talks to the server on this machine.
fn in_place_of_ssh(path: &Path) -> String {
    fs::write(path, format!("#!/bin/sh\nexec {SFTP_SERVER}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}
