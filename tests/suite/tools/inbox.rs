//! The watched folder of these tests, and what has to hold of its ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::*;

/// A daemon that records what it is given from a watched folder.
pub struct Inbox {
    daemon: Daemon,
    ledger: Ledger,
    place: Place,
}

impl Inbox {
    /// One whose files are the daemon's own, so that it can tell who has one open.
    pub fn new(settle: &str) -> Self {
        Self::with(settle, "")
    }

    /// The same, with more keys of the watch.
    pub fn with(settle: &str, keys: &str) -> Self {
        let (place, ledger) = prepared(settle, keys);
        Self { daemon: Daemon::start(&place), ledger, place }
    }

    /// One whose files are somebody else's, so that only quiet time tells; `None` where that is not possible.
    pub fn of_a_stranger(settle: &str) -> Option<Self> {
        let (place, ledger) = prepared(settle, "");
        nobody_can_run(&place).then(|| Self { daemon: daemon_as_nobody(&place), ledger, place })
    }

    /// Both, one after the other.
    pub fn both(settle: &str) -> impl Iterator<Item = Self> {
        let settle = settle.to_owned();
        [false, true]
            .into_iter()
            .filter_map(move |strange| if strange { Self::of_a_stranger(&settle) } else { Some(Self::new(&settle)) })
    }

    /// A path in the watched folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.place.inbox().join(name)
    }

    /// A path outside it, on the same filesystem.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.place.at(name)
    }

    /// Waits until the newest content recorded under this name is this one.
    #[track_caller]
    pub fn recorded(&self, name: &str, content: &[u8]) {
        let expected = sha256_of(content);
        wait_until(&format!("{name} is recorded as it is now"), || {
            self.ledger.of(name).last().is_some_and(|entry| entry.sha256 == expected)
        });
    }

    /// Waits until these contents are recorded under these names, and nothing is on its way any more; then there must
    /// be one record for each and no other.
    #[track_caller]
    pub fn holds(&self, expected: &[(&str, &[u8])]) {
        // Of several under one name, the last is the one to wait for: it may have come before this is asked.
        let last: BTreeMap<&str, &[u8]> = expected.iter().copied().collect();
        for (name, content) in last {
            self.recorded(name, content);
        }
        self.quiet();
        let whole = expected.iter().map(|(name, content)| {
            let (path, size) = (self.at(name).to_str().unwrap().to_owned(), content.len() as u64);
            ((path, sha256_of(content), size, format!("blake3:{}", blake3::hash(content).to_hex())), 1)
        });
        let mut found: BTreeMap<_, usize> = BTreeMap::new();
        for entry in self.ledger.entries() {
            *found.entry((entry.path, entry.sha256, entry.size, entry.digest)).or_default() += 1;
        }
        let whole: BTreeMap<_, usize> = whole.collect();
        assert_eq!(found, whole, "\n{}", self.daemon.log());
    }

    /// Waits until the last of these contents is recorded under this name; what was recorded before must be among the
    /// others, in their order and each at most once. Nothing else may be recorded, under any name.
    #[track_caller]
    pub fn passed(&self, name: &str, contents: &[&[u8]]) {
        self.recorded(name, contents.last().unwrap());
        self.quiet();
        let mut allowed = contents.iter().map(|content| sha256_of(content));
        for entry in self.ledger.entries() {
            assert!(entry.path.ends_with(&format!("/{name}")), "{entry:?}");
            assert!(allowed.any(|sum| sum == entry.sha256), "half-written, or once too often: {entry:?}");
        }
    }

    /// How many records there are under this name.
    pub fn times(&self, name: &str) -> usize {
        self.ledger.of(name).len()
    }

    /// Looks at everything once more, and waits until nothing is on its way.
    #[track_caller]
    pub fn quiet(&self) {
        self.place.ok(&["watch", "scan", "inbox"]);
        wait_until("nothing is on its way", || {
            let status = self.place.status();
            let waits = |state: &str| status["jobs"][state].as_i64().unwrap_or(0) > 0;
            let settling = status["watches"]["inbox"]["settling"].as_i64() != Some(0);
            !settling && !["pending", "running", "retrying"].into_iter().any(waits)
        });
    }
}

fn prepared(settle: &str, keys: &str) -> (Place, Ledger) {
    let place = Place::new();
    let ledger = Ledger::new(&place, "");
    place.configure(&format!(
        "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 2\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"{settle}\"\n{keys}\n",
        ledger.command
    ));
    (place, ledger)
}

/// Bytes that do not compress and of which no part looks like another; the same for the same number.
pub fn noise(number: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut bytes);
    bytes
}
