//! Steps that are taken once: recorded before and after, replayed, and unknown where a crash came in between.

use std::fs;

use serde_json::Value;

use crate::support::*;

/// A pipeline whose command is this script, in which `ingestd` is the program under test. It notes what `begin` said.
fn scripted(place: &Place, script: &str) {
    let program = env!("CARGO_BIN_EXE_ingestd");
    let script = format!(
        "ingestd() {{ \"{program}\" \"$@\"; }}
         begin() {{ said=$(ingestd effect begin --kind upload --context '{{\"part\": 1}}') || exit 70
                   word=${{said%% *}} rest=${{said#* }}; id=${{rest%% *}} rest=${{rest#* }}; echo \"$word $rest\" >> @PLACE@/said; }}
         {script}"
    );
    place.file("step.sh", script.replace("@PLACE@", place.at("").to_str().unwrap()));
    place.configure(
        "[pipeline.step]\nkind = \"exec\"\ncommand = [\"sh\", \"@PLACE@/files/step.sh\"]\nconcurrency = 1\n\
         retry = { base = \"10ms\", max = \"20ms\" }\n",
    );
}

/// What `begin` said, in order: the word, and the key or the result.
fn said(place: &Place) -> Vec<(String, String)> {
    let lines = fs::read_to_string(place.at("said")).unwrap_or_default();
    let pair = |line: &str| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.to_owned())).unwrap();
    lines.lines().map(pair).collect()
}

fn words(place: &Place) -> Vec<String> {
    said(place).into_iter().map(|(word, _)| word).collect()
}

fn effects(place: &Place, job: i64) -> Vec<Value> {
    place.show(job)["effects"].as_array().unwrap().clone()
}

/// Lets the script go on once, where it waits for `go`.
fn go(place: &Place) {
    fs::write(place.at("go"), "").unwrap();
}

/// The job of a file that was begun, and whose daemon was killed between the step and its result.
fn interrupted(place: &Place) -> i64 {
    scripted(
        place,
        "begin
         case $word in
           run) echo step >> @PLACE@/taken; while [ ! -e @PLACE@/go ]; do sleep 0.05; done
                ingestd effect commit \"$id\" --result '{\"n\": 7}';;
           unknown) exit 65;;
           done) [ \"$rest\" = '{\"n\":7}' ];;
         esac",
    );
    let mut daemon = Daemon::start(place);
    let job = place.add(&place.file("a", "a"), &[]);
    wait_until("the step is taken", || place.at("taken").exists());
    assert_eq!(effects(place, job)[0]["state"], "begun");
    daemon.kill();
    job
}

fn taken(place: &Place) -> usize {
    fs::read_to_string(place.at("taken")).unwrap().lines().count()
}

/// Leaves a completed job as a crash between the commit of its answer and that of its verdict would: the ledger is all
/// that is left of the execution.
fn unsettle(place: &Place, job: i64) {
    let database = rusqlite::Connection::open(place.database()).unwrap();
    let leased = format!(
        "UPDATE jobs SET state = 'running', finished_at = NULL, attempt = 0, lease_deadline = 1,
                boot = (SELECT max(id) FROM boots) WHERE id = {job};
         DELETE FROM attempts WHERE job = {job};
         UPDATE boots SET stopped_at = NULL WHERE id = (SELECT max(id) FROM boots);
         DELETE FROM counters;
         INSERT INTO counters (pipeline, state, priority, n)
         SELECT pipeline, state, priority, count(*) FROM jobs GROUP BY 1, 2, 3"
    );
    database.execute_batch(&leased).unwrap();
}

#[test]
fn a_step_that_a_crash_interrupted_is_unknown_and_a_person_says_that_it_was_done() {
    let place = Place::new();
    let job = interrupted(&place);
    let mut daemon = Daemon::start(&place);
    let failed = place.wait_state(job, "failed");
    assert_eq!((words(&place), taken(&place)), (vec!["run".to_owned(), "unknown".to_owned()], 1));
    assert_eq!(said(&place)[0].1, said(&place)[1].1, "the same key");
    let effect = &failed["effects"][0];
    assert_eq!((text(effect, "state"), text(effect, "kind")), ("unknown", "upload"));
    assert_eq!(place.status()["last_recovery"]["effects"], 1);
    let id = effect["id"].to_string();
    place.ok(&["effect", "resolve", &id, "--done", "--result", "{\"n\": 7}"]);
    place.ok(&["retry", &job.to_string()]);
    let done = place.wait_state(job, "completed");
    assert_eq!((words(&place).last().unwrap().as_str(), taken(&place)), ("done", 1));
    assert_eq!(done["effects"][0]["result"], serde_json::json!({ "n": 7 }));
    daemon.stop();
}

#[test]
fn a_step_that_a_crash_interrupted_is_taken_again_where_a_person_says_so() {
    let place = Place::new();
    let job = interrupted(&place);
    let mut daemon = Daemon::start(&place);
    let failed = place.wait_state(job, "failed");
    daemon.stop();
    // Without a daemon too.
    let id = failed["effects"][0]["id"].to_string();
    place.exits(2, &["effect", "resolve", &id]);
    place.exits(3, &["effect", "resolve", "999", "--again"]);
    place.ok(&["effect", "resolve", &id, "--again"]);
    place.ok(&["retry", &job.to_string()]);
    go(&place);
    let _daemon = Daemon::start(&place);
    place.wait_state(job, "completed");
    assert_eq!((words(&place), taken(&place)), (["run", "unknown", "run"].map(str::to_owned).to_vec(), 2));
}

#[test]
fn a_step_that_is_done_is_not_taken_again_after_a_crash() {
    let place = Place::new();
    scripted(
        &place,
        "begin
         if [ $word = run ]; then echo step >> @PLACE@/taken; ingestd effect commit $id --result '\"receipt 5\"'; fi
         touch @PLACE@/committed
         while [ ! -e @PLACE@/go ]; do sleep 0.05; done",
    );
    let mut daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &[]);
    wait_until("the result is committed", || place.at("committed").exists());
    daemon.kill();
    go(&place);
    let _daemon = Daemon::start(&place);
    let done = place.wait_state(job, "completed");
    assert_eq!((words(&place), taken(&place)), (["run", "done"].map(str::to_owned).to_vec(), 1));
    let listed = place.ok(&["effect", "list", &job.to_string(), "--json"]).json_lines();
    assert_eq!(listed, done["effects"].as_array().unwrap().clone());
    assert_eq!((text(&listed[0], "result"), &listed[0]["context"]["part"]), ("receipt 5", &Value::from(1)));
    let shown = place.ok(&["show", &job.to_string()]).stdout;
    assert!(shown.contains("upload") && shown.contains("receipt 5"), "{shown}");
}

#[test]
fn what_is_said_under_a_stale_fence_is_refused_and_nothing_is_written() {
    let place = Place::new();
    scripted(&place, "echo $INGESTD_FENCE > @PLACE@/fence; begin; while [ ! -e @PLACE@/go ]; do sleep 0.05; done");
    let mut daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &[]);
    wait_until("the step is begun", || !said(&place).is_empty());
    let fence: i64 = fs::read_to_string(place.at("fence")).unwrap().trim().parse().unwrap();
    let (job_text, id) = (job.to_string(), effects(&place, job)[0]["id"].to_string());
    let stale = (fence - 1).to_string();
    let refused = place.exits(1, &["effect", "commit", &id, "--job", &job_text, "--fence", &stale]);
    assert!(refused.stderr.contains("this attempt is over"), "{refused:?}");
    let refused = place.exits(1, &["effect", "abort", &id, "--job", &job_text, "--fence", &stale]);
    assert!(refused.stderr.contains("this attempt is over"), "{refused:?}");
    place.exits(3, &["effect", "abort", "999", "--job", &job_text, "--fence", &fence.to_string()]);
    let begin = ["effect", "begin", "--kind", "x", "--job", &job_text, "--fence", &stale];
    place.exits(1, &begin);
    place.exits(1, &["stage", "sent", "--job", &job_text, "--fence", &stale]);
    place.exits(2, &["effect", "begin", "--kind", "x"]);
    place.exits(2, &["effect", "begin", "--kind", "X", "--job", &job_text, "--fence", &fence.to_string()]);
    let live = ["effect", "begin", "--kind", "x", "--job", &job_text, "--fence", &fence.to_string(), "--context", "{"];
    place.exits(2, &live);
    let held = place.exits(1, &["effect", "resolve", &id, "--again"]);
    assert!(held.stderr.contains("which runs"), "{held:?}");
    assert_eq!(effects(&place, job).len(), 1);
    go(&place);
    place.wait_state(job, "completed");
    daemon.stop();
    // Nobody runs: no attempt lives.
    let refused =
        place.exits(1, &["effect", "begin", "--kind", "x", "--job", &job_text, "--fence", &fence.to_string()]);
    assert!(refused.stderr.contains("this attempt is over"), "{refused:?}");
}

#[test]
fn of_two_who_begin_a_step_at_once_one_is_told_to_take_it() {
    let place = Place::new();
    scripted(
        &place,
        "for n in 1 2 3 4; do
           ingestd effect begin --kind race --json > @PLACE@/race-$n & done
         wait",
    );
    let _daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &[]);
    place.wait_state(job, "completed");
    let told = |n: i32| -> Value { serde_json::from_slice(&fs::read(place.at(format!("race-{n}"))).unwrap()).unwrap() };
    let mut told: Vec<String> = (1..=4).map(|n| text(&told(n), "effect").to_owned()).collect();
    told.sort();
    assert_eq!(told, ["run", "unknown", "unknown", "unknown"]);
}

#[test]
fn commands_inside_a_processor_find_its_database_without_any_configuration() {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_ingestd");
    place.file("step.sh", format!("\"{program}\" effect begin --kind upload && \"{program}\" list -q"));
    place.put("a", "a");
    let (inbox, script) = (place.inbox(), place.at("files/step.sh"));
    let exec = format!("sh {}", script.display());
    let arguments = ["run", "--watch", inbox.to_str().unwrap(), "--exec", &exec, "--once"];
    let once = finish(place.program().args(arguments));
    assert_eq!(once.code, 0, "{once:?}");
}

/// The block of the README that shows how a step is taken once.
fn documented() -> &'static str {
    let readme = include_str!("../../README.md");
    let from = readme.find("out=$(ingestd effect begin").unwrap();
    &readme[from..from + readme[from..].find("```").unwrap()]
}

#[test]
fn the_documented_script_gives_back_what_was_refused_and_takes_what_the_other_side_does_not_know() {
    let place = Place::new();
    // The other side refuses, then dies in the middle, and has nothing when it is asked.
    let charge = "charge() {
           if [ \"$1\" = --find ]; then echo \"find $2\" >> @PLACE@/charged; return 1; fi
           echo \"take $2\" >> @PLACE@/charged
           case $(grep -c take @PLACE@/charged) in 1) return 2;; 2) return 7;; *) echo 'receipt *';; esac; }
         echo x >> @PLACE@/runs; [ $(wc -l < @PLACE@/runs) -lt 9 ] || exit 65";
    scripted(&place, &format!("{charge}\n{}", documented().replace("exit 75", "exit 71")));
    let _daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &[]);
    let done = place.wait_state(job, "completed");
    let charged = fs::read_to_string(place.at("charged")).unwrap();
    let words: Vec<&str> = charged.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!(words, ["take", "take", "find", "take"]);
    let keys: std::collections::BTreeSet<&str> = charged.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(keys, [text(&done["effects"][0], "key")].into());
    assert_eq!((text(&done["effects"][0], "result"), text(&done["effects"][0], "state")), ("receipt *", "done"));
    let id = done["effects"][0]["id"].to_string();
    for word in ["--again", "--done"] {
        let refused = place.exits(1, &["effect", "resolve", &id, word]);
        assert!(refused.stderr.contains("is done"), "{refused:?}");
    }
    place.exits(2, &["effect", "resolve", &id, "--again", "--result", "1"]);
}

#[test]
fn an_answer_that_was_committed_is_replayed_without_a_call() {
    let place = Place::new();
    let server = Server::always(Answer::Status(201, Vec::new(), "receipt 9".to_owned()));
    place.configure(&format!(
        "[pipeline.hook]\nkind = \"http\"\nurl = \"{}\"\nretry = {{ base = \"10ms\", max = \"20ms\", max_attempts = 2 }}\n",
        server.url("/in?token=secret")
    ));
    let mut daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &[]);
    let done = place.wait_state(job, "completed");
    daemon.stop();
    let effect = &done["effects"][0];
    assert_eq!((text(effect, "kind"), text(effect, "state")), ("http", "done"));
    assert_eq!(effect["result"], serde_json::json!({ "status": 201, "answer": "receipt 9" }));
    assert!(!effect.to_string().contains("secret"), "{effect}");
    unsettle(&place, job);
    let _daemon = Daemon::start(&place);
    let again = place.wait_state(job, "completed");
    assert_eq!(server.received().len(), 1);
    assert_eq!(again["attempts"].as_array().unwrap().last().unwrap()["code"], 201);
}

#[test]
fn a_call_that_failed_is_made_again() {
    let place = Place::new();
    let server = Server::new(|_, before| Answer::status(if before == 0 { 500 } else { 204 }));
    place.configure(&format!(
        "[pipeline.hook]\nkind = \"http\"\nurl = \"{}\"\nretry = {{ base = \"10ms\", max = \"20ms\" }}\n",
        server.url("/in")
    ));
    let _daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &[]);
    let done = place.wait_state(job, "completed");
    assert_eq!(server.received().len(), 2);
    assert_eq!(done["effects"].as_array().unwrap().len(), 1);
}

#[test]
fn what_becomes_of_a_processed_file_stands_in_the_ledger() {
    let place = Place::with(
        "[pipeline.nothing]\nkind = \"noop\"\n[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"nothing\"\n\
         settle = \"20ms\"\non_success = { move = \"@PLACE@/done\" }\n",
    );
    place.put("a", "a");
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    let job = count(&place.newest_of("a").unwrap(), "id");
    let effect = effects(&place, job)[0].clone();
    assert_eq!((text(&effect, "kind"), text(&effect, "state")), ("move", "done"));
    assert_eq!(text(&effect["context"], "to"), place.at("done/a").to_str().unwrap());
}
