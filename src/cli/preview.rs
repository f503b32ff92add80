//! What a watch would take, for `watch test`: a walk of its own that tells every entry, beside what is known.
//!
//! The walk hands over batches; those files in them that pass the rules are looked up in the database together, and
//! those that are new or changed are asked who writes them. Nothing is held but a batch.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::failure::Failure;
use crate::clock::Timestamp;
use crate::config::Watch;
use crate::job::FileIdentity;
use crate::os::Writers;
use crate::store::{Account, Accounts, Presence};
use crate::watch::Rule;
use crate::watch::batches::Batches;
use crate::watch::scan::{self, Spotted, Visit};
use crate::watch::settle::young_for;
use crate::watch::tree::{Look, Tree};

/// What would become of an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It is new, and would be taken.
    New,
    /// It looks different than it did, and would be taken if its content is another one.
    Changed,
    /// It is known as it is.
    Known,
    /// It would be taken later, when this has come.
    Waits(Wait),
    /// It is none of the watch's business, for this reason.
    LeftOut(String),
}

/// What a file waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wait {
    /// Its companion.
    Companion,
    /// Its age, for so long.
    Age(Duration),
    /// Its writer to close it.
    Writer,
}

/// An entry under a watch.
#[derive(Debug)]
pub struct Previewed {
    /// Relative to the root.
    pub relative: PathBuf,
    /// What would become of it.
    pub fate: Fate,
}

/// Whose preview it is.
pub struct Preview<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its definition.
    pub watch: &'a Watch,
    /// The folder of the database.
    pub state_directory: PathBuf,
    /// What is known; `None`: there is no database yet.
    pub accounts: Option<Arc<dyn Accounts>>,
    /// The time.
    pub now: Timestamp,
}

impl Preview<'_> {
    /// Walks the folder without taking anything, in the order of the paths; stops when `each` says `false`.
    pub async fn run(self, each: &mut dyn FnMut(Previewed) -> Result<bool, Failure>) -> Result<(), Failure> {
        let root = self.watch.path.display();
        let missing = |error: io::Error| Failure::failed(format!("the folder {root} can't be read: {error}"));
        let tree = Tree::new(self.watch, self.state_directory.clone());
        let tree = Arc::new(tree.map_err(|error| Failure::usage(error.to_string()))?);
        let (sender, mut batches) = mpsc::channel(2);
        let walked = tree.clone();
        let walk = tokio::task::spawn_blocking(move || Collector::walk(&walked, sender));
        let mut wanted = true;
        while let Some(batch) = batches.recv().await.filter(|_| wanted) {
            for previewed in self.judge(&tree, batch).await? {
                wanted = wanted && each(previewed)?;
            }
        }
        drop(batches);
        walk.await.map_err(io::Error::other).flatten().map_err(missing)
    }

    async fn judge(&self, tree: &Arc<Tree>, batch: Vec<Met>) -> Result<Vec<Previewed>, Failure> {
        let names: Vec<PathBuf> = batch.iter().filter_map(Met::file).collect();
        let known = match &self.accounts {
            Some(accounts) => accounts.accounts_of(self.name, &self.watch.pipeline, names).await?,
            None => vec![None; names.len()],
        };
        let mut known = known.into_iter();
        let told: Vec<Previewed> = batch
            .into_iter()
            .map(|met| {
                let fate = match met.seen {
                    Seen::File(identity) => self.fate(&identity, known.next().flatten()),
                    Seen::Other(fate) => fate,
                };
                Previewed { relative: met.relative, fate }
            })
            .collect();
        let tree = tree.clone();
        // Whoever writes a file is asked of those alone that would be taken.
        let ask = move || told.into_iter().map(|previewed| ask_writers(&tree, previewed)).collect();
        tokio::task::spawn_blocking(ask).await.map_err(|error| Failure::failed(error.to_string()))
    }

    fn fate(&self, identity: &FileIdentity, known: Option<Account>) -> Fate {
        let known = known.filter(|account| account.presence == Presence::Present);
        let events = self.watch.events;
        let fate = match known {
            Some(account) if account.identity == *identity => return Fate::Known,
            Some(_) if !events.modify => return Fate::LeftOut("it changed, and `events` has no modify".to_owned()),
            None if !events.add => return Fate::LeftOut("new files are only noted: `events` has no add".to_owned()),
            Some(_) => Fate::Changed,
            None => Fate::New,
        };
        let young = young_for(self.watch.min_age, identity, self.now);
        if young.is_zero() { fate } else { Fate::Waits(Wait::Age(young)) }
    }
}

fn ask_writers(tree: &Tree, previewed: Previewed) -> Previewed {
    let Previewed { relative, mut fate } = previewed;
    if matches!(fate, Fate::New | Fate::Changed)
        && let Ok(Look::File(_, Writers::Some)) = tree.examine(&relative)
    {
        fate = Fate::Waits(Wait::Writer);
    }
    Previewed { relative, fate }
}

/// An entry as the walk met it.
struct Met {
    relative: PathBuf,
    seen: Seen,
}

enum Seen {
    File(FileIdentity),
    Other(Fate),
}

impl Met {
    fn file(&self) -> Option<PathBuf> {
        matches!(self.seen, Seen::File(_)).then(|| self.relative.clone())
    }
}

struct Collector(Batches<Met>);

impl Collector {
    fn walk(tree: &Tree, batches: mpsc::Sender<Vec<Met>>) -> io::Result<()> {
        let mut collector = Self(Batches::new(batches));
        scan::walk(tree, &[PathBuf::new()], &mut collector)?;
        collector.0.finish();
        Ok(())
    }

    fn meet(&mut self, relative: &Path, seen: Seen) {
        self.0.push(Met { relative: relative.to_owned(), seen });
    }
}

impl Visit for Collector {
    fn file(&mut self, file: &Spotted<'_>) {
        self.meet(file.relative, Seen::File(file.identity));
    }

    fn excluded(&mut self, relative: &Path, rule: &Rule) {
        let fate = match rule {
            Rule::NotReady(_) => Fate::Waits(Wait::Companion),
            rule => Fate::LeftOut(rule.to_string()),
        };
        self.meet(relative, Seen::Other(fate));
    }

    fn unreadable(&mut self, relative: &Path, error: &io::Error) {
        self.meet(relative, Seen::Other(Fate::LeftOut(format!("it can't be read: {error}"))));
    }

    fn wanted(&self) -> bool {
        self.0.wanted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn previewed(watch: &Watch, now: Timestamp, limit: usize) -> Vec<(String, Fate)> {
        let state_directory = PathBuf::from("/nonexistent");
        let preview = Preview { name: "w", watch, state_directory, accounts: None, now };
        let mut found = Vec::new();
        let mut each = |file: Previewed| {
            found.push((file.relative.to_string_lossy().into_owned(), file.fate));
            Ok(found.len() < limit)
        };
        preview.run(&mut each).await.unwrap();
        found
    }

    fn folder(names: &[&str]) -> (tempfile::TempDir, Watch) {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "content").unwrap();
        }
        let watch = Watch::of(folder.path().to_path_buf(), "p".to_owned());
        (folder, watch)
    }

    #[tokio::test]
    async fn every_entry_is_told_with_its_rule() {
        let (_folder, mut watch) = folder(&["a.pdf", "b.txt", ".hidden", "sub/c.pdf", "sub/deep/d.pdf"]);
        watch.include = vec!["**/*.pdf".to_owned()];
        watch.max_depth = Some(2);
        let found = previewed(&watch, Timestamp::from_millis(0), 9).await;
        let left_out = |rule: Rule| Fate::LeftOut(rule.to_string());
        let expected = [
            (".hidden", left_out(Rule::Exclude("**/.*".to_owned()))),
            ("a.pdf", Fate::New),
            ("b.txt", left_out(Rule::NotIncluded)),
            ("sub/c.pdf", Fate::New),
            ("sub/deep", left_out(Rule::TooDeep(2))),
        ];
        assert_eq!(found, expected.map(|(name, fate)| (name.to_owned(), fate)));
        assert_eq!(previewed(&watch, Timestamp::from_millis(0), 2).await.len(), 2, "it ends when it is told to");
    }

    #[tokio::test]
    async fn what_a_file_waits_for_is_told() {
        let (root, mut watch) = folder(&["a", "b", "b.done", "open"]);
        watch.ready_suffix = ".done".to_owned();
        let fates = previewed(&watch, Timestamp::from_millis(0), 9).await;
        assert_eq!(fates[0], ("a".to_owned(), Fate::Waits(Wait::Companion)));
        assert_eq!(fates[1], ("b".to_owned(), Fate::New));
        watch.ready_suffix = String::new();
        watch.include = vec!["b".to_owned(), "open".to_owned()];
        watch.min_age = Duration::from_secs(60);
        let modified = std::fs::metadata(root.path().join("b")).unwrap().modified().unwrap();
        let modified = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = |after: u64| {
            Timestamp::from_millis(i64::try_from(modified.as_millis()).unwrap() + 1).plus(Duration::from_secs(after))
        };
        let fates = previewed(&watch, now(30), 9).await;
        assert!(matches!(fates[1].1, Fate::Waits(Wait::Age(left)) if left.as_secs() == 29), "{fates:?}");
        let writer = std::fs::File::options().append(true).open(root.path().join("open")).unwrap();
        let fates = previewed(&watch, now(61), 9).await;
        assert_eq!(fates[1], ("b".to_owned(), Fate::New));
        assert_eq!(fates.last().unwrap().1, Fate::Waits(Wait::Writer));
        drop(writer);
    }
}
