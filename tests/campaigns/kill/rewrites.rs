//! Commands that write the whole database anew (restore, repair, vacuum, migration), killed at any call: there is the old
//! one or the new one, and given again they end.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::commands::{changes, kill, measure, points};
use crate::corruption::damage::spoil;
use crate::older;
use crate::seed::Seed;
use crate::support::{Daemon, Place, finish, run};
use crate::tracer::{Call, Plan, Seen, Traced};

/// A database with an acknowledged job in a log that its dead daemon left, and a backup from before that job.
struct Kept {
    place: Place,
    /// A copy of the state directory.
    copy: PathBuf,
    backup: PathBuf,
}

impl Kept {
    fn new() -> Self {
        let place = Place::with_database("[pipeline.p]\nkind = \"noop\"\n");
        let (copy, backup) = (place.at("copy"), place.at("backup.db"));
        place.ok(&["pause"]);
        place.add(&place.file("old", "old"), &[]);
        place.ok(&["db", "backup", backup.to_str().unwrap()]);
        let mut daemon = Daemon::start(&place);
        place.add(&place.file("new", "new"), &[]);
        daemon.kill();
        let kept = Self { place, copy, backup };
        kept.keep();
        kept
    }

    /// What is there now is what is brought back.
    fn keep(&self) {
        let _ = fs::remove_dir_all(&self.copy);
        run(Command::new("cp").arg("-a").arg(self.place.at("state")).arg(&self.copy));
    }

    fn bring_back(&self) {
        let state = self.place.at("state");
        fs::remove_dir_all(&state).unwrap();
        run(Command::new("cp").arg("-a").arg(&self.copy).arg(&state));
    }

    fn restore(&self) -> Command {
        self.place.configured(&["db", "restore", self.backup.to_str().unwrap()])
    }

    /// How many jobs there are, and in which life of the database.
    #[track_caller]
    fn found(&self) -> (usize, String) {
        // Whoever writes next has to find a whole database.
        self.place.ok(&["pause"]);
        self.place.ok(&["db", "check"]);
        let incarnation = self.place.ok(&["db", "query", "SELECT value FROM kv WHERE key = 'ingestd.incarnation'"]);
        (self.place.jobs().len(), incarnation.stdout)
    }
}

#[test]
fn a_restore_killed_at_any_call_leaves_the_old_database_with_its_log_or_the_new_one() {
    if !Traced::is_possible() {
        return;
    }
    let seed = Seed::of("kill::rewrites::restore");
    let (mut random, kept) = (seed.random(), Kept::new());
    let (_, old) = kept.found();
    kept.bring_back();
    let all = measure(&kept.place, kept.restore());
    let names = |seen: &Seen| matches!(seen.call, Call::Rename | Call::Unlink | Call::Link);
    let (mut killed, mut restored) = (0, 0);
    let mut strike = |plan: &dyn Fn() -> Plan| {
        kept.bring_back();
        let (_, counts) = Traced::finish(kept.restore(), plan());
        let (jobs, incarnation) = kept.found();
        match jobs {
            2 => assert_eq!(incarnation, old, "{counts:?}"),
            1 => assert_ne!(incarnation, old, "an acknowledged job is gone, and nothing was restored: {counts:?}"),
            other => panic!("{other} jobs: {counts:?}"),
        }
        (killed, restored) = (killed + counts.acted, restored + usize::from(jobs == 1));
        let again = finish(&mut kept.restore());
        assert_eq!(again.code, 0, "{again:?} after {counts:?}");
        assert_eq!(kept.found().0, 1);
        counts.acted > 0
    };
    // Where a file gets or loses its name, each point; of the others those that chance chooses.
    for number in 1.. {
        let counts = changes(&kept.place);
        if !strike(&|| {
            let counts = counts.clone();
            Plan::kill_after(number, move |seen| counts(seen) && names(seen))
        }) {
            break;
        }
    }
    for number in points(&mut random, all) {
        strike(&|| Plan::kill_before(number, changes(&kept.place)));
    }
    seed.report(format!("{killed} points killed, {restored} of them later than the restore"));
}

/// A database that stopped in order, with two jobs.
fn at_rest() -> Kept {
    let kept = Kept::new();
    assert_eq!(Daemon::start(&kept.place).stop(), 0);
    kept.keep();
    kept
}

/// Kills a command at the points of its walk, each time over the kept state; `judge` sees what the kill left, then the
/// command is given again. Answers how many points were killed.
fn walk(kept: &Kept, command: &[&str], random: &mut fastrand::Rng, judge: impl Fn()) -> usize {
    let command = || kept.place.configured(command);
    let all = measure(&kept.place, command());
    let mut killed = 0;
    for number in points(random, all) {
        kept.bring_back();
        killed += kill(&kept.place, command(), number, random.bool()).1.acted;
        judge();
        let again = finish(&mut command());
        assert_eq!(again.code, 0, "{again:?} after a kill at {number} of {all}");
        assert_eq!(kept.found().0, 2, "after a kill at {number} of {all}");
    }
    killed
}

/// All rows can be read, an index can't: a repair loses nothing.
#[test]
fn a_repair_killed_at_any_call_leaves_the_damaged_database_as_it_was_or_the_repaired_one() {
    if !Traced::is_possible() {
        return;
    }
    let seed = Seed::of("kill::rewrites::repair");
    let (mut random, kept) = (seed.random(), at_rest());
    let database = kept.place.database();
    let connection = rusqlite::Connection::open(&database).unwrap();
    let index = "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs_source'";
    let page = connection.query_row(index, [], |row| row.get::<_, u32>(0)).unwrap() as usize;
    connection.close().unwrap();
    let mut damaged = fs::read(&database).unwrap();
    spoil(&mut damaged, &[page]);
    fs::write(&database, &damaged).unwrap();
    kept.keep();
    let repaired = std::cell::Cell::new(0);
    let killed = walk(&kept, &["db", "check", "--repair"], &mut random, || {
        if fs::read(&database).unwrap() != damaged {
            assert_eq!(kept.found().0, 2, "neither the damaged database nor the repaired one");
            repaired.set(repaired.get() + 1);
        }
    });
    seed.report(format!("{killed} points killed, {} of them later than the repair", repaired.get()));
}

#[test]
fn a_vacuum_or_a_migration_killed_at_any_call_loses_nothing_and_is_done_when_it_is_asked_for_again() {
    if !Traced::is_possible() {
        return;
    }
    let seed = Seed::of("kill::rewrites");
    let (mut random, kept) = (seed.random(), at_rest());
    let vacuum = walk(&kept, &["db", "vacuum"], &mut random, || assert_eq!(kept.found().0, 2));
    kept.bring_back();
    older::take_back(&kept.place.database());
    kept.keep();
    let migration = walk(&kept, &["db", "migrate"], &mut random, || ());
    seed.report(format!("{vacuum} points of a vacuum killed, {migration} of a migration"));
}
