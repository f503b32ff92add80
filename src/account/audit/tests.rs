use std::fs;
use std::sync::Mutex;

use super::*;
use crate::account::count::Kind;
use crate::clock::{SystemClock, Timestamp};
use crate::config::{Watch, WatchEvents};
use crate::job::{FileIdentity, JobId, StateName};
use crate::store::{Ahead, Result, Succession, Taken};
use crate::watch::WaitsFor;

/// What is known, in memory.
#[derive(Default)]
struct Memory {
    accounts: Mutex<BTreeMap<PathBuf, Account>>,
    pages: Mutex<usize>,
}

#[async_trait]
impl Accounts for Memory {
    async fn accounts(&self, _: &str, _: &str, after: Option<PathBuf>, limit: usize) -> Result<Vec<Account>> {
        *self.pages.lock().unwrap() += 1;
        let accounts = self.accounts.lock().unwrap();
        let rest = accounts
            .values()
            .filter(|account| after.as_ref().is_none_or(|after| bytes(&account.relative) > bytes(after)));
        let mut page: Vec<Account> = rest.cloned().collect();
        page.sort_by(|a, b| bytes(&a.relative).cmp(bytes(&b.relative)));
        page.truncate(limit);
        Ok(page)
    }

    async fn accounts_of(&self, _: &str, _: &str, names: Vec<PathBuf>) -> Result<Vec<Option<Account>>> {
        let accounts = self.accounts.lock().unwrap();
        Ok(names.iter().map(|name| accounts.get(name).cloned()).collect())
    }

    async fn added(&self, _: &Path) -> Result<Option<JobId>> {
        Ok(None)
    }

    async fn succession(&self, _: JobId) -> Result<Succession> {
        Ok(Succession::Newest)
    }

    async fn ahead(&self, _: JobId, _: Duration, _: Timestamp) -> Result<Ahead> {
        Ok(Ahead::default())
    }

    async fn due_suspect(&self, _: Vec<String>, _: Timestamp) -> Result<Option<JobId>> {
        Ok(None)
    }
}

fn bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}

struct Place {
    folder: tempfile::TempDir,
    memory: Arc<Memory>,
    circumstances: Circumstances,
    wait: Duration,
}

impl Place {
    fn new() -> Self {
        let circumstances = Circumstances {
            now: Timestamp::default(),
            taking: Taking::Yes,
            events: WatchEvents { add: true, modify: true, delete: true },
            patience: Duration::ZERO,
            min_age: Duration::ZERO,
            held_back: false,
        };
        Self {
            folder: tempfile::tempdir().unwrap(),
            memory: Arc::default(),
            circumstances,
            wait: Duration::from_millis(300),
        }
    }

    fn put(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        path
    }

    fn know(&self, name: &str) {
        let path = self.folder.path().join(name);
        let identity = fs::metadata(path).map_or_else(|_| FileIdentity::default(), |meta| FileIdentity::of(&meta));
        let taken = Taken { version: 1, job: JobId(1), state: Some(StateName::Completed), reason: None };
        let relative = PathBuf::from(name);
        let account = Account {
            relative: relative.clone(),
            identity,
            presence: Presence::Present,
            version: 1,
            taken: Some(taken),
        };
        self.memory.accounts.lock().unwrap().insert(relative, account);
    }

    async fn audit(&self, daemon: Option<&mut dyn Daemon>) -> std::result::Result<Counts, AuditError> {
        let watch = Watch::of(self.folder.path().join("in"), "p".to_owned());
        let audit = Audit {
            watch: "w".to_owned(),
            pipeline: "p".to_owned(),
            tree: Arc::new(Tree::new(&watch, "/nonexistent".into()).unwrap()),
            circumstances: self.circumstances.clone(),
            accounts: self.memory.clone(),
            daemon,
            clock: Arc::new(SystemClock),
            wait: self.wait,
            limit: 100,
        };
        audit.run().await
    }
}

fn names(counts: &Counts) -> Vec<(String, Lost)> {
    counts.unexplained.iter().map(|(name, lost)| (name.display().to_string(), *lost)).collect()
}

/// A daemon that takes what it is asked about for the third time.
struct Slow {
    asked: usize,
    memory: Arc<Memory>,
    root: PathBuf,
}

#[async_trait]
impl Daemon for Slow {
    async fn files(&mut self, _: &str, names: &[PathBuf]) -> Option<Vec<LiveFile>> {
        self.asked += 1;
        if self.asked == 3 {
            for name in names {
                let identity = FileIdentity::of(&fs::metadata(self.root.join(name)).unwrap());
                let account =
                    Account { relative: name.clone(), identity, presence: Presence::Present, version: 1, taken: None };
                self.memory.accounts.lock().unwrap().insert(name.clone(), account);
            }
        }
        Some(vec![LiveFile::default(); names.len()])
    }
}

#[tokio::test]
async fn disk_and_database_are_joined_whatever_is_on_which_side() {
    let place = Place::new();
    let mut expected = 0;
    for n in 0..50 {
        for name in [format!("in/a{n}/x"), format!("in/a{n}.txt"), format!("in/a{n}-b"), format!("in/a{n}/x.tmp")] {
            place.put(&name);
        }
        expected += 4;
    }
    let inside = |name: &str| name.strip_prefix("in/").map(str::to_owned).unwrap();
    let memory = |name: &str| {
        let path = place.folder.path().join(name);
        let identity = FileIdentity::of(&fs::metadata(path).unwrap());
        let taken = Taken { version: 1, job: JobId(1), state: Some(StateName::Completed), reason: None };
        let relative = PathBuf::from(inside(name));
        let presence = Presence::Present;
        let account = Account { relative: relative.clone(), identity, presence, version: 1, taken: Some(taken) };
        place.memory.accounts.lock().unwrap().insert(relative, account);
    };
    for n in 0..50 {
        memory(&format!("in/a{n}/x"));
        memory(&format!("in/a{n}.txt"));
        // Known from the time before a rule left it out.
        memory(&format!("in/a{n}/x.tmp"));
    }
    place.know("a7/gone");
    place.know("zz");
    let counts = place.audit(None).await.unwrap();
    assert_eq!((counts.files, counts.of(Kind::Completed), counts.of(Kind::Excluded)), (expected, 100, 50));
    assert_eq!(counts.of(Kind::Unexplained), 52);
    let lost = names(&counts);
    assert!(lost.contains(&("a7/gone".to_owned(), Lost::Delete)) && lost.contains(&("zz".to_owned(), Lost::Delete)));
    assert_eq!(lost.iter().filter(|(name, lost)| name.ends_with("-b") && *lost == Lost::New).count(), 50);
}

#[tokio::test]
async fn what_the_daemon_takes_in_time_was_never_lost() {
    let place = Place::new();
    place.put("in/new");
    let (memory, root) = (place.memory.clone(), place.folder.path().join("in"));
    let counts = place.audit(Some(&mut Slow { asked: 0, memory, root })).await.unwrap();
    assert_eq!((counts.of(Kind::Unexplained), counts.of(Kind::Known), counts.files), (0, 1, 1));
    place.put("in/newer");
    let (memory, root) = (place.memory.clone(), place.folder.path().join("in"));
    let counts = place.audit(Some(&mut Slow { asked: 3, memory, root })).await.unwrap();
    assert_eq!(names(&counts), [("newer".to_owned(), Lost::New)], "one that never takes it");
}

/// A daemon that says of everything that somebody writes it.
struct Writing;

#[async_trait]
impl Daemon for Writing {
    async fn files(&mut self, _: &str, names: &[PathBuf]) -> Option<Vec<LiveFile>> {
        Some(vec![LiveFile { waits_for: Some(WaitsFor::Close), ..LiveFile::default() }; names.len()])
    }
}

#[tokio::test]
async fn the_daemon_is_asked_before_anything_is_called_unexplained() {
    let place = Place::new();
    place.put("in/a");
    let counts = place.audit(Some(&mut Writing)).await.unwrap();
    assert_eq!((counts.of(Kind::Open), counts.of(Kind::Unexplained)), (1, 0));
}

#[tokio::test]
async fn where_nothing_can_change_it_is_looked_at_once() {
    let mut place = Place::new();
    place.circumstances.taking = Taking::NoDaemon;
    place.wait = wait(&place.circumstances);
    for n in 0..30 {
        place.put(&format!("in/{n}"));
    }
    let (memory, root) = (place.memory.clone(), place.folder.path().join("in"));
    let mut daemon = Slow { asked: 5, memory, root };
    assert_eq!(place.audit(Some(&mut daemon)).await.unwrap().of(Kind::Unexplained), 30);
    assert_eq!(daemon.asked, 6);
    place.circumstances.taking = Taking::Yes;
    assert_eq!(wait(&place.circumstances), GRACE);
}

#[tokio::test]
async fn a_missing_root_is_no_account() {
    let place = Place::new();
    assert!(matches!(place.audit(None).await, Err(AuditError::NoRoot(_))));
}
