//! What every command works with: its flags, the configuration, the database, and the daemon where one runs.
//!
//! Reads open the database read-only, whether a daemon runs or not. Writes go through a [`Link`]: the daemon's
//! socket, or the database itself under the shared lock. Between the two lies a short time in which a daemon holds
//! the lock and does not listen yet, or no longer; it is waited out.

use std::cell::OnceCell;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::connect::{self, Loaded, OpenMode};
use super::failure::Failure;
use super::screen::Screen;
use super::{Global, failure};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Config;
use crate::control::{Client, Hands, Lock, LockError, Request, Response, Stores, execute};

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
}

/// The way to whoever may write.
pub enum Link {
    /// A daemon runs.
    Daemon(Client),
    /// None runs: we write ourselves for as long as this lives.
    Direct {
        /// What [`execute`] works with.
        hands: Box<Hands>,
        /// Keeps a daemon from starting meanwhile.
        _lock: Lock,
    },
}

impl Context {
    /// A context on standard output and the machine's clock.
    pub fn new(global: Global) -> Self {
        let clock = Arc::new(SystemClock);
        Self { global, screen: Screen::stdout(clock.now()), clock, loaded: OnceCell::new() }
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The configuration with its origins, read once.
    pub fn loaded(&self) -> Result<&Loaded, Failure> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = connect::load(self.global.config.clone(), self.global.database.clone(), false)?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    /// The configuration.
    pub fn config(&self) -> Result<&Config, Failure> {
        self.loaded().map(|loaded| &loaded.config)
    }

    /// Opens the database to read it.
    pub async fn read(&self) -> Result<Stores, Failure> {
        self.open(OpenMode::ReadOnly).await
    }

    async fn open(&self, mode: OpenMode) -> Result<Stores, Failure> {
        let database = &self.config()?.database;
        reachable(&database.path)?;
        Ok(connect::open(database, mode, self.clock()).await?)
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
            reachable(&database.path)?;
            match Lock::shared(&database.path, database.mode) {
                Ok(lock) => {
                    let stores = self.open(OpenMode::ReadWrite).await?;
                    let config = watch::channel(Arc::new(config.clone())).1;
                    let hands = Box::new(Hands { config, clock: self.clock(), stores, live: None });
                    return Ok(Link::Direct { hands, _lock: lock });
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

    /// Asks once, and reads the answer.
    pub async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        self.link().await?.ask(request).await
    }
}

impl Link {
    /// Asks, and reads the answer.
    pub async fn ask<T: DeserializeOwned>(&mut self, request: Request) -> Result<T, Failure> {
        let value = match self {
            Self::Daemon(client) => client.call(&request).await?,
            Self::Direct { hands, .. } => match execute(request, hands).await {
                Response::Ok(value) => value,
                Response::Err { code, message } => return Err(Failure { code: code.exit(), message }),
            },
        };
        Ok(serde_json::from_value(value)?)
    }
}

fn silent(pid: Option<u32>) -> Failure {
    let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    failure::Failure::held(format!(
        "{who} holds the database and does not listen; if it is a daemon that starts or stops, try again in a moment"
    ))
}

/// Says in words why a database can't even be looked at. Only ever `stat`: opening and closing the file itself
/// would drop SQLite's locks.
pub fn reachable(database: &Path) -> Result<(), Failure> {
    match std::fs::metadata(database) {
        Ok(meta) if meta.is_file() => match rustix::fs::access(database, rustix::fs::Access::READ_OK) {
            Ok(()) => Ok(()),
            Err(_) => Err(not_allowed(database, "read")),
        },
        Ok(_) => Err(Failure::failed(format!(
            "{} is not a file; name the database with --database sqlite:///PATH",
            database.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(not_allowed(database, "read")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::failed(format!(
            "there is no database at {} yet; `ingestd run` creates it (another one is named with --database)",
            database.display()
        ))),
        Err(error) => Err(Failure::failed(format!("{}: {error}", database.display()))),
    }
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
        let failure = reachable(&folder.path().join("none.db")).unwrap_err();
        assert_eq!(failure.code, 1);
        assert!(failure.message.contains("`ingestd run` creates it"), "{}", failure.message);
    }

    #[test]
    fn owners_are_named() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_001), "#4000000001");
    }
}
