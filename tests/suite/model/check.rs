//! What is in the tables, read past the code under test, and what must be true of it after every step: the promises
//! by themselves, then equality with the model, fact by fact.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use ingestd::job::StateName;
use rusqlite::Connection;

use super::actions::{Look, PIPELINES, SOURCES};
use super::semantics::{Facts, Job, Presence, Source, Taken};

/// What the pipelines' retry policy allows.
pub const MAX_ATTEMPTS: i64 = 3;

/// Jobs by pipeline, state and level, as the counters say.
pub type Counters = BTreeMap<(String, String, i64), i64>;

const JOBS: &str = "
    SELECT j.id, cast(s.identity AS TEXT), p.name, j.version, j.op, j.priority, j.state, j.run_at, j.created_at,
           j.first_started_at, j.started_at, j.finished_at, j.attempt, j.deferrals, j.executions, j.crashes,
           j.crashes_alone, j.fence, j.lease_deadline, j.blocked_by, j.reason, j.superseded_by, j.digest, j.baseline,
           j.error_kind, d.mtime_ns, d.ctime_ns, cast(j.identity AS TEXT), cast(j.moved_from AS TEXT)
    FROM jobs AS j LEFT JOIN sources AS s ON s.id = j.source LEFT JOIN pipelines AS p ON p.id = j.pipeline
        LEFT JOIN dispositions AS d ON d.job = j.id";
const SOURCES_NOW: &str = "
    SELECT cast(identity AS TEXT), version, mtime_ns, ctime_ns, digest, digest_version, presence, gone_at, inode = 0
    FROM sources";
const TAKEN: &str = "
    SELECT cast(s.identity AS TEXT), p.name, t.version, t.job, t.started
    FROM taken AS t LEFT JOIN sources AS s ON s.id = t.source LEFT JOIN pipelines AS p ON p.id = t.pipeline";
const HISTORY: &str = "SELECT job, seq, outcome, spent, finished_at FROM attempts ORDER BY id";
const PAUSED: &str = "SELECT name FROM pipelines WHERE paused";
const RATES: &str =
    "SELECT coalesce(sum(completed), 0), coalesce(sum(failed), 0), coalesce(sum(retried), 0) FROM rates";
const COUNTERS: &str = "
    SELECT p.name, c.state, c.priority, c.n FROM counters AS c JOIN pipelines AS p ON p.id = c.pipeline WHERE c.n <> 0";

/// What a run over a list, whose input is read, says of its jobs beside what there is.
const OF_RUN: &str = "
    SELECT r.state, r.jobs_open, r.jobs_completed, r.jobs_failed, r.jobs_skipped, r.jobs_cancelled,
           count(j.id) FILTER (WHERE j.state IN ('pending', 'running', 'retrying')),
           count(j.id) FILTER (WHERE j.state = 'completed'), count(j.id) FILTER (WHERE j.state = 'failed'),
           count(j.id) FILTER (WHERE j.state = 'skipped'), count(j.id) FILTER (WHERE j.state = 'cancelled')
    FROM runs AS r LEFT JOIN jobs AS j ON j.run = r.id WHERE r.list IS NOT NULL GROUP BY r.id";

/// Where a run does not say what its jobs say: it counts those that were pruned, too, but no open one is.
pub fn miscounts(database: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut statement = database.prepare(OF_RUN)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let state: String = row.get(0)?;
        let numbers = (1..11).map(|at| row.get(at)).collect::<rusqlite::Result<Vec<i64>>>()?;
        let (told, there) = numbers.split_at(5);
        let fits = told[0] == there[0] && told.iter().zip(there).all(|(told, there)| told >= there);
        let verdict = match (told[0], told[2] + told[4]) {
            (1.., _) => "running",
            (_, 0) => "completed",
            _ => "failed",
        };
        if !fits || state != verdict {
            wrong.push(format!("the run is {state} and counts {told:?}; there are {there:?}, so it is {verdict}"));
        }
    }
    Ok(wrong)
}

/// Reads everything.
pub fn read(database: &Connection) -> rusqlite::Result<(Facts, Counters)> {
    let mut facts = Facts::default();
    let mut jobs = database.prepare(JOBS)?;
    let mut rows = jobs.query([])?;
    while let Some(row) = rows.next()? {
        facts.jobs.insert(row.get(0)?, read_job(row)?);
    }
    let mut sources = database.prepare(SOURCES_NOW)?;
    let mut rows = sources.query([])?;
    while let Some(row) = rows.next()? {
        facts.sources.insert(name(&row.get::<_, String>(0)?, &SOURCES), read_source(row)?);
    }
    let mut taken = database.prepare(TAKEN)?;
    let mut rows = taken.query([])?;
    while let Some(row) = rows.next()? {
        let key = (name(&row.get::<_, String>(0)?, &SOURCES), name(&row.get::<_, String>(1)?, &PIPELINES));
        facts.taken.insert(key, Taken { version: row.get(2)?, job: row.get(3)?, started: row.get(4)? });
    }
    facts.history = database
        .prepare(HISTORY)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
        .collect::<Result<_, _>>()?;
    facts.paused = database
        .prepare(PAUSED)?
        .query_map([], |row| Ok(name(&row.get::<_, String>(0)?, &PIPELINES)))?
        .collect::<Result<_, _>>()?;
    facts.rates = database.prepare(RATES)?.query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
    let counters = database
        .prepare(COUNTERS)?
        .query_map([], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?)))?
        .collect::<Result<_, _>>()?;
    Ok((facts, counters))
}

fn read_job(row: &rusqlite::Row<'_>) -> rusqlite::Result<Job> {
    let mtime: Option<i64> = row.get(25)?;
    Ok(Job {
        source: name(&row.get::<_, String>(1)?, &SOURCES),
        pipeline: name(&row.get::<_, String>(2)?, &PIPELINES),
        version: row.get(3)?,
        op: row.get::<_, String>(4)?.parse().expect("an operation"),
        priority: row.get(5)?,
        state: row.get::<_, String>(6)?.parse().expect("a state"),
        run_at: row.get(7)?,
        created_at: row.get(8)?,
        first_started_at: row.get(9)?,
        started_at: row.get(10)?,
        finished_at: row.get(11)?,
        attempt: row.get(12)?,
        deferrals: row.get(13)?,
        executions: row.get(14)?,
        crashes: row.get(15)?,
        crashes_alone: row.get(16)?,
        fence: row.get(17)?,
        deadline: row.get(18)?,
        blocked_by: row.get(19)?,
        reason: row.get(20)?,
        superseded_by: row.get(21)?,
        digest: content(row.get(22)?),
        baseline: content(row.get(23)?),
        error: row.get(24)?,
        moving: match mtime {
            Some(mtime) => Some(Look { mtime, ctime: row.get(26)? }),
            None => None,
        },
        name: row.get::<_, Option<String>>(27)?.map(|found| name(&found, &SOURCES)),
        moved_from: row.get::<_, Option<String>>(28)?.map(|found| name(&found, &SOURCES)),
    })
}

fn read_source(row: &rusqlite::Row<'_>) -> rusqlite::Result<Source> {
    let (version, of): (i64, Option<i64>) = (row.get(1)?, row.get(5)?);
    Ok(Source {
        version,
        look: Look { mtime: row.get(2)?, ctime: row.get(3)? },
        digest: content(row.get(4)?).filter(|_| of == Some(version)),
        presence: match row.get::<_, String>(6)?.as_str() {
            "present" => Presence::Present,
            "vanished" => Presence::Vanished,
            _ => Presence::Consumed,
        },
        gone_at: row.get(7)?,
        empty: row.get(8)?,
    })
}

/// The content whose digest this is: see `digest` in `world.rs`.
fn content(digest: Option<Vec<u8>>) -> Option<u8> {
    digest.map(|bytes| bytes[1])
}

fn name(found: &str, names: &[&'static str]) -> &'static str {
    names.iter().find(|name| **name == found).expect("a name of this world")
}

/// The promises that a step broke, whatever the model says. `reopened` are the jobs that a person named for a retry.
pub fn breaches(before: &Facts, after: &Facts, counters: &Counters, reopened: &BTreeSet<i64>) -> Vec<String> {
    let mut broken = Vec::new();
    for (id, job) in &after.jobs {
        if let Some(was) = before.jobs.get(id) {
            broken.extend(changed_against_the_law(*id, was, job, reopened));
        }
        if job.attempt > MAX_ATTEMPTS {
            broken.push(format!("job {id} spent {} of {MAX_ATTEMPTS} attempts", job.attempt));
        }
        if after.taken.get(&(job.source, job.pipeline)).is_none_or(|taken| taken.version < job.version) {
            broken.push(format!("job {id} is of a version that is not known to have been taken"));
        }
        broken.extend(order_of_source(after, *id, job));
    }
    let suspects = after.jobs.values().filter(|job| job.state == StateName::Running && job.crashes >= 2).count();
    let running = after.jobs.values().filter(|job| job.state == StateName::Running).count();
    if suspects > 0 && running > 1 {
        broken.push(format!("a suspect runs among {running}"));
    }
    let mut counted = Counters::new();
    for job in after.jobs.values() {
        *counted.entry((job.pipeline.to_owned(), job.state.as_str().to_owned(), job.priority)).or_default() += 1;
    }
    broken.extend(differences("counter", &counted, counters));
    broken
}

fn changed_against_the_law(id: i64, was: &Job, is: &Job, reopened: &BTreeSet<i64>) -> Vec<String> {
    let mut broken = Vec::new();
    let leased = is.executions - was.executions;
    if was.state.is_final() && is.state.is_final() && was.name.is_some() && was.name != is.name {
        broken.push(format!("job {id} was about {:?} and is about {:?}", was.name, is.name));
    }
    if is.fence - was.fence != leased || leased < 0 {
        broken.push(format!("job {id} went from fence {} to {} in {leased} leases", was.fence, is.fence));
    }
    if was.state.is_final() && is.state != was.state && !reopened.contains(&id) {
        broken.push(format!("job {id} was {} and is {}", was.state, is.state));
    }
    // Its source may get another name.
    if (was.pipeline, was.version, was.op) != (is.pipeline, is.version, is.op) {
        broken.push(format!("job {id} is about something else now: {was:?} became {is:?}"));
    }
    broken
}

/// Of two unfinished jobs of one source and pipeline the newer is blocked by the older, and of two jobs the higher
/// number is the higher version.
fn order_of_source(facts: &Facts, id: i64, job: &Job) -> Vec<String> {
    let mut broken = Vec::new();
    let same = |other: &Job| (other.source, other.pipeline) == (job.source, job.pipeline);
    for (older_id, older) in facts.jobs.range(..id).filter(|(_, older)| same(older)) {
        if older.version >= job.version {
            broken.push(format!(
                "jobs {older_id} and {id} of one source are versions {} and {}",
                older.version, job.version
            ));
        }
        if !older.state.is_final() && !job.state.is_final() && job.blocked_by != Some(*older_id) {
            broken.push(format!("job {id} does not wait for job {older_id}, an older version of its source"));
        }
    }
    if let Some(blocker) = job.blocked_by {
        let unfinished = |other: &Job| other.state == StateName::Running || other.moving.is_some();
        if !facts.jobs.get(&blocker).is_some_and(|other| same(other) && unfinished(other)) {
            broken.push(format!("job {id} waits for job {blocker}, which will never release it"));
        }
    }
    broken
}

/// Where the tables are not as the model has them.
pub fn deviations(model: &Facts, tables: &Facts) -> Vec<String> {
    let mut found = differences("job", &model.jobs, &tables.jobs);
    found.extend(differences("source", &model.sources, &tables.sources));
    found.extend(differences("taken", &model.taken, &tables.taken));
    // Executions that end in one call have no order among them.
    let sorted = |facts: &Facts| {
        let mut history = facts.history.clone();
        history.sort();
        history
    };
    let (expected, found_history) = (sorted(model), sorted(tables));
    if expected != found_history {
        found.push(format!("history: expected {expected:?}, found {found_history:?}"));
    }
    if (&model.paused, &model.rates) != (&tables.paused, &tables.rates) {
        let (expected, is) = ((&model.paused, &model.rates), (&tables.paused, &tables.rates));
        found.push(format!("paused pipelines and rates: expected {expected:?}, found {is:?}"));
    }
    found
}

fn differences<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    expected: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = expected.keys().chain(found.keys()).collect();
    keys.into_iter()
        .filter(|key| expected.get(key) != found.get(key))
        .map(|key| match (expected.get(key), found.get(key)) {
            (Some(expected), Some(found)) => format!("{what} {key:?}: {}", fields_apart(expected, found)),
            (expected, found) => format!("{what} {key:?}: expected {expected:?}, found {found:?}"),
        })
        .collect()
}

/// The fields in which two values differ, by their printed form.
fn fields_apart(expected: &impl Debug, found: &impl Debug) -> String {
    let (expected, found) = (format!("{expected:#?}"), format!("{found:#?}"));
    let apart: Vec<String> = expected
        .lines()
        .zip(found.lines())
        .filter(|(expected, found)| expected != found)
        .map(|(expected, found)| format!("expected {}, found {}", expected.trim(), found.trim()))
        .collect();
    if expected.lines().count() == found.lines().count() {
        apart.join("; ")
    } else {
        format!("expected {expected}, found {found}")
    }
}
