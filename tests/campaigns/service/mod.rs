//! Service manager: the real unit under a real systemd, on a machine of its own ([`machine`]).
//!
//! 1. What is installed is what the README says, by its own lines ([`Service::install`]).
//! 2. Then it is used as its unit promises ([`promises`]), stuck ([`watchdog`]), stopped, killed and switched off
//!    under load ([`ends`]), and confined, with each drop-in and without ([`confinement`]).
//! 3. The oracle's ledger lies outside of the machine. That something was broken is written there by the unit itself, before
//!    each start: systemd starts a daemon again as soon as the last one is gone, and a test that looks from outside
//!    would often be later than the next execution.

mod confinement;
mod ends;
mod machine;
mod promises;
mod watchdog;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use machine::Machine;
use serde_json::Value;

use crate::oracle::{Figures, Oracle, Record, contents};
use crate::support::{Output, wait_until};

/// A machine on which ingestd is a service that watches `/srv/inbox` and moves what is done to `/srv/done`.
struct Service {
    machine: Machine,
    oracle: Oracle,
}

/// What the test's processors need beyond the unit, as the drop-in `write-folder` says it, and the [`Record::Fault`] of the
/// daemon before.
const FOLDERS: &str = r#"[Service]
ReadWritePaths=/srv/inbox /srv/done /srv/outside
ExecStartPre=/bin/sh -c "printf 'fault\\tstarted again\\0' >> /srv/outside/oracle"
"#;

impl Service {
    /// Installs and starts it. Its processor runs `then` (shell); `more` is added to the configuration.
    #[track_caller]
    fn installed(then: &str, more: &str) -> Self {
        let machine = Machine::boot();
        let oracle = Oracle::seen_as(&machine.outside(), Path::new("/srv/outside"), then);
        let configuration = format!(
            "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 2\n\
             retry = {{ base = \"20ms\", max = \"200ms\" }}\n\
             [watch.inbox]\npath = \"/srv/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\n\
             on_success = {{ move = \"/srv/done\" }}\n{more}",
            oracle.command
        );
        let service = Self { machine, oracle };
        service.install(&configuration);
        service
    }

    /// Follows the README line by line. Where it says *edit it*, this configuration comes in.
    #[track_caller]
    fn install(&self, configuration: &str) {
        let readme = include_str!("../../../README.md");
        let section = readme.split_once("## Install as a service").unwrap().1;
        let lines = section.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
        for line in lines.lines().filter(|line| !line.starts_with("cargo build")) {
            self.machine.script(&format!("cd /src; {line}"));
            if line.contains("edit it") {
                self.machine
                    .script("install -d -o ingestd -g ingestd /srv/inbox /srv/done; chmod 666 /srv/outside/oracle");
                self.configure("test", configuration);
                self.drop_in("folders", FOLDERS);
            }
        }
    }

    /// Writes `/etc/ingestd/conf.d/NAME.toml`.
    fn configure(&self, name: &str, text: &str) {
        fs::write(self.machine.path(&format!("/etc/ingestd/conf.d/{name}.toml")), text).unwrap();
    }

    /// Writes a drop-in for the unit and has systemd read it. It counts from the next start on.
    #[track_caller]
    fn drop_in(&self, name: &str, text: &str) {
        let folder = self.machine.path("/etc/systemd/system/ingestd.service.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.conf")), text).unwrap();
        self.systemctl(&["daemon-reload"]);
    }

    #[track_caller]
    fn systemctl(&self, arguments: &[&str]) -> String {
        self.machine.ok(&[&["systemctl"], arguments].concat())
    }

    /// A property of the unit as systemd sees it now.
    #[track_caller]
    fn property(&self, name: &str) -> String {
        self.systemctl(&["show", "ingestd", "--value", "--property", name]).trim().to_owned()
    }

    /// The daemon's process as the machine numbers it.
    fn main_pid(&self) -> u32 {
        self.property("MainPID").parse().unwrap()
    }

    /// How often systemd has started it anew by itself.
    fn restarts(&self) -> usize {
        self.property("NRestarts").parse().unwrap()
    }

    #[track_caller]
    fn wait_active(&self) {
        wait_until("the service is active", || self.property("ActiveState") == "active");
    }

    /// A command of ours, as the README says that people use it.
    #[track_caller]
    fn cli(&self, arguments: &[&str]) -> Output {
        self.machine.run(&[&["sudo", "-u", "ingestd", "ingestd"], arguments].concat())
    }

    #[track_caller]
    fn jobs(&self) -> Vec<Value> {
        let output = self.cli(&["list", "--json", "--limit", "1000000"]);
        assert_eq!(output.code, 0, "{output:?}");
        output.json_lines()
    }

    /// Lines of the service in the journal, as the journal has them.
    #[track_caller]
    fn journal(&self) -> Vec<Value> {
        let lines = self.machine.ok(&["journalctl", "-u", "ingestd", "-o", "json", "--no-pager"]);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Puts a file into the watched folder, whole, and on the disk before the ledger says so.
    fn put(&self, name: &str) {
        let inbox = self.machine.path("/srv/inbox");
        let mut file = fs::File::create(inbox.join(".put.part")).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        file.sync_all().unwrap();
        fs::rename(inbox.join(".put.part"), inbox.join(name)).unwrap();
        fs::File::open(&inbox).unwrap().sync_all().unwrap();
        self.oracle.has_put(&Path::new("/srv/inbox").join(name), name);
    }

    /// How many executions began.
    fn begun(&self) -> usize {
        self.oracle.records().iter().filter(|record| matches!(record, Record::Begin(_))).count()
    }

    #[track_caller]
    fn wait_drained(&self) {
        wait_until("the queue has drained", || {
            let status = self.cli(&["status", "--json"]);
            status.code == 0
                && contents(&self.machine.path("/srv/inbox")).is_empty()
                && ["pending", "running", "retrying"]
                    .iter()
                    .all(|state| status.json()["jobs"][*state].as_i64().unwrap_or(0) == 0)
        });
    }

    /// The oracle's judgement on the drained queue; each file is in the target, once and whole.
    #[track_caller]
    fn verdict(&self, repeats: usize) -> Figures {
        let figures = self.oracle.verdict_on(&self.jobs(), repeats);
        let mut expected = BTreeMap::new();
        for record in self.oracle.records() {
            if let Record::Put(sha256, path) = record {
                expected.insert(path.strip_prefix("/srv/inbox").unwrap().to_owned(), sha256);
            }
        }
        assert_eq!(contents(&self.machine.path("/srv/done")), expected, "what is in the target, beside what was put");
        figures
    }
}
