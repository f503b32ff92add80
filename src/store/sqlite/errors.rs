//! SQLite's result codes as what the caller does about them.

use super::super::error::StoreError;

/// SQLite's primary result codes (<https://www.sqlite.org/rescode.html>).
mod code {
    pub const PERM: i32 = 3;
    pub const BUSY: i32 = 5;
    pub const READONLY: i32 = 8;
    pub const IOERR: i32 = 10;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const CANTOPEN: i32 = 14;
    pub const NOTADB: i32 = 26;
    /// The WAL's index could not grow, which nothing but a full disk brings about.
    pub const IOERR_SHMSIZE: i32 = IOERR | 19 << 8;
    /// The file ends where a page should be: it was cut, which is nothing that a disk does.
    pub const IOERR_SHORT_READ: i32 = IOERR | 2 << 8;
    pub const IOERR_WRITE: i32 = IOERR | 3 << 8;
    pub const IOERR_TRUNCATE: i32 = IOERR | 6 << 8;
}

/// What a person can do about a damaged database.
pub(super) const WAY_OUT: &str = "with the daemon stopped, `ingestd db restore --newest` brings back the newest good \
                                  backup, and `ingestd db check --repair` keeps what can still be read";

fn number(error: &sqlx::Error) -> i32 {
    let code = error.as_database_error().and_then(|inner| inner.code()?.parse().ok());
    code.unwrap_or(0)
}

/// Whether the disk refused a write or a cut. What was synced before is not touched by that, unlike by a sync that fails.
pub(super) fn is_refused_write(error: &sqlx::Error) -> bool {
    matches!(number(error), code::IOERR_WRITE | code::IOERR_TRUNCATE)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) => match number(&error) {
                code::IOERR_SHMSIZE => Self::Full,
                code::IOERR_SHORT_READ => from_code(code::CORRUPT, "it ends where a page should be"),
                number => from_code(number, inner.message()),
            },
            // A connection has a thread of its own, and opens files: nothing was written where it can't be made.
            sqlx::Error::Io(io) if crate::os::is_shortage(io) => {
                Self::Other(format!("no connection can be made just now: {io}"))
            }
            sqlx::Error::Io(io) => Self::Disk(io.to_string()),
            // Each column is read as what it was declared: another value was not written by this program.
            sqlx::Error::ColumnDecode { source, .. } | sqlx::Error::Decode(source) => {
                from_code(code::CORRUPT, &format!("a value can't be read: {source}"))
            }
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Self::Closed,
            sqlx::Error::PoolTimedOut => Self::Busy,
            _ => Self::Other(error.to_string()),
        }
    }
}

fn from_code(number: i32, message: &str) -> StoreError {
    match number & 0xff {
        code::BUSY => StoreError::Busy,
        code::FULL => StoreError::Full,
        code::IOERR => StoreError::Disk(format!("{message}, SQLite's code {number}")),
        code::CORRUPT => StoreError::Corrupt(format!("the database is damaged ({message}); {WAY_OUT}")),
        code::NOTADB => StoreError::Corrupt(format!("this is not a database of ingestd ({message})")),
        code::READONLY => StoreError::Permission(format!("the database may not be written ({message})")),
        code::CANTOPEN | code::PERM => StoreError::Permission(format!("the database may not be opened ({message})")),
        _ => StoreError::Other(message.to_owned()),
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(format!("rows could not be encoded: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_is_short_of_threads_is_no_failed_disk() {
        let error = |code| StoreError::from(sqlx::Error::Io(std::io::Error::from_raw_os_error(code)));
        assert!(!error(libc::EAGAIN).is_fatal() && !error(libc::EMFILE).is_fatal());
        assert!(error(libc::EIO).is_fatal());
    }
}
