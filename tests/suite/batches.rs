//! Executions that take many jobs at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use std::time::Duration;

use ingestd::job::Verdict;
use ingestd::store::{Appetite, Batching, NewJob, Queue, Want};
use serde_json::{Value, json};

use crate::store::{Fixture, content, digest, file};
use crate::support::*;

/// A script that records what each of its runs was told, and the record.
struct Runs {
    folder: PathBuf,
    /// The keys of a pipeline of kind `exec` that runs it.
    keys: String,
}

impl Runs {
    /// After the record is made, the script goes on with `then`; `$f` is the record.
    fn new(place: &Place, then: &str) -> Self {
        let (folder, script) = (place.at("runs"), place.at("batch.sh"));
        fs::create_dir_all(&folder).unwrap();
        let record = format!("f={}/$(date +%s%N)-$$\ncat > \"$f.part\"; mv \"$f.part\" \"$f\"\n", folder.display());
        fs::write(&script, format!("{record}{}\n", then.replace("@GO@", place.at("go").to_str().unwrap()))).unwrap();
        let keys = format!("kind = \"exec\"\ncommand = [\"/bin/sh\", \"{}\"]\n", script.display());
        Self { folder, keys }
    }

    /// What each run was told, in their order.
    fn told(&self) -> Vec<Vec<Value>> {
        let entries = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_none()).collect();
        files.sort();
        let lines = |path: &PathBuf| {
            fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        files.iter().map(lines).collect()
    }

    /// The last part of the path of each job, by run.
    fn names(&self) -> Vec<Vec<String>> {
        let name = |job: &Value| text(job, "path").rsplit('/').next().unwrap_or_default().to_owned();
        self.told().iter().map(|run| run.iter().map(name).collect()).collect()
    }
}

const ONCE: &str = "retry = { max_attempts = 1 }\n";
const WAIT: &str = "while [ ! -e @GO@ ]; do sleep 0.05; done";

/// A pipeline `p` of these keys, and files that wait for it.
fn waiting(place: &Place, keys: &str, names: &[&str]) -> Vec<i64> {
    place.configure(&format!("[pipeline.p]\n{keys}"));
    place.ok(&["db", "migrate"]);
    let files: Vec<String> = names.iter().map(|name| place.file(name, name).to_str().unwrap().to_owned()).collect();
    let ids = place.feed(&["add", "-"], files.join("\n").as_bytes()).ids();
    assert_eq!(ids.len(), names.len());
    ids
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("f{number:03}")).collect()
}

/// The executions of a job in their order, as (outcome, spent).
fn executions(place: &Place, job: i64) -> Vec<(String, bool)> {
    let mut rows: Vec<Value> = place.history().into_iter().filter(|row| row["job"] == job).collect();
    rows.sort_by_key(|row| count(row, "execution"));
    rows.iter().map(|row| (text(row, "outcome").to_owned(), row["spent"].as_bool().unwrap())).collect()
}

#[test]
fn a_poison_item_fails_alone_and_costs_everyone_one_execution() {
    let place = Place::new();
    let runs = Runs::new(&place, "! grep -q poison \"$f\"");
    let names = ["a", "b", "c", "d", "e", "poison", "g", "h"];
    let ids = waiting(&place, &format!("{}batch_size = 8\nconcurrency = 1\n{ONCE}", runs.keys), &names);
    assert_eq!(place.cli(&["run", "--once"]).code, 1);
    for (id, name) in ids.iter().zip(names) {
        let job = place.show(*id);
        let expected = if name == "poison" { "failed" } else { "completed" };
        assert_eq!((text(&job, "state"), count(&job, "attempt")), (expected, 1), "{name}: {job}");
        assert_eq!(executions(&place, *id), [(expected.to_owned(), true)], "{name}");
    }
    let told = runs.names();
    assert_eq!(told[0], names, "all together at first, in the order of the queue");
    assert!(told.contains(&vec!["poison".to_owned()]) && told.len() <= 7, "{told:?}");
}

#[test]
fn a_batch_that_hangs_is_stopped_and_the_culprit_is_found() {
    let place = Place::new();
    let runs = Runs::new(&place, "! grep -q stuck \"$f\" || sleep 600");
    let names = ["a", "b", "stuck", "d"];
    let ids =
        waiting(&place, &format!("{}batch_size = 4\ntimeout = \"1s\"\nconcurrency = 1\n{ONCE}", runs.keys), &names);
    assert_eq!(place.cli(&["run", "--once"]).code, 1);
    let states: Vec<String> = ids.iter().map(|id| text(&place.show(*id), "state").to_owned()).collect();
    assert_eq!(states, ["completed", "completed", "failed", "completed"]);
    assert_eq!(text(&place.show(ids[2])["error"], "kind"), "timeout");
    assert_eq!(place.history().len(), 4);
}

#[test]
fn what_is_said_of_a_job_counts_and_the_others_share_the_exit_code() {
    let place = Place::new();
    let say = |name: &str, rest: &str| {
        format!("sed -n 's/.*\"job\":\\([0-9]*\\),.*\"path\":\"[^\"]*\\/{name}\".*/{{\"job\":\\1,{rest}}}/p' \"$f\"\n")
    };
    let script = say("good", "\"ok\":true")
        + &say("never", "\"ok\":false,\"error\":\"no such page\",\"retry\":false")
        + &say("later", "\"ok\":false,\"error\":\"busy\"")
        + "echo '{\"job\":4711,\"ok\":true}'; echo aside >&2; exit 75";
    let runs = Runs::new(&place, &script);
    let keys = format!("{}batch_size = 10\nretry = {{ base = \"1h\", max = \"1h\", jitter = \"none\" }}\n", runs.keys);
    let ids = waiting(&place, &keys, &["good", "never", "later", "silent"]);
    let _daemon = Daemon::start(&place);
    let good = place.wait_state(ids[0], "completed");
    let never = place.wait_state(ids[1], "failed");
    let later = place.wait_state(ids[2], "retrying");
    let silent = place.show(ids[3]);
    assert_eq!((text(&silent, "state"), count(&silent, "attempt")), ("pending", 0), "{silent}");
    assert_eq!(count(&good, "attempt"), 1);
    let error = json!({"kind": "answer", "message": "no such page", "permanent": true});
    assert_eq!(never["error"], error, "{never}");
    assert_eq!((count(&later, "attempt"), text(&later["error"], "message")), (1, "busy"), "{later}");
    for id in &ids {
        let logs = place.ok(&["logs", &id.to_string()]).stdout;
        assert!(logs.contains("aside\n") && logs.contains("\"ok\":true}"), "{logs}");
    }
    assert_eq!(runs.told().len(), 1);
}

#[test]
fn a_step_or_stage_in_a_batch_is_refused_where_it_does_not_say_whose_it_is() {
    let place = Place::new();
    let script = format!(
        "ingestd() {{ '{}' \"$@\"; echo \"exit $?\"; }}
         ingestd effect begin --kind x; ingestd stage sent --external-id known; ingestd effect begin --kind x --job 1
         sed -n 's/.*\"fence\":\\([0-9]*\\),.*\"job\":\\([0-9]*\\),.*/\\2 \\1/p' \"$f\" > \"$f.jobs\"
         while read -r job fence; do ingestd stage sent --job $job --fence $fence; done < \"$f.jobs\"",
        env!("CARGO_BIN_EXE_ingestd")
    );
    let runs = Runs::new(&place, &script);
    let keys = format!("{}batch_size = 2\nstages = [\"sent\"]\n", runs.keys);
    let ids = waiting(&place, &keys, &["a", "b"]);
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 2);
    let logs = place.ok(&["logs", &ids[0].to_string()]).stdout;
    assert_eq!(logs.matches("in a batch say which job").count(), 3, "{logs}");
    assert_eq!((logs.matches("exit 2").count(), logs.matches("exit 0").count()), (3, 2), "{logs}");
    assert!(ids.iter().all(|id| place.show(*id)["stage"] == "sent"));
}

#[test]
fn many_that_wait_take_no_more_executions_than_full_batches_need() {
    let place = Place::new();
    let runs = Runs::new(&place, "");
    let names = numbered(100);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ids = waiting(&place, &format!("{}batch_size = 30\nconcurrency = 1\n", runs.keys), &names);
    place.ok(&["run", "--once"]);
    let told = runs.told();
    assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [30, 30, 30, 10]);
    let order: Vec<i64> = told.iter().flatten().map(|job| count(job, "job")).collect();
    assert_eq!(order, ids, "the order of the queue");
    assert_eq!(place.history().len(), 100);
}

#[test]
fn a_lone_file_goes_at_once_however_long_a_batch_may_linger() {
    let place = Place::new();
    let runs = Runs::new(&place, "");
    place.configure(&format!(
        "[pipeline.p]\n{}batch_size = 10\nbatch_linger = \"1h\"\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
        runs.keys
    ));
    let _daemon = Daemon::start(&place);
    place.put("alone", "alone");
    place.wait_count("completed", 1);
    assert_eq!(runs.names(), [["alone"]]);
}

#[test]
fn a_batch_lingers_for_a_retry_that_is_known_to_become_due() {
    let place = Place::new();
    let runs = Runs::new(&place, "! grep -q '\"attempt\":1,.*/first\"' \"$f\"");
    let keys = format!(
        "{}batch_size = 2\nbatch_linger = \"1m\"\nretry = {{ base = \"4s\", max = \"4s\", jitter = \"none\" }}\n",
        runs.keys
    );
    let ids = waiting(&place, &keys, &["first"]);
    let _daemon = Daemon::start(&place);
    place.wait_state(ids[0], "retrying");
    place.add(&place.file("second", "2"), &[]);
    place.wait_count("completed", 2);
    let mut told = runs.names();
    told[1].sort();
    assert_eq!(told, [vec!["first"], vec!["first", "second"]]);
}

#[test]
fn concurrency_counts_executions_and_not_jobs() {
    for limits in ["[queue]\nconcurrency = 2\n[pipeline.p]\nconcurrency = 9\n", "[pipeline.p]\nconcurrency = 2\n"] {
        let place = Place::new();
        let runs = Runs::new(&place, WAIT);
        let names = numbered(9);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        waiting(&place, &format!("{}batch_size = 3\n", runs.keys), &names);
        place.configure(&format!("{limits}{}batch_size = 3\n", runs.keys));
        let _daemon = Daemon::start(&place);
        wait_until("two run", || runs.told().len() == 2);
        assert_eq!((place.in_state("running"), place.in_state("pending")), (6, 3), "{limits}");
        fs::write(place.at("go"), "").unwrap();
        place.wait_count("completed", 9);
        assert_eq!(runs.told().iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
    }
}

#[test]
fn a_token_of_the_rate_is_an_execution() {
    let place = Place::new();
    let runs = Runs::new(&place, "");
    let keys = format!("{}batch_size = 4\nrate = \"1/1h\"\n", runs.keys);
    waiting(&place, &keys, &["a", "b", "c", "d", "e"]);
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 4);
    assert_eq!((place.in_state("pending"), runs.told().len()), (1, 1));
}

#[test]
fn cancelling_one_of_a_batch_stops_it_and_puts_the_others_back_at_no_cost() {
    let place = Place::new();
    let runs = Runs::new(&place, WAIT);
    let ids = waiting(&place, &format!("{}batch_size = 3\n", runs.keys), &["a", "b", "c"]);
    let _daemon = Daemon::start(&place);
    wait_until("the batch runs", || runs.told().len() == 1);
    place.ok(&["cancel", &ids[1].to_string()]);
    place.wait_state(ids[1], "cancelled");
    // They are put back one by one, and a free permit may take the first before the second is there.
    let again = || {
        let mut names = runs.names()[1..].concat();
        names.sort();
        names
    };
    wait_until("the others run again", || again() == ["a", "c"]);
    fs::write(place.at("go"), "").unwrap();
    place.wait_count("completed", 2);
    assert_eq!(executions(&place, ids[1]), [("cancelled".to_owned(), false)]);
    for id in [ids[0], ids[2]] {
        assert_eq!(executions(&place, id), [("interrupted".to_owned(), false), ("completed".to_owned(), true)]);
        assert_eq!(count(&place.show(id), "attempt"), 1);
    }
    assert_eq!(again(), ["a", "c"], "once each");
}

#[test]
fn a_graceful_stop_puts_the_whole_batch_back() {
    let place = Place::new();
    let runs = Runs::new(&place, WAIT);
    let keys = format!("{}batch_size = 3\n[shutdown]\ngrace = \"0s\"\n", runs.keys);
    let ids = waiting(&place, &keys, &["a", "b", "c"]);
    let mut daemon = Daemon::start(&place);
    wait_until("the batch runs", || runs.told().len() == 1);
    assert_eq!(daemon.stop(), 0);
    for id in ids {
        let job = place.show(id);
        assert_eq!((text(&job, "state"), count(&job, "attempt"), count(&job, "crashes")), ("pending", 0, 0), "{job}");
    }
}

#[test]
fn after_two_crashes_the_jobs_of_a_batch_run_one_by_one() {
    let place = Place::new();
    let runs = Runs::new(&place, WAIT);
    let ids = waiting(&place, &format!("{}batch_size = 3\n", runs.keys), &["a", "b", "c"]);
    for crash in 1..=2 {
        let mut daemon = Daemon::start(&place);
        wait_until("the batch runs", || runs.told().len() == crash);
        daemon.kill();
    }
    fs::write(place.at("go"), "").unwrap();
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 3);
    assert_eq!(runs.told().iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1, 1, 1]);
    assert!(ids.iter().all(|id| count(&place.show(*id), "attempt") == 1));
}

#[test]
fn a_job_without_anything_to_process_ends_by_itself() {
    let place = Place::new();
    let runs = Runs::new(&place, "");
    let ids = waiting(&place, &format!("{}batch_size = 3\n", runs.keys), &["a", "gone", "c"]);
    fs::remove_file(place.at("files/gone")).unwrap();
    place.cli(&["run", "--once"]);
    let states: Vec<String> = ids.iter().map(|id| text(&place.show(*id), "state").to_owned()).collect();
    assert_eq!(states, ["completed", "skipped", "completed"]);
    assert_eq!(runs.names(), [["a", "c"]]);
}

#[test]
fn files_go_their_own_ways_and_equal_contents_are_processed_once() {
    let place = Place::new();
    let runs = Runs::new(&place, "! grep -q poison \"$f\"");
    place.configure(&format!(
        "[pipeline.p]\n{}batch_size = 10\nconcurrency = 1\n{ONCE}[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\n\
         settle = \"0s\"\ndedupe = \"content\"\non_success = {{ move = \"@PLACE@/done\" }}\n\
         on_failure = {{ move = \"@PLACE@/failed\" }}\n",
        runs.keys
    ));
    for (name, content) in [("a", "same"), ("b", "same"), ("poison", "p"), ("c", "other")] {
        place.put(name, content);
    }
    // Where both of equal content are in one batch, the second is put off until the first has its end.
    let _daemon = Daemon::start(&place);
    for (state, jobs) in [("completed", 2), ("skipped", 1), ("failed", 1)] {
        place.wait_count(state, jobs);
    }
    for moved in ["done/a", "done/b", "done/c", "failed/poison"] {
        assert!(place.at(moved).exists(), "{moved}");
    }
    let processed: BTreeSet<String> = runs.names().concat().into_iter().collect();
    assert!(processed.contains("a") != processed.contains("b"), "one of the two: {processed:?}");
}

/// A server that answers each batch by `answer`, which is told the jobs and makes status and body.
fn hook(answer: impl Fn(&[Value]) -> (u16, String) + Send + Sync + 'static) -> Server {
    Server::new(move |request, _| {
        let jobs: Vec<Value> = serde_json::from_slice(&request.body).unwrap();
        let (status, body) = answer(&jobs);
        Answer::Status(status, Vec::new(), body)
    })
}

#[test]
fn a_server_gets_an_array_and_answers_job_by_job_in_an_array_or_in_lines() {
    for lines in [false, true] {
        let server = hook(move |jobs| {
            let verdict = |job: &Value| match text(job, "path").rsplit('/').next() {
                Some("bad") => Some(json!({"job": job["job"], "ok": false, "error": "unreadable", "retry": false})),
                Some("silent") => None,
                _ => Some(json!({"job": job["job"], "ok": true})),
            };
            let verdicts: Vec<Value> = jobs.iter().filter_map(verdict).collect();
            let body = if lines {
                verdicts.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
            } else {
                Value::from(verdicts).to_string()
            };
            (if lines { 404 } else { 200 }, body)
        });
        let place = Place::new();
        let keys = format!("kind = \"http\"\nurl = \"{}\"\nbatch_size = 10\n", server.url("/in/{pipeline}"));
        let ids = waiting(&place, &keys, &["good", "bad", "silent"]);
        place.cli(&["run", "--once"]);
        let states: Vec<String> = ids.iter().map(|id| text(&place.show(*id), "state").to_owned()).collect();
        assert_eq!(states, ["completed", "failed", if lines { "failed" } else { "completed" }]);
        assert_eq!(place.show(ids[1])["error"], json!({"kind": "answer", "message": "unreadable", "permanent": true}));
        let received = server.received();
        assert_eq!((received.len(), received[0].target.as_str()), (1, "/in/p"));
        assert_eq!((received[0].header("x-ingestd-batch"), received[0].header("x-ingestd-job")), ("3", ""));
        assert_eq!(received[0].header("content-type"), "application/json");
        assert_eq!(received[0].header("idempotency-key").len(), 64);
        let sent: Vec<Value> = serde_json::from_slice(&received[0].body).unwrap();
        assert_eq!(sent.iter().map(|job| count(job, "job")).collect::<Vec<_>>(), ids);
    }
}

#[test]
fn a_status_is_for_everyone_and_a_refused_batch_is_halved() {
    let server = hook(|jobs| {
        let bad = jobs.iter().any(|job| text(job, "path").ends_with("/bad"));
        (if bad { 422 } else { 200 }, "thanks".to_owned())
    });
    let place = Place::new();
    let keys = format!("kind = \"http\"\nurl = \"{}\"\nbatch_size = 10\n", server.url("/"));
    let ids = waiting(&place, &keys, &["a", "b", "bad", "d"]);
    place.cli(&["run", "--once"]);
    let states: Vec<String> = ids.iter().map(|id| text(&place.show(*id), "state").to_owned()).collect();
    assert_eq!(states, ["completed", "completed", "failed", "completed"]);
    assert_eq!(place.history().len(), 4, "one execution each");
    assert_eq!(server.received().len(), 5);
}

#[test]
fn leases_are_renewed_while_a_long_batch_is_searched_for_its_culprit() {
    let place = Place::new();
    let runs = Runs::new(&place, "! grep -q poison \"$f\" || { sleep 1; exit 1; }");
    let keys = format!("{}batch_size = 4\nconcurrency = 1\n{ONCE}[queue]\nlease = \"1s\"\n", runs.keys);
    let ids = waiting(&place, &keys, &["a", "b", "c", "poison"]);
    place.cli(&["run", "--once"]);
    let states: Vec<String> = ids.iter().map(|id| text(&place.show(*id), "state").to_owned()).collect();
    assert_eq!(states, ["completed", "completed", "completed", "failed"]);
    assert!(ids.iter().all(|id| executions(&place, *id).len() == 1), "none was taken back");
}

#[test]
fn placeholders_of_a_single_job_are_refused() {
    let place = Place::with("[pipeline.p]\nkind = \"exec\"\nbatch_size = 2\ncommand = [\"x\", \"{path}\"]\n");
    let refused = place.exits(2, &["config", "check"]);
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert!(told.contains("pipeline.p.command[1]") && told.contains("{path} stands for one job"), "{told}");
}

#[test]
fn noop_takes_batches_too() {
    let place = Place::new();
    waiting(&place, "kind = \"noop\"\nbatch_size = 3\n", &["a", "b", "c", "d"]);
    place.ok(&["run", "--once"]);
    assert_eq!(place.in_state("completed"), 4);
}

#[test]
fn a_second_signal_stops_a_batch_at_once() {
    let place = Place::new();
    let runs = Runs::new(&place, "trap '' TERM; while :; do sleep 0.05; done");
    let ids = waiting(&place, &format!("{}batch_size = 2\n", runs.keys), &["a", "b"]);
    let daemon = Daemon::start(&place);
    wait_until("the batch runs", || runs.told().len() == 1);
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::TERM);
    drop(daemon);
    let _daemon = Daemon::start(&place);
    wait_until("it runs again", || runs.told().len() == 2);
    assert!(ids.iter().all(|id| count(&place.show(*id), "attempt") == 0));
}

#[tokio::test]
async fn operations_never_share_an_execution_and_a_batch_is_one_turn_of_its_pipeline() {
    let f = Fixture::new().await;
    f.enqueue(file("/docs/0", 1)).await;
    let (lease, _) = f.lease_one().await;
    f.settle_with(lease, Verdict::Complete, Some(content(1, 1))).await;
    f.store.enqueue(vec![file("/docs/1", 1)]).await.unwrap();
    f.enqueue(NewJob { digest: Some(digest(2)), ..file("/docs/0", 2) }).await;
    f.store.enqueue((2..7).map(|number| file(&format!("/docs/{number}"), 1)).collect()).await.unwrap();
    let other = (0..3).map(|number| NewJob { pipeline: "other".to_owned(), ..file(&format!("/other/{number}"), 1) });
    f.store.enqueue(other.collect()).await.unwrap();
    let docs = Want { batch: Batching { size: 4, linger: Duration::ZERO }, ..Want::single("docs", 5) };
    let leased = f.store.lease(vec![docs, Want::single("other", 5)], 4, Appetite::Regular).await.unwrap();
    assert_eq!(leased.executions, [4, 1, 1, 1], "adds, one of the other pipeline, the modify, another one");
    let names: Vec<String> = leased.work.iter().map(|(_, work)| work.path.display().to_string()).collect();
    let expected = ["/docs/1", "/docs/2", "/docs/3", "/docs/4", "/other/0", "/docs/0", "/other/1"];
    assert_eq!(names, expected);
}
