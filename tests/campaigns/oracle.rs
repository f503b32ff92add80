//! The oracle: what was promised and what was done, written down where nothing is broken.
//!
//! 1. The ledger is one file, outside of the disk, the process and the clock that a campaign breaks. It is only
//!    appended to, each record in one write: by the test when it put a file down or was told something, by the
//!    processors when they begin and when they have ended.
//! 2. What a command said is *ok* (it printed the job and exit 0), *failed* (it refused, and says that nothing was
//!    taken) or *unknown* (it died, or couldn't know). Only *ok* is a promise; after *unknown* both are fine.
//! 3. [`Oracle::verdict`] holds the ledger against the queue: nothing acknowledged is missing, the last version of
//!    each file was processed, no two executions of one file overlap, and repetitions stay within what the faults
//!    allow.
//!
//! A record is fields with tabs between them and a NUL at its end, the path last: names may hold everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::support::{Output, Place, count, finish, sha256_of, text};

/// The ledger and the judgement.
pub struct Oracle {
    ledger: PathBuf,
    /// The command of an `exec` pipeline that writes into the ledger, as TOML.
    pub command: String,
}

/// What a person was told about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// It is this job.
    Ok(i64),
    /// Refused: nothing was taken.
    Failed,
    /// Nobody could know.
    Unknown,
}

/// A record of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A file is whole, with this SHA-256.
    Put(String, PathBuf),
    /// What a command said of a file.
    Told(Word, PathBuf),
    /// Something was broken: executions that are open here were broken off.
    Fault(String),
    /// A processor began.
    Begin(Execution),
    /// A processor is about to exit with success.
    End(Execution),
}

/// One execution of the recording processor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Execution {
    /// Its process.
    pub pid: u32,
    /// `INGESTD_JOB`.
    pub job: i64,
    /// `INGESTD_ATTEMPT`.
    pub attempt: i64,
    /// The SHA-256 of what it read.
    pub sha256: String,
    /// The file.
    pub path: PathBuf,
}

/// What a campaign came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Files that were put down.
    pub files: usize,
    /// Jobs whose number was printed.
    pub acknowledged: usize,
    /// Executions that began.
    pub executions: usize,
    /// Executions of a version that had one before.
    pub repeated: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, acknowledged, executions, repeated } = self;
        write!(f, "{files} files, {acknowledged} acknowledged, {executions} executions, {repeated} repeated, lost 0")
    }
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.acknowledged += other.acknowledged;
        self.executions += other.executions;
        self.repeated += other.repeated;
    }
}

impl Oracle {
    /// A ledger in a folder that nothing breaks. The processor runs `then` (shell) between its two records.
    pub fn new(outside: &Path, then: &str) -> Self {
        Self::seen_as(outside, outside, then)
    }

    /// The same, where processors see the folder `outside` under another name: in a machine of their own.
    pub fn seen_as(outside: &Path, inside: &Path, then: &str) -> Self {
        let (ledger, script) = (outside.join("oracle"), outside.join("oracle.sh"));
        let lines = "sum=$(sha256sum < \"$1\") || exit 1\n\
             record() { printf '%s\\t%s\\t%s\\t%s\\t%s\\t%s\\0' \"$1\" $$ \"$INGESTD_JOB\" \"$INGESTD_ATTEMPT\" \
             \"${sum%% *}\" \"$2\" >> LEDGER; }\n\
             record begin \"$1\"\nTHEN\nrecord end \"$1\"\n";
        let lines = lines.replace("THEN", if then.is_empty() { ":" } else { then });
        fs::write(&script, lines.replace("LEDGER", inside.join("oracle").to_str().unwrap())).unwrap();
        File::create(&ledger).unwrap();
        let script = inside.join("oracle.sh");
        Self { ledger, command: format!("[\"/bin/sh\", \"{}\", \"{{path}}\"]", script.display()) }
    }

    /// Puts a file down for good: whole under its name, and on the disk before the ledger says so.
    pub fn put(&self, path: &Path, content: impl AsRef<[u8]>) {
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        let hidden = folder.join(".put.part");
        let mut file = File::create(&hidden).unwrap();
        file.write_all(content.as_ref()).unwrap();
        file.sync_all().unwrap();
        fs::rename(&hidden, path).unwrap();
        File::open(folder).unwrap().sync_all().unwrap();
        self.has_put(path, content);
    }

    /// Writes down that a file is whole, however it came there.
    pub fn has_put(&self, path: &Path, content: impl AsRef<[u8]>) {
        self.write(&["put", &sha256_of(content.as_ref())], path);
    }

    /// Runs `add` on a file that was put down, and writes down what it said.
    pub fn add(&self, place: &Place, path: &Path, arguments: &[&str]) -> Word {
        let mut command = place.configured(&["add"]);
        self.told(path, &finish(command.arg(path).args(arguments)))
    }

    /// Writes down what an `add` of one file said.
    pub fn told(&self, path: &Path, output: &Output) -> Word {
        let id = output.stdout.lines().find_map(|line| line.split_whitespace().find_map(|word| word.parse().ok()));
        let word = match (output.code, id) {
            (0, Some(id)) => Word::Ok(id),
            // 1 and 2 are refusals; whoever was killed, or isn't sure, says so otherwise.
            (1 | 2, None) if !output.stderr.contains("unknown") => Word::Failed,
            _ => Word::Unknown,
        };
        match word {
            Word::Ok(id) => self.write(&["ok", &id.to_string()], path),
            Word::Failed => self.write(&["failed", "0"], path),
            Word::Unknown => self.write(&["unknown", "0"], path),
        }
        word
    }

    /// Writes down that something was broken, and that what ran then is over. Call it once the fault is complete (a
    /// killed daemon is gone) and before anything is started again.
    pub fn fault(&self, what: &str) {
        self.write(&["fault"], Path::new(what));
    }

    /// Takes records that were written elsewhere. What is cut off at their end was never said.
    pub fn take(&self, records: &[u8]) {
        let complete = records.iter().rposition(|byte| *byte == 0).map_or(0, |end| end + 1);
        OpenOptions::new().append(true).open(&self.ledger).unwrap().write_all(&records[..complete]).unwrap();
    }

    fn write(&self, fields: &[&str], path: &Path) {
        let mut record = fields.join("\t").into_bytes();
        record.push(b'\t');
        record.extend(path.as_os_str().as_bytes());
        record.push(0);
        self.take(&record);
    }

    /// Everything that was written down, in order.
    pub fn records(&self) -> Vec<Record> {
        let bytes = fs::read(&self.ledger).unwrap();
        let complete = bytes.len() - bytes.rsplit(|byte| *byte == 0).next().unwrap_or_default().len();
        bytes[..complete].split(|byte| *byte == 0).filter(|record| !record.is_empty()).map(parse).collect()
    }

    /// How many executions ended.
    pub fn ended(&self) -> usize {
        self.records().iter().filter(|record| matches!(record, Record::End(_))).count()
    }

    /// Holds the ledger against the queue, whose faults have stopped and which has drained.
    ///
    /// `repeats` is how many executions the faults may have cost: for each, those that ran then.
    ///
    /// # Panics
    ///
    /// If the promise was broken; says where.
    #[track_caller]
    pub fn verdict(&self, place: &Place, repeats: usize) -> Figures {
        self.verdict_on(&place.jobs(), repeats)
    }

    /// The same for a queue with these jobs, wherever it is.
    #[track_caller]
    pub fn verdict_on(&self, jobs: &[serde_json::Value], repeats: usize) -> Figures {
        judge(&self.records(), jobs, repeats).unwrap_or_else(|broken| panic!("{broken}"))
    }

    /// Holds what `on_success = { move = … }` made against the ledger: the last version of each file that was put into
    /// `inbox` is in `target` once, whole, and nowhere else.
    ///
    /// # Panics
    ///
    /// If a file is missing, there twice, cut, or left under a private name.
    #[track_caller]
    pub fn moved(&self, inbox: &Path, target: &Path) {
        self.moved_as(inbox, &contents(inbox), &contents(target));
    }

    /// The same for folders of which it is said that these files are in them, with their SHA-256.
    #[track_caller]
    pub fn moved_as(&self, inbox: &Path, left: &BTreeMap<PathBuf, String>, found: &BTreeMap<PathBuf, String>) {
        let mut expected = BTreeMap::new();
        for record in self.records() {
            if let Record::Put(sha256, path) = record
                && let Ok(relative) = path.strip_prefix(inbox)
            {
                expected.insert(relative.to_owned(), sha256);
            }
        }
        assert_eq!(*found, expected, "what is where files are moved to, beside what was put into {}", inbox.display());
        assert_eq!(*left, BTreeMap::new(), "what is left in {}", inbox.display());
    }
}

/// The files below a folder with their SHA-256; those that leave it meanwhile don't count.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            match fs::read(&path) {
                Ok(content) => drop(found.insert(path.strip_prefix(folder).unwrap().to_owned(), sha256_of(&content))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
    found
}

fn parse(record: &[u8]) -> Record {
    let path_at = |fields: usize| {
        let mut parts = record.splitn(fields + 1, |byte| *byte == b'\t');
        let fields: Vec<String> =
            parts.by_ref().take(fields).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        (fields, PathBuf::from(std::ffi::OsString::from_vec(parts.next().unwrap_or_default().to_vec())))
    };
    let kind = record.split(|byte| *byte == b'\t').next().unwrap_or_default();
    match kind {
        b"put" => {
            let (fields, path) = path_at(2);
            Record::Put(fields[1].clone(), path)
        }
        b"ok" | b"failed" | b"unknown" => {
            let (fields, path) = path_at(2);
            let word = match kind {
                b"ok" => Word::Ok(fields[1].parse().unwrap()),
                b"failed" => Word::Failed,
                _ => Word::Unknown,
            };
            Record::Told(word, path)
        }
        b"begin" | b"end" => {
            let (fields, path) = path_at(5);
            let number = |at: usize| fields[at].parse().unwrap_or_else(|_| panic!("no number in {fields:?}"));
            let execution = Execution {
                pid: u32::try_from(number(1)).unwrap(),
                job: number(2),
                attempt: number(3),
                sha256: fields[4].clone(),
                path,
            };
            if kind == b"begin" { Record::Begin(execution) } else { Record::End(execution) }
        }
        b"fault" => Record::Fault(path_at(1).1.display().to_string()),
        _ => panic!("no record of a ledger: {}", String::from_utf8_lossy(record)),
    }
}

/// Judges a ledger and the jobs of a drained queue; `Err` says which promise was broken.
fn judge(records: &[Record], jobs: &[serde_json::Value], repeats: usize) -> Result<Figures, String> {
    let states: BTreeMap<i64, &str> = jobs.iter().map(|job| (count(job, "id"), text(job, "state"))).collect();
    for job in jobs {
        if !matches!(text(job, "state"), "completed" | "skipped") {
            return Err(format!("the queue has not drained, or a job failed: {job}"));
        }
    }
    let mut newest: BTreeMap<&Path, &str> = BTreeMap::new();
    let mut open: BTreeMap<&Path, &Execution> = BTreeMap::new();
    let mut begun: BTreeMap<(&Path, &str), usize> = BTreeMap::new();
    let mut ended: BTreeSet<i64> = BTreeSet::new();
    let mut done: BTreeSet<(&Path, &str)> = BTreeSet::new();
    let mut figures = Figures::default();
    for record in records {
        match record {
            Record::Put(sha256, path) => {
                figures.files += usize::from(newest.insert(path, sha256).is_none());
            }
            Record::Told(word, _) => figures.acknowledged += usize::from(matches!(word, Word::Ok(_))),
            Record::Fault(_) => open.clear(),
            Record::Begin(execution) => {
                figures.executions += 1;
                *begun.entry((&execution.path, &execution.sha256)).or_default() += 1;
                if let Some(other) = open.insert(&execution.path, execution) {
                    return Err(format!("two executions of one file at once: {other:?} and {execution:?}"));
                }
            }
            Record::End(execution) => {
                match open.get(&*execution.path) {
                    Some(other) if other.pid == execution.pid => drop(open.remove(&*execution.path)),
                    Some(other) => return Err(format!("{execution:?} went on beside {other:?}")),
                    None => {}
                }
                ended.insert(execution.job);
                done.insert((&execution.path, &execution.sha256));
            }
        }
    }
    figures.repeated = begun.values().map(|times| times - 1).sum();
    if let Some((path, sha256)) = newest.iter().find(|(path, sha256)| !done.contains(&(**path, **sha256))) {
        return Err(format!("lost: {} in its last version ({sha256}) was never processed", path.display()));
    }
    for record in records {
        if let Record::Told(Word::Ok(id), path) = record
            && !ended.contains(id)
            && states.get(id) != Some(&"skipped")
        {
            return Err(format!("a false acknowledgement: job {id} of {} was never processed", path.display()));
        }
    }
    // A later version that has the content of the one before is not executed; where its move was broken off, it ends as
    // completed and not as skipped.
    let nothing_new = |job: &serde_json::Value| {
        let path = Path::new(text(job, "path"));
        text(job, "op") == "modify" && newest.get(path).is_some_and(|sha256| done.contains(&(path, *sha256)))
    };
    let by_nobody = |job: &&serde_json::Value| {
        text(job, "state") == "completed" && !ended.contains(&count(job, "id")) && !nothing_new(job)
    };
    if let Some(job) = jobs.iter().find(by_nobody) {
        return Err(format!("job {} is completed and was never executed", count(job, "id")));
    }
    let Figures { repeated, executions, .. } = figures;
    if repeated > repeats {
        return Err(format!("{repeated} of {executions} executions were repetitions; {repeats} could be"));
    }
    Ok(figures)
}

/// The oracle itself: it notices each way of breaking the promise.
mod control {
    use serde_json::json;

    use super::*;

    fn execution(pid: u32, job: i64, sha256: &str) -> Execution {
        Execution { pid, job, attempt: 1, sha256: sha256.into(), path: "/a".into() }
    }

    fn put(sha256: &str) -> Record {
        Record::Put(sha256.into(), "/a".into())
    }

    fn broken(records: &[Record]) -> String {
        let job = |id: i64| json!({"id": id, "state": "completed"});
        judge(records, &[job(1)], 0).expect_err("the oracle sees nothing wrong")
    }

    #[test]
    fn a_faultless_ledger_is_accepted() {
        let run = execution(7, 1, "x");
        let records = [put("x"), Record::Told(Word::Ok(1), "/a".into()), Record::Begin(run.clone()), Record::End(run)];
        let figures = judge(&records, &[json!({"id": 1, "state": "completed"})], 0).unwrap();
        assert_eq!(figures, Figures { files: 1, acknowledged: 1, executions: 1, repeated: 0 });
    }

    #[test]
    fn a_lost_version_is_noticed() {
        let run = execution(7, 1, "x");
        let records = [put("x"), Record::Begin(run.clone()), Record::End(run), put("y")];
        assert!(broken(&records).starts_with("lost: /a"), "{}", broken(&records));
    }

    #[test]
    fn a_false_acknowledgement_is_noticed() {
        let run = execution(7, 1, "x");
        let records = [put("x"), Record::Told(Word::Ok(2), "/a".into()), Record::Begin(run.clone()), Record::End(run)];
        assert!(broken(&records).starts_with("a false acknowledgement: job 2"), "{}", broken(&records));
    }

    #[test]
    fn two_executions_at_once_and_one_more_than_there_may_be_are_noticed_but_for_what_a_fault_broke_off() {
        let (first, second) = (execution(7, 1, "x"), execution(8, 1, "x"));
        let records =
            [put("x"), Record::Begin(first.clone()), Record::Begin(second.clone()), Record::End(second.clone())];
        assert!(broken(&records).starts_with("two executions"), "{}", broken(&records));
        let outlived = [
            put("x"),
            Record::Begin(first.clone()),
            Record::Fault("kill".into()),
            Record::Begin(second.clone()),
            Record::End(first.clone()),
        ];
        assert!(broken(&outlived).contains("went on beside"), "{}", broken(&outlived));
        let fine = [
            put("x"),
            Record::Begin(first),
            Record::Fault("kill".into()),
            Record::Begin(second.clone()),
            Record::End(second),
        ];
        let jobs = [json!({"id": 1, "state": "completed"})];
        assert_eq!(judge(&fine, &jobs, 1).unwrap().repeated, 1);
        assert!(broken(&fine).starts_with("1 of 2 executions were repetitions"), "{}", broken(&fine));
    }

    #[test]
    fn a_job_that_waits_or_was_completed_by_nobody_is_noticed() {
        assert!(broken(&[]).contains("never executed"), "{}", broken(&[]));
        let waiting = judge(&[], &[json!({"id": 1, "state": "pending"})], 0).unwrap_err();
        assert!(waiting.contains("has not drained"), "{waiting}");
    }
}
