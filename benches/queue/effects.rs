//! Effects: an intent and its result, each a commit, beside raw SQLite that commits the same rows.

use std::path::Path;
use std::sync::Arc;

use ingestd::job::{CanonicalJson, EffectKind, Fence, IdempotencyKey, JobId, LARGEST_CONTEXT_BYTES, Step};
use ingestd::store::sqlite::SqliteStore;
use ingestd::store::{Claim, EffectBegun, Effects as _};
use rusqlite::{Connection, PrepFlags, params};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::report::{self, Aim, Rounds, Took, Watch};
use crate::{Bench, database, raw};

const ROUNDS: usize = 9;
/// Effects in a round.
const EFFECTS: i64 = 640;
/// Callers at once, each with a job of its own.
const CALLERS: i64 = 64;

/// One caller beside raw SQLite, and 64 callers beside the one.
pub fn begun_and_committed(bench: &Bench) {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (with_running_jobs(bench, &folder, "ours.db"), with_running_jobs(bench, &folder, "raw.db"));
    let opened = database::open(bench, &ours);
    let connection = database::connect(&other);
    let next = std::cell::Cell::new(0);
    let take = |callers: i64| {
        let first = next.replace(next.get() + EFFECTS);
        at_once(bench, &opened.store, first, callers)
    };
    let mut row = 0;
    let rounds = Rounds::take(ROUNDS, || take(1), || raw_pairs(&connection, &mut row));
    let (rate, raw) = rounds.rates(EFFECTS);
    let ratio = rounds.ratio();
    let beside = format!("raw, two commits each: {raw}");
    report::row("effect begin and commit, one caller", &rate, &beside, Some(ratio), &Aim::at_least(ratio, 0.4));

    let rounds = Rounds::take(ROUNDS, || take(CALLERS), || take(1));
    let (many, one) = rounds.rates(EFFECTS);
    let ratio = rounds.ratio();
    let beside = format!("one caller: {one}");
    report::row("effect begin and commit, 64 callers", &many, &beside, Some(ratio), &Aim::at_least(ratio, 8.0));
    drop(connection);
    opened.close(bench);
}

/// A database in which 64 jobs run under fence 1, whoever leased them.
fn with_running_jobs(bench: &Bench, folder: &TempDir, name: &str) -> std::path::PathBuf {
    let path = folder.path().join(name);
    database::create(bench, &path, Path::new("/srv/inbox"));
    let connection = database::connect(&path);
    let jobs = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {CALLERS})
         INSERT INTO sources (id, scope, identity, version) SELECT i, 1, CAST(i AS BLOB), 1 FROM n;
         INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, started_at, fence,
                           boot, lease_deadline, executions)
         SELECT id, id, 1, 1, 'add', 2, 'running', 1, 1, 1, 1, 1, 1, 1 FROM sources"
    );
    connection.execute_batch(&jobs).unwrap();
    path
}

/// Takes the steps from `first` on, a share by each caller.
fn at_once(bench: &Bench, store: &Arc<SqliteStore>, first: i64, callers: i64) -> Took {
    bench.runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let watch = Watch::start();
        for caller in 0..callers {
            let (store, share) = (store.clone(), EFFECTS / callers);
            // One caller alone goes through the jobs too: a job may have so many effects only.
            tasks.spawn(async move {
                for at in 0..share {
                    let n = first + caller * share + at;
                    step(&store, JobId(1 + n % CALLERS), n).await;
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        watch.stop()
    })
}

async fn step(store: &SqliteStore, job: JobId, n: i64) {
    let claim = Claim { job, fence: Fence(1) };
    let kind: EffectKind = "upload".parse().unwrap();
    let context = CanonicalJson::of(&serde_json::json!({ "part": n }), LARGEST_CONTEXT_BYTES).unwrap();
    let step = Step::of(kind, context, &IdempotencyKey([7; 32]));
    let EffectBegun::Run { id, .. } = store.begin_effect(claim, step).await.unwrap() else { panic!("it is new") };
    let result = CanonicalJson::of(&serde_json::json!({ "receipt": n }), LARGEST_CONTEXT_BYTES).unwrap();
    store.commit_effect(claim, id, Some(result)).await.unwrap();
}

/// The same rows, each inserted and then updated, with a commit after each.
fn raw_pairs(connection: &Connection, row: &mut i64) -> Took {
    let prepare = |sql| connection.prepare_with_flags(sql, PrepFlags::SQLITE_PREPARE_PERSISTENT).unwrap();
    let (mut begin, mut commit) = (prepare("BEGIN IMMEDIATE"), prepare("COMMIT"));
    let mut intend = prepare(
        "INSERT INTO effects (id, job, step, key, kind, context, state, fence, begun_at)
         VALUES (?1, ?2, ?3, ?4, 'upload', ?5, 'begun', 1, ?6)",
    );
    let mut end = prepare("UPDATE effects SET state = 'done', result = ?2, ended_at = ?3 WHERE id = ?1");
    let watch = Watch::start();
    for _ in 0..EFFECTS {
        *row += 1;
        let digest = blake3::hash(&row.to_be_bytes());
        let context = format!("{{\"part\":{row}}}");
        begin.execute([]).unwrap();
        let values = params![*row, 1 + *row % CALLERS, digest.as_bytes(), digest.as_bytes(), context, raw::now_ms()];
        intend.execute(values).unwrap();
        commit.execute([]).unwrap();
        begin.execute([]).unwrap();
        end.execute(params![*row, format!("{{\"receipt\":{row}}}"), raw::now_ms()]).unwrap();
        commit.execute([]).unwrap();
    }
    watch.stop()
}
