//! Fairness between pipelines: each has its turn, whatever waits for the others.

use std::collections::BTreeMap;
use std::fs;

use ingestd::store::{Appetite, NewJob, Queue, Want};

use crate::store::{Fixture, file};
use crate::support::*;

/// Pipelines that record their executions, and their jobs (`PIPELINE-0`, …) waiting in a paused queue.
fn paused(queue: &str, pipelines: &[(&str, usize)]) -> (Place, Ledger) {
    let place = Place::new();
    let ledger = Ledger::new(&place, "");
    let pipeline = |(name, _): &(&str, usize)| {
        format!("[pipeline.{name}]\nkind = \"exec\"\ncommand = {}\nconcurrency = 4\n", ledger.command)
    };
    let pipelines_text: String = pipelines.iter().map(pipeline).collect();
    place.configure(&format!("[queue]\n{queue}\n{pipelines_text}"));
    place.ok(&["db", "migrate"]);
    place.ok(&["pause"]);
    for (name, jobs) in pipelines {
        let files: Vec<String> =
            (0..*jobs).map(|i| place.file(&format!("{name}-{i}"), name).to_str().unwrap().to_owned()).collect();
        let added = place.feed(&["add", "-", "--pipeline", name], files.join("\n").as_bytes());
        assert_eq!(added.ids().len(), *jobs, "{added:?}");
    }
    (place, ledger)
}

#[test]
fn pipelines_take_turns_at_a_single_permit() {
    let (place, ledger) = paused("concurrency = 1", &[("a", 12), ("b", 12), ("c", 3)]);
    let _daemon = Daemon::start(&place);
    place.ok(&["resume"]);
    place.wait_count("completed", 27);
    let order: Vec<u8> =
        ledger.entries().iter().map(|entry| entry.path.rsplit('/').next().unwrap().as_bytes()[0]).collect();
    let mut seen = BTreeMap::new();
    for (i, pipeline) in order.iter().enumerate().take(24) {
        *seen.entry(*pipeline).or_insert(0) += 1;
        // While all wait, three in a row are one of each; then two are.
        let pipelines = if i < 9 { 3 } else { 2 };
        let row = &order[(i + 1).saturating_sub(pipelines)..=i];
        assert!(row.iter().filter(|other| *other == pipeline).count() == 1, "{pipeline} twice in a row: {order:?}");
    }
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [11, 10, 3], "{order:?}");
}

#[test]
fn a_free_permit_never_waits_for_a_due_job_while_another_pipeline_is_full() {
    let place = Place::new();
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", place.at("go").display());
    let slow = Ledger::new(&place, &wait);
    place.configure(&format!(
        "[queue]\nconcurrency = 4\n[pipeline.a]\nkind = \"exec\"\ncommand = {}\nconcurrency = 3\n\
         [pipeline.b]\nkind = \"exec\"\ncommand = [\"/bin/true\"]\nconcurrency = 3\n",
        slow.command
    ));
    place.ok(&["db", "migrate"]);
    let _daemon = Daemon::start(&place);
    for i in 0..6 {
        place.add(&place.file(&format!("a-{i}"), "a"), &["--pipeline", "a"]);
    }
    wait_until("the slow pipeline has all its permits", || slow.entries().len() == 3);
    for i in 0..5 {
        let job = place.add(&place.file(&format!("b-{i}"), "b"), &["--pipeline", "b"]);
        place.wait_state(job, "completed");
    }
    assert_eq!((place.in_state("running"), place.in_state("pending")), (3, 3), "the slow ones still run and wait");
    fs::write(place.at("go"), "").unwrap();
    place.wait_count("completed", 11);
}

#[tokio::test]
async fn a_long_queue_of_one_pipeline_does_not_delay_the_first_job_of_another() {
    let f = Fixture::new().await;
    let many = (0..20_000).map(|i| file(&format!("/docs/{i}"), 1)).collect();
    f.store.enqueue(many).await.unwrap();
    let wants = |names: [&str; 2]| names.map(|name| Want::single(name, 8)).to_vec();
    let before = f.store.lease(wants(["docs", "other"]), 8, Appetite::Regular).await.unwrap();
    assert_eq!(before.work.len(), 8, "alone it may have every permit");
    f.store.enqueue(vec![NewJob { pipeline: "other".to_owned(), ..file("/other", 1) }]).await.unwrap();
    let leased = f.store.lease(wants(["docs", "other"]), 2, Appetite::Regular).await.unwrap();
    let names: Vec<&str> = leased.work.iter().map(|(_, work)| work.pipeline.as_str()).collect();
    assert_eq!(names, ["docs", "other"], "in the very next call");
}
