//! What every command works with: its flags, the configuration, the database, and the daemon where one runs.
//!
//! Reads open the database read-only, whether a daemon runs or not. Writes go through a [`Link`]: the daemon's
//! socket, or the database itself under the shared lock. Between the two lies a short time in which a daemon holds
//! the lock and does not listen yet, or no longer; it is waited out.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Global;
use super::connect;
use super::failure::Failure;
use super::screen::Screen;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{self, Config, Database, Loaded, Sources};
use crate::control::{Client, Execution, Hands, Lock, LockError, Request, Response, Stores, execute, over};
use crate::durable;
use crate::store::sqlite::{self, OpenMode, SqliteStore};

/// How long a daemon may hold the lock without listening: it recovers, or it drains.
const TRANSITION: Duration = Duration::from_secs(10);

/// See the module.
pub struct Context {
    /// The flags that every command takes.
    pub global: Global,
    /// Where results go.
    pub screen: Screen,
    clock: Arc<dyn Clock>,
    loaded: OnceCell<Loaded>,
    opened: RefCell<Vec<Opened>>,
}

/// A database that this command opened.
struct Opened {
    store: Arc<SqliteStore>,
    writer: connect::Writer,
    /// Held until the database is closed.
    _lock: Option<Lock>,
}

/// The way to whoever may write.
pub enum Link {
    /// A daemon runs.
    Daemon(Client),
    /// None runs: we write ourselves, under the lock that keeps one from starting meanwhile.
    Direct(Box<Hands>),
}

impl Context {
    /// A context on standard output and the machine's clock.
    pub fn new(global: Global) -> Self {
        let clock = Arc::new(SystemClock);
        Self { global, screen: Screen::stdout(clock.now()), clock, loaded: OnceCell::new(), opened: RefCell::default() }
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Where the configuration comes from.
    pub fn sources(&self) -> Sources {
        connect::sources(self.global.config.as_deref(), self.global.database.as_deref())
    }

    /// The configuration with its origins, read once.
    pub fn loaded(&self) -> Result<&Loaded, Failure> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = connect::load(&self.sources())?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    /// The configuration.
    pub fn config(&self) -> Result<&Config, Failure> {
        self.loaded().map(|loaded| &loaded.config)
    }

    /// Opens the database to read it.
    pub async fn read(&self) -> Result<Stores, Failure> {
        self.complete_replacement()?;
        reachable(&self.config()?.database.path)?;
        self.open(OpenMode::ReadOnly, None).await
    }

    /// The same, or `None` where there is no database yet.
    pub async fn read_if_there(&self) -> Result<Option<Stores>, Failure> {
        self.complete_replacement()?;
        match reachable(&self.config()?.database.path) {
            Err(Unreachable::Missing(_)) => Ok(None),
            other => {
                other?;
                self.open(OpenMode::ReadOnly, None).await.map(Some)
            }
        }
    }

    /// What is half replaced is not opened: there the old database is without its log.
    fn complete_replacement(&self) -> Result<(), Failure> {
        let database = &self.config()?.database;
        Ok(Lock::complete_replacement(&database.path, database.mode)?)
    }

    /// Makes a new database, under a lock that is ours already.
    pub async fn create(&self, lock: Lock) -> Result<Stores, Failure> {
        self.open(OpenMode::ReadWrite, Some(lock)).await
    }

    async fn open(&self, mode: OpenMode, lock: Option<Lock>) -> Result<Stores, Failure> {
        let (stores, store, writer) = connect::open(self.config()?, mode, self.clock()).await?;
        self.opened.borrow_mut().push(Opened { store, writer, _lock: lock });
        Ok(stores)
    }

    /// Closes what was opened. Everything that was answered is committed already, so what goes wrong here loses
    /// nothing.
    pub async fn close(&self) {
        let opened = self.opened.take();
        for mut opened in opened {
            opened.store.close().await;
            while opened.writer.join_next().await.is_some() {}
        }
    }

    /// A connection to the daemon; `None` where none runs.
    pub async fn daemon(&self) -> Result<Option<Client>, Failure> {
        Ok(Client::connect(&self.config()?.database.path).await?)
    }

    /// The way to whoever may write.
    pub async fn link(&self) -> Result<Link, Failure> {
        let config = self.config()?;
        let database = &config.database;
        let deadline = Instant::now() + TRANSITION;
        loop {
            if let Some(client) = self.daemon().await? {
                return Ok(Link::Daemon(client));
            }
            match reachable(&database.path) {
                // What is written first makes the database: a watch, say, before the first start.
                Err(Unreachable::Missing(_)) => make_folder(database)?,
                other => other?,
            }
            self.complete_replacement()?;
            match Lock::shared(&database.path, database.mode) {
                Ok(lock) => {
                    let stores = self.open(OpenMode::ReadWrite, Some(lock)).await?;
                    let config = watch::channel(Arc::new(config.clone())).1;
                    let hands = Hands { config, clock: self.clock(), stores, live: None };
                    return Ok(Link::Direct(Box::new(hands)));
                }
                Err(LockError::Held { .. }) if Instant::now() < deadline => sleep(Duration::from_millis(50)).await,
                Err(LockError::Held { pid }) => return Err(silent(pid)),
                Err(LockError::Io { error, .. }) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(not_allowed(&database.path, "write"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks the daemon for an execution, and no one else: without a daemon the execution is over. Reads no configuration
    /// where the database is named, because processors call often.
    pub async fn ask_daemon<T: DeserializeOwned>(&self, request: Request, execution: Execution) -> Result<T, Failure> {
        let path = match &self.global.database {
            Some(url) => config::database_file(url).map_err(|why| Failure::usage(format!("`{url}` {why}")))?,
            None => self.config()?.database.path.clone(),
        };
        let mut client = Client::connect(&path).await?.ok_or_else(|| over(execution))?;
        Ok(serde_json::from_value(client.call(&request).await?)?)
    }

    /// Asks once, and reads the answer.
    pub async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        self.link().await?.ask(request).await
    }
}

impl Link {
    /// Whether the newest question is without an answer because the connection broke.
    pub const fn is_lost(&self) -> bool {
        matches!(self, Self::Daemon(client) if client.is_lost())
    }

    /// Asks, and reads the answer.
    pub async fn ask<T: DeserializeOwned>(&mut self, request: Request) -> Result<T, Failure> {
        let value = match self {
            Self::Daemon(client) => client.call(&request).await?,
            Self::Direct(hands) => match execute(request, hands).await {
                Response::Ok(value) => value,
                Response::Err { code, message } => return Err(Failure { code: code.exit(), message }),
            },
        };
        Ok(serde_json::from_value(value)?)
    }
}

fn silent(pid: Option<u32>) -> Failure {
    let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    Failure::held(format!(
        "{who} holds the database and does not listen; if it is a daemon that starts or stops, try again in a moment"
    ))
}

/// Says in words why a database can't even be looked at. Only ever `stat`: opening and closing the file itself
/// would drop SQLite's locks.
pub fn reachable(database: &Path) -> Result<(), Unreachable> {
    let path = database.display();
    let other = |message: String| Err(Unreachable::Otherwise(Failure::failed(message)));
    let denied = || Err(Unreachable::Otherwise(not_allowed(database, "read")));
    match std::fs::metadata(database) {
        Ok(meta) if meta.is_file() => match rustix::fs::access(database, rustix::fs::Access::READ_OK) {
            Ok(()) => Ok(()),
            Err(_) => denied(),
        },
        Ok(_) => other(format!(
            "{path} is no file; name the database's file with --database sqlite:///PATH, or bring back a backup with \
             `ingestd db restore --newest`, which puts aside what is there"
        )),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            sqlite::refuse_emptied(database).map_err(|error| Unreachable::Otherwise(error.into()))?;
            Err(Unreachable::Missing(Failure::failed(format!(
                "there is no database at {path} yet; `ingestd run` creates it (another one is named with --database)"
            ))))
        }
        Err(error) => other(format!("{path}: {error}")),
    }
}

/// Why a database can't be opened.
#[derive(Debug)]
pub enum Unreachable {
    /// There is none.
    Missing(Failure),
    /// We may not, or it is none.
    Otherwise(Failure),
}

impl From<Unreachable> for Failure {
    fn from(unreachable: Unreachable) -> Self {
        match unreachable {
            Unreachable::Missing(failure) | Unreachable::Otherwise(failure) => failure,
        }
    }
}

/// Makes the folder of a database that is not there yet, for those who may read the database.
pub fn make_folder(database: &Database) -> Result<(), Failure> {
    let folder = durable::parent(&database.path);
    durable::make_folder(folder, database.mode)
        .map_err(|error| Failure::failed(format!("the folder {} can't be made: {error}", folder.display())))
}

/// Says who may, where we may not.
fn not_allowed(database: &Path, what: &str) -> Failure {
    let owner = database
        .ancestors()
        .find_map(|path| std::fs::metadata(path).ok())
        .map_or_else(|| "root".to_owned(), |meta| user_name(meta.uid()));
    let path = database.display();
    Failure::failed(format!(
        "you may not {what} the database {path}, which belongs to {owner}; try: sudo -u {owner} ingestd …"
    ))
}

/// A user's name, or the number where there is none.
fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("#{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_database_tells_what_creates_one() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Failure::from(reachable(&folder.path().join("none.db")).unwrap_err());
        assert_eq!(failure.code, 1);
        assert!(failure.message.contains("`ingestd run` creates it"), "{}", failure.message);
    }

    #[test]
    fn owners_are_named() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_001), "#4000000001");
    }
}
