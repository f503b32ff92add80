//! Watches whether the database can be written, and is the one that tells when it can't: a line when that begins,
//! a warning while it lasts, a line when it is over.
//!
//! Whoever wants to write then waits or tries again by itself, and what runs keeps its leases. Without room the gate of
//! the intake is shut as well: reading folders would only gather what can't be kept. While nobody writes nobody would
//! find out that it works again, so a little is written now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::gate::{Gate, Shut};
use crate::store::Obstacle;
use crate::store::sqlite::SqliteStore;
use crate::warnings::{Severity, Warnings};

/// How often a write is tried while none succeeds.
const TRY_AGAIN: Duration = Duration::from_secs(2);

const NO_ROOM: &str = "database.full";
const LOCKED: &str = "database.locked";

/// What it works with.
pub struct Writable {
    pub store: Arc<SqliteStore>,
    pub obstacle: watch::Receiver<Option<Obstacle>>,
    pub gate: Gate,
    pub warnings: Warnings,
    pub stop: CancellationToken,
}

/// Watches until told to stop.
pub async fn run(mut this: Writable) -> anyhow::Result<()> {
    loop {
        let obstacle = *this.obstacle.borrow_and_update();
        this.tell(obstacle);
        tokio::select! {
            () = this.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(TRY_AGAIN), if obstacle.is_some() => drop(this.store.try_room().await),
            changed = this.obstacle.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

impl Writable {
    fn tell(&self, obstacle: Option<Obstacle>) {
        if obstacle == Some(Obstacle::NoRoom) {
            self.gate.shut(Shut::DatabaseFull);
            let words = "no room is left for the database: nothing is taken in until there is; make room on its disk";
            self.warnings.set(NO_ROOM, Severity::Critical, words);
        } else {
            self.gate.open(Shut::DatabaseFull);
            self.warnings.clear(NO_ROOM);
        }
        if obstacle == Some(Obstacle::Lock) {
            let words = "another process holds the database's write lock: nothing can be written until it lets go; what \
                         runs goes on (`fuser` or `lsof` on the database's file name the process)";
            self.warnings.set(LOCKED, Severity::Warning, words);
        } else {
            self.warnings.clear(LOCKED);
        }
    }
}
