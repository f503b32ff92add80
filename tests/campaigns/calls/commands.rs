//! Commands that write by themselves, because no daemon runs.
//!
//! Exit 0 means that it is done, and kept; exit 1 that it is not, unless the words say that nobody can know. Asked again
//! without a fault, it is done.

use std::fs;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Here, How, Kind, Table, some_or_all, survey};
use super::journey::decent;
use crate::oracle::Oracle;
use crate::seed::Seed;
use crate::support::{Daemon, Place, long, text, wait_until};
use crate::tracer::{Call, Traced};

/// Faults that each errand meets in the quick form.
const QUICK: usize = 8;

/// What a command is asked to do.
#[derive(Clone, Copy, Debug)]
enum Errand {
    Add,
    Sync,
    Retry,
    Set,
    Backup,
}

/// An errand that was not done before, and how to see whether it is.
struct Task {
    errand: Errand,
    words: Vec<String>,
    subject: PathBuf,
}

struct Desk {
    place: Place,
    oracle: Oracle,
    here: Here,
    /// Jobs that failed, and may be retried.
    failed: Vec<i64>,
    tasks: usize,
}

impl Desk {
    /// A place without a daemon, where so many jobs have failed.
    fn new(failed: usize) -> Self {
        let place = Place::new();
        let gate = place.at("open");
        let oracle = Oracle::new(&place.at(""), &format!("[ -e {} ] || exit 65", gate.display()));
        place.configure(&format!("[pipeline.p]\nkind = \"exec\"\ncommand = {}\nconcurrency = 4\n", oracle.command));
        let files: Vec<PathBuf> = (0..failed).map(|number| place.at(format!("files/failed-{number}"))).collect();
        for file in &files {
            oracle.put(file, file.to_str().unwrap());
        }
        let words: Vec<&str> = ["add"].into_iter().chain(files.iter().map(|file| file.to_str().unwrap())).collect();
        place.ok(&words);
        place.exits(1, &["run", "--once"]);
        oracle.fault("a processor that refuses");
        fs::write(gate, "").unwrap();
        fs::create_dir(place.at("copies")).unwrap();
        let failed = place.jobs().iter().map(|job| job["id"].as_i64().unwrap()).collect();
        let here = Here { place: place.at("").canonicalize().unwrap(), far: "/nowhere".into() };
        Self { place, oracle, here, failed, tasks: 0 }
    }

    fn task(&mut self, errand: Errand) -> Task {
        self.tasks += 1;
        let number = self.tasks;
        let file = |folder: &str| self.place.at(format!("{folder}/{number}"));
        let (words, subject) = match errand {
            Errand::Add => (vec!["add".to_owned(), file("files").display().to_string()], file("files")),
            Errand::Sync => (vec!["sync".to_owned(), format!("list-{number}")], file("files")),
            Errand::Retry => {
                let id = self.failed.pop().expect("a job that failed").to_string();
                (vec!["retry".to_owned(), id.clone()], id.into())
            }
            Errand::Set => {
                (vec!["kv".into(), "set".into(), format!("k{number}"), "v".into()], format!("k{number}").into())
            }
            Errand::Backup => {
                (vec!["db".to_owned(), "backup".to_owned(), file("copies").display().to_string()], file("copies"))
            }
        };
        if matches!(errand, Errand::Add | Errand::Sync) {
            self.oracle.put(&subject, words.join(" "));
            fs::write(self.place.at(format!("list-{number}")), subject.to_str().unwrap()).unwrap();
        }
        Task { errand, words, subject }
    }

    fn is_done(&self, task: &Task) -> bool {
        let subject = task.subject.to_str().unwrap();
        match task.errand {
            Errand::Add | Errand::Sync => self.place.jobs().iter().any(|job| text(job, "path") == subject),
            Errand::Retry => text(&self.place.show(subject.parse().unwrap()), "state") == "pending",
            Errand::Set => self.place.cli(&["kv", "get", subject]).code == 0,
            Errand::Backup => task.subject.exists() && is_whole(&task.subject),
        }
    }

    fn words(task: &Task) -> Vec<&str> {
        task.words.iter().map(String::as_str).collect()
    }

    /// Does it under a fault, and again without; answers whether the fault was met, and the first one failed.
    #[track_caller]
    fn suffer(&mut self, errand: Errand, fault: &Fault) -> Option<bool> {
        let task = self.task(errand);
        let (output, counts) = Traced::finish(self.place.configured(&Self::words(&task)), fault.plan(&self.here));
        decent(&output);
        if output.code != 0 {
            eprintln!("  {}", output.stderr.trim_end());
        }
        let (done, unknown) = (self.is_done(&task), output.stderr.contains("unknown"));
        assert!(done || output.code != 0, "{:?} under {fault}: a false acknowledgement: {output:?}", task.words);
        // A list is handed over by several commits, and says where it stands.
        let refused = output.code != 0 && !unknown && !matches!(errand, Errand::Sync);
        assert!(!(done && refused), "{:?} under {fault}: refused, and done: {output:?}", task.words);
        if !done || matches!(errand, Errand::Sync) {
            if matches!(errand, Errand::Backup) {
                assert!(!task.subject.exists(), "half a backup under its name, after {fault}: {output:?}");
            }
            self.place.ok(&Self::words(&task));
            assert!(self.is_done(&task), "{:?} after {fault}: not done", task.words);
        }
        (counts.acted > 0).then_some(output.code != 0)
    }
}

/// Whether a file is a sound database of ours.
pub fn is_whole(file: &Path) -> bool {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let Ok(copy) = rusqlite::Connection::open_with_flags(file, flags) else { return false };
    let jobs = copy.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0));
    let sound = copy.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    jobs.is_ok() && sound.is_ok_and(|sound| sound == "ok")
}

#[test]
fn a_command_without_a_daemon_says_what_it_did() {
    if !Traced::is_possible() {
        return;
    }
    let seed = Seed::of("calls");
    let mut random = seed.random();
    let mut desk = Desk::new(if long() { 1_000 } else { 40 });
    let mut table = Table::default();
    for errand in [Errand::Add, Errand::Sync, Errand::Retry, Errand::Set, Errand::Backup] {
        let task = desk.task(errand);
        let (plan, found) = survey(&desk.here);
        let (output, _) = Traced::finish(desk.place.configured(&Desk::words(&task)), plan);
        assert_eq!(output.code, 0, "{output:?}");
        let found = found.lock().unwrap().clone();
        // Whatever chance brings: the last commit finds no room.
        let (call, kind, how) = (Call::Pwrite, Kind::Wal, How::Error(libc::ENOSPC));
        let certain = Fault { call, kind, how, lasting: true, number: found[&(call, kind)] };
        for fault in some_or_all(&found, QUICK, &mut random).chain([certain]) {
            if matches!(errand, Errand::Retry) && desk.failed.is_empty() {
                break;
            }
            eprintln!("{errand:?}: {fault}");
            if let Some(failed) = desk.suffer(errand, &fault) {
                table.note(&fault, failed);
            }
        }
    }
    for id in std::mem::take(&mut desk.failed) {
        desk.place.ok(&["retry", &id.to_string()]);
    }
    desk.place.ok(&["db", "check"]);
    let copies: Vec<_> = fs::read_dir(desk.place.at("copies")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(copies.iter().all(|copy| is_whole(copy)), "{copies:?}");
    let mut daemon = Daemon::start(&desk.place);
    wait_until("everything is processed", || desk.place.in_state("pending") + desk.place.in_state("running") == 0);
    let figures = desk.oracle.verdict(&desk.place, 1_000);
    assert_eq!(daemon.stop(), 0);
    let fates = table.fates();
    if long() {
        eprintln!("{table}");
    }
    seed.report(format_args!(
        "commands: {}; done {}, failed {}; {figures}",
        table.by_call(),
        fates.went_on,
        fates.left
    ));
}
