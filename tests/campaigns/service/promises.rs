//! What the unit promises: READY when it works, a status, a user and modes, a reload, a journal with fields.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use super::*;
use crate::support::{text, wait_for};

#[test]
fn the_readme_installs_a_service_that_keeps_its_units_promises() {
    if !Machine::is_possible() {
        return;
    }
    let service = Service::installed("", "");
    assert_eq!(service.systemctl(&["is-active", "ingestd"]).trim(), "active");
    assert_eq!(service.systemctl(&["is-enabled", "ingestd"]).trim(), "enabled");
    service.put("first");
    service.wait_drained();
    wait_until("the status shows the counts", || service.property("StatusText").contains("waiting"));
    modes_are_narrow(&service);
    only_the_main_process_may_notify(&service);
    reloads(&service);
    the_journal_has_fields(&service);
    service.verdict(0);
}

fn modes_are_narrow(service: &Service) {
    let passwd = fs::read_to_string(service.machine.path("/etc/passwd")).unwrap();
    let user = passwd.lines().find(|line| line.starts_with("ingestd:")).unwrap();
    let uid: u32 = user.split(':').nth(2).unwrap().parse().unwrap();
    let outer = service.machine.outer_pid(service.main_pid());
    assert_eq!(fs::metadata(format!("/proc/{outer}")).unwrap().uid(), uid, "the daemon is the service's user");
    let mode = |path: &str| {
        let meta = fs::symlink_metadata(service.machine.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        (meta.uid() == uid, format!("{:04o}", meta.mode() & 0o7777))
    };
    let of_service = |mode: &str| (true, mode.to_owned());
    assert_eq!(mode("/var/lib/ingestd"), of_service("0700"));
    for name in ["ingestd.db", "ingestd.db-wal", "ingestd.db-shm", "ingestd.db.lock", "ingestd.sock"] {
        assert_eq!(mode(&format!("/var/lib/ingestd/{name}")), of_service("0600"), "{name}");
    }
    for name in ["work", "spool"] {
        assert_eq!(mode(&format!("/var/lib/ingestd/{name}")), of_service("0700"), "{name}");
    }
    assert_eq!(mode("/etc/ingestd/ingestd.toml"), (false, "0640".to_owned()));
}

fn only_the_main_process_may_notify(service: &Service) {
    assert_eq!(service.property("NotifyAccess"), "main");
    let before = service.property("StatusText");
    let said = service.machine.run(&["sudo", "-u", "ingestd", "systemd-notify", "--status=forged"]);
    assert_ne!(service.property("StatusText"), "forged", "{said:?}, {before}");
}

fn reloads(service: &Service) {
    service.configure("second", "[pipeline.second]\nkind = \"noop\"\n");
    service.systemctl(&["reload", "ingestd"]);
    wait_until("the new pipeline is there", || service.cli(&["pipeline", "show", "second", "--json"]).code == 0);
    let pid = service.main_pid();
    // Refused, and the old one stays.
    service.configure("second", "[pipeline.second]\nkind = \"nop\"\n");
    service.systemctl(&["reload", "ingestd"]);
    wait_until("the refusal is in the journal", || {
        service.journal().iter().any(|line| text(line, "MESSAGE").contains("nop"))
    });
    service.wait_active();
    service.put("while-invalid");
    wait_until("it still works", || !service.machine.path("/srv/inbox/while-invalid").exists());
    assert_eq!((service.main_pid(), service.restarts()), (pid, 0), "the same daemon all the time");
    fs::remove_file(service.machine.path("/etc/ingestd/conf.d/second.toml")).unwrap();
    service.systemctl(&["reload", "ingestd"]);
    service.wait_drained();
}

fn the_journal_has_fields(service: &Service) {
    let line_of = |wanted: fn(&Value) -> bool| {
        wait_for("the line is in the journal", || service.journal().into_iter().find(&wanted))
    };
    let ready = line_of(|line| text(line, "MESSAGE").starts_with("ready"));
    assert_eq!((text(&ready, "PRIORITY"), text(&ready, "SYSLOG_IDENTIFIER")), ("6", "ingestd"), "{ready}");
    assert!(text(&ready, "INGESTD_DATABASE").ends_with("ingestd.db"), "{ready}");
    let refused = line_of(|line| text(line, "MESSAGE").contains("nop"));
    assert!(matches!(text(&refused, "PRIORITY"), "3" | "4"), "{refused}");
}
