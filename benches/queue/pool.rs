//! The worker pool of the program, in this process: the real dispatcher on the real store, with a processor that does
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ingestd::clock::{Clock, SystemClock};
use ingestd::config::{Pipeline, ProcessorKind};
use ingestd::intake::ContentFolder;
use ingestd::job::DigestAlgorithm;
use ingestd::lifecycle::Pulses;
use ingestd::processor::NoopProcessor;
use ingestd::store::Batching;
use ingestd::store::sqlite::SqliteStore;
use ingestd::warnings::Warnings;
use ingestd::worker::attempt::Workshop;
use ingestd::worker::dispatcher::Stops;
use ingestd::worker::{Aside, Dispatcher, PipelineSettings, Throttle, WorkerSettings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Bench;
use crate::database::{self, PIPELINE};
use crate::report::{Took, Watch};

/// Jobs that may run at once.
pub const CONCURRENCY: usize = 1_000;

/// Lets the pool work until `n` jobs are completed; answers how long that took.
pub fn drain(bench: &Bench, store: &Arc<SqliteStore>, n: i64) -> Took {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let warnings = Warnings::new(clock.clone());
    let (settings, watched) = watch::channel(Arc::new(noop(store.database_path(), &clock, &warnings)));
    let workshop = Workshop {
        queue: store.clone(),
        dispositions: store.clone(),
        effects: store.clone(),
        stages: store.clone(),
        contents: store.clone(),
        contents_at_work: ingestd::worker::content::AtWork::default(),
        clock: clock.clone(),
        settings: watched,
        aside: Aside::default(),
    };
    let stops = Stops { draining: CancellationToken::new(), interrupt: CancellationToken::new() };
    let pulses = Pulses::default();
    let entered = bench.runtime.enter();
    let (dispatcher, handles) =
        Dispatcher::new(workshop, stops.clone(), pulses.register("dispatcher"), warnings).unwrap();
    drop(entered);
    let onlooker = database::look(store.database_path());
    let mut completed = onlooker.prepare("SELECT coalesce(sum(n), 0) FROM counters WHERE state = 'completed'").unwrap();
    let mut activity = store.activity();
    bench.runtime.block_on(async {
        let watch = Watch::start();
        let working = bench.runtime.spawn(dispatcher.run());
        while completed.query_row([], |row| row.get::<_, i64>(0)).unwrap() < n {
            activity.changed().await.unwrap();
        }
        let took = watch.stop();
        stops.draining.cancel();
        working.await.unwrap().unwrap();
        drop((settings, handles));
        took
    })
}

/// One pipeline with every key but its concurrency at its default: its breaker counts, and no rate holds it up.
fn noop(database: &Path, clock: &Arc<dyn Clock>, warnings: &Warnings) -> WorkerSettings {
    let configured = Pipeline::of(ProcessorKind::Noop);
    let pipeline = PipelineSettings {
        throttle: Throttle::new(PIPELINE, configured.breaker, configured.rate, clock.clone(), warnings.clone()),
        processor: Arc::new(NoopProcessor),
        concurrency: CONCURRENCY,
        batch: Batching::SINGLE,
        timeout: configured.timeout,
        retry: configured.retry,
    };
    WorkerSettings {
        concurrency: None,
        lease: Duration::from_mins(1),
        digest: DigestAlgorithm::Blake3,
        spool: database.with_file_name("spool"),
        contents: ContentFolder::new(database.with_file_name("content"), 0o600),
        pipelines: BTreeMap::from([(PIPELINE.to_owned(), pipeline)]),
        stages: Arc::default(),
        disposals: BTreeMap::new(),
        dedupes: BTreeSet::new(),
        remembers: BTreeSet::new(),
        follows: BTreeSet::new(),
        settles: BTreeMap::new(),
    }
}
