//! What can go wrong in the store, by what the caller does about it.

use std::path::PathBuf;

/// An error of the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the write lock, and did not let go within `database.busy_timeout`. Try again later.
    #[error("the database is busy: another process holds its write lock")]
    Busy,
    /// No room: nothing was written. Try again when there is room.
    #[error("no space left for the database")]
    Full,
    /// The disk refused a write or a sync: whether the transaction was applied is unknown. The daemon leaves.
    #[error("the disk failed under the database, so whether the last writes were applied is unknown: {0}")]
    Disk(String),
    /// The disk refused a piece of upkeep. No transaction is in doubt, and it is tried again at its next time.
    #[error("{0}")]
    Upkeep(String),
    /// The file is damaged, or no database at all.
    #[error("{0}")]
    Corrupt(String),
    /// The database may not be opened or written by this user.
    #[error("{0}")]
    Permission(String),
    /// The schema does not fit this program.
    #[error("{0}")]
    Schema(String),
    /// The place can't hold a database (a network filesystem, a missing folder).
    #[error("{path}: {why}", path = path.display())]
    Place {
        /// The database's file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The call asks for something that can't be (no such job, a name taken): the words say what.
    #[error("{0}")]
    Refused(String),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// Anything else that SQLite or sqlx said.
    #[error("database: {0}")]
    Other(String),
}

impl StoreError {
    /// Whether waiting helps without anybody doing anything wrong.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Busy | Self::Full)
    }

    /// What is in the way of any write, where that is what the error says.
    pub const fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Self::Busy => Some(Obstacle::Lock),
            Self::Full => Some(Obstacle::NoRoom),
            _ => None,
        }
    }

    /// Whether the daemon has to leave, because going on could acknowledge what was not written.
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Corrupt(_) | Self::Closed)
    }
}

/// What keeps the database from being written, for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Another process holds the write lock.
    Lock,
    /// The disk is full.
    NoRoom,
}

/// What the store's calls return.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
